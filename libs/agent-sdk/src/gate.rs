//! The way in: what every binding's call passes before and after the official request handler.
//!
//! Before: bounds, which are refused naming the field, and admission, so that an overloaded agent says no before a
//! task exists. After: recovery. The official handler feeds subscribers through a short broadcast and refuses events
//! of a task that a cancellation has just ended; both reach a caller as an error although the task is well. Here such
//! a caller is joined to the task again and sees how it really goes on.

use std::sync::Arc;

use a2a::{
    A2AError, AgentCard, CancelTaskRequest, DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest, GetTaskPushNotificationConfigRequest, GetTaskRequest,
    ListTaskPushNotificationConfigsRequest, ListTaskPushNotificationConfigsResponse, ListTasksRequest,
    ListTasksResponse, SendMessageRequest, SendMessageResponse, StreamResponse, SubscribeToTaskRequest, Task,
    TaskPushNotificationConfig, error_code,
};
use a2a_server::middleware::ServiceParams;
use a2a_server::{DefaultRequestHandler, RequestHandler};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use muster_api::error::{Error, Reason};

use crate::metrics::{Meters, Method, Sender};
use crate::refusal;
use crate::running::{Running, Ticket};
use crate::size;
use crate::task_store::{TaskStore, is_settled, keep_last};

/// Header under which the gate tells the execution which reserved place is its own. Callers cannot set it.
pub(crate) const TICKET: &str = "muster-internal-ticket";

/// Most parts of a message.
const MAX_PARTS: usize = 64;
/// Longest identifier in a message.
const MAX_ID: usize = 256;
/// How often one subscriber is joined to its task again before it is told the error.
const MAX_REJOINS: usize = 100;

/// The official handler behind the gate.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) handler: Arc<DefaultRequestHandler>,
    pub(crate) running: Running,
    pub(crate) tasks: TaskStore,
    pub(crate) max_message_bytes: usize,
    pub(crate) meters: Meters,
}

impl Gate {
    /// Refuses what is out of bounds, naming the field.
    fn check(&self, request: &SendMessageRequest) -> Result<(), A2AError> {
        let message = &request.message;
        if message.message_id.is_empty() || message.message_id.len() > MAX_ID {
            return Err(refusal::invalid_field(
                "message.message_id",
                &format!(
                    "is {} bytes long; 1 to {MAX_ID} are allowed",
                    message.message_id.len()
                ),
            ));
        }
        if message.parts.is_empty() || message.parts.len() > MAX_PARTS {
            return Err(refusal::invalid_field(
                "message.parts",
                &format!("has {} parts; 1 to {MAX_PARTS} are allowed", message.parts.len()),
            ));
        }
        for (field, id) in [
            ("message.task_id", &message.task_id),
            ("message.context_id", &message.context_id),
        ] {
            if let Some(id) = id.as_ref().filter(|id| id.len() > MAX_ID) {
                let message = format!("is {} bytes long; at most {MAX_ID} are allowed", id.len());
                return Err(refusal::invalid_field(field, &message));
            }
        }
        let bytes = size::message(message) + size::metadata(request.metadata.as_ref());
        if bytes > self.max_message_bytes {
            let error = Error::new(
                Reason::MessageTooLarge,
                format!(
                    "the message has {bytes} bytes; this agent takes {} (`server.max_message_bytes`)",
                    self.max_message_bytes
                ),
            );
            return Err(refusal::to_a2a(&error.with_field("message")));
        }
        Ok(())
    }

    /// Checks and admits a message; the headers that come back carry the ticket.
    async fn enter(
        &self,
        headers: &ServiceParams,
        request: &SendMessageRequest,
    ) -> Result<(ServiceParams, Ticket), A2AError> {
        self.check(request)?;
        let task_id = request.message.task_id.as_deref();
        if let Some(task_id) = task_id {
            // The task may wait for this message already while its last execution is still being put away.
            if self.tasks.state(task_id).is_some_and(|state| is_settled(&state)) {
                self.running.ended(task_id).await;
            }
        }
        let ticket = self
            .running
            .admit(task_id.is_some())
            .inspect_err(|refusal| self.meters.refused(refusal.reason))
            .map_err(|refusal| refusal::to_a2a(&refusal))?;
        let mut headers = headers.clone();
        headers.insert(TICKET.to_owned(), vec![ticket.key().to_string()]);
        Ok((headers, ticket))
    }

    /// The task of a call whose subscription broke, when it has settled; bounded by the handler's own timeout.
    async fn settled(&self, request: &SendMessageRequest, task_id: &str) -> Option<Task> {
        let configuration = request.configuration.as_ref();
        let at_once = configuration.and_then(|it| it.return_immediately) == Some(true);
        if !at_once {
            self.running.ended(task_id).await;
        }
        let mut task = self.tasks.find(task_id)?;
        keep_last(&mut task, configuration.and_then(|it| it.history_length));
        (at_once || is_settled(&task.status.state)).then_some(task)
    }

    /// Passes a subscription on and joins it to its task again where it breaks.
    fn follow(
        &self,
        headers: &ServiceParams,
        events: BoxStream<'static, Result<StreamResponse, A2AError>>,
        subject: Subject,
    ) -> BoxStream<'static, Result<StreamResponse, A2AError>> {
        let following = Following {
            gate: self.clone(),
            headers: headers.clone(),
            events,
            subject,
            rejoins: 0,
        };
        futures::stream::unfold(
            Some(following),
            |following| async move { following?.next().await },
        )
        .boxed()
    }
}

/// Which task a subscription is about.
enum Subject {
    /// One that the message makes or continues.
    Ticket(Ticket),
    /// A known one.
    Task(String),
}

impl Subject {
    fn task_id(&self) -> Option<&str> {
        match self {
            Self::Ticket(ticket) => ticket.task_id(),
            Self::Task(id) => Some(id),
        }
    }
}

/// A subscription that survives its breaks.
struct Following {
    gate: Gate,
    headers: ServiceParams,
    events: BoxStream<'static, Result<StreamResponse, A2AError>>,
    subject: Subject,
    rejoins: usize,
}

type Step = (Result<StreamResponse, A2AError>, Option<Following>);

impl Following {
    async fn next(mut self) -> Option<Step> {
        loop {
            let error = match self.events.next().await? {
                Ok(event) => return Some((Ok(event), Some(self))),
                Err(error) => error,
            };
            self.rejoins += 1;
            let Some(task_id) = self.subject.task_id().filter(|_| self.rejoins <= MAX_REJOINS) else {
                return Some((Err(error), None));
            };
            let again = SubscribeToTaskRequest {
                id: task_id.to_owned(),
                tenant: None,
            };
            match self.gate.handler.subscribe_to_task(&self.headers, again).await {
                Ok(events) => self.events = events,
                Err(_) => {
                    // No execution any more: the stored task is the last word.
                    let last = self.gate.tasks.find(task_id);
                    return Some((last.map(StreamResponse::Task).ok_or(error), None));
                }
            }
        }
    }
}

#[async_trait]
impl RequestHandler for Gate {
    async fn send_message(
        &self,
        headers: &ServiceParams,
        request: SendMessageRequest,
    ) -> Result<SendMessageResponse, A2AError> {
        let _timing = self.meters.received(Method::Send, Sender::of(headers));
        let (headers, ticket) = self.enter(headers, &request).await?;
        match self.handler.send_message(&headers, request.clone()).await {
            Ok(response) => Ok(response),
            Err(error) => {
                let Some(task_id) = ticket.task_id() else {
                    return Err(error);
                };
                let task = self.settled(&request, task_id).await.ok_or(error)?;
                Ok(SendMessageResponse::Task(task))
            }
        }
    }

    async fn send_streaming_message(
        &self,
        headers: &ServiceParams,
        request: SendMessageRequest,
    ) -> Result<BoxStream<'static, Result<StreamResponse, A2AError>>, A2AError> {
        let timing = self.meters.received(Method::Stream, Sender::of(headers));
        let (headers, ticket) = self.enter(headers, &request).await?;
        let events = self.handler.send_streaming_message(&headers, request).await?;
        let events = self.follow(&headers, events, Subject::Ticket(ticket));
        Ok(events.inspect(move |_| _ = &timing).boxed())
    }

    async fn get_task(&self, headers: &ServiceParams, request: GetTaskRequest) -> Result<Task, A2AError> {
        let _timing = self.meters.received(Method::GetTask, Sender::of(headers));
        self.handler.get_task(headers, request).await
    }

    async fn list_tasks(
        &self,
        headers: &ServiceParams,
        request: ListTasksRequest,
    ) -> Result<ListTasksResponse, A2AError> {
        let _timing = self.meters.received(Method::ListTasks, Sender::of(headers));
        self.handler.list_tasks(headers, request).await
    }

    async fn cancel_task(
        &self,
        headers: &ServiceParams,
        request: CancelTaskRequest,
    ) -> Result<Task, A2AError> {
        let _timing = self.meters.received(Method::CancelTask, Sender::of(headers));
        self.handler.cancel_task(headers, request).await
    }

    async fn subscribe_to_task(
        &self,
        headers: &ServiceParams,
        request: SubscribeToTaskRequest,
    ) -> Result<BoxStream<'static, Result<StreamResponse, A2AError>>, A2AError> {
        let timing = self.meters.received(Method::Subscribe, Sender::of(headers));
        let id = request.id.clone();
        let events = match self.handler.subscribe_to_task(headers, request).await {
            Ok(events) => events,
            // A task that waits for its caller has no execution; its state is all there is to see.
            Err(error) if error.code == error_code::TASK_NOT_FOUND => {
                let task = self.tasks.find(&id).ok_or(error)?;
                futures::stream::iter([Ok(StreamResponse::Task(task))]).boxed()
            }
            Err(error) => return Err(error),
        };
        let events = self.follow(headers, events, Subject::Task(id));
        Ok(events.inspect(move |_| _ = &timing).boxed())
    }

    async fn create_push_config(
        &self,
        headers: &ServiceParams,
        request: TaskPushNotificationConfig,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        self.handler.create_push_config(headers, request).await
    }

    async fn get_push_config(
        &self,
        headers: &ServiceParams,
        request: GetTaskPushNotificationConfigRequest,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        self.handler.get_push_config(headers, request).await
    }

    async fn list_push_configs(
        &self,
        headers: &ServiceParams,
        request: ListTaskPushNotificationConfigsRequest,
    ) -> Result<ListTaskPushNotificationConfigsResponse, A2AError> {
        self.handler.list_push_configs(headers, request).await
    }

    async fn delete_push_config(
        &self,
        headers: &ServiceParams,
        request: DeleteTaskPushNotificationConfigRequest,
    ) -> Result<(), A2AError> {
        self.handler.delete_push_config(headers, request).await
    }

    async fn get_extended_agent_card(
        &self,
        headers: &ServiceParams,
        request: GetExtendedAgentCardRequest,
    ) -> Result<AgentCard, A2AError> {
        self.handler.get_extended_agent_card(headers, request).await
    }
}

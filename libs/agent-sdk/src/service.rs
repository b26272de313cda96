//! What A2A asks of an agent: every operation, whatever the binding.
//!
//! The order of things for a message: the version, the extensions that the card insists on, bounds, media types, the
//! task that it names, and then a place, so that an overloaded agent says no before a task exists. A caller that waits is answered
//! when nobody works on the task any more, or when its own deadline passes; the task goes on then.
//!
//! ```text
//! service.rs    the operations
//!   checks.rs   what is refused before anything is done
//!   around.rs   what stands around a message
//!   pushes.rs   push configurations
//!   left.rs     work that processes have left which have ended
//! ```

mod around;
mod checks;
mod left;
mod pushes;

use std::sync::Arc;

use a2a_pb::proto::{self as pb, TaskState};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue};
use muster_a2a::service::EXTENSIONS;
use muster_a2a::{Answer, Events, Head, ProtocolError, Reply, Request, Service};
use muster_api::error::{Error, Reason};
use muster_api::extension;
use muster_runtime::trace::FutureExt as _;
use muster_runtime::trust::Access;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use crate::Agent;
use crate::events;
use crate::execution::{Executor, Work};
use crate::metrics::{Method, Sender};
use crate::push::Pushes;
use crate::running::Run;
use crate::sent::{Delivery, First, Role};
use crate::tasks::Until;
use crate::tasks::record::{Errand, Record, Sent, is_terminal, keep_last, state};
use crate::tasks::table::unknown;
use crate::tasks::whose::{Own, conversation};
use around::{errand, time_left};
use checks::{check_length, check_task_id};

/// An agent as the bindings have it.
pub(crate) struct Desk<A> {
    pub(crate) executor: Arc<Executor<A>>,
    pub(crate) pushes: Pushes,
    pub(crate) max_message_bytes: usize,
    /// The card for those who have proved who they are.
    pub(crate) extended_card: Option<Arc<pb::AgentCard>>,
}

impl<A> Clone for Desk<A> {
    fn clone(&self) -> Self {
        Self {
            executor: Arc::clone(&self.executor),
            pushes: self.pushes.clone(),
            max_message_bytes: self.max_message_bytes,
            extended_card: self.extended_card.clone(),
        }
    }
}

/// How an admitted message goes on.
struct Begun {
    task_id: String,
    work: Work,
    run: Run,
}

/// How the answer to a message is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// When the task is settled.
    Later,
    /// At once.
    AtOnce,
    /// As a stream.
    Streamed,
}

/// What a message has come to.
struct Taken {
    task_id: String,
    /// The task when it is settled; nothing where it is to be looked for.
    settled: Option<oneshot::Receiver<pb::Task>>,
    /// Where the answer is a stream.
    events: Option<Events>,
}

impl<A: Agent> Desk<A> {
    async fn send(&self, head: &Head, request: pb::SendMessageRequest) -> Result<Answer, Status> {
        let _timing = self.meters().received(Method::Send, Sender::of(&head.headers));
        let configuration = request.configuration.clone().unwrap_or_default();
        let at_once = configuration.return_immediately;
        let manner = if at_once { Manner::AtOnce } else { Manner::Later };
        let Taken { task_id, settled, .. } = self.take(head, request, manner).await?;
        let tasks = &self.executor.tasks;
        let mut task = if at_once {
            let access = Access::in_extensions(&head.extensions);
            tasks
                .seen_by(&access)
                .find(&task_id)
                .await?
                .ok_or_else(|| *unknown(&task_id))?
        } else {
            let settled = async {
                match settled {
                    None => None,
                    Some(settled) => settled.await.ok(),
                }
            };
            let settled = async {
                match settled.await {
                    Some(task) => Ok(task),
                    None => tasks.outcome(&task_id).await,
                }
            };
            match time_left(&head.headers)? {
                None => settled.await,
                Some(left) => match tokio::time::timeout(left, settled).await {
                    Ok(settled) => settled,
                    Err(_) => return Err(self.too_late(&task_id).await),
                },
            }?
        };
        keep_last(&mut task, configuration.history_length);
        Ok(Answer::Sent(pb::SendMessageResponse {
            payload: Some(pb::send_message_response::Payload::Task(task)),
        }))
    }

    /// The caller gives up and learns the task's id, which has to be durable then.
    async fn too_late(&self, task_id: &str) -> Status {
        if let Err(status) = self.executor.tasks.announce(task_id).await {
            return status;
        }
        let message = format!(
            "task '{task_id}' takes longer than the caller allowed and goes on; read it with GetTask"
        );
        Error::new(Reason::DeadlineExceeded, message)
            .with_metadata("task", task_id)
            .into()
    }

    async fn stream(&self, head: &Head, request: pb::SendMessageRequest) -> Result<Answer, Status> {
        let timing = self.meters().received(Method::Stream, Sender::of(&head.headers));
        let taken = self.take(head, request, Manner::Streamed).await?;
        let events = taken.events.ok_or_else(|| *unknown(&taken.task_id))?;
        Ok(Answer::Events(events.inspect(move |_| _ = &timing).boxed()))
    }

    /// Takes a message: has it worked on, or finds what an earlier delivery of it has made.
    async fn take(
        &self,
        head: &Head,
        request: pb::SendMessageRequest,
        manner: Manner,
    ) -> Result<Taken, Status> {
        self.check(&request).map_err(|status| *status)?;
        let access = Access::in_extensions(&head.extensions);
        let second = self.executor.clock.now().as_second();
        let delivery = Delivery::new(&access.caller().key(), &request, second);
        let sent = self.executor.tasks.sent();
        loop {
            match sent.enter(delivery)? {
                Role::First(first) => return self.begin_apart(head, request, manner, first).await,
                Role::Later(mut first) => {
                    // It leaves when it is done.
                    let _ = first.changed().await;
                }
                Role::Known(task_id) => match self.take_again(&access, &task_id, manner).await? {
                    Some(taken) => return Ok(taken),
                    None => sent.forget(&delivery, &task_id),
                },
            }
        }
    }

    /// What a message has come to that was taken before; `None` where its task has been forgotten.
    async fn take_again(
        &self,
        access: &Access,
        task_id: &str,
        manner: Manner,
    ) -> Result<Option<Taken>, Status> {
        let tasks = &self.executor.tasks;
        let own = tasks.seen_by(access);
        let Some(task) = own.find(task_id).await? else {
            return Ok(None);
        };
        let mut taken = Taken {
            task_id: task_id.to_owned(),
            settled: None,
            events: None,
        };
        match manner {
            Manner::AtOnce => {}
            Manner::Later => taken.settled = tasks.wait(task_id).await?,
            Manner::Streamed if is_terminal(state(&task)) => taken.events = Some(only(task)),
            Manner::Streamed => {
                taken.events = Some(match own.follow(task_id, Until::Settled).await {
                    Ok(events) => events,
                    // It may have ended just now.
                    Err(status) => match own.find(task_id).await? {
                        Some(task) if is_terminal(state(&task)) => only(task),
                        _ => return Err(status),
                    },
                });
            }
        }
        Ok(Some(taken))
    }

    /// Begins in a task of its own, so that what was begun goes on where its caller leaves.
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the write of the task, and the work that it begins settles the task however it ends"
    )]
    async fn begin_apart(
        &self,
        head: &Head,
        request: pb::SendMessageRequest,
        manner: Manner,
        first: First,
    ) -> Result<Taken, Status> {
        let (desk, head) = (self.clone(), head.clone());
        let beginning = async move {
            let begun = desk.begin(&head, request, manner != Manner::Later, first.kept());
            let Begun { task_id, work, run } = begun.await?;
            first.made(&task_id);
            let tasks = &desk.executor.tasks;
            let settled = match manner {
                Manner::Later => tasks.wait(&task_id).await,
                Manner::AtOnce | Manner::Streamed => Ok(None),
            };
            let events = match manner {
                Manner::Streamed => {
                    let access = Access::in_extensions(&head.extensions);
                    Some(tasks.seen_by(&access).follow(&task_id, Until::Settled).await)
                }
                Manner::Later | Manner::AtOnce => None,
            };
            desk.executor.start(work, run);
            Ok(Taken {
                settled: settled?,
                events: events.transpose()?,
                task_id,
            })
        };
        let begun = tokio::spawn(beginning.with_current_context()).await;
        begun.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
    }

    /// Admits a message, and makes or takes up its task.
    async fn begin(
        &self,
        head: &Head,
        request: pb::SendMessageRequest,
        announced: bool,
        sent: Sent,
    ) -> Result<Begun, Status> {
        let push = self.push_of(&request).map_err(|status| *status)?;
        let errand = Errand {
            sent: Some(sent),
            ..errand(head, &request)
        };
        let mut message = request.message.unwrap_or_default();
        let is_follow_up = !message.task_id.is_empty();
        let executor = &self.executor;
        let access = Access::in_extensions(&head.extensions);
        let own = executor.tasks.seen_by(&access);
        if is_follow_up {
            let (context, bytes) = own.check_message(&message.task_id, &message.context_id).await?;
            self.check_growth(&message, bytes).map_err(|status| *status)?;
            message.context_id = context;
        }
        let run = executor
            .running
            .admit(is_follow_up)
            .inspect_err(|refusal| self.meters().refused(refusal.reason))?;
        let cancellation = CancellationToken::new();
        let (task, earlier, caller) = if is_follow_up {
            if let Some(config) = push.and_then(|push| push.config) {
                own.put_push(&message.task_id, config).await?;
            }
            let status = self.status(TaskState::Working, &message.task_id, &message.context_id);
            let task_id = message.task_id.clone();
            let resumed = executor
                .tasks
                .resume(&task_id, &message, errand.clone(), status, cancellation.clone())
                .await?;
            (resumed.task, resumed.earlier, resumed.caller)
        } else {
            message.task_id = Uuid::now_v7().to_string();
            if message.context_id.is_empty() {
                message.context_id = Uuid::now_v7().to_string();
            }
            let task = self.submitted(&message);
            let caller = access.caller().key();
            let mut record = Record::new(task.clone(), errand.clone(), &caller);
            record.pushes.extend(push);
            let announced = announced || !record.pushes.is_empty();
            executor
                .tasks
                .create(record, cancellation.clone(), announced)
                .await?;
            (task, Vec::new(), caller.to_string())
        };
        let work = Work {
            conversation: conversation(&caller, &task.context_id),
            task_id: task.id.clone(),
            context_id: task.context_id,
            earlier,
            message,
            errand,
            cancellation,
            is_follow_up,
        };
        Ok(Begun {
            task_id: task.id,
            work,
            run,
        })
    }

    fn submitted(&self, message: &pb::Message) -> pb::Task {
        pb::Task {
            id: message.task_id.clone(),
            context_id: message.context_id.clone(),
            status: Some(self.status(TaskState::Submitted, &message.task_id, &message.context_id)),
            history: vec![message.clone()],
            ..Default::default()
        }
    }

    fn status(&self, state: TaskState, task_id: &str, context_id: &str) -> pb::TaskStatus {
        events::status(&self.executor.clock, state, None, task_id, context_id)
    }

    async fn get(&self, own: Own<'_>, request: &pb::GetTaskRequest) -> Result<Answer, Status> {
        check_task_id("id", &request.id).map_err(|status| *status)?;
        check_length("history_length", request.history_length).map_err(|status| *status)?;
        let task = own.find(&request.id).await?;
        let mut task = task.ok_or_else(|| *unknown(&request.id))?;
        keep_last(&mut task, request.history_length);
        Ok(Answer::Task(task))
    }

    async fn cancel(&self, own: Own<'_>, request: &pb::CancelTaskRequest) -> Result<Answer, Status> {
        check_task_id("id", &request.id).map_err(|status| *status)?;
        let clock = &self.executor.clock;
        let event = |task: &pb::Task| events::cancelled(clock, task);
        let (task, is_new) = own.cancel(&request.id, event).await?;
        if is_new {
            self.meters().task_ended(TaskState::Canceled);
        }
        Ok(Answer::Task(task))
    }

    fn extended_card(&self) -> Result<Answer, Status> {
        match &self.extended_card {
            Some(card) => Ok(Answer::Card(pb::AgentCard::clone(card))),
            None if self.executor.card.has_extended => Err(ProtocolError::ExtendedAgentCardNotConfigured
                .status("this agent has an extended card, but there is nothing on it")),
            None => Err(ProtocolError::UnsupportedOperation
                .status("this agent has no extended card; its public card says all")),
        }
    }

    async fn dispatch(&self, head: &Head, request: Request) -> Result<Answer, Status> {
        head.check_version().map_err(|status| *status)?;
        self.check_extensions(head).map_err(|status| *status)?;
        self.check_streaming(&request).map_err(|status| *status)?;
        let received = |method| self.meters().received(method, Sender::of(&head.headers));
        let access = Access::in_extensions(&head.extensions);
        let own = self.executor.tasks.seen_by(&access);
        match request {
            Request::SendMessage(request) => self.send(head, request).await,
            Request::SendStreamingMessage(request) => self.stream(head, request).await,
            Request::GetTask(request) => {
                let _timing = received(Method::GetTask);
                self.get(own, &request).await
            }
            Request::ListTasks(request) => {
                let _timing = received(Method::ListTasks);
                own.list(&request).await.map(Answer::Tasks)
            }
            Request::CancelTask(request) => {
                let _timing = received(Method::CancelTask);
                self.cancel(own, &request).await
            }
            Request::SubscribeToTask(request) => {
                let timing = received(Method::Subscribe);
                check_task_id("id", &request.id).map_err(|status| *status)?;
                let events: Events = own.follow(&request.id, Until::Ended).await?;
                Ok(Answer::Events(events.inspect(move |_| _ = &timing).boxed()))
            }
            Request::CreatePushConfig(config) => {
                self.check_push(&config.task_id).map_err(|status| *status)?;
                self.create_push(own, &config).await
            }
            Request::GetPushConfig(request) => {
                self.check_push(&request.task_id).map_err(|status| *status)?;
                Self::get_push(own, &request).await
            }
            Request::ListPushConfigs(request) => {
                self.check_push(&request.task_id).map_err(|status| *status)?;
                Self::list_pushes(own, &request).await
            }
            Request::DeletePushConfig(request) => {
                self.check_push(&request.task_id).map_err(|status| *status)?;
                own.remove_push(&request.task_id, &request.id).await?;
                Ok(Answer::Done)
            }
            Request::GetExtendedAgentCard(_) => self.extended_card(),
        }
    }

    /// The extensions of ours that the caller uses, for the answer.
    fn used_extensions(&self, head: &Head) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for uri in head.extensions() {
            let is_ours = uri == extension::ROUTING
                || self.executor.card.extensions.iter().any(|known| known.uri == uri);
            if let (true, Ok(value)) = (is_ours, HeaderValue::from_str(uri)) {
                headers.append(EXTENSIONS, value);
            }
        }
        headers
    }

    /// The load by now, as ORCA writes it: newer than what the last heartbeat said.
    fn load(&self) -> HeaderValue {
        let load = format!("TEXT application_utilization={:.3}", self.executor.running.load());
        HeaderValue::from_str(&load).unwrap_or(HeaderValue::from_static("TEXT"))
    }

    fn meters(&self) -> &crate::metrics::Meters {
        &self.executor.meters
    }
}

impl<A: Agent> Service for Desk<A> {
    async fn answer(&self, head: Head, request: Request) -> Result<Reply, Status> {
        Access::in_extensions(&head.extensions).operation(request.operation())?;
        let answer = self.dispatch(&head, request).await?;
        let mut headers = self.used_extensions(&head);
        headers.insert(extension::LOAD_METADATA, self.load());
        Ok(Reply { answer, headers })
    }

    fn has_target(&self, target: &str) -> bool {
        target == "jsonrpc"
    }
}

/// A stream of a task that has ended.
fn only(task: pb::Task) -> Events {
    let event = pb::StreamResponse {
        payload: Some(pb::stream_response::Payload::Task(task)),
    };
    futures::stream::iter([Ok(event)]).boxed()
}

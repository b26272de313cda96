//! The two services that the benchmark brings along: an agent that costs as little as one can, and a forwarder that does
//! nothing but forward.
//!
//! Both are plain tonic services without the SDK, the chassis or metrics, so that what is measured is the way between
//! client and agent. The agent answers with a message, not with a task: a task has to be kept, by the agent and by whoever
//! remembers its owner, and that would be measured too. A stream has that one message, because A2A allows a stream that
//! begins with a message no more than it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::a2a::a2a_service_server::A2aService;
use muster_api::a2a::{
    AgentCard, CancelTaskRequest, DeleteTaskPushNotificationConfigRequest, GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest, GetTaskRequest, ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse, ListTasksRequest, ListTasksResponse, Message, Role,
    SendMessageRequest, SendMessageResponse, StreamResponse, SubscribeToTaskRequest, Task,
    TaskPushNotificationConfig, send_message_response, stream_response,
};
use tokio::sync::Semaphore;
use tokio_stream::{Once, Stream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

/// Calls that may wait for an agent whose capacity is limited; one more is refused.
const LONGEST_LINE: usize = 100_000;

/// The two operations that are measured.
pub trait Messages: Send + Sync + 'static {
    /// What a streaming call is answered with.
    type Events: Stream<Item = Result<StreamResponse, Status>> + Send + 'static;

    /// `SendMessage`.
    fn send(
        &self,
        request: SendMessageRequest,
    ) -> impl Future<Output = Result<SendMessageResponse, Status>> + Send;

    /// `SendStreamingMessage`.
    fn stream(
        &self,
        request: SendMessageRequest,
    ) -> impl Future<Output = Result<Self::Events, Status>> + Send;
}

/// Answers with what it was asked.
pub struct Echo {
    answered: AtomicU64,
    capacity: Option<Capacity>,
}

/// What limits an agent.
pub struct Capacity {
    time: Duration,
    places: Semaphore,
    all: u32,
    waiting: AtomicUsize,
}

impl Capacity {
    /// As many calls at once, each of which takes that time. Others wait in line, as they do at a server with a pool of
    /// threads: it is the worst that an agent can do to its callers, because no refusal tells of it.
    pub fn new(concurrency: u32, time: Duration) -> Self {
        Self {
            time,
            places: Semaphore::new(concurrency as usize),
            all: concurrency.max(1),
            waiting: AtomicUsize::new(0),
        }
    }

    async fn spend(&self) -> Result<(), Status> {
        let _waits = Waits::begin(&self.waiting)?;
        let closed = |_| Status::internal("the line is closed");
        let _place = self.places.acquire().await.map_err(closed)?;
        tokio::time::sleep(self.time).await;
        Ok(())
    }

    /// The part of the places that is taken.
    fn load(&self) -> f64 {
        let free = u32::try_from(self.places.available_permits()).unwrap_or(self.all);
        f64::from(self.all.saturating_sub(free)) / f64::from(self.all)
    }
}

/// A call in line or at work. A caller that goes leaves the line.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Result<Self, Status> {
        if waiting.fetch_add(1, Ordering::Relaxed) < LONGEST_LINE {
            return Ok(Self(waiting));
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        Err(Status::resource_exhausted("the agent's line is full"))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Echo {
    /// An agent with this capacity; without one it answers at once.
    pub const fn new(capacity: Option<Capacity>) -> Self {
        Self {
            answered: AtomicU64::new(0),
            capacity,
        }
    }

    /// From 0 to 1.
    pub fn load(&self) -> f64 {
        self.capacity.as_ref().map_or(0.0, Capacity::load)
    }

    async fn answer(&self, request: SendMessageRequest) -> Result<Message, Status> {
        let message = request
            .message
            .ok_or_else(|| Status::invalid_argument("message: is missing"))?;
        if let Some(capacity) = &self.capacity {
            capacity.spend().await?;
        }
        Ok(Message {
            message_id: format!("echo-{}", self.answered.fetch_add(1, Ordering::Relaxed)),
            role: Role::Agent.into(),
            parts: message.parts,
            ..Message::default()
        })
    }
}

impl Messages for Echo {
    type Events = Once<Result<StreamResponse, Status>>;

    async fn send(&self, request: SendMessageRequest) -> Result<SendMessageResponse, Status> {
        let payload = send_message_response::Payload::Message(self.answer(request).await?);
        Ok(SendMessageResponse {
            payload: Some(payload),
        })
    }

    async fn stream(&self, request: SendMessageRequest) -> Result<Self::Events, Status> {
        let payload = stream_response::Payload::Message(self.answer(request).await?);
        Ok(tokio_stream::once(Ok(StreamResponse {
            payload: Some(payload),
        })))
    }
}

/// Decodes a request, calls the agent over one connection that all calls share, and encodes its answer. It is what a router
/// cannot be cheaper than that looks at whole messages.
pub struct Forwarder {
    agent: A2aServiceClient<Channel>,
}

impl Forwarder {
    /// Forwards to this agent.
    pub fn new(agent: Channel) -> Self {
        Self {
            agent: A2aServiceClient::new(agent),
        }
    }
}

impl Messages for Forwarder {
    type Events = Streaming<StreamResponse>;

    async fn send(&self, request: SendMessageRequest) -> Result<SendMessageResponse, Status> {
        Ok(self.agent.clone().send_message(request).await?.into_inner())
    }

    async fn stream(&self, request: SendMessageRequest) -> Result<Self::Events, Status> {
        Ok(self
            .agent
            .clone()
            .send_streaming_message(request)
            .await?
            .into_inner())
    }
}

/// A2A, of which two operations are served.
pub struct Served<M>(pub std::sync::Arc<M>);

fn not_served<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only messages are measured"))
}

#[tonic::async_trait]
impl<M: Messages> A2aService for Served<M> {
    type SendStreamingMessageStream = M::Events;
    type SubscribeToTaskStream = M::Events;

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        self.0.send(request.into_inner()).await.map(Response::new)
    }

    async fn send_streaming_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<M::Events>, Status> {
        self.0.stream(request.into_inner()).await.map(Response::new)
    }

    async fn get_task(&self, _: Request<GetTaskRequest>) -> Result<Response<Task>, Status> {
        not_served()
    }

    async fn list_tasks(&self, _: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        not_served()
    }

    async fn cancel_task(&self, _: Request<CancelTaskRequest>) -> Result<Response<Task>, Status> {
        not_served()
    }

    async fn subscribe_to_task(
        &self,
        _: Request<SubscribeToTaskRequest>,
    ) -> Result<Response<M::Events>, Status> {
        not_served()
    }

    async fn create_task_push_notification_config(
        &self,
        _: Request<TaskPushNotificationConfig>,
    ) -> Result<Response<TaskPushNotificationConfig>, Status> {
        not_served()
    }

    async fn get_task_push_notification_config(
        &self,
        _: Request<GetTaskPushNotificationConfigRequest>,
    ) -> Result<Response<TaskPushNotificationConfig>, Status> {
        not_served()
    }

    async fn list_task_push_notification_configs(
        &self,
        _: Request<ListTaskPushNotificationConfigsRequest>,
    ) -> Result<Response<ListTaskPushNotificationConfigsResponse>, Status> {
        not_served()
    }

    async fn get_extended_agent_card(
        &self,
        _: Request<GetExtendedAgentCardRequest>,
    ) -> Result<Response<AgentCard>, Status> {
        not_served()
    }

    async fn delete_task_push_notification_config(
        &self,
        _: Request<DeleteTaskPushNotificationConfigRequest>,
    ) -> Result<Response<()>, Status> {
        not_served()
    }
}

//! The operations of A2A as the router forwards them: types, wire path, and whether one may be repeated.

use std::future::Future;

use http::uri::PathAndQuery;
use muster_api::a2a;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// A request that names a tenant.
pub trait Tenanted: Message + Clone + 'static {
    /// The tenant; empty for none.
    fn tenant(&self) -> &str;
    /// Replaces the tenant.
    fn set_tenant(&mut self, tenant: String);
}

/// What the agent gives back: one message, or a stream of them.
pub trait Answer: Sized + Send + 'static {
    /// Whether the time until it says how fast the agent works.
    const TIMED: bool;

    /// Makes the call.
    fn fetch<Q: Tenanted>(
        client: Grpc<Channel>,
        request: Request<Q>,
        path: &'static str,
    ) -> impl Future<Output = Result<Response<Self>, Status>> + Send;
}

/// One message.
#[derive(Debug, Clone)]
pub struct Single<M>(pub M);

impl<M: Message + Default + 'static> Answer for Single<M> {
    const TIMED: bool = true;

    async fn fetch<Q: Tenanted>(
        mut client: Grpc<Channel>,
        request: Request<Q>,
        path: &'static str,
    ) -> Result<Response<Self>, Status> {
        ready(&mut client).await?;
        let codec = ProstCodec::<Q, M>::default();
        let answer = client
            .unary(request, PathAndQuery::from_static(path), codec)
            .await?;
        Ok(answer.map(Single))
    }
}

impl<M: Message + Default + 'static> Answer for Streaming<M> {
    const TIMED: bool = false;

    async fn fetch<Q: Tenanted>(
        mut client: Grpc<Channel>,
        request: Request<Q>,
        path: &'static str,
    ) -> Result<Response<Self>, Status> {
        ready(&mut client).await?;
        let codec = ProstCodec::<Q, M>::default();
        client
            .server_streaming(request, PathAndQuery::from_static(path), codec)
            .await
    }
}

async fn ready(client: &mut Grpc<Channel>) -> Result<(), Status> {
    client
        .ready()
        .await
        .map_err(|error| Status::from_error(Box::new(error)))
}

/// One operation of A2A.
pub trait Operation: 'static {
    /// What is sent.
    type Request: Tenanted;
    /// What comes back.
    type Answer: Answer;
    /// Its name, as in JSON-RPC.
    const NAME: &'static str;
    /// Its name in metrics.
    const LABEL: &'static str;
    /// Its path in gRPC.
    const PATH: &'static str;
    /// Whether doing it twice does no harm, whatever the agent says.
    const REPEATABLE: bool;
}

macro_rules! operations {
    ($($(#[doc = $doc:literal])+ $name:ident: $request:ident => $answer:ty, $label:literal, repeatable: $repeatable:literal;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug)]
            pub enum $name {}

            impl Operation for $name {
                type Request = a2a::$request;
                type Answer = $answer;
                const NAME: &'static str = stringify!($name);
                const LABEL: &'static str = $label;
                const PATH: &'static str = concat!("/lf.a2a.v1.A2AService/", stringify!($name));
                const REPEATABLE: bool = $repeatable;
            }
        )+
    };
}

operations! {
    /// Sends a message and waits for the answer.
    SendMessage: SendMessageRequest => Single<a2a::SendMessageResponse>, "send_message", repeatable: false;
    /// Sends a message and follows the answer.
    SendStreamingMessage: SendMessageRequest => Streaming<a2a::StreamResponse>, "send_streaming_message", repeatable: false;
    /// Reads a task.
    GetTask: GetTaskRequest => Single<a2a::Task>, "get_task", repeatable: true;
    /// Lists tasks.
    ListTasks: ListTasksRequest => Single<a2a::ListTasksResponse>, "list_tasks", repeatable: true;
    /// Cancels a task. The second time it fails, so it is not repeated.
    CancelTask: CancelTaskRequest => Single<a2a::Task>, "cancel_task", repeatable: false;
    /// Follows a task.
    SubscribeToTask: SubscribeToTaskRequest => Streaming<a2a::StreamResponse>, "subscribe_to_task", repeatable: true;
    /// Adds a push configuration.
    CreateTaskPushNotificationConfig: TaskPushNotificationConfig => Single<a2a::TaskPushNotificationConfig>, "create_push_config", repeatable: false;
    /// Reads a push configuration.
    GetTaskPushNotificationConfig: GetTaskPushNotificationConfigRequest => Single<a2a::TaskPushNotificationConfig>, "get_push_config", repeatable: true;
    /// Lists push configurations.
    ListTaskPushNotificationConfigs: ListTaskPushNotificationConfigsRequest => Single<a2a::ListTaskPushNotificationConfigsResponse>, "list_push_configs", repeatable: true;
    /// Removes a push configuration; removing it again succeeds.
    DeleteTaskPushNotificationConfig: DeleteTaskPushNotificationConfigRequest => Single<()>, "delete_push_config", repeatable: true;
    /// Reads an agent's extended card.
    GetExtendedAgentCard: GetExtendedAgentCardRequest => Single<a2a::AgentCard>, "get_extended_agent_card", repeatable: true;
}

macro_rules! tenanted {
    ($($request:ident),+ $(,)?) => {
        $(impl Tenanted for a2a::$request {
            fn tenant(&self) -> &str {
                &self.tenant
            }

            fn set_tenant(&mut self, tenant: String) {
                self.tenant = tenant;
            }
        })+
    };
}

tenanted!(
    SendMessageRequest,
    GetTaskRequest,
    ListTasksRequest,
    CancelTaskRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
);

/// A request about one task.
pub trait AboutTask: Tenanted {
    /// Name of the field that holds the task's id.
    const FIELD: &'static str;
    /// The task's id.
    fn task_id(&self) -> &str;
}

macro_rules! about_task {
    ($($request:ident.$field:ident = $name:literal),+ $(,)?) => {
        $(impl AboutTask for a2a::$request {
            const FIELD: &'static str = $name;

            fn task_id(&self) -> &str {
                &self.$field
            }
        })+
    };
}

about_task!(
    GetTaskRequest.id = "id",
    CancelTaskRequest.id = "id",
    SubscribeToTaskRequest.id = "id",
    TaskPushNotificationConfig.task_id = "taskId",
    GetTaskPushNotificationConfigRequest.task_id = "taskId",
    ListTaskPushNotificationConfigsRequest.task_id = "taskId",
    DeleteTaskPushNotificationConfigRequest.task_id = "taskId",
);

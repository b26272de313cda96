//! The operations of A2A as the router forwards them: types, wire path, and whether one may be repeated.
//!
//! What is forwarded is encoded, so the core knows an operation as a [`Method`]. Bindings that have decoded messages name
//! it by its [`Operation`], which adds the types.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use muster_a2a::client::Client;
use muster_api::a2a;
use prost::Message;
use tonic::{Request, Response, Status};

use crate::bridge::{self, Inbound, Unanswered};
use crate::codec::Pieces;
use crate::frame::Peer;

/// One operation, without its types.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// Its name, as in JSON-RPC.
    pub name: &'static str,
    /// Its name in metrics.
    pub label: &'static str,
    /// Its path in gRPC.
    pub path: &'static str,
    /// Whether doing it twice does no harm, whatever the agent says.
    pub is_repeatable: bool,
    /// What it is about, and so where it goes.
    pub about: About,
    /// Whether a stream comes back.
    pub is_streamed: bool,
    /// Message that is sent, by its name in `lf.a2a.v1`.
    pub request: &'static str,
    /// Message that comes back.
    pub answer: &'static str,
    /// Number of the request's field `tenant`.
    pub tenant: u32,
}

/// What an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A message, for whoever serves its target.
    Message,
    /// The task that this field names, for its owner.
    Task {
        /// Number of the field.
        number: u32,
        /// Its name in JSON.
        field: &'static str,
    },
    /// Whatever the target has.
    Target,
}

/// A request that names a tenant.
pub trait Tenanted: Message + Clone + 'static {
    /// The tenant; empty for none.
    fn tenant(&self) -> &str;
    /// Replaces the tenant.
    fn set_tenant(&mut self, tenant: String);
}

/// What the agent gives back, encoded: one message, or a stream of them.
pub trait Answer: Sized + Send + 'static {
    /// Whether the time until it says how fast the agent works.
    const TIMED: bool;

    /// Makes the call over gRPC.
    fn fetch(
        peer: Peer<'_>,
        request: Request<Pieces>,
        method: &'static Method,
    ) -> impl Future<Output = Result<Response<Self>, Status>> + Send;

    /// Makes the call over a JSON binding, within the time that is left.
    fn bridge(
        client: &Client,
        request: Request<Pieces>,
        method: &'static Method,
        left: Option<Duration>,
    ) -> impl Future<Output = Result<Response<Self>, Unanswered>> + Send;
}

impl Answer for Bytes {
    const TIMED: bool = true;

    async fn fetch(
        peer: Peer<'_>,
        request: Request<Pieces>,
        method: &'static Method,
    ) -> Result<Response<Self>, Status> {
        peer.ask(request, method).await
    }

    async fn bridge(
        client: &Client,
        request: Request<Pieces>,
        method: &'static Method,
        left: Option<Duration>,
    ) -> Result<Response<Self>, Unanswered> {
        bridge::single(client, method, request, left).await
    }
}

impl Answer for Inbound {
    const TIMED: bool = false;

    async fn fetch(
        peer: Peer<'_>,
        request: Request<Pieces>,
        method: &'static Method,
    ) -> Result<Response<Self>, Status> {
        let response = peer.follow(request, method).await?;
        Ok(response.map(|stream| Self::Grpc(Box::new(stream))))
    }

    async fn bridge(
        client: &Client,
        request: Request<Pieces>,
        method: &'static Method,
        _: Option<Duration>,
    ) -> Result<Response<Self>, Unanswered> {
        bridge::stream(client, method, request).await
    }
}

/// One operation of A2A, with its types.
pub trait Operation: 'static {
    /// What is sent.
    type Request: Tenanted;
    /// What comes back: a [`Single`] message or [`Many`].
    type Answer;
    /// The operation without its types.
    const METHOD: &'static Method;
}

/// One message comes back.
#[derive(Debug)]
pub struct Single<M>(PhantomData<M>);

/// A stream of messages comes back.
#[derive(Debug)]
pub struct Many<M>(PhantomData<M>);

macro_rules! operations {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident($request:ident, tenant = $tenant:literal) -> $kind:ident<$answer:ty: $answer_name:literal>,
        $label:literal, $repeatable:literal, $about:expr;
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug)]
            pub enum $name {}

            impl Operation for $name {
                type Request = a2a::$request;
                type Answer = $kind<$answer>;
                const METHOD: &'static Method = &Method {
                    name: stringify!($name),
                    label: $label,
                    path: concat!("/lf.a2a.v1.A2AService/", stringify!($name)),
                    is_repeatable: $repeatable,
                    about: $about,
                    is_streamed: matches!(Kind::$kind, Kind::Many),
                    request: stringify!($request),
                    answer: $answer_name,
                    tenant: $tenant,
                };
            }
        )+

        /// Every operation.
        pub const METHODS: &[&Method] = &[$($name::METHOD),+];
    };
}

enum Kind {
    Single,
    Many,
}

const ID: About = About::Task {
    number: 2,
    field: "id",
};

/// The field `taskId` has another number in each request.
const fn task_id(number: u32) -> About {
    About::Task {
        number,
        field: "taskId",
    }
}

operations! {
    /// Sends a message and waits for the answer.
    SendMessage(SendMessageRequest, tenant = 1) -> Single<a2a::SendMessageResponse: "SendMessageResponse">,
        "send_message", false, About::Message;
    /// Sends a message and follows the answer.
    SendStreamingMessage(SendMessageRequest, tenant = 1) -> Many<a2a::StreamResponse: "StreamResponse">,
        "send_streaming_message", false, About::Message;
    /// Reads a task.
    GetTask(GetTaskRequest, tenant = 1) -> Single<a2a::Task: "Task">,
        "get_task", true, ID;
    /// Lists tasks.
    ListTasks(ListTasksRequest, tenant = 1) -> Single<a2a::ListTasksResponse: "ListTasksResponse">,
        "list_tasks", true, About::Target;
    /// Cancels a task. The second time it fails, so it is not repeated.
    CancelTask(CancelTaskRequest, tenant = 1) -> Single<a2a::Task: "Task">,
        "cancel_task", false, ID;
    /// Follows a task.
    SubscribeToTask(SubscribeToTaskRequest, tenant = 1) -> Many<a2a::StreamResponse: "StreamResponse">,
        "subscribe_to_task", true, ID;
    /// Adds a push configuration.
    CreateTaskPushNotificationConfig(TaskPushNotificationConfig, tenant = 1)
        -> Single<a2a::TaskPushNotificationConfig: "TaskPushNotificationConfig">,
        "create_push_config", false, task_id(3);
    /// Reads a push configuration.
    GetTaskPushNotificationConfig(GetTaskPushNotificationConfigRequest, tenant = 1)
        -> Single<a2a::TaskPushNotificationConfig: "TaskPushNotificationConfig">,
        "get_push_config", true, task_id(2);
    /// Lists push configurations.
    ListTaskPushNotificationConfigs(ListTaskPushNotificationConfigsRequest, tenant = 4)
        -> Single<a2a::ListTaskPushNotificationConfigsResponse: "ListTaskPushNotificationConfigsResponse">,
        "list_push_configs", true, task_id(1);
    /// Removes a push configuration; removing it again succeeds.
    DeleteTaskPushNotificationConfig(DeleteTaskPushNotificationConfigRequest, tenant = 1) -> Single<(): "Empty">,
        "delete_push_config", true, task_id(2);
    /// Reads an agent's extended card.
    GetExtendedAgentCard(GetExtendedAgentCardRequest, tenant = 1) -> Single<a2a::AgentCard: "AgentCard">,
        "get_extended_agent_card", true, About::Target;
}

impl Method {
    /// The operation of that path in gRPC.
    #[must_use]
    pub fn at(path: &str) -> Option<&'static Self> {
        METHODS.iter().copied().find(|method| method.path == path)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_is_found_by_its_path() {
        for method in METHODS {
            assert_eq!(Method::at(method.path), Some(*method));
        }
        assert_eq!(Method::at("/lf.a2a.v1.A2AService/Dance"), None);
        assert!(SubscribeToTask::METHOD.is_streamed && !GetTask::METHOD.is_streamed);
    }
}

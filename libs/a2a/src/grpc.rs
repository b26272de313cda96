//! A2A's gRPC binding of a [`Service`].
//!
//! The official gRPC service would do, but its status map drops the details of errors that are not A2A's own, and an
//! overloaded agent has to say RESOURCE_EXHAUSTED with RetryInfo.

use std::sync::Arc;

use muster_api::a2a as pb;
use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::a2a::a2a_service_server::A2aService;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::SUPPORTED_VERSION;
use crate::service::{Answer, Binding, Events, Head, Reply, Request, Service, VERSION};

/// A client that names the version with every call.
pub type Client = A2aServiceClient<InterceptedService<Channel, Versioned>>;

/// Names the version.
#[derive(Debug, Clone, Copy)]
pub struct Versioned;

impl Interceptor for Versioned {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        let metadata = request.metadata_mut();
        if metadata.get(VERSION.as_str()).is_none() {
            metadata.insert("a2a-version", MetadataValue::from_static(SUPPORTED_VERSION));
        }
        Ok(request)
    }
}

/// A client on this channel.
#[must_use]
pub fn client(channel: Channel) -> Client {
    A2aServiceClient::with_interceptor(channel, Versioned)
}

/// A service as gRPC has it.
pub struct Grpc<S>(pub Arc<S>);

type Answered<T> = Result<Response<T>, Status>;

impl<S: Service> Grpc<S> {
    async fn ask<Q, T>(
        &self,
        request: tonic::Request<Q>,
        wrap: fn(Q) -> Request,
        unwrap: fn(Answer) -> Option<T>,
    ) -> Answered<T> {
        let (metadata, extensions, message) = request.into_parts();
        let head = Head {
            binding: Binding::Grpc,
            headers: metadata.into_headers(),
            tenant: None,
            extensions,
        };
        let Reply { answer, headers } = self.0.answer(head, wrap(message)).await?;
        let message = unwrap(answer)
            .ok_or_else(|| Status::internal("the service answered with something of another kind"))?;
        let mut response = Response::new(message);
        *response.metadata_mut() = MetadataMap::from_headers(headers);
        Ok(response)
    }
}

macro_rules! answered {
    ($variant:ident) => {
        |answer| match answer {
            Answer::$variant(inner) => Some(inner),
            _ => None,
        }
    };
}

#[tonic::async_trait]
impl<S: Service> A2aService for Grpc<S> {
    type SendStreamingMessageStream = Events;
    type SubscribeToTaskStream = Events;

    async fn send_message(
        &self,
        request: tonic::Request<pb::SendMessageRequest>,
    ) -> Answered<pb::SendMessageResponse> {
        self.ask(request, Request::SendMessage, answered!(Sent)).await
    }

    async fn send_streaming_message(
        &self,
        request: tonic::Request<pb::SendMessageRequest>,
    ) -> Answered<Events> {
        self.ask(request, Request::SendStreamingMessage, answered!(Events))
            .await
    }

    async fn get_task(&self, request: tonic::Request<pb::GetTaskRequest>) -> Answered<pb::Task> {
        self.ask(request, Request::GetTask, answered!(Task)).await
    }

    async fn list_tasks(
        &self,
        request: tonic::Request<pb::ListTasksRequest>,
    ) -> Answered<pb::ListTasksResponse> {
        self.ask(request, Request::ListTasks, answered!(Tasks)).await
    }

    async fn cancel_task(&self, request: tonic::Request<pb::CancelTaskRequest>) -> Answered<pb::Task> {
        self.ask(request, Request::CancelTask, answered!(Task)).await
    }

    async fn subscribe_to_task(
        &self,
        request: tonic::Request<pb::SubscribeToTaskRequest>,
    ) -> Answered<Events> {
        self.ask(request, Request::SubscribeToTask, answered!(Events))
            .await
    }

    async fn create_task_push_notification_config(
        &self,
        request: tonic::Request<pb::TaskPushNotificationConfig>,
    ) -> Answered<pb::TaskPushNotificationConfig> {
        self.ask(request, Request::CreatePushConfig, answered!(PushConfig))
            .await
    }

    async fn get_task_push_notification_config(
        &self,
        request: tonic::Request<pb::GetTaskPushNotificationConfigRequest>,
    ) -> Answered<pb::TaskPushNotificationConfig> {
        self.ask(request, Request::GetPushConfig, answered!(PushConfig))
            .await
    }

    async fn list_task_push_notification_configs(
        &self,
        request: tonic::Request<pb::ListTaskPushNotificationConfigsRequest>,
    ) -> Answered<pb::ListTaskPushNotificationConfigsResponse> {
        self.ask(request, Request::ListPushConfigs, answered!(PushConfigs))
            .await
    }

    async fn get_extended_agent_card(
        &self,
        request: tonic::Request<pb::GetExtendedAgentCardRequest>,
    ) -> Answered<pb::AgentCard> {
        self.ask(request, Request::GetExtendedAgentCard, answered!(Card))
            .await
    }

    async fn delete_task_push_notification_config(
        &self,
        request: tonic::Request<pb::DeleteTaskPushNotificationConfigRequest>,
    ) -> Answered<()> {
        let done = |answer| matches!(answer, Answer::Done).then_some(());
        self.ask(request, Request::DeletePushConfig, done).await
    }
}

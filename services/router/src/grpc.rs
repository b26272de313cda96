//! The gRPC face: A2A's service and the router's own, and the only map from errors to statuses.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use muster_api::a2a::a2a_service_server::A2aService;
use muster_api::a2a::{self, StreamResponse};
use muster_api::error::{Error as ApiError, Reason};
use muster_api::extension::INSTANCE_METADATA;
use muster_api::router::router_service_server::RouterService;
use muster_api::router::{GetStatusRequest, GetStatusResponse};
use prost_types::Struct;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::call::Call;
use crate::error::Error;
use crate::forward::{Events, Forwarder, Reply};
use crate::metrics::Binding;
use crate::operation::{
    CancelTask, CreateTaskPushNotificationConfig, DeleteTaskPushNotificationConfig, GetExtendedAgentCard,
    GetTask, GetTaskPushNotificationConfig, ListTaskPushNotificationConfigs, ListTasks, Tenanted,
};
use crate::status;

/// `ErrorInfo.domain` of the errors that A2A itself defines.
pub const A2A_DOMAIN: &str = "a2a-protocol.org";

/// How long to wait after a full queue.
const QUEUE_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// How long to wait for a registry that has not answered yet.
const REGISTRY_RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// A2A over gRPC.
#[derive(Clone)]
pub struct A2a {
    forwarder: Arc<Forwarder>,
}

impl A2a {
    /// A service that forwards with this.
    #[must_use]
    pub const fn new(forwarder: Arc<Forwarder>) -> Self {
        Self { forwarder }
    }

    /// What a request says around its message.
    fn read<T: Tenanted>(
        &self,
        request: Request<T>,
        routing: fn(&T) -> Vec<Option<&Struct>>,
    ) -> Result<(Call, T), Status> {
        let now = self.forwarder.parts().clock.monotonic();
        let (metadata, _, message) = request.into_parts();
        let call = Call::read(
            &metadata.into_headers(),
            None,
            message.tenant(),
            routing(&message),
            now,
        );
        match call {
            Ok(call) => Ok((call, message)),
            Err(error) => Err(self.refuse(error)),
        }
    }

    fn refuse(&self, error: Error) -> Status {
        let status = Status::from(error);
        self.forwarder
            .parts()
            .meters
            .outcome(Binding::Grpc, Some(status.code()));
        status
    }

    fn answer<M>(&self, outcome: Result<Reply<M>, Error>) -> Result<Response<M>, Status> {
        let reply = outcome.map_err(|error| self.refuse(error))?;
        self.forwarder.parts().meters.outcome(Binding::Grpc, None);
        let mut response = Response::new(reply.message);
        *response.metadata_mut() = MetadataMap::from_headers(reply.extensions);
        // Instance ids are UUIDs; one that is no ASCII cannot be told.
        if let Ok(instance) = AsciiMetadataValue::try_from(reply.instance.instance) {
            response.metadata_mut().insert(INSTANCE_METADATA, instance);
        }
        Ok(response)
    }

    fn stream(&self, outcome: Result<Reply<Events>, Error>) -> Result<Response<EventStream>, Status> {
        let response = self.answer(outcome)?;
        Ok(response.map(|events| events.map(|event| event.map_err(Status::from)).boxed()))
    }
}

type EventStream = BoxStream<'static, Result<StreamResponse, Status>>;

/// Requests about tasks carry no routing.
fn no_routing<T>(_: &T) -> Vec<Option<&Struct>> {
    Vec::new()
}

/// Where the routing extension may stand in a message.
#[must_use]
pub fn routing_of(request: &a2a::SendMessageRequest) -> Vec<Option<&Struct>> {
    let message = request.message.as_ref();
    vec![
        request.metadata.as_ref(),
        message.and_then(|message| message.metadata.as_ref()),
    ]
}

#[tonic::async_trait]
impl A2aService for A2a {
    type SendStreamingMessageStream = EventStream;
    type SubscribeToTaskStream = EventStream;

    async fn send_message(
        &self,
        request: Request<a2a::SendMessageRequest>,
    ) -> Result<Response<a2a::SendMessageResponse>, Status> {
        let (call, request) = self.read(request, routing_of)?;
        self.answer(self.forwarder.send_message(&call, request).await)
    }

    async fn send_streaming_message(
        &self,
        request: Request<a2a::SendMessageRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let (call, request) = self.read(request, routing_of)?;
        self.stream(self.forwarder.send_streaming_message(&call, request).await)
    }

    async fn get_task(&self, request: Request<a2a::GetTaskRequest>) -> Result<Response<a2a::Task>, Status> {
        let (call, request) = self.read(request, no_routing)?;
        self.answer(self.forwarder.on_task::<GetTask, _>(&call, request).await)
    }

    async fn list_tasks(
        &self,
        request: Request<a2a::ListTasksRequest>,
    ) -> Result<Response<a2a::ListTasksResponse>, Status> {
        let (call, request) = self.read(request, no_routing)?;
        self.answer(self.forwarder.at_target::<ListTasks, _>(&call, request).await)
    }

    async fn cancel_task(
        &self,
        request: Request<a2a::CancelTaskRequest>,
    ) -> Result<Response<a2a::Task>, Status> {
        let (call, request) = self.read(request, no_routing)?;
        self.answer(self.forwarder.on_task::<CancelTask, _>(&call, request).await)
    }

    async fn subscribe_to_task(
        &self,
        request: Request<a2a::SubscribeToTaskRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let (call, request) = self.read(request, no_routing)?;
        self.stream(self.forwarder.subscribe(&call, request).await)
    }

    async fn create_task_push_notification_config(
        &self,
        request: Request<a2a::TaskPushNotificationConfig>,
    ) -> Result<Response<a2a::TaskPushNotificationConfig>, Status> {
        let (call, request) = self.read(request, no_routing)?;
        self.answer(
            self.forwarder
                .on_task::<CreateTaskPushNotificationConfig, _>(&call, request)
                .await,
        )
    }

    async fn get_task_push_notification_config(
        &self,
        request: Request<a2a::GetTaskPushNotificationConfigRequest>,
    ) -> Result<Response<a2a::TaskPushNotificationConfig>, Status> {
        let (call, request) = self.read(request, no_routing)?;
        self.answer(
            self.forwarder
                .on_task::<GetTaskPushNotificationConfig, _>(&call, request)
                .await,
        )
    }

    async fn list_task_push_notification_configs(
        &self,
        request: Request<a2a::ListTaskPushNotificationConfigsRequest>,
    ) -> Result<Response<a2a::ListTaskPushNotificationConfigsResponse>, Status> {
        let (call, request) = self.read(request, no_routing)?;
        self.answer(
            self.forwarder
                .on_task::<ListTaskPushNotificationConfigs, _>(&call, request)
                .await,
        )
    }

    async fn get_extended_agent_card(
        &self,
        request: Request<a2a::GetExtendedAgentCardRequest>,
    ) -> Result<Response<a2a::AgentCard>, Status> {
        let (call, request) = self.read(request, no_routing)?;
        self.answer(
            self.forwarder
                .at_target::<GetExtendedAgentCard, _>(&call, request)
                .await,
        )
    }

    async fn delete_task_push_notification_config(
        &self,
        request: Request<a2a::DeleteTaskPushNotificationConfigRequest>,
    ) -> Result<Response<()>, Status> {
        let (call, request) = self.read(request, no_routing)?;
        self.answer(
            self.forwarder
                .on_task::<DeleteTaskPushNotificationConfig, _>(&call, request)
                .await,
        )
    }
}

/// The router's own controls.
#[derive(Clone)]
pub struct Control {
    forwarder: Arc<Forwarder>,
    queue_capacity: usize,
}

impl Control {
    /// Controls of this forwarder, whose queue holds that many messages.
    #[must_use]
    pub const fn new(forwarder: Arc<Forwarder>, queue_capacity: usize) -> Self {
        Self {
            forwarder,
            queue_capacity,
        }
    }
}

#[tonic::async_trait]
impl RouterService for Control {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(status::read(
            self.forwarder.parts(),
            self.queue_capacity,
        )))
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let of = |reason| ApiError::new(reason, message.clone());
        let status: ApiError = match error {
            Error::InvalidField { field, .. } => of(Reason::InvalidField).with_field(field),
            Error::TargetMissing => of(Reason::TargetMissing),
            Error::UnknownAgent { nearest, .. } => {
                of(Reason::AgentNotFound).with_metadata("nearest", nearest.join(","))
            }
            Error::UnknownSkill { skill, nearest } => of(Reason::SkillNotFound)
                .with_metadata("skills", skill)
                .with_metadata("nearest", nearest.join(",")),
            Error::UnmatchedSkills {
                skills,
                nearest,
                lacking,
                ..
            } => of(Reason::SkillNotFound)
                .with_metadata("skills", skills.join(","))
                .with_metadata("nearest", nearest)
                .with_metadata("lacking", lacking.join(",")),
            Error::NoInstance {
                retry_after, cause, ..
            } => of(Reason::NoInstanceAvailable)
                .with_retry_after(retry_after)
                .with_metadata("cause", cause),
            Error::NoView => of(Reason::DependencyUnavailable)
                .with_retry_after(REGISTRY_RETRY)
                .with_metadata("service", "registry"),
            Error::QueueFull { .. } => of(Reason::QueueFull).with_retry_after(QUEUE_RETRY),
            Error::Expired { .. } => of(Reason::MessageExpired),
            Error::DeadlineExceeded { .. } | Error::StreamIdle { .. } => of(Reason::DeadlineExceeded),
            Error::TooLarge { limit, .. } => {
                of(Reason::MessageTooLarge).with_metadata("limit", limit.to_string())
            }
            Error::Unreachable { .. } => of(Reason::AgentUnreachable),
            Error::InvalidAnswer { .. } => {
                return protocol(
                    Code::Internal,
                    "INVALID_AGENT_RESPONSE",
                    message,
                    Reason::InvalidAgentResponse,
                );
            }
            Error::UnknownTask { .. } => {
                return protocol(Code::NotFound, "TASK_NOT_FOUND", message, Reason::TaskNotFound);
            }
            Error::MessageIdReused { .. } => of(Reason::MessageIdReused),
            Error::VersionNotSupported { .. } => {
                return a2a_status(
                    Code::FailedPrecondition,
                    "VERSION_NOT_SUPPORTED",
                    message,
                    "send `A2A-Version: 1.0`",
                );
            }
            Error::Store { .. } => of(Reason::StoreUnavailable),
            Error::Agent(status) => return *status,
        };
        status.into()
    }
}

/// An error that A2A defines, under A2A's name, with the remedy of our catalogue.
fn protocol(code: Code, reason: &str, message: String, ours: Reason) -> Status {
    a2a_status(code, reason, message, ours.remedy())
}

fn a2a_status(code: Code, reason: &str, message: String, remedy: &str) -> Status {
    let metadata = [("remedy".to_owned(), remedy.to_owned())];
    let details = ErrorDetails::with_error_info(reason, A2A_DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn errors_of_a2a_carry_its_domain_and_ours_carry_ours() {
        let unknown = Status::from(Error::UnknownTask { task: "t".to_owned() });
        let info = unknown.get_details_error_info().unwrap();
        assert_eq!(
            (info.domain.as_str(), info.reason.as_str()),
            (A2A_DOMAIN, "TASK_NOT_FOUND")
        );
        assert_eq!(unknown.code(), Code::NotFound);

        let full = Status::from(Error::QueueFull { waiting: 3 });
        let error = ApiError::from_status(&full).unwrap();
        assert_eq!(error.reason, Reason::QueueFull);
        assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
    }

    #[test]
    fn an_agents_own_status_is_passed_on_unchanged() {
        let details = ErrorDetails::with_error_info("X", "agent.example", [("k".to_owned(), "v".to_owned())]);
        let status = Status::with_error_details(Code::FailedPrecondition, "no", details);
        let passed = Status::from(Error::Agent(Box::new(status.clone())));
        assert_eq!(
            (passed.code(), passed.message(), passed.details()),
            (status.code(), status.message(), status.details())
        );
    }
}

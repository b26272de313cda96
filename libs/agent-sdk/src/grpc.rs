//! A2A over gRPC: decode, call the gate, encode.
//!
//! The official gRPC service would do, but its status map drops the details of errors that are not A2A's own, and
//! an overloaded agent has to say RESOURCE_EXHAUSTED with RetryInfo.

use a2a::{A2AError, SVC_PARAM_VERSION};
use a2a_pb::pbconv;
use a2a_pb::proto::a2a_service_server::A2aService;
use a2a_pb::proto::{self as pb};
use a2a_server::RequestHandler as _;
use a2a_server::middleware::ServiceParams;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Request, Response, Status};

use crate::gate::Gate;
use crate::refusal::to_status;

/// The gate as a gRPC service.
pub(crate) struct Grpc(pub(crate) Gate);

type Events = BoxStream<'static, Result<pb::StreamResponse, Status>>;
type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl A2aService for Grpc {
    type SendStreamingMessageStream = Events;
    type SubscribeToTaskStream = Events;

    async fn send_message(
        &self,
        request: Request<pb::SendMessageRequest>,
    ) -> Answer<pb::SendMessageResponse> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_send_message_request(request.get_ref());
        let response = self.0.send_message(&headers, request).await;
        answer(response, pbconv::to_proto_send_message_response)
    }

    async fn send_streaming_message(&self, request: Request<pb::SendMessageRequest>) -> Answer<Events> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_send_message_request(request.get_ref());
        events(self.0.send_streaming_message(&headers, request).await)
    }

    async fn get_task(&self, request: Request<pb::GetTaskRequest>) -> Answer<pb::Task> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_get_task_request(request.get_ref());
        answer(self.0.get_task(&headers, request).await, pbconv::to_proto_task)
    }

    async fn list_tasks(&self, request: Request<pb::ListTasksRequest>) -> Answer<pb::ListTasksResponse> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_list_tasks_request(request.get_ref());
        let response = self.0.list_tasks(&headers, request).await;
        answer(response, pbconv::to_proto_list_tasks_response)
    }

    async fn cancel_task(&self, request: Request<pb::CancelTaskRequest>) -> Answer<pb::Task> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_cancel_task_request(request.get_ref());
        answer(self.0.cancel_task(&headers, request).await, pbconv::to_proto_task)
    }

    async fn subscribe_to_task(&self, request: Request<pb::SubscribeToTaskRequest>) -> Answer<Events> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_subscribe_to_task_request(request.get_ref());
        events(self.0.subscribe_to_task(&headers, request).await)
    }

    async fn create_task_push_notification_config(
        &self,
        request: Request<pb::TaskPushNotificationConfig>,
    ) -> Answer<pb::TaskPushNotificationConfig> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_create_task_push_notification_config_request(request.get_ref());
        let response = self.0.create_push_config(&headers, request).await;
        answer(response, pbconv::to_proto_task_push_notification_config)
    }

    async fn get_task_push_notification_config(
        &self,
        request: Request<pb::GetTaskPushNotificationConfigRequest>,
    ) -> Answer<pb::TaskPushNotificationConfig> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_get_task_push_notification_config_request(request.get_ref());
        let response = self.0.get_push_config(&headers, request).await;
        answer(response, pbconv::to_proto_task_push_notification_config)
    }

    async fn list_task_push_notification_configs(
        &self,
        request: Request<pb::ListTaskPushNotificationConfigsRequest>,
    ) -> Answer<pb::ListTaskPushNotificationConfigsResponse> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_list_task_push_notification_configs_request(request.get_ref());
        let response = self.0.list_push_configs(&headers, request).await;
        answer(
            response,
            pbconv::to_proto_list_task_push_notification_configs_response,
        )
    }

    async fn delete_task_push_notification_config(
        &self,
        request: Request<pb::DeleteTaskPushNotificationConfigRequest>,
    ) -> Answer<()> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_delete_task_push_notification_config_request(request.get_ref());
        answer(self.0.delete_push_config(&headers, request).await, |()| ())
    }

    async fn get_extended_agent_card(
        &self,
        request: Request<pb::GetExtendedAgentCardRequest>,
    ) -> Answer<pb::AgentCard> {
        let headers = headers(request.metadata())?;
        let request = pbconv::from_proto_get_extended_agent_card_request(request.get_ref());
        let response = self.0.get_extended_agent_card(&headers, request).await;
        answer(response, pbconv::to_proto_agent_card)
    }
}

fn answer<T, P>(result: Result<T, A2AError>, encode: impl FnOnce(&T) -> P) -> Answer<P> {
    match result {
        Ok(value) => Ok(Response::new(encode(&value))),
        Err(error) => Err(to_status(&error)),
    }
}

fn events(
    result: Result<BoxStream<'static, Result<a2a::StreamResponse, A2AError>>, A2AError>,
) -> Answer<Events> {
    let events = result.map_err(|error| to_status(&error))?;
    let encoded = events
        .map_ok(|event| pbconv::to_proto_stream_response(&event))
        .map_err(|error| to_status(&error));
    Ok(Response::new(encoded.boxed()))
}

/// The request's text metadata. A version that we do not speak is refused; none is taken as ours, because official
/// gRPC clients send none and the package name says the version already.
#[allow(clippy::result_large_err, reason = "tonic's own type, at the edge only")]
fn headers(metadata: &MetadataMap) -> Result<ServiceParams, Status> {
    let mut headers = ServiceParams::new();
    for entry in metadata.iter() {
        if let KeyAndValueRef::Ascii(key, value) = entry
            && let Ok(value) = value.to_str()
        {
            let values: &mut Vec<String> = headers.entry(key.as_str().to_owned()).or_default();
            values.push(value.to_owned());
        }
    }
    let asked = headers
        .get(&SVC_PARAM_VERSION.to_ascii_lowercase())
        .and_then(|values| values.first());
    match asked {
        Some(version) if version.trim().split('.').next() != Some("1") => {
            Err(to_status(&A2AError::version_not_supported(version)))
        }
        _ => Ok(headers),
    }
}

//! A2A's JSON-RPC binding: one POST, the method in the envelope, streams as server-sent events.
//!
//! Errors are in the envelope; the HTTP status is 200 even then, as JSON-RPC has it.

use a2a::jsonrpc::methods;
use a2a::{JsonRpcError, JsonRpcId, JsonRpcRequest, JsonRpcResponse};
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use tonic::Status;

use crate::codec::{self, decode};
use crate::error;
use crate::service::{Answer, Head, Reply, Request, Service, version_not_supported};
use crate::sse;

/// Answers one request.
pub(crate) async fn answer<S: Service>(service: &S, head: Head, body: &[u8]) -> Response {
    let envelope = match envelope(body) {
        Ok(envelope) => envelope,
        Err((id, error)) => {
            service.unreadable(head.binding, &Status::invalid_argument(error.message.as_str()));
            return refused(id, error, None);
        }
    };
    let id = envelope.id.clone();
    let request = match request(envelope) {
        Ok(request) => request,
        Err(Unread::Envelope(error)) => {
            service.unreadable(head.binding, &Status::invalid_argument(error.message.as_str()));
            return refused(id, error, None);
        }
        Err(Unread::Parameters(status)) => {
            service.unreadable(head.binding, &status);
            return failed(id, &status);
        }
    };
    match service.answer(head, request).await {
        Ok(Reply {
            answer: Answer::Events(events),
            headers,
        }) => match sse::opened(events).await {
            Ok(events) => {
                let events = sse::respond(events, move |event| {
                    let response = match event {
                        Ok(result) => JsonRpcResponse::success(id.clone(), result),
                        Err(status) => JsonRpcResponse::error(id.clone(), error::json_rpc(&status)),
                    };
                    serde_json::to_value(response).unwrap_or_default()
                });
                (headers, events).into_response()
            }
            Err(status) => failed(id, &status),
        },
        Ok(Reply { answer, headers }) => match codec::single(&answer) {
            Ok(result) => (headers, Json(JsonRpcResponse::success(id, result))).into_response(),
            Err(status) => failed(id, &status),
        },
        Err(status) => failed(id, &status),
    }
}

/// Why an envelope holds no request.
enum Unread {
    Envelope(JsonRpcError),
    Parameters(Box<Status>),
}

impl From<Box<Status>> for Unread {
    fn from(status: Box<Status>) -> Self {
        Self::Parameters(status)
    }
}

fn request(envelope: JsonRpcRequest) -> Result<Request, Unread> {
    let parameters = envelope.params.unwrap_or(Value::Null);
    Ok(match envelope.method.as_str() {
        methods::SEND_MESSAGE => Request::SendMessage(decode::<a2a::SendMessageRequest>(parameters)?),
        methods::SEND_STREAMING_MESSAGE => {
            Request::SendStreamingMessage(decode::<a2a::SendMessageRequest>(parameters)?)
        }
        methods::GET_TASK => Request::GetTask(decode::<a2a::GetTaskRequest>(parameters)?),
        methods::LIST_TASKS => Request::ListTasks(decode::<a2a::ListTasksRequest>(parameters)?),
        methods::CANCEL_TASK => Request::CancelTask(decode::<a2a::CancelTaskRequest>(parameters)?),
        methods::SUBSCRIBE_TO_TASK => {
            Request::SubscribeToTask(decode::<a2a::SubscribeToTaskRequest>(parameters)?)
        }
        methods::CREATE_PUSH_CONFIG => {
            Request::CreatePushConfig(decode::<a2a::TaskPushNotificationConfig>(parameters)?)
        }
        methods::GET_PUSH_CONFIG => {
            Request::GetPushConfig(decode::<a2a::GetTaskPushNotificationConfigRequest>(parameters)?)
        }
        methods::LIST_PUSH_CONFIGS => {
            Request::ListPushConfigs(decode::<a2a::ListTaskPushNotificationConfigsRequest>(parameters)?)
        }
        methods::DELETE_PUSH_CONFIG => Request::DeletePushConfig(decode::<
            a2a::DeleteTaskPushNotificationConfigRequest,
        >(parameters)?),
        methods::GET_EXTENDED_AGENT_CARD => {
            let parameters = match parameters {
                Value::Null => Value::Object(serde_json::Map::new()),
                given => given,
            };
            Request::GetExtendedAgentCard(decode::<a2a::GetExtendedAgentCardRequest>(parameters)?)
        }
        "" => return Err(Unread::Envelope(error::invalid_request("method is empty"))),
        // `message/send` and the like: the caller speaks 0.3, whether it says so or not.
        old if old.contains('/') => return Err(Box::new(version_not_supported("0.3")).into()),
        unknown => return Err(Unread::Envelope(error::unknown_method(unknown))),
    })
}

/// Reads the envelope. A body that is no JSON is a parse error; JSON of another shape an invalid request, with the
/// id where it can be found.
fn envelope(body: &[u8]) -> Result<JsonRpcRequest, (JsonRpcId, JsonRpcError)> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| (JsonRpcId::Null, error::no_json(&error)))?;
    let id = value
        .get("id")
        .and_then(|id| serde_json::from_value(id.clone()).ok())
        .unwrap_or(JsonRpcId::Null);
    let request: JsonRpcRequest = serde_json::from_value(value)
        .map_err(|error| (id.clone(), error::invalid_request(&error.to_string())))?;
    if request.jsonrpc == "2.0" {
        Ok(request)
    } else {
        let error = error::invalid_request(&format!(
            "jsonrpc is '{}'; only \"2.0\" is spoken",
            request.jsonrpc
        ));
        Err((id, error))
    }
}

/// The answer to a request that did not reach the binding whole.
pub(crate) fn unreached(status: &Status, http: StatusCode) -> Response {
    let mut response = failed(JsonRpcId::Null, status);
    *response.status_mut() = http;
    response
}

fn failed(id: JsonRpcId, status: &Status) -> Response {
    refused(id, error::json_rpc(status), error::retry_after(status))
}

fn refused(id: JsonRpcId, error: JsonRpcError, retry_after: Option<u64>) -> Response {
    let mut response = (StatusCode::OK, Json(JsonRpcResponse::error(id, error))).into_response();
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

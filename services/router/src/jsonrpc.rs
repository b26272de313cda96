//! A2A's JSON-RPC binding: one POST, the method in the envelope, streams as server-sent events.
//!
//! Envelope, method names and ProtoJSON are the official crates'. The dispatcher is our own and not
//! `a2a_server::jsonrpc`, which a router cannot use as it is: it renames every error's reason and domain to one of
//! A2A's, so that QUEUE_FULL or MESSAGE_EXPIRED would arrive as INTERNAL_ERROR; it takes its target from nowhere
//! but the tenant; it cannot answer with a header; and it refuses clients that send no version.

pub mod error;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use a2a::jsonrpc::methods;
use a2a::{JsonRpcError, JsonRpcId, JsonRpcRequest, JsonRpcResponse};
use a2a_pb::protojson_conv::{self, ProtoJsonPayload};
use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode};
use muster_api::extension::INSTANCE_METADATA;
use muster_api::json::restore_integers;
use prost::Message as _;
use prost_types::Struct;
use serde_json::Value;
use tonic::Status;

use crate::call::Call;
use crate::error::Error;
use crate::forward::{Events, Forwarder, Reply};
use crate::grpc::routing_of;
use crate::metrics::Binding;
use crate::operation::{
    AboutTask, CancelTask, CreateTaskPushNotificationConfig, DeleteTaskPushNotificationConfig,
    GetExtendedAgentCard, GetTask, GetTaskPushNotificationConfig, ListTaskPushNotificationConfigs, ListTasks,
    Operation, Single, Tenanted,
};

/// How often an idle event stream says that it lives; proxies drop silent connections after 30 to 60 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A request to the binding.
pub struct Post<'r> {
    /// Its headers.
    pub headers: &'r HeaderMap,
    /// The target in its path.
    pub target: Option<&'r str>,
    /// Its body.
    pub body: &'r [u8],
}

/// Answers one request. Errors are in the envelope; the HTTP status is 200 even then, as JSON-RPC has it.
pub async fn answer(forwarder: &Arc<Forwarder>, post: Post<'_>) -> Response {
    let request = match envelope(post.body) {
        Ok(request) => request,
        Err((id, error)) => {
            forwarder
                .parts()
                .meters
                .outcome(Binding::JsonRpc, Some(tonic::Code::InvalidArgument));
            return refused(id, error);
        }
    };
    let id = request.id.clone();
    let binding = Dispatch { forwarder, post };
    let outcome = binding.dispatch(request).await;
    let code = outcome.as_ref().err().map(Refusal::code);
    forwarder.parts().meters.outcome(Binding::JsonRpc, code);
    match outcome {
        Ok(Answer::Single { result, headers }) => {
            (headers, Json(JsonRpcResponse::success(id, result))).into_response()
        }
        Ok(Answer::Stream { events, headers }) => (headers, event_stream(id, events)).into_response(),
        Err(Refusal::Call(error)) => refused(id, error::of(&Status::from(error))),
        Err(Refusal::Envelope(error)) => refused(id, error),
    }
}

enum Answer {
    Single { result: Value, headers: HeaderMap },
    Stream { events: Events, headers: HeaderMap },
}

enum Refusal {
    /// The call failed on its way.
    Call(Error),
    /// The envelope or its parameters make no sense.
    Envelope(JsonRpcError),
}

impl Refusal {
    fn code(&self) -> tonic::Code {
        match self {
            Self::Call(error) => Status::from(error.clone()).code(),
            Self::Envelope(_) => tonic::Code::InvalidArgument,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

struct Dispatch<'r> {
    forwarder: &'r Arc<Forwarder>,
    post: Post<'r>,
}

impl Dispatch<'_> {
    async fn dispatch(&self, request: JsonRpcRequest) -> Result<Answer, Refusal> {
        let params = request.params.unwrap_or(Value::Null);
        match request.method.as_str() {
            methods::SEND_MESSAGE => {
                let message = decode::<a2a::SendMessageRequest>(params)?;
                let call = self.call(&message, routing_of(&message))?;
                let reply = self.forwarder.send_message(&call, message).await?;
                single::<a2a::SendMessageResponse>(reply)
            }
            methods::SEND_STREAMING_MESSAGE => {
                let message = decode::<a2a::SendMessageRequest>(params)?;
                let call = self.call(&message, routing_of(&message))?;
                stream(self.forwarder.send_streaming_message(&call, message).await?)
            }
            methods::SUBSCRIBE_TO_TASK => {
                let request = decode::<a2a::SubscribeToTaskRequest>(params)?;
                let call = self.call(&request, Vec::new())?;
                stream(self.forwarder.subscribe(&call, request).await?)
            }
            methods::GET_TASK => {
                self.on_task::<GetTask, a2a::GetTaskRequest, a2a::Task>(params)
                    .await
            }
            methods::CANCEL_TASK => {
                self.on_task::<CancelTask, a2a::CancelTaskRequest, a2a::Task>(params)
                    .await
            }
            methods::LIST_TASKS => {
                self.at_target::<ListTasks, a2a::ListTasksRequest, a2a::ListTasksResponse>(params)
                    .await
            }
            methods::GET_EXTENDED_AGENT_CARD => {
                self.at_target::<GetExtendedAgentCard, a2a::GetExtendedAgentCardRequest, a2a::AgentCard>(
                    params,
                )
                .await
            }
            other => self.push_config(other, params).await,
        }
    }

    async fn push_config(&self, method: &str, params: Value) -> Result<Answer, Refusal> {
        use a2a::{
            DeleteTaskPushNotificationConfigRequest as Delete, GetTaskPushNotificationConfigRequest as Get,
            ListTaskPushNotificationConfigsRequest as List,
            ListTaskPushNotificationConfigsResponse as Listed, TaskPushNotificationConfig as Config,
        };
        match method {
            methods::CREATE_PUSH_CONFIG => {
                self.on_task::<CreateTaskPushNotificationConfig, Config, Config>(params)
                    .await
            }
            methods::GET_PUSH_CONFIG => {
                self.on_task::<GetTaskPushNotificationConfig, Get, Config>(params)
                    .await
            }
            methods::LIST_PUSH_CONFIGS => {
                self.on_task::<ListTaskPushNotificationConfigs, List, Listed>(params)
                    .await
            }
            methods::DELETE_PUSH_CONFIG => {
                let request = decode::<Delete>(params)?;
                let call = self.call(&request, Vec::new())?;
                let reply = self
                    .forwarder
                    .on_task::<DeleteTaskPushNotificationConfig, _>(&call, request)
                    .await?;
                Ok(Answer::Single {
                    result: Value::Null,
                    headers: headers(&reply),
                })
            }
            "" => Err(Refusal::Envelope(error::invalid_request("method is empty"))),
            unknown => Err(Refusal::Envelope(error::unknown_method(unknown))),
        }
    }

    /// An operation on a task: `Q` and `A` are the native types whose ProtoJSON is read and written.
    async fn on_task<O, Q, A>(&self, params: Value) -> Result<Answer, Refusal>
    where
        O: Operation<Request = Q::Proto, Answer = Single<A::Proto>, Request: AboutTask>,
        Q: ProtoJsonPayload<Proto: prost::Message + Default>,
        A: ProtoJsonPayload<Proto: prost::Message + Default + 'static>,
    {
        let request = decode::<Q>(params)?;
        let call = self.call(&request, Vec::new())?;
        single::<A>(self.forwarder.on_task::<O, A::Proto>(&call, request).await?)
    }

    async fn at_target<O, Q, A>(&self, params: Value) -> Result<Answer, Refusal>
    where
        O: Operation<Request = Q::Proto, Answer = Single<A::Proto>>,
        Q: ProtoJsonPayload<Proto: Tenanted + Default>,
        A: ProtoJsonPayload<Proto: prost::Message + Default + 'static>,
    {
        let request = decode::<Q>(params)?;
        let call = self.call(&request, Vec::new())?;
        single::<A>(self.forwarder.at_target::<O, A::Proto>(&call, request).await?)
    }

    fn call<T: Tenanted>(&self, request: &T, routing: Vec<Option<&Struct>>) -> Result<Call, Error> {
        let now = self.forwarder.parts().clock.monotonic();
        Call::read(
            self.post.headers,
            self.post.target,
            request.tenant(),
            routing,
            now,
        )
    }
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

/// Parameters as the wire type. The detour over the encoded message is the official crate's own way from ProtoJSON
/// to the wire types.
fn decode<T: ProtoJsonPayload<Proto: prost::Message + Default>>(params: Value) -> Result<T::Proto, Refusal> {
    let invalid = |detail: String| Refusal::Envelope(error::invalid_params(&detail));
    if !params.is_object() {
        return Err(invalid("params is no object".to_owned()));
    }
    let read: T::ProtoJson = serde_json::from_value(params).map_err(|error| invalid(error.to_string()))?;
    T::Proto::decode(read.encode_to_vec().as_slice()).map_err(|error| invalid(error.to_string()))
}

fn encode<T: ProtoJsonPayload>(message: &T::Proto, agent: &str) -> Result<Value, Error> {
    let invalid = |detail: String| Error::InvalidAnswer {
        agent: agent.to_owned(),
        detail,
    };
    let native = T::try_from_proto(message).map_err(|error| invalid(error.to_string()))?;
    let mut value = protojson_conv::to_value(&native).map_err(|error| invalid(error.to_string()))?;
    restore_integers(&mut value);
    Ok(value)
}

fn single<T: ProtoJsonPayload>(reply: Reply<T::Proto>) -> Result<Answer, Refusal> {
    let result = encode::<T>(&reply.message, &reply.instance.agent)?;
    Ok(Answer::Single {
        result,
        headers: headers(&reply),
    })
}

fn stream(reply: Reply<Events>) -> Result<Answer, Refusal> {
    let headers = headers(&reply);
    Ok(Answer::Stream {
        events: reply.message,
        headers,
    })
}

fn headers<M>(reply: &Reply<M>) -> HeaderMap {
    let mut headers = reply.extensions.clone();
    if let Ok(instance) = HeaderValue::from_str(&reply.instance.instance) {
        headers.insert(INSTANCE_METADATA, instance);
    }
    headers
}

fn event_stream(id: JsonRpcId, events: Events) -> Response {
    let stream = events.map(move |event| {
        let encoded = event.and_then(|event| encode::<a2a::StreamResponse>(&event, "the agent"));
        let response = match encoded {
            Ok(result) => JsonRpcResponse::success(id.clone(), result),
            Err(error) => JsonRpcResponse::error(id.clone(), error::of(&Status::from(error))),
        };
        Ok::<_, Infallible>(Event::default().json_data(&response).unwrap_or_else(|error| {
            // A response is plain JSON, which always encodes; should it not, the client hears why.
            Event::default().comment(error.to_string().replace('\n', " "))
        }))
    });
    Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

fn refused(id: JsonRpcId, error: JsonRpcError) -> Response {
    (StatusCode::OK, Json(JsonRpcResponse::error(id, error))).into_response()
}

/// The answer to a body over the limit, which was not read.
pub fn too_large(limit: usize) -> Response {
    let status = Status::from(Error::TooLarge {
        bytes: limit.saturating_add(1),
        limit,
    });
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        Json(JsonRpcResponse::error(JsonRpcId::Null, error::of(&status))),
    )
        .into_response()
}

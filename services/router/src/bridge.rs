//! Agents that speak no gRPC: the same encoded messages, carried over their JSON-RPC or HTTP+JSON.
//!
//! The core knows messages as bytes and agents as something that answers with bytes. A gRPC agent gets them as they are;
//! for every other one they are decoded here, called with [`muster_a2a::client`], and the answer is encoded again. What goes
//! wrong is told apart as on gRPC: what never reached the agent may move to another instance, what it answered is its answer.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::HeaderMap;
use muster_a2a::client::{self, Client};
use muster_a2a::{Answer, ProtocolError, Request as Call};
use muster_api::a2a;
use prost::Message;
use std::time::Duration;
use tonic::{Request, Response, Status};

use crate::call::VERSION;
use crate::codec::Pieces;
use crate::forward::Failure;
use crate::frame::Messages;
use crate::operation::Method;

/// Parameters in the query of a call, which travel with it as an extension; they may be secret.
#[derive(Clone, Default)]
pub struct Query(pub Vec<(String, String)>);

/// What an agent streams, whatever carries it.
pub enum Inbound {
    /// gRPC.
    Grpc(Box<Messages>),
    /// JSON-RPC or HTTP+JSON.
    Json(BoxStream<'static, Result<Bytes, Status>>),
}

impl Inbound {
    /// The next event; none at the end.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn message(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Grpc(stream) => stream.message().await.map_err(Failure::of),
            Self::Json(stream) => stream.next().await.transpose().map_err(of_event),
        }
    }
}

/// Why there is no answer: the time is over, or something failed.
pub enum Unanswered {
    /// The agent did not answer in time.
    TimedOut,
    /// Something failed.
    Failed(Failure),
}

/// Calls an operation that has one answer.
///
/// # Errors
/// See [`Unanswered`].
pub async fn single(
    client: &Client,
    method: &'static Method,
    request: Request<Pieces>,
    left: Option<Duration>,
) -> Result<Response<Bytes>, Unanswered> {
    let (call, headers, query) = read(method, request)?;
    let reply = client.call_with(&call, headers, &query.0, left).await;
    let reply = reply.map_err(unanswered)?;
    let bytes = match reply.answer {
        Answer::Sent(message) => encode(&message),
        Answer::Task(message) => encode(&message),
        Answer::Tasks(message) => encode(&message),
        Answer::PushConfig(message) => encode(&message),
        Answer::PushConfigs(message) => encode(&message),
        Answer::Card(message) => encode(&message),
        Answer::Done => Bytes::new(),
        Answer::Events(_) => return Err(unlike("a stream came where one answer was due")),
    };
    Ok(with_headers(bytes, reply.headers))
}

/// Calls an operation that streams its answers.
///
/// # Errors
/// See [`Unanswered`].
pub async fn stream(
    client: &Client,
    method: &'static Method,
    request: Request<Pieces>,
) -> Result<Response<Inbound>, Unanswered> {
    let (call, headers, query) = read(method, request)?;
    let reply = client.call_with(&call, headers, &query.0, None).await;
    let reply = reply.map_err(unanswered)?;
    let Answer::Events(events) = reply.answer else {
        return Err(unlike("one answer came where a stream was due"));
    };
    let events = events.map(|event| event.map(|event| encode(&event))).boxed();
    Ok(with_headers(Inbound::Json(events), reply.headers))
}

fn with_headers<T>(message: T, headers: HeaderMap) -> Response<T> {
    let mut response = Response::new(message);
    *response.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    response
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The call with its headers and its query, as the client has them.
fn read(method: &'static Method, request: Request<Pieces>) -> Result<(Call, HeaderMap, Query), Unanswered> {
    let (metadata, mut extensions, pieces) = request.into_parts();
    let query = extensions.remove().unwrap_or_default();
    let mut headers = metadata.into_headers();
    // The client names it itself.
    headers.remove(VERSION);
    let bytes = pieces.to_vec();
    let call = match method.name {
        "SendMessage" => decode(&bytes).map(Call::SendMessage),
        "SendStreamingMessage" => decode(&bytes).map(Call::SendStreamingMessage),
        "GetTask" => decode(&bytes).map(Call::GetTask),
        "ListTasks" => decode(&bytes).map(Call::ListTasks),
        "CancelTask" => decode(&bytes).map(Call::CancelTask),
        "SubscribeToTask" => decode(&bytes).map(Call::SubscribeToTask),
        "CreateTaskPushNotificationConfig" => decode(&bytes).map(Call::CreatePushConfig),
        "GetTaskPushNotificationConfig" => decode(&bytes).map(Call::GetPushConfig),
        "ListTaskPushNotificationConfigs" => decode(&bytes).map(Call::ListPushConfigs),
        "DeleteTaskPushNotificationConfig" => decode(&bytes).map(Call::DeletePushConfig),
        "GetExtendedAgentCard" => {
            decode::<a2a::GetExtendedAgentCardRequest>(&bytes).map(Call::GetExtendedAgentCard)
        }
        other => Err(format!("'{other}' is no operation of A2A")),
    };
    call.map(|call| (call, headers, query))
        .map_err(|detail| Unanswered::Failed(Failure::NeverReached(detail)))
}

/// The bytes were looked through before, so that this does not fail.
fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, String> {
    M::decode(bytes).map_err(|error| error.to_string())
}

fn unanswered(failure: client::Failure) -> Unanswered {
    Unanswered::Failed(match failure {
        client::Failure::NeverReached(detail) => Failure::NeverReached(detail),
        client::Failure::BrokeOff(detail) => Failure::BrokeOff(detail),
        client::Failure::Refused(status) => Failure::of(*status),
        client::Failure::Unlike(detail) => Failure::NotA2a(detail),
        client::Failure::TooLarge(too_large) => Failure::TooLarge(too_large),
        client::Failure::TimedOut => return Unanswered::TimedOut,
    })
}

fn of_event(status: Status) -> Failure {
    let is_invalid = ProtocolError::of(&status) == Some(ProtocolError::InvalidAgentResponse);
    let said = status.message().to_owned();
    match Failure::of(status) {
        too_large @ Failure::TooLarge(_) => too_large,
        _ if is_invalid => Failure::NotA2a(said),
        failure => failure,
    }
}

fn unlike(detail: &str) -> Unanswered {
    Unanswered::Failed(Failure::NotA2a(detail.to_owned()))
}

//! Calls to an agent that speaks JSON-RPC or HTTP+JSON, as calls of the same [`Request`]s that our own bindings read.
//!
//! gRPC needs nothing of this: the generated client speaks it. What goes wrong comes back as a status with the details that
//! the agent gave, so that who passes it on need not know over which binding it came; what never reached the agent is told
//! apart from what it may have executed.

mod fault;
mod json_rpc;
mod rest;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use a2a_pb::protojson_conv::ProtoJsonPayload;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, header};
use muster_api::a2a::TaskState;
use muster_api::error::Error;
use muster_rpc::outbound::{self, Outbound};
use muster_rpc::sse::{Parser, TooLong};
use reqwest::Response;
use serde_json::Value;
use tonic::Status;
use url::Url;

use crate::codec;
use crate::service::{Answer, EXTENSIONS, Reply, Request, VERSION};
use crate::{Events, SUPPORTED_VERSION};

/// Most bytes of a refusal that are read.
const MOST_OF_REFUSAL: usize = 64 * 1024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const A2A_JSON: HeaderValue = HeaderValue::from_static("application/a2a+json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Where an agent answers, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// JSON-RPC at this URL.
    JsonRpc(Url),
    /// HTTP+JSON below this URL.
    HttpJson(Url),
}

/// An agent at the other end. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Client {
    outbound: Outbound,
    place: Place,
    /// Largest answer or event, in bytes.
    most_bytes: usize,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was reached, so nothing was done.
    NeverReached(String),
    /// It was reached and broke off, so it may have been done.
    BrokeOff(String),
    /// No answer in time.
    TimedOut,
    /// The agent's own answer.
    Refused(Box<Status>),
    /// The agent answered with something that is not A2A.
    Unlike(String),
    /// The answer is larger than it may be.
    TooLarge(TooLarge),
}

/// An answer, or an event of a stream, that is larger than it may be. As the source of a status it tells that no more is wrong with
/// the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is larger than {limit} bytes")]
pub struct TooLarge {
    /// What it may be, in bytes.
    pub limit: usize,
}

impl Client {
    /// A client of the agent at `place`, which may answer with so many bytes.
    #[must_use]
    pub const fn new(outbound: Outbound, place: Place, most_bytes: usize) -> Self {
        Self {
            outbound,
            place,
            most_bytes,
        }
    }

    /// Makes a call. `headers` go with it; a stream has no limit of time.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn call(
        &self,
        request: &Request,
        headers: HeaderMap,
        timeout: Option<Duration>,
    ) -> Result<Reply, Failure> {
        self.call_with(request, headers, &[], timeout).await
    }

    /// The same with more parameters in the query.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn call_with(
        &self,
        request: &Request,
        headers: HeaderMap,
        query: &[(String, String)],
        timeout: Option<Duration>,
    ) -> Result<Reply, Failure> {
        check(request)?;
        let streams = matches!(
            request,
            Request::SendStreamingMessage(_) | Request::SubscribeToTask(_)
        );
        let mut exchange = match &self.place {
            Place::JsonRpc(url) => json_rpc::exchange(url, request)?,
            Place::HttpJson(url) => rest::exchange(url, request)?,
        };
        if !query.is_empty() {
            exchange.url.query_pairs_mut().extend_pairs(query);
        }
        let exchanging = self.exchange(exchange, headers, streams);
        let response = match timeout {
            Some(timeout) => tokio::time::timeout(timeout, exchanging)
                .await
                .map_err(|_| Failure::TimedOut)??,
            None => exchanging.await?,
        };
        let extensions = extensions(response.headers());
        let answer = if streams {
            self.events(response).await?
        } else {
            self.single(request, response).await?
        };
        Ok(Reply {
            answer,
            headers: extensions,
        })
    }

    /// Sends a request; an answer that is no success is a failure.
    async fn exchange(
        &self,
        exchange: Exchange,
        headers: HeaderMap,
        streams: bool,
    ) -> Result<Response, Failure> {
        let content = match self.place {
            Place::JsonRpc(_) => JSON,
            Place::HttpJson(_) => A2A_JSON,
        };
        let accept = if streams {
            EVENT_STREAM
        } else {
            HeaderValue::from_static("application/a2a+json, application/json")
        };
        let mut request = self
            .outbound
            .request(exchange.method, exchange.url)
            .headers(headers)
            .header(VERSION, SUPPORTED_VERSION)
            .header(header::ACCEPT, accept);
        if let Some(body) = exchange.body {
            request = request
                .header(header::CONTENT_TYPE, content)
                .body(body.to_string());
        }
        let request = request
            .build()
            // Not the outer text, which has the query, in which there may be a secret.
            .map_err(|error| Failure::NeverReached(outbound::described(&error)))?;
        let response = self.outbound.send(request).await.map_err(unreached)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let said = read(response, MOST_OF_REFUSAL).await.unwrap_or_default();
        Err(Failure::Refused(Box::new(fault::of_answer(status, &said))))
    }

    async fn single(&self, request: &Request, response: Response) -> Result<Answer, Failure> {
        let body = read(response, self.most_bytes).await?;
        let value: Value = if body.trim_ascii().is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).map_err(|error| Failure::Unlike(error.to_string()))?
        };
        let value = match self.place {
            Place::JsonRpc(_) => json_rpc::result(value)?,
            Place::HttpJson(_) => value,
        };
        answer(request, value)
    }

    async fn events(&self, response: Response) -> Result<Answer, Failure> {
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let is_stream = kind
            .as_ref()
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/event-stream"));
        if !is_stream {
            // An error comes as a single answer.
            let body = read(response, MOST_OF_REFUSAL).await?;
            if let (Place::JsonRpc(_), Ok(value)) = (&self.place, serde_json::from_slice(&body)) {
                json_rpc::result(value)?;
            }
            return Err(Failure::Unlike(
                "a stream was asked for, and a single answer came".to_owned(),
            ));
        }
        let inbound = Inbound {
            response,
            parser: Parser::new(self.most_bytes),
            ready: VecDeque::new(),
            is_json_rpc: matches!(self.place, Place::JsonRpc(_)),
        };
        let events: Events = futures::stream::unfold(Some(inbound), |inbound| async {
            let mut inbound = inbound?;
            match inbound.next().await {
                Ok(None) => None,
                Ok(Some(event)) => Some((Ok(event), Some(inbound))),
                Err(failure) => Some((Err(Status::from(failure)), None)),
            }
        })
        .boxed();
        Ok(Answer::Events(events))
    }
}

/// Refuses what JSON has no words for, as the agent would if it could be told: left out, it would ask for something else.
fn check(request: &Request) -> Result<(), Failure> {
    match request {
        Request::ListTasks(request) if TaskState::try_from(request.status).is_err() => {
            let message = format!("is {}, which is no state", request.status);
            Err(Failure::Refused(Box::new(
                Error::invalid_field("status", message).into(),
            )))
        }
        _ => Ok(()),
    }
}

/// A request on its way.
struct Exchange {
    method: reqwest::Method,
    url: Url,
    body: Option<Value>,
}

/// A stream's events, as they come in.
struct Inbound {
    response: Response,
    parser: Parser,
    ready: VecDeque<String>,
    is_json_rpc: bool,
}

impl Inbound {
    async fn next(&mut self) -> Result<Option<muster_api::a2a::StreamResponse>, Failure> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                let value: Value =
                    serde_json::from_str(&data).map_err(|error| Failure::Unlike(error.to_string()))?;
                let value = if self.is_json_rpc {
                    json_rpc::result(value)?
                } else {
                    fault::check(value)?
                };
                return decode::<a2a::StreamResponse>(value).map(Some);
            }
            let chunk = self
                .response
                .chunk()
                .await
                .map_err(|error| Failure::BrokeOff(outbound::described(&error)))?;
            let Some(chunk) = chunk else { return Ok(None) };
            self.parser
                .take(&chunk, &mut self.ready)
                .map_err(|TooLong { limit }| Failure::TooLarge(TooLarge { limit }))?;
        }
    }
}

/// What a value answers to a request.
fn answer(request: &Request, value: Value) -> Result<Answer, Failure> {
    Ok(match request {
        Request::SendMessage(_) => Answer::Sent(decode::<a2a::SendMessageResponse>(value)?),
        Request::GetTask(_) | Request::CancelTask(_) => Answer::Task(decode::<a2a::Task>(value)?),
        Request::ListTasks(_) => Answer::Tasks(decode::<a2a::ListTasksResponse>(value)?),
        Request::CreatePushConfig(_) | Request::GetPushConfig(_) => {
            Answer::PushConfig(decode::<a2a::TaskPushNotificationConfig>(value)?)
        }
        Request::ListPushConfigs(_) => {
            Answer::PushConfigs(decode::<a2a::ListTaskPushNotificationConfigsResponse>(value)?)
        }
        Request::DeletePushConfig(_) => Answer::Done,
        Request::GetExtendedAgentCard(_) => Answer::Card(decode::<a2a::AgentCard>(value)?),
        Request::SendStreamingMessage(_) | Request::SubscribeToTask(_) => {
            return Err(Failure::Unlike("a stream was asked for".to_owned()));
        }
    })
}

fn decode<T: ProtoJsonPayload<Proto: prost::Message + Default>>(value: Value) -> Result<T::Proto, Failure> {
    codec::decode::<T>(value).map_err(|status| Failure::Unlike(status.message().to_owned()))
}

/// A request's fields as JSON.
fn fields(request: &Request) -> Result<Value, Failure> {
    let encoded = match request {
        Request::SendMessage(request) | Request::SendStreamingMessage(request) => {
            codec::encode::<a2a::SendMessageRequest>(request)
        }
        Request::GetTask(request) => codec::encode::<a2a::GetTaskRequest>(request),
        Request::ListTasks(request) => codec::encode::<a2a::ListTasksRequest>(request),
        Request::CancelTask(request) => codec::encode::<a2a::CancelTaskRequest>(request),
        Request::SubscribeToTask(request) => codec::encode::<a2a::SubscribeToTaskRequest>(request),
        Request::CreatePushConfig(config) => codec::encode::<a2a::TaskPushNotificationConfig>(config),
        Request::GetPushConfig(request) => {
            codec::encode::<a2a::GetTaskPushNotificationConfigRequest>(request)
        }
        Request::ListPushConfigs(request) => {
            codec::encode::<a2a::ListTaskPushNotificationConfigsRequest>(request)
        }
        Request::DeletePushConfig(request) => {
            codec::encode::<a2a::DeleteTaskPushNotificationConfigRequest>(request)
        }
        Request::GetExtendedAgentCard(request) => codec::encode::<a2a::GetExtendedAgentCardRequest>(request),
    };
    // Nothing was sent, so nothing was reached.
    encoded.map_err(|status| Failure::NeverReached(status.message().to_owned()))
}

/// The body, whole, up to a limit.
async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        let chunk = response
            .chunk()
            .await
            .map_err(|error| Failure::BrokeOff(outbound::described(&error)))?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > most {
            return Err(Failure::TooLarge(TooLarge { limit: most }));
        }
        body.extend_from_slice(&chunk);
    }
}

fn unreached(failure: outbound::Failure) -> Failure {
    let said = failure.to_string();
    match failure {
        outbound::Failure::NoHost(_)
        | outbound::Failure::Refused(_)
        | outbound::Failure::Unreachable { .. } => Failure::NeverReached(said),
        outbound::Failure::Broken { .. } => Failure::BrokeOff(said),
        outbound::Failure::TimedOut(_) => Failure::TimedOut,
    }
}

fn extensions(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for value in headers.get_all(EXTENSIONS) {
        kept.append(EXTENSIONS, value.clone());
    }
    kept
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NeverReached(what) | Failure::BrokeOff(what) => Self::unavailable(what),
            Failure::TimedOut => Self::deadline_exceeded("the agent did not answer in time"),
            Failure::Refused(status) => *status,
            Failure::Unlike(what) => crate::ProtocolError::InvalidAgentResponse
                .status(format!("the agent's answer is not A2A 1.0: {what}")),
            Failure::TooLarge(too_large) => {
                let mut status = crate::ProtocolError::InvalidAgentResponse
                    .status(format!("the agent's answer is not taken: {too_large}"));
                status.set_source(Arc::new(too_large));
                status
            }
        }
    }
}

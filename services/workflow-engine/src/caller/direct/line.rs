//! One agent at the other end, whatever carries A2A there: ProtoJSON out, ProtoJSON back.

use std::sync::OnceLock;
use std::time::Duration;

use muster_api::extension::{EPOCH_METADATA, STEP_KEY_METADATA};
use muster_workflow_dsl::document::Method;
use prost_reflect::{DescriptorPool, DynamicMessage};
use reqwest::Response;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;
use tonic::Streaming;
use tonic::metadata::MetadataMap;
use url::Url;
use uuid::Uuid;

use super::card::{Interface, Way};
use super::{fault, rest};
use crate::caller::json_rpc::{self, Incoming, Reply};
use crate::caller::sse::Events;
use crate::caller::{Failure, Kind, body, grpc, judgement};
use crate::outbound::Outbound;

/// The version of the protocol that we speak.
const VERSION: (&str, &str) = ("a2a-version", "1.0");

/// Most bytes of what comes with a refusal.
const REFUSAL: usize = 64 * 1024;

/// Name of the service over gRPC.
const SERVICE: &str = "lf.a2a.v1.A2AService";

/// An agent at the other end.
pub(super) struct Line<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) interface: Interface,
    /// What says who we are.
    pub(super) credentials: HeaderMap,
    pub(super) step_key: Uuid,
    pub(super) epoch: Option<u64>,
    pub(super) most_bytes: usize,
    /// The agent, for people.
    pub(super) target: String,
}

/// What an agent streams.
pub(super) enum Stream {
    /// JSON-RPC.
    Replies(Events),
    /// HTTP and JSON.
    Plain(Events),
    /// gRPC.
    Messages(grpc::Method, Box<Streaming<DynamicMessage>>),
}

impl Line<'_> {
    /// Asks and waits for the one answer.
    pub(super) async fn unary(
        &self,
        method: Method,
        request: &Value,
        left: Duration,
    ) -> Result<Value, Failure> {
        match &self.interface.way {
            Way::JsonRpc(url) => {
                let answer = self.post(url, method, request, "application/json").await?;
                self.reply(answer).await
            }
            Way::HttpJson(base) => {
                let answer = self.exchange(base, method, request, "application/json").await?;
                let bytes = body::read(answer, self.most_bytes, &self.target).await?;
                if bytes.trim_ascii().is_empty() {
                    return Ok(Value::Null);
                }
                self.parsed(&bytes)
            }
            Way::Grpc(place) => {
                let channel = grpc::connect(self.outbound, place).await?;
                let method = self.method(method)?;
                let request = self.grpc_request(&method, request, left)?;
                let answer = method.unary(&channel, request, self.most_bytes).await;
                method.json(&answer.map_err(|status| judgement::failure(&self.target, &status))?)
            }
        }
    }

    /// Asks and follows the answer.
    pub(super) async fn stream(
        &self,
        method: Method,
        request: &Value,
        left: Duration,
    ) -> Result<Stream, Failure> {
        const EVENTS: &str = "text/event-stream";
        match &self.interface.way {
            Way::JsonRpc(url) => {
                let answer = self.post(url, method, request, EVENTS).await?;
                if is(&answer, EVENTS) {
                    return Ok(Stream::Replies(self.events(answer)));
                }
                self.reply(answer).await?;
                Err(self.unlike("a stream was asked for, and a single answer came"))
            }
            Way::HttpJson(base) => {
                let answer = self.exchange(base, method, request, EVENTS).await?;
                if is(&answer, EVENTS) {
                    return Ok(Stream::Plain(self.events(answer)));
                }
                Err(self.unlike("a stream was asked for, and a single answer came"))
            }
            Way::Grpc(place) => {
                let channel = grpc::connect(self.outbound, place).await?;
                let method = self.method(method)?;
                let request = self.grpc_request(&method, request, left)?;
                let answers = method.stream(&channel, request, self.most_bytes).await;
                let answers = answers.map_err(|status| judgement::failure(&self.target, &status))?;
                Ok(Stream::Messages(method, Box::new(answers)))
            }
        }
    }

    /// The next event of a stream.
    pub(super) async fn next(&self, stream: &mut Stream) -> Result<Option<Value>, Failure> {
        match stream {
            Stream::Replies(events) => match events.next().await? {
                Some(event) => self.result(self.parsed(event.as_bytes())?).map(Some),
                None => Ok(None),
            },
            Stream::Plain(events) => match events.next().await? {
                Some(event) => {
                    let value = self.parsed(event.as_bytes())?;
                    match fault::of_rest(&value) {
                        Some(failure) => Err(failure),
                        None => Ok(Some(value)),
                    }
                }
                None => Ok(None),
            },
            Stream::Messages(method, answers) => {
                let answer = answers.message().await;
                let answer = answer.map_err(|status| judgement::failure(&self.target, &status))?;
                answer.map(|answer| method.json(&answer)).transpose()
            }
        }
    }

    fn events(&self, answer: Response) -> Events {
        Events::new(answer, self.most_bytes, &self.target)
    }

    async fn post(
        &self,
        url: &Url,
        method: Method,
        request: &Value,
        accept: &str,
    ) -> Result<Response, Failure> {
        let mut params = request.clone();
        if !self.interface.tenant.is_empty()
            && let Some(params) = params.as_object_mut()
        {
            params.insert("tenant".to_owned(), self.interface.tenant.clone().into());
        }
        let message = json_rpc::request(1, method.name(), params);
        self.send(
            reqwest::Method::POST,
            url.clone(),
            Some(&message),
            "application/json",
            accept,
        )
        .await
    }

    async fn exchange(
        &self,
        base: &Url,
        method: Method,
        request: &Value,
        accept: &str,
    ) -> Result<Response, Failure> {
        let exchange = rest::exchange(method, base, &self.interface.tenant, request);
        let kind = "application/a2a+json";
        let accept = if accept == "application/json" {
            "application/a2a+json, application/json"
        } else {
            accept
        };
        self.send(exchange.verb, exchange.url, exchange.body.as_ref(), kind, accept)
            .await
    }

    async fn send(
        &self,
        verb: reqwest::Method,
        url: Url,
        body: Option<&Value>,
        kind: &'static str,
        accept: &str,
    ) -> Result<Response, Failure> {
        let mut request = self
            .outbound
            .request(verb, url)
            .headers(self.credentials.clone())
            .header(VERSION.0, VERSION.1)
            .header(STEP_KEY_METADATA, self.step_key.to_string())
            .header(ACCEPT, accept);
        if let Some(epoch) = self.epoch {
            request = request.header(EPOCH_METADATA, epoch);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, kind).body(body.to_string());
        }
        let request = request.build().map_err(|error| {
            let detail = format!("no request to '{}' can be made: {error}", self.target);
            Failure::new(Kind::Validation, 400, detail)
        })?;
        let answer = self.outbound.send(request).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = body::read(answer, REFUSAL, &self.target)
            .await
            .unwrap_or_default();
        let told = serde_json::from_slice::<Value>(&said).ok();
        if let Some(failure) = told.as_ref().and_then(|told| self.told(told)) {
            return Err(failure);
        }
        Err(body::refusal(
            &self.target,
            status,
            &String::from_utf8_lossy(&said),
        ))
    }

    /// The failure that an error of A2A is, in the form of either binding.
    fn told(&self, value: &Value) -> Option<Failure> {
        if let Some(failure) = fault::of_rest(value) {
            return Some(failure);
        }
        match json_rpc::read(value.clone()) {
            Some(Incoming::Reply(_, Reply::Error(error))) => Some(fault::of_json_rpc(&self.target, &error)),
            _ => None,
        }
    }

    async fn reply(&self, answer: Response) -> Result<Value, Failure> {
        let bytes = body::read(answer, self.most_bytes, &self.target).await?;
        self.result(self.parsed(&bytes)?)
    }

    fn result(&self, value: Value) -> Result<Value, Failure> {
        match json_rpc::read(value) {
            Some(Incoming::Reply(_, Reply::Result(result))) => Ok(result),
            Some(Incoming::Reply(_, Reply::Error(error))) => Err(fault::of_json_rpc(&self.target, &error)),
            _ => Err(self.unlike("it is no answer of JSON-RPC")),
        }
    }

    fn parsed(&self, bytes: &[u8]) -> Result<Value, Failure> {
        serde_json::from_slice(bytes).map_err(|error| self.unlike(&error.to_string()))
    }

    fn unlike(&self, what: &str) -> Failure {
        let detail = format!("the answer of '{}' is not A2A 1.0: {what}", self.target);
        Failure::new(Kind::Communication, 502, detail)
    }

    fn method(&self, method: Method) -> Result<grpc::Method, Failure> {
        grpc::Method::find(contract()?, SERVICE, method.name()).map(grpc::Method::sparse)
    }

    fn grpc_request(
        &self,
        method: &grpc::Method,
        request: &Value,
        left: Duration,
    ) -> Result<tonic::Request<DynamicMessage>, Failure> {
        let mut given = request.clone();
        if !self.interface.tenant.is_empty()
            && let Some(given) = given.as_object_mut()
        {
            given.insert("tenant".to_owned(), self.interface.tenant.clone().into());
        }
        let mut headers = self.credentials.clone();
        headers.insert(VERSION.0, HeaderValue::from_static(VERSION.1));
        if let Ok(step_key) = HeaderValue::from_str(&self.step_key.to_string()) {
            headers.insert(STEP_KEY_METADATA, step_key);
        }
        if let Some(epoch) = self.epoch {
            headers.insert(EPOCH_METADATA, epoch.into());
        }
        let mut request = tonic::Request::new(method.request(&given)?);
        *request.metadata_mut() = MetadataMap::from_headers(headers);
        muster_runtime::trace::inject_request(&mut request);
        request.set_timeout(left);
        Ok(request)
    }
}

fn is(answer: &Response, kind: &str) -> bool {
    let given = answer.headers().get(CONTENT_TYPE);
    given
        .and_then(|given| given.to_str().ok())
        .is_some_and(|given| given.to_ascii_lowercase().starts_with(kind))
}

/// The contract of A2A.
fn contract() -> Result<&'static DescriptorPool, Failure> {
    static CONTRACT: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    CONTRACT
        .get_or_init(|| DescriptorPool::decode(muster_api::FILE_DESCRIPTOR_SET).ok())
        .as_ref()
        .ok_or_else(|| Failure::new(Kind::Runtime, 500, "the contract of A2A is unreadable"))
}

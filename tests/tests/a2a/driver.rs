//! A client of one binding that speaks the wire and nothing else: no SDK takes part that might mend or hide something.
//!
//! Requests are given, and answers returned, as the ProtoJSON of the official descriptors, so that a case is written once
//! for all bindings. What differs between them (envelopes, paths, statuses) is checked here on every single call.

mod exchange;
mod grpc;
mod jsonrpc;
mod rest;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use exchange::Response;

/// Longest wait for an answer or an event; generous, because it is no measurement.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The standard bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    Grpc,
    JsonRpc,
    HttpJson,
}

impl Binding {
    pub const ALL: [Self; 3] = [Self::Grpc, Self::JsonRpc, Self::HttpJson];

    /// As agent cards name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "GRPC",
            Self::JsonRpc => "JSONRPC",
            Self::HttpJson => "HTTP+JSON",
        }
    }
}

/// The protocol's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    SendMessage,
    SendStreamingMessage,
    GetTask,
    ListTasks,
    CancelTask,
    SubscribeToTask,
    CreatePush,
    GetPush,
    ListPush,
    DeletePush,
    GetExtendedCard,
}

impl Operation {
    /// The method, the same in gRPC and JSON-RPC; the request's and the answer's type.
    const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::SendMessage => ("SendMessage", "SendMessageRequest", "SendMessageResponse"),
            Self::SendStreamingMessage => ("SendStreamingMessage", "SendMessageRequest", "StreamResponse"),
            Self::GetTask => ("GetTask", "GetTaskRequest", "Task"),
            Self::ListTasks => ("ListTasks", "ListTasksRequest", "ListTasksResponse"),
            Self::CancelTask => ("CancelTask", "CancelTaskRequest", "Task"),
            Self::SubscribeToTask => ("SubscribeToTask", "SubscribeToTaskRequest", "StreamResponse"),
            Self::CreatePush => (
                "CreateTaskPushNotificationConfig",
                "TaskPushNotificationConfig",
                "TaskPushNotificationConfig",
            ),
            Self::GetPush => (
                "GetTaskPushNotificationConfig",
                "GetTaskPushNotificationConfigRequest",
                "TaskPushNotificationConfig",
            ),
            Self::ListPush => (
                "ListTaskPushNotificationConfigs",
                "ListTaskPushNotificationConfigsRequest",
                "ListTaskPushNotificationConfigsResponse",
            ),
            Self::DeletePush => (
                "DeleteTaskPushNotificationConfig",
                "DeleteTaskPushNotificationConfigRequest",
                "google.protobuf.Empty",
            ),
            Self::GetExtendedCard => ("GetExtendedAgentCard", "GetExtendedAgentCardRequest", "AgentCard"),
        }
    }

    /// Its method.
    pub const fn method(self) -> &'static str {
        self.names().0
    }
}

/// An error as its binding numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    JsonRpc(i64),
    Grpc(tonic::Code),
    Http(u16),
    /// A stream whose connection broke off.
    Broken,
}

/// An error in neutral form.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its number or status.
    pub code: Code,
    /// Its text for people.
    pub message: String,
    /// Its details, as ProtoJSON of `Any`.
    pub details: Vec<Value>,
    /// The media type that it came in; empty on gRPC.
    pub media_type: String,
}

impl Refusal {
    fn broken(error: &dyn fmt::Display) -> Self {
        Self {
            code: Code::Broken,
            message: error.to_string(),
            details: Vec::new(),
            media_type: String::new(),
        }
    }

    /// Reason and domain of its `ErrorInfo`; of several the one of A2A.
    pub fn info(&self) -> Option<(&str, &str)> {
        let infos = self.details.iter().filter(|detail| {
            detail["@type"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("google.rpc.ErrorInfo"))
        });
        let mut infos: Vec<(&str, &str)> = infos
            .map(|info| {
                (
                    info["reason"].as_str().unwrap_or(""),
                    info["domain"].as_str().unwrap_or(""),
                )
            })
            .collect();
        infos.sort_by_key(|(_, domain)| *domain != "a2a-protocol.org");
        infos.first().copied()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} {:?} '{}'", self.code, self.info(), self.message)
    }
}

/// A good answer in neutral form.
#[derive(Debug, Clone)]
pub struct Answer {
    /// ProtoJSON.
    pub value: Value,
    /// The media type that it came in; empty on gRPC.
    pub media_type: String,
}

/// How a call ended.
pub type Outcome = Result<Answer, Refusal>;

/// The events of a stream. Dropping it closes the stream.
pub struct Events {
    // Of one, so that who does not read a stream holds up its connection.
    receiver: mpsc::Receiver<Result<Value, Refusal>>,
    /// The media type of the stream; empty on gRPC.
    pub media_type: String,
    _reader: JoinSet<()>,
}

impl Events {
    /// The next event or the error that ends the stream; `None` at its end.
    pub async fn try_next(&mut self) -> Option<Result<Value, Refusal>> {
        tokio::time::timeout(PATIENCE, self.receiver.recv())
            .await
            .unwrap_or_else(|_| panic!("no event and no end of the stream within {PATIENCE:?}"))
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        self.try_next()
            .await
            .map(|event| event.unwrap_or_else(|refusal| panic!("the stream ended with {refusal}")))
    }

    /// All further events, up to the end of the stream.
    pub async fn rest(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// A client of one interface.
#[derive(Debug, Clone)]
pub struct Driver {
    /// What it speaks.
    pub binding: Binding,
    address: SocketAddr,
    /// Path of the interface's URL, without a slash at the end.
    path: String,
    tenant: String,
    headers: Vec<(String, String)>,
    query: String,
}

impl Driver {
    /// The interface of a card for this binding. Where the card declares none, where it is by convention, so that each
    /// case has an outcome of its own; that it is declared is a case, too.
    pub fn of_card(binding: Binding, card: &Value, address: SocketAddr, base: &str) -> Self {
        let interfaces = card["supportedInterfaces"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let declared = interfaces
            .iter()
            .find(|interface| interface["protocolBinding"] == binding.name());
        let url = declared.and_then(|interface| interface["url"].as_str());
        let bare = url.unwrap_or_default().trim_start_matches("http://");
        let path = match bare.split_once('/') {
            Some((_, path)) => format!("/{}", path.trim_end_matches('/')),
            None if url.is_none() => base.to_owned(),
            None => String::new(),
        };
        let tenant = match declared {
            Some(interface) => interface["tenant"].as_str().unwrap_or_default(),
            None => "",
        };
        Self {
            binding,
            address,
            path: path.trim_end_matches('/').to_owned(),
            tenant: tenant.to_owned(),
            headers: vec![("a2a-version".to_owned(), "1.0".to_owned())],
            query: String::new(),
        }
    }

    /// Sends this header or metadata instead of what it sends of that name; none, where the value is `None`.
    pub fn header(&self, name: &str, value: Option<&str>) -> Self {
        let mut changed = self.clone();
        changed.headers.retain(|(given, _)| given != name);
        changed
            .headers
            .extend(value.map(|value| (name.to_owned(), value.to_owned())));
        changed
    }

    /// Adds this to the query of every URL.
    pub fn query(&self, query: &str) -> Self {
        Self {
            query: query.to_owned(),
            ..self.clone()
        }
    }

    /// Goes to another path of the same host, for another tenant.
    pub fn at(&self, path: &str, tenant: &str) -> Self {
        Self {
            path: path.trim_end_matches('/').to_owned(),
            tenant: tenant.to_owned(),
            ..self.clone()
        }
    }

    /// Path of its interface.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// One answer.
    pub async fn call(&self, operation: Operation, params: Value) -> Outcome {
        let params = self.with_tenant(params);
        match self.binding {
            Binding::Grpc => grpc::call(self, operation, &params).await,
            Binding::JsonRpc => jsonrpc::call(self, operation, &params).await,
            Binding::HttpJson => rest::call(self, operation, params).await,
        }
    }

    /// The answer, which has to be a good one.
    pub async fn ok(&self, operation: Operation, params: Value) -> Value {
        match self.call(operation, params).await {
            Ok(answer) => answer.value,
            Err(refusal) => panic!("{}: {refusal}", operation.method()),
        }
    }

    /// A stream, or why there is none.
    pub async fn try_stream(&self, operation: Operation, params: Value) -> Result<Events, Refusal> {
        let params = self.with_tenant(params);
        match self.binding {
            Binding::Grpc => grpc::stream(self, operation, &params).await,
            Binding::JsonRpc => jsonrpc::stream(self, operation, &params).await,
            Binding::HttpJson => rest::stream(self, operation, params, None).await,
        }
    }

    /// A stream, which has to begin.
    pub async fn stream(&self, operation: Operation, params: Value) -> Events {
        self.try_stream(operation, params)
            .await
            .unwrap_or_else(|refusal| panic!("{}: {refusal}", operation.method()))
    }

    /// How a stream begins: its first event, or the error in its place.
    pub async fn first_of_stream(&self, operation: Operation, params: Value) -> Outcome {
        let mut events = self.try_stream(operation, params).await?;
        let first = events.try_next().await;
        let value = first.unwrap_or_else(|| panic!("{}: a stream without events", operation.method()))?;
        let media_type = events.media_type.clone();
        Ok(Answer { value, media_type })
    }

    /// `:subscribe` by a method of one's choice; HTTP+JSON only.
    pub async fn subscribe_by(&self, method: Method, task: &str) -> Result<Events, Refusal> {
        let params = self.with_tenant(json!({ "id": task }));
        rest::stream(self, Operation::SubscribeToTask, params, Some(method)).await
    }

    /// A call of a method of any name, with an empty request; not on HTTP+JSON, which has no names.
    pub async fn call_named(&self, method: &str) -> Result<(), Refusal> {
        match self.binding {
            Binding::Grpc => grpc::call_named(self, method).await,
            _ => jsonrpc::call_named(self, method).await,
        }
    }

    /// A POST of any body to the interface's URL and `path`; not on gRPC.
    pub async fn post(&self, path: &str, media_type: &str, body: &str) -> Response {
        let mut headers = self.headers.clone();
        headers.push(("content-type".to_owned(), media_type.to_owned()));
        let path = self.url_path(path);
        exchange::send(
            self.address,
            Method::POST,
            &path,
            &headers,
            body.to_owned().into(),
        )
        .await
        .read()
        .await
    }

    /// The error in an answer over HTTP.
    pub fn refusal_in(&self, response: &Response) -> Refusal {
        match self.binding {
            Binding::JsonRpc => jsonrpc::refusal(response),
            _ => rest::refusal(response),
        }
    }

    fn with_tenant(&self, mut params: Value) -> Value {
        if !self.tenant.is_empty() && params.get("tenant").is_none() {
            params["tenant"] = json!(self.tenant);
        }
        params
    }

    /// A path below the interface's, with the query.
    fn url_path(&self, below: &str) -> String {
        let path = format!("{}{below}", self.path);
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let query = self.query.as_str();
        match (query, path.contains('?')) {
            ("", _) => path,
            (query, true) => format!("{path}&{query}"),
            (query, false) => format!("{path}?{query}"),
        }
    }
}

/// A plain GET, for cards.
pub async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    exchange::send(address, Method::GET, path, &headers, Bytes::new())
        .await
        .read()
        .await
}

/// The media type of an answer, without its parameters.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get("content-type").and_then(|value| value.to_str().ok());
    let bare = value.unwrap_or_default().split(';').next().unwrap_or_default();
    bare.trim().to_ascii_lowercase()
}

/// The error that a body of JSON, or of what should be JSON, is answered with; not on gRPC.
pub async fn refusal_of(driver: &Driver, path: &str, body: &str) -> Refusal {
    let response = driver.post(path, "application/json", body).await;
    driver.refusal_in(&response)
}

//! gRPC over plain HTTP with JSON: every RPC with a `google.api.http` rule answers on its path, too, on the same port.
//!
//! A request that no HTTP route of the service's own takes is matched against the rules; path variables, query and body
//! become the RPC's message (ProtoJSON, read by the descriptors), the message goes in process into the same tonic
//! services that gRPC clients reach, and what comes back is written as JSON. So a handler, its bounds and its errors
//! exist once, and there is no second hop.
//!
//! - Answers are ProtoJSON: names in camelCase, 64-bit integers as text, fields with their default left out.
//! - A server stream is one JSON object per line, or server-sent events where `accept` names `text/event-stream`. What
//!   fails after the head is the last object, `{"error": …}` (event `error`).
//! - Errors are `{"error": {code, status, message, details}}`: `google.rpc.Status` with the HTTP status in the place of
//!   the code, the form that the chassis and the A2A bindings answer with.
//! - `grpc-timeout` is enforced here for the whole call, streams included; other headers travel as metadata.
//!
//! A rule that cannot be served (a wildcard in a path, a client stream, `response_body`, a variable that is no field)
//! refuses the start, because it is a mistake of the contract and not of a request.
//!
//! Own code, because no crate fits: `structured-proxy` is a proxy of its own that dials the services over the network
//! and had eight major versions within a year; `tonic2axum`, `tonic-rest` and `g2h` generate handlers with types of
//! their own at build time, `g2h` under no licence that its package names.

mod answer;
mod frame;
mod question;
mod refusal;
mod rule;
mod template;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::Error;
use refusal::Refusal;
pub use refusal::refused;
use rule::Rule;

/// The rules of the services that are served, and the services themselves. Cheap to clone.
#[derive(Clone)]
pub struct Transcoder {
    rules: Arc<[Rule]>,
    pool: DescriptorPool,
    services: Router,
    max_message_bytes: usize,
}

/// What a path and a method mean.
pub enum Found<'a> {
    /// An RPC, with the values of the path's variables.
    Call(Call<'a>),
    /// The path is one, but not with this method; the header `allow`.
    OtherMethod(HeaderValue),
}

/// An RPC that a request has been matched to.
pub struct Call<'a> {
    rule: &'a Rule,
    variables: Vec<(&'a str, String)>,
}

impl Transcoder {
    /// The rules of these services; `services` answers gRPC.
    ///
    /// # Errors
    /// When a rule cannot be served.
    pub fn new(
        descriptor_set: &[u8],
        names: &[&str],
        services: Router,
        max_message_bytes: usize,
    ) -> Result<Self, Error> {
        let pool = DescriptorPool::decode(descriptor_set)
            .map_err(|error| Error::Serve(format!("the contract's descriptors: {error}")))?;
        let mut rules = Vec::new();
        for name in names {
            if let Some(service) = pool.get_service_by_name(name) {
                for method in service.methods() {
                    rules.extend(rule::of(&method).map_err(Error::Serve)?);
                }
            }
        }
        // Literals go before variables.
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.template.literals()));
        Ok(Self {
            rules: rules.into(),
            pool,
            services,
            max_message_bytes,
        })
    }

    /// The message that a method takes, by the method's path.
    pub(crate) fn input_of(&self, path: &str) -> Option<MessageDescriptor> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        let service = self.pool.get_service_by_name(service)?;
        let method = service.methods().find(|method| method.name() == name)?;
        Some(method.input())
    }

    /// What the request asks for; nothing when no rule has its path.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Option<Found<'_>> {
        let mut allowed = Vec::new();
        for rule in self.rules.iter() {
            let Some(variables) = rule.template.matches(path) else {
                continue;
            };
            if rule.method == *method {
                return Some(Found::Call(Call { rule, variables }));
            }
            allowed.push(rule.method.as_str());
        }
        if allowed.is_empty() {
            return None;
        }
        allowed.sort_unstable();
        allowed.dedup();
        let allowed = HeaderValue::from_str(&allowed.join(", ")).expect("methods are tokens");
        Some(Found::OtherMethod(allowed))
    }

    /// Calls the RPC; errors are JSON.
    pub async fn answer(&self, call: &Call<'_>, request: Request) -> Response {
        match self.dispatch(call, request).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        }
    }

    async fn dispatch(&self, call: &Call<'_>, request: Request) -> Result<Response, Refusal> {
        let (head, body) = request.into_parts();
        let deadline = deadline(&head.headers)?;
        let style = answer::Style::of(&head.headers);
        let body = question::read(&head.headers, body).await?;
        let message = question::message(call.rule, &call.variables, &head.uri, &body)?;
        // A timer is looked at after what it limits: what is too late already must not win the race.
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(refusal::too_late());
        }
        let framed = frame::write(&message, self.max_message_bytes)?;
        let request = grpc_request(call.rule, &head.headers, head.extensions, framed);
        let answered = async {
            let response = self.services.clone().oneshot(request).await;
            let response = response.unwrap_or_else(|never| match never {});
            answer::of(call.rule, response, style, deadline).await
        };
        match deadline {
            None => answered.await,
            Some(deadline) => tokio::time::timeout_at(deadline, answered)
                .await
                .unwrap_or_else(|_| Err(refusal::too_late())),
        }
    }
}

impl Call<'_> {
    /// Where gRPC reaches it.
    pub(crate) fn grpc_path(&self) -> &str {
        self.rule.grpc_path.path()
    }

    /// The path as the rule writes it: bounded, for metrics.
    pub(crate) fn label(&self) -> &str {
        self.rule.template.text()
    }
}

/// When the caller stops waiting.
fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Refusal> {
    let Some(value) = headers.get(muster_rpc::deadline::HEADER) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let left = muster_rpc::deadline::parse(&text)
        .map_err(|error| refusal::field(muster_rpc::deadline::HEADER, error.to_string()))?;
    Ok(Instant::now().checked_add(left))
}

/// Headers that belong to this exchange and say nothing to the service.
fn stays(name: &HeaderName) -> bool {
    const HERE: [HeaderName; 10] = [
        header::CONNECTION,
        header::EXPECT,
        header::HOST,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
    ];
    let text = name.as_str();
    HERE.contains(name)
        || text.starts_with("accept")
        || text.starts_with("content-")
        || (text.starts_with("grpc-") && text != muster_rpc::deadline::HEADER)
}

/// The call as its gRPC service gets it; who calls, and for whom, stays with it.
fn grpc_request(
    rule: &Rule,
    headers: &HeaderMap,
    extensions: http::Extensions,
    framed: axum::body::Bytes,
) -> Request {
    let mut request = Request::new(Body::from(framed));
    *request.extensions_mut() = extensions;
    *request.method_mut() = Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = rule.grpc_path.clone();
    for (name, value) in headers {
        if !stays(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

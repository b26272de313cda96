//! What every request on the data port goes through: a panic stays in its request, each is counted, who may not is not let through,
//! and what is not gRPC is bounded and refused as JSON.
//!
//! All of that is one function ([`Layers::pass`]), around whatever answers. A method of the contract is answered by its service at once
//! ([`super::express`]), everything else by the routes; both go through this function, so that there is nothing that one of the two ways
//! checks or counts and the other does not. Rejected: a middleware for each of these things around the routes alone. Each of them copies
//! the services below it for every request, and the express way would have to repeat what they do.
//!
//! What is gRPC is decided by the path for the bounds, so that a content type does not get around them.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use futures::FutureExt as _;
use http::{StatusCode, header};

use super::body::{Exceeded, Later, Watched, ending_of, limited, timed};
use super::contract::{Contract, Method};
use super::requests::{Count, Ending, Requests};
use super::{answers, named};
use crate::clock::SharedClock;
use crate::server::Config;
use crate::tasks::panic_message;
use crate::trace::{self, Kind, Span, Tracer};
use crate::transcode::{Found, Transcoder};
use crate::trust::audit::Why;
use crate::trust::entrance::Entrance;
use crate::trust::gate::{Asked, Gate};
use crate::trust::policy::{self, Need, Record, Rule};
use crate::trust::{Access, Peer};

/// What is asked all the time and is part of nobody's work: a trace of each would drown the others.
const UNTRACED: [&str; 3] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/muster.registry.v1.RegistryService/Heartbeat",
];

/// What the layers need. One for all requests.
pub(crate) struct Layers {
    requests: Requests,
    tracer: Tracer,
    clock: SharedClock,
    contract: Contract,
    transcoder: Transcoder,
    entrance: Entrance,
    gate: Arc<Gate>,
    max_body_bytes: usize,
    max_message_bytes: usize,
    body_timeout: Duration,
}

impl Layers {
    pub(crate) fn new(
        requests: Requests,
        tracer: Tracer,
        clock: SharedClock,
        contract: Contract,
        transcoder: Transcoder,
        (entrance, gate): (Entrance, Arc<Gate>),
        server: &Config,
    ) -> Self {
        Self {
            requests,
            tracer,
            clock,
            contract,
            transcoder,
            entrance,
            gate,
            max_body_bytes: server.max_body_bytes(),
            max_message_bytes: server.max_message_bytes,
            body_timeout: server.body_timeout(),
        }
    }

    /// The outermost: catches and counts. The duration is until the head, the count of a gRPC request when its status is known.
    ///
    /// `answer` is what answers whoever is let through.
    pub(crate) async fn pass<F>(&self, request: Request, answer: impl FnOnce(Request) -> F) -> Response
    where
        F: Future<Output = Response>,
    {
        let grpc = answers::is_grpc(request.headers());
        let method = method_label(request.method());
        let known = self.contract.method(request.uri().path());
        let route = match known {
            Some(known) if method == "POST" => {
                known.posted(|| self.requests.route(method, request.uri().path()))
            }
            _ => self.requests.route(method, &self.endpoint(&request)),
        };
        let before = self.clock.monotonic();
        let span = if self.tracer.is_on() && !UNTRACED.contains(&&*route.endpoint) {
            self.span(&request, method, &route.endpoint, grpc)
        } else {
            Span::default()
        };
        let answer =
            std::pin::pin!(AssertUnwindSafe(self.admitted(request, known, grpc, answer)).catch_unwind());
        let response = match trace::inside(span.context(), answer).await {
            Ok(response) => response,
            Err(panic) => {
                let reason = panic_message(panic.as_ref());
                tracing::error!(endpoint = &*route.endpoint, reason, "a request panicked");
                self.requests.panicked();
                answers::panicked(grpc)
            }
        };
        let now = self.clock.monotonic();
        route.answered(now, now.saturating_sub(before), &span);

        let (head, body) = response.into_parts();
        let known = if grpc && head.status == StatusCode::OK {
            ending_of(&head.headers)
        } else {
            let status = head.status.as_u16();
            Some(Ending { status, code: None })
        };
        let count = Count::new(Arc::clone(&route), before, span);
        let later = match known {
            Some(ending) => count.add(ending).map(Later::Span),
            None => Some(Later::Count(count)),
        };
        Response::from_parts(head, Body::new(Watched::new(body, route, grpc, later)))
    }

    /// The span of a request, as its caller's if that says so.
    fn span(&self, request: &Request, method: &'static str, endpoint: &str, grpc: bool) -> Span {
        let name = || {
            if grpc {
                endpoint.trim_start_matches('/').to_owned()
            } else {
                format!("{method} {endpoint}")
            }
        };
        let mut span = self.tracer.incoming(Kind::Server, name, request.headers());
        if span.is_recorded() {
            match endpoint.strip_prefix('/').and_then(|path| path.split_once('/')) {
                Some((service, rpc)) if grpc => {
                    span.set("rpc.system", "grpc");
                    span.set("rpc.service", service.to_owned());
                    span.set("rpc.method", rpc.to_owned());
                }
                _ => {
                    span.set("http.request.method", method);
                    span.set("http.route", endpoint.to_owned());
                }
            }
        }
        span
    }

    /// The middle one: lets through who may, and knows who it is.
    async fn admitted<F>(
        &self,
        request: Request,
        known: Option<&Method>,
        grpc: bool,
        answer: impl FnOnce(Request) -> F,
    ) -> Response
    where
        F: Future<Output = Response>,
    {
        let request = match self.entrance.admit(request, grpc) {
            Ok(request) => request,
            Err(response) => return *response,
        };
        let (rule, action) = self.rule(&request, known);
        let late = self.gate.is_audited().then(Exceeded::default);
        let request = timed(request, self.body_timeout, late.clone());
        let (request, object) = self.about(request, rule, &action, grpc).await;
        let asked = Asked {
            rule,
            action: &action,
            object: &object,
        };
        match self.gate.admit(request, asked, grpc).await {
            Ok(request) => self.plain(request, late, answer).await,
            Err(response) => *response,
        }
    }

    /// What the request is about, where the audit log is to say so.
    async fn about(&self, request: Request, rule: Rule, action: &str, grpc: bool) -> (Request, String) {
        if !self.gate.is_audited() {
            return (request, String::new());
        }
        if !grpc {
            let path = request.uri().path().to_owned();
            return (request, path);
        }
        match self.transcoder.input_of(action) {
            Some(input) if rule.record == Record::Change => named::read(request, &input).await,
            _ => (request, String::new()),
        }
    }

    /// What the request needs, and what it is called in the audit log.
    fn rule(&self, request: &Request, known: Option<&Method>) -> (Rule, String) {
        let (method, path) = (request.method(), request.uri().path());
        if let Some(known) = known.filter(|known| known.is_served) {
            return (known.rule, path.to_owned());
        }
        if self.contract.serves(path) {
            let rule = policy::of_method(path).unwrap_or(policy::DEFAULT);
            return (rule, path.to_owned());
        }
        if let Some(route) = request.extensions().get::<MatchedPath>() {
            let rule = policy::of_route(route.as_str()).unwrap_or(policy::DEFAULT);
            return (rule, format!("{method} {}", route.as_str()));
        }
        match self.transcoder.find(method, path) {
            Some(Found::Call(call)) => {
                let path = call.grpc_path();
                (
                    policy::of_method(path).unwrap_or(policy::DEFAULT),
                    path.to_owned(),
                )
            }
            // Nothing is served there, and whoever asks hears so.
            Some(Found::OtherMethod(_)) | None => {
                let rule = Rule {
                    need: Need::Nothing,
                    ..policy::DEFAULT
                };
                (rule, "nothing".to_owned())
            }
        }
    }

    /// The innermost: bounds the bodies of plain HTTP and gives refusals that have none of their own a JSON body; keeps everything
    /// but gRPC away from the gRPC services.
    async fn plain<F>(
        &self,
        request: Request,
        late: Option<Exceeded>,
        answer: impl FnOnce(Request) -> F,
    ) -> Response
    where
        F: Future<Output = Response>,
    {
        let Some(late) = late else {
            return self.answered(request, answer).await;
        };
        let turned_away = self.gate.turned_away();
        let address = request.extensions().get::<Peer>().map(|peer| peer.address().ip());
        let caller = Access::in_extensions(request.extensions()).caller().key();
        let response = self.answered(request, answer).await;
        if answers::is_too_large(&response) {
            turned_away.write_down(address, Why::MessageTooLarge, &caller);
        } else if late.get() {
            turned_away.write_down(address, Why::SlowBody, &caller);
        }
        response
    }

    async fn answered<F>(&self, request: Request, answer: impl FnOnce(Request) -> F) -> Response
    where
        F: Future<Output = Response>,
    {
        let path = request.uri().path();
        if self.contract.serves(path) {
            return if answers::is_grpc(request.headers()) {
                answers::typed_oversize(answer(request).await, self.max_message_bytes)
            } else {
                answers::grpc_only(path, self.contract.method(path).is_some())
            };
        }
        // On the heap, so that who speaks gRPC does not carry it.
        Box::pin(self.bounded(request, answer)).await
    }

    async fn bounded<F>(&self, request: Request, answer: impl FnOnce(Request) -> F) -> Response
    where
        F: Future<Output = Response>,
    {
        let limit = self.max_body_bytes;
        let (request, exceeded) = limited(request, limit);
        let outcome = AssertUnwindSafe(self.serve(request, answer)).catch_unwind().await;
        let response = match outcome {
            // Not in the handler's words: it cannot know.
            Ok(Served::Transcoded(_)) if exceeded.get() => return answers::too_large(limit),
            Ok(Served::Transcoded(response)) => return response,
            Ok(Served::Routed(response)) => response,
            // A handler that takes the end of the body for impossible.
            Err(_) if exceeded.get() => return answers::too_large(limit),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        if answers::is_json(response.headers()) {
            return response;
        }
        match response.status() {
            _ if exceeded.get() => answers::too_large(limit),
            // A route with a smaller bound of its own.
            StatusCode::PAYLOAD_TOO_LARGE => answers::too_large_here(),
            StatusCode::METHOD_NOT_ALLOWED => {
                answers::method_not_allowed(response.headers().get(header::ALLOW).cloned())
            }
            _ => response,
        }
    }

    /// A route of the service's own; where there is none, an RPC by its HTTP rule.
    async fn serve<F>(&self, request: Request, answer: impl FnOnce(Request) -> F) -> Served
    where
        F: Future<Output = Response>,
    {
        let routed = request.extensions().get::<MatchedPath>().is_some();
        if routed || answers::is_grpc(request.headers()) {
            return Served::Routed(answer(request).await);
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        match self.transcoder.find(&method, &path) {
            Some(Found::Call(call)) => Served::Transcoded(self.transcoder.answer(&call, request).await),
            Some(Found::OtherMethod(allowed)) => {
                Served::Transcoded(answers::method_not_allowed(Some(allowed)))
            }
            None => Served::Routed(answer(request).await),
        }
    }

    fn endpoint<'r>(&self, request: &'r Request) -> Cow<'r, str> {
        let path = request.uri().path();
        if self.contract.method(path).is_some() {
            return path.into();
        }
        request
            .extensions()
            .get::<MatchedPath>()
            .map(|path| path.as_str().into())
            .or_else(|| match self.transcoder.find(request.method(), path)? {
                Found::Call(call) => Some(call.label().to_owned().into()),
                Found::OtherMethod(_) => None,
            })
            .unwrap_or_else(|| "unknown".into())
    }
}

/// Who answered a request that is not gRPC.
enum Served {
    /// A route of the service's own, or nobody.
    Routed(Response),
    /// An RPC by its HTTP rule; its answer is whole.
    Transcoded(Response),
}

fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

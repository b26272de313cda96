//! What every request on the data port goes through: a panic stays in its request, each is counted, and what is
//! not gRPC is bounded and refused as JSON.
//!
//! What is gRPC is decided by the path for the bounds, so that a content type does not get around them.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt as _;
use http::{StatusCode, header};

use super::body::{Count, Watched, limited, status_of, timed};
use super::{Contract, answers};
use crate::clock::SharedClock;
use crate::metrics::Metrics;
use crate::server::Config;
use crate::tasks::panic_message;
use crate::transcode::{Found, Transcoder};

/// What the layers need.
#[derive(Clone)]
pub(crate) struct Layers {
    metrics: Metrics,
    clock: SharedClock,
    contract: Contract,
    transcoder: Transcoder,
    max_body_bytes: usize,
    max_message_bytes: usize,
    body_timeout: Duration,
}

impl Layers {
    pub(crate) fn new(
        metrics: Metrics,
        clock: SharedClock,
        contract: Contract,
        transcoder: Transcoder,
        server: &Config,
    ) -> Self {
        Self {
            metrics,
            clock,
            contract,
            transcoder,
            max_body_bytes: server.max_body_bytes(),
            max_message_bytes: server.max_message_bytes,
            body_timeout: server.body_timeout(),
        }
    }

    /// The outermost middleware: catches and counts. The duration is until the head, the count of a gRPC request
    /// when its status is known.
    pub(crate) async fn guard(State(layers): State<Self>, request: Request, next: Next) -> Response {
        let grpc = answers::is_grpc(request.headers());
        let method = method_label(request.method());
        let endpoint = layers.endpoint(&request);
        let before = layers.clock.monotonic();
        let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => {
                let reason = panic_message(panic.as_ref());
                tracing::error!(endpoint, reason, "a request panicked");
                answers::panicked(grpc)
            }
        };
        let took = layers.clock.monotonic().saturating_sub(before).as_secs_f64();
        let labels = [("method", method.to_owned()), ("endpoint", endpoint.clone())];
        layers
            .metrics
            .histogram("http_request_duration_seconds", &labels)
            .record(took);

        let count = Count::new(layers.metrics, method, endpoint.clone());
        let (head, body) = response.into_parts();
        let known = if grpc && head.status == StatusCode::OK {
            status_of(&head.headers)
        } else {
            Some(head.status.as_u16())
        };
        let later = match known {
            Some(status) => {
                count.add(status);
                None
            }
            None => Some(count),
        };
        Response::from_parts(head, Body::new(Watched::new(body, endpoint, grpc, later)))
    }

    /// The inner middleware: bounds the bodies of plain HTTP and gives refusals that have none of their own a JSON
    /// body; keeps everything but gRPC away from the gRPC services.
    pub(crate) async fn plain(State(layers): State<Self>, request: Request, next: Next) -> Response {
        let request = timed(request, layers.body_timeout);
        let path = request.uri().path();
        if layers.contract.serves(path) {
            return if answers::is_grpc(request.headers()) {
                answers::typed_oversize(next.run(request).await, layers.max_message_bytes)
            } else {
                answers::grpc_only(path, layers.contract.has_method(path))
            };
        }
        let limit = layers.max_body_bytes;
        let (request, exceeded) = limited(request, limit);
        let outcome = AssertUnwindSafe(layers.serve(request, next)).catch_unwind().await;
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
    async fn serve(&self, request: Request, next: Next) -> Served {
        let routed = request.extensions().get::<MatchedPath>().is_some();
        if routed || answers::is_grpc(request.headers()) {
            return Served::Routed(next.run(request).await);
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        match self.transcoder.find(&method, &path) {
            Some(Found::Call(call)) => Served::Transcoded(self.transcoder.answer(&call, request).await),
            Some(Found::OtherMethod(allowed)) => {
                Served::Transcoded(answers::method_not_allowed(Some(allowed)))
            }
            None => Served::Routed(next.run(request).await),
        }
    }

    fn endpoint(&self, request: &Request) -> String {
        let path = request.uri().path();
        if self.contract.has_method(path) {
            return path.to_owned();
        }
        request
            .extensions()
            .get::<MatchedPath>()
            .map(|path| path.as_str().to_owned())
            .or_else(|| match self.transcoder.find(request.method(), path)? {
                Found::Call(call) => Some(call.label().to_owned()),
                Found::OtherMethod(_) => None,
            })
            .unwrap_or_else(|| "unknown".to_owned())
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

//! What every request on the data port goes through: a panic stays in its request, and each is counted.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prost::Message as _;
use serde_json::json;
use tonic::Code;

use crate::clock::SharedClock;
use crate::metrics::Metrics;
use crate::tasks::panic_message;

/// What the layers need.
#[derive(Clone)]
pub(crate) struct Layers {
    metrics: Metrics,
    clock: SharedClock,
    /// `/package.Service/Method` of every method in the contract: the bound of the `endpoint` label.
    methods: Arc<HashSet<String>>,
}

impl Layers {
    pub(crate) fn new(metrics: Metrics, clock: SharedClock, descriptor_sets: &[&[u8]]) -> Self {
        let mut methods = HashSet::new();
        for set in descriptor_sets {
            let Ok(set) = prost_types::FileDescriptorSet::decode(*set) else {
                continue;
            };
            for file in &set.file {
                for service in &file.service {
                    for method in &service.method {
                        methods.insert(format!(
                            "/{}.{}/{}",
                            file.package(),
                            service.name(),
                            method.name()
                        ));
                    }
                }
            }
        }
        Self {
            metrics,
            clock,
            methods: Arc::new(methods),
        }
    }

    /// The outermost middleware.
    pub(crate) async fn guard(State(layers): State<Self>, request: Request, next: Next) -> Response {
        let grpc = is_grpc(request.headers());
        let method = method_label(request.method());
        let endpoint = layers.endpoint(&request);
        let before = layers.clock.monotonic();
        let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => {
                tracing::error!(
                    endpoint,
                    reason = panic_message(panic.as_ref()),
                    "a request panicked"
                );
                internal_error(grpc)
            }
        };
        let took = layers.clock.monotonic().saturating_sub(before).as_secs_f64();
        let labels = [("method", method.to_owned()), ("endpoint", endpoint)];
        layers
            .metrics
            .histogram("http_request_duration_seconds", &labels)
            .record(took);
        let [method, endpoint] = labels;
        let status = ("status_code", response.status().as_u16().to_string());
        layers
            .metrics
            .counter("http_requests_total", &[method, endpoint, status])
            .increment(1);
        response
    }

    fn endpoint(&self, request: &Request) -> String {
        let path = request.uri().path();
        if self.methods.contains(path) {
            return path.to_owned();
        }
        request
            .extensions()
            .get::<MatchedPath>()
            .map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned())
    }
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

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/grpc"))
}

fn internal_error(grpc: bool) -> Response {
    if grpc {
        grpc_error(Code::Internal, "a defect of ours: the request panicked")
    } else {
        let body = json!({"error": {"code": 500, "status": "INTERNAL", "message": "a defect of ours: the request panicked"}});
        (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
    }
}

/// A gRPC error in the response's head ("trailers only").
fn grpc_error(code: Code, message: &'static str) -> Response {
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code as i32));
    headers.insert("grpc-message", HeaderValue::from_static(message));
    response
}

/// The answer to a path that nobody serves: 404 for HTTP, UNIMPLEMENTED for gRPC.
pub(crate) async fn fallback(request: Request) -> Response {
    if is_grpc(request.headers()) {
        return grpc_error(
            Code::Unimplemented,
            "no such service or method; list them by reflection",
        );
    }
    let message = format!("{} {} is not served here", request.method(), request.uri().path());
    let body = json!({"error": {"code": 404, "status": "NOT_FOUND", "message": message}});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

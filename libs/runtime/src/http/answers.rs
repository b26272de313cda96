//! The chassis' own answers: errors as JSON for HTTP, as a status for gRPC.

use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use muster_api::error::{Error, Reason};
use percent_encoding::percent_decode;
use tonic::{Code, Status};

use crate::transcode::refused;

/// Where a gRPC status is, in the head or in the trailers.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// When it is worth asking again a service that has not come up yet.
const NOT_YET: Duration = Duration::from_secs(1);
const PANICKED: &str = "a defect of ours: the request panicked";

/// Whether the headers are those of gRPC, and not of gRPC-Web, which is not spoken here.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    content_type(headers)
        .and_then(|value| value.strip_prefix("application/grpc"))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|value| value.starts_with("application/") && value.contains("json"))
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
}

/// An error as JSON, in the form of `google.rpc`, with another HTTP status than that of its reason where one fits better.
fn http_error(error: Error, http: Option<StatusCode>) -> Response {
    refused(error.into(), http)
}

/// A gRPC error in the response's head ("trailers only").
fn grpc_error(code: Code, message: &'static str) -> Response {
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.extend(grpc_status(code, message));
    response
}

/// The headers, or trailers, of a gRPC status.
fn grpc_status(code: Code, message: &'static str) -> HeaderMap {
    HeaderMap::from_iter([
        (GRPC_STATUS, HeaderValue::from(code as i32)),
        (GRPC_MESSAGE, HeaderValue::from_static(message)),
    ])
}

/// The answer to a request that panicked.
pub(super) fn panicked(grpc: bool) -> Response {
    if grpc {
        grpc_error(Code::Internal, PANICKED)
    } else {
        http_error(Error::new(Reason::Internal, PANICKED), None)
    }
}

/// The end of a gRPC stream that panicked.
pub(super) fn panicked_trailers() -> HeaderMap {
    grpc_status(Code::Internal, PANICKED)
}

/// Marks an answer that says that too much was sent.
#[derive(Debug, Clone, Copy)]
struct TooLarge;

/// Whether an answer says that too much was sent.
pub(super) fn is_too_large(response: &Response) -> bool {
    response.extensions().get::<TooLarge>().is_some()
}

fn marked(mut response: Response) -> Response {
    response.extensions_mut().insert(TooLarge);
    response
}

/// The answer to a body over the limit.
pub(super) fn too_large(limit: usize) -> Response {
    let message =
        format!("the body has more than {limit} bytes; send less, or raise `server.max_message_bytes`");
    marked(http_error(Error::new(Reason::MessageTooLarge, message), None))
}

/// The answer to a body over a limit that the route sets for itself.
pub(super) fn too_large_here() -> Response {
    let message = "the body has more bytes than this path takes; send less";
    marked(http_error(Error::new(Reason::MessageTooLarge, message), None))
}

/// The answer to a method that the path does not have; the header `allow` goes with it.
pub(super) fn method_not_allowed(allowed: Option<HeaderValue>) -> Response {
    let message = "the path is there, but not with this method; the header `allow` lists those that are";
    let mut response = http_error(Error::new(Reason::MethodNotAllowed, message), None);
    // Of an inner router; the outermost adds its own later.
    if let Some(allowed) = allowed {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// The answer to anything but gRPC on a path of a gRPC service.
pub(super) fn grpc_only(path: &str, has_method: bool) -> Response {
    if has_method {
        let message = format!("{path} speaks gRPC only: POST with content-type application/grpc");
        let error = Error::invalid_field("content-type", message);
        http_error(error, Some(StatusCode::UNSUPPORTED_MEDIA_TYPE))
    } else {
        let message = format!("{path} is no method");
        http_error(Error::new(Reason::PathNotFound, message), None)
    }
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
    http_error(Error::new(Reason::PathNotFound, message), None)
}

/// The answer to everything while the service waits for what it cannot start without. What that is, is for its operator, at
/// the health port.
pub(crate) async fn not_yet(request: Request) -> Response {
    let message = "the service has started and waits for its store; its `/ready` says why";
    let error = Error::new(Reason::StoreUnavailable, message).with_retry_after(NOT_YET);
    if is_grpc(request.headers()) {
        Status::from(error).into_http()
    } else {
        http_error(error, None)
    }
}

/// What tonic says of a gRPC message over the limit.
const OVERSIZE: &str = "decoded message length too large";

/// A gRPC answer, or MESSAGE_TOO_LARGE in the place of tonic's bare OUT_OF_RANGE: tonic refuses a message over the limit before
/// any handler sees it, and callers are to find the reason and the remedy. The limit itself stays tonic's, so that nothing larger
/// is ever held in memory.
pub(super) fn typed_oversize(response: Response, limit: usize) -> Response {
    let too_large = response
        .headers()
        .get(GRPC_STATUS)
        .is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::OutOfRange)
        && response.headers().get(GRPC_MESSAGE).is_some_and(|message| {
            percent_decode(message.as_bytes())
                .decode_utf8_lossy()
                .contains(OVERSIZE)
        });
    if !too_large {
        return response;
    }
    let message = format!("the message is larger than the {limit} bytes that are taken");
    let refusal = Error::new(Reason::MessageTooLarge, message).with_metadata("limit", limit.to_string());
    marked(Status::from(refusal).into_http())
}

//! Our own methods over plain HTTP: any path, query and body is a message of the method or refused as JSON, without a panic.
//!
//! The first line of the input is the method and the path, the rest is the body.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use futures::executor::block_on;
use http::{Request, Response};
use muster_runtime::transcode::{Found, Transcoder};
use serde_json::Value;

/// The services of which all methods are tried.
const SERVICES: [&str; 4] = [
    "muster.registry.v1.RegistryService",
    "muster.router.v1.InboxService",
    "muster.workflow.v1.WorkflowService",
    "muster.workflow.v1.ApprovalService",
];

static TRANSCODER: LazyLock<Transcoder> = LazyLock::new(|| {
    // Each method says that it does nothing.
    let services = Router::new().fallback(|| async {
        let answer = Response::builder().header("content-type", "application/grpc");
        answer
            .header("grpc-status", "12")
            .body(Body::empty())
            .expect("an answer")
    });
    Transcoder::new(muster_api::FILE_DESCRIPTOR_SET, &SERVICES, services, 1 << 20).expect("the contract")
});

/// See the module.
pub fn run(bytes: &[u8]) {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let (line, body) = bytes.split_at(end.unwrap_or(bytes.len()));
    let line = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.split_once(' '));
    let Some((method, path)) = line else { return };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.get(1..).unwrap_or_default().to_vec()));
    let Ok(request) = request else { return };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let Some(Found::Call(call)) = TRANSCODER.find(&method, &path) else {
        return;
    };
    let answer = block_on(TRANSCODER.answer(&call, request));
    assert!(!answer.status().is_success(), "{}", answer.status());
    let body = block_on(axum::body::to_bytes(answer.into_body(), usize::MAX)).expect("an answer is whole");
    let told: Value = serde_json::from_slice(&body).expect("a refusal is JSON");
    assert!(told["error"]["message"].is_string(), "{told}");
}

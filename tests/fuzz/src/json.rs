//! The JSON bindings: any path and body of a request is answered without a panic, and what is refused is refused as JSON.
//!
//! The first line of the input is the method and the path, the rest is the body.

use std::sync::Arc;

use axum::body::Body;
use futures::executor::block_on;
use muster_a2a::{Answer, Face, Head, Reply, Request, Service, routes};
use muster_api::a2a;
use tonic::Status;
use tower::ServiceExt as _;

/// Answers what it can without knowing anything.
struct Empty;

impl Service for Empty {
    fn has_target(&self, _: &str) -> bool {
        true
    }

    async fn answer(&self, _: Head, request: Request) -> Result<Reply, Status> {
        match request {
            Request::GetTask(request) => Ok(Reply::from(Answer::Task(a2a::Task {
                id: request.id,
                ..a2a::Task::default()
            }))),
            _ => Err(Status::not_found("nothing is here")),
        }
    }
}

/// See the module.
pub fn run(bytes: &[u8]) {
    let end = bytes
        .iter()
        .position(|&byte| byte == b'\n')
        .unwrap_or(bytes.len());
    let (line, body) = bytes.split_at(end);
    let Some((method, path)) = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.split_once(' '))
    else {
        return;
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("a2a-version", "1.0")
        .body(Body::from(body.get(1..).unwrap_or_default().to_vec()));
    let Ok(request) = request else { return };
    let face = Face {
        service: Arc::new(Empty),
        body_limit: 1 << 20,
    };
    let answer = block_on(routes(face).oneshot(request)).unwrap_or_else(|never| match never {});
    let body = block_on(axum::body::to_bytes(answer.into_body(), usize::MAX));
    body.expect("an answer is whole");
}

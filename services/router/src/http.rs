//! The HTTP face: the JSON-RPC binding and the agent cards.
//!
//! `POST /` and `POST /{target}` (with or without a slash at the end, because clients differ) are JSON-RPC;
//! `GET /.well-known/agent-card.json` and `GET /{target}/.well-known/agent-card.json` are cards. The HTTP+JSON
//! binding will join them under the same paths.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use muster_api::error::Reason;
use muster_rpc::endpoint::Endpoint;
use serde::Deserialize;
use serde_json::json;
use tonic::Status;

use crate::call;
use crate::cards;
use crate::error::Error;
use crate::forward::Forwarder;
use crate::jsonrpc::{self, Post};
use crate::target::Target;

/// What the routes need.
#[derive(Clone)]
pub struct Face {
    /// The core.
    pub forwarder: Arc<Forwarder>,
    /// Where clients reach the router.
    pub public: Endpoint,
    /// How long a card may be used without asking again.
    pub card_max_age: Duration,
    /// Largest body; JSON is larger than what it encodes.
    pub body_limit: usize,
}

/// The routes.
pub fn routes(face: Face) -> Router {
    Router::new()
        .route("/", post(rpc_of_router))
        .route("/{target}", post(rpc_of_target))
        .route("/{target}/", post(rpc_of_target))
        .route("/.well-known/agent-card.json", get(card_of_router))
        .route("/{target}/.well-known/agent-card.json", get(card_of_target))
        .with_state(face)
}

/// A2A lets clients name the version in the query, too.
#[derive(Debug, Deserialize)]
struct VersionQuery {
    #[serde(rename = "A2A-Version")]
    version: Option<String>,
}

async fn rpc_of_router(
    State(face): State<Face>,
    Query(version): Query<VersionQuery>,
    request: Request,
) -> Response {
    rpc(&face, None, version, request).await
}

async fn rpc_of_target(
    State(face): State<Face>,
    Path(target): Path<String>,
    Query(version): Query<VersionQuery>,
    request: Request,
) -> Response {
    rpc(&face, Some(&target), version, request).await
}

async fn rpc(face: &Face, target: Option<&str>, version: VersionQuery, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    if let Some(version) = version.version
        && !headers.contains_key(call::VERSION)
        && let Ok(version) = HeaderValue::from_str(&version)
    {
        headers.insert(call::VERSION, version);
    }
    match axum::body::to_bytes(body, face.body_limit).await {
        Ok(body) => {
            jsonrpc::answer(
                &face.forwarder,
                Post {
                    headers: &headers,
                    target,
                    body: &body,
                },
            )
            .await
        }
        // Either it is too large, or the client broke off and hears nothing anyway.
        Err(_) => jsonrpc::too_large(face.body_limit),
    }
}

async fn card_of_router(State(face): State<Face>, headers: HeaderMap) -> Response {
    let card = cards::of_router(&face.forwarder.parts().view.read(), &face.public);
    respond(&face, &headers, Ok(card))
}

async fn card_of_target(
    State(face): State<Face>,
    Path(target): Path<String>,
    headers: HeaderMap,
) -> Response {
    let card = Target::parse(&target, "path")
        .and_then(|target| cards::of_target(&face.forwarder.parts().view.read(), &target, &face.public));
    respond(&face, &headers, card)
}

fn respond(face: &Face, headers: &HeaderMap, card: Result<muster_api::a2a::AgentCard, Error>) -> Response {
    let served = match card.and_then(|card| cards::serve(&card)) {
        Ok(served) => served,
        Err(error) => return refused(error),
    };
    let fresh = [
        (header::ETAG, served.tag.clone()),
        (header::CACHE_CONTROL, max_age(face.card_max_age)),
    ];
    if matches_tag(headers, &served.tag) {
        return (StatusCode::NOT_MODIFIED, fresh).into_response();
    }
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (fresh, json, served.body).into_response()
}

fn max_age(age: Duration) -> HeaderValue {
    HeaderValue::from_str(&format!("public, max-age={}", age.as_secs())).expect("digits are a header value")
}

fn matches_tag(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let Ok(tag) = tag.to_str() else { return false };
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|wanted| matches!(wanted.trim(), "*") || wanted.trim().trim_start_matches("W/") == tag)
}

/// An error of a plain GET, with the status of our catalogue.
fn refused(error: Error) -> Response {
    let status = Status::from(error);
    let known = muster_api::error::Error::from_status(&status);
    let reason = known.as_ref().map_or(Reason::Internal, |error| error.reason);
    let code = StatusCode::from_u16(reason.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let details = jsonrpc::error::of(&status).data;
    let body = json!({"error": {
        "code": code.as_u16(),
        "status": reason.name(),
        "message": status.message(),
        "details": details,
    }});
    let mut response = (code, Json(body)).into_response();
    if let Some(delay) = known.and_then(|error| error.retry_after) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
    }
    response
}

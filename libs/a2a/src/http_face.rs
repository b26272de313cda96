//! The HTTP face: which requests are JSON-RPC, which are HTTP+JSON, and how much of a body is read. For how long is a matter of
//! whoever serves the routes; a body that fails with a status is answered with it.
//!
//! `POST /` and `POST /{target}` (with or without a slash at the end, because clients differ) are JSON-RPC; HTTP+JSON has its
//! paths at the root and below `/{target}`. An agent that is called `tasks` is reached by JSON-RPC and gRPC as any other; its
//! HTTP+JSON paths are taken for those of the root.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, post};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use muster_api::error::{Error, Reason};
use percent_encoding::percent_decode_str;
use tonic::Status;

use crate::rest::{self, Place, Resource};
use crate::service::{Binding, Head, Service, VERSION};
use crate::{codec, jsonrpc};

/// What the routes need.
pub struct Face<S> {
    /// Who answers.
    pub service: Arc<S>,
    /// Largest body, in bytes; JSON is larger than what it encodes.
    pub body_limit: usize,
}

impl<S> Clone for Face<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            body_limit: self.body_limit,
        }
    }
}

/// The routes of JSON-RPC and HTTP+JSON.
pub fn routes<S: Service>(face: Face<S>) -> Router {
    let mut router = Router::new()
        .route("/", post(rpc::<S>))
        .route("/{target}", post(rpc::<S>))
        .route("/{target}/", post(rpc::<S>));
    for tenant in ["", "/{target}"] {
        for place in [
            "message:send",
            "message:stream",
            "tasks",
            "tasks/{task}",
            "tasks/{task}/pushNotificationConfigs",
            "tasks/{task}/pushNotificationConfigs/{config}",
            "extendedAgentCard",
        ] {
            router = router.route(&format!("{tenant}/{place}"), any(http_json::<S>));
        }
    }
    router.with_state(face)
}

async fn rpc<S: Service>(State(face): State<Face<S>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    json_rpc(&face, parts, body).await
}

async fn json_rpc<S: Service>(face: &Face<S>, parts: Parts, body: Body) -> Response {
    let path = parts.uri.path().trim_matches('/').to_owned();
    let tenant = percent_decode_str(&path).decode_utf8_lossy().into_owned();
    if !tenant.is_empty() && !face.service.has_target(&tenant) {
        let error = Error::new(
            Reason::PathNotFound,
            format!("nothing is served at '{}'", parts.uri.path()),
        );
        return rest::failed(&error.into());
    }
    let head = head(Binding::JsonRpc, parts, Some(tenant));
    match read(body, face.body_limit).await {
        Ok(body) => match codec::check_media_type(&head) {
            Ok(()) => jsonrpc::answer(&*face.service, head, &body).await,
            Err(status) => {
                face.service.unreadable(head.binding, &status);
                jsonrpc::unreached(&status, StatusCode::OK)
            }
        },
        Err((status, http)) => {
            face.service.unreadable(head.binding, &status);
            jsonrpc::unreached(&status, http)
        }
    }
}

async fn http_json<S: Service>(State(face): State<Face<S>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let place = Place::read(parts.uri.path());
    let is_call = place.as_ref().is_none_or(|place| {
        place.tenant.is_none() && place.resource == Resource::Tasks && parts.method == Method::POST
    });
    let Some(place) = place.filter(|_| !is_call) else {
        return json_rpc(&face, parts, body).await;
    };
    let (method, uri) = (parts.method.clone(), parts.uri.clone());
    let head = head(Binding::HttpJson, parts, place.tenant.clone());
    match read(body, face.body_limit).await {
        Ok(body) => rest::answer(&*face.service, head, &method, place, uri.query(), &body).await,
        Err((status, http)) => {
            face.service.unreadable(head.binding, &status);
            rest::failed_with(&status, http)
        }
    }
}

/// What stands around the request; A2A lets clients name the version in the query, too.
fn head(binding: Binding, parts: Parts, tenant: Option<String>) -> Head {
    let mut headers = parts.headers;
    let in_query = rest::pairs(parts.uri.query()).find(|(name, _)| name.eq_ignore_ascii_case("a2a-version"));
    if let Some((_, version)) = in_query
        && !headers.contains_key(VERSION)
        && let Ok(version) = HeaderValue::from_str(&version)
    {
        headers.insert(VERSION, version);
    }
    Head {
        binding,
        headers,
        tenant: tenant.filter(|tenant| !tenant.is_empty()),
        extensions: parts.extensions,
    }
}

/// The body, whole, within its bounds.
async fn read(body: Body, limit: usize) -> Result<Bytes, (Box<Status>, StatusCode)> {
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        if let Some(status) = status_in(&error) {
            return (Box::new(status.clone()), StatusCode::REQUEST_TIMEOUT);
        }
        // Either it is too large, or the client broke off and hears nothing anyway.
        let error = Error::new(
            Reason::MessageTooLarge,
            format!("the body is larger than {limit} bytes, or was broken off"),
        )
        .with_metadata("limit", limit.to_string());
        (Box::new(error.into()), StatusCode::PAYLOAD_TOO_LARGE)
    })
}

/// The status with which a body failed: it did not come in in time.
fn status_in<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Status> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(status) = error.downcast_ref::<Status>() {
            return Some(status);
        }
        next = error.source();
    }
    None
}

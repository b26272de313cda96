//! CloudEvents over plain HTTP, in all three forms of the HTTP protocol binding: structured, binary and batched.

pub mod binary;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Json, Router};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use muster_workflow_dsl::cloud_event::CloudEvent;
use serde_json::{Value, json};
use tonic::Status;

use crate::error::Error;
use crate::events::{Events, MOST_AT_ONCE};

/// Where events are posted.
pub const PATH: &str = "/events";

const STRUCTURED: &str = "application/cloudevents";
const BATCHED: &str = "application/cloudevents-batch";

/// The routes, for the data port.
pub fn routes(events: Arc<Events>) -> Router {
    let route: MethodRouter<Arc<Events>> = post(publish).options(handshake);
    Router::new().route(PATH, route).with_state(events)
}

/// Answers once the events are durable.
async fn publish(State(events): State<Arc<Events>>, headers: HeaderMap, body: Bytes) -> Response {
    match take(&events, &headers, &body).await {
        Ok(answer) => (StatusCode::OK, Json(answer)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn take(events: &Arc<Events>, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
    let read = read(events, headers, body)?;
    let added = events.publish(read.clone()).await.map_err(Refusal::from)?;
    let told = read.iter().zip(added).map(|(event, added)| {
        json!({
            "id": event.id(),
            "source": event.source(),
            "position": added.position,
            "duplicate": added.duplicate,
        })
    });
    Ok(json!({ "events": told.collect::<Vec<_>>() }))
}

/// The events of a request, whichever form they come in.
fn read(events: &Events, headers: &HeaderMap, body: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    // What comes from elsewhere says all that the specification requires: an event without an id could not be known again.
    let admit = |event: Value, what: &str| {
        events
            .admit(event)
            .map_err(|message| Refusal::field(format!("{what}: {message}")))
    };
    if let Some(format) = media_type.strip_prefix(BATCHED) {
        supported(format)?;
        let Value::Array(batch) = parsed(body)? else {
            return Err(Refusal::field("a batch is a JSON array of events".to_owned()));
        };
        if batch.len() > MOST_AT_ONCE {
            let message = format!(
                "the batch has {} events; {MOST_AT_ONCE} are the most",
                batch.len()
            );
            return Err(Refusal::field(message));
        }
        let read = batch.into_iter().enumerate();
        return read
            .map(|(index, event)| admit(event, &format!("event {index}")))
            .collect();
    }
    if let Some(format) = media_type.strip_prefix(STRUCTURED) {
        supported(format)?;
        return Ok(vec![admit(parsed(body)?, "the event")?]);
    }
    if headers.contains_key("ce-specversion") || headers.contains_key("ce-type") {
        let event = binary::read(headers, &media_type, content_type, body).map_err(Refusal::field)?;
        return Ok(vec![admit(event, "the event")?]);
    }
    let message = format!(
        "there is no CloudEvent here: send `content-type: {STRUCTURED}+json` or `{BATCHED}+json`, or the attributes as headers `ce-*`"
    );
    Err(Refusal::media_type(message))
}

fn supported(format: &str) -> Result<(), Refusal> {
    if format == "+json" {
        return Ok(());
    }
    let message = format!("events are taken in the JSON format, '{STRUCTURED}+json', not in '{format}'");
    Err(Refusal::media_type(message))
}

fn parsed(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::field(format!("the body is not JSON: {error}")))
}

/// A sender asks whether it may send here, after the specification of web hooks: it may.
async fn handshake(headers: HeaderMap) -> Response {
    let mut answer = StatusCode::OK.into_response();
    let allow = HeaderValue::from_static("POST, OPTIONS");
    answer.headers_mut().insert(header::ALLOW, allow);
    if let Some(origin) = headers.get("webhook-request-origin") {
        answer
            .headers_mut()
            .insert("webhook-allowed-origin", origin.clone());
        answer
            .headers_mut()
            .insert("webhook-allowed-rate", HeaderValue::from_static("*"));
    }
    answer
}

/// Why events are not taken.
struct Refusal {
    status: Status,
    /// Where the refusal is about HTTP itself.
    http: Option<StatusCode>,
}

impl Refusal {
    fn field(message: String) -> Self {
        Error::field("event", message).into()
    }

    fn media_type(message: String) -> Self {
        Self {
            http: Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            ..Self::field(message)
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self {
            status: error.into(),
            http: None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        muster_runtime::refused(self.status, self.http)
    }
}

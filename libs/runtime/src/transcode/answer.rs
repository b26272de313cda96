//! What a service answered, as JSON: one object, or one per message of a stream.

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tokio::time::Instant;

use super::frame;
use super::refusal::{self, Refusal};
use super::rule::Rule;

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// One object per line.
    Lines,
    /// Server-sent events.
    Events,
}

impl Style {
    /// What the client accepts.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let events = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.contains("text/event-stream"));
        if events { Self::Events } else { Self::Lines }
    }

    const fn content_type(self) -> HeaderValue {
        match self {
            Self::Lines => HeaderValue::from_static("application/x-ndjson"),
            Self::Events => HeaderValue::from_static("text/event-stream"),
        }
    }

    fn message(self, mut json: Vec<u8>) -> Bytes {
        match self {
            Self::Lines => json.push(b'\n'),
            Self::Events => {
                json.splice(..0, *b"data: ");
                json.extend_from_slice(b"\n\n");
            }
        }
        json.into()
    }

    fn refusal(self, refusal: &Refusal) -> Bytes {
        let (_, json) = refusal.json();
        match self {
            Self::Lines => format!("{json}\n").into(),
            Self::Events => format!("event: error\ndata: {json}\n\n").into(),
        }
    }
}

/// The HTTP answer to what the service answered.
pub(super) async fn of(
    rule: &Rule,
    response: Response,
    style: Style,
    deadline: Option<Instant>,
) -> Result<Response, Refusal> {
    let (head, body) = response.into_parts();
    if let Some(refusal) = Refusal::read(&head.headers) {
        return Err(refusal);
    }
    let messages = Messages {
        body,
        buffer: Vec::new(),
        output: rule.output.clone(),
    };
    let (body, content_type) = if rule.streams {
        let stream = written(messages, style, deadline);
        (Body::from_stream(stream), style.content_type())
    } else {
        let json = only(messages).await?;
        (Body::from(json), HeaderValue::from_static("application/json"))
    };
    let mut response = (StatusCode::OK, body).into_response();
    for (name, value) in &head.headers {
        let text = name.as_str();
        if !text.starts_with("grpc-") && !text.starts_with("content-") {
            response.headers_mut().append(name, value.clone());
        }
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The one message of a unary answer.
async fn only(mut messages: Messages) -> Result<Vec<u8>, Refusal> {
    let first = messages.next().await?;
    let json = first.ok_or_else(|| refusal::defect("the service ended without an answer"))?;
    // The status comes after the message.
    while messages.next().await?.is_some() {}
    Ok(json)
}

/// A stream's messages as they are written; an error is the last thing written.
fn written(
    messages: Messages,
    style: Style,
    deadline: Option<Instant>,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    futures::stream::unfold(Some(messages), move |state| async move {
        let mut messages = state?;
        let next = match deadline {
            None => messages.next().await,
            Some(deadline) => tokio::time::timeout_at(deadline, messages.next())
                .await
                .unwrap_or_else(|_| Err(refusal::too_late())),
        };
        match next {
            Ok(Some(json)) => Some((Ok(style.message(json)), Some(messages))),
            Ok(None) => None,
            Err(refusal) => Some((Ok(style.refusal(&refusal)), None)),
        }
    })
}

/// The messages of a gRPC answer, each as JSON.
struct Messages {
    body: Body,
    buffer: Vec<u8>,
    output: MessageDescriptor,
}

impl Messages {
    /// The next one; nothing at a good end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Refusal> {
        loop {
            if let Some(message) = frame::take(&mut self.buffer) {
                return self.json(&message).map(Some);
            }
            let Some(frame) = self.body.frame().await else {
                return Err(refusal::defect("the service broke off without a status"));
            };
            let frame = frame.map_err(|_| refusal::defect("the service broke off"))?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            } else if let Some(trailers) = frame.trailers_ref() {
                return Refusal::read(trailers).map_or(Ok(None), Err);
            }
        }
    }

    fn json(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let broken = |_| refusal::defect("the answer does not fit its contract");
        let message = DynamicMessage::decode(self.output.clone(), message).map_err(broken)?;
        serde_json::to_vec(&message).map_err(|_| refusal::defect("the answer has no JSON form"))
    }
}

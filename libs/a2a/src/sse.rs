//! Answers as server-sent events.
//!
//! A stream that is refused before its first event is no stream: it is answered like any other refusal ([`opened`]). What breaks one
//! off later is an event of the type `error`, as the official SDKs write and expect it; without it, clients of HTTP+JSON take the
//! error for an event of which they know nothing.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use serde_json::Value;
use tonic::Status;

use crate::codec;
use crate::service::Events;

/// How often an idle event stream says that it lives; proxies drop silent connections after 30 to 60 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a stream may take for its first event before its head goes out without it. Agents begin with the task at once; one that
/// does not must not keep a client, and proxies between, waiting in silence.
const OPENING: Duration = Duration::from_secs(1);

/// The events, unless the first is a refusal: an agent on gRPC says that it streams before it says that it does not.
pub(crate) async fn opened(events: Events) -> Result<Events, Status> {
    let mut events = Box::pin(events.peekable());
    let opening = tokio::time::timeout(OPENING, events.as_mut().peek()).await;
    if matches!(opening, Ok(Some(Err(_))))
        && let Some(Err(status)) = events.next().await
    {
        return Err(status);
    }
    Ok(events)
}

/// The events as a response; `write` makes the JSON of one event or of the error that ends them.
pub(crate) fn respond(
    events: Events,
    write: impl Fn(Result<Value, Status>) -> Value + Send + 'static,
) -> Response {
    let stream = events.map(move |event| {
        let encoded = event.and_then(|event| codec::event(&event).map_err(|status| *status));
        let kind = match &encoded {
            Ok(_) => Event::default(),
            Err(_) => Event::default().event("error"),
        };
        Ok::<_, Infallible>(kind.json_data(write(encoded)).unwrap_or_else(|error| {
            // Plain JSON always encodes; should it not, the client hears why.
            Event::default().comment(error.to_string().replace('\n', " "))
        }))
    });
    Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

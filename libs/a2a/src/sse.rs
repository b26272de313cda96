//! Answers as server-sent events.

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

/// The events as a response; `write` makes the JSON of one event or of the error that ends them.
pub(crate) fn respond(
    events: Events,
    write: impl Fn(Result<Value, Status>) -> Value + Send + 'static,
) -> Response {
    let stream = events.map(move |event| {
        let encoded = event.and_then(|event| codec::event(&event).map_err(|status| *status));
        Ok::<_, Infallible>(
            Event::default()
                .json_data(write(encoded))
                .unwrap_or_else(|error| {
                    // Plain JSON always encodes; should it not, the client hears why.
                    Event::default().comment(error.to_string().replace('\n', " "))
                }),
        )
    });
    Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

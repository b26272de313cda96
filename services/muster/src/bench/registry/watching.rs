//! Streams that watch.

use std::time::Duration;

use muster_api::registry::watch_agents_response::Change;
use muster_api::registry::{WatchAgentsRequest, WatchAgentsResponse};
use muster_runtime::clock::{Clock as _, SystemClock};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Streaming;

use super::{Client, PATIENCE, number, refused};
use crate::failure::Failure;

/// What was measured of watching.
pub struct Watched {
    took: Duration,
    messages: u64,
    bytes: u64,
    /// Where the stream was left.
    pub place: WatchAgentsRequest,
}

/// The next message of a stream.
pub async fn next(stream: &mut Streaming<WatchAgentsResponse>) -> Result<WatchAgentsResponse, Failure> {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await;
    let message = message.map_err(|_| Failure::failed("the registry tells its watcher nothing"))?;
    message
        .map_err(|status| refused(&status))?
        .ok_or_else(|| Failure::failed("the registry's stream ended"))
}

/// Watches until the snapshot is whole, or until so many missed changes have come.
pub async fn watch(
    client: &Client,
    place: WatchAgentsRequest,
    missed: Option<u64>,
) -> Result<Watched, Failure> {
    let clock = SystemClock::default();
    let began = clock.monotonic();
    let stream = client.clone().watch_agents(place).await;
    let mut stream = stream.map_err(|status| refused(&status))?.into_inner();
    let mut watched = Watched {
        took: Duration::ZERO,
        messages: 0,
        bytes: 0,
        place: WatchAgentsRequest::default(),
    };
    let mut changes = 0;
    loop {
        let message = next(&mut stream).await?;
        watched.messages += 1;
        watched.bytes += message.encoded_len() as u64;
        let is_whole = match &message.change {
            Some(Change::Snapshot(snapshot)) => {
                if missed.is_some() {
                    return Err(Failure::failed(
                        "the stream was not taken up: more changes were missed than are kept (`registry.watch_queue`); take fewer --seconds",
                    ));
                }
                watched.place = WatchAgentsRequest {
                    since_revision: message.revision,
                    incarnation: message.incarnation,
                    incremental: true,
                    own_only: false,
                };
                !snapshot.more
            }
            Some(Change::Resumed(_)) => missed == Some(0),
            _ => {
                changes += 1;
                missed == Some(changes)
            }
        };
        if is_whole {
            watched.took = clock.monotonic().saturating_sub(began);
            return Ok(watched);
        }
    }
}

impl Watched {
    pub fn json(&self) -> Value {
        json!({"seconds": self.took.as_secs_f64(), "messages": self.messages, "bytes": self.bytes})
    }

    pub fn row(&self, name: &str) -> [String; 4] {
        [
            name.to_owned(),
            format!("{:.1} ms", self.took.as_secs_f64() * 1e3),
            self.messages.to_string(),
            format!("{:.2}", number(self.bytes) / f64::from(1 << 20)),
        ]
    }
}

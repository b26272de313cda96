//! `emit`: an event for the log. Its id is that of the attempt, so that the log knows an event that it is handed again.
//!
//! The log is in the store that the run is written to. While that takes nothing, the emission waits as the run does: a fault
//! would be one of the run's, and the run has none.

use std::sync::Arc;
use std::time::Duration;

use muster_workflow_dsl::request;
use serde_json::Value;

use super::{Failure, Kind, Progress};
use crate::error::Error;
use crate::events::Events;
use crate::store;

/// Between two tries while the store takes nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// The log as something that can be called.
pub struct Emitter {
    events: Arc<Events>,
}

impl Emitter {
    /// Emits into this log.
    #[must_use]
    pub fn new(events: Arc<Events>) -> Self {
        Self { events }
    }

    pub(crate) async fn call(&self, request: &request::Emit, progress: &Progress) -> Result<Value, Failure> {
        loop {
            match self.events.publish(vec![request.event.clone()]).await {
                Ok(_) => return Ok(request.event.to_value()),
                Err(Error::Store(store::Error::Unavailable(why))) => {
                    progress.set_note(Some(format!("waits for the event log: {why}")));
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(failure(&error)),
            }
        }
    }
}

fn failure(error: &Error) -> Failure {
    let (kind, status) = match error {
        Error::Field { .. } => (Kind::Validation, 413),
        Error::Store(store::Error::TooLarge { .. }) => (Kind::Runtime, 413),
        _ => (Kind::Runtime, 503),
    };
    Failure::new(kind, status, format!("the event was not emitted: {error}"))
}

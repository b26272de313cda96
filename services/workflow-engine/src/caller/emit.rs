//! `emit`: an event for the log. Its id is that of the attempt, so that the log knows an event that it is handed again.

use std::sync::Arc;

use muster_workflow_dsl::request;
use serde_json::Value;

use super::{Failure, Kind};
use crate::error::Error;
use crate::events::Events;
use crate::store;

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

    pub(crate) async fn call(&self, request: &request::Emit) -> Result<Value, Failure> {
        let published = self.events.publish(vec![request.event.clone()]).await;
        published.map_err(|error| failure(&error))?;
        Ok(request.event.to_value())
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

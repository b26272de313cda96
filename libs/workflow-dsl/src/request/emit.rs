//! An event for the log.

use serde::{Deserialize, Serialize};

use crate::cloud_event::CloudEvent;

/// An event for the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Emit {
    /// All of it, with an id that is the same when the same attempt is made again.
    pub event: CloudEvent,
}

//! The log of events.
//!
//! One log for all runs. Each event has a position; positions only grow, and whoever sees one sees all below it: a reader
//! that has come to a position never misses what is written later. Numbers may be left out. Events are told apart by source
//! and id as long as they are in the log. The log is bounded by number, bytes and age; the oldest go first.

use async_trait::async_trait;
use jiff::Timestamp;
use muster_workflow_dsl::cloud_event::CloudEvent;
use serde::{Deserialize, Serialize};

use super::{Error, Page};

/// The first position there is.
pub const FIRST_POSITION: u64 = 1;

/// Events are read in portions of this many bytes, beyond the first event.
pub const PORTION_BYTES: usize = 1024 * 1024;

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// Its position.
    pub position: u64,
    /// When it was added.
    pub received_at: Timestamp,
    /// The event.
    pub event: CloudEvent,
}

/// What became of an event that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Its position.
    pub position: u64,
    /// Whether it was there before.
    pub duplicate: bool,
}

/// How much the log keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Events.
    pub events: u64,
    /// Bytes of events.
    pub bytes: u64,
}

/// What a starter has done of the log: for a workflow that events start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StarterState {
    /// Position of the next event to look at.
    pub next: u64,
    /// What it remembers of the events before, as it likes.
    pub memory: serde_json::Value,
}

/// The log of events.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Adds events, all or none; those that are there by source and id are not added again. Makes room by forgetting the
    /// oldest.
    async fn add_events(
        &self,
        events: Vec<CloudEvent>,
        now: Timestamp,
        room: Room,
    ) -> Result<Vec<Added>, Error>;

    /// Reads events from a position on, in order; `kinds` names the types that are wanted, none means any. The page's `next` is
    /// the position at which to go on, also at the end, where it is one after the last position that has been looked at.
    async fn events(
        &self,
        from: u64,
        kinds: Option<&[String]>,
        limit: usize,
    ) -> Result<Page<Logged, u64>, Error>;

    /// One after the last position that can be seen; the first one where there is none.
    async fn next_position(&self) -> Result<u64, Error>;

    /// Forgets events that were added before `time`, the oldest first, at most `limit`; how many.
    async fn forget_events(&self, time: Timestamp, limit: usize) -> Result<usize, Error>;

    /// Reads how far a starter has come.
    async fn starter(&self, name: &str) -> Result<Option<StarterState>, Error>;

    /// Keeps how far a starter has come; none forgets it.
    async fn keep_starter(&self, name: &str, state: Option<&StarterState>) -> Result<(), Error>;
}

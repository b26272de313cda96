//! Where leases are kept: the port that adapters implement, and what they promise.
//!
//! Lease time is the store's own: a memory store measures it with the process's clock, a shared store with its
//! server's, so that replicas with different clocks end no lease early. Nothing a store answers is based on a lease
//! that has ended. The tests in `conformance.rs` hold for every adapter.

#[cfg(test)]
mod conformance;
pub mod memory;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use uuid::Uuid;

use crate::discovery::{Found, Query};
use crate::instance::{Instance, Profile, Report};
use crate::lease::{self, Agent, Census, Event, Grant, Renewal};

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The lease table refuses.
    #[error(transparent)]
    Lease(#[from] lease::Error),
    /// As many watch already as may.
    #[error("{limit} streams watch already, as many as `registry.max_watchers` allows")]
    TooManyWatchers {
        /// The limit.
        limit: usize,
    },
    /// A watcher was too slow and has lost changes.
    #[error("the watcher reads too slowly: more than {queue} changes (`registry.watch_queue`) were waiting")]
    WatchOverrun {
        /// How many changes wait for a watcher at most.
        queue: usize,
    },
    /// The store's server does not answer. The memory store never says so.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
}

/// Some agents in the order of their ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The agents.
    pub agents: Vec<Agent>,
    /// Whether there are more behind the last.
    pub more: bool,
}

/// What a watcher sees: everything at one revision, then every change after it, in order and without gaps.
pub struct Watch {
    /// The revision of the snapshot.
    pub revision: u64,
    /// All live instances.
    pub snapshot: Vec<Instance>,
    /// The changes. Ends with an error when changes were lost.
    pub events: BoxStream<'static, Result<Event, Error>>,
}

/// See the module.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Adds or replaces an instance and grants it the lease.
    async fn register(&self, lease: Uuid, profile: Arc<Profile>, report: Report) -> Result<Grant, Error>;

    /// Renews a lease.
    async fn renew(&self, lease: Uuid, report: Report) -> Result<Renewal, Error>;

    /// Ends a lease; one that is gone already is no error.
    async fn end(&self, lease: Uuid) -> Result<(), Error>;

    /// Takes an agent's instances, or one of them, out of the choice; says how many drain now.
    async fn drain(
        &self,
        namespace: &Arc<str>,
        agent_id: &Arc<str>,
        instance_id: Option<Uuid>,
    ) -> Result<u32, Error>;

    /// Finds instances.
    async fn discover(&self, query: &Query) -> Result<Found, Error>;

    /// Whether a live instance has the skill.
    async fn knows_skill(&self, namespace: &str, skill: &str) -> Result<bool, Error>;

    /// One agent.
    async fn agent(&self, namespace: &Arc<str>, agent_id: &Arc<str>) -> Result<Agent, Error>;

    /// Agents by id, after a given one, at most `limit`.
    async fn agents(&self, namespace: &Arc<str>, after: Option<&str>, limit: usize) -> Result<Page, Error>;

    /// Watches all instances.
    async fn watch(&self) -> Result<Watch, Error>;

    /// Ends the leases that are due, so that watchers hear of it; says how long until the next one is.
    async fn expire(&self) -> Result<Option<Duration>, Error>;

    /// Counts.
    async fn census(&self) -> Result<Census, Error>;
}

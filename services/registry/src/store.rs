//! Where leases are kept: the port that adapters implement, and what they promise.
//!
//! Lease time is the store's own: a memory store measures it with the process's clock, a shared store with its
//! server's, so that replicas with different clocks end no lease early. Nothing a store answers is based on a lease
//! that has ended, as far as the store could be asked. The tests in `conformance.rs` hold for every adapter.

#[cfg(test)]
mod conformance;
pub mod memory;
pub mod redis;
pub mod watchers;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use uuid::Uuid;

use crate::discovery::{Found, Query};
use crate::instance::{Instance, Key, Profile, Report};
use crate::lease::{self, Agent, Census, Event, Grant, Renewal, Statistics, Wanted};
use crate::reach::Reach;

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
    /// The store has begun anew, so that nobody knows what the watcher has missed. The memory store never says so.
    #[error("the store was read anew, and changes may be missing; watch again to get a snapshot")]
    WatchInterrupted,
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

/// How far a watcher has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// Which life of the store counted the revision.
    pub incarnation: Uuid,
    /// The revision up to which the watcher knows everything.
    pub revision: u64,
}

/// What a watcher sees: everything at one revision, or what it knows already, then every change after that, in order and
/// without gaps.
pub struct Watch {
    /// Which life of the store counts the revisions: two watches of the same one can be joined.
    pub incarnation: Uuid,
    /// The revision of the snapshot, or the one after which the watch resumes.
    pub revision: u64,
    /// All live instances by key; `None` when the watch resumes.
    pub snapshot: Option<Vec<Instance>>,
    /// The changes. Ends with an error when changes were lost.
    pub events: BoxStream<'static, Result<Event, Error>>,
}

impl Watch {
    /// What whoever watches sees of it. The revisions of the rest are missing.
    #[must_use]
    pub fn within(self, reach: Reach) -> Self {
        if reach.is_all() {
            return self;
        }
        let sees = |instance: &Instance| reach.sees_instance(instance.key());
        let snapshot = self.snapshot.map(|all| all.into_iter().filter(sees).collect());
        let events = self.events.filter(move |event| {
            let is_seen = event
                .as_ref()
                .map_or(true, |event| reach.sees_instance(event.change.key()));
            std::future::ready(is_seen)
        });
        Self {
            snapshot,
            events: events.boxed(),
            ..self
        }
    }
}

/// How a store follows its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// How often everything was read, the first time included.
    pub full_reads: u64,
    /// Changes that the server is known to have and that are not shown here.
    pub behind: u64,
    /// How long the server has not been heard.
    pub silent: Duration,
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

    /// Whose instance has a lease, as far as is known here.
    async fn holder(&self, lease: Uuid) -> Result<Option<Key>, Error>;

    /// Whether a live instance has the skill that there is for whoever asks.
    async fn knows_skill(&self, namespace: &str, skill: &str, reach: &Reach) -> Result<bool, Error>;

    /// One agent, if there is one for whoever asks.
    async fn agent(&self, namespace: &Arc<str>, agent_id: &Arc<str>, reach: &Reach) -> Result<Agent, Error>;

    /// Agents by id, after a given one, at most `limit`, with their instances that are wanted.
    async fn agents(
        &self,
        namespace: &Arc<str>,
        after: Option<&str>,
        limit: usize,
        wanted: &Wanted,
    ) -> Result<Page, Error>;

    /// What there is for whoever asks in a namespace, or in all, with at most so many skills.
    async fn statistics(
        &self,
        namespace: Option<&str>,
        most_skills: usize,
        reach: &Reach,
    ) -> Result<Statistics, Error>;

    /// Watches all instances: after `since`, where the changes since then are still known, else from a snapshot on.
    async fn watch(&self, since: Option<Since>) -> Result<Watch, Error>;

    /// Ends the leases that are due, so that watchers hear of it; says how long until the next one is.
    async fn expire(&self) -> Result<Option<Duration>, Error>;

    /// Counts.
    async fn census(&self) -> Result<Census, Error>;

    /// How it goes with following the store's server; `None` for a store that has none.
    fn feed(&self) -> Option<Feed> {
        None
    }
}

//! The memory store: the lease table behind a lock, and a bounded queue of changes for each watcher.
//!
//! It survives no restart and need not: agents register again as soon as a heartbeat is refused. Operations
//! take microseconds and hold the lock throughout, so that events leave in the order of their revisions and a
//! watcher's snapshot meets its first change exactly.

use std::sync::Arc;
use std::time::Duration;

use muster_runtime::clock::SharedClock;
use parking_lot::Mutex;
use uuid::Uuid;

use super::watchers::{WatchLimits, Watchers};
use super::{Error, Page, Since, Store, Watch};
use crate::discovery::{Found, Query};
use crate::instance::{Key, Profile, Report};
use crate::lease::{Agent, Census, Grant, Moment, Renewal, Statistics, Table, Terms, Wanted};
use crate::reach::Reach;

/// See the module.
pub struct MemoryStore {
    clock: SharedClock,
    table: Mutex<Table>,
    watchers: Watchers,
}

impl MemoryStore {
    /// An empty store. Its revisions begin at the present time in microseconds, so that they and the epochs grow
    /// across restarts, as long as there are fewer than a million changes per second.
    #[must_use]
    pub fn new(clock: SharedClock, terms: Terms, limits: WatchLimits) -> Self {
        let revision = u64::try_from(clock.now().as_microsecond()).unwrap_or(0);
        Self {
            clock,
            table: Mutex::new(Table::new(terms, revision)),
            watchers: Watchers::new(Uuid::new_v4(), revision, limits),
        }
    }

    /// Runs one operation and hands its events to the watchers before anybody else gets the lock.
    fn with<T>(&self, operation: impl FnOnce(&mut Table, Moment) -> T) -> T {
        let mut table = self.table.lock();
        let now = Moment {
            wall: self.clock.now(),
            monotonic: self.clock.monotonic(),
        };
        let result = operation(&mut table, now);
        self.watchers.push(table.take_events());
        result
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn register(&self, lease: Uuid, profile: Arc<Profile>, report: Report) -> Result<Grant, Error> {
        Ok(self.with(|table, now| table.register(now, lease, profile, report))?)
    }

    async fn renew(&self, lease: Uuid, report: Report) -> Result<Renewal, Error> {
        Ok(self.with(|table, now| table.renew(now, lease, report))?)
    }

    async fn end(&self, lease: Uuid) -> Result<(), Error> {
        self.with(|table, now| table.end(now, lease));
        Ok(())
    }

    async fn drain(
        &self,
        namespace: &Arc<str>,
        agent_id: &Arc<str>,
        instance_id: Option<Uuid>,
    ) -> Result<u32, Error> {
        Ok(self.with(|table, now| table.drain(now, namespace, agent_id, instance_id))?)
    }

    async fn discover(&self, query: &Query) -> Result<Found, Error> {
        Ok(self.with(|table, now| table.discover(now, query)))
    }

    async fn holder(&self, lease: Uuid) -> Result<Option<Key>, Error> {
        Ok(self.with(|table, _| table.holder(lease)))
    }

    async fn knows_skill(&self, namespace: &str, skill: &str, reach: &Reach) -> Result<bool, Error> {
        Ok(self.with(|table, _| table.knows_skill(namespace, skill, reach)))
    }

    async fn agent(&self, namespace: &Arc<str>, agent_id: &Arc<str>, reach: &Reach) -> Result<Agent, Error> {
        Ok(self.with(|table, now| table.agent(now, namespace, agent_id, reach))?)
    }

    async fn agents(
        &self,
        namespace: &Arc<str>,
        after: Option<&str>,
        limit: usize,
        wanted: &Wanted,
    ) -> Result<Page, Error> {
        let (agents, more) = self.with(|table, now| table.agents(now, namespace, after, limit, wanted));
        Ok(Page { agents, more })
    }

    async fn statistics(
        &self,
        namespace: Option<&str>,
        most_skills: usize,
        reach: &Reach,
    ) -> Result<Statistics, Error> {
        Ok(self.with(|table, now| table.statistics(now, namespace, most_skills, reach)))
    }

    async fn watch(&self, since: Option<Since>) -> Result<Watch, Error> {
        // The place in the log is taken under the same lock as the snapshot: no gap, no repetition.
        self.with(|table, now| self.watchers.open(since, || table.snapshot(now)))
    }

    async fn expire(&self) -> Result<Option<Duration>, Error> {
        Ok(self.with(|table, now| table.expire(now)))
    }

    async fn census(&self) -> Result<Census, Error> {
        Ok(self.with(|table, now| table.census(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{self, Harness};
    use muster_runtime::clock::ManualClock;

    struct Memory {
        clock: Arc<ManualClock>,
    }

    impl Harness for Memory {
        async fn store(&self, terms: Terms, limits: WatchLimits) -> Arc<dyn Store> {
            let clock: SharedClock = Arc::clone(&self.clock) as SharedClock;
            Arc::new(MemoryStore::new(clock, terms, limits))
        }

        async fn pass(&self, time: Duration) {
            self.clock.advance(time);
        }
    }

    conformance::suite!(Memory {
        clock: Arc::new(ManualClock::default())
    });
}

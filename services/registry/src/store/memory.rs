//! The memory store: the lease table behind a lock, and a bounded queue of changes for each watcher.
//!
//! It survives no restart and need not: agents register again as soon as a heartbeat is refused. Operations
//! take microseconds and hold the lock throughout, so that events leave in the order of their revisions and a
//! watcher's snapshot meets its first change exactly.
//!
//! Watchers share one log of changes ([`Changes`]), each with a place in it. One that falls behind by more than the log
//! holds is told so and starts over; it costs the others nothing. One that comes back within the log is told what it
//! missed. Rejected: a queue for each watcher, because a thousand watchers would hold a thousand copies; tokio's
//! `broadcast`, which is such a log, but lets nobody begin in the past.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use muster_runtime::clock::SharedClock;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Error, Page, Since, Store, Watch};
use crate::changes::{Changes, Lost};
use crate::discovery::{Found, Query};
use crate::instance::{Profile, Report, Status};
use crate::lease::{Agent, Census, Event, Grant, Moment, Renewal, Statistics, Table, Terms};

/// How many changes a watcher takes out of the log at once.
const BATCH: usize = 256;

/// Bounds of the watchers.
#[derive(Debug, Clone, Copy)]
pub struct WatchLimits {
    /// How many changes may wait for one watcher, and how many one that comes back may have missed.
    pub queue: usize,
    /// How many may watch.
    pub watchers: usize,
}

/// See the module.
pub struct MemoryStore {
    clock: SharedClock,
    table: Mutex<Table>,
    feed: Arc<Feed>,
    /// The latest revision. Its receivers are the watchers.
    news: watch::Sender<u64>,
    limits: WatchLimits,
}

/// What watchers read.
struct Feed {
    /// Which life of the store this is.
    incarnation: Uuid,
    changes: Mutex<Changes>,
}

impl MemoryStore {
    /// An empty store. Its revisions begin at the present time in microseconds, so that they and the epochs grow
    /// across restarts, as long as there are fewer than a million changes per second.
    #[must_use]
    pub fn new(clock: SharedClock, terms: Terms, limits: WatchLimits) -> Self {
        let revision = u64::try_from(clock.now().as_microsecond()).unwrap_or(0);
        let feed = Feed {
            incarnation: Uuid::new_v4(),
            changes: Mutex::new(Changes::new(revision, limits.queue)),
        };
        Self {
            clock,
            table: Mutex::new(Table::new(terms, revision)),
            feed: Arc::new(feed),
            news: watch::Sender::new(revision),
            limits,
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
        let events = table.take_events();
        if !events.is_empty() {
            let mut changes = self.feed.changes.lock();
            for event in events {
                changes.push(event);
            }
            drop(changes);
            self.news.send_replace(table.revision());
        }
        result
    }
}

impl Feed {
    /// Whether a watcher that knows so much can be told what came after it.
    fn reaches(&self, since: Since) -> bool {
        since.incarnation == self.incarnation && self.changes.lock().after(since.revision, 0).is_ok()
    }
}

/// One watcher's place in the log.
struct Reader {
    feed: Arc<Feed>,
    news: watch::Receiver<u64>,
    revision: u64,
    batch: VecDeque<Event>,
    queue: usize,
}

impl Reader {
    /// The next change; `None` when the store is gone.
    async fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.batch.pop_front() {
                self.revision = event.revision;
                return Some(Ok(event));
            }
            // Marked as seen before the log is read: what is added meanwhile wakes this reader again.
            self.news.borrow_and_update();
            match self.feed.changes.lock().after(self.revision, BATCH) {
                Ok(events) => self.batch = events.into(),
                Err(Lost) => return Some(Err(Error::WatchOverrun { queue: self.queue })),
            }
            if self.batch.is_empty() && self.news.changed().await.is_err() {
                return None;
            }
        }
    }

    /// All changes; ends after an error.
    fn events(self) -> BoxStream<'static, Result<Event, Error>> {
        let events = stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            let event = reader.next().await?;
            let next = event.is_ok().then_some(reader);
            Some((event, next))
        });
        events.boxed()
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

    async fn knows_skill(&self, namespace: &str, skill: &str) -> Result<bool, Error> {
        Ok(self.with(|table, _| table.knows_skill(namespace, skill)))
    }

    async fn agent(&self, namespace: &Arc<str>, agent_id: &Arc<str>) -> Result<Agent, Error> {
        Ok(self.with(|table, now| table.agent(now, namespace, agent_id))?)
    }

    async fn agents(
        &self,
        namespace: &Arc<str>,
        after: Option<&str>,
        limit: usize,
        statuses: Option<&BTreeSet<Status>>,
    ) -> Result<Page, Error> {
        let (agents, more) = self.with(|table, now| table.agents(now, namespace, after, limit, statuses));
        Ok(Page { agents, more })
    }

    async fn statistics(&self, namespace: Option<&str>, most_skills: usize) -> Result<Statistics, Error> {
        Ok(self.with(|table, now| table.statistics(now, namespace, most_skills)))
    }

    async fn watch(&self, since: Option<Since>) -> Result<Watch, Error> {
        let WatchLimits { queue, watchers } = self.limits;
        // The place in the log is taken under the same lock as the snapshot: no gap, no repetition.
        let (news, revision, snapshot) = self.with(|table, now| {
            if self.news.receiver_count() >= watchers {
                return Err(Error::TooManyWatchers { limit: watchers });
            }
            let news = self.news.subscribe();
            if let Some(since) = since.filter(|since| self.feed.reaches(*since)) {
                return Ok((news, since.revision, None));
            }
            let (revision, snapshot) = table.snapshot(now);
            Ok((news, revision, Some(snapshot)))
        })?;
        let reader = Reader {
            feed: Arc::clone(&self.feed),
            news,
            revision,
            batch: VecDeque::new(),
            queue,
        };
        Ok(Watch {
            incarnation: self.feed.incarnation,
            revision,
            snapshot,
            events: reader.events(),
        })
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

//! Those who watch a store: one log of changes, and each watcher's place in it.
//!
//! Watchers share the log ([`Changes`]). One that falls behind by more than the log holds is told so and starts over; it costs the
//! others nothing. One that comes back within the log is told what it missed. Where the log itself begins anew, because the store
//! that is followed has lost or forgotten changes, all watchers are told and start over. Rejected: a queue for each watcher,
//! because a thousand watchers would hold a thousand copies; tokio's `broadcast`, which is such a log, but lets nobody begin in
//! the past.
//!
//! Whoever changes the table calls [`Watchers::push`] under the table's lock, so that changes leave in the order of their
//! revisions and a watcher's snapshot meets its first change exactly.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Error, Since, Watch};
use crate::changes::{Changes, Lost};
use crate::instance::Instance;
use crate::lease::Event;

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
pub struct Watchers {
    feed: Arc<Mutex<Feed>>,
    /// Says that there is something new. Its receivers are the watchers.
    news: watch::Sender<()>,
    limits: WatchLimits,
}

/// What watchers read.
struct Feed {
    /// Which life of the store this is.
    incarnation: Uuid,
    /// How often the log has begun anew.
    restarts: u64,
    changes: Changes,
}

impl Watchers {
    /// Nobody yet; the next change has the revision after this one.
    #[must_use]
    pub fn new(incarnation: Uuid, revision: u64, limits: WatchLimits) -> Self {
        let feed = Feed {
            incarnation,
            restarts: 0,
            changes: Changes::new(revision, limits.queue),
        };
        Self {
            feed: Arc::new(Mutex::new(feed)),
            news: watch::Sender::new(()),
            limits,
        }
    }

    /// Tells changes, in order.
    pub fn push(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut feed = self.feed.lock();
        for event in events {
            feed.changes.push(event);
        }
        drop(feed);
        self.news.send_replace(());
    }

    /// Begins anew after this revision: who watches is told to start over.
    pub fn restart(&self, incarnation: Uuid, revision: u64) {
        let mut feed = self.feed.lock();
        feed.incarnation = incarnation;
        feed.restarts += 1;
        feed.changes = Changes::new(revision, self.limits.queue);
        drop(feed);
        self.news.send_replace(());
    }

    /// One more watches: after `since`, where that is still known, else from the snapshot on.
    ///
    /// # Errors
    /// When as many watch already as may.
    pub fn open(
        &self,
        since: Option<Since>,
        snapshot: impl FnOnce() -> (u64, Vec<Instance>),
    ) -> Result<Watch, Error> {
        let WatchLimits { queue, watchers } = self.limits;
        if self.news.receiver_count() >= watchers {
            return Err(Error::TooManyWatchers { limit: watchers });
        }
        let news = self.news.subscribe();
        let (incarnation, restarts, resumed) = {
            let feed = self.feed.lock();
            let resumed = since.filter(|since| feed.reaches(*since));
            (feed.incarnation, feed.restarts, resumed)
        };
        let (revision, snapshot) = match resumed {
            Some(since) => (since.revision, None),
            None => {
                let (revision, instances) = snapshot();
                (revision, Some(instances))
            }
        };
        let reader = Reader {
            feed: Arc::clone(&self.feed),
            restarts,
            news,
            revision,
            batch: VecDeque::new(),
            queue,
        };
        Ok(Watch {
            incarnation,
            revision,
            snapshot,
            events: reader.events(),
        })
    }
}

impl Feed {
    /// Whether a watcher that knows so much can be told what came after it.
    fn reaches(&self, since: Since) -> bool {
        since.incarnation == self.incarnation && self.changes.after(since.revision, 0).is_ok()
    }
}

/// One watcher's place in the log.
struct Reader {
    feed: Arc<Mutex<Feed>>,
    restarts: u64,
    news: watch::Receiver<()>,
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
            match self.read() {
                Ok(events) => self.batch = events.into(),
                Err(error) => return Some(Err(error)),
            }
            if self.batch.is_empty() && self.news.changed().await.is_err() {
                return None;
            }
        }
    }

    fn read(&self) -> Result<Vec<Event>, Error> {
        let feed = self.feed.lock();
        if feed.restarts != self.restarts {
            return Err(Error::WatchInterrupted);
        }
        let events = feed.changes.after(self.revision, BATCH);
        events.map_err(|Lost| Error::WatchOverrun { queue: self.queue })
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

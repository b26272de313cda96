//! The union behind a lock, and who watches it.
//!
//! Whatever changes the union tells its watchers under the same lock, as the own store does: changes leave in the order of
//! their revisions, and a watcher's snapshot meets its first change exactly. A snapshot of another region is taken over in
//! pieces, between which others get the lock.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_runtime::clock::SharedClock;
use parking_lot::Mutex;
use uuid::Uuid;

use super::mirror::{Bounds, Mirror};
use super::union::Union;
use crate::instance::{Instance, Origin};
use crate::lease::{Change, Event, Moment};
use crate::reach::Reach;
use crate::store::watchers::{WatchLimits, Watchers};
use crate::store::{Error, Since, Watch};
use crate::tally::Counts;

/// Instances that are taken over without others getting the lock.
const PIECE: usize = 500;

/// See the module.
pub struct Hub {
    union: Mutex<Union>,
    watchers: Watchers,
    clock: SharedClock,
    peers: Vec<Peer>,
}

struct Peer {
    origin: Arc<Origin>,
    course: Mutex<Course>,
}

/// How it goes with following a peer.
#[derive(Debug, Default)]
struct Course {
    resyncs: u64,
    /// Instances that could not be read.
    unreadable: usize,
    problem: String,
}

/// What is known of a peer and its agents.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The region.
    pub region: String,
    /// Where its registry is.
    pub registry_url: String,
    /// Since when it has not been heard; `None` while it is followed.
    pub stale_since: Option<Timestamp>,
    /// Its live instances that are shown.
    pub counts: Counts,
    /// Instances that are not shown, because they are too many or cannot be read.
    pub left_out: usize,
    /// How often all its agents were read anew.
    pub resyncs: u64,
    /// Why it is not followed; empty while it is.
    pub problem: String,
}

impl Hub {
    /// Nobody yet. Its revisions begin at the present time in microseconds, as those of leases in memory do.
    #[must_use]
    pub fn new(origins: Vec<Arc<Origin>>, bounds: Bounds, limits: WatchLimits, clock: SharedClock) -> Self {
        let revision = u64::try_from(clock.now().as_microsecond()).unwrap_or(0);
        let now = clock.monotonic();
        let peers = origins.iter().map(|origin| Peer {
            origin: Arc::clone(origin),
            course: Mutex::default(),
        });
        for origin in &origins {
            origin.set_stale(Some(clock.now()));
        }
        Self {
            peers: peers.collect(),
            union: Mutex::new(Union::new(origins, bounds, revision, now)),
            watchers: Watchers::new(Uuid::new_v4(), revision, limits),
            clock,
        }
    }

    /// Runs one operation and hands its events to the watchers before anybody else gets the lock.
    pub fn with<T>(&self, operation: impl FnOnce(&mut Union, Moment) -> T) -> T {
        let mut union = self.union.lock();
        let now = Moment {
            wall: self.clock.now(),
            monotonic: self.clock.monotonic(),
        };
        let result = operation(&mut union, now);
        self.watchers.push(union.take_events());
        result
    }

    /// One more watches everything.
    ///
    /// # Errors
    /// When as many watch already as may.
    pub fn watch(&self, since: Option<Since>) -> Result<Watch, Error> {
        self.with(|union, now| self.watchers.open(since, || union.snapshot(now)))
    }

    /// Changes of the own store.
    pub fn own_changed(&self, events: Vec<Event>) {
        self.with(|union, _| {
            for event in events {
                union.own_changed(event.change);
            }
        });
    }

    /// The own store was read anew. Why somebody is missing is not known: a store in Redis may have been emptied, and agents are
    /// about to register again. So nobody is told of a difference, and watchers start over, as those of the own store do.
    pub fn own_replaced(&self, instances: Vec<Instance>) {
        let mut union = self.union.lock();
        union.own_replaced(instances);
        let _difference = union.take_events();
        self.watchers.restart(Uuid::new_v4(), union.revision());
    }

    /// A peer names all its instances; `unreadable` more of them cannot be read.
    pub async fn snapshot(
        &self,
        peer: usize,
        instances: Vec<Instance>,
        is_same_life: bool,
        unreadable: usize,
    ) {
        self.told(peer, |mirror, _| {
            mirror.begin();
            None
        });
        for piece in instances.chunks(PIECE) {
            self.told(peer, |mirror, _| {
                let piece = piece.iter().cloned();
                piece
                    .filter_map(|instance| mirror.is_there(instance))
                    .collect::<Vec<_>>()
            });
            tokio::task::yield_now().await;
        }
        self.told(peer, |mirror, now| mirror.end(is_same_life, now));
        if let Some(known) = self.peers.get(peer) {
            let mut course = known.course.lock();
            course.resyncs += 1;
            course.unreadable = unreadable;
        }
        self.is_heard(peer);
    }

    /// A peer goes on where its last stream ended; whether that is of use.
    pub fn resumed(&self, peer: usize) -> bool {
        let resumed = self.with(|union, _| union.mirror(peer).is_some_and(Mirror::resumed));
        if resumed {
            self.is_heard(peer);
        }
        resumed
    }

    /// A peer has told something.
    pub fn told<C>(&self, peer: usize, told: impl FnOnce(&mut Mirror, Duration) -> C)
    where
        C: IntoIterator<Item = Change>,
    {
        self.with(|union, now| union.peer(peer, |mirror| told(mirror, now.monotonic)));
    }

    /// An instance of a peer cannot be read.
    pub fn unreadable(&self, peer: usize) {
        if let Some(known) = self.peers.get(peer) {
            known.course.lock().unreadable += 1;
        }
    }

    /// Whether a peer is to be read anew.
    pub fn wants_resync(&self, peer: usize) -> bool {
        self.with(|union, _| union.mirror(peer).is_some_and(|mirror| mirror.wants_resync()))
    }

    /// The stream of a peer has ended.
    pub fn lost(&self, peer: usize, why: &str) {
        self.told(peer, |mirror, now| {
            mirror.lost(now);
            None
        });
        if let Some(known) = self.peers.get(peer) {
            known.origin.set_stale(Some(self.clock.now()));
            known.course.lock().problem = why.to_owned();
        }
    }

    /// Lets go of what has been kept for long enough.
    pub fn sweep(&self) {
        for peer in 0..self.peers.len() {
            self.told(peer, Mirror::sweep);
        }
    }

    /// How it is with each peer; with what is shown of a namespace, or of all, to whoever asks.
    pub fn standings(&self, namespace: Option<&str>, reach: &Reach) -> Vec<Standing> {
        let counted: Vec<(Counts, usize)> = self.with(|union, _| {
            let tables = union.tables();
            let counts: Vec<Counts> = tables
                .map(|(_, table)| table.counts_within(namespace, reach))
                .collect();
            let mut left_out = |peer| union.mirror(peer).map_or(0, |mirror| mirror.left_out());
            let counts = counts.into_iter().enumerate();
            counts.map(|(peer, counts)| (counts, left_out(peer))).collect()
        });
        let peers = self.peers.iter().zip(counted);
        peers
            .map(|(peer, (counts, left_out))| {
                let course = peer.course.lock();
                Standing {
                    region: peer.origin.region.clone(),
                    registry_url: peer.origin.registry_url.clone(),
                    stale_since: peer.origin.stale_since(),
                    counts,
                    left_out: if reach.is_all() {
                        left_out + course.unreadable
                    } else {
                        0
                    },
                    resyncs: course.resyncs,
                    problem: course.problem.clone(),
                }
            })
            .collect()
    }

    fn is_heard(&self, peer: usize) {
        if let Some(known) = self.peers.get(peer) {
            known.origin.set_stale(None);
            known.course.lock().problem.clear();
        }
    }
}

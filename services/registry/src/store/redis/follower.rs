//! Follows the feed, for as long as there is a store, and reads everything anew where it cannot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::mirror::{Astray, Place, check};
use super::reading::Head;
use super::{Redis, wire};
use crate::store::{Error, Feed};

/// How long one read of the feed waits for a change.
pub(super) const WAIT: Duration = Duration::from_millis(500);
/// How often it is checked that the store still is the one that is followed, at the least.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after Redis has refused something at once.
const PAUSE: Duration = Duration::from_millis(500);

/// What following has shown so far.
#[derive(Debug, Default)]
struct Course {
    /// When it was last looked how far the store is.
    looked_at: Duration,
    /// How far the store was then.
    promised: u64,
    /// The latest deadline of which the heartbeat is known.
    heard: u64,
    /// Whether Redis did not answer the last time.
    is_lost: bool,
}

/// What following has shown so far, for those who ask how it goes.
#[derive(Debug, Default)]
pub(super) struct Shown {
    full_reads: AtomicU64,
    /// How far the store is known to be.
    promised: AtomicU64,
    /// When it was heard last, on the own clock.
    heard_at: Mutex<Duration>,
}

impl Shown {
    /// For a mirror that is so far.
    pub(super) fn feed(&self, revision: u64, now: Duration) -> Feed {
        Feed {
            full_reads: self.full_reads.load(Ordering::Relaxed),
            behind: self.promised.load(Ordering::Relaxed).saturating_sub(revision),
            silent: now.saturating_sub(*self.heard_at.lock()),
        }
    }

    fn heard(&self, promised: Option<u64>, now: Duration) {
        if let Some(promised) = promised {
            self.promised.store(promised, Ordering::Relaxed);
        }
        *self.heard_at.lock() = now;
    }
}

impl Redis {
    /// See the module.
    pub(super) async fn follow(&self) {
        let mut course = Course::default();
        loop {
            match self.follow_once(&mut course).await {
                Ok(()) => {
                    if std::mem::take(&mut course.is_lost) {
                        tracing::info!("Redis is followed again");
                    }
                }
                Err(error) => {
                    // An hour's absence is told once.
                    if !std::mem::replace(&mut course.is_lost, true) {
                        tracing::warn!(%error, "Redis cannot be followed; reads go on from memory, and no lease ends");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn follow_once(&self, course: &mut Course) -> Result<(), Error> {
        let place = self.place();
        let Err(astray) = self.go_on(&place, course).await? else {
            return Ok(());
        };
        tracing::warn!(%astray, "everything is read anew, and watchers start over where something was missed");
        let mirror = self.read_all(Some(&place)).await?;
        *course = Course::default();
        self.replace(mirror);
        Ok(())
    }

    /// Reads what comes next, and looks now and then whether it comes from where it should.
    async fn go_on(&self, place: &Place, course: &mut Course) -> Result<Result<(), Astray>, Error> {
        let entries = match self.wait_for_changes(place.revision, WAIT).await? {
            Ok(entries) => entries,
            Err(astray) => return Ok(Err(astray)),
        };
        self.shared.course.heard(None, self.shared.clock.monotonic());
        let is_silent = entries.is_empty();
        if is_silent && course.promised > place.revision {
            return Ok(Err(Astray::Silent {
                revision: course.promised,
            }));
        }
        if let Err(astray) = self.take(entries) {
            return Ok(Err(astray));
        }
        let now = self.shared.clock.monotonic();
        if !is_silent && now.saturating_sub(course.looked_at) < LOOK {
            return Ok(Ok(()));
        }
        // Former primaries answer as long as they live.
        self.shared.connection.confirm().await;
        self.shared.feed.confirm().await;
        let Some(head) = self.look(Some(course.heard)).await? else {
            return Ok(Err(Astray::Renewed));
        };
        course.looked_at = now;
        course.promised = head.place.revision;
        self.shared.course.heard(Some(course.promised), now);
        self.take_heartbeats(&head, course);
        Ok(check(&self.place(), &head.place))
    }

    fn place(&self) -> Place {
        self.shared.mirror.lock().place().clone()
    }

    /// Takes changes over, tells the watchers, and then whoever waits for a write to be shown.
    fn take(&self, entries: Vec<wire::Entry>) -> Result<(), Astray> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut mirror = self.shared.mirror.lock();
        let followed = mirror.follow(entries);
        self.shared.watchers.push(mirror.take_events());
        let place = (mirror.place().incarnation, mirror.place().revision);
        drop(mirror);
        self.shared.followed.send_replace(Some(place));
        followed
    }

    /// Heartbeats with nothing new are not in the feed; their times are read now and then.
    fn take_heartbeats(&self, head: &Head, course: &mut Course) {
        self.is_told_time(head.time);
        let (renewals, latest) = head.renewals(self.shared.options.terms.time_to_live);
        self.read(|table, _| {
            for (lease, at) in renewals {
                table.heard(lease, at);
            }
        });
        course.heard = latest.unwrap_or(course.heard);
    }

    /// Shows what was read anew. Watchers start over, unless nothing was missed.
    pub(super) fn replace(&self, mirror: super::Mirror) {
        let place = (mirror.place().incarnation, mirror.place().revision);
        self.shared.course.full_reads.fetch_add(1, Ordering::Relaxed);
        self.shared
            .course
            .heard(Some(place.1), self.shared.clock.monotonic());
        let mut shown = self.shared.mirror.lock();
        let is_same = shown.place() == mirror.place();
        *shown = mirror;
        if !is_same {
            self.shared.watchers.restart(place.0, place.1);
        }
        drop(shown);
        self.shared.followed.send_replace(Some(place));
    }
}

//! Lines of which anybody could cause as many as he likes.
//!
//! They must not fill the disk. So the first of one kind is said at once, and what follows within a minute is counted: one more line at
//! the end of it says how many. Of so many kinds at once ([`MOST`]) each has its own lines; those beyond share one under no name. Then a
//! minute has some hundred lines, whoever attacks, and nobody is forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Entry, Log};
use crate::clock::SharedClock;

/// How long what follows a line is counted.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Most kinds that are told apart within that time.
pub(super) const MOST: usize = 64;

/// What lines are about.
pub(super) trait Kind: Clone + Eq + Hash {
    /// What every line of this kind says.
    fn line(&self) -> Entry;

    /// The same without a name, for those that are too many to be told apart.
    fn nameless(&self) -> Self;
}

/// Such lines, before the audit log.
pub(super) struct Counted<K: Kind> {
    log: Arc<Log>,
    clock: SharedClock,
    counts: Mutex<HashMap<K, Count>>,
}

struct Count {
    since: Duration,
    /// After the first.
    more: u64,
}

impl<K: Kind> Counted<K> {
    /// Writes into this log.
    pub(super) fn new(log: Arc<Log>, clock: SharedClock) -> Self {
        Self {
            log,
            clock,
            counts: Mutex::default(),
        }
    }

    /// It has happened. `detail` adds to the line where it is the first; whether it was.
    pub(super) fn note(&self, mut kind: K, detail: impl FnOnce(Entry) -> Entry) -> bool {
        let now = self.clock.monotonic();
        let mut counts = self.counts.lock();
        self.say_counted(&mut counts, now, WINDOW);
        if !counts.contains_key(&kind) && counts.len() >= MOST {
            kind = kind.nameless();
        }
        if let Some(count) = counts.get_mut(&kind) {
            count.more += 1;
            return false;
        }
        let first = kind.line().with("count", "1");
        counts.insert(kind, Count { since: now, more: 0 });
        drop(counts);
        self.log.note(detail(first));
        true
    }

    /// Says what was counted and is due. To be called now and then.
    pub(super) fn sweep(&self) {
        self.say_counted(&mut self.counts.lock(), self.clock.monotonic(), WINDOW);
    }

    /// Says what was counted for at least so long, and begins anew for those.
    fn say_counted(&self, counts: &mut HashMap<K, Count>, now: Duration, at_least: Duration) {
        counts.retain(|kind, count| {
            let is_due = now.saturating_sub(count.since) >= at_least;
            if is_due && count.more > 0 {
                let after = format!("after the first, within {} s", WINDOW.as_secs());
                let line = kind.line().with("count", &count.more.to_string());
                self.log.note(line.with("detail", &after));
            }
            !is_due
        });
    }

    #[cfg(test)]
    pub(super) fn sync(&self) {
        self.log.sync();
    }
}

impl<K: Kind> Drop for Counted<K> {
    fn drop(&mut self) {
        self.say_counted(&mut self.counts.lock(), self.clock.monotonic(), Duration::ZERO);
    }
}

//! The agents of one other region, as its registry tells them. Pure: times are given.
//!
//! - What the registry tells is taken over as it comes.
//! - While it is not heard nothing changes, for the grace; then all of it is forgotten, and following begins anew.
//! - After it was heard again, who is missing in its snapshot is gone, as far as the registry is the one that was known. One
//!   that was started anew may not have heard of everybody yet: those it misses stay for the grace, unless it names them.
//!
//! A removal that the other registry did not tell is [`Departure::Unheard`]: nobody knows whether the agent lives, so calls
//! that are with it go on.
//!
//! There is a bound on instances. What is beyond it is left out, and when there is room again everything is read anew
//! ([`Mirror::wants_resync`]).
//!
//! Lease time is the other registry's: it alone says that a lease ended. Times of different machines are never compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::instance::{Instance, Key, Report};
use crate::lease::{Change, Departure};

/// What holds for the agents of one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// For how long they are shown without having been heard of.
    pub grace: Duration,
    /// How many instances there are at most.
    pub most: usize,
}

/// What the registry tells of an instance that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Which instance.
    pub key: Key,
    /// The registration that it is about.
    pub epoch: u64,
    /// What the instance says of itself.
    pub report: Report,
    /// When it said so, by the registry's clock.
    pub heard_at: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub struct Mirror {
    bounds: Bounds,
    instances: BTreeMap<Key, Instance>,
    /// Those that a registry which was started anew has not named, and until when they stay.
    unconfirmed: BTreeMap<Key, Duration>,
    /// Those that the snapshot that is being taken over has not named yet.
    unseen: BTreeSet<Key>,
    /// Since when the registry has not been heard; `None` while it is.
    lost_at: Option<Duration>,
    /// Whether what was known was forgotten, so that there is nothing to go on from.
    has_forgotten: bool,
    left_out: usize,
}

impl Mirror {
    /// Nothing yet, of a registry that has not been heard.
    #[must_use]
    pub const fn new(bounds: Bounds, now: Duration) -> Self {
        Self {
            bounds,
            instances: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            unseen: BTreeSet::new(),
            lost_at: Some(now),
            has_forgotten: true,
            left_out: 0,
        }
    }

    /// An instance.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Instance> {
        self.instances.get(key)
    }

    /// Whether the registry is heard.
    #[must_use]
    pub const fn is_heard(&self) -> bool {
        self.lost_at.is_none()
    }

    /// Instances that do not fit.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether instances that were left out would fit by now.
    #[must_use]
    pub fn wants_resync(&self) -> bool {
        // Not for each one that goes: everything is read for it.
        self.left_out > 0 && self.instances.len() < self.bounds.most - self.bounds.most.div_ceil(10)
    }

    /// The stream goes on where the last one ended. Whether there is something to go on from.
    pub const fn resumed(&mut self) -> bool {
        if !self.has_forgotten {
            self.lost_at = None;
        }
        !self.has_forgotten
    }

    /// A snapshot, which has come whole, begins to be taken over.
    pub fn begin(&mut self) {
        self.lost_at = None;
        self.has_forgotten = false;
        self.unseen = self.instances.keys().cloned().collect();
        self.left_out = 0;
    }

    /// The snapshot has ended; `is_same_life` says whether the registry is the one that was known.
    pub fn end(&mut self, is_same_life: bool, now: Duration) -> Vec<Change> {
        let missing = std::mem::take(&mut self.unseen);
        if is_same_life {
            return self.forget(missing);
        }
        let until = now.saturating_add(self.bounds.grace);
        for key in missing {
            self.unconfirmed.entry(key).or_insert(until);
        }
        Vec::new()
    }

    /// An instance is there as the registry says, in a snapshot or by itself.
    pub fn is_there(&mut self, mut instance: Instance) -> Option<Change> {
        let key = instance.key().clone();
        self.unseen.remove(&key);
        self.unconfirmed.remove(&key);
        self.share_card(&mut instance);
        let Some(known) = self.instances.get_mut(&key) else {
            if self.instances.len() >= self.bounds.most {
                self.left_out += 1;
                return None;
            }
            self.instances.insert(key, instance.clone());
            return Some(Change::Upserted(instance));
        };
        let is_same = known.epoch == instance.epoch && known.profile == instance.profile;
        if is_same && known.report == instance.report {
            known.last_heartbeat_at = instance.last_heartbeat_at;
            return None;
        }
        *known = instance.clone();
        Some(if is_same {
            Change::Reported(instance)
        } else {
            Change::Upserted(instance)
        })
    }

    /// An instance says something of itself. About another registration than the known one it is nothing.
    pub fn said(&mut self, said: Said) -> Option<Change> {
        let known = self.instances.get_mut(&said.key);
        let known = known.filter(|known| known.epoch == said.epoch)?;
        self.unconfirmed.remove(&said.key);
        known.report = said.report;
        known.last_heartbeat_at = said.heard_at;
        Some(Change::Reported(known.clone()))
    }

    /// An instance left.
    pub fn left(&mut self, key: Key, departure: Departure) -> Option<Change> {
        self.unconfirmed.remove(&key);
        self.instances.remove(&key)?;
        Some(Change::Removed(key, departure))
    }

    /// The stream broke.
    pub fn lost(&mut self, now: Duration) {
        self.unseen.clear();
        self.lost_at.get_or_insert(now);
    }

    /// Lets go of what has been kept for long enough. To be called every second or so.
    pub fn sweep(&mut self, now: Duration) -> Vec<Change> {
        if let Some(lost_at) = self.lost_at {
            if now.saturating_sub(lost_at) < self.bounds.grace {
                return Vec::new();
            }
            self.has_forgotten = true;
            self.left_out = 0;
            let all: Vec<Key> = self.instances.keys().cloned().collect();
            return self.forget(all);
        }
        let overdue = self.unconfirmed.iter().filter(|(_, until)| **until <= now);
        let overdue: Vec<Key> = overdue.map(|(key, _)| key.clone()).collect();
        self.forget(overdue)
    }

    fn forget(&mut self, keys: impl IntoIterator<Item = Key>) -> Vec<Change> {
        let gone = keys
            .into_iter()
            .filter_map(|key| self.left(key, Departure::Unheard));
        gone.collect()
    }

    /// Takes over the card of the instances beside it where it is equal. Each comes off the wire with a card of its own.
    fn share_card(&self, instance: &mut Instance) {
        let key = instance.key();
        let before = self.instances.range(..=key).next_back();
        let behind = self.instances.range(key..).next();
        let card = &instance.profile.card;
        let same = before
            .into_iter()
            .chain(behind)
            .map(|(_, other)| &other.profile.card)
            .find(|other| *other == card)
            .filter(|other| !Arc::ptr_eq(other, card));
        if let Some(same) = same.cloned() {
            Arc::make_mut(&mut instance.profile).card = same;
        }
    }
}

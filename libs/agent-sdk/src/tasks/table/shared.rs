//! The table where the store is shared by several instances: what this one holds, and what of it is to be written.
//!
//! A task is held from when it is made here, or taken from the store, until all of it is written and nobody here has anything
//! to do with it: then the store's word counts. A *pin* keeps a task here that somebody is about to change. A task that
//! turns out to be another instance's is *lost*: its work is cancelled, and whoever waits or follows goes on at the store.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message as _;

use super::{Body, Bounds, Entry, Live, Record, Table, Trail, is_settled, is_terminal};
use crate::tasks::store::{Draft, Keep, Stage, Stored};

impl Table {
    /// A table before a shared store.
    pub(crate) fn shared(bounds: Bounds) -> Self {
        Self {
            is_shared: true,
            ..Self::new(bounds)
        }
    }

    /// Whether this process has to do with the task.
    pub(crate) fn holds(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|entry| entry.is_held)
    }

    /// Whether the task is here, or was and is to be forgotten.
    pub(crate) fn is_here(&self, id: &str) -> bool {
        self.holds(id) || self.withdrawn.contains(id)
    }

    /// Keeps a task here, if it is.
    pub(crate) fn pin(&mut self, id: &str) -> bool {
        match self.by_id.get_mut(id).filter(|entry| entry.is_held) {
            None => false,
            Some(entry) => {
                entry.pins += 1;
                true
            }
        }
    }

    /// Nothing keeps it here any more that did.
    pub(crate) fn unpin(&mut self, id: &str) {
        if let Some(entry) = self.by_id.get_mut(id) {
            entry.pins = entry.pins.saturating_sub(1);
        }
    }

    /// Takes in a task that this instance holds from now on.
    pub(crate) fn adopt(&mut self, stored: &Stored, now: Duration) {
        let Some(id) = stored.record.task.as_ref().map(|task| task.id.clone()) else {
            return;
        };
        let body = Body::Kept(stored.record.encode_to_vec().into());
        self.insert(&id, &stored.record, body, now);
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.trail = Trail::of(stored.version, stored.number);
        }
    }

    /// What is to be written of a task now; `None` where there is nothing to say.
    pub(crate) fn draft(&mut self, id: &str) -> Option<Draft> {
        let forget = || Draft {
            id: id.to_owned(),
            keep: None,
        };
        let Some(entry) = self.by_id.get_mut(id) else {
            let is_to_go = !self.is_shared || self.withdrawn.remove(id);
            return is_to_go.then(forget);
        };
        // On a disk nobody else asks.
        let stage = if self.is_shared {
            entry.stage()
        } else {
            Stage::AtRest
        };
        let is_known = entry.trail.is_clean() && stage == entry.known_stage && stage != Stage::AtRest;
        if self.is_shared && (!entry.is_held || is_known) {
            return None;
        }
        self.drafts += 1;
        let part = entry.trail.take(self.drafts);
        let record = match &entry.body {
            _ if self.is_shared && !part.has_record => None,
            Body::Kept(bytes) => Some(bytes.to_vec()),
            Body::Live(live) => Some(live.record.encode_to_vec()),
        };
        Some(Draft {
            id: id.to_owned(),
            keep: Some(Keep {
                record,
                part,
                state: entry.state,
                time: entry.key.0,
                context: entry.context.clone(),
                caller: entry.caller.to_string(),
                stage,
            }),
        })
    }

    /// A draft is durable. What nobody here has to do with any more is given up.
    pub(crate) fn written(&mut self, id: &str, stage: Stage) {
        let Some(entry) = self.by_id.get_mut(id) else {
            return;
        };
        entry.trail.written();
        entry.known_stage = stage;
        if entry.trail.is_clean() {
            entry.is_secret = false;
        }
        if !self.is_shared || stage != Stage::AtRest || entry.stage() != stage || !entry.trail.is_clean() {
            return;
        }
        if is_terminal(entry.state) && matches!(entry.body, Body::Kept(_)) {
            entry.is_held = false;
        } else {
            // Followers go on at the store from the event that they have seen last.
            self.forget(id);
        }
    }

    /// A draft may not be durable.
    pub(crate) fn failed(&mut self, id: &str) {
        if let Some(entry) = self.by_id.get_mut(id) {
            entry.trail.failed();
        }
    }

    /// The store may still have what it must not keep.
    pub(crate) fn not_forgotten(&mut self, id: &str) {
        if self.is_shared && !self.by_id.contains_key(id) {
            self.withdrawn.insert(id.to_owned());
        }
    }

    /// The task is another instance's.
    pub(crate) fn lose(&mut self, id: &str) {
        if let Some(entry) = self.by_id.get(id).filter(|entry| entry.is_held)
            && let Body::Live(live) = &entry.body
        {
            live.lose();
        }
        self.forget(id);
        self.lost.push(id.to_owned());
    }

    /// What turned out to be another instance's since this was asked last.
    pub(crate) fn take_lost(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lost)
    }

    /// Every task is another instance's that the store knows.
    pub(crate) fn lose_all(&mut self) -> usize {
        let lost = self.known();
        for id in &lost {
            self.lose(id);
        }
        lost.len()
    }

    /// The tasks that are this instance's in the eyes of the store, as far as it knows.
    pub(crate) fn known(&self) -> Vec<String> {
        let known = self
            .by_id
            .iter()
            .filter(|(_, entry)| entry.is_held && entry.trail.is_known());
        known.map(|(id, _)| id.clone()).collect()
    }

    /// The store is to be asked with the next write whether the task is still this instance's.
    pub(crate) fn doubt(&mut self, id: &str) {
        self.change(id);
    }

    /// Whether this instance has to do with any task.
    pub(crate) fn holds_any(&self) -> bool {
        self.by_id.values().any(|entry| entry.is_held)
    }

    /// Tasks whose receivers are still to be told what is durable.
    pub(crate) fn owing(&self) -> Vec<Record> {
        let is_owing = |entry: &&Entry| {
            entry.is_held && !entry.is_telling && entry.stage() == Stage::Owing && entry.trail.is_clean()
        };
        self.by_id
            .values()
            .filter(is_owing)
            .filter_map(Entry::record)
            .collect()
    }

    /// The end of a task was told, or cannot be.
    pub(crate) fn told(&mut self, id: &str) {
        if let Some(entry) = self.by_id.get_mut(id) {
            entry.is_telling = false;
        }
    }

    /// Whether the end of a task is being written, and is told then.
    pub(crate) fn is_telling(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|entry| entry.is_telling)
    }

    /// Whether a task has come to where nobody is to hear of it yet.
    pub(crate) fn is_hidden(&self, id: &str) -> bool {
        self.is_telling(id) || self.is_secret(id)
    }

    /// Whether a task has come to where nobody is to hear of it before the store has it.
    pub(crate) fn is_secret(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|entry| entry.is_secret)
    }

    /// Whether the store has all of a task that nobody works on.
    pub(crate) fn is_durable(&self, id: &str) -> bool {
        self.by_id
            .get(id)
            .is_some_and(|entry| is_settled(entry.state) && (!entry.is_held || entry.trail.is_clean()))
    }
}

impl Entry {
    /// What this instance still has to do with the task.
    fn stage(&self) -> Stage {
        let is_at_work = matches!(&self.body, Body::Live(live) if live.work.is_some());
        if is_at_work || self.pins > 0 || !is_settled(self.state) {
            return Stage::AtWork;
        }
        let owes = match &self.body {
            Body::Live(live) => live.record.pushes.iter().any(|push| push.owed),
            Body::Kept(_) => self
                .record()
                .is_some_and(|record| record.pushes.iter().any(|push| push.owed)),
        };
        if owes { Stage::Owing } else { Stage::AtRest }
    }
}

impl Live {
    fn lose(&self) {
        for follower in &self.followers {
            follower.fate.is_lost.store(true, Ordering::Relaxed);
        }
        if let Some(work) = &self.work {
            work.cancel();
        }
    }
}

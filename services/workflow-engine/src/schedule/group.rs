//! Groups of runs that bound how many of them are under way at once: all of a workflow, or those with one key.
//!
//! A run joins its groups when it gets its first slot and leaves them when it ends; that it waits for an agent or a
//! person in between frees nothing, because what such a limit protects (an account, an order) is in use all the time.
//! A run one of whose groups is full leaves its line for that group, so that it costs the line nothing. Runs with the same
//! limits stand for each other: where one of them has no room, no other has. They wait as one *kin*, which moves from group to
//! group as a whole, so that no number of waiting runs slows the schedule down.
//!
//! Invariant: where a group has room for a kin that waits for it, a run on its way through the line has been given that room.
//! Whoever leaves a group, and whoever leaves the line without joining, therefore offers the room to the next ([`Groups::offer`]).
//! That may send more runs to the line than there is room for; they come back.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::claim::Limit;
use super::line::Turn;
use crate::run::RunId;

/// All groups that somebody is in or waits for.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: HashMap<Arc<str>, Group>,
    /// Runs that wait, by their limits.
    kins: HashMap<Arc<[Limit]>, Kin>,
}

#[derive(Debug, Default)]
struct Group {
    under_way: u32,
    /// Kins that wait for it, by how many may be under way for them, and by the turn of their first.
    waiting: BTreeMap<u32, BTreeMap<Turn, Arc<[Limit]>>>,
}

/// Runs with the same limits that wait for one of their groups; never empty.
#[derive(Debug)]
struct Kin {
    waits_for: Limit,
    runs: BTreeMap<Turn, RunId>,
}

impl Groups {
    /// The first of the groups that has no room.
    pub(super) fn full<'l>(&self, limits: &'l [Limit]) -> Option<&'l Limit> {
        limits
            .iter()
            .find(|limit| self.under_way(&limit.group) >= limit.most)
    }

    /// How many runs of the group are under way.
    pub(super) fn under_way(&self, group: &str) -> u32 {
        self.groups.get(group).map_or(0, |group| group.under_way)
    }

    /// Which group those with these limits wait for, and how many wait for the same and are before this turn.
    pub(super) fn waits_for(&self, limits: &[Limit], turn: Turn) -> Option<(&Limit, usize)> {
        let kin = self.kins.get(limits)?;
        let group = self.groups.get(&kin.waits_for.group)?;
        let kins = group.waiting.values().flat_map(BTreeMap::values);
        let ahead = kins
            .filter_map(|limits| self.kins.get(limits))
            .map(|kin| kin.runs.range(..turn).count());
        Some((&kin.waits_for, ahead.sum()))
    }

    /// The run waits for room in this group, one of its limits, which is full.
    pub(super) fn wait(&mut self, limits: &[Limit], full: &Limit, turn: Turn, id: RunId) {
        let limits: Arc<[Limit]> = limits.into();
        self.change(&limits, |kin| match kin {
            Some(kin) => {
                kin.runs.insert(turn, id);
            }
            None => {
                *kin = Some(Kin {
                    waits_for: full.clone(),
                    runs: BTreeMap::from([(turn, id)]),
                });
            }
        });
    }

    /// The run does not wait any more.
    pub(super) fn forget(&mut self, limits: &[Limit], turn: Turn) {
        self.change(&limits.into(), |kin| {
            if let Some(kin) = kin {
                kin.runs.remove(&turn);
            }
        });
    }

    /// The run is under way.
    pub(super) fn join(&mut self, limits: &[Limit]) {
        for limit in limits {
            self.groups.entry(Arc::clone(&limit.group)).or_default().under_way += 1;
        }
    }

    /// The run is not under way any more; returns the runs that may try again.
    pub(super) fn leave(&mut self, limits: &[Limit]) -> Vec<RunId> {
        for limit in limits {
            if let Some(group) = self.groups.get_mut(&limit.group) {
                group.under_way = group.under_way.saturating_sub(1);
            }
        }
        let next = self.offer(limits);
        for limit in limits {
            self.clear_up(&limit.group);
        }
        next
    }

    /// Offers the room that there is in these groups; returns the runs that may try again.
    pub(super) fn offer(&mut self, limits: &[Limit]) -> Vec<RunId> {
        limits
            .iter()
            .filter_map(|limit| self.first(&limit.group))
            .collect()
    }

    /// The first run that waits for the group and has room in all of its groups. Kins that wait for it and have no room in
    /// another one wait for that one from here on.
    fn first(&mut self, group: &str) -> Option<RunId> {
        loop {
            let found = self.groups.get(group)?;
            let room = (Bound::Excluded(found.under_way), Bound::Unbounded);
            let kins = found
                .waiting
                .range(room)
                .filter_map(|(_, kins)| kins.first_key_value());
            let limits = Arc::clone(kins.min_by_key(|(turn, _)| **turn)?.1);
            if let Some(full) = self.full(&limits).cloned() {
                self.change(&limits, |kin| {
                    if let Some(kin) = kin {
                        kin.waits_for = full;
                    }
                });
                continue;
            }
            let mut first = None;
            self.change(&limits, |kin| {
                first = kin.as_mut().and_then(|kin| kin.runs.pop_first());
            });
            return first.map(|(_, id)| id);
        }
    }

    /// Changes the kin with these limits, and keeps where it waits true.
    fn change(&mut self, limits: &Arc<[Limit]>, change: impl FnOnce(&mut Option<Kin>)) {
        let mut kin = self.kins.remove(limits);
        if let Some(Kin { waits_for, runs }) = &kin
            && let Some(group) = self.groups.get_mut(&waits_for.group)
            && let Some(waiting) = group.waiting.get_mut(&waits_for.most)
        {
            if let Some((turn, _)) = runs.first_key_value() {
                waiting.remove(turn);
            }
            if waiting.is_empty() {
                group.waiting.remove(&waits_for.most);
            }
        }
        let before = kin.as_ref().map(|kin| Arc::clone(&kin.waits_for.group));
        change(&mut kin);
        if let Some(kin) = kin
            && let Some((turn, _)) = kin.runs.first_key_value()
        {
            let group = self.groups.entry(Arc::clone(&kin.waits_for.group)).or_default();
            let waiting = group.waiting.entry(kin.waits_for.most).or_default();
            waiting.insert(*turn, Arc::clone(limits));
            self.kins.insert(Arc::clone(limits), kin);
        }
        if let Some(group) = before {
            self.clear_up(&group);
        }
    }

    fn clear_up(&mut self, group: &str) {
        if self
            .groups
            .get(group)
            .is_some_and(|group| group.under_way == 0 && group.waiting.is_empty())
        {
            self.groups.remove(group);
        }
    }
}

//! Groups of runs that bound how many of them are under way at once: all of a workflow, or those with one key.
//!
//! A run joins its groups when it gets its first slot and leaves them when it ends; that it waits for an agent or a
//! person in between frees nothing, because what such a limit protects (an account, an order) is in use all the time.
//! A run whose group is full leaves its line for the group's own, so that it costs the line nothing; whoever leaves
//! the group sends the first of those back. Each run moves at most once for each that leaves, so that no number of
//! waiting runs slows the schedule down.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::claim::Limit;
use super::line::Turn;
use crate::run::RunId;

/// All groups that somebody is in or waits for.
#[derive(Debug, Default)]
pub(super) struct Groups(HashMap<Arc<str>, Group>);

#[derive(Debug, Default)]
struct Group {
    under_way: u32,
    waiting: BTreeMap<Turn, RunId>,
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
        self.0.get(group).map_or(0, |group| group.under_way)
    }

    /// How many wait before this one for room in the group.
    pub(super) fn ahead(&self, group: &str, turn: Turn) -> usize {
        self.0
            .get(group)
            .map_or(0, |group| group.waiting.range(..turn).count())
    }

    /// The run waits for room in the group.
    pub(super) fn wait(&mut self, group: &Arc<str>, turn: Turn, id: RunId) {
        let group = self.0.entry(Arc::clone(group)).or_default();
        group.waiting.insert(turn, id);
    }

    /// The run does not wait any more.
    pub(super) fn forget(&mut self, group: &Arc<str>, turn: Turn) {
        if let Some(found) = self.0.get_mut(group) {
            found.waiting.remove(&turn);
        }
        self.clear_up(group);
    }

    /// The run is under way.
    pub(super) fn join(&mut self, limits: &[Limit]) {
        for limit in limits {
            self.0.entry(Arc::clone(&limit.group)).or_default().under_way += 1;
        }
    }

    /// The run is not under way any more; returns the runs that may try again.
    pub(super) fn leave(&mut self, limits: &[Limit]) -> Vec<RunId> {
        let mut next = Vec::new();
        for limit in limits {
            if let Some(group) = self.0.get_mut(&limit.group) {
                group.under_way = group.under_way.saturating_sub(1);
                if group.under_way < limit.most {
                    next.extend(group.waiting.pop_first().map(|(_, id)| id));
                }
            }
            self.clear_up(&limit.group);
        }
        next
    }

    fn clear_up(&mut self, group: &Arc<str>) {
        if self
            .0
            .get(group)
            .is_some_and(|group| group.under_way == 0 && group.waiting.is_empty())
        {
            self.0.remove(group);
        }
    }
}

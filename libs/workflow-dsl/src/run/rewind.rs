//! Beginning again: a run that failed goes on from before its failure, or from the start of a step; a new run goes on
//! from the middle of another.
//!
//! A journal only grows. [`EventKind::RunRetried`] says that the events from its `to` up to itself do not count any
//! more: whoever folds a journal leaves these spans out ([`skipped`]), and the state at `to` goes on in a new
//! *generation*, so that calls that are made again are new messages of the same steps. What other branches had
//! recorded by then stays recorded. A fork is a copy of a beginning of a journal with [`EventKind::RunForked`] after it.
//!
//! Where to go back to is found by a [`Trail`] that watches the fold: it follows an error outwards, and knows at which
//! event the error that ended the run came up first.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::state::{Body, Cursor};
use super::{Mismatch, Run, Status, evaluate};
use crate::journal::{Event, EventKind};

/// A run is retried at most so often.
pub const MOST_GENERATIONS: u32 = 100;

/// What is to be known about a wish to retry a run.
#[derive(Debug, Clone)]
pub struct Again {
    /// Length of the journal: the index of the event to come.
    pub length: u64,
    /// The run as it ended, by its next activation, generation and time.
    pub next_activation: u64,
    /// See `next_activation`.
    pub generation: u32,
    /// See `next_activation`.
    pub ended: Timestamp,
    /// Who wants it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The step whose start the run goes back to, if one was named.
    pub from: Option<Arc<str>>,
    /// The activation that asks its people anew: see [`Trail::asking_at`].
    pub asks: Option<u64>,
}

/// Why a run cannot be forked there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The input does not belong to one task.
    #[error(
        "{0} is a branch of a fork, and branches share their input; give the input to the fork around it"
    )]
    Branch(Arc<str>),
    /// The input is out of bounds.
    #[error("the input {0}")]
    Input(String),
    /// A defect.
    #[error(transparent)]
    Inconsistent(#[from] Mismatch),
}

/// The spans of a journal that do not count, in order, by the `(index, to)` of each of its events `run.retried`.
#[must_use]
pub fn skipped(retries: &[(u64, u64)]) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    for (index, to) in retries.iter().copied() {
        // What went back further than this has swallowed the spans within.
        while spans.last().is_some_and(|span| span.start >= to || span.end > to) {
            spans.pop();
        }
        spans.push(to..index);
    }
    spans
}

/// See the module.
#[derive(Debug, Default)]
pub struct Trail {
    /// By whom it would be noticed next: the index at which its error came up first.
    origins: HashMap<Option<u64>, u64>,
    /// By activation: the index of its start.
    started: HashMap<u64, u64>,
    /// By pointer: the index of the last start.
    starts: HashMap<Arc<str>, u64>,
    /// By activation: the index at which its approval was refused.
    refused: HashMap<u64, u64>,
    compensated: Vec<(Arc<str>, u64)>,
    end: Option<u64>,
}

impl Trail {
    /// Takes note of an event that the run is about to fold.
    pub fn observe(&mut self, run: &Run, event: &Event) {
        let index = event.index;
        // Handlers and compensations are no steps to go on from: the run was ending.
        let ending = run.control.cancelling.is_some() || run.control.unwinding.is_some();
        match &event.kind {
            EventKind::TaskStarted { .. } | EventKind::TaskSkipped { .. } if ending => {}
            EventKind::TaskStarted { task, activation, .. } => {
                self.started.insert(*activation, index);
                self.starts.insert(Arc::clone(task), index);
            }
            EventKind::TaskSkipped { task, .. } => {
                self.starts.insert(Arc::clone(task), index);
            }
            EventKind::ApprovalDecided { activation, .. } | EventKind::ApprovalExpired { activation, .. } => {
                let asked = run.activations.get(activation);
                if asked.is_some_and(|asked| matches!(asked.body, Body::Asked(_))) {
                    self.refused.insert(*activation, index);
                }
            }
            EventKind::TaskFaulted { activation, .. } => {
                let faulted = run.activations.get(activation);
                // One that could not be started is to be started again. One that was refused asks again, from where it was
                // refused on: what other branches have done since it asked stays done.
                let first = match faulted.map(|faulted| &faulted.body) {
                    Some(Body::Failed(_)) => {
                        let first = self
                            .refused
                            .get(activation)
                            .or_else(|| self.started.get(activation));
                        first.copied().unwrap_or(index)
                    }
                    _ => index,
                };
                let origin = self.origins.remove(&Some(*activation)).unwrap_or(first);
                let parent = faulted.and_then(|faulted| faulted.parent);
                self.origins.insert(parent, origin);
            }
            EventKind::TaskRetried { activation, .. } | EventKind::TaskCaught { activation, .. } => {
                self.origins.remove(&Some(*activation));
            }
            // One that was ending already is known from before, or nothing is left of where its end began.
            EventKind::RunCompensating { .. }
            | EventKind::RunFaulted { .. }
            | EventKind::RunCancelling { .. }
            | EventKind::RunCancelled { .. }
                if ending => {}
            EventKind::RunCompensating { .. } | EventKind::RunFaulted { .. } => {
                let origin = self.origins.get(&None).copied().unwrap_or(index);
                self.end.get_or_insert(origin);
            }
            EventKind::RunCancelling { .. } | EventKind::RunCancelled { .. } => {
                self.end.get_or_insert(index);
            }
            EventKind::CompensationStarted { task, activation } => {
                self.compensated.push((Arc::clone(task), *activation));
            }
            _ => {}
        }
    }

    /// Index of the event that began the end of the run: before it, the run was well. None where the fold began later.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// The activation whose approval was refused with the event of this index.
    #[must_use]
    pub fn asking_at(&self, index: u64) -> Option<u64> {
        let mut refused = self.refused.iter();
        refused
            .find(|(_, at)| **at == index)
            .map(|(activation, _)| *activation)
    }

    /// Index of the event with which the task began, the last time that it did.
    #[must_use]
    pub fn start_of(&self, task: &str) -> Option<u64> {
        self.starts.get(task).copied()
    }

    /// The tasks that have begun.
    pub fn tasks(&self) -> impl Iterator<Item = &str> {
        self.starts.keys().map(|task| &**task)
    }

    /// A task that began before this index and has been compensated since, if there is one: the first that began.
    #[must_use]
    pub fn undone_before(&self, index: u64) -> Option<&str> {
        let undone = self.compensated.iter().filter_map(|(task, activation)| {
            // One of which nothing is known began before what is left of the journal.
            let start = self.started.get(activation).copied().unwrap_or(0);
            (start < index).then_some((start, task))
        });
        undone.min_by_key(|(start, _)| *start).map(|(_, task)| &**task)
    }
}

impl Run {
    /// The number of the next task to start, for [`Again`].
    #[must_use]
    pub fn next_activation(&self) -> u64 {
        self.next_activation
    }

    /// Lets a run go on from here that has ended since: this is its state before what does not count any more.
    ///
    /// # Errors
    /// The run cannot go on from here: a defect.
    pub fn retry(&mut self, again: Again, now: Timestamp) -> Result<Event, Mismatch> {
        let event = Event {
            index: again.length,
            time: now.max(again.ended),
            kind: EventKind::RunRetried {
                to: self.next_index,
                generation: again.generation.saturating_add(1),
                next_activation: again.next_activation,
                by: again.by,
                reason: again.reason,
                from: again.from,
                asks: again.asks,
            },
        };
        self.apply(&event)?;
        Ok(event)
    }

    /// Lets a new run go on from here. `at` is the task that is about to begin, which gets another input if one is given.
    ///
    /// # Errors
    /// The input cannot be given to that task.
    pub fn fork(
        &mut self,
        source: &str,
        by: String,
        at: Option<&str>,
        input: Option<Value>,
        now: Timestamp,
    ) -> Result<Event, Refused> {
        let mut parent = None;
        if let (Some(at), Some(input)) = (at, &input) {
            parent = self
                .about_to_start(at)
                .ok_or_else(|| Refused::Branch(at.into()))?;
            if let Some(excess) = evaluate::excess(input) {
                return Err(Refused::Input(excess));
            }
        }
        let event = Event {
            index: self.next_index,
            time: now.max(self.time),
            kind: EventKind::RunForked {
                from: source.to_owned(),
                by,
                task: at.map(Arc::from),
                parent,
                input: input.map(Arc::new),
            },
        };
        self.apply(&event)?;
        Ok(event)
    }

    /// Whose list is about to start the task: none if nobody's is. The inner `None` is the run itself.
    #[expect(clippy::option_option, reason = "the run itself has no activation")]
    fn about_to_start(&self, task: &str) -> Option<Option<u64>> {
        let owners = std::iter::once(None).chain(self.activations.keys().copied().map(Some));
        let mut owners = owners.filter(|owner| {
            let Some(Cursor::Start { position, .. }) = self.cursor(*owner) else {
                return false;
            };
            let list = self.list(&self.definition.workflow, *owner);
            let next = list.and_then(|list| list.tasks.get(*position));
            next.is_some_and(|next| next.pointer == task)
        });
        owners.next()
    }

    /// Folds `run.retried`.
    pub(super) fn begin_again(
        &mut self,
        (to, generation): (u64, u32),
        next_activation: u64,
        asks: Option<u64>,
        event: &Event,
    ) -> Result<(), Mismatch> {
        let asked = |id| {
            let activation = self.activations.get(&id);
            activation.is_some_and(|activation| matches!(activation.body, Body::Asked(_)))
        };
        let fits = to == self.next_index
            && generation > self.control.generation
            && next_activation >= self.next_activation
            && self.control.unwinding.is_none()
            && asks.is_none_or(asked);
        if !fits {
            return Err(self.mismatch(format!("it goes back to {to}, which is not here")));
        }
        self.control.paused = None;
        self.control.generation = generation;
        self.next_activation = next_activation;
        for activation in self.activations.values_mut() {
            activation.place = activation.place.in_generation(generation);
        }
        if let Some(id) = asks {
            self.change(id, |activation| activation.body = Body::Asking);
        }
        self.spending.ask_again();
        if self.status == Status::Running {
            self.postpone(event.time.duration_since(self.time));
        }
        // The index that follows is that of the journal.
        self.next_index = event.index;
        Ok(())
    }

    /// Folds `run.forked`.
    pub(super) fn branch_off(
        &mut self,
        task: Option<&str>,
        parent: Option<u64>,
        input: Option<&Arc<Value>>,
        time: Timestamp,
    ) -> Result<(), Mismatch> {
        if let (Some(task), Some(input)) = (task, input) {
            if self.about_to_start(task) != Some(parent) {
                return Err(self.mismatch(format!("{task} is not about to begin")));
            }
            let given = Arc::clone(input);
            self.change_owner(
                parent,
                |cursor| {
                    if let Cursor::Start { input, .. } = cursor {
                        *input = given;
                    }
                },
                |_| {},
            );
        }
        self.control.paused = None;
        self.spending.ask_again();
        if self.status == Status::Running {
            self.postpone(time.duration_since(self.time));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_gone_back_over_does_not_count() {
        let spans = |retries: &[(u64, u64)]| -> Vec<(u64, u64)> {
            let spans = skipped(retries).into_iter();
            spans.map(|span| (span.start, span.end)).collect()
        };
        assert_eq!(spans(&[]), []);
        assert_eq!(spans(&[(5, 3)]), [(3, 5)]);
        assert_eq!(spans(&[(5, 3), (9, 7)]), [(3, 5), (7, 9)], "one after the other");
        assert_eq!(spans(&[(5, 3), (9, 6)]), [(3, 5), (6, 9)]);
        assert_eq!(spans(&[(5, 3), (9, 2)]), [(2, 9)], "further back");
        assert_eq!(spans(&[(5, 3), (9, 7), (12, 1)]), [(1, 12)]);
    }
}

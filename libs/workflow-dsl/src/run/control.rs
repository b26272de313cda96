//! What others want of a run: to pause, to go on, to end in good order or at once, to begin again.
//!
//! A wish is an event like any other, so a crash forgets none. While a run is *paused* nothing is decided and no timer
//! counts; calls in flight may end and are recorded. What limits the run's time is moved by the length of the pause;
//! the end of a `wait` and the time of a retry are not, because they are instants of the world outside.
//!
//! A run that is *cancelled* in good order fails everything that is in progress with one error, [`cancellation`]. Each
//! branch unwinds by itself: a `catch` that fits runs its tasks, once and without retries, and the error goes on
//! outwards whatever they do. What was in progress when the wish came is told apart from what handlers start by its
//! number: all activations below [`Cancelling::before`] are *interrupted*.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::compensate::{Completed, Unwinding};
use super::state::{Body, Branch, Cause, Cursor, Fork, Timer, Try};
use super::waiting::wish;
use super::{Mismatch, Run, Status, Stimulus};
use crate::journal::{EventKind, Problem};

/// Type of the error with which a cancellation ends what is in progress.
pub const CANCELLATION: &str = "urn:muster:error:cancelled";

/// Status of that error.
const CANCELLATION_STATUS: u16 = 499;

/// What has been asked of a run, and what it remembers for it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Control {
    pub(super) paused: Option<Paused>,
    pub(super) cancelling: Option<Cancelling>,
    /// Completed tasks that can be compensated, in the order in which they completed.
    pub(super) remembered: Vec<Completed>,
    /// Bytes of what is remembered, as JSON.
    pub(super) remembered_bytes: usize,
    pub(super) unwinding: Option<Unwinding>,
    /// How often the run has been retried.
    pub(super) generation: u32,
    /// How long the run may take.
    pub(super) allowance: Option<SignedDuration>,
}

/// That a run is held.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Paused {
    pub(super) by: String,
    pub(super) reason: String,
    pub(super) since: Timestamp,
}

/// That a run is to end in good order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cancelling {
    pub(super) by: String,
    pub(super) reason: String,
    pub(super) since: Timestamp,
    /// Activations below this number were in progress when the wish came.
    pub(super) before: u64,
}

/// The error with which a cancellation ends what is in progress.
fn cancellation(by: &str, reason: &str) -> Problem {
    Problem {
        kind: CANCELLATION.to_owned(),
        status: CANCELLATION_STATUS,
        instance: None,
        title: Some("Cancelled".to_owned()),
        detail: Some(format!("the run was cancelled{}", wish(by, reason))),
    }
    .shortened()
}

impl Run {
    /// By whom the run is held, if it is.
    #[must_use]
    pub fn paused_by(&self) -> Option<&str> {
        self.control.paused.as_ref().map(|paused| paused.by.as_str())
    }

    /// Whether the run is held: nothing is decided until it is told to go on, or to end.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        matches!(self.status, Status::Pending | Status::Running) && self.control.paused.is_some()
    }

    /// Whether the run has begun its tasks.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.began
    }

    /// How often the run has been retried.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.control.generation
    }

    /// Time of the last event.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Whether this activation was in progress when the run was told to end in good order.
    pub(super) fn is_interrupted(&self, id: u64) -> bool {
        let cancelling = self.control.cancelling.as_ref();
        cancelling.is_some_and(|cancelling| id < cancelling.before)
    }

    /// The event that a wish causes by itself, if it is one and changes something.
    pub(super) fn obey(&self, wish: Stimulus) -> Option<EventKind> {
        let open = matches!(self.status, Status::Pending | Status::Running);
        if !open {
            return None;
        }
        match wish {
            Stimulus::Pause { by, reason } if !self.is_paused() => Some(EventKind::RunPaused { by, reason }),
            Stimulus::Resume { by, reason } if self.is_paused() => Some(EventKind::RunResumed { by, reason }),
            Stimulus::Cancel { reason, .. } if self.status == Status::Pending => {
                Some(EventKind::RunCancelled { reason })
            }
            Stimulus::Cancel { by, reason } => {
                let ends = self.control.cancelling.is_some() || self.control.unwinding.is_some();
                (!ends).then_some(EventKind::RunCancelling { by, reason })
            }
            Stimulus::Terminate { reason, .. } => Some(EventKind::RunCancelled { reason }),
            _ => None,
        }
    }

    pub(super) fn pause(&mut self, by: &str, reason: &str, time: Timestamp) -> Result<(), Mismatch> {
        if self.is_paused() {
            return Err(self.mismatch("it is paused already"));
        }
        let (by, reason) = (by.to_owned(), reason.to_owned());
        self.control.paused = Some(Paused {
            by,
            reason,
            since: time,
        });
        Ok(())
    }

    pub(super) fn resume(&mut self, time: Timestamp) -> Result<(), Mismatch> {
        let Some(paused) = self.control.paused.take() else {
            return Err(self.mismatch("it is not paused"));
        };
        self.postpone(time.duration_since(paused.since));
        Ok(())
    }

    /// The event that says how long the run has waited for its turn, if it says anything.
    pub(super) fn queued(&self, since: Timestamp) -> Option<EventKind> {
        (!self.is_paused()).then_some(EventKind::RunQueued { since })
    }

    /// The run has waited for its turn between these two. What was over when it was due is over, or a run that waits long enough
    /// each time would never time out.
    pub(super) fn stand_in_line(&mut self, since: Timestamp, until: Timestamp) {
        self.postpone_if(|due| due > since, until.duration_since(since));
    }

    /// Moves everything that limits the run's time, and what people have to decide.
    pub(super) fn postpone(&mut self, by: SignedDuration) {
        self.postpone_if(|_| true, by);
        self.postpone_approvals(by);
    }

    /// Moves those limits of the run's time, but for what waits for people alone: its clock stands still anyway.
    fn postpone_if(&mut self, moves: impl Fn(Timestamp) -> bool, by: SignedDuration) {
        if !by.is_positive() {
            return;
        }
        let later = |due: Timestamp| {
            if moves(due) {
                due.checked_add(by).unwrap_or(Timestamp::MAX)
            } else {
                due
            }
        };
        if let Some(due) = self.deadline.filter(|_| self.resting_since.is_none()) {
            self.limit(Some(later(due)));
        }
        let moving = self
            .activations
            .iter()
            .filter(|(_, activation)| activation.resting_since.is_none());
        let ids: Vec<u64> = moving.map(|(id, _)| *id).collect();
        for id in ids {
            self.change(id, |activation| {
                activation.idle = activation.idle.saturating_add(by);
                activation.deadline = activation.deadline.map(later);
                if let Body::Try(attempt) = &mut activation.body {
                    attempt.deadline = attempt.deadline.map(later);
                }
            });
        }
    }

    /// Sets when the run itself times out.
    pub(super) fn limit(&mut self, deadline: Option<Timestamp>) {
        let timer = |due| Timer {
            due,
            owner: None,
            cause: Cause::Deadline,
        };
        if let Some(due) = self.deadline {
            self.timers.remove(&timer(due));
        }
        self.deadline = deadline;
        self.timers.extend(deadline.map(timer));
    }

    /// Fails everything that is in progress.
    pub(super) fn interrupt(&mut self, by: &str, reason: &str, time: Timestamp) -> Result<(), Mismatch> {
        if self.control.cancelling.is_some() || self.control.unwinding.is_some() {
            return Err(self.mismatch("it is ending already"));
        }
        if self.is_paused() {
            self.resume(time)?;
        }
        self.withdraw_budget_question();
        let error = Arc::new(cancellation(by, reason));
        self.control.cancelling = Some(Cancelling {
            by: by.to_owned(),
            reason: reason.to_owned(),
            since: time,
            before: self.next_activation,
        });
        let ids: Vec<u64> = self.activations.keys().copied().collect();
        for id in ids {
            self.change(id, |activation| {
                let children = activation.children();
                let at = |error: &Arc<Problem>| Arc::new(error.as_ref().clone().at(&activation.pointer));
                match &mut activation.body {
                    // Branches that run unwind by themselves; the others do not begin.
                    Body::Fork(state @ Fork::Running(_)) => stop_waiting(state, &error),
                    _ if !children.is_empty() => {}
                    // Its own `catch` sees the error, as it would see one of the next attempt.
                    Body::Try(Try { cursor, resume, .. }) => {
                        let failed = at(&error);
                        *resume = None;
                        *cursor = Cursor::Failed(failed);
                    }
                    body => *body = Body::Failed(at(&error)),
                }
            });
        }
        if !self.root.is_running() {
            self.root = Cursor::Failed(error);
            self.ready.insert(None);
        }
        Ok(())
    }

    /// The branch of an interrupted `fork` has failed: the fork fails when all have ended.
    pub(super) fn branch_interrupted(&mut self, fork: u64, position: usize, error: &Arc<Problem>) {
        self.change(fork, |activation| {
            if let Body::Fork(state) = &mut activation.body {
                if let Fork::Running(branches) = state
                    && let Some(branch) = branches.get_mut(position)
                {
                    *branch = Branch::Stopped;
                }
                stop_waiting(state, error);
            }
        });
    }
}

/// Stops the branches that have not begun, and fails the fork if none is left that runs.
fn stop_waiting(state: &mut Fork, error: &Arc<Problem>) {
    if let Fork::Running(branches) = state {
        for branch in branches
            .iter_mut()
            .filter(|branch| matches!(branch, Branch::Waiting))
        {
            *branch = Branch::Stopped;
        }
        if branches.iter().any(|branch| matches!(branch, Branch::Running(_))) {
            return;
        }
        *state = Fork::Failed(Arc::clone(error));
    }
}

//! Clocks that stand still: the time in which a task, or the run, waits for people alone does not count against its time
//! limits.
//!
//! A task *rests* while it waits for a decision, and while everything that it runs rests. As long as it rests it has no
//! deadline; when it goes on, its deadline has moved by the time it rested. Beside a branch that works or waits for time the
//! clock goes on: that branch has its limit, whatever people do about the others. All of this follows from the events and
//! their times; nothing is recorded for it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::state::{Activation, Body, Cause, Cursor, Timer, Try};
use super::{Run, Status};

impl Run {
    /// Stops and starts the clocks, after an event at `time`.
    pub(super) fn settle_clocks(&mut self, time: Timestamp) {
        if self.status != Status::Running || self.asking == 0 && !self.stood {
            return;
        }
        // A pause counts for all clocks alike.
        let resting = if self.asking == 0 || self.is_paused() {
            BTreeSet::new()
        } else {
            self.resting()
        };
        let changed: Vec<(u64, bool)> = self
            .activations
            .iter()
            .map(|(id, activation)| (*id, resting.contains(id), activation.resting_since.is_some()))
            .filter(|(_, rests, rested)| rests != rested)
            .map(|(id, rests, _)| (id, rests))
            .collect();
        for (id, rests) in changed {
            self.change(id, |activation| {
                if rests {
                    activation.resting_since = Some(time);
                } else {
                    activation.go_on(time);
                }
            });
        }
        let rests = matches!(&self.root, Cursor::Running { child, .. } if resting.contains(child));
        match (rests, self.resting_since) {
            (true, None) => {
                self.timers.retain(|timer| !is_run_deadline(timer));
                self.resting_since = Some(time);
            }
            (false, Some(since)) => {
                self.resting_since = None;
                self.deadline = self.deadline.map(|due| moved(due, since, time));
                let timer = self.deadline.map(|due| Timer {
                    due,
                    owner: None,
                    cause: Cause::Deadline,
                });
                self.timers.extend(timer);
            }
            _ => {}
        }
        self.stood = !resting.is_empty();
    }

    /// Those that wait for people and nothing else.
    fn resting(&self) -> BTreeSet<u64> {
        let mut resting = BTreeSet::new();
        // A task starts after the one around it, so its number is higher.
        for (id, activation) in self.activations.iter().rev() {
            let rests = match &activation.body {
                Body::Asked(_) | Body::Held => true,
                _ if activation.is_ready() => false,
                _ => {
                    let children = activation.children();
                    !children.is_empty() && children.iter().all(|child| resting.contains(child))
                }
            };
            if rests {
                resting.insert(*id);
            }
        }
        resting
    }
}

impl Activation {
    /// The clock goes on.
    fn go_on(&mut self, time: Timestamp) {
        let Some(since) = self.resting_since.take() else {
            return;
        };
        let later = |due: Timestamp| moved(due, since, time);
        self.idle = self.idle.saturating_add(time.duration_since(since));
        self.deadline = self.deadline.map(later);
        if let Body::Try(Try { deadline, .. }) = &mut self.body {
            *deadline = deadline.map(later);
        }
    }
}

fn is_run_deadline(timer: &Timer) -> bool {
    timer.owner.is_none() && timer.cause == Cause::Deadline
}

fn moved(due: Timestamp, since: Timestamp, time: Timestamp) -> Timestamp {
    let rest: SignedDuration = time.duration_since(since);
    due.checked_add(rest).unwrap_or(Timestamp::MAX)
}

//! How much a run may do at once, and how much it may hold.
//!
//! A document comes from anywhere. What one decision may start, record and evaluate is bounded, so that a run cannot keep its
//! engine busy; what a run holds between two decisions is bounded, so that many branches with large values cannot fill the
//! memory. Each bound ends the run with an error that names it.

use std::collections::HashSet;
use std::sync::Arc;

use muster_api::json;
use serde_json::Value;

use super::state::{Activation, Body, Branch, Cursor, Fork, Scope};
use super::{MOST_BYTES_AT_ONCE, MOST_TASKS_AT_ONCE, Run, Status};
use crate::expression;
use crate::journal::{EventKind, Problem, Standard};

/// Steps of expressions (see [`crate::expression`]) that are evaluated between two stimuli: about as many as a second has
/// room for.
pub const MOST_STEPS_AT_ONCE: u64 = 8_000_000;

/// Bytes of values that a run holds while it waits, as JSON.
pub const MOST_BYTES_HELD: usize = 48 << 20;

/// After so many recorded bytes, what the run holds is measured again.
const MEASURED_EVERY: usize = 4 << 20;

/// What one decision has done so far.
pub(super) struct Meter {
    tasks: u64,
    pub(super) bytes: usize,
    /// Bytes that do not count for the bound any more.
    spared: usize,
    /// Steps that the thread had spent before.
    before: u64,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            tasks: 0,
            bytes: 0,
            spared: 0,
            before: expression::spent(),
        }
    }

    /// From here on other bounds hold: the run takes back what it did.
    pub(super) fn begin_again(&mut self) {
        self.tasks = 0;
        self.before = expression::spent();
        self.spared = self.bytes;
    }

    /// The event, or why the run ends if it is too much.
    pub(super) fn admit(&mut self, kind: EventKind) -> Result<EventKind, Problem> {
        self.tasks += u64::from(begins_work(&kind));
        self.bytes += json::length(&kind);
        if self.tasks > MOST_TASKS_AT_ONCE {
            return Err(too_much(&format!(
                "more than {MOST_TASKS_AT_ONCE} tasks ran without waiting for anything outside the run; \
                 if this is not a loop that never ends, let it wait, or do less in one run"
            )));
        }
        if self.bytes - self.spared > MOST_BYTES_AT_ONCE {
            return Err(too_much(&format!(
                "the tasks that ran without waiting for anything outside the run recorded more than {MOST_BYTES_AT_ONCE} bytes; \
                 keep smaller values, or let the run wait or call in between"
            )));
        }
        if expression::spent().wrapping_sub(self.before) > MOST_STEPS_AT_ONCE {
            return Err(too_much(&format!(
                "the expressions evaluated without waiting for anything outside the run needed more than {MOST_STEPS_AT_ONCE} \
                 steps; evaluate less, or let the run wait or call in between"
            )));
        }
        Ok(kind)
    }
}

fn begins_work(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::TaskStarted { .. } | EventKind::TaskSkipped { .. }
    )
}

fn too_much(detail: &str) -> Problem {
    Problem::standard(Standard::Runtime, detail)
}

impl Run {
    /// Why a run ends that holds too much; `bytes` have been recorded since the last question.
    pub(super) fn holds_too_much(&mut self, bytes: usize) -> Option<Problem> {
        self.unmeasured = self.unmeasured.saturating_add(bytes);
        if self.status != Status::Running || self.unmeasured < MEASURED_EVERY {
            return None;
        }
        self.unmeasured = 0;
        let held = self.held();
        (held > MOST_BYTES_HELD).then(|| {
            too_much(&format!(
                "the run holds about {held} bytes of values in its {} tasks; {MOST_BYTES_HELD} is the most, so pass references, \
                 or have fewer branches at once",
                self.activations.len()
            ))
        })
    }

    /// Bytes of all values that the run holds; one that is held in several places counts once.
    fn held(&self) -> usize {
        let mut sum = Sum::default();
        sum.value(&self.input);
        sum.value(&self.context);
        sum.cursor(&self.root);
        for activation in self.activations.values() {
            sum.activation(activation);
        }
        sum.bytes
    }
}

#[derive(Default)]
struct Sum {
    seen: HashSet<*const ()>,
    bytes: usize,
}

impl Sum {
    fn is_new<T>(&mut self, shared: &Arc<T>) -> bool {
        self.seen.insert(Arc::as_ptr(shared).cast())
    }

    fn value(&mut self, value: &Arc<Value>) {
        if self.is_new(value) {
            self.bytes = self.bytes.saturating_add(json::length(&**value));
        }
    }

    fn activation(&mut self, activation: &Activation) {
        self.value(&activation.raw_input);
        self.value(&activation.input);
        let mut scope = activation.scope.as_ref();
        while let Some(inner) = scope.filter(|scope| self.is_new(scope)) {
            let Scope { value, outer, .. } = &**inner;
            self.value(value);
            scope = outer.as_ref();
        }
        match &activation.body {
            Body::Call(request) if self.is_new(request) => {
                self.bytes = self.bytes.saturating_add(json::length(&**request));
            }
            Body::Loop(each) => {
                self.value(&each.items);
                self.value(&each.input);
                if let Some(cursor) = &each.cursor {
                    self.cursor(cursor);
                }
            }
            Body::Fork(Fork::Running(branches)) => {
                for branch in branches {
                    if let Branch::Done(output) = branch {
                        self.value(output);
                    }
                }
            }
            Body::Fork(Fork::Done(output)) => self.value(output),
            Body::Sequence(cursor) => self.cursor(cursor),
            Body::Try(attempt) => self.cursor(&attempt.cursor),
            Body::Extended(extended) => {
                self.cursor(&extended.cursor);
                for output in extended.output.iter().chain(&extended.raw_output) {
                    self.value(output);
                }
            }
            Body::Listen(listening) => {
                for value in listening.items.iter().chain(&listening.events) {
                    self.value(value);
                }
            }
            // Errors are short.
            _ => {}
        }
    }

    fn cursor(&mut self, cursor: &Cursor) {
        match cursor {
            Cursor::Start { input, .. } => self.value(input),
            Cursor::Done(output) => self.value(output),
            Cursor::Running { .. } | Cursor::Failed(_) => {}
        }
    }
}

//! Undoing what a run did: the compensations of its completed tasks, in reverse order, when it fails or is cancelled.
//!
//! The fold remembers each completed task that has a compensation, with what it took, what it yielded and the variables
//! that it saw. When the run is to end otherwise than well, these are taken back one after the other. A compensation is
//! a task like any other: it runs as the only one of a list whose cursor is that of the run, so that its calls,
//! attempts and timeouts are durable as all are. One that fails is reported and stops no other. When all have had their
//! turn, or the time for them is over, the run ends as it would have.
//!
//! What is remembered is bounded in number and bytes; a task beyond that fails before it begins, because what cannot be
//! taken back must not be done.

use std::sync::Arc;

use jiff::Timestamp;
use muster_api::json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::place::Place;
use super::snapshot::shared;
use super::state::{Activation, Cursor, Scope};
use super::{Mismatch, Run};
use crate::document::{Task, TaskList, Workflow};
use crate::journal::{EventKind, Problem, Standard};

/// A run remembers at most so many tasks to compensate.
pub const MOST_COMPENSATIONS: usize = 1_000;

/// A run remembers at most so many bytes for its compensations, as JSON, and one task more.
pub const MOST_COMPENSATION_BYTES: usize = 64 << 20;

/// Name of the variable that describes the task that is compensated.
pub(crate) const VARIABLE: &str = "compensated";

/// A completed task that can be compensated.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Completed {
    pub(super) task: Arc<str>,
    pub(super) activation: u64,
    #[serde(with = "shared::value")]
    input: Arc<Value>,
    #[serde(with = "shared::value")]
    output: Arc<Value>,
    #[serde(with = "shared::scope")]
    scope: Option<Arc<Scope>>,
    place: Place,
}

/// A run that takes back what it did.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Unwinding {
    /// The error that the run fails with afterwards; none if it was cancelled.
    pub(super) cause: Option<Problem>,
    /// What is being compensated; none between two.
    pub(super) current: Option<Completed>,
    pub(super) report: Compensation,
}

/// What became of the compensations of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compensation {
    /// Tasks that were taken back, in that order.
    pub done: Vec<Arc<str>>,
    /// Tasks that could not be taken back, and why.
    pub failed: Vec<(Arc<str>, Problem)>,
    /// Tasks whose turn has not come, or never came.
    pub left: Vec<Arc<str>>,
}

impl Run {
    /// What has become of the compensations, once they have begun.
    #[must_use]
    pub fn compensation(&self) -> Option<Compensation> {
        let unwinding = self.control.unwinding.as_ref()?;
        let mut report = unwinding.report.clone();
        let left = unwinding
            .current
            .iter()
            .chain(self.control.remembered.iter().rev());
        report.left = left.map(|completed| Arc::clone(&completed.task)).collect();
        Some(report)
    }

    /// Why a task that has a compensation may not begin, if it may not.
    pub(super) fn too_much_to_compensate(&self, task: &Task) -> Option<Problem> {
        task.policy.compensation.as_ref()?;
        let control = &self.control;
        let full = control.remembered.len() >= MOST_COMPENSATIONS
            || control.remembered_bytes >= MOST_COMPENSATION_BYTES;
        full.then(|| {
            let detail = format!(
                "a run remembers at most {MOST_COMPENSATIONS} tasks and {MOST_COMPENSATION_BYTES} bytes to compensate; \
                 compensate a task around these, or do less in one run"
            );
            Problem::standard(Standard::Runtime, detail)
        })
    }

    /// Remembers a task that completes, if it has a compensation.
    pub(super) fn remember(
        &mut self,
        task: &Task,
        id: u64,
        activation: &Activation,
        output: &Arc<Value>,
    ) -> Option<Completed> {
        task.policy
            .compensation
            .as_ref()
            .filter(|_| self.control.unwinding.is_none())?;
        self.control.remembered_bytes += json::length(&*activation.input) + json::length(&**output);
        Some(Completed {
            task: Arc::clone(&activation.pointer),
            activation: id,
            input: Arc::clone(&activation.input),
            output: Arc::clone(output),
            scope: activation.scope.clone(),
            place: activation.place.clone(),
        })
    }

    /// The event with which the run ends because of `error`, or with which it begins to take back what it did.
    pub(super) fn fail_run(&self, error: Problem, now: Timestamp) -> EventKind {
        let control = &self.control;
        if let Some(unwinding) = &control.unwinding {
            return match (&unwinding.cause, &control.cancelling) {
                (Some(cause), _) => EventKind::RunFaulted { error: cause.clone() },
                (None, Some(cancelling)) => EventKind::RunCancelled {
                    reason: cancelling.reason.clone(),
                },
                (None, None) => EventKind::RunFaulted { error },
            };
        }
        if !control.remembered.is_empty() {
            let tasks = control.remembered.iter().rev();
            let until = |allowance| now.checked_add(allowance).unwrap_or(Timestamp::MAX);
            return EventKind::RunCompensating {
                tasks: tasks.map(|completed| Arc::clone(&completed.task)).collect(),
                deadline: control.allowance.map(until),
                error: control.cancelling.is_none().then_some(error),
            };
        }
        match &control.cancelling {
            Some(cancelling) => EventKind::RunCancelled {
                reason: cancelling.reason.clone(),
            },
            None => EventKind::RunFaulted { error },
        }
    }

    /// What the run does next while it takes back what it did.
    pub(super) fn next_of_unwinding(&self, unwinding: &Unwinding, now: Timestamp) -> Option<EventKind> {
        let Some(current) = &unwinding.current else {
            return Some(match self.control.remembered.last() {
                Some(next) => EventKind::CompensationStarted {
                    task: Arc::clone(&next.task),
                    activation: next.activation,
                },
                // The error is that of the cause; there is one unless the run was cancelled.
                None => self.fail_run(
                    Problem::standard(Standard::Runtime, "the run could not go on"),
                    now,
                ),
            });
        };
        let (task, activation) = (Arc::clone(&current.task), current.activation);
        match &self.root {
            Cursor::Start { position, input, .. } => self.start(None, *position, input, now),
            Cursor::Running { .. } => None,
            Cursor::Done(_) => Some(EventKind::CompensationCompleted { task, activation }),
            Cursor::Failed(error) => Some(EventKind::CompensationFaulted {
                task,
                activation,
                error: error.as_ref().clone(),
            }),
        }
    }

    /// The run begins to take back what it did: nothing else goes on.
    pub(super) fn unwind(
        &mut self,
        tasks: &[Arc<str>],
        deadline: Option<Timestamp>,
        error: Option<&Problem>,
    ) -> Result<(), Mismatch> {
        let remembered = self
            .control
            .remembered
            .iter()
            .rev()
            .map(|completed| &completed.task);
        if self.control.unwinding.is_some() || !remembered.eq(tasks.iter()) {
            return Err(self.mismatch("these are not the tasks to compensate"));
        }
        self.forget_all();
        self.asking = 0;
        self.spending.open = None;
        self.resting_since = None;
        self.stood = false;
        self.timers.clear();
        self.limit(deadline);
        self.control.unwinding = Some(Unwinding {
            cause: error.cloned(),
            current: None,
            report: Compensation::default(),
        });
        self.between_compensations();
        Ok(())
    }

    fn between_compensations(&mut self) {
        self.root = Cursor::Done(Arc::default());
        self.ready = [None].into();
    }

    pub(super) fn start_compensation(&mut self, task: &str, activation: u64) -> Result<(), Mismatch> {
        let fits = match (&self.control.unwinding, self.control.remembered.last()) {
            (Some(Unwinding { current: None, .. }), Some(next)) => {
                *next.task == *task && next.activation == activation
            }
            _ => false,
        };
        let wrong = self.mismatch(format!("{task} is not what is to be compensated"));
        let next = if fits { self.control.remembered.pop() } else { None };
        let (Some(next), Some(unwinding)) = (next, &mut self.control.unwinding) else {
            return Err(wrong);
        };
        self.root = Cursor::first(&next.output);
        unwinding.current = Some(next);
        self.ready.insert(None);
        Ok(())
    }

    pub(super) fn end_compensation(
        &mut self,
        task: &str,
        activation: u64,
        error: Option<&Problem>,
    ) -> Result<(), Mismatch> {
        let ended = matches!(
            (&self.root, error),
            (Cursor::Done(_), None) | (Cursor::Failed(_), Some(_))
        );
        let wrong = self.mismatch(format!("the compensation of {task} has not ended so"));
        let unwinding = self
            .control
            .unwinding
            .as_mut()
            .filter(|_| ended)
            .ok_or_else(|| wrong.clone())?;
        let current = unwinding
            .current
            .take_if(|current| *current.task == *task && current.activation == activation);
        let current = current.ok_or(wrong)?;
        match error {
            None => unwinding.report.done.push(current.task),
            Some(error) => unwinding.report.failed.push((current.task, error.clone())),
        }
        self.between_compensations();
        Ok(())
    }

    fn compensated(&self) -> Option<&Completed> {
        self.control.unwinding.as_ref()?.current.as_ref()
    }

    /// The tasks that the run itself goes through: its own, or those of the compensation that it runs.
    pub(super) fn own_list<'a>(&self, workflow: &'a Workflow) -> Option<&'a TaskList> {
        match self.compensated() {
            Some(completed) => workflow.task(&completed.task)?.policy.compensation.as_deref(),
            None => Some(&workflow.tasks),
        }
    }

    /// The variables that these tasks see.
    pub(super) fn own_scope(&self) -> Option<Arc<Scope>> {
        let completed = self.compensated()?;
        let name = self
            .definition
            .workflow
            .task(&completed.task)
            .map(|task| task.name.clone());
        let value = json!({
            "name": name,
            "reference": &*completed.task,
            "input": &*completed.input,
            "output": &*completed.output,
        });
        Some(Scope::inside(completed.scope.as_ref(), VARIABLE, Arc::new(value)))
    }

    /// Which execution these tasks belong to.
    pub(super) fn own_place(&self) -> Place {
        let generation = self.control.generation;
        match self.compensated() {
            Some(completed) => completed.place.in_compensation(completed.activation),
            None => Place::default(),
        }
        .in_generation(generation)
    }
}

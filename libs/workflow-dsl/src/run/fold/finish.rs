//! Folding the ends: where the flow goes when a task has completed or failed.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::Mismatch;
use crate::document::{Flow, Kind, Period};
use crate::journal::{Problem, Stage};
use crate::run::effect::after;
use crate::run::state::{Activation, Body, Branch, Cursor, Fork, Function, Loop, Try};
use crate::run::{Run, retry};

impl Run {
    pub(in crate::run) fn complete_task(
        &mut self,
        pointer: &str,
        id: u64,
        output: Option<&Arc<Value>>,
        context: Option<&Arc<Value>>,
        case: Option<&str>,
    ) -> Result<(), Mismatch> {
        let workflow = Arc::clone(&self.definition.workflow);
        let activation = self.expect(id, pointer)?;
        let task = workflow
            .task(pointer)
            .ok_or_else(|| self.mismatch(format!("there is no task {pointer}")))?;
        let known = known_output(activation, &task.kind);
        let output = output
            .cloned()
            .or(known)
            .ok_or_else(|| self.mismatch(format!("{pointer} has no output yet")))?;
        let flow = match (&task.kind, case) {
            (_, None) => task.then,
            (Kind::Switch(cases), Some(name)) => {
                let taken = cases.iter().find(|case| case.name == name);
                taken
                    .ok_or_else(|| self.mismatch(format!("{pointer} has no case '{name}'")))?
                    .then
            }
            _ => return Err(self.mismatch(format!("{pointer} is no switch"))),
        };
        let (parent, position) = (activation.parent, activation.position);
        let lap = match self.cursor(parent) {
            Some(Cursor::Running { lap, .. }) => *lap,
            _ => 0,
        };
        if let Some(context) = context {
            self.context = Arc::clone(context);
        }
        let completed = self
            .remove(id)
            .and_then(|activation| self.remember(task, id, &activation, &output));
        self.control.remembered.extend(completed);
        self.ended(parent, position, lap, output, flow);
        Ok(())
    }

    /// The task at `position` in the list of `owner` has ended well: where the flow goes.
    pub(in crate::run) fn ended(
        &mut self,
        owner: Option<u64>,
        position: usize,
        lap: u32,
        output: Arc<Value>,
        flow: Flow,
    ) {
        if flow == Flow::End {
            self.forget_all();
            self.asking = 0;
            self.timers.retain(|timer| timer.owner.is_none());
            self.ready = [None].into();
            self.root = Cursor::Done(output);
            return;
        }
        let workflow = Arc::clone(&self.definition.workflow);
        let count = self.list(&workflow, owner).map_or(0, |list| list.tasks.len());
        let next = match flow {
            Flow::Continue if position + 1 < count => Some((position + 1, lap)),
            Flow::Task(target) => Some((
                target,
                if target > position {
                    lap
                } else {
                    lap.saturating_add(1)
                },
            )),
            Flow::Continue | Flow::Exit | Flow::End => None,
        };
        if let Some(id) = owner.filter(|id| self.is_fork(*id)) {
            let wins = self.competes(id);
            self.branch_ended(id, position, output, wins);
            return;
        }
        self.change_owner(
            owner,
            |cursor| {
                *cursor = match next {
                    Some((position, lap)) => Cursor::Start {
                        position,
                        input: output,
                        lap,
                    },
                    None => Cursor::Done(output),
                };
            },
            |_| {},
        );
        if let Some(id) = owner {
            if flow == Flow::Exit {
                self.leave_extension(id);
            }
            self.end_iteration(id);
        }
    }

    pub(in crate::run) fn is_fork(&self, id: u64) -> bool {
        self.activations
            .get(&id)
            .is_some_and(|activation| matches!(activation.body, Body::Fork(_)))
    }

    pub(in crate::run) fn competes(&self, id: u64) -> bool {
        let task = self
            .activations
            .get(&id)
            .and_then(|fork| self.definition.workflow.task(&fork.pointer));
        task.is_some_and(|task| matches!(&task.kind, Kind::Fork(fork) if fork.compete))
    }

    /// A branch has ended. In a competition the first that ran wins; one that was skipped counts only if all were.
    pub(in crate::run) fn branch_ended(&mut self, id: u64, position: usize, output: Arc<Value>, wins: bool) {
        let competes = self.competes(id);
        let losers = self
            .activations
            .get(&id)
            .filter(|_| wins)
            .map(Activation::children);
        for loser in losers.into_iter().flatten() {
            self.remove(loser);
        }
        self.change(id, |activation| {
            let Body::Fork(state @ Fork::Running(_)) = &mut activation.body else {
                return;
            };
            if wins {
                *state = Fork::Done(output);
                return;
            }
            let Fork::Running(branches) = state else { return };
            if let Some(branch) = branches.get_mut(position) {
                *branch = Branch::Done(Arc::clone(&output));
            }
            if let Some(outputs) = outputs(branches) {
                *state = Fork::Done(if competes { output } else { outputs });
            }
        });
    }

    /// If `id` is a loop whose iteration has just ended, it is now between two iterations.
    pub(in crate::run) fn end_iteration(&mut self, id: u64) {
        self.change(id, |activation| {
            if let Body::Loop(each) = &mut activation.body
                && let Some(Cursor::Done(output)) = &each.cursor
            {
                each.input = Arc::clone(output);
                each.done += 1;
                each.cursor = None;
            }
        });
    }

    pub(in crate::run) fn fail_task(&mut self, id: u64, error: &Problem) {
        let failed = self.remove(id);
        let (parent, position) = failed.map_or((None, 0), |failed| (failed.parent, failed.position));
        if let Some(fork) = parent
            && self.tolerates(fork)
            && !self.is_interrupted(fork)
        {
            self.change(fork, |activation| {
                if let Body::Fork(state @ Fork::Running(_)) = &mut activation.body {
                    state.branch_failed(position);
                }
            });
            return;
        }
        let error = Arc::new(error.clone());
        if let Some(fork) = parent.filter(|parent| self.is_fork(*parent) && self.is_interrupted(*parent)) {
            self.branch_interrupted(fork, position, &error);
            return;
        }
        let branches = parent
            .and_then(|parent| self.activations.get(&parent))
            .map(Activation::children);
        for sibling in branches.into_iter().flatten() {
            self.remove(sibling);
        }
        if let Some(parent) = parent {
            self.change(parent, |activation| {
                if let Body::Fork(state) = &mut activation.body {
                    *state = Fork::Failed(Arc::clone(&error));
                }
            });
        }
        self.change_owner(parent, |cursor| *cursor = Cursor::Failed(error), |_| {});
    }

    /// Whether one more branch of the fork may fail.
    fn tolerates(&self, id: u64) -> bool {
        let Some(activation) = self.activations.get(&id) else {
            return false;
        };
        let Body::Fork(Fork::Running(branches)) = &activation.body else {
            return false;
        };
        let task = self.definition.workflow.task(&activation.pointer);
        let Some(ratio) = task.and_then(|task| task.policy.min_success) else {
            return false;
        };
        let failed = branches.iter().filter(|branch| matches!(branch, Branch::Failed));
        branches.len() - failed.count() > ratio.of(branches.len())
    }

    pub(in crate::run) fn expect_failed_try(&self, id: u64, pointer: &str) -> Result<u32, Mismatch> {
        match &self.expect(id, pointer)?.body {
            Body::Try(Try {
                attempt,
                caught: None,
                cursor: Cursor::Failed(_),
                ..
            }) => Ok(*attempt),
            _ => Err(self.mismatch(format!("{pointer} has no error to handle"))),
        }
    }

    pub(in crate::run) fn retry_task(
        &mut self,
        pointer: &str,
        id: u64,
        (attempt, due, attempt_deadline): (u32, Timestamp, Option<Timestamp>),
        (error, time): (&Problem, Timestamp),
    ) -> Result<(), Mismatch> {
        if attempt != self.expect_failed_try(id, pointer)?.saturating_add(1) {
            return Err(self.mismatch(format!("attempt {attempt} of {pointer} is out of turn")));
        }
        let workflow = Arc::clone(&self.definition.workflow);
        let limit = workflow.task(pointer).and_then(retry::attempt_limit);
        let limit = limit.and_then(Period::fixed);
        let deadline = attempt_deadline.or_else(|| limit.map(|limit| after(due, limit)));
        self.change(id, |activation| {
            activation.body = Body::Try(Try {
                attempt,
                caught: None,
                cursor: Cursor::first(&activation.input),
                resume: Some(due),
                deadline,
                failed: Some((Arc::new(error.clone()), time)),
            });
        });
        Ok(())
    }

    pub(in crate::run) fn catch_error(
        &mut self,
        pointer: &str,
        id: u64,
        error: &Problem,
    ) -> Result<(), Mismatch> {
        let attempt = self.expect_failed_try(id, pointer)?;
        let workflow = Arc::clone(&self.definition.workflow);
        let handled = match workflow.task(pointer).map(|task| &task.kind) {
            Some(Kind::Try(definition)) => definition.catch.tasks.is_some(),
            _ => return Err(self.mismatch(format!("{pointer} is no try"))),
        };
        self.change(id, |activation| {
            let input = &activation.input;
            let cursor = if handled {
                Cursor::first(input)
            } else {
                Cursor::Done(Arc::clone(input))
            };
            let caught = Some(Arc::new(error.clone()));
            activation.body = Body::Try(Try {
                attempt,
                caught,
                cursor,
                resume: None,
                deadline: None,
                failed: None,
            });
        });
        Ok(())
    }
}

impl Fork {
    /// A branch has failed, and the others go on.
    fn branch_failed(&mut self, position: usize) {
        let Self::Running(branches) = self else { return };
        if let Some(branch) = branches.get_mut(position) {
            *branch = Branch::Failed;
        }
        if let Some(outputs) = outputs(branches) {
            *self = Self::Done(outputs);
        }
    }
}

/// The outputs of the branches in order, null for those that have failed; none while one has not ended.
fn outputs(branches: &[Branch]) -> Option<Arc<Value>> {
    let outputs = branches.iter().map(|branch| match branch {
        Branch::Done(output) => Some(output.as_ref().clone()),
        Branch::Failed => Some(Value::Null),
        Branch::Waiting | Branch::Running(_) | Branch::Stopped => None,
    });
    let outputs: Vec<Value> = outputs.collect::<Option<_>>()?;
    Some(Arc::new(Value::from(outputs)))
}

/// The output that a task has by its state, before any transformation.
pub(in crate::run) fn known_output(activation: &Activation, kind: &Kind) -> Option<Arc<Value>> {
    match (&activation.body, kind) {
        (Body::Extended(extended), _) => match (extended.stage, &extended.cursor) {
            (Stage::Before, Cursor::Done(output)) if extended.left => Some(Arc::clone(output)),
            (Stage::After, Cursor::Done(_)) => extended.output.clone(),
            _ => None,
        },
        (Body::Listen(listening), _) if listening.done && listening.current.is_none() => {
            Some(Arc::new(listening.output()))
        }
        (Body::Wait(_), _) | (Body::Ready, Kind::Switch(_)) => Some(Arc::clone(&activation.input)),
        (
            Body::Loop(Loop {
                cursor: None, input, ..
            }),
            _,
        ) => Some(Arc::clone(input)),
        (
            Body::Sequence(Cursor::Done(output))
            | Body::Function(Function {
                cursor: Cursor::Done(output),
                ..
            })
            | Body::Fork(Fork::Done(output))
            | Body::Try(Try {
                cursor: Cursor::Done(output),
                ..
            }),
            _,
        ) => Some(Arc::clone(output)),
        _ => None,
    }
}

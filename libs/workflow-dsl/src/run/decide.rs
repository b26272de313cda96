//! Deciding: the one event that follows from the state next. Evaluates, and changes nothing.

use std::sync::Arc;

use jiff::Timestamp;
use rand::Rng;
use serde_json::Value;

use super::current::{Current, Fault};
use super::evaluate::{EXTENDED, View, bounded, excess, extended_descriptor, fits};
use super::state::{Activation, Body, Branch, Cause, Cursor, Fork, Loop, Scope, Timer};
use super::{Error, MOST_TASKS, Run, Status, Stimulus, retry};
use crate::document::{For, Kind, Task};
use crate::journal::{EventKind, FORMAT, Own, Problem, Stage, Standard};

/// At most so many tasks start in the compensations of a run, beyond those of the run.
const MOST_TASKS_TO_COMPENSATE: u64 = 100_000;

/// What is evaluated when a task begins.
#[derive(Default)]
struct Opened {
    input: Option<Arc<Value>>,
    deadline: Option<Timestamp>,
    attempt_deadline: Option<Timestamp>,
    extensions: Vec<usize>,
}

impl Run {
    /// The event that a stimulus causes by itself.
    pub(super) fn respond(&self, stimulus: Stimulus, now: Timestamp) -> Result<Option<EventKind>, Error> {
        match (stimulus, self.status) {
            (Stimulus::Start { input }, Status::Pending) if !self.is_paused() => {
                if let Some(excess) = excess(&input) {
                    return Err(Error::Input(excess));
                }
                Ok(Some(self.begin_run(Arc::new(input), now)))
            }
            (
                Stimulus::CallReturned {
                    activation,
                    attempt,
                    result,
                },
                Status::Running,
            ) => Ok(self.call_returned(activation, attempt, result, now)),
            (
                Stimulus::Used {
                    activation,
                    attempt,
                    usage,
                },
                Status::Running,
            ) => Ok(self.used(activation, attempt, usage)),
            (Stimulus::Decide { approval, verdict }, Status::Running) => {
                Ok(self.decided(approval, verdict, now))
            }
            (
                Stimulus::Event {
                    activation,
                    position,
                    event,
                },
                Status::Running,
            ) => Ok(self.hear(activation, (position, &event), now)),
            (Stimulus::Queued { since }, Status::Running) => Ok(self.queued(since)),
            (
                wish @ (Stimulus::Pause { .. }
                | Stimulus::Resume { .. }
                | Stimulus::Cancel { .. }
                | Stimulus::Terminate { .. }),
                _,
            ) => Ok(self.obey(wish)),
            (
                Stimulus::Start { .. }
                | Stimulus::CallReturned { .. }
                | Stimulus::Used { .. }
                | Stimulus::Decide { .. }
                | Stimulus::Event { .. }
                | Stimulus::Queued { .. }
                | Stimulus::Tick,
                _,
            ) => Ok(None),
        }
    }

    fn begin_run(&self, input: Arc<Value>, now: Timestamp) -> EventKind {
        let workflow = &self.definition.workflow;
        let (mut transformed, mut deadline, mut error) = (None, None, None);
        let shaped = fits(workflow.schemas.input.as_ref(), &input, "the run's input").and_then(|()| {
            let shape = |template| {
                self.outermost(&input, now)
                    .shared(template, &input, "the run's transformed input")
            };
            workflow.input.as_ref().map(shape).transpose()
        });
        match shaped {
            Ok(shaped) => {
                let view = View {
                    input: shaped.as_ref().unwrap_or(&input),
                    ..self.outermost(&input, now)
                };
                match view.deadline(workflow.timeout.as_ref(), view.input, now, "the run's timeout") {
                    Ok(due) => deadline = due,
                    Err(problem) => error = Some(problem),
                }
                transformed = shaped;
            }
            Err(problem) => error = Some(problem),
        }
        EventKind::RunStarted {
            format: FORMAT,
            input,
            transformed,
            deadline,
            error,
            hears_from: self.hears_from,
        }
    }

    /// What the workflow's own expressions see.
    pub(super) fn outermost<'a>(&'a self, input: &'a Arc<Value>, now: Timestamp) -> View<'a> {
        View {
            run: self,
            task: None,
            started: self.started,
            raw_input: if self.status == Status::Pending {
                input
            } else {
                &self.input
            },
            input,
            raw_output: None,
            output: None,
            scope: None,
            now,
        }
    }

    fn call_returned(
        &self,
        id: u64,
        attempt: u32,
        result: Result<Value, Problem>,
        now: Timestamp,
    ) -> Option<EventKind> {
        let workflow = Arc::clone(&self.definition.workflow);
        let activation = self.activations.get(&id)?;
        if !matches!(activation.body, Body::Call(_)) || activation.place.attempt() != attempt {
            return None;
        }
        let task = workflow.task(&activation.pointer)?;
        let current = Current {
            id,
            task,
            activation,
            view: View::of(self, task, activation, now),
        };
        Some(match result {
            Ok(value) => match bounded(current.answered(value), "the answer") {
                Ok(output) => current.complete(&output, false, None),
                Err(problem) => current.fault(problem),
            },
            Err(problem) => current.fault(problem.shortened()),
        })
    }

    /// What `owner`, which is ready, does next.
    pub(super) fn next(&self, owner: Option<u64>, now: Timestamp, random: &mut dyn Rng) -> Option<EventKind> {
        let Some(id) = owner else {
            return self.next_of_run(now);
        };
        let activation = self.activations.get(&id)?;
        let task = self.definition.workflow.task(&activation.pointer)?;
        let current = Current {
            id,
            task,
            activation,
            view: View::of(self, task, activation, now),
        };
        match &activation.body {
            Body::Failed(error) => Some(current.fault(error.as_ref().clone())),
            Body::Asking => {
                let gate = task.policy.approval.as_deref()?;
                Some(current.ask(gate).unwrap_or_else(|fault| current.fault(fault)))
            }
            Body::Ready => Some(
                self.hold(&current)
                    .unwrap_or_else(|| current.begin().unwrap_or_else(|fault| current.fault(fault))),
            ),
            Body::Sequence(cursor) => self.follow(&current, cursor, now),
            Body::Extended(extended) => match &extended.cursor {
                Cursor::Done(output) => Some(current.after_extension(extended, output)),
                cursor => self.follow(&current, cursor, now),
            },
            Body::Function(function) => self.follow(&current, &function.cursor, now),
            Body::Loop(each) => self.next_of_loop(&current, each, now),
            Body::Fork(fork) => self.next_of_fork(&current, fork, now),
            Body::Try(attempt) => match &attempt.cursor {
                Cursor::Failed(error) if attempt.caught.is_none() => Some(retry::on_error(
                    self,
                    task,
                    (id, activation),
                    attempt,
                    error,
                    now,
                    random,
                )),
                // Whatever the handler of an interrupted task did, the error goes on.
                Cursor::Done(_) if self.is_interrupted(id) => match &attempt.caught {
                    Some(error) => Some(current.fault(error.as_ref().clone())),
                    None => self.follow(&current, &attempt.cursor, now),
                },
                cursor => self.follow(&current, cursor, now),
            },
            Body::Listen(listening) => self.next_of_listen(&current, listening),
            Body::Asked(_) | Body::Held | Body::Call(_) | Body::Wait(_) => None,
        }
    }

    fn next_of_run(&self, now: Timestamp) -> Option<EventKind> {
        if let Some(unwinding) = &self.control.unwinding {
            return self.next_of_unwinding(unwinding, now);
        }
        match &self.root {
            Cursor::Running { .. } => None,
            Cursor::Failed(error) => Some(self.fail_run(error.as_ref().clone(), now)),
            // A handler has sent the flow to the end.
            Cursor::Start { .. } | Cursor::Done(_) if self.control.cancelling.is_some() => {
                Some(self.fail_run(Problem::standard(Standard::Runtime, "the run was cancelled"), now))
            }
            Cursor::Start { position, input, .. } => self.start(None, *position, input, now),
            Cursor::Done(output) => Some(self.complete_run(output, now)),
        }
    }

    fn complete_run(&self, raw_output: &Arc<Value>, now: Timestamp) -> EventKind {
        let workflow = &self.definition.workflow;
        let shape = |template| {
            self.outermost(raw_output, now)
                .shared(template, raw_output, "the run's output")
        };
        let output = workflow
            .output
            .as_ref()
            .map(shape)
            .transpose()
            .and_then(|shaped| {
                let output = shaped.as_ref().unwrap_or(raw_output);
                fits(workflow.schemas.output.as_ref(), output, "the run's output")?;
                Ok(shaped)
            });
        match output {
            Ok(output) => EventKind::RunCompleted { output },
            Err(error) => self.fail_run(error, now),
        }
    }

    /// Goes on where a cursor is.
    pub(super) fn follow(&self, current: &Current<'_>, cursor: &Cursor, now: Timestamp) -> Option<EventKind> {
        match cursor {
            Cursor::Start { position, input, .. } => self.start(Some(current.id), *position, input, now),
            Cursor::Running { .. } => None,
            Cursor::Done(output) => Some(current.complete(output, true, None)),
            Cursor::Failed(error) => Some(current.fault(error.as_ref().clone())),
        }
    }

    fn next_of_loop(&self, current: &Current<'_>, each: &Loop, now: Timestamp) -> Option<EventKind> {
        if let Some(cursor) = &each.cursor {
            return self.follow(current, cursor, now);
        }
        let Kind::For(definition) = &current.task.kind else {
            return None;
        };
        let goes_on = each.items.get(each.done).is_some()
            && match self.goes_on(current, definition, &each.input) {
                Ok(goes_on) => goes_on,
                Err(fault) => return Some(current.fault(fault)),
            };
        if goes_on && let Err(fault) = self.may_repeat(current.task, each.done as u64) {
            return Some(current.fault(fault));
        }
        Some(if goes_on {
            let (task, activation) = (current.pointer(), current.id);
            EventKind::IterationStarted {
                task,
                activation,
                iteration: each.done as u64,
            }
        } else {
            current.complete(&each.input, true, None)
        })
    }

    /// Whether a task that has been repeated so often may be repeated once more.
    fn may_repeat(&self, task: &Task, repeated: u64) -> Result<(), Fault> {
        let policy = &self.definition.workflow.header.policy;
        match task.policy.max_iterations.or(policy.max_iterations) {
            Some(most) if repeated >= most => {
                let detail = format!(
                    "'maxIterations' lets the loop go {most} times; raise it, or let the loop end before"
                );
                Err(Problem::own(Own::TooManyIterations, detail))
            }
            _ => Ok(()),
        }
    }

    /// Whether `while` lets the loop go on with its next item.
    fn goes_on(&self, current: &Current<'_>, definition: &For, input: &Arc<Value>) -> Result<bool, Fault> {
        let Some(condition) = &definition.condition else {
            return Ok(true);
        };
        let scope = self.scope_inside(Some(current.id));
        let view = View::of(self, current.task, current.activation, current.view.now);
        View {
            scope: scope.as_ref(),
            ..view
        }
        .is_true(condition, input)
    }

    fn next_of_fork(&self, current: &Current<'_>, fork: &Fork, now: Timestamp) -> Option<EventKind> {
        match fork {
            Fork::Running(branches) => {
                let position = branches
                    .iter()
                    .position(|branch| matches!(branch, Branch::Waiting))?;
                self.start(Some(current.id), position, &current.activation.input, now)
            }
            Fork::Done(output) => Some(match excess(output) {
                None => current.complete(output, true, None),
                Some(excess) => current.fault(Problem::standard(
                    Standard::Runtime,
                    format!("the branches' output {excess}"),
                )),
            }),
            Fork::Failed(error) => Some(current.fault(error.as_ref().clone())),
        }
    }

    /// Starts, or skips, the task at `position` of the list that `parent` runs.
    pub(super) fn start(
        &self,
        parent: Option<u64>,
        position: usize,
        raw_input: &Arc<Value>,
        now: Timestamp,
    ) -> Option<EventKind> {
        let task = self
            .list(&self.definition.workflow, parent)?
            .tasks
            .get(position)?;
        let extra = if self.control.unwinding.is_some() {
            MOST_TASKS_TO_COMPENSATE
        } else {
            0
        };
        if self.next_activation >= MOST_TASKS + extra {
            let detail = format!("a run starts at most {MOST_TASKS} tasks; split the work over several runs");
            return Some(self.fail_run(Problem::standard(Standard::Runtime, detail), now));
        }
        let scope = self.scope_inside(parent);
        let view = View {
            run: self,
            task: Some(task),
            started: now,
            raw_input,
            input: raw_input,
            raw_output: None,
            output: None,
            scope: scope.as_ref(),
            now,
        };
        let pointer: Arc<str> = task.pointer.as_str().into();
        let condition = task.condition.as_ref();
        let opened = match condition.map_or(Ok(true), |condition| view.is_true(condition, raw_input)) {
            Ok(false) => {
                return Some(EventKind::TaskSkipped {
                    task: pointer,
                    parent,
                });
            }
            Ok(true) => match self.too_much_to_compensate(task) {
                None => self
                    .may_come_again(parent, task)
                    .and_then(|()| self.open(&view, task)),
                Some(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        let (opened, error) = match opened {
            Ok(opened) => (opened, None),
            Err(problem) => (Opened::default(), Some(problem.at(&task.pointer))),
        };
        Some(EventKind::TaskStarted {
            task: pointer,
            activation: self.next_activation,
            parent,
            iterations: self.place_inside(parent).iterations.to_vec(),
            input: opened.input,
            deadline: opened.deadline,
            attempt_deadline: opened.attempt_deadline,
            extensions: opened.extensions,
            error,
        })
    }

    /// Whether the flow may come to the task once more, if it has gone back in its list.
    fn may_come_again(&self, parent: Option<u64>, task: &Task) -> Result<(), Problem> {
        match self.cursor(parent) {
            // A loop counts its own iterations.
            Some(Cursor::Start { lap, .. }) if !matches!(task.kind, Kind::For(_)) => {
                self.may_repeat(task, u64::from(*lap))
            }
            _ => Ok(()),
        }
    }

    /// What is evaluated when a task begins, in the order of the language: the raw input fits its schema, is transformed, and
    /// everything else sees what came of it.
    fn open(&self, view: &View<'_>, task: &Task) -> Result<Opened, Problem> {
        let raw_input = view.raw_input;
        fits(task.schemas.input.as_ref(), raw_input, "the input")?;
        let shape = |template| view.shared(template, raw_input, "the input");
        let transformed = task.input.as_ref().map(shape).transpose()?;
        let input = transformed.as_ref().unwrap_or(raw_input);
        let view = View { input, ..*view };
        let extensions = self.applicable(&view, task)?;
        let workflow = &self.definition.workflow;
        let extended_first = extensions
            .iter()
            .any(|index| workflow.extension_tasks(*index, Stage::Before).is_some());
        Ok(Opened {
            deadline: view.deadline(task.timeout.as_ref(), input, view.now, "the timeout")?,
            attempt_deadline: if extended_first || task.policy.approval.is_some() {
                None
            } else {
                retry::first_deadline(&view, task, input)?
            },
            extensions,
            input: transformed,
        })
    }

    /// The extensions of a task whose `when` is true.
    fn applicable(&self, view: &View<'_>, task: &Task) -> Result<Vec<usize>, Problem> {
        let mut applicable = Vec::new();
        for index in &task.extensions {
            let Some(extension) = self.definition.workflow.extensions.get(*index) else {
                continue;
            };
            let applies = match &extension.when {
                None => true,
                Some(when) => {
                    let task = extended_descriptor(self, task, view.raw_input, None, view.started);
                    let scope = Scope::inside(None, EXTENDED, Arc::new(task));
                    let view = View {
                        scope: Some(&scope),
                        ..*view
                    };
                    view.is_true(when, view.input)?
                }
            };
            if applies {
                applicable.push(*index);
            }
        }
        Ok(applicable)
    }

    /// What follows from a timer that is due.
    pub(super) fn fire(&self, timer: Timer, now: Timestamp, random: &mut dyn Rng) -> Option<EventKind> {
        let Some(id) = timer.owner else {
            if timer.cause != Cause::Deadline {
                return self.budget_overdue(timer.cause);
            }
            let detail = format!(
                "the run did not end within its timeout, by {}",
                muster_api::time::rfc3339(timer.due)
            );
            return Some(self.fail_run(Problem::standard(Standard::Timeout, detail), now));
        };
        let activation = self.activations.get(&id)?;
        match timer.cause {
            Cause::ApprovalDeadline | Cause::Escalation => self.overdue(id, activation, timer.cause),
            // That is the whole run's.
            Cause::Renewal => None,
            Cause::Deadline => Some(self.time_out(id, activation, timer.due)),
            Cause::Retry => self.next(timer.owner, now, random),
            Cause::Attempt => {
                let child = activation.children().first().copied()?;
                Some(self.time_out(child, self.activations.get(&child)?, timer.due))
            }
            Cause::Wait => {
                let task = self.definition.workflow.task(&activation.pointer)?;
                let current = Current {
                    id,
                    task,
                    activation,
                    view: View::of(self, task, activation, now),
                };
                Some(current.complete(&activation.input, true, None))
            }
        }
    }

    fn time_out(&self, id: u64, activation: &Activation, due: Timestamp) -> EventKind {
        let task = Arc::clone(&activation.pointer);
        let detail = format!(
            "{task} did not end within its timeout, by {}",
            muster_api::time::rfc3339(due)
        );
        let error = Problem::standard(Standard::Timeout, detail).at(&task);
        EventKind::TaskFaulted {
            task,
            activation: id,
            error,
        }
    }
}

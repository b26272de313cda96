//! Folding: how each event changes the state. Evaluates nothing.
//!
//! An event that does not fit the state is refused before anything changes: a journal that was written for another
//! definition, or was damaged, must not turn into a run that goes on from a state it was never in.

mod extend;
mod finish;
mod listen;
mod start;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::state::{Activation, Body, Branch, Cause, Cursor, Fork, Loop, Timer, Try};
use super::{Run, Status};
use crate::document::{Flow, Kind, TaskList, Workflow};
use crate::hearing::Taken;
use crate::journal::{Event, EventKind, FORMAT, Problem};
pub(super) use finish::known_output;

/// An event that does not fit the run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {index} does not fit the run: {message}")]
pub struct Mismatch {
    /// Index of the event.
    pub index: u64,
    /// Why.
    pub message: String,
}

/// The place in a list where a task is to be started.
pub(in crate::run) struct Opening {
    pub(in crate::run) position: usize,
    pub(in crate::run) lap: u32,
    pub(in crate::run) input: Arc<Value>,
}

/// What an event says about a task that begins, besides where.
pub(in crate::run) struct Start {
    pub(in crate::run) input: Arc<Value>,
    pub(in crate::run) deadline: Option<Timestamp>,
    pub(in crate::run) attempt_deadline: Option<Timestamp>,
    pub(in crate::run) extensions: Arc<[usize]>,
}

impl Run {
    pub(super) fn mismatch(&self, message: impl Into<String>) -> Mismatch {
        Mismatch {
            index: self.next_index,
            message: message.into(),
        }
    }

    /// Folds one recorded event into the run.
    ///
    /// # Errors
    /// If the event does not fit; the run is then unchanged.
    pub fn apply(&mut self, event: &Event) -> Result<(), Mismatch> {
        // What does not count any more stands between a run's last event and the one that says so.
        let skips = matches!(event.kind, EventKind::RunRetried { .. }) && event.index > self.next_index;
        if event.index != self.next_index && !skips {
            return Err(self.mismatch(format!("it has index {}", event.index)));
        }
        if event.time < self.time && self.next_index > 0 {
            return Err(self.mismatch(format!(
                "its time {} is before that of the last event",
                event.time
            )));
        }
        let fits = match (self.status, &event.kind) {
            (Status::Pending, EventKind::RunStarted { .. }) => !self.is_paused(),
            (
                Status::Pending | Status::Running,
                EventKind::RunPaused { .. }
                | EventKind::RunResumed { .. }
                | EventKind::RunCancelled { .. }
                | EventKind::RunFaulted { .. }
                | EventKind::RunRetried { .. }
                | EventKind::RunForked { .. },
            ) => true,
            (Status::Running, kind) => !matches!(kind, EventKind::RunStarted { .. }),
            _ => false,
        };
        if !fits {
            return Err(self.mismatch(format!(
                "'{}' cannot follow while the run is {:?}",
                event.name(),
                self.status
            )));
        }
        self.fold(event)?;
        self.settle_clocks(event.time);
        self.next_index += 1;
        self.time = event.time;
        Ok(())
    }

    fn fold(&mut self, event: &Event) -> Result<(), Mismatch> {
        let time = event.time;
        match &event.kind {
            EventKind::RunStarted {
                format,
                input,
                transformed,
                deadline,
                error,
                hears_from,
            } => {
                if *format > FORMAT {
                    let message =
                        format!("its journal has format {format}; this version reads up to {FORMAT}");
                    return Err(self.mismatch(message));
                }
                self.hears_from = *hears_from;
                self.begin(
                    time,
                    input,
                    transformed.as_ref().unwrap_or(input),
                    *deadline,
                    error.as_ref(),
                );
                Ok(())
            }
            EventKind::TaskStarted {
                task,
                activation,
                parent,
                input,
                deadline,
                attempt_deadline,
                extensions,
                error,
                ..
            } => {
                let opening = self.opening(*parent, task)?;
                if *activation != self.next_activation {
                    return Err(self.mismatch(format!("activation {activation} is out of turn")));
                }
                let input = input.as_ref().unwrap_or(&opening.input).clone();
                let known = self
                    .definition
                    .workflow
                    .task(task)
                    .map_or(&[] as &[usize], |task| &task.extensions);
                if extensions.iter().any(|index| !known.contains(index)) {
                    return Err(self.mismatch(format!("{task} has no such extension")));
                }
                let start = Start {
                    input,
                    deadline: *deadline,
                    attempt_deadline: *attempt_deadline,
                    extensions: extensions.as_slice().into(),
                };
                self.start_task(task, *parent, opening, start, error.as_ref(), time)
            }
            EventKind::ExtensionStarted {
                task,
                activation,
                extension,
                stage,
                output,
                raw,
                context,
                case,
            } => self.start_extension(
                (task, *activation),
                (*extension, *stage),
                (output.as_ref(), raw.as_ref()),
                context.as_ref(),
                case.as_deref(),
            ),
            EventKind::ExtensionsEnded {
                task,
                activation,
                attempt_deadline,
            } => self.end_extensions(task, *activation, *attempt_deadline, time),
            EventKind::TaskSkipped { task, parent } => {
                let opening = self.opening(*parent, task)?;
                match *parent {
                    Some(id) if self.is_fork(id) => {
                        self.branch_ended(id, opening.position, opening.input, false)
                    }
                    parent => self.ended(
                        parent,
                        opening.position,
                        opening.lap,
                        opening.input,
                        Flow::Continue,
                    ),
                }
                Ok(())
            }
            EventKind::TaskCompleted {
                task,
                activation,
                output,
                context,
                case,
            } => self.complete_task(
                task,
                *activation,
                output.as_ref(),
                context.as_ref(),
                case.as_deref(),
            ),
            EventKind::TaskFaulted {
                task,
                activation,
                error,
            } => {
                self.expect(*activation, task)?;
                self.fail_task(*activation, error);
                Ok(())
            }
            EventKind::TaskRetried {
                task,
                activation,
                attempt,
                due,
                attempt_deadline,
                error,
            } => {
                let next = (*attempt, *due, *attempt_deadline);
                self.retry_task(task, *activation, next, (error, time))
            }
            EventKind::TaskCaught {
                task,
                activation,
                error,
            } => self.catch_error(task, *activation, error),
            EventKind::CallStarted {
                task,
                activation,
                request,
            } => {
                self.expect_ready(*activation, task, |kind| {
                    matches!(kind, Kind::Call(_) | Kind::Emit(_) | Kind::Run(_))
                })?;
                let request = Arc::new(request.clone());
                self.change(*activation, |activation| activation.body = Body::Call(request));
                Ok(())
            }
            EventKind::ApprovalOpened {
                task,
                activation,
                approval,
                question,
                budget,
            } => {
                let asked = (question, budget.as_ref());
                self.open_approval((task, *activation), *approval, asked, time)
            }
            EventKind::CallHeld { task, activation } => self.hold_call(task, *activation),
            EventKind::UsageReported {
                task,
                activation,
                usage,
                ..
            } => self.count_usage(task, *activation, *usage, time),
            EventKind::ApprovalEscalated {
                task,
                activation,
                approval,
            } => self.escalate(task, *activation, *approval),
            EventKind::ApprovalDecided {
                task,
                activation,
                approval,
                verdict,
                attempt_deadline,
                error,
            } => {
                let which = (&**task, *activation, *approval);
                self.close_approval(which, verdict, *attempt_deadline, error.as_ref(), time)
            }
            EventKind::ApprovalExpired {
                task,
                activation,
                approval,
            } => self.expire(task, *activation, *approval),
            EventKind::BudgetRenewed { task, approval, .. } => self.renew_budget(task, *approval),
            EventKind::FunctionStarted {
                task,
                activation,
                function,
                input,
            } => self.start_function(task, *activation, function, input),
            EventKind::WaitStarted {
                task,
                activation,
                until,
            } => {
                self.expect_ready(*activation, task, |kind| matches!(kind, Kind::Wait(_)))?;
                self.change(*activation, |activation| activation.body = Body::Wait(*until));
                Ok(())
            }
            EventKind::ListenStarted {
                task,
                activation,
                from,
                expect,
            } => self.start_listening(task, *activation, *from, expect),
            EventKind::EventConsumed {
                task,
                activation,
                position,
                filter,
                until,
                item,
                correlations,
                done,
                event: _,
            } => {
                let taken = Taken {
                    filter: *filter,
                    until: *until,
                    learned: correlations.clone(),
                };
                self.consume(task, *activation, (*position, &taken), item.as_ref(), *done)
            }
            EventKind::ItemCompleted {
                task,
                activation,
                item,
                output,
                context,
                done,
            } => self.complete_item(
                task,
                (*activation, *item),
                output.as_ref(),
                context.as_ref(),
                *done,
            ),
            EventKind::LoopStarted {
                task,
                activation,
                items,
            } => {
                self.expect_ready(*activation, task, |kind| matches!(kind, Kind::For(_)))?;
                if !items.is_array() {
                    return Err(self.mismatch("the items of a loop are an array"));
                }
                self.change(*activation, |activation| {
                    let (items, input) = (Arc::clone(items), Arc::clone(&activation.input));
                    activation.body = Body::Loop(Loop {
                        items,
                        done: 0,
                        input,
                        cursor: None,
                    });
                });
                Ok(())
            }
            EventKind::IterationStarted {
                task,
                activation,
                iteration,
            } => self.start_iteration(task, *activation, *iteration),
            EventKind::RunCompleted { output } => {
                let Cursor::Done(raw) = &self.root else {
                    return Err(self.mismatch("its tasks have not ended"));
                };
                self.output = Some(output.as_ref().unwrap_or(raw).clone());
                self.end(Status::Completed);
                Ok(())
            }
            EventKind::RunFaulted { error } => {
                self.error = Some(error.clone());
                self.end(Status::Faulted);
                Ok(())
            }
            EventKind::RunCancelled { .. } => {
                self.end(Status::Cancelled);
                Ok(())
            }
            _ => self.fold_control(event),
        }
    }

    /// Folds what others want of the run, and what follows from it.
    fn fold_control(&mut self, event: &Event) -> Result<(), Mismatch> {
        let time = event.time;
        match &event.kind {
            EventKind::RunPaused { by, reason } => self.pause(by, reason, time),
            EventKind::RunResumed { .. } => self.resume(time),
            EventKind::RunQueued { since } => {
                self.stand_in_line(*since, time);
                Ok(())
            }
            EventKind::RunCancelling { by, reason } => self.interrupt(by, reason, time),
            EventKind::RunCompensating {
                tasks,
                deadline,
                error,
            } => self.unwind(tasks, *deadline, error.as_ref()),
            EventKind::CompensationStarted { task, activation } => self.start_compensation(task, *activation),
            EventKind::CompensationCompleted { task, activation } => {
                self.end_compensation(task, *activation, None)
            }
            EventKind::CompensationFaulted {
                task,
                activation,
                error,
            } => self.end_compensation(task, *activation, Some(error)),
            EventKind::RunRetried {
                to,
                generation,
                next_activation,
                asks,
                ..
            } => self.begin_again((*to, *generation), *next_activation, *asks, event),
            EventKind::RunForked {
                task, parent, input, ..
            } => self.branch_off(task.as_deref(), *parent, input.as_ref(), time),
            _ => Err(self.mismatch(format!("'{}' is not known", event.name()))),
        }
    }

    fn begin(
        &mut self,
        time: Timestamp,
        input: &Arc<Value>,
        transformed: &Arc<Value>,
        deadline: Option<Timestamp>,
        error: Option<&Problem>,
    ) {
        self.status = Status::Running;
        self.began = true;
        self.started = time;
        self.deadline = deadline;
        self.control.allowance = deadline.map(|due| due.duration_since(time));
        self.input = Arc::clone(input);
        self.context = Arc::clone(transformed);
        let cursor = error.map(|error| Cursor::Failed(Arc::new(error.clone())));
        self.root = cursor.unwrap_or_else(|| Cursor::first(transformed));
        self.timers.extend(deadline.map(|due| Timer {
            due,
            owner: None,
            cause: Cause::Deadline,
        }));
        self.ready.insert(None);
    }

    /// Forgets all that is in progress.
    fn end(&mut self, status: Status) {
        self.status = status;
        self.forget_all();
        self.asking = 0;
        self.spending.open = None;
        self.ready.clear();
        self.timers.clear();
    }

    /// Where in the list of `parent` the task at `pointer` is to be started.
    fn opening(&self, parent: Option<u64>, pointer: &str) -> Result<Opening, Mismatch> {
        let workflow = &self.definition.workflow;
        let wrong = || self.mismatch(format!("{pointer} is not what is to be started"));
        if let Some(id) = parent {
            let activation = self.activations.get(&id).ok_or_else(wrong)?;
            if let (Body::Fork(Fork::Running(branches)), Some(task)) =
                (&activation.body, workflow.task(&activation.pointer))
            {
                let Kind::Fork(fork) = &task.kind else {
                    return Err(wrong());
                };
                let position = fork
                    .branches
                    .tasks
                    .iter()
                    .position(|task| task.pointer == pointer)
                    .ok_or_else(wrong)?;
                let waiting = matches!(branches.get(position), Some(Branch::Waiting));
                let input = Arc::clone(&activation.input);
                return if waiting {
                    Ok(Opening {
                        position,
                        lap: 0,
                        input,
                    })
                } else {
                    Err(wrong())
                };
            }
        }
        let Some(Cursor::Start { position, input, lap }) = self.cursor(parent) else {
            return Err(wrong());
        };
        let list = self.list(workflow, parent).ok_or_else(wrong)?;
        match list.tasks.get(*position) {
            Some(task) if task.pointer == pointer => Ok(Opening {
                position: *position,
                lap: *lap,
                input: Arc::clone(input),
            }),
            _ => Err(wrong()),
        }
    }

    /// The list that `owner` is running, or the workflow's.
    pub(super) fn list<'a>(&self, workflow: &'a Workflow, owner: Option<u64>) -> Option<&'a TaskList> {
        let Some(id) = owner else {
            return self.own_list(workflow);
        };
        let activation = self.activations.get(&id)?;
        if let Body::Extended(extended) = &activation.body {
            return workflow.extension_tasks(extended.extension, extended.stage);
        }
        if let Body::Function(called) = &activation.body {
            return workflow.function(&called.name).map(|function| &function.tasks);
        }
        match &workflow.task(&activation.pointer)?.kind {
            Kind::Do(tasks) => Some(tasks),
            Kind::For(each) => Some(&each.tasks),
            Kind::Fork(fork) => Some(&fork.branches),
            Kind::Try(attempt) => match &activation.body {
                Body::Try(Try { caught: Some(_), .. }) => attempt.catch.tasks.as_ref(),
                _ => Some(&attempt.tasks),
            },
            Kind::Listen(listen) => listen.each.as_ref()?.tasks.as_ref(),
            Kind::Set(_)
            | Kind::Call(_)
            | Kind::Switch(_)
            | Kind::Raise(_)
            | Kind::Wait(_)
            | Kind::Emit(_)
            | Kind::Run(_) => None,
        }
    }

    pub(in crate::run) fn cursor(&self, owner: Option<u64>) -> Option<&Cursor> {
        let Some(id) = owner else { return Some(&self.root) };
        match &self.activations.get(&id)?.body {
            Body::Sequence(cursor) => Some(cursor),
            Body::Extended(extended) => Some(&extended.cursor),
            Body::Function(function) => Some(&function.cursor),
            Body::Loop(each) => each.cursor.as_ref(),
            Body::Try(attempt) => Some(&attempt.cursor),
            Body::Listen(listening) => listening.current.as_ref().map(|item| &item.cursor),
            Body::Ready
            | Body::Failed(_)
            | Body::Asking
            | Body::Asked(_)
            | Body::Held
            | Body::Call(_)
            | Body::Wait(_)
            | Body::Fork(_) => None,
        }
    }

    pub(in crate::run) fn expect(&self, id: u64, pointer: &str) -> Result<&Activation, Mismatch> {
        match self.activations.get(&id) {
            Some(activation) if *activation.pointer == *pointer => Ok(activation),
            _ => Err(self.mismatch(format!("activation {id} of {pointer} is not in progress"))),
        }
    }

    pub(in crate::run) fn expect_ready(
        &self,
        id: u64,
        pointer: &str,
        fits: fn(&Kind) -> bool,
    ) -> Result<(), Mismatch> {
        let activation = self.expect(id, pointer)?;
        let task = self.definition.workflow.task(pointer);
        if matches!(activation.body, Body::Ready) && task.is_some_and(|task| fits(&task.kind)) {
            return Ok(());
        }
        Err(self.mismatch(format!("{pointer} is not at that point")))
    }
}

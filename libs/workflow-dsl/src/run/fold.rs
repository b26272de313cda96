//! Folding: how each event changes the state. Evaluates nothing.
//!
//! An event that does not fit the state is refused before anything changes: a journal that was written for another
//! definition, or was damaged, must not turn into a run that goes on from a state it was never in.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::effect::{self, CallRequest};
use super::place::Place;
use super::state::{Activation, Body, Branch, Cause, Cursor, Fork, Loop, Scope, Timer, Try};
use super::{Run, Status, retry};
use crate::document::{Flow, Kind, Task, TaskList, Workflow};
use crate::journal::{Event, EventKind, FORMAT, Problem};

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
struct Opening {
    position: usize,
    lap: u32,
    input: Arc<Value>,
}

impl Run {
    pub(super) fn mismatch(&self, message: impl Into<String>) -> Mismatch {
        Mismatch { index: self.next_index, message: message.into() }
    }

    /// Folds one recorded event into the run.
    ///
    /// # Errors
    /// If the event does not fit; the run is then unchanged.
    pub fn apply(&mut self, event: &Event) -> Result<(), Mismatch> {
        if event.index != self.next_index {
            return Err(self.mismatch(format!("it has index {}", event.index)));
        }
        if event.time < self.time && self.next_index > 0 {
            return Err(self.mismatch(format!("its time {} is before that of the last event", event.time)));
        }
        let expected = if self.next_index == 0 { Status::Pending } else { Status::Running };
        let begins = matches!(event.kind, EventKind::RunStarted { .. });
        if self.status != expected || begins != (expected == Status::Pending) {
            return Err(self.mismatch(format!("'{}' cannot follow while the run is {:?}", event.name(), self.status)));
        }
        self.fold(event)?;
        self.next_index += 1;
        self.time = event.time;
        Ok(())
    }

    fn fold(&mut self, event: &Event) -> Result<(), Mismatch> {
        let time = event.time;
        match &event.kind {
            EventKind::RunStarted { format, input, transformed, deadline, error } => {
                if *format > FORMAT {
                    let message = format!("its journal has format {format}; this version reads up to {FORMAT}");
                    return Err(self.mismatch(message));
                }
                self.begin(time, input, transformed.as_ref().unwrap_or(input), *deadline, error.as_ref());
                Ok(())
            }
            EventKind::TaskStarted { task, activation, parent, input, deadline, error, .. } => {
                let opening = self.opening(*parent, task)?;
                if *activation != self.next_activation {
                    return Err(self.mismatch(format!("activation {activation} is out of turn")));
                }
                let input = input.as_ref().unwrap_or(&opening.input).clone();
                self.start_task(task, *parent, opening, input, *deadline, error.as_ref(), time)
            }
            EventKind::TaskSkipped { task, parent } => {
                let opening = self.opening(*parent, task)?;
                match *parent {
                    Some(id) if self.is_fork(id) => self.branch_ended(id, opening.position, opening.input, false),
                    parent => self.ended(parent, opening.position, opening.lap, opening.input, Flow::Continue),
                }
                Ok(())
            }
            EventKind::TaskCompleted { task, activation, output, context, case } => {
                self.complete_task(task, *activation, output.as_ref(), context.as_ref(), case.as_deref())
            }
            EventKind::TaskFaulted { task, activation, error } => {
                self.expect(*activation, task)?;
                self.fail_task(*activation, error);
                Ok(())
            }
            EventKind::TaskRetried { task, activation, attempt, due, error: _ } => {
                self.retry_task(task, *activation, *attempt, *due)
            }
            EventKind::TaskCaught { task, activation, error } => self.catch_error(task, *activation, error),
            EventKind::CallStarted { task, activation, endpoint, method, parameters } => {
                self.expect_ready(*activation, task, |kind| matches!(kind, Kind::Call(_)))?;
                let request = CallRequest::recorded(endpoint, method, parameters);
                let request = request.map_err(|message| self.mismatch(message))?;
                self.change(*activation, |activation| activation.body = Body::Call(Arc::new(request)));
                Ok(())
            }
            EventKind::WaitStarted { task, activation, until } => {
                self.expect_ready(*activation, task, |kind| matches!(kind, Kind::Wait(_)))?;
                self.change(*activation, |activation| activation.body = Body::Wait(*until));
                Ok(())
            }
            EventKind::LoopStarted { task, activation, items } => {
                self.expect_ready(*activation, task, |kind| matches!(kind, Kind::For(_)))?;
                if !items.is_array() {
                    return Err(self.mismatch("the items of a loop are an array"));
                }
                self.change(*activation, |activation| {
                    let (items, input) = (Arc::clone(items), Arc::clone(&activation.input));
                    activation.body = Body::Loop(Loop { items, done: 0, input, cursor: None });
                });
                Ok(())
            }
            EventKind::IterationStarted { task, activation, iteration } => {
                self.start_iteration(task, *activation, *iteration)
            }
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
        self.started = time;
        self.deadline = deadline;
        self.input = Arc::clone(input);
        self.context = Arc::clone(transformed);
        let cursor = error.map(|error| Cursor::Failed(Arc::new(error.clone())));
        self.root = cursor.unwrap_or_else(|| Cursor::first(transformed));
        self.timers.extend(deadline.map(|due| Timer { due, owner: None, cause: Cause::Deadline }));
        self.ready.insert(None);
    }

    /// Forgets all that is in progress.
    fn end(&mut self, status: Status) {
        self.status = status;
        self.activations.clear();
        self.ready.clear();
        self.timers.clear();
    }

    /// Where in the list of `parent` the task at `pointer` is to be started.
    fn opening(&self, parent: Option<u64>, pointer: &str) -> Result<Opening, Mismatch> {
        let workflow = &self.definition.workflow;
        let wrong = || self.mismatch(format!("{pointer} is not what is to be started"));
        if let Some(id) = parent {
            let activation = self.activations.get(&id).ok_or_else(wrong)?;
            if let (Body::Fork(Fork::Running(branches)), Some(task)) = (&activation.body, workflow.task(&activation.pointer)) {
                let Kind::Fork(fork) = &task.kind else { return Err(wrong()) };
                let position = fork.branches.tasks.iter().position(|task| task.pointer == pointer).ok_or_else(wrong)?;
                let waiting = matches!(branches.get(position), Some(Branch::Waiting));
                let input = Arc::clone(&activation.input);
                return if waiting { Ok(Opening { position, lap: 0, input }) } else { Err(wrong()) };
            }
        }
        let Some(Cursor::Start { position, input, lap }) = self.cursor(parent) else { return Err(wrong()) };
        let list = self.list(workflow, parent).ok_or_else(wrong)?;
        match list.tasks.get(*position) {
            Some(task) if task.pointer == pointer => {
                Ok(Opening { position: *position, lap: *lap, input: Arc::clone(input) })
            }
            _ => Err(wrong()),
        }
    }

    /// The list that `owner` is running, or the workflow's.
    pub(super) fn list<'a>(&self, workflow: &'a Workflow, owner: Option<u64>) -> Option<&'a TaskList> {
        let Some(id) = owner else { return Some(&workflow.tasks) };
        let activation = self.activations.get(&id)?;
        match &workflow.task(&activation.pointer)?.kind {
            Kind::Do(tasks) => Some(tasks),
            Kind::For(each) => Some(&each.tasks),
            Kind::Fork(fork) => Some(&fork.branches),
            Kind::Try(attempt) => match &activation.body {
                Body::Try(Try { caught: Some(_), .. }) => attempt.catch.tasks.as_ref(),
                _ => Some(&attempt.tasks),
            },
            Kind::Set(_) | Kind::Call(_) | Kind::Switch(_) | Kind::Raise(_) | Kind::Wait(_) => None,
        }
    }

    fn cursor(&self, owner: Option<u64>) -> Option<&Cursor> {
        let Some(id) = owner else { return Some(&self.root) };
        match &self.activations.get(&id)?.body {
            Body::Sequence(cursor) => Some(cursor),
            Body::Loop(each) => each.cursor.as_ref(),
            Body::Try(attempt) => Some(&attempt.cursor),
            Body::Ready | Body::Failed(_) | Body::Call(_) | Body::Wait(_) | Body::Fork(_) => None,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "they are the fields of one event")]
    fn start_task(
        &mut self,
        pointer: &Arc<str>,
        parent: Option<u64>,
        opening: Opening,
        input: Arc<Value>,
        deadline: Option<Timestamp>,
        error: Option<&Problem>,
        time: Timestamp,
    ) -> Result<(), Mismatch> {
        let workflow = Arc::clone(&self.definition.workflow);
        let task = workflow.task(pointer).ok_or_else(|| self.mismatch(format!("there is no task {pointer}")))?;
        let id = self.next_activation;
        let Opening { position, lap, input: raw_input } = opening;
        let activation = Activation {
            parent,
            position,
            pointer: Arc::clone(pointer),
            body: match error {
                Some(error) => Body::Failed(Arc::new(error.clone())),
                None => first_body(task, &input, time),
            },
            raw_input,
            input,
            started: time,
            deadline,
            scope: self.scope_inside(parent),
            place: self.place_inside(parent).in_lap(lap),
        };
        self.next_activation += 1;
        self.activations.insert(id, activation);
        self.track(id);
        self.change_owner(parent, |cursor| *cursor = Cursor::Running { child: id, lap }, |branches| {
            if let Some(branch) = branches.get_mut(position) {
                *branch = Branch::Running(id);
            }
        });
        Ok(())
    }

    /// The variables that the tasks inside `owner` see.
    pub(super) fn scope_inside(&self, owner: Option<u64>) -> Option<Arc<Scope>> {
        let activation = self.activations.get(&owner?)?;
        let outer = activation.scope.as_ref();
        match (&activation.body, self.definition.workflow.task(&activation.pointer).map(|task| &task.kind)) {
            (Body::Loop(each), Some(Kind::For(definition))) => {
                let item = each.items.get(each.done).cloned().unwrap_or(Value::Null);
                let with_item = Scope::inside(outer, &definition.each, Arc::new(item));
                Some(Scope::inside(Some(&with_item), &definition.at, Arc::new(Value::from(each.done))))
            }
            (Body::Try(Try { caught: Some(error), .. }), Some(Kind::Try(definition))) => {
                Some(Scope::inside(outer, &definition.catch.variable, Arc::new(error.to_value())))
            }
            _ => outer.cloned(),
        }
    }

    /// Which execution the tasks inside `owner` belong to.
    pub(super) fn place_inside(&self, owner: Option<u64>) -> Place {
        let Some(activation) = owner.and_then(|id| self.activations.get(&id)) else { return Place::default() };
        match &activation.body {
            Body::Loop(each) => activation.place.in_iteration(each.done),
            Body::Try(Try { caught: None, attempt, .. }) => activation.place.in_attempt(*attempt),
            _ => activation.place.clone(),
        }
    }

    fn expect(&self, id: u64, pointer: &str) -> Result<&Activation, Mismatch> {
        match self.activations.get(&id) {
            Some(activation) if *activation.pointer == *pointer => Ok(activation),
            _ => Err(self.mismatch(format!("activation {id} of {pointer} is not in progress"))),
        }
    }

    fn expect_ready(&self, id: u64, pointer: &str, fits: fn(&Kind) -> bool) -> Result<(), Mismatch> {
        let activation = self.expect(id, pointer)?;
        let task = self.definition.workflow.task(pointer);
        if matches!(activation.body, Body::Ready) && task.is_some_and(|task| fits(&task.kind)) {
            return Ok(());
        }
        Err(self.mismatch(format!("{pointer} is not at that point")))
    }

    fn complete_task(
        &mut self,
        pointer: &str,
        id: u64,
        output: Option<&Arc<Value>>,
        context: Option<&Arc<Value>>,
        case: Option<&str>,
    ) -> Result<(), Mismatch> {
        let workflow = Arc::clone(&self.definition.workflow);
        let activation = self.expect(id, pointer)?;
        let task = workflow.task(pointer).ok_or_else(|| self.mismatch(format!("there is no task {pointer}")))?;
        let known = known_output(activation, &task.kind);
        let output = output.cloned().or(known).ok_or_else(|| self.mismatch(format!("{pointer} has no output yet")))?;
        let flow = match (&task.kind, case) {
            (_, None) => task.then,
            (Kind::Switch(cases), Some(name)) => {
                let taken = cases.iter().find(|case| case.name == name);
                taken.ok_or_else(|| self.mismatch(format!("{pointer} has no case '{name}'")))?.then
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
        self.remove(id);
        self.ended(parent, position, lap, output, flow);
        Ok(())
    }

    /// The task at `position` in the list of `owner` has ended well: where the flow goes.
    fn ended(&mut self, owner: Option<u64>, position: usize, lap: u32, output: Arc<Value>, flow: Flow) {
        if flow == Flow::End {
            self.activations.clear();
            self.timers.retain(|timer| timer.owner.is_none());
            self.ready = [None].into();
            self.root = Cursor::Done(output);
            return;
        }
        let workflow = Arc::clone(&self.definition.workflow);
        let count = self.list(&workflow, owner).map_or(0, |list| list.tasks.len());
        let next = match flow {
            Flow::Continue if position + 1 < count => Some((position + 1, lap)),
            Flow::Task(target) => Some((target, if target > position { lap } else { lap.saturating_add(1) })),
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
                    Some((position, lap)) => Cursor::Start { position, input: output, lap },
                    None => Cursor::Done(output),
                };
            },
            |_| {},
        );
        if let Some(id) = owner {
            self.end_iteration(id);
        }
    }

    fn is_fork(&self, id: u64) -> bool {
        self.activations.get(&id).is_some_and(|activation| matches!(activation.body, Body::Fork(_)))
    }

    fn competes(&self, id: u64) -> bool {
        let task = self.activations.get(&id).and_then(|fork| self.definition.workflow.task(&fork.pointer));
        task.is_some_and(|task| matches!(&task.kind, Kind::Fork(fork) if fork.compete))
    }

    /// A branch has ended. In a competition the first that ran wins; one that was skipped counts only if all were.
    fn branch_ended(&mut self, id: u64, position: usize, output: Arc<Value>, wins: bool) {
        let competes = self.competes(id);
        let losers = self.activations.get(&id).filter(|_| wins).map(Activation::children);
        losers.into_iter().flatten().for_each(|loser| self.remove(loser));
        self.change(id, |activation| {
            let Body::Fork(state @ Fork::Running(_)) = &mut activation.body else { return };
            if wins {
                *state = Fork::Done(output);
                return;
            }
            let Fork::Running(branches) = state else { return };
            if let Some(branch) = branches.get_mut(position) {
                *branch = Branch::Done(Arc::clone(&output));
            }
            let outputs = branches.iter().map(|branch| match branch {
                Branch::Done(output) => Some(output.as_ref().clone()),
                Branch::Waiting | Branch::Running(_) => None,
            });
            if let Some(outputs) = outputs.collect::<Option<Vec<Value>>>() {
                *state = Fork::Done(if competes { output } else { Arc::new(Value::from(outputs)) });
            }
        });
    }

    /// If `id` is a loop whose iteration has just ended, it is now between two iterations.
    fn end_iteration(&mut self, id: u64) {
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

    fn fail_task(&mut self, id: u64, error: &Problem) {
        let parent = self.activations.get(&id).and_then(|activation| activation.parent);
        self.remove(id);
        let error = Arc::new(error.clone());
        let branches = parent.and_then(|parent| self.activations.get(&parent)).map(Activation::children);
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

    fn expect_failed_try(&self, id: u64, pointer: &str) -> Result<u32, Mismatch> {
        match &self.expect(id, pointer)?.body {
            Body::Try(Try { attempt, caught: None, cursor: Cursor::Failed(_), .. }) => Ok(*attempt),
            _ => Err(self.mismatch(format!("{pointer} has no error to handle"))),
        }
    }

    fn retry_task(&mut self, pointer: &str, id: u64, attempt: u32, due: Timestamp) -> Result<(), Mismatch> {
        if attempt != self.expect_failed_try(id, pointer)?.saturating_add(1) {
            return Err(self.mismatch(format!("attempt {attempt} of {pointer} is out of turn")));
        }
        let workflow = Arc::clone(&self.definition.workflow);
        let limit = workflow.task(pointer).and_then(retry::attempt_limit);
        self.change(id, |activation| {
            activation.body = Body::Try(Try {
                attempt,
                caught: None,
                cursor: Cursor::first(&activation.input),
                resume: Some(due),
                deadline: limit.map(|limit| effect::after(due, limit)),
            });
        });
        Ok(())
    }

    fn catch_error(&mut self, pointer: &str, id: u64, error: &Problem) -> Result<(), Mismatch> {
        let attempt = self.expect_failed_try(id, pointer)?;
        let workflow = Arc::clone(&self.definition.workflow);
        let handled = match workflow.task(pointer).map(|task| &task.kind) {
            Some(Kind::Try(definition)) => definition.catch.tasks.is_some(),
            _ => return Err(self.mismatch(format!("{pointer} is no try"))),
        };
        self.change(id, |activation| {
            let input = &activation.input;
            let cursor = if handled { Cursor::first(input) } else { Cursor::Done(Arc::clone(input)) };
            let caught = Some(Arc::new(error.clone()));
            activation.body = Body::Try(Try { attempt, caught, cursor, resume: None, deadline: None });
        });
        Ok(())
    }

    fn start_iteration(&mut self, pointer: &str, id: u64, iteration: u64) -> Result<(), Mismatch> {
        let fits = match &self.expect(id, pointer)?.body {
            Body::Loop(Loop { items, done, cursor: None, .. }) => {
                *done as u64 == iteration && items.get(*done).is_some()
            }
            _ => false,
        };
        if !fits {
            return Err(self.mismatch(format!("iteration {iteration} of {pointer} is out of turn")));
        }
        self.change(id, |activation| {
            if let Body::Loop(each) = &mut activation.body {
                each.cursor = Some(Cursor::first(&each.input));
            }
        });
        Ok(())
    }

    /// Changes the cursor, or the branches, of `owner`.
    fn change_owner(
        &mut self,
        owner: Option<u64>,
        cursor: impl FnOnce(&mut Cursor),
        branches: impl FnOnce(&mut Vec<Branch>),
    ) {
        match owner {
            None => {
                cursor(&mut self.root);
                if self.root.is_running() {
                    self.ready.remove(&None);
                } else {
                    self.ready.insert(None);
                }
            }
            Some(id) => self.change(id, |activation| match &mut activation.body {
                Body::Fork(Fork::Running(running)) => branches(running),
                body => {
                    if let Some(current) = body.cursor_mut() {
                        cursor(current);
                    }
                    // An attempt that has begun is no longer waited for.
                    if let Body::Try(attempt) = body {
                        attempt.resume = None;
                    }
                }
            }),
        }
    }

    /// Changes an activation, and keeps `ready` and `timers` true.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Activation)) {
        self.untrack(id);
        if let Some(activation) = self.activations.get_mut(&id) {
            change(activation);
        }
        self.track(id);
    }

    fn track(&mut self, id: u64) {
        if let Some(activation) = self.activations.get(&id) {
            self.timers.extend(activation.timers(id));
            if activation.is_ready() {
                self.ready.insert(Some(id));
            }
        }
    }

    fn untrack(&mut self, id: u64) {
        if let Some(activation) = self.activations.get(&id) {
            for timer in activation.timers(id) {
                self.timers.remove(&timer);
            }
            self.ready.remove(&Some(id));
        }
    }

    /// Forgets an activation and all below it.
    fn remove(&mut self, id: u64) {
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            self.untrack(id);
            if let Some(activation) = self.activations.remove(&id) {
                doomed.extend(activation.children());
            }
        }
    }
}

/// How a task of this kind begins.
fn first_body(task: &Task, input: &Arc<Value>, time: Timestamp) -> Body {
    match &task.kind {
        Kind::Do(_) => Body::Sequence(Cursor::first(input)),
        Kind::Fork(fork) => Body::Fork(Fork::Running(vec![Branch::Waiting; fork.branches.tasks.len()])),
        Kind::Try(_) => Body::Try(Try {
            attempt: 1,
            caught: None,
            cursor: Cursor::first(input),
            resume: None,
            deadline: retry::attempt_limit(task).map(|limit| effect::after(time, limit)),
        }),
        Kind::Set(_) | Kind::Call(_) | Kind::Switch(_) | Kind::For(_) | Kind::Raise(_) | Kind::Wait(_) => Body::Ready,
    }
}

/// The output that a task has by its state, before any transformation.
pub(super) fn known_output(activation: &Activation, kind: &Kind) -> Option<Arc<Value>> {
    match (&activation.body, kind) {
        (Body::Wait(_), _) | (Body::Ready, Kind::Switch(_)) => Some(Arc::clone(&activation.input)),
        (Body::Loop(Loop { cursor: None, input, .. }), _) => Some(Arc::clone(input)),
        (
            Body::Sequence(Cursor::Done(output))
            | Body::Fork(Fork::Done(output))
            | Body::Try(Try { cursor: Cursor::Done(output), .. }),
            _,
        ) => Some(Arc::clone(output)),
        _ => None,
    }
}

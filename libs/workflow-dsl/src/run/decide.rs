//! Deciding: the one event that follows from the state next. Evaluates, and changes nothing.

use std::sync::Arc;

use jiff::Timestamp;
use rand::Rng;
use serde_json::Value;

use super::effect::after;
use super::evaluate::{View, bounded, excess};
use super::fold::known_output;
use super::state::{Activation, Body, Branch, Cause, Cursor, Fork, Loop, Timer};
use super::{Error, MOST_TASKS, Run, Status, Stimulus, retry};
use crate::a2a;
use crate::document::{A2aCall, Call, Case, Endpoint, ErrorTemplate, For, Kind, Server, Task, Template};
use crate::journal::{EventKind, FORMAT, Problem, Standard};

/// Why there is no event where one must be: the task fails with this.
type Fault = Problem;

/// A task in progress, with what is needed to decide about it.
struct Current<'a> {
    id: u64,
    task: &'a Task,
    activation: &'a Activation,
    view: View<'a>,
}

impl Run {
    /// The event that a stimulus causes by itself.
    pub(super) fn respond(&self, stimulus: Stimulus, now: Timestamp) -> Result<Option<EventKind>, Error> {
        match (stimulus, self.status) {
            (Stimulus::Start { input }, Status::Pending) => {
                if let Some(excess) = excess(&input) {
                    return Err(Error::Input(excess));
                }
                Ok(Some(self.begin_run(Arc::new(input), now)))
            }
            (Stimulus::CallReturned { activation, attempt, result }, Status::Running) => {
                Ok(self.call_returned(activation, attempt, result, now))
            }
            (Stimulus::Cancel { reason }, Status::Running) => Ok(Some(EventKind::RunCancelled { reason })),
            (Stimulus::Start { .. } | Stimulus::CallReturned { .. } | Stimulus::Cancel { .. } | Stimulus::Tick, _) => {
                Ok(None)
            }
        }
    }

    fn begin_run(&self, input: Arc<Value>, now: Timestamp) -> EventKind {
        let workflow = &self.definition.workflow;
        let (mut transformed, mut error) = (None, None);
        if let Some(template) = &workflow.input {
            match self.outermost(&input, now).shared(template, &input, "the run's transformed input") {
                Ok(value) => transformed = Some(value),
                Err(problem) => error = Some(problem),
            }
        }
        let deadline = workflow.timeout.map(|timeout| after(now, timeout));
        EventKind::RunStarted { format: FORMAT, input, transformed, deadline, error }
    }

    /// What the workflow's own expressions see.
    fn outermost<'a>(&'a self, input: &'a Arc<Value>, now: Timestamp) -> View<'a> {
        View {
            run: self,
            task: None,
            started: self.started,
            raw_input: &self.input,
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
        let current = Current { id, task, activation, view: View::of(self, task, activation, now) };
        Some(match result {
            Ok(value) => match bounded(value, "the answer") {
                Ok(output) => current.complete(&output, false, None),
                Err(problem) => current.fault(problem),
            },
            Err(problem) => current.fault(problem.shortened()),
        })
    }

    /// What `owner`, which is ready, does next.
    pub(super) fn next(&self, owner: Option<u64>, now: Timestamp, random: &mut dyn Rng) -> Option<EventKind> {
        let Some(id) = owner else { return self.next_of_run(now) };
        let activation = self.activations.get(&id)?;
        let task = self.definition.workflow.task(&activation.pointer)?;
        let current = Current { id, task, activation, view: View::of(self, task, activation, now) };
        match &activation.body {
            Body::Failed(error) => Some(current.fault(error.as_ref().clone())),
            Body::Ready => Some(current.begin().unwrap_or_else(|fault| current.fault(fault))),
            Body::Sequence(cursor) => self.follow(&current, cursor, now),
            Body::Loop(each) => self.next_of_loop(&current, each, now),
            Body::Fork(fork) => self.next_of_fork(&current, fork, now),
            Body::Try(attempt) => match &attempt.cursor {
                Cursor::Failed(error) if attempt.caught.is_none() => {
                    Some(retry::on_error(self, task, (id, activation), attempt, error, now, random))
                }
                cursor => self.follow(&current, cursor, now),
            },
            Body::Call(_) | Body::Wait(_) => None,
        }
    }

    fn next_of_run(&self, now: Timestamp) -> Option<EventKind> {
        match &self.root {
            Cursor::Start { position, input, .. } => self.start(None, *position, input, now),
            Cursor::Running { .. } => None,
            Cursor::Failed(error) => Some(EventKind::RunFaulted { error: error.as_ref().clone() }),
            Cursor::Done(output) => Some(match &self.definition.workflow.output {
                None => EventKind::RunCompleted { output: None },
                Some(template) => match self.outermost(output, now).shared(template, output, "the run's output") {
                    Ok(output) => EventKind::RunCompleted { output: Some(output) },
                    Err(error) => EventKind::RunFaulted { error },
                },
            }),
        }
    }

    /// Goes on where a cursor is.
    fn follow(&self, current: &Current<'_>, cursor: &Cursor, now: Timestamp) -> Option<EventKind> {
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
        let Kind::For(definition) = &current.task.kind else { return None };
        let goes_on = each.items.get(each.done).is_some()
            && match self.goes_on(current, definition, &each.input) {
                Ok(goes_on) => goes_on,
                Err(fault) => return Some(current.fault(fault)),
            };
        Some(if goes_on {
            let (task, activation) = (current.pointer(), current.id);
            EventKind::IterationStarted { task, activation, iteration: each.done as u64 }
        } else {
            current.complete(&each.input, true, None)
        })
    }

    /// Whether `while` lets the loop go on with its next item.
    fn goes_on(&self, current: &Current<'_>, definition: &For, input: &Arc<Value>) -> Result<bool, Fault> {
        let Some(condition) = &definition.condition else { return Ok(true) };
        let scope = self.scope_inside(Some(current.id));
        let view = View::of(self, current.task, current.activation, current.view.now);
        View { scope: scope.as_ref(), ..view }.is_true(condition, input)
    }

    fn next_of_fork(&self, current: &Current<'_>, fork: &Fork, now: Timestamp) -> Option<EventKind> {
        match fork {
            Fork::Running(branches) => {
                let position = branches.iter().position(|branch| matches!(branch, Branch::Waiting))?;
                self.start(Some(current.id), position, &current.activation.input, now)
            }
            Fork::Done(output) => Some(match excess(output) {
                None => current.complete(output, true, None),
                Some(excess) => {
                    current.fault(Problem::standard(Standard::Runtime, format!("the branches' output {excess}")))
                }
            }),
            Fork::Failed(error) => Some(current.fault(error.as_ref().clone())),
        }
    }

    /// Starts, or skips, the task at `position` of the list that `parent` runs.
    fn start(&self, parent: Option<u64>, position: usize, raw_input: &Arc<Value>, now: Timestamp) -> Option<EventKind> {
        let task = self.list(&self.definition.workflow, parent)?.tasks.get(position)?;
        if self.next_activation >= MOST_TASKS {
            let detail = format!("a run starts at most {MOST_TASKS} tasks; split the work over several runs");
            return Some(EventKind::RunFaulted { error: Problem::standard(Standard::Runtime, detail) });
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
        let (mut input, mut error) = (None, None);
        match task.condition.as_ref().map_or(Ok(true), |condition| view.is_true(condition, raw_input)) {
            Ok(false) => return Some(EventKind::TaskSkipped { task: pointer, parent }),
            Err(problem) => error = Some(problem.at(&task.pointer)),
            Ok(true) => {
                let transformed = task.input.as_ref().map(|template| view.shared(template, raw_input, "the input"));
                match transformed.transpose() {
                    Ok(transformed) => input = transformed,
                    Err(problem) => error = Some(problem.at(&task.pointer)),
                }
            }
        }
        Some(EventKind::TaskStarted {
            task: pointer,
            activation: self.next_activation,
            parent,
            iterations: self.place_inside(parent).iterations.to_vec(),
            input,
            deadline: task.timeout.map(|timeout| after(now, timeout)),
            error,
        })
    }

    /// What follows from a timer that is due.
    pub(super) fn fire(&self, timer: Timer, now: Timestamp, random: &mut dyn Rng) -> Option<EventKind> {
        let Some(id) = timer.owner else {
            let detail = format!("the run did not end within its timeout, by {}", muster_api::time::rfc3339(timer.due));
            return Some(EventKind::RunFaulted { error: Problem::standard(Standard::Timeout, detail) });
        };
        let activation = self.activations.get(&id)?;
        match timer.cause {
            Cause::Deadline => Some(self.time_out(id, activation, timer.due)),
            Cause::Retry => self.next(timer.owner, now, random),
            Cause::Attempt => {
                let child = activation.children().first().copied()?;
                Some(self.time_out(child, self.activations.get(&child)?, timer.due))
            }
            Cause::Wait => {
                let task = self.definition.workflow.task(&activation.pointer)?;
                let current = Current { id, task, activation, view: View::of(self, task, activation, now) };
                Some(current.complete(&activation.input, true, None))
            }
        }
    }

    fn time_out(&self, id: u64, activation: &Activation, due: Timestamp) -> EventKind {
        let task = Arc::clone(&activation.pointer);
        let detail = format!("{task} did not end within its timeout, by {}", muster_api::time::rfc3339(due));
        let error = Problem::standard(Standard::Timeout, detail).at(&task);
        EventKind::TaskFaulted { task, activation: id, error }
    }
}

impl Current<'_> {
    fn pointer(&self) -> Arc<str> {
        Arc::clone(&self.activation.pointer)
    }

    fn fault(&self, error: Problem) -> EventKind {
        EventKind::TaskFaulted { task: self.pointer(), activation: self.id, error: error.at(&self.task.pointer) }
    }

    /// The task ends with this raw output. `known` says that the state holds it already.
    fn complete(&self, raw_output: &Arc<Value>, known: bool, case: Option<String>) -> EventKind {
        self.transformed(raw_output, known, case).unwrap_or_else(|fault| self.fault(fault))
    }

    fn transformed(&self, raw_output: &Arc<Value>, known: bool, case: Option<String>) -> Result<EventKind, Fault> {
        debug_assert!(!known || known_output(self.activation, &self.task.kind).is_some(), "the fold knows it too");
        let view = |output| View {
            raw_output: Some(raw_output),
            output,
            ..View::of(self.view.run, self.task, self.activation, self.view.now)
        };
        let shaped = self.task.output.as_ref().map(|template| view(None).shared(template, raw_output, "the output"));
        let shaped = shaped.transpose()?;
        let output = shaped.as_ref().unwrap_or(raw_output);
        let export = self.task.export.as_ref().map(|template| view(Some(output)).shared(template, output, "the context"));
        let recorded = if known { shaped.clone() } else { Some(Arc::clone(output)) };
        Ok(EventKind::TaskCompleted {
            task: self.pointer(),
            activation: self.id,
            output: recorded,
            context: export.transpose()?,
            case,
        })
    }

    /// What a task that has just started does.
    fn begin(&self) -> Result<EventKind, Fault> {
        let input = &self.activation.input;
        let (task, activation) = (self.pointer(), self.id);
        match &self.task.kind {
            Kind::Set(template) => {
                let output = self.view.shared(template, input, "the value")?;
                self.transformed(&output, false, None)
            }
            Kind::Raise(template) => Err(self.raised(template)?),
            Kind::Switch(cases) => {
                let case = self.chosen(cases)?.map(|case| case.name.clone());
                self.transformed(input, true, case)
            }
            Kind::Wait(duration) => {
                Ok(EventKind::WaitStarted { task, activation, until: after(self.view.now, *duration) })
            }
            Kind::For(each) => {
                let items = self.view.value(&each.items, input)?;
                if !items.is_array() {
                    let detail = format!("'in' must yield an array; {} yields something else", each.items);
                    return Err(Problem::standard(Standard::Expression, detail));
                }
                Ok(EventKind::LoopStarted { task, activation, items: bounded(items, "the collection")? })
            }
            Kind::Call(Call::A2a(call)) => self.call(call),
            Kind::Do(_) | Kind::Fork(_) | Kind::Try(_) => {
                Err(Problem::standard(Standard::Runtime, "the task has begun before it was ready"))
            }
        }
    }

    /// The first case that holds, or the default.
    fn chosen<'c>(&self, cases: &'c [Case]) -> Result<Option<&'c Case>, Fault> {
        for case in cases {
            if let Some(when) = &case.when
                && self.view.is_true(when, &self.activation.input)?
            {
                return Ok(Some(case));
            }
        }
        Ok(cases.iter().find(|case| case.when.is_none()))
    }

    fn raised(&self, template: &ErrorTemplate) -> Result<Problem, Fault> {
        let text = |template: &Template| {
            Ok(match self.view.template(template, &self.activation.input)? {
                Value::String(text) => text,
                other => other.to_string(),
            })
        };
        let optional = |template: &Option<Template>| template.as_ref().map(text).transpose();
        let problem = Problem {
            kind: text(&template.kind)?,
            status: template.status,
            instance: optional(&template.instance)?,
            title: optional(&template.title)?,
            detail: optional(&template.detail)?,
        };
        Ok(problem.shortened())
    }

    fn call(&self, call: &A2aCall) -> Result<EventKind, Fault> {
        let input = &self.activation.input;
        let endpoint = match &call.server {
            Server::Fixed(endpoint) => endpoint.clone(),
            Server::Computed(expression) => self.endpoint(&self.view.value(expression, input)?)?,
        };
        let given = self.view.template(&call.parameters, input)?;
        let parameters = a2a::translate(call.method, &given)
            .map_err(|error| Problem::standard(Standard::Validation, format!("the call's {error}")))?;
        Ok(EventKind::CallStarted {
            task: self.pointer(),
            activation: self.id,
            endpoint: endpoint.to_string(),
            method: call.method.name().to_owned(),
            parameters: bounded(parameters, "the call's parameters")?,
        })
    }

    fn endpoint(&self, computed: &Value) -> Result<Endpoint, Fault> {
        let invalid = |detail: String| Problem::standard(Standard::Validation, detail);
        let text = computed.as_str().ok_or_else(|| invalid("the call's server must be text".to_owned()))?;
        text.parse().map_err(|error: crate::document::EndpointError| invalid(format!("the call's server: {error}")))
    }
}

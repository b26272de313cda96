//! Folding the beginnings: of tasks, and of iterations.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Mismatch, Opening, Start};
use crate::document::{Call, Kind, Period, Task, Workflow};
use crate::journal::{Problem, Stage};
use crate::run::effect::after;
use crate::run::evaluate::{EXTENDED, extended_descriptor};
use crate::run::place::Place;
use crate::run::state::{Activation, Body, Branch, Cursor, Extended, Fork, Function, Loop, Scope, Try};
use crate::run::{Run, retry};

impl Run {
    pub(in crate::run) fn start_task(
        &mut self,
        pointer: &Arc<str>,
        parent: Option<u64>,
        opening: Opening,
        start: Start,
        error: Option<&Problem>,
        time: Timestamp,
    ) -> Result<(), Mismatch> {
        let workflow = Arc::clone(&self.definition.workflow);
        let task = workflow
            .task(pointer)
            .ok_or_else(|| self.mismatch(format!("there is no task {pointer}")))?;
        let id = self.next_activation;
        let Opening {
            position,
            lap,
            input: raw_input,
        } = opening;
        let Start {
            input,
            deadline,
            attempt_deadline,
            extensions,
        } = start;
        let mut activation = Activation {
            parent,
            position,
            pointer: Arc::clone(pointer),
            body: Body::Asking,
            resting_since: None,
            counted: false,
            raw_input,
            input,
            started: time,
            deadline,
            idle: SignedDuration::ZERO,
            scope: self.scope_inside(parent),
            place: self.place_inside(parent).in_lap(lap),
            hears_from: self.hears_from(parent),
            extensions,
        };
        match error {
            Some(error) => activation.body = Body::Failed(Arc::new(error.clone())),
            None if task.policy.approval.is_some() => {}
            None => activation.begin(&workflow, task, time, attempt_deadline),
        }
        self.next_activation += 1;
        self.activations.insert(id, activation);
        self.track(id);
        self.change_owner(
            parent,
            |cursor| *cursor = Cursor::Running { child: id, lap },
            |branches| {
                if let Some(branch) = branches.get_mut(position) {
                    *branch = Branch::Running(id);
                }
            },
        );
        Ok(())
    }

    /// The variables that the tasks inside `owner` see.
    pub(in crate::run) fn scope_inside(&self, owner: Option<u64>) -> Option<Arc<Scope>> {
        let Some(owner) = owner else {
            return self.own_scope();
        };
        let activation = self.activations.get(&owner)?;
        let outer = activation.scope.as_ref();
        match (
            &activation.body,
            self.definition
                .workflow
                .task(&activation.pointer)
                .map(|task| &task.kind),
        ) {
            (Body::Loop(each), Some(Kind::For(definition))) => {
                let item = each.items.get(each.done).cloned().unwrap_or(Value::Null);
                let with_item = Scope::inside(outer, &definition.each, Arc::new(item));
                Some(Scope::inside(
                    Some(&with_item),
                    &definition.at,
                    Arc::new(Value::from(each.done)),
                ))
            }
            (
                Body::Try(Try {
                    caught: Some(error), ..
                }),
                Some(Kind::Try(definition)),
            ) => Some(Scope::inside(
                outer,
                &definition.catch.variable,
                Arc::new(error.to_value()),
            )),
            // A function sees what it is given, and nothing of where it is called from.
            (Body::Function(_), _) => None,
            (Body::Listen(listening), Some(Kind::Listen(definition))) => {
                let (Some(item), Some(each)) = (&listening.current, &definition.each) else {
                    return outer.cloned();
                };
                let with_item = Scope::inside(outer, &each.item, Arc::clone(&item.value));
                let index = Value::from(listening.count.saturating_sub(1));
                Some(Scope::inside(Some(&with_item), &each.at, Arc::new(index)))
            }
            (Body::Extended(extended), _) => {
                let task = self.definition.workflow.task(&activation.pointer)?;
                let task = extended_descriptor(
                    self,
                    task,
                    &activation.raw_input,
                    extended.raw_output.as_ref(),
                    activation.started,
                );
                Some(Scope::inside(outer, EXTENDED, Arc::new(task)))
            }
            _ => outer.cloned(),
        }
    }

    /// Which execution the tasks inside `owner` belong to.
    pub(in crate::run) fn place_inside(&self, owner: Option<u64>) -> Place {
        let Some(activation) = owner.and_then(|id| self.activations.get(&id)) else {
            return self.own_place();
        };
        match &activation.body {
            Body::Loop(each) => activation.place.in_iteration(each.done),
            Body::Listen(listening) => activation.place.in_iteration(listening.count.saturating_sub(1)),
            Body::Extended(extended) => {
                activation
                    .place
                    .in_extension(&activation.pointer, extended.stage, extended.extension)
            }
            Body::Function(_) => activation.place.in_function(&activation.pointer),
            Body::Try(Try {
                caught: None,
                attempt,
                ..
            }) => activation.place.in_attempt(*attempt),
            _ => activation.place.clone(),
        }
    }

    /// The task of a function begins.
    pub(in crate::run) fn start_function(
        &mut self,
        pointer: &str,
        id: u64,
        name: &str,
        input: &Arc<Value>,
    ) -> Result<(), Mismatch> {
        self.expect_ready(id, pointer, |kind| matches!(kind, Kind::Call(_)))?;
        let called = match self.definition.workflow.task(pointer).map(|task| &task.kind) {
            Some(Kind::Call(Call::Function(call))) => call.function == name,
            _ => false,
        };
        if !called || self.definition.workflow.function(name).is_none() {
            return Err(self.mismatch(format!("{pointer} does not call the function '{name}'")));
        }
        self.change(id, |activation| {
            activation.body = Body::Function(Function {
                name: name.to_owned(),
                cursor: Cursor::first(input),
            });
        });
        Ok(())
    }

    pub(in crate::run) fn start_iteration(
        &mut self,
        pointer: &str,
        id: u64,
        iteration: u64,
    ) -> Result<(), Mismatch> {
        let fits = match &self.expect(id, pointer)?.body {
            Body::Loop(Loop {
                items,
                done,
                cursor: None,
                ..
            }) => *done as u64 == iteration && items.get(*done).is_some(),
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
}

impl Activation {
    /// It begins: with what extends it, or what it is for.
    pub(in crate::run) fn begin(
        &mut self,
        workflow: &Workflow,
        task: &Task,
        time: Timestamp,
        attempt_deadline: Option<Timestamp>,
    ) {
        let mut extensions = self.extensions.iter().copied();
        let before = extensions.find(|index| workflow.extension_tasks(*index, Stage::Before).is_some());
        self.body = match before {
            Some(extension) => Body::Extended(Extended::new(extension, Stage::Before, &self.input)),
            None => first_body(task, &self.input, time, attempt_deadline),
        };
    }
}

/// How a task of this kind begins.
pub(super) fn first_body(
    task: &Task,
    input: &Arc<Value>,
    time: Timestamp,
    attempt_deadline: Option<Timestamp>,
) -> Body {
    match &task.kind {
        Kind::Do(_) => Body::Sequence(Cursor::first(input)),
        Kind::Fork(fork) => Body::Fork(Fork::Running(vec![Branch::Waiting; fork.branches.tasks.len()])),
        Kind::Try(_) => Body::Try(Try {
            attempt: 1,
            caught: None,
            cursor: Cursor::first(input),
            resume: None,
            deadline: attempt_deadline.or_else(|| {
                let limit = retry::attempt_limit(task).and_then(Period::fixed);
                limit.map(|limit| after(time, limit))
            }),
            failed: None,
        }),
        Kind::Set(_)
        | Kind::Call(_)
        | Kind::Switch(_)
        | Kind::For(_)
        | Kind::Raise(_)
        | Kind::Wait(_)
        | Kind::Emit(_)
        | Kind::Listen(_)
        | Kind::Run(_) => Body::Ready,
    }
}

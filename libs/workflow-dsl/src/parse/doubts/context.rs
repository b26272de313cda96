//! `$context` where nothing can have been exported yet, and fields of it that nobody exports.

use std::collections::BTreeSet;

use muster_api::names::suggestion;

use super::super::Reader;
use super::super::cursor::Cursor;
use super::super::expressions::Moment;
use crate::document::{Function, Kind, Task, TaskList, Template, Workflow};
use crate::expression::Expression;
use crate::problem::{Place, listed, quoted};
use crate::rehearsal::every_task;

/// An expression that reads the context.
pub(in super::super) struct Reading {
    place: Place,
    pointer: String,
    moment: Moment,
    /// The fields it reads; without any, the context as a whole.
    fields: BTreeSet<String>,
}

impl Reader {
    /// Remembers an expression that reads the context, unless it provides for a context that is not there.
    pub(in super::super) fn note_reading(&mut self, at: &Cursor<'_>, expression: &Expression) {
        let shape = expression.shape();
        let fields: Vec<Option<&str>> = shape
            .reads
            .iter()
            .filter(|(name, _)| name == "context")
            .map(|(_, field)| field.as_deref())
            .collect();
        if fields.is_empty() || shape.provides || self.scope.moment() == Moment::Export {
            return;
        }
        self.readings.push(Reading {
            place: at.place(),
            pointer: at.pointer.clone(),
            moment: self.scope.moment(),
            fields: fields.into_iter().flatten().map(str::to_owned).collect(),
        });
    }

    pub(super) fn doubt_context(&mut self, workflow: &Workflow) {
        let readings = std::mem::take(&mut self.readings);
        if readings.is_empty() {
            return;
        }
        let tasks = every_task(workflow);
        let exporters: Vec<&&Task> = tasks.iter().filter(|task| task.export.is_some()).collect();
        // Who calls a function, and what one from elsewhere does, is not looked at.
        let called = |function: &Function| exports(&function.tasks);
        let elsewhere = !workflow.external.is_empty() || workflow.functions.iter().any(called);
        let Some(first) = exporters.first() else {
            if !elsewhere {
                for reading in readings {
                    let message = "'$context' is always null here: no task of this document exports anything; add 'export.as' to one";
                    self.problems.warning(reading.place, &reading.pointer, message);
                }
            }
            return;
        };
        let mut before = Before::default();
        let extends = workflow.extensions.iter().flat_map(|extension| extension.lists());
        if !elsewhere && !extends.into_iter().any(exports) {
            before.list(&workflow.tasks, false);
        }
        let fields = known_fields(&exporters).filter(|_| !elsewhere);
        let pointers: BTreeSet<&str> = tasks.iter().map(|task| task.pointer.as_str()).collect();
        for reading in readings {
            let task = enclosing(&reading.pointer, &pointers);
            let early = task.is_some_and(|task| before.covers(task, reading.moment));
            let unknown = fields.as_ref().and_then(|known| {
                let mut unknown = reading
                    .fields
                    .iter()
                    .filter(|field| !known.contains(field.as_str()));
                unknown.next().map(|field| (field, known))
            });
            let message = if early {
                format!(
                    "'$context' is null here: the first task that exports anything, {}, comes later",
                    first.pointer
                )
            } else if let Some((field, known)) = unknown {
                let known = || known.iter().copied();
                format!(
                    "the context never has a field {}: what is exported has {}{}",
                    quoted(field),
                    listed(known()),
                    suggestion(field, known())
                )
            } else {
                continue;
            };
            self.problems.warning(reading.place, &reading.pointer, message);
        }
    }
}

/// The tasks before which nothing can have been exported.
#[derive(Default)]
struct Before<'w> {
    /// Those themselves.
    tasks: BTreeSet<&'w str>,
    /// Those of them inside which something is exported: what they evaluate at their end may see it.
    around: BTreeSet<&'w str>,
}

impl<'w> Before<'w> {
    fn covers(&self, task: &str, moment: Moment) -> bool {
        self.tasks.contains(task) && !(moment == Moment::Output && self.around.contains(task))
    }

    /// Walks a list in order; whether something may have been exported after it.
    fn list(&mut self, list: &'w TaskList, mut exported: bool) -> bool {
        exported |= goes_back(list) && exports(list);
        for task in &list.tasks {
            exported = self.task(task, exported);
        }
        exported
    }

    fn task(&mut self, task: &'w Task, exported: bool) -> bool {
        let inside = task.lists().into_iter().any(exports);
        if !exported {
            self.tasks.insert(&task.pointer);
            if inside {
                self.around.insert(&task.pointer);
            }
        }
        // What comes round again, or runs at the same time, may see what comes later in the text.
        let again = match &task.kind {
            Kind::Do(_) => false,
            Kind::Try(attempt) => attempt.catch.retry.is_some(),
            _ => true,
        };
        let mut exported = exported || inside && again;
        for list in task.lists() {
            exported = self.list(list, exported);
        }
        exported || task.export.is_some()
    }
}

/// Whether a `then` leads to a task before, or to the same.
fn goes_back(list: &TaskList) -> bool {
    use crate::document::Flow;
    list.tasks.iter().enumerate().any(|(index, task)| {
        let back = |flow: Flow| matches!(flow, Flow::Task(target) if target <= index);
        let by_case = match &task.kind {
            Kind::Switch(cases) => cases.iter().any(|case| back(case.then)),
            _ => false,
        };
        back(task.then) || by_case
    })
}

/// Whether a task of the list, or below it, exports.
fn exports(list: &TaskList) -> bool {
    let inside = |task: &Task| task.lists().into_iter().any(exports);
    list.tasks
        .iter()
        .any(|task| task.export.is_some() || inside(task))
}

/// The fields that the context can have, where every export is an object that is written down.
fn known_fields<'w>(exporters: &[&&'w Task]) -> Option<BTreeSet<&'w str>> {
    let mut known = BTreeSet::new();
    for exporter in exporters {
        match exporter.export.as_ref()? {
            Template::Object(fields) => known.extend(fields.iter().map(|(name, _)| name.as_str())),
            Template::Literal(value) => known.extend(value.as_object()?.keys().map(String::as_str)),
            Template::Expression(_) | Template::Attempt(..) | Template::Array(_) => return None,
        }
    }
    Some(known)
}

/// The pointer of the innermost task around a place.
fn enclosing<'p>(pointer: &'p str, tasks: &BTreeSet<&str>) -> Option<&'p str> {
    let mut rest = pointer;
    loop {
        if tasks.contains(rest) {
            return Some(rest);
        }
        rest = rest.rsplit_once('/')?.0;
    }
}

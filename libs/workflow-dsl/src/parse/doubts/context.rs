//! Fields of `$context` that nobody exports.

use std::collections::BTreeSet;

use muster_api::names::suggestion;

use super::super::Reader;
use super::super::cursor::Cursor;
use super::super::expressions::Moment;
use crate::document::{Flow, Kind, Task, TaskList, Template, Workflow};
use crate::expression::Expression;
use crate::problem::{Place, listed, quoted};
use crate::rehearsal::every_task;

/// An expression that reads the context.
pub(in super::super) struct Reading {
    place: Place,
    pointer: String,
    /// The fields it reads.
    fields: BTreeSet<String>,
}

impl Reader {
    /// Remembers an expression that reads the context, unless it provides for a context that is not there.
    pub(in super::super) fn note_reading(&mut self, at: &Cursor<'_>, expression: &Expression) {
        let shape = expression.shape();
        let read = shape.reads.iter().filter(|(name, _)| name == "context");
        let fields: BTreeSet<String> = read.filter_map(|(_, field)| field.clone()).collect();
        if fields.is_empty() || shape.provides || self.scope.moment() == Moment::Export {
            return;
        }
        self.readings.push(Reading {
            place: at.place(),
            pointer: at.pointer.clone(),
            fields,
        });
    }

    pub(super) fn doubt_context(&mut self, workflow: &Workflow) {
        let readings = std::mem::take(&mut self.readings);
        if readings.is_empty() {
            return;
        }
        let tasks = every_task(workflow);
        // What a function from elsewhere exports is not known.
        let fields = known_fields(tasks.iter().flat_map(|task| exports(task)))
            .filter(|_| workflow.external.is_empty());
        let Some(known) = fields else { return };
        let mut after = After::default();
        after.list(&workflow.tasks, false);
        let pointers: BTreeSet<&str> = tasks.iter().map(|task| task.pointer.as_str()).collect();
        for reading in readings {
            if !enclosing(&reading.pointer, &pointers).is_some_and(|task| after.tasks.contains(task)) {
                continue;
            }
            let mut unknown = reading.fields.iter();
            let Some(field) = unknown.find(|field| !known.contains(field.as_str())) else {
                continue;
            };
            let message = format!(
                "the context has no field {} here: what is exported has {}{}",
                quoted(field),
                listed(known.iter().copied()),
                suggestion(field, known.iter().copied())
            );
            self.problems.warning(reading.place, &reading.pointer, message);
        }
    }
}

/// The tasks before which something has been exported for certain. Before that the context is the workflow's input, of which
/// nothing is known.
#[derive(Default)]
struct After<'w> {
    tasks: BTreeSet<&'w str>,
}

impl<'w> After<'w> {
    /// Walks a list in order; `exported` says whether something has been exported before it.
    fn list(&mut self, list: &'w TaskList, mut exported: bool) {
        let straight = !jumps(list);
        for task in &list.tasks {
            if exported {
                self.tasks.insert(&task.pointer);
            }
            for inner in task.lists() {
                self.list(inner, exported);
            }
            exported |= straight && task.export.is_some() && task.condition.is_none();
        }
    }
}

/// Whether a `then` leads to another task than the next one, so that a task may begin without those before it.
fn jumps(list: &TaskList) -> bool {
    let jump = |flow: Flow| matches!(flow, Flow::Task(_));
    list.tasks.iter().any(|task| {
        let by_case = match &task.kind {
            Kind::Switch(cases) => cases.iter().any(|case| jump(case.then)),
            _ => false,
        };
        jump(task.then) || by_case
    })
}

/// What a task makes of the context: at its end, and for each event.
fn exports(task: &Task) -> impl Iterator<Item = &Template> {
    let each = match &task.kind {
        Kind::Listen(listen) => listen.each.as_ref().and_then(|each| each.export.as_ref()),
        _ => None,
    };
    task.export.iter().chain(each)
}

/// The fields that the context can have, where every export is an object that is written down.
fn known_fields<'w>(exports: impl Iterator<Item = &'w Template>) -> Option<BTreeSet<&'w str>> {
    let mut known = BTreeSet::new();
    for export in exports {
        match export {
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

//! What is legal and probably not meant: the warnings of a reader who knows how the document will run.
//!
//! A warning never refuses a document, so it must be right nearly always, or authors stop reading them. Each rule names the
//! place, says what will happen, and what to write instead. Where a rule needs to know what only a run knows, it keeps silent.
//!
//! What can be judged of a task alone is said as soon as the task is read, so that it stands beside the errors of others
//! ([`Reader::doubt_task`], [`Reader::doubt_list`]); what needs the whole document is said once it is read without errors
//! ([`Reader::doubt_workflow`]).

mod condition;
mod context;
mod failure;
mod flow;
mod timing;
mod unused;

use super::Reader;
use super::cursor::Cursor;
use crate::document::{Kind, Task, TaskList, Template, Workflow};

pub(super) use context::Reading;

impl Reader {
    /// What is doubtful about a task by itself; `at` is its definition.
    pub(super) fn doubt_task(&mut self, task: &Task, at: &Cursor<'_>) {
        self.doubt_conditions(task, at);
        match &task.kind {
            Kind::Switch(cases) => self.doubt_cases(task, cases, at),
            Kind::Try(attempt) => self.doubt_attempt(attempt, at),
            Kind::Raise(error) => self.doubt_error_type(error, at),
            _ => {}
        }
    }

    /// What is doubtful about tasks that follow each other; `definitions` are theirs, in order.
    pub(super) fn doubt_list(&mut self, tasks: &[Task], definitions: &[&Cursor<'_>]) {
        self.doubt_flow(tasks, definitions);
        for (pair, definition) in tasks.windows(2).zip(definitions) {
            let [first, second] = pair else { continue };
            if loses_output(first, second) {
                let message = format!(
                    "the output of this 'set' is lost: '{}' replaces it, and a 'set' does not add to what was there; export it, \
                     or set both at once",
                    second.name
                );
                self.doubtful(definition, message);
            }
        }
    }

    /// What is doubtful about a document as a whole.
    pub(super) fn doubt_workflow(&mut self, workflow: &Workflow, root: &Cursor<'_>) {
        self.doubt_context(workflow);
        self.doubt_timing(workflow, root);
        self.doubt_unused(workflow, root);
    }
}

/// Whether what `first` sets is neither exported nor seen by `second`, which always follows it.
fn loses_output(first: &Task, second: &Task) -> bool {
    let sets = matches!(first.kind, Kind::Set(_)) && matches!(second.kind, Kind::Set(Template::Literal(_)));
    let passes_on = first.export.is_some() || first.condition.is_some() || second.condition.is_some();
    let reads = second.input.is_some() || second.output.is_some() || second.export.is_some();
    let follows = first.then == crate::document::Flow::Continue;
    sets && follows && !passes_on && !reads && second.schemas.input.is_none() && first.name != second.name
}

/// Where a pointer of the document, at or below that of `at`, leads.
fn inside<'n>(at: &Cursor<'n>, pointer: &str) -> Cursor<'n> {
    match pointer.strip_prefix(at.pointer.as_str()) {
        Some(rest) => at.descend(rest),
        None => at.clone(),
    }
}

/// The tasks of a list and all below it, each before what is in it.
fn walk<'w>(list: &'w TaskList, visit: &mut impl FnMut(&'w Task)) {
    for task in &list.tasks {
        visit(task);
        for inner in task.lists() {
            walk(inner, visit);
        }
    }
}

//! Where the flow goes after a task: `then` resolved to a place in its list, and tasks that no flow reaches.

use super::Reader;
use super::cursor::Cursor;
use super::task::List;
use crate::document::{Flow, Kind, Task};
use crate::problem::{listed, quoted};

/// What `then` may say besides the name of a task.
const DIRECTIVES: [(&str, Flow); 3] = [
    ("continue", Flow::Continue),
    ("exit", Flow::Exit),
    ("end", Flow::End),
];

/// The tasks that `then` may name: those of its own list.
pub(super) struct Targets<'n> {
    /// Names in the order of the list; `None` where an item has none.
    pub(super) names: &'n [Option<&'n str>],
    pub(super) list: List,
}

impl Reader {
    /// `then`.
    pub(super) fn flow(&mut self, at: &Cursor<'_>, targets: &Targets<'_>) -> Option<Flow> {
        let text = self.text(at)?;
        if let Some((_, flow)) = DIRECTIVES.into_iter().find(|(name, _)| *name == text) {
            return Some(flow);
        }
        if targets.list == List::Branches {
            let message = format!(
                "a branch of a fork can only 'continue', 'exit' or 'end'; found {}",
                quoted(text)
            );
            self.wrong(at, message);
            return None;
        }
        let index = targets.names.iter().position(|name| *name == Some(text));
        if index.is_none() {
            let names = || targets.names.iter().copied().flatten();
            let nearest =
                muster_api::names::suggestion(text, names().chain(DIRECTIVES.map(|(name, _)| name)));
            let message = format!(
                "there is no task {} in this list; allowed are 'continue', 'exit', 'end' and its tasks {}{nearest}",
                quoted(text),
                listed(names())
            );
            self.wrong(at, message);
        }
        index.map(Flow::Task)
    }

    /// A task that is called like a directive can never be the target of a `then`.
    pub(super) fn doubt_name(&mut self, name: &str, at: &Cursor<'_>) {
        if DIRECTIVES.iter().any(|(directive, _)| *directive == name) {
            self.doubtful(
                at,
                format!("'then: {name}' never means this task; call it something else"),
            );
        }
    }

    /// Warns of each task of a sequence that no flow reaches.
    pub(super) fn doubt_unreachable(&mut self, tasks: &[Task], definitions: &[&Cursor<'_>]) {
        let mut reached = vec![false; tasks.len()];
        let mut open = vec![0];
        while let Some(index) = open.pop() {
            let Some((task, seen)) = tasks.get(index).zip(reached.get_mut(index)) else {
                continue;
            };
            if !std::mem::replace(seen, true) {
                open.extend(successors(task, index));
            }
        }
        for (definition, _) in definitions.iter().zip(reached).filter(|(_, reached)| !reached) {
            self.doubtful(
                definition,
                "no flow reaches this task: the tasks before it always go elsewhere",
            );
        }
    }
}

/// Where the flow can go from the task at `index`.
fn successors(task: &Task, index: usize) -> Vec<usize> {
    let follow = |flow: Flow| match flow {
        Flow::Continue => Some(index + 1),
        Flow::Task(target) => Some(target),
        Flow::Exit | Flow::End => None,
    };
    let mut successors = Vec::new();
    let mut leaves_by_case = false;
    if let Kind::Switch(cases) = &task.kind {
        successors.extend(cases.iter().filter_map(|case| follow(case.then)));
        leaves_by_case = cases.iter().any(|case| case.when.is_none());
    }
    if !leaves_by_case {
        successors.extend(follow(task.then));
    }
    // A task that is skipped does not send the flow where its cases would have.
    if task.condition.is_some() {
        successors.push(index + 1);
        successors.extend(follow(task.then));
    }
    successors
}

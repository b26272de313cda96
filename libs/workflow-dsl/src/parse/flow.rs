//! Where the flow goes after a task: `then` resolved to a place in its list.

use super::Reader;
use super::cursor::Cursor;
use super::task::List;
use crate::document::Flow;
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
}

//! Definitions that nothing refers to.

use super::super::Reader;
use super::super::cursor::Cursor;
use crate::document::{Target, Workflow};
use crate::node::{Content, Node, pointer_to};
use crate::rehearsal::every_task;

impl Reader {
    /// Warns of each definition of `use` that nothing refers to, and of each extension that extends nothing.
    pub(super) fn doubt_unused(&mut self, workflow: &Workflow, root: &Cursor<'_>) {
        for (section, name) in self.reusable.unused() {
            let place = root.descend(&pointer_to(&format!("/use/{section}"), &name));
            // Secrets are a list of names.
            let place = match &place.node.content {
                Content::Array(items) => {
                    let is_it = |item: &Node| matches!(&item.content, Content::Text(text) if *text == name);
                    let found = items.iter().position(is_it);
                    found.map_or(place.clone(), |index| place.descend(&format!("/{index}")))
                }
                _ => place,
            };
            self.doubtful(&place, "nothing in this document uses this definition");
        }
        let tasks = every_task(workflow);
        for (index, extension) in workflow.extensions.iter().enumerate() {
            if !tasks.iter().any(|task| task.extensions.contains(&index)) {
                let kind = Target::NAMES
                    .iter()
                    .find(|(_, target)| *target == extension.target);
                let message = format!(
                    "this extends nothing: the document has no task of the kind '{}'",
                    kind.map_or("all", |(name, _)| name)
                );
                self.doubtful(&root.descend(&extension.pointer), message);
            }
        }
    }
}

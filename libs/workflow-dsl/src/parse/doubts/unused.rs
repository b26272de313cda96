//! Definitions that nothing refers to.

use super::super::Reader;
use super::super::cursor::Cursor;
use crate::document::{Target, Workflow};
use crate::node::pointer_to;
use crate::rehearsal::every_task;

impl Reader {
    /// Warns of each definition of `use` that nothing refers to, and of each extension that extends nothing.
    pub(super) fn doubt_unused(&mut self, workflow: &Workflow, root: &Cursor<'_>) {
        for (section, name) in self.reusable.unused() {
            let place = root.descend(&pointer_to(&format!("/use/{section}"), &name));
            self.doubtful(&place, "nothing in this document uses this definition");
        }
        for (index, name) in workflow.secrets.iter().enumerate() {
            if !self.reusable.is_used("secrets", name) {
                let place = root.descend(&format!("/use/secrets/{index}"));
                self.doubtful(&place, "nothing in this document uses this secret");
            }
        }
        for function in &workflow.functions {
            let here = function.tasks.pointer.starts_with("/use/functions/");
            if here && !self.reusable.is_used("functions", &function.name) {
                let place = root.descend(&function.tasks.pointer);
                self.doubtful(&place, "nothing in this document calls this function");
            }
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

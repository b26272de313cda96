//! `metadata.muster`: see [`crate::document::policy`].

use super::Reader;
use super::cursor::Fields;
use crate::document::policy::{KEY, TaskPolicy, WorkflowPolicy};

/// Fields of `document.metadata.muster`.
const OF_WORKFLOWS: &[&str] = &[];

/// Fields of a task's `metadata.muster`.
const OF_TASKS: &[&str] = &[];

impl Reader {
    /// The policy in the metadata among `fields`, of the section `document`.
    pub(super) fn workflow_policy(&mut self, fields: &Fields<'_>) -> WorkflowPolicy {
        if let Some(fields) = self.policy_fields(fields, OF_WORKFLOWS) {
            let _ = fields;
        }
        WorkflowPolicy::default()
    }

    /// The policy in the metadata among `fields`, of a task.
    pub(super) fn task_policy(&mut self, fields: &Fields<'_>) -> TaskPolicy {
        if let Some(fields) = self.policy_fields(fields, OF_TASKS) {
            let _ = fields;
        }
        TaskPolicy::default()
    }

    fn policy_fields<'n>(&mut self, fields: &Fields<'n>, allowed: &[&str]) -> Option<Fields<'n>> {
        let metadata = fields.get("metadata")?;
        // That it must be an object is said by whoever reads the metadata.
        let policy = metadata.child(KEY)?;
        self.fields(&policy, allowed, &[])
    }
}

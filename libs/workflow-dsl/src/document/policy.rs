//! What this runtime adds to the language, under the key [`KEY`] of `metadata`.
//!
//! The language lets `metadata` hold anything, so that a document with these fields stays valid for every other
//! runtime, which runs it without them. Here the fields are checked as strictly as those of the language.

/// The key in `document.metadata` and in a task's `metadata`.
pub const KEY: &str = "muster";

/// `document.metadata.muster`: what holds for each run of the workflow.
#[derive(Debug, Clone, Default)]
pub struct WorkflowPolicy {}

/// `metadata.muster` of a task.
#[derive(Debug, Clone, Default)]
pub struct TaskPolicy {}

//! What a run's turn depends on, besides when it was accepted.

use std::sync::Arc;

use muster_workflow_dsl::document::policy::Priority;
use serde::{Deserialize, Serialize};

/// What a run's turn depends on, besides when it was accepted. Kept with its summary, so that the line is the same
/// after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claim {
    /// Higher classes of a namespace go first.
    #[serde(default)]
    pub priority: Priority,
    /// Groups of runs that bound how many of them are under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
}

/// A group of runs of which only so many may be under way: begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// Which group, for machines and people: the workflow, and the key if it has one.
    pub group: Arc<str>,
    /// How many of its runs may be under way.
    pub most: u32,
}

//! What the engine needs of a store for budgets. It is written by [`super::Store::append`], in the step that records it.

use async_trait::async_trait;
use muster_workflow_dsl::usage::Usage;
use serde::{Deserialize, Serialize};

use super::Error;

/// What a run has used on a day so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The day, counted from the epoch, in UTC.
    pub day: i64,
    /// All of that day.
    pub usage: Usage,
}

/// What namespaces have used. Outlives the runs.
#[async_trait]
pub trait Spending {
    /// What the runs of a namespace used from one day to another, both included.
    async fn spent(&self, namespace: &str, from: i64, to: i64) -> Result<Usage, Error>;

    /// Forgets at most so many entries of days before `day`; says how many.
    async fn forget_spending(&self, day: i64, limit: usize) -> Result<usize, Error>;
}

//! The one trait that an agent implements.

use std::future::Future;

use muster_runtime::metrics::{Definition, Metrics};

use crate::{Card, Failure, Reply, Request, Task};

/// An agent: what it can do, and how it does it.
///
/// One value serves all requests at once, so state is shared and guarded by the agent itself. Work that computes
/// for long belongs on `tokio::task::spawn_blocking`; a handler that blocks its thread cannot be cancelled.
pub trait Agent: Send + Sync + 'static {
    /// Who the agent is and which skills it has. Asked once, before the agent serves.
    fn card(&self) -> Card;

    /// Works on one message of a task.
    ///
    /// When the caller cancels, [`Task::cancelled`] resolves; a handler that has not returned a few seconds later
    /// is dropped at its next await. The result of a cancelled task is discarded.
    fn handle(&self, request: Request, task: Task) -> impl Future<Output = Result<Reply, Failure>> + Send;

    /// What it measures beside what every agent does. Asked once, before the agent serves.
    fn metrics(&self) -> &'static [Definition] {
        &[]
    }

    /// Where to write that. Told once, before the agent serves.
    fn measure(&self, _metrics: &Metrics) {}
}

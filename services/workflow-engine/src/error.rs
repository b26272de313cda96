//! Why the engine refuses a request.

use std::time::Duration;

use muster_workflow_dsl::Problems;

use crate::approval::{ApprovalId, State};
use crate::run::{RunId, Status};
use crate::schedule::Full;
use crate::store;

/// Why the engine refuses a request. `grpc` makes statuses of these, and nothing else does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request is missing or malformed.
    #[error("{field}: {message}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// The page token is not ours, or another list's.
    #[error("page_token: {0}")]
    PageToken(#[from] crate::page::InvalidToken),
    /// The document is not a workflow.
    #[error("the document is not a valid workflow:\n{0}")]
    InvalidWorkflow(Problems),
    /// What a document refers to cannot be read.
    #[error("'{name}' cannot be obtained: {why}")]
    Unobtained {
        /// How the document calls it.
        name: String,
        /// Why.
        why: String,
    },
    /// The catalogue has no such document.
    #[error("the catalogue has no workflow {what}{suggestion}")]
    WorkflowNotFound {
        /// What was looked for.
        what: String,
        /// The nearest names, ready to append.
        suggestion: String,
    },
    /// The catalogue has other content under this version.
    #[error("{what} is in the catalogue with other content (digest {digest})")]
    VersionExists {
        /// Namespace, name and version.
        what: String,
        /// Digest of what is there.
        digest: String,
    },
    /// There is no such run.
    #[error("there is no run '{id}'{suggestion}")]
    RunNotFound {
        /// What was looked for.
        id: RunId,
        /// The nearest ids, ready to append.
        suggestion: String,
    },
    /// The caller has no grant for the namespace.
    #[error("'{who}' may not reach the namespace '{namespace}'")]
    Forbidden {
        /// Who.
        who: String,
        /// Which namespace.
        namespace: String,
    },
    /// A run with this id exists and is not what was asked for.
    #[error("run '{id}' exists with another {difference}")]
    RunExists {
        /// The id.
        id: RunId,
        /// In what it differs: document or input.
        difference: &'static str,
    },
    /// The run has ended.
    #[error("run '{id}' has ended: {}", status.name())]
    RunEnded {
        /// The id.
        id: RunId,
        /// How it ended.
        status: Status,
    },
    /// There is no such approval.
    #[error("there is no approval '{id}'{suggestion}")]
    ApprovalNotFound {
        /// What was looked for.
        id: ApprovalId,
        /// The nearest ids, ready to append.
        suggestion: String,
    },
    /// The approval was closed, and not as is wanted.
    #[error("approval '{id}' is {}{}", state.name(), by_whom(by))]
    ApprovalClosed {
        /// The id.
        id: ApprovalId,
        /// How it was closed.
        state: State,
        /// By whom, if somebody decided.
        by: String,
    },
    /// The run has not ended, or somebody still works on it.
    #[error("run '{id}' has not ended")]
    RunActive {
        /// The id.
        id: RunId,
    },
    /// The run has ended and cannot go on from there.
    #[error("run '{id}' cannot be retried: {why}")]
    NotRetryable {
        /// The id.
        id: RunId,
        /// Why.
        why: String,
    },
    /// What people and agents had said in the run was erased.
    #[error("what was said in run '{id}' was erased, and nothing can go on from it")]
    RunErased {
        /// The id.
        id: RunId,
    },
    /// The line is full.
    #[error(transparent)]
    TooManyRuns(#[from] Full),
    /// The workflow has no schedule.
    #[error("there is no schedule of workflow {name}")]
    ScheduleNotFound {
        /// Namespace and name.
        name: String,
    },
    /// There are as many schedules as may be.
    #[error("there are {most} schedules, and no more may be")]
    TooManySchedules {
        /// How many.
        most: usize,
    },
    /// The run cannot go on.
    #[error("run '{id}' is set aside: {why}")]
    SetAside {
        /// The id.
        id: RunId,
        /// Why.
        why: String,
    },
    /// A backup is being taken.
    #[error("another backup is being taken")]
    BackupRunning,
    /// Whoever asked for a backup does not take it.
    #[error("the backup was broken off: nothing of it was taken for {} s", .0.as_secs())]
    BackupStalled(Duration),
    /// The store is not one that the engine makes backups of.
    #[error("this engine keeps its store in Redis, which makes its own backups")]
    BackupElsewhere,
    /// A backup cannot be made.
    #[error("the backup was broken off: {0}")]
    Backup(muster_store::backup::Error),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The run, or the schedule, is another engine's, which cannot be reached now; or nobody's, for a moment.
    #[error("nobody works on partition {partition} at this moment; another engine takes it over")]
    NotOwner {
        /// Its partition.
        partition: u16,
    },
    /// The engine is going down.
    #[error("the workflow engine is shutting down")]
    ShuttingDown,
    /// A defect of ours.
    #[error("{0}")]
    Defect(String),
}

fn by_whom(by: &str) -> String {
    if by.is_empty() {
        String::new()
    } else {
        format!(" by {by}")
    }
}

impl Error {
    pub(crate) fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self::Field {
            field,
            message: message.into(),
        }
    }
}

//! The port behind which tasks are kept: on this machine's disk ([`embedded`](super::embedded)), or in Redis for all instances
//! of the agent ([`redis`](super::redis)).

use a2a_pb::proto::TaskState;
use async_trait::async_trait;
use muster_api::error::{Error, Reason};
use std::time::Duration;

use super::record::Record;
use super::trail::Part;

/// Keeps tasks.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// Writes drafts; what became of each, in their order. What is answered is durable.
    async fn write(&self, drafts: Vec<Draft>) -> Vec<Result<Outcome, Error>>;

    /// What is kept of a task.
    async fn read(&self, id: &str) -> Result<Option<Stored>, Error>;

    /// Why nothing is kept any more; `None` while it is.
    fn failure(&self) -> Option<String>;

    /// Whether what fails now may succeed later, so that it is to be tried again.
    fn recovers(&self) -> bool;
}

/// One task to be written.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) id: String,
    /// `None` forgets it.
    pub(crate) keep: Option<Keep>,
}

/// What is to be kept.
#[derive(Debug, Clone)]
pub(crate) struct Keep {
    /// Encoded; `None` where the events alone say what is new.
    pub(crate) record: Option<Vec<u8>>,
    pub(crate) part: Part,
    pub(crate) state: TaskState,
    /// When the status was set, in microseconds.
    pub(crate) time: i64,
    pub(crate) context: String,
    /// Whose it is.
    pub(crate) caller: String,
    pub(crate) stage: Stage,
}

/// Who has to do with a task that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its instance works on it, or changes it.
    AtWork,
    /// Nobody works on it; its instance still has to tell the receivers of push notifications.
    Owing,
    /// Nobody has anything to do.
    AtRest,
}

/// What became of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is durable.
    Done,
    /// The task is another instance's by now; nothing was written.
    Lost,
    /// There is no room; nothing was written.
    Full,
}

/// What is kept of a task.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) record: Record,
    /// How often it was written.
    pub(crate) version: u64,
    /// How many events it has had.
    pub(crate) number: u64,
    /// The instance that works on it; empty where nobody does.
    pub(crate) worker: String,
}

/// What cannot be done while the store is as it is.
pub(crate) fn unavailable(what: &str) -> Error {
    Error::new(
        Reason::StoreUnavailable,
        format!("the task cannot be kept: {what}"),
    )
    .with_retry_after(Duration::from_secs(1))
}

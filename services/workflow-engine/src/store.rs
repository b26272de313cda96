//! What the engine needs of a store. Every adapter passes the same conformance suite.
//!
//! Nothing is acknowledged before it is durable. The journal is the truth about a run; the summary is written in
//! the same atomic step as the entries it sums up, so the two cannot disagree. An append names the index that it
//! expects to be next, checked by the store at the moment of writing: whoever believes to own a run that somebody
//! else has taken further is refused. A state that is kept beside the journal saves reading it from the beginning.

mod again;
pub mod answers;
pub mod approvals;
#[cfg(test)]
pub(crate) mod conformance;
pub mod embedded;
pub mod erase;
pub mod events;
mod filter;
pub mod memory;
pub mod payloads;
pub mod redis;
pub mod schedules;
pub mod spending;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_workflow_dsl::cloud_event::CloudEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::approval::Approval;
use crate::behalf::Behalf;
use crate::run::{Entry, Position, Record, RunId, Summary};
pub use again::Again;
use answers::Answers;
use approvals::Approvals;
use events::EventLog;
pub use filter::{Filter, Span};
use payloads::{Payload, Payloads};
use spending::{Spending, Spent};

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// What was to be new is there, or the journal is not where the caller believes it to be.
    #[error("somebody else has written {0}")]
    Conflict(String),
    /// More than the store takes at once.
    #[error("a step of {bytes} bytes is over the store's limit of {limit}")]
    TooLarge {
        /// Size of the step.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Something stored cannot be read.
    #[error("{0}")]
    Damaged(String),
    /// The store takes no writes.
    #[error("{0}")]
    Unavailable(String),
    /// Somebody else works on this part of the store, or nobody does.
    #[error("partition {partition} is not this engine's")]
    NotOwner {
        /// Which part.
        partition: u16,
    },
}

/// Identity of a document in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowKey {
    /// `document.namespace`.
    pub namespace: String,
    /// `document.name`.
    pub name: String,
    /// `document.version`.
    pub version: String,
}

/// What lists show of a document in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workflow {
    /// Its identity.
    #[serde(flatten)]
    pub key: WorkflowKey,
    /// SHA-256 of its text, in hex.
    pub digest: String,
    /// When it was applied.
    pub applied_at: Timestamp,
    /// `document.title`.
    pub title: String,
    /// Who has applied it, where callers are told apart: its schedule and its events start runs on that caller's behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behalf: Option<Behalf>,
}

/// One atomic step of a run.
#[derive(Debug, Clone)]
pub struct Step {
    /// The run as it stands after the step; its `history_length` counts the new entries.
    pub summary: Summary,
    /// Index of the first new entry: the length of the journal before the step.
    pub first_index: u64,
    /// The new entries, as bytes.
    pub entries: Vec<Vec<u8>>,
    /// The output, if the run ends with one.
    pub output: Option<Value>,
    /// The approvals that have changed, as they stand after the step.
    pub approvals: Vec<Approval>,
    /// What the run has used on the day of the step, if that has changed.
    pub spent: Option<Spent>,
    /// Events that become durable with the step, and are in the log from some moment after it on.
    pub events: Vec<CloudEvent>,
    /// The state after the step, where it is kept.
    pub snapshot: Option<Saved>,
    /// Payloads that it refers to, durable with it; whoever decides on a step leaves this to [`payloads::Apart`].
    pub payloads: Vec<Payload>,
}

impl Step {
    /// A step to where the run stands now, which begins at the beginning and writes nothing else.
    #[must_use]
    pub fn to(summary: Summary) -> Self {
        Self {
            summary,
            first_index: 0,
            entries: Vec::new(),
            output: None,
            approvals: Vec::new(),
            spent: None,
            events: Vec::new(),
            snapshot: None,
            payloads: Vec::new(),
        }
    }
}

/// A state of a run, as bytes: the store does not read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The state. It replaces the run's latest one.
    pub bytes: Vec<u8>,
    /// Whether it replaces the run's base as well.
    pub is_base: bool,
}

/// A run as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Where it stands.
    pub summary: Summary,
    /// What it is pinned to; only a run that is being forgotten at this moment has none.
    pub record: Option<Record>,
    /// What came of it, once it is completed.
    pub output: Option<Value>,
}

/// Which state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    /// The last one.
    Latest,
    /// The one from which on the history can be folded that is left.
    Base,
}

/// Some of a list, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The entries; may be fewer than asked for although there are more.
    pub entries: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<C>,
}

/// A run that has not ended, or why its summary cannot be read.
pub type Unfinished = Result<Summary, (RunId, Error)>;

/// Entries of a journal are read in portions of this size, whatever their number.
pub const HISTORY_BYTES: usize = 1024 * 1024;

/// Durable catalogue and journals.
#[async_trait]
pub trait Store:
    Again
    + Answers
    + Approvals
    + erase::Erase
    + EventLog
    + Payloads
    + schedules::Schedules
    + Spending
    + Send
    + Sync
    + 'static
{
    /// Adds a document; a [`Error::Conflict`] if its key is taken.
    async fn add_workflow(&self, workflow: &Workflow, document: &str) -> Result<(), Error>;

    /// Reads a document's text.
    async fn document(&self, key: &WorkflowKey) -> Result<Option<String>, Error>;

    /// Reads what is known of a document.
    async fn workflow(&self, key: &WorkflowKey) -> Result<Option<Workflow>, Error>;

    /// Reads the document of that name with the highest semantic version.
    async fn newest_workflow(&self, namespace: &str, name: &str) -> Result<Option<Workflow>, Error>;

    /// Lists documents by namespace, name and semantic version, from after `after`.
    async fn workflows(
        &self,
        after: Option<&WorkflowKey>,
        limit: usize,
    ) -> Result<Page<Workflow, WorkflowKey>, Error>;

    /// Accepts a run, with an empty journal; a [`Error::Conflict`] if the id is taken.
    async fn create_run(&self, record: &Record, summary: &Summary) -> Result<(), Error>;

    /// Writes one step; a [`Error::Conflict`] unless the journal ends right before `first_index`.
    async fn append(&self, step: Step) -> Result<(), Error>;

    /// Reads what a run is pinned to.
    async fn record(&self, id: &RunId) -> Result<Option<Record>, Error>;

    /// Reads where a run stands.
    async fn summary(&self, id: &RunId) -> Result<Option<Summary>, Error>;

    /// Reads the output of a completed run.
    async fn output(&self, id: &RunId) -> Result<Option<Value>, Error>;

    /// Reads a run as a whole, besides its journal.
    async fn stored(&self, id: &RunId) -> Result<Option<Stored>, Error> {
        let Some(summary) = self.summary(id).await? else {
            return Ok(None);
        };
        let record = self.record(id).await?;
        let output = match summary.has_output() {
            true => self.output(id).await?,
            false => None,
        };
        Ok(Some(Stored {
            summary,
            record,
            output,
        }))
    }

    /// Reads entries of a journal from index `from` on: at most `limit` and, beyond the first, [`HISTORY_BYTES`].
    async fn history(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error>;

    /// Reads a state of a run that was kept.
    async fn snapshot(&self, id: &RunId, which: SnapshotKind) -> Result<Option<Vec<u8>>, Error>;

    /// Forgets entries of a journal before index `before`, at most `limit`; says how many.
    async fn forget_entries(&self, id: &RunId, before: u64, limit: usize) -> Result<usize, Error>;

    /// Lists runs, newest first, from before `before`.
    async fn runs(
        &self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Summary, Position>, Error>;

    /// Lists runs that have not ended, in order of creation, from after `after`: those of one partition, or all. A store
    /// without partitions lists all. A run whose summary is damaged comes as an error in its place.
    async fn unfinished(
        &self,
        partition: Option<u16>,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Unfinished, Position>, Error>;

    /// Lists runs that ended before `time`, oldest first; of a store that several engines share, those that this one may forget.
    async fn ended_before(&self, time: Timestamp, limit: usize) -> Result<Vec<RunId>, Error>;

    /// Forgets an ended run, its journal and its approvals; nothing if it is not there. From the first step on it is not
    /// there for [`Again::reopen`].
    async fn forget_run(&self, id: &RunId) -> Result<(), Error>;

    /// Whether writes are taken, else why not.
    fn health(&self) -> Result<(), String>;

    /// Whether a step may be taken that was not, else why not: what is kept outside of the store must be well too, without which
    /// others go on.
    fn takes_steps(&self) -> Result<(), String> {
        self.health()
    }
}

//! A run as the engine knows it: what it is pinned to, where it stands, and what its journal holds.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use muster_workflow_dsl::Resources;
use muster_workflow_dsl::journal::chain::Chain;
use muster_workflow_dsl::secret::Nonce;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use muster_workflow_dsl::usage::Usage;

use crate::behalf::Behalf;
use crate::feed::Reached;
use crate::schedule::{Claim, Newcomer};
use crate::trail::Asked;

/// Longest run id.
const LONGEST_ID: usize = 128;

/// Id of a run: the caller's own, or a UUIDv7 of ours. Clones share the text: a run that waits is known in many places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(Arc<str>);

/// Text that cannot be a run id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 128 letters, digits, '.', '_' or '-'")]
pub struct InvalidId;

impl RunId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A fresh id that sorts by time.
    #[must_use]
    pub fn fresh() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }
}

impl FromStr for RunId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        // Paths of addresses with nothing but dots mean something else.
        let named = text.bytes().any(|byte| byte != b'.');
        if named && text.len() <= LONGEST_ID && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId)
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<uuid::Uuid> for RunId {
    fn from(id: uuid::Uuid) -> Self {
        Self(id.to_string().into())
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Durable, waits for its first slot.
    Pending,
    /// Has work to do.
    Running,
    /// Waits for time to pass, or to be told something, such as the end of a run that it has started.
    Waiting,
    /// Ended with an output.
    Completed,
    /// Ended with an error.
    Faulted,
    /// Ended by a caller's wish.
    Cancelled,
    /// Held by a caller's wish.
    Paused,
}

impl Status {
    /// Whether nothing can happen any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Faulted | Self::Cancelled)
    }

    /// The name in metrics and texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Faulted => "faulted",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
        }
    }
}

/// The error a run ended with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// URI of the error's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// HTTP-like status.
    pub status: u16,
    /// JSON pointer of the task that raised it.
    pub instance: String,
    /// Short and fixed for the type.
    pub title: String,
    /// What happened this time.
    pub detail: String,
}

/// What a run is pinned to when it is accepted; never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: RunId,
    /// The document, so that later changes of the catalogue do not touch the run.
    pub document: String,
    /// Its input; null once it was erased.
    pub input: Value,
    /// What stands for the input that was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_input: Option<Chain>,
    /// What makes the markers of its secrets its own; never shown. Gone with what was erased.
    #[serde(default, skip_serializing_if = "Nonce::is_empty")]
    pub nonce: Nonce,
    /// What the document refers to and does not contain, as it was when the run was accepted.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Position in the log of events from which on it hears them: what comes once it is accepted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hears_from: u64,
}

impl Record {
    /// Where the chain over the run's journal begins.
    ///
    /// # Panics
    /// Never: plain data can be written as JSON.
    #[must_use]
    pub fn chain(&self) -> Chain {
        let input = self.input_digest().to_string();
        let resources = serde_json::to_vec(&self.resources).expect("plain data can be written");
        Chain::begin(&[
            ("id", self.id.as_str().as_bytes()),
            ("document", self.document.as_bytes()),
            ("input", input.as_bytes()),
            ("resources", &resources),
        ])
    }

    fn input_digest(&self) -> Chain {
        self.erased_input
            .unwrap_or_else(|| Chain::said(self.input.to_string().as_bytes(), &self.nonce))
    }

    /// The same without what the caller has said.
    #[must_use]
    pub fn erased(&self) -> Self {
        Self {
            erased_input: Some(self.input_digest()),
            input: Value::Null,
            nonce: Nonce::default(),
            ..self.clone()
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Where a run stands and what lists show of it; written with every step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its id.
    pub id: RunId,
    /// `document.namespace`.
    pub namespace: String,
    /// `document.name`.
    pub name: String,
    /// `document.version`.
    pub version: String,
    /// Digest of the document.
    pub digest: String,
    /// Where it stands.
    pub status: Status,
    /// The error, once faulted.
    pub failure: Option<Failure>,
    /// When it became durable.
    pub created_at: Timestamp,
    /// When its first task started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How many entries its journal has.
    pub history_length: u64,
    /// What stands for all of them, and for what the run is pinned to; none of runs that an earlier release has written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// Where its history begins, if not at the first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// What its calls have cost.
    #[serde(default)]
    pub spent: Usage,
    /// What its turn depends on.
    #[serde(flatten)]
    pub claim: Claim,
    /// What it comes of, where no caller has asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
}

/// What is known of a run beyond where it stands; nothing of most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marks {
    /// Labels to search by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The run whose beginning it shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked: Option<Forked>,
    /// How often it has been retried; above zero, parts of its journal do not count.
    pub retries: u32,
    /// Whether it was retried and has not had a slot since: it is not under way as far as its limits are concerned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lined_up: bool,
    /// Who holds it, while it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
    /// What became of its compensations, once they have begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensation: Option<Compensation>,
    /// That what people and agents have said in it was erased, or is being erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased: Option<Erased>,
    /// Where in a trace it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// On whose behalf it works, where callers are told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behalf: Option<Behalf>,
}

/// That what people and agents have said in a run was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// When it began.
    pub at: Timestamp,
    /// Who wanted it.
    pub by: String,
}

impl Marks {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a run was forked from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forked {
    /// The other run.
    pub run: RunId,
    /// Digest of what was wished for, to know the same wish again.
    pub wish: String,
}

/// What became of the compensations of a run, by the pointers of its tasks; the first of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compensation {
    /// Those that were taken back.
    pub done: Vec<String>,
    /// Those that could not be.
    pub failed: Vec<(String, Failure)>,
    /// Those whose turn has not come, or never came.
    pub left: Vec<String>,
}

/// What a run comes of, where no caller has asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Origin {
    /// Another run.
    Run(Parent),
    /// The schedule of its workflow.
    Schedule {
        /// The instant that it is for.
        scheduled_at: Timestamp,
    },
}

/// The run that has started a run, and the task of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Its id.
    pub run: RunId,
    /// JSON pointer of the task.
    pub task: String,
    /// Whether the task waits for the end of the run it has started. If it does, the two end together where the parent
    /// ends first.
    pub awaited: bool,
    /// How many runs are above the one that was started.
    pub depth: u32,
}

impl Summary {
    /// Whether the output that may be stored of it counts.
    pub(crate) fn has_output(&self) -> bool {
        self.status == Status::Completed
    }

    /// Index of the first entry that there is.
    #[must_use]
    pub fn first_entry(&self) -> u64 {
        self.cut.map_or(0, |cut| cut.first.index)
    }

    /// How far its journal goes.
    #[must_use]
    pub(crate) fn reached(&self) -> Reached {
        Reached {
            length: self.history_length,
            ended: self.status.is_final(),
        }
    }

    /// The run that waits for the end of this one.
    #[must_use]
    pub fn awaiting_parent(&self) -> Option<&Parent> {
        self.parent().filter(|parent| parent.awaited)
    }

    /// The run that has started this one.
    #[must_use]
    pub fn parent(&self) -> Option<&Parent> {
        match &self.origin {
            Some(Origin::Run(parent)) => Some(parent),
            Some(Origin::Schedule { .. }) | None => None,
        }
    }

    /// Whether it has had a slot since it was accepted, or retried, and has not ended.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        let open = !self.status.is_final() && self.status != Status::Pending;
        open && self.started_at.is_some() && !self.marks.lined_up
    }

    /// The run as the schedule is to know it.
    #[must_use]
    pub(crate) fn newcomer(&self) -> Newcomer {
        Newcomer {
            id: self.id.clone(),
            namespace: Arc::from(self.namespace.as_str()),
            claim: Arc::new(self.claim.clone()),
        }
    }

    /// Its place among the runs in order of creation.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            created_micros: self.created_at.as_microsecond(),
            id: self.id.clone(),
        }
    }
}

/// Place of a run in order of creation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Time of creation in microseconds.
    pub created_micros: i64,
    /// Tells runs of the same microsecond apart.
    pub id: RunId,
}

/// A place in a journal, and what stands for everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// How many entries are before it.
    pub index: u64,
    /// The chain there.
    pub chain: Chain,
}

/// Where the history of a run begins that has outgrown its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// What is before it is forgotten.
    pub first: Mark,
    /// The state at this place is kept: from here on the journal can be folded.
    pub base: Mark,
}

/// One entry of a journal, as bytes: the store does not read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position in the journal, from 0.
    pub index: u64,
    /// The event as JSON.
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_wherever_they_come_from() {
        for good in ["a", "order-17.retry_2", &"x".repeat(128), RunId::fresh().as_str()] {
            assert_eq!(good.parse::<RunId>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "a/b", "ä", "a\0", &"x".repeat(129)] {
            assert_eq!(bad.parse::<RunId>(), Err(InvalidId), "{bad:?}");
            assert!(serde_json::from_value::<RunId>(Value::from(bad)).is_err());
        }
    }
}

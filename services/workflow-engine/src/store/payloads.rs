//! Payloads: large values of runs, kept apart from the journals that refer to them.
//!
//! A value whose JSON is longer than a threshold is in no journal, record, output or state: where it was there is a hole, and
//! at the head of what is left is written where the holes are and which payload fills each (see [`cut`](mod@cut)). What is
//! read has its holes filled, so nobody above [`Apart`] knows of payloads; the bytes are the same to the last one. Therefore the
//! chain of digests over a journal covers its payloads as it covers everything else, and a run whose payload was changed or is
//! gone is found by whoever reads it.
//!
//! **A payload is kept under the SHA-256 of its bytes**, so a value that ten tasks hand on is stored once; and whoever reads it
//! checks it.
//!
//! **It is kept in a room: that of its run, and of a span of the run's history.** Nobody counts references. A run's payloads are
//! forgotten with the run, or when what was said in it is erased. But a run may go on for years, with a history that is cut from
//! time to time: each cut begins a new span ([`Room::of`]), what is written from then on refers to payloads of the new span
//! alone, and with the entries before a cut go the spans before it. A value that outlives its span is stored once more, in the
//! step of the state that holds it. What the run was accepted with belongs to the first span and stays.
//!
//! **A payload is durable before what refers to it.** The embedded store and Redis take both in one atomic step
//! ([`crate::store::Step::payloads`]). Elsewhere it is put first: a crash in between leaves a payload that nobody refers to, which
//! goes with its span; never a reference to nothing. What is left of a run that was never accepted is forgotten at once where the
//! refusal is known; of a crash right there at most one input stays, under a time of creation that no run has. Such runs are not
//! looked for: two engines whose settings name the same prefix by mistake would clear away each other's.
//!
//! Rejected: counting references (a count that is wrong once is wrong for ever, and each step would write one); payloads shared
//! by all runs (erasing a run would have to ask all others); marking what is in use and sweeping the rest (a replica that has
//! lost its partition and does not know it yet would sweep what the next one has just referred to; a span that is over is over
//! for everybody); a reference as a JSON value (any value that looks like one would need an escape, at any depth).

mod apart;
mod bucket;
#[cfg(test)]
pub(crate) mod conformance;
mod cut;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::run::{RunId, Summary};

pub use apart::Apart;
pub(crate) use bucket::open as open_bucket;
pub use bucket::{Bucket, Unusable};

/// SHA-256 in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Text that is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 hexadecimal digits in lower case")]
pub struct NoDigest;

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(muster_workflow_dsl::digest(text))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, NoDigest> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(digit) {
            Ok(Self(text))
        } else {
            Err(NoDigest)
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A value that is kept apart: its text, or what its own holes leave of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Of the text.
    pub digest: Digest,
    /// The text.
    pub text: String,
}

impl Payload {
    /// Of this text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self {
            digest: Digest::of(&text),
            text,
        }
    }
}

/// Where payloads are kept: see the module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Room {
    /// The run.
    pub run: RunId,
    /// When it was accepted, in microseconds: another run with this id, after this one was forgotten, is another run.
    pub created_micros: i64,
    /// The span of its history: the index of the entry at which it begins.
    pub span: u64,
}

impl Room {
    /// That of what is written with this summary.
    #[must_use]
    pub fn of(summary: &Summary) -> Self {
        Self {
            run: summary.id.clone(),
            created_micros: summary.created_at.as_microsecond(),
            span: summary.cut.map_or(0, |cut| cut.base.index),
        }
    }

    /// The same run, after all of its spans.
    pub(crate) fn whole_run(self) -> Self {
        Self {
            span: u64::MAX,
            ..self
        }
    }

    /// Whether a payload of this span stays where those before the room are forgotten: what the run was accepted with is in
    /// the first span, and stays as long as the run.
    pub(in crate::store) fn spares(&self, span: u64, digest: &str, except: &[Digest]) -> bool {
        span >= self.span || (span == 0 && except.iter().any(|spared| spared.as_str() == digest))
    }
}

/// Keeps payloads.
#[async_trait]
pub trait Payloads: Send + Sync {
    /// Keeps payloads that are not there yet; durable when it answers.
    async fn put_payloads(&self, room: &Room, payloads: &[Payload]) -> Result<(), Error>;

    /// The text of a payload, as it is there.
    async fn payload(&self, room: &Room, digest: &Digest) -> Result<Option<Vec<u8>>, Error>;

    /// Forgets the payloads of the room's run in all spans before the room's; of the first span, those of `except` stay.
    async fn forget_payloads(&self, room: &Room, except: &[Digest]) -> Result<(), Error>;

    /// Where a payload is, for people.
    fn payload_place(&self, room: &Room, digest: &Digest) -> String;
}

//! Where answers are kept for messages whose callers ask for durability: the port, what the adapters have in common, and the
//! suite that every adapter passes.
//!
//! A record is made before a message goes to an agent and says who leads, that is, waits for the agent's answer; the leader
//! holds it by a lease that it renews. The answer takes the place of the lease. A record whose lease has ended without an answer
//! is led by whoever comes next. Records are forgotten a while after they were written last.
//!
//! The store is bounded in number and bytes, and refuses what is new when it is full: to throw an answer away before its time
//! would break what was promised for it. In Redis the bound is Redis's `maxmemory`.

#[cfg(test)]
pub(crate) mod conformance;

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::deduplication::Fingerprint;

/// A message, whatever the length of its names: a hash of its caller, target and id.
pub type Id = [u8; 32];

/// An answer that was given, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who answered.
    pub head: Head,
    /// The answer, encoded as of `SendMessage`, where [`Said::Whole`] says so; else empty.
    pub bytes: Vec<u8>,
}

/// What is kept beside the answer's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The agent that answered.
    pub agent: String,
    /// Its instance.
    pub instance: String,
    /// The A2A extensions that it said are in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// What is kept of the answer.
    pub said: Said,
}

/// What is kept of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// All of it.
    Whole,
    /// The id of the task that it is, or that it gave news of.
    Task(String),
    /// How many bytes it had, which were too many; it was no task.
    TooLarge(usize),
}

/// What a call says of itself when it comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Hash of the request's body.
    pub fingerprint: Fingerprint,
    /// A name that no other call has.
    pub leader: String,
    /// How long it leads without a sign of life.
    pub lease: Duration,
    /// How long a record is kept after it was written last.
    pub keep: Duration,
}

/// What a call finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nobody leads, so this call does from now on; or it has done so already.
    Lead,
    /// The same, where another call led that has given no sign of life within its lease.
    TakenOver,
    /// Another call leads.
    UnderWay {
        /// How long its lease lasts if it is not renewed.
        left: Duration,
    },
    /// The message was answered.
    Answered(Answer),
    /// The id was used with another body.
    Reused,
    /// No more records are taken.
    Full,
}

impl Found {
    /// A call leads, and may have taken over from another one.
    pub(super) const fn leading(follows: bool) -> Self {
        if follows { Self::TakenOver } else { Self::Lead }
    }
}

/// How much a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Records at most.
    pub entries: usize,
    /// Bytes at which no more records are taken; the answers to those that were taken may still come.
    pub bytes: usize,
}

/// Answers by message. All times of one store are read from one clock: from Redis's own there, else from the caller's.
#[async_trait]
pub trait Answers: Send + Sync + 'static {
    /// A call comes in. When this returns [`Found::Lead`] or [`Found::TakenOver`], that is as durable as the store can make it.
    async fn claim(&self, id: &Id, claim: &Claim, now: Timestamp) -> Result<Found, Error>;

    /// The leader's sign of life. Whether it leads still.
    async fn renew(&self, id: &Id, claim: &Claim, now: Timestamp) -> Result<bool, Error>;

    /// The leader has the answer, also if its lease has ended in the meantime. Whether it is kept; if not, somebody else leads
    /// or has answered.
    async fn keep(&self, id: &Id, claim: &Claim, answer: &Answer, now: Timestamp) -> Result<bool, Error>;

    /// The leader leaves without an answer. Does nothing if it does not lead.
    async fn leave(&self, id: &Id, claim: &Claim) -> Result<(), Error>;

    /// Forgets the records that were written last before `before`; a limited number of them at a time. Returns how many it
    /// forgot.
    async fn sweep_answers(&self, before: Timestamp) -> Result<usize, Error>;
}

/// A record as memory and the embedded database keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) header: Header,
    /// The answer's bytes.
    pub(super) bytes: Vec<u8>,
}

/// All of a record but the answer's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    fingerprint: Fingerprint,
    leader: String,
    /// When the lease ends.
    until: Timestamp,
    /// When it was written last, but for renewals.
    pub(super) since: Timestamp,
    answer: Option<Head>,
}

/// What becomes of a record when a call comes in.
pub(super) enum Claimed {
    /// This takes its place, and the call leads; whether it has taken over from another one.
    Lead(Record, bool),
    /// It stays as it is.
    Stays(Found),
}

impl Record {
    /// A call comes in and finds this record, or none.
    pub(super) fn claimed(before: Option<&Self>, claim: &Claim, now: Timestamp) -> Claimed {
        let mut follows = false;
        if let Some(before) = before.filter(|before| before.is_kept(claim, now)) {
            let header = &before.header;
            if header.fingerprint != claim.fingerprint {
                return Claimed::Stays(Found::Reused);
            }
            if let Some(head) = &header.answer {
                return Claimed::Stays(Found::Answered(Answer {
                    head: head.clone(),
                    bytes: before.bytes.clone(),
                }));
            }
            let left = Duration::try_from(header.until.duration_since(now)).unwrap_or_default();
            if header.leader != claim.leader && !left.is_zero() {
                return Claimed::Stays(Found::UnderWay { left });
            }
            follows = header.leader != claim.leader;
        }
        let record = Self {
            header: Header {
                fingerprint: claim.fingerprint,
                leader: claim.leader.clone(),
                until: after(now, claim.lease),
                since: now,
                answer: None,
            },
            bytes: Vec::new(),
        };
        Claimed::Lead(record, follows)
    }

    /// The record after its leader's sign of life; none if that is not its leader.
    pub(super) fn renewed(&self, claim: &Claim, now: Timestamp) -> Option<Self> {
        if !self.is_led_by(claim) {
            return None;
        }
        let mut renewed = self.clone();
        renewed.header.until = after(now, claim.lease);
        Some(renewed)
    }

    /// The record with its leader's answer; none if somebody else has taken over.
    pub(super) fn answered(
        before: Option<&Self>,
        claim: &Claim,
        answer: &Answer,
        now: Timestamp,
    ) -> Option<Self> {
        if let Some(before) = before.filter(|before| before.is_kept(claim, now)) {
            let is_ours =
                before.header.leader == claim.leader && before.header.fingerprint == claim.fingerprint;
            if !is_ours {
                return None;
            }
        }
        Some(Self {
            header: Header {
                fingerprint: claim.fingerprint,
                leader: claim.leader.clone(),
                until: now,
                since: now,
                answer: Some(answer.head.clone()),
            },
            bytes: answer.bytes.clone(),
        })
    }

    /// Whether this call waits for the answer.
    pub(super) fn is_led_by(&self, claim: &Claim) -> bool {
        self.header.leader == claim.leader && self.header.answer.is_none()
    }

    fn is_kept(&self, claim: &Claim, now: Timestamp) -> bool {
        now < after(self.header.since, claim.keep)
    }
}

fn after(now: Timestamp, passed: Duration) -> Timestamp {
    SignedDuration::try_from(passed)
        .ok()
        .and_then(|passed| now.checked_add(passed).ok())
        .unwrap_or(Timestamp::MAX)
}

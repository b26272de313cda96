//! One entry of the inbox and all that may happen to it. Pure: times come in as milliseconds of the store's clock.
//!
//! An entry is pending, is lent out under a lease, and ends done or dead. Each change makes the entry as it is afterwards out
//! of the entry as it was, or says why that may not be; the stores keep what comes out and decide nothing. So the rules
//! exist once, whether an entry lies in memory, on a disk or in Redis.
//!
//! Urgency and age are one number, the [`Entry::order`]: when the entry was first ready, less the ageing time for each step of
//! priority. The lowest goes first. So the more urgent goes first among those that came within the ageing time of each other,
//! nobody waits for ever, and the order of two entries never changes, which is what lets any ordered index keep it.
//! Rejected: a rank that rises step by step while the entry waits; it says the same with a timer for each step.

mod life;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::priority::Priority;

/// Milliseconds since 1970 by the store's clock.
pub type Millis = u64;

/// Longest text of a failure that is kept.
const LONGEST_TEXT: usize = 1_000;

/// A time span in milliseconds.
#[must_use]
pub fn millis(span: Duration) -> Millis {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What an entry is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long a message waits until it counts as one step more urgent.
    pub ageing: Duration,
    /// How long answered entries are kept.
    pub done_retention: Duration,
    /// How long dead letters are kept.
    pub dead_retention: Duration,
    /// Failures after which an entry is dead.
    pub failures: u32,
    /// Most entries of one target that have not ended.
    pub entries: usize,
    /// Most entries of all targets that have not ended.
    pub total: usize,
    /// Most answered entries that are kept, and most dead letters; the oldest go.
    pub ended: usize,
    /// Most bytes of messages and answers; answered entries go first, then new messages are refused.
    pub bytes: u64,
}

/// Who takes an entry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// The router sends it.
    Push,
    /// A consumer fetches it.
    Pull,
}

impl Delivery {
    /// Its name in keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
        }
    }
}

/// Where an entry is in its life, without the particulars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Waits.
    Pending,
    /// Is lent out.
    Delivering,
    /// Was answered.
    Done,
    /// Ended without.
    Dead,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivering, Self::Done, Self::Dead];

    /// Its name in keys and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivering => "delivering",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// Whether the entry has ended.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Dead)
    }
}

/// Why an entry is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its time to live ended.
    Expired,
    /// It is refused whenever it comes.
    Refused,
    /// It failed too often.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl Reason {
    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What an attempt met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The gRPC code.
    pub code: String,
    /// The stable reason; empty where there is none.
    pub reason: String,
    /// What happened.
    pub message: String,
}

impl Failure {
    /// One that somebody worded.
    #[must_use]
    pub fn new(code: &str, reason: &str, message: &str) -> Self {
        let cut = |text: &str| text[..text.floor_char_boundary(LONGEST_TEXT)].to_owned();
        Self {
            code: code.to_owned(),
            reason: cut(reason),
            message: cut(message),
        }
    }
}

/// Where an entry is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits; `ready` once its time has come.
    Pending {
        /// Whether it stands in its target's queue.
        ready: bool,
    },
    /// Is lent out.
    Delivering {
        /// Tells this lease from all others.
        token: String,
        /// When the lease ends.
        until: Millis,
        /// To whom.
        by: String,
    },
    /// Was answered.
    Done {
        /// When.
        at: Millis,
        /// Which agent's instance did; empty where a consumer acknowledged it.
        agent: String,
        /// See `agent`.
        instance: String,
        /// Size of the answer that is kept.
        kept: u64,
        /// Size of the answer that was too large to keep.
        dropped: u64,
    },
    /// Ended without.
    Dead {
        /// When.
        at: Millis,
        /// Why.
        reason: Reason,
    },
}

/// A message that is to be taken in.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its id.
    pub id: String,
    /// Whom it is for, in words.
    pub target: String,
    /// How urgent it is.
    pub priority: Priority,
    /// Who takes it out.
    pub delivery: Delivery,
    /// Hash of what makes it the same: target, delivery and message.
    pub fingerprint: String,
    /// Who sent it.
    pub caller: String,
    /// Headers for the agent.
    pub headers: Vec<(String, String)>,
    /// How long it may take.
    pub ttl: Duration,
    /// How long it is held back.
    pub delay: Duration,
    /// The message, encoded.
    pub body: bytes::Bytes,
}

/// One entry, without its message and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// Grows with each entry of a store.
    pub sequence: u64,
    /// Whom it is for, in words.
    pub target: String,
    /// Its priority's rank.
    pub rank: u8,
    /// Who takes it out.
    pub delivery: Delivery,
    /// Hash of what makes it the same.
    pub fingerprint: String,
    /// Who sent it.
    pub caller: String,
    /// Headers for the agent.
    pub headers: Vec<(String, String)>,
    /// Size of the message.
    pub body_bytes: u64,
    /// How long it may take, from when it is first ready.
    pub ttl: Millis,
    /// When it was taken in.
    pub enqueued_at: Millis,
    /// When it was first ready, or put back from the dead.
    pub queued_at: Millis,
    /// Not lent out before.
    pub not_before: Millis,
    /// Dies then.
    pub expires_at: Millis,
    /// How often it was lent out.
    pub attempts: u32,
    /// How many of these failed.
    pub failures: u32,
    /// What the last failed one met.
    pub last_failure: Option<Failure>,
    /// Where it is.
    pub state: State,
}

/// What is to happen to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was answered.
    Finish {
        /// Of the lease.
        token: String,
        /// Agent and instance; empty where a consumer acknowledged it.
        by: (String, String),
        /// Size of the answer that is kept.
        kept: u64,
        /// Size of the answer that is not.
        dropped: u64,
    },
    /// It goes back into the queue.
    Retry {
        /// Of the lease.
        token: String,
        /// Not before that long.
        delay: Duration,
        /// What happened.
        failure: Option<Failure>,
        /// Whether it counts as a failure.
        counts: bool,
    },
    /// It is dead.
    Bury {
        /// Of the lease.
        token: String,
        /// Why.
        reason: Reason,
        /// What happened.
        failure: Failure,
    },
    /// Its lease is prolonged.
    Extend {
        /// Of the lease.
        token: String,
        /// From now on.
        lease: Duration,
    },
    /// It is not wanted any more.
    Cancel,
    /// It is wanted again.
    Replay,
}

/// Why something may not happen to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The lease is another's, or has ended with the entry.
    LeaseLost,
    /// The entry is in another state than it takes.
    State(Status),
}

impl Entry {
    /// The entry that a draft becomes.
    #[must_use]
    pub fn new(draft: &Draft, sequence: u64, now: Millis) -> Self {
        let queued_at = now.saturating_add(millis(draft.delay));
        let ttl = millis(draft.ttl);
        Self {
            id: draft.id.clone(),
            sequence,
            target: draft.target.clone(),
            rank: u8::try_from(draft.priority.rank()).unwrap_or(u8::MAX),
            delivery: draft.delivery,
            fingerprint: draft.fingerprint.clone(),
            caller: draft.caller.clone(),
            headers: draft.headers.clone(),
            body_bytes: draft.body.len() as u64,
            ttl,
            enqueued_at: now,
            queued_at,
            not_before: queued_at,
            expires_at: queued_at.saturating_add(ttl),
            attempts: 0,
            failures: 0,
            last_failure: None,
            state: State::Pending {
                ready: queued_at <= now,
            },
        }
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(&self) -> Priority {
        Priority::ALL
            .get(usize::from(self.rank))
            .copied()
            .unwrap_or_default()
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self.state {
            State::Pending { .. } => Status::Pending,
            State::Delivering { .. } => Status::Delivering,
            State::Done { .. } => Status::Done,
            State::Dead { .. } => Status::Dead,
        }
    }

    /// Whether it stands in its target's queue.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, State::Pending { ready: true })
    }

    /// Its place in its target's queue: the lowest goes first.
    #[must_use]
    pub fn order(&self, policy: &Policy) -> i64 {
        let advance = millis(policy.ageing).saturating_mul(u64::from(self.rank));
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        signed(self.queued_at).saturating_sub(signed(advance))
    }

    /// When something happens to it by itself: see [`Self::at_its_time`].
    #[must_use]
    pub fn due(&self, policy: &Policy) -> Millis {
        match &self.state {
            State::Pending { ready: true } => self.expires_at,
            State::Pending { ready: false } => self.not_before.min(self.expires_at),
            State::Delivering { until, .. } => *until,
            State::Done { at, .. } => at.saturating_add(millis(policy.done_retention)),
            State::Dead { at, .. } => at.saturating_add(millis(policy.dead_retention)),
        }
    }

    /// Bytes of message and answer that are kept of it.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match self.state {
            State::Done { kept, .. } => kept,
            _ => self.body_bytes,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

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

    /// What it becomes when its time has come; `None`: it is forgotten.
    #[must_use]
    pub fn at_its_time(mut self, now: Millis, policy: &Policy) -> Option<Self> {
        match self.state {
            State::Pending { .. } => Some(self.queued(now)),
            State::Delivering { by, .. } => {
                let message = format!("the lease of '{by}' ran out without a word of what became of it");
                self.state = State::Pending { ready: false };
                let failure = Failure::new("ABORTED", "", &message);
                Some(self.failed(Duration::ZERO, Some(failure), true, now, policy))
            }
            State::Done { .. } | State::Dead { .. } => None,
        }
    }

    /// Lent out until `now` and that long.
    ///
    /// # Errors
    /// It does not stand in its queue, or its time to live has ended.
    pub fn lent(mut self, token: &str, by: &str, lease: Duration, now: Millis) -> Result<Self, Refusal> {
        if !self.is_ready() || self.expires_at <= now {
            return Err(Refusal::State(self.status()));
        }
        self.attempts = self.attempts.saturating_add(1);
        self.state = State::Delivering {
            token: token.to_owned(),
            until: now.saturating_add(millis(lease)),
            by: by.to_owned(),
        };
        Ok(self)
    }

    /// What it becomes by a change.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn changed(mut self, change: Change, now: Millis, policy: &Policy) -> Result<Self, Refusal> {
        match change {
            Change::Finish {
                token,
                by,
                kept,
                dropped,
            } => {
                self.check(&token)?;
                self.state = State::Done {
                    at: now,
                    agent: by.0,
                    instance: by.1,
                    kept,
                    dropped,
                };
                Ok(self)
            }
            Change::Retry {
                token,
                delay,
                failure,
                counts,
            } => {
                self.check(&token)?;
                Ok(self.failed(delay, failure, counts, now, policy))
            }
            Change::Bury {
                token,
                reason,
                failure,
            } => {
                self.check(&token)?;
                self.failures = self.failures.saturating_add(1);
                self.last_failure = Some(failure);
                Ok(self.dead(reason, now))
            }
            Change::Extend { token, lease } => {
                self.check(&token)?;
                if let State::Delivering { until, .. } = &mut self.state {
                    *until = now.saturating_add(millis(lease));
                }
                Ok(self)
            }
            Change::Cancel => match self.state {
                State::Pending { .. } => Ok(self.dead(Reason::Cancelled, now)),
                State::Dead {
                    reason: Reason::Cancelled,
                    ..
                } => Ok(self),
                _ => Err(Refusal::State(self.status())),
            },
            Change::Replay => {
                if self.status() != Status::Dead {
                    return Err(Refusal::State(self.status()));
                }
                self.queued_at = now;
                self.not_before = now;
                self.expires_at = now.saturating_add(self.ttl);
                self.failures = 0;
                self.state = State::Pending { ready: true };
                Ok(self)
            }
        }
    }

    /// A lease that has run out holds until somebody else has been given one: its holder may know better.
    fn check(&self, token: &str) -> Result<(), Refusal> {
        match &self.state {
            State::Delivering { token: own, .. } if own == token => Ok(()),
            _ => Err(Refusal::LeaseLost),
        }
    }

    fn failed(
        mut self,
        delay: Duration,
        failure: Option<Failure>,
        counts: bool,
        now: Millis,
        policy: &Policy,
    ) -> Self {
        if failure.is_some() {
            self.last_failure = failure;
        }
        if counts {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= policy.failures {
                return self.dead(Reason::Failed, now);
            }
        }
        self.not_before = now.saturating_add(millis(delay));
        self.queued(now)
    }

    /// Pending, as the time is: held back, in its queue, or too late.
    fn queued(mut self, now: Millis) -> Self {
        if self.expires_at <= now {
            return self.dead(Reason::Expired, now);
        }
        self.state = State::Pending {
            ready: self.not_before <= now,
        };
        self
    }

    fn dead(mut self, reason: Reason, now: Millis) -> Self {
        self.state = State::Dead { at: now, reason };
        self
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const POLICY: Policy = Policy {
        ageing: Duration::from_secs(60),
        done_retention: Duration::from_secs(3600),
        dead_retention: Duration::from_secs(7200),
        failures: 3,
        entries: 5,
        total: 8,
        ended: 4,
        bytes: 1000,
    };

    pub(crate) fn draft(id: &str, target: &str, priority: Priority) -> Draft {
        Draft {
            id: id.to_owned(),
            target: target.to_owned(),
            priority,
            delivery: Delivery::Push,
            fingerprint: format!("{id} {target}"),
            caller: "anybody".to_owned(),
            headers: vec![("traceparent".to_owned(), "00-1".to_owned())],
            ttl: Duration::from_secs(600),
            delay: Duration::ZERO,
            body: bytes::Bytes::from(format!("body of {id}")),
        }
    }

    fn entry() -> Entry {
        Entry::new(&draft("m", "weather", Priority::Normal), 1, 1_000_000)
    }

    fn lent() -> Entry {
        entry()
            .lent("t", "router", Duration::from_secs(30), 1_000_000)
            .unwrap()
    }

    fn retry(delay: u64, counts: bool) -> Change {
        Change::Retry {
            token: "t".to_owned(),
            delay: Duration::from_secs(delay),
            failure: Some(Failure::new("UNAVAILABLE", "", "no")),
            counts,
        }
    }

    #[test]
    fn only_the_holder_of_the_lease_ends_it() {
        let finish = |token: &str| Change::Finish {
            token: token.to_owned(),
            by: ("weather".to_owned(), "w1".to_owned()),
            kept: 3,
            dropped: 0,
        };
        assert_eq!(
            lent().changed(finish("u"), 1_000_001, &POLICY),
            Err(Refusal::LeaseLost)
        );
        let done = lent().changed(finish("t"), 1_000_001, &POLICY).unwrap();
        assert_eq!((done.status(), done.bytes()), (Status::Done, 3));
        assert_eq!(
            done.changed(finish("t"), 1_000_002, &POLICY),
            Err(Refusal::LeaseLost)
        );
    }

    #[test]
    fn a_failure_holds_it_back_and_the_last_one_ends_it() {
        let held = lent().changed(retry(5, true), 1_000_000, &POLICY).unwrap();
        assert!(!held.is_ready());
        assert_eq!((held.failures, held.due(&POLICY)), (1, 1_005_000));
        let ready = held.at_its_time(1_005_000, &POLICY).unwrap();
        assert!(ready.is_ready());

        let mut tired = lent();
        tired.failures = 2;
        let patient = tired
            .clone()
            .changed(retry(5, false), 1_000_000, &POLICY)
            .unwrap();
        assert_eq!((patient.failures, patient.status()), (2, Status::Pending));
        let dead = tired.changed(retry(5, true), 1_000_000, &POLICY).unwrap();
        assert_eq!(
            dead.state,
            State::Dead {
                at: 1_000_000,
                reason: Reason::Failed
            }
        );
    }

    #[test]
    fn a_lease_that_runs_out_puts_it_back_or_ends_it() {
        let back = lent().at_its_time(1_030_000, &POLICY).unwrap();
        assert!(back.is_ready());
        assert_eq!((back.attempts, back.failures), (1, 1));
        let late = lent().at_its_time(1_600_000, &POLICY).unwrap();
        assert_eq!(
            late.state,
            State::Dead {
                at: 1_600_000,
                reason: Reason::Expired
            }
        );
    }

    #[test]
    fn nothing_is_lent_out_after_its_time() {
        let late = entry().lent("t", "router", Duration::from_secs(1), 1_600_000);
        assert_eq!(late, Err(Refusal::State(Status::Pending)));
    }

    #[test]
    fn what_is_replayed_gets_its_whole_time_again() {
        let dead = entry().changed(Change::Cancel, 1_100_000, &POLICY).unwrap();
        let again = dead.changed(Change::Replay, 2_000_000, &POLICY).unwrap();
        assert_eq!((again.is_ready(), again.expires_at), (true, 2_600_000));
        assert_eq!(
            again.changed(Change::Replay, 2_000_000, &POLICY),
            Err(Refusal::State(Status::Pending))
        );
    }

    #[test]
    fn a_message_that_waits_overtakes_fresh_ones_that_are_more_urgent() {
        let at = |priority, second: u64| {
            Entry::new(&draft("m", "weather", priority), 1, second * 1000).order(&POLICY)
        };
        assert!(at(Priority::Urgent, 1000) < at(Priority::Low, 900));
        assert!(at(Priority::Low, 900) < at(Priority::Urgent, 1081));
        assert!(at(Priority::High, 1000) < at(Priority::Normal, 1000));
    }
}

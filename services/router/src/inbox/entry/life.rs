//! What may happen to an entry, and what it becomes by it.

use std::time::Duration;

use super::{Change, Entry, Failure, Millis, Policy, Reason, Refusal, State, Status, millis};

impl Entry {
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

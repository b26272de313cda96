//! How often, how soon and how long a failed `try` is tried again.

use std::time::Duration;

use super::Period;
use crate::expression::Expression;

/// Most retries of one task: what a count may say, and what holds where only a duration limits them.
pub const MOST_RETRIES: u32 = 10_000;

/// At most so many retries where the policy limits them by nothing.
const MOST_UNLIMITED_RETRIES: u32 = 1_000;

/// Longest delay before a retry. What grows or is computed beyond it is cut to it.
pub const LONGEST_DELAY: Duration = Duration::from_secs(30 * 24 * 3600);

/// A retry policy.
#[derive(Debug, Clone)]
pub struct Retry {
    /// `when`: try again only if this is true of the error.
    pub when: Option<Expression>,
    /// `exceptWhen`: do not try again if this is true of the error.
    pub except_when: Option<Expression>,
    /// `delay` before the first retry; zero when the author left it away.
    pub delay: Period,
    /// How the delay grows from one retry to the next.
    pub backoff: Backoff,
    /// When to give up.
    pub limit: RetryLimit,
    /// `jitter`: a random addition to each delay.
    pub jitter: Option<Jitter>,
}

/// How the delay grows from one retry to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// Not at all.
    Constant,
    /// By the delay itself: `delay`, twice `delay`, three times `delay`.
    Linear,
    /// It doubles: `delay`, twice `delay`, four times `delay`.
    Exponential,
}

/// When to give up. Fields that are left away do not limit; the parser warns where neither a count nor a total
/// duration limits the retries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RetryLimit {
    /// `attempt.count`: at most so many retries.
    pub attempts: Option<u32>,
    /// `attempt.duration`: at most so long for each attempt.
    pub attempt_duration: Option<Period>,
    /// `duration`: at most so long for all attempts together.
    pub duration: Option<Period>,
}

impl RetryLimit {
    /// How many retries there are at most.
    #[must_use]
    pub fn most_retries(&self) -> u32 {
        let without_count = if self.duration.is_some() {
            MOST_RETRIES
        } else {
            MOST_UNLIMITED_RETRIES
        };
        self.attempts.unwrap_or(without_count)
    }
}

/// Bounds of the random addition to a delay; where both are known, `from` is not above `to`.
#[derive(Debug, Clone, PartialEq)]
pub struct Jitter {
    /// At least so much.
    pub from: Period,
    /// At most so much.
    pub to: Period,
}

impl Backoff {
    /// The delay before the retry with this number, from 1, without jitter. Saturates instead of overflowing.
    #[must_use]
    pub fn delay(self, base: Duration, retry: u32) -> Duration {
        let earlier = retry.saturating_sub(1);
        match self {
            Self::Constant => base,
            Self::Linear => base.saturating_mul(retry.max(1)),
            Self::Exponential => base.saturating_mul(2_u32.saturating_pow(earlier)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_as_their_names_say() {
        let second = Duration::from_secs(1);
        let delays = |backoff: Backoff| [1, 2, 3, 4].map(|retry| backoff.delay(second, retry).as_secs());
        assert_eq!(delays(Backoff::Constant), [1, 1, 1, 1]);
        assert_eq!(delays(Backoff::Linear), [1, 2, 3, 4]);
        assert_eq!(delays(Backoff::Exponential), [1, 2, 4, 8]);
    }

    #[test]
    fn a_delay_never_overflows() {
        let delay = Backoff::Exponential.delay(Duration::from_secs(u64::MAX / 2), u32::MAX);
        assert_eq!(delay, Duration::MAX);
        assert_eq!(
            Backoff::Linear.delay(Duration::from_secs(3), 0),
            Duration::from_secs(3)
        );
    }
}

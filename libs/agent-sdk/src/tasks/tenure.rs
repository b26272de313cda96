//! Until when an instance may write: the lease's time by its own monotonic clock, counted from before it asked, less a margin.
//!
//! Redis counts the lease from when it heard the question, which is later, so that an instance stops before Redis and everybody
//! else counts it as ended. What is still under way then meets the fence.

use std::time::Duration;

/// The part of a lease that is left unused at its end.
const MARGIN: u32 = 10;

/// How many tries to renew fit into a lease: two may fail.
const RENEWALS: u32 = 3;

/// See the module. Times are those of the monotonic clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tenure {
    until: Duration,
}

impl Tenure {
    /// The lease was renewed for so long by a question that was asked at this time.
    pub(super) fn renew(&mut self, asked: Duration, lease: Duration) {
        // Answers may come in another order than the questions were asked.
        self.until = self.until.max(asked + (lease - lease / MARGIN));
    }

    /// It has ended, whatever was thought.
    pub(super) fn end(&mut self) {
        self.until = Duration::ZERO;
    }

    /// How long the instance may still write.
    pub(super) fn left(&self, now: Duration) -> Duration {
        self.until.saturating_sub(now)
    }
}

/// How long after one renewal the next is asked for.
pub(super) fn pause(lease: Duration) -> Duration {
    lease / RENEWALS
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    #[test]
    fn writing_stops_before_the_lease_ends() {
        let mut tenure = Tenure::default();
        assert_eq!(tenure.left(Duration::ZERO), Duration::ZERO);
        let asked = Duration::from_secs(100);
        tenure.renew(asked, LEASE);
        let end = asked + LEASE;
        assert!(!tenure.left(asked + pause(LEASE)).is_zero());
        assert_eq!(tenure.left(end - LEASE / MARGIN), Duration::ZERO);
        tenure.renew(asked - LEASE, LEASE);
        assert!(
            !tenure.left(asked).is_zero(),
            "an older answer takes nothing away"
        );
        tenure.end();
        assert_eq!(tenure.left(asked), Duration::ZERO);
    }
}

//! A retry budget: retries may be a share of the calls, and a few per second besides, but no more.
//!
//! A fixed number of retries per call multiplies the load exactly when everything fails. The budget is a bucket
//! of tokens: each call puts a share of a token in, each retry takes a whole one out, and a trickle keeps a quiet
//! client able to retry at all. The bucket's size bounds a burst.

use std::time::Duration;

/// How many retries are allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Retries per call, such as 0.2 for one in five.
    pub share: f64,
    /// Retries per second that are allowed whatever the traffic.
    pub minimum_per_second: f64,
    /// How many retries may be saved up.
    pub burst: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            share: 0.2,
            minimum_per_second: 1.0,
            burst: 100.0,
        }
    }
}

/// The budget of one client. Times are those of a monotonic clock.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryBudget {
    config: Config,
    tokens: f64,
    refilled_at: Duration,
}

impl RetryBudget {
    /// A budget that starts with what the trickle gives in ten seconds; numbers that make no sense count as 0.
    #[must_use]
    pub fn new(config: Config, now: Duration) -> Self {
        let sane = |number: f64| if number.is_finite() { number.max(0.0) } else { 0.0 };
        let config = Config {
            share: sane(config.share),
            minimum_per_second: sane(config.minimum_per_second),
            burst: sane(config.burst),
        };
        Self {
            config,
            tokens: (config.minimum_per_second * 10.0).min(config.burst),
            refilled_at: now,
        }
    }

    /// A call was made (not a retry of one).
    pub fn called(&mut self, now: Duration) {
        self.refill(now);
        self.tokens = (self.tokens + self.config.share).min(self.config.burst);
    }

    /// Whether a retry may be made now; if so, it is paid for.
    pub fn withdraw(&mut self, now: Duration) -> bool {
        self.refill(now);
        let affordable = self.tokens >= 1.0;
        if affordable {
            self.tokens -= 1.0;
        }
        affordable
    }

    /// How many retries could be made at once.
    #[must_use]
    pub const fn balance(&self) -> f64 {
        self.tokens
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.refilled_at);
        self.refilled_at = self.refilled_at.max(now);
        let trickle = passed.as_secs_f64() * self.config.minimum_per_second;
        self.tokens = (self.tokens + trickle).min(self.config.burst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_call_in_five_may_be_repeated() {
        let config = Config {
            minimum_per_second: 0.0,
            ..Config::default()
        };
        let mut budget = RetryBudget::new(config, Duration::ZERO);
        for _ in 0..101 {
            budget.called(Duration::ZERO);
        }
        let retries = (0..101).filter(|_| budget.withdraw(Duration::ZERO)).count();
        assert_eq!(retries, 20);
    }

    #[test]
    fn a_quiet_client_may_still_retry() {
        let mut budget = RetryBudget::new(Config::default(), Duration::ZERO);
        while budget.withdraw(Duration::ZERO) {}
        assert!(budget.withdraw(Duration::from_secs(2)));
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let mut budget = RetryBudget::new(Config::default(), Duration::from_secs(100));
        while budget.withdraw(Duration::from_secs(100)) {}
        assert!(!budget.withdraw(Duration::from_secs(1)));
        assert!(!budget.withdraw(Duration::from_secs(100)));
    }

    proptest! {
        #[test]
        fn retries_never_exceed_what_calls_and_time_have_paid_for(
            share in 0.0f64..1.0, minimum in 0.0f64..5.0, burst in 0.0f64..50.0,
            steps in proptest::collection::vec((any::<bool>(), 0u64..2000), 1..300),
        ) {
            let config = Config { share, minimum_per_second: minimum, burst };
            let mut budget = RetryBudget::new(config, Duration::ZERO);
            let start = budget.balance();
            let (mut now, mut calls, mut retries) = (Duration::ZERO, 0.0, 0.0);
            for (is_call, milliseconds) in steps {
                now += Duration::from_millis(milliseconds);
                if is_call {
                    budget.called(now);
                    calls += 1.0;
                } else if budget.withdraw(now) {
                    retries += 1.0;
                }
                prop_assert!(budget.balance() >= 0.0 && budget.balance() <= burst);
            }
            prop_assert!(retries <= start + calls * share + now.as_secs_f64() * minimum + 1e-6);
        }
    }
}

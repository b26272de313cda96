//! What the router learns about an instance from its answers: latency, success, and the breaker. Pure.

use std::time::Duration;

use muster_rpc::breaker::{self, Breaker, Ticket};

use crate::tuning::Period;

/// Weight of the newest observation in the smoothed latency and success: about the last ten count.
const WEIGHT: f64 = 0.2;

/// A call that was given less time than this and ran out of it says nothing about the instance.
const TELLING: Duration = Duration::from_secs(10);

/// Nor does one that was given less than so many times what the instance takes as a rule, or a caller in a hurry would eject
/// an agent that thinks for minutes for everybody.
const PATIENCE: f64 = 2.0;

/// How a call ended, as far as the instance is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered, be it with an error of its own, after that long; `None` where the time says nothing about
    /// the instance, as with streams.
    Answered(Option<Duration>),
    /// It answered that something is wrong inside it: others are preferred, but it is there.
    Erred,
    /// It could not be reached, broke off, or refused work: enough of these in a row eject it.
    Failed,
    /// It did not answer in the time that was given; `None`: in any. A failure, unless that was too little to tell.
    Silent(Option<Duration>),
    /// It answered that it takes no more now: neither well nor ill.
    Refused,
    /// Nobody can tell, as when the caller left.
    Unknown,
}

/// What is known of one instance.
#[derive(Debug, Clone)]
pub struct Measured {
    latency: Option<f64>,
    success: f64,
    breaker: Breaker,
    total: Period,
}

impl Measured {
    /// Nothing yet.
    #[must_use]
    pub const fn new(config: breaker::Config) -> Self {
        Self {
            latency: None,
            success: 1.0,
            breaker: Breaker::new(config),
            total: Period {
                succeeded: 0,
                failed: 0,
                timed: 0,
                seconds: 0.0,
            },
        }
    }

    /// Lets a call through, unless the breaker is open.
    pub fn enter(&mut self, now: Duration) -> Option<Ticket> {
        self.breaker.enter(now)
    }

    /// A call that was let through has ended. Returns whether that opened the breaker.
    pub fn report(&mut self, ticket: Ticket, verdict: Verdict, now: Duration) -> bool {
        match self.judged(verdict) {
            Verdict::Answered(latency) => {
                self.total.succeeded += 1;
                self.success += WEIGHT * (1.0 - self.success);
                if let Some(latency) = latency {
                    let seconds = latency.as_secs_f64();
                    self.total.timed += 1;
                    self.total.seconds += seconds;
                    self.latency = Some(match self.latency {
                        Some(smoothed) => smoothed + WEIGHT * (seconds - smoothed),
                        None => seconds,
                    });
                }
                self.breaker.succeeded(ticket);
                false
            }
            Verdict::Erred => {
                self.total.failed += 1;
                self.success -= WEIGHT * self.success;
                // Not a failure to the breaker, or one caller's poisonous messages would eject it for everybody.
                self.breaker.succeeded(ticket);
                false
            }
            Verdict::Failed | Verdict::Silent(_) => {
                self.total.failed += 1;
                self.success -= WEIGHT * self.success;
                self.breaker.failed(ticket, now)
            }
            Verdict::Refused | Verdict::Unknown => {
                self.breaker.abandoned(ticket);
                false
            }
        }
    }

    /// A silence that was too short to tell is none that counts.
    fn judged(&self, verdict: Verdict) -> Verdict {
        let as_a_rule = self.latency.unwrap_or_default();
        match verdict {
            Verdict::Silent(Some(given)) if given < TELLING || given.as_secs_f64() < PATIENCE * as_a_rule => {
                Verdict::Unknown
            }
            other => other,
        }
    }

    /// How long until the breaker lets a call through; zero when it does now.
    #[must_use]
    pub fn next_chance(&self, now: Duration) -> Duration {
        self.breaker.next_chance(now)
    }

    /// Where the breaker stands.
    #[must_use]
    pub fn breaker(&self, now: Duration) -> breaker::State {
        self.breaker.state(now)
    }

    /// Smoothed time to answer in seconds; `None` before the first answer.
    #[must_use]
    pub const fn latency(&self) -> Option<f64> {
        self.latency
    }

    /// Smoothed share of successes, from 0 to 1.
    #[must_use]
    pub const fn success(&self) -> f64 {
        self.success
    }

    /// Everything since the start.
    #[must_use]
    pub const fn total(&self) -> Period {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_latency_is_taken_whole_and_later_ones_are_smoothed() {
        let mut measured = Measured::new(breaker::Config::default());
        for milliseconds in [100, 200] {
            let ticket = measured.enter(Duration::ZERO).unwrap();
            let verdict = Verdict::Answered(Some(Duration::from_millis(milliseconds)));
            measured.report(ticket, verdict, Duration::ZERO);
        }
        assert!((measured.latency().unwrap() - 0.12).abs() < 1e-9);
        assert_eq!(measured.total().succeeded, 2);
    }

    #[test]
    fn errors_of_its_own_make_others_preferred_and_do_not_eject_it() {
        let mut measured = Measured::new(breaker::Config::default());
        for _ in 0..20 {
            let ticket = measured.enter(Duration::ZERO).unwrap();
            assert!(!measured.report(ticket, Verdict::Erred, Duration::ZERO));
        }
        assert!(measured.success() < 0.1);
        assert_eq!(measured.breaker(Duration::ZERO), breaker::State::Closed);
    }

    #[test]
    fn five_failures_in_a_row_eject_it_and_a_caller_who_leaves_does_not() {
        let mut measured = Measured::new(breaker::Config::default());
        for _ in 0..20 {
            let ticket = measured.enter(Duration::ZERO).unwrap();
            assert!(!measured.report(ticket, Verdict::Unknown, Duration::ZERO));
        }
        let opened: Vec<bool> = (0..5)
            .map(|_| {
                let ticket = measured.enter(Duration::ZERO).unwrap();
                measured.report(ticket, Verdict::Failed, Duration::ZERO)
            })
            .collect();
        assert_eq!(opened, [false, false, false, false, true]);
        assert!(measured.enter(Duration::from_secs(59)).is_none());
        assert_eq!(measured.next_chance(Duration::ZERO), Duration::from_secs(60));
    }

    #[test]
    fn callers_in_a_hurry_do_not_eject_an_agent_that_is_slow_as_a_rule() {
        let answered = Verdict::Answered(Some(Duration::from_mins(1)));
        let silent = |seconds| Verdict::Silent(Some(Duration::from_secs(seconds)));
        for (known, silence, opens) in [
            (None, silent(9), false),
            (None, silent(10), true),
            (None, Verdict::Silent(None), true),
            (Some(answered), silent(119), false),
            (Some(answered), silent(120), true),
            (Some(answered), Verdict::Silent(None), true),
        ] {
            let mut measured = Measured::new(breaker::Config::default());
            let reports = known.into_iter().chain([silence; 5]);
            let opened = reports.fold(false, |opened, verdict| {
                let ticket = measured.enter(Duration::ZERO).unwrap();
                measured.report(ticket, verdict, Duration::ZERO) || opened
            });
            assert_eq!(opened, opens, "{known:?} and then {silence:?}");
        }
    }

    proptest! {
        #[test]
        fn success_stays_a_share(outcomes in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut measured = Measured::new(breaker::Config::default());
            for (second, good) in outcomes.into_iter().enumerate() {
                let now = Duration::from_secs(second as u64 * 61);
                let ticket = measured.enter(now).unwrap();
                let verdict = if good { Verdict::Answered(None) } else { Verdict::Failed };
                measured.report(ticket, verdict, now);
                prop_assert!((0.0..=1.0).contains(&measured.success()));
            }
        }
    }
}

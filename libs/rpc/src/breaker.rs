//! A circuit breaker: a peer that keeps failing is left alone for a while, then tried carefully.
//!
//! Closed, it lets everything through; a number of consecutive failures opens it. Open, it lets nothing through
//! for a fixed time. Then it is half-open and lets a limited number of probes through at a time: enough
//! successes close it, one failure opens it again.
//!
//! Invariants: an open breaker always becomes half-open, and a half-open one always lets a probe through
//! eventually, even when a probe never reports back ([`Breaker::abandoned`], or its age). Consecutive failures
//! and not a failure rate, because the rate needs a window and a minimum of traffic before it says anything, and
//! a slow trickle of calls is what most agents see.

use std::time::Duration;

/// When to open, for how long, and how to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Consecutive failures that open a closed breaker; 0 counts as 1.
    pub failures: u32,
    /// How long it stays open.
    pub open_for: Duration,
    /// Probes that may be under way at once while half-open; 0 counts as 1.
    pub probes: u32,
    /// Successful probes that close it; 0 counts as 1.
    pub successes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            failures: 5,
            open_for: Duration::from_secs(60),
            probes: 1,
            successes: 1,
        }
    }
}

/// What a breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Lets everything through.
    Closed,
    /// Lets nothing through.
    Open,
    /// Lets a few probes through.
    HalfOpen,
}

impl State {
    /// The name for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed {
        failures: u32,
    },
    /// From `until` on it counts as half-open.
    Open {
        until: Duration,
        probing: u32,
        last_probe: Duration,
        succeeded: u32,
    },
}

/// What a call that a breaker let through must report back to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Which opening of the breaker the call belongs to; a report from an earlier one changes nothing.
    generation: u64,
}

/// The breaker of one peer. Times are those of a monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    config: Config,
    phase: Phase,
    /// Counts phases, so that a late report is told from a fresh one.
    generation: u64,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self {
            config,
            phase: Phase::Closed { failures: 0 },
            generation: 0,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self, now: Duration) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { until, .. } if now < until => State::Open,
            Phase::Open { .. } => State::HalfOpen,
        }
    }

    /// Whether a call would be let through now.
    #[must_use]
    pub fn admits(&self, now: Duration) -> bool {
        self.next_chance(now).is_zero()
    }

    /// How long until a call may be let through; zero when one would be now.
    #[must_use]
    pub fn next_chance(&self, now: Duration) -> Duration {
        match self.phase {
            Phase::Closed { .. } => Duration::ZERO,
            Phase::Open { until, .. } if now < until => until - now,
            Phase::Open {
                probing, last_probe, ..
            } => {
                if probing < self.config.probes.max(1) {
                    Duration::ZERO
                } else {
                    // A probe that has not reported for as long as the breaker stays open is given up.
                    last_probe
                        .saturating_add(self.config.open_for)
                        .saturating_sub(now)
                }
            }
        }
    }

    /// Lets a call through, or not. The ticket must be reported back.
    pub fn enter(&mut self, now: Duration) -> Option<Ticket> {
        if !self.admits(now) {
            return None;
        }
        let most = self.config.probes.max(1);
        if let Phase::Open {
            probing, last_probe, ..
        } = &mut self.phase
        {
            *probing = probing.saturating_add(1).min(most);
            *last_probe = now;
        }
        Some(Ticket {
            generation: self.generation,
        })
    }

    /// A call came back well.
    pub fn succeeded(&mut self, ticket: Ticket) {
        if ticket.generation != self.generation {
            return;
        }
        match &mut self.phase {
            Phase::Closed { failures } => *failures = 0,
            Phase::Open {
                probing, succeeded, ..
            } => {
                *probing = probing.saturating_sub(1);
                *succeeded = succeeded.saturating_add(1);
                if *succeeded >= self.config.successes.max(1) {
                    self.change(Phase::Closed { failures: 0 });
                }
            }
        }
    }

    /// A call failed. Returns whether this opened the breaker.
    pub fn failed(&mut self, ticket: Ticket, now: Duration) -> bool {
        if ticket.generation != self.generation {
            return false;
        }
        let opens = match &mut self.phase {
            Phase::Closed { failures } => {
                *failures = failures.saturating_add(1);
                *failures >= self.config.failures.max(1)
            }
            Phase::Open { .. } => true,
        };
        if opens {
            self.change(Phase::Open {
                until: now.saturating_add(self.config.open_for),
                probing: 0,
                last_probe: Duration::ZERO,
                succeeded: 0,
            });
        }
        opens
    }

    /// A call ended without a verdict, for instance because the caller left.
    pub fn abandoned(&mut self, ticket: Ticket) {
        if ticket.generation != self.generation {
            return;
        }
        if let Phase::Open { probing, .. } = &mut self.phase {
            *probing = probing.saturating_sub(1);
        }
    }

    fn change(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation = self.generation.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened_at(now: Duration) -> Breaker {
        let mut breaker = Breaker::new(Config::default());
        for failure in 1..=5 {
            let ticket = breaker.enter(now).expect("closed");
            assert_eq!(breaker.failed(ticket, now), failure == 5);
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_for_a_minute() {
        let mut breaker = opened_at(SECOND);
        assert_eq!(breaker.state(SECOND), State::Open);
        assert_eq!(breaker.enter(60 * SECOND), None);
        assert_eq!(breaker.next_chance(11 * SECOND), 50 * SECOND);
        assert_eq!(breaker.state(61 * SECOND), State::HalfOpen);
    }

    #[test]
    fn a_success_in_between_starts_the_count_again() {
        let mut breaker = Breaker::new(Config::default());
        for _ in 0..10 {
            for _ in 0..4 {
                let ticket = breaker.enter(SECOND).expect("closed");
                breaker.failed(ticket, SECOND);
            }
            let ticket = breaker.enter(SECOND).expect("closed");
            breaker.succeeded(ticket);
        }
        assert_eq!(breaker.state(SECOND), State::Closed);
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let mut breaker = opened_at(SECOND);
        let now = 61 * SECOND;
        let probe = breaker.enter(now).expect("half-open");
        assert_eq!(breaker.enter(now), None, "the second probe has to wait");
        assert!(breaker.failed(probe, now));
        assert_eq!(breaker.state(now + 59 * SECOND), State::Open);
        let probe = breaker.enter(now + 60 * SECOND).expect("half-open again");
        breaker.succeeded(probe);
        assert_eq!(breaker.state(now + 60 * SECOND), State::Closed);
    }

    #[test]
    fn a_probe_that_never_reports_does_not_lock_the_peer_out() {
        let mut breaker = opened_at(SECOND);
        let now = 61 * SECOND;
        let abandoned = breaker.enter(now).expect("half-open");
        breaker.abandoned(abandoned);
        let _lost = breaker.enter(now).expect("the place is free again");
        assert_eq!(breaker.next_chance(now + SECOND), 59 * SECOND);
        assert!(breaker.enter(now + 60 * SECOND).is_some());
    }

    #[test]
    fn reports_from_before_the_opening_change_nothing() {
        let mut breaker = Breaker::new(Config::default());
        let early = breaker.enter(SECOND).expect("closed");
        for _ in 0..5 {
            let ticket = breaker.enter(SECOND).expect("closed");
            breaker.failed(ticket, SECOND);
        }
        breaker.succeeded(early);
        assert_eq!(breaker.state(SECOND), State::Open);
        assert!(!breaker.failed(early, 61 * SECOND));
        assert_eq!(breaker.state(61 * SECOND), State::HalfOpen);
    }

    proptest! {
        #[test]
        fn it_never_stays_shut_longer_than_configured(
            steps in proptest::collection::vec((0u8..4, 0u64..30), 1..200), probes in 0u32..4, successes in 0u32..4,
        ) {
            let config = Config { probes, successes, ..Config::default() };
            let mut breaker = Breaker::new(config);
            let mut now = Duration::ZERO;
            let mut open_calls = Vec::new();
            for (action, seconds) in steps {
                now += Duration::from_secs(seconds);
                let ticket = match breaker.enter(now) {
                    Some(ticket) => ticket,
                    None => {
                        let wait = breaker.next_chance(now);
                        prop_assert!(!wait.is_zero() && wait <= config.open_for);
                        prop_assert!(breaker.clone().enter(now + wait).is_some());
                        continue;
                    }
                };
                match action {
                    0 => breaker.succeeded(ticket),
                    1 => { breaker.failed(ticket, now); }
                    2 => breaker.abandoned(ticket),
                    _ => open_calls.push(ticket),
                }
            }
            for ticket in open_calls {
                breaker.failed(ticket, now);
            }
            prop_assert!(breaker.enter(now + config.open_for).is_some());
        }

        #[test]
        fn while_half_open_no_more_probes_than_allowed_are_under_way(probes in 1u32..5, tries in 1u32..20) {
            let config = Config { failures: 1, probes, ..Config::default() };
            let mut breaker = Breaker::new(config);
            let ticket = breaker.enter(Duration::ZERO).expect("closed");
            breaker.failed(ticket, Duration::ZERO);
            let let_through = (0..tries).filter(|_| breaker.enter(config.open_for).is_some()).count();
            prop_assert_eq!(let_through, probes.min(tries) as usize);
        }
    }
}

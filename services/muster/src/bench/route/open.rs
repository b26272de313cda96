//! The open loop: calls come at times of their own, whatever becomes of those before, as they do from many clients that know
//! nothing of each other. Latencies count from when a call should have begun, so that a machine that is late with it does not
//! hide what its callers would have waited.

use std::time::Duration;

use muster_runtime::clock::{Clock as _, SystemClock};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::{JoinError, JoinSet};

use super::client::Caller;
use super::closed::{Times, failure};
use super::outcome::Outcome;
use crate::bench::latency::{Latencies, add, latencies, merge};
use crate::failure::Failure;

/// Calls that may be under way at once. More means that the machine cannot even send them.
const MOST_UNDER_WAY: usize = 100_000;

/// How long after its deadline a call is given up that was told of nothing.
const GRACE: Duration = Duration::from_secs(1);

/// When calls come: the times of a Poisson process, out of a seed.
#[derive(Debug)]
pub struct Arrivals {
    random: StdRng,
    per_second: f64,
    last: f64,
}

impl Arrivals {
    /// So many a second on average.
    pub fn new(per_second: f64, seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            per_second: per_second.max(f64::MIN_POSITIVE),
            last: 0.0,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // From 0 up to but without 1, so that there is a logarithm.
        let uniform: f64 = self.random.random();
        self.last -= (1.0 - uniform).ln() / self.per_second;
        Duration::try_from_secs_f64(self.last).ok()
    }
}

/// What became of the calls that should have begun while it counted.
#[derive(Debug, Clone)]
pub struct Seen {
    /// For how long it counted.
    pub window: Duration,
    /// Those that were not refused: also the late ones, whose latency is the time until they were given up.
    pub accepted: Latencies,
    /// Answered in time.
    pub answered: u64,
    /// Refused.
    pub refused: u64,
    /// Accepted and not answered in time.
    pub late: u64,
    /// How long after its time each call was sent.
    pub lag: Latencies,
}

impl Seen {
    /// Nothing.
    pub fn nothing() -> Result<Self, Failure> {
        Ok(Self {
            window: Duration::ZERO,
            accepted: latencies()?,
            answered: 0,
            refused: 0,
            late: 0,
            lag: latencies()?,
        })
    }

    /// Adds what another measurement has seen.
    pub fn add(&mut self, other: &Self) -> Result<(), Failure> {
        self.window += other.window;
        merge(&mut self.accepted, &other.accepted)?;
        merge(&mut self.lag, &other.lag)?;
        self.answered += other.answered;
        self.refused += other.refused;
        self.late += other.late;
        Ok(())
    }

    /// All calls that count.
    pub fn offered(&self) -> u64 {
        self.answered + self.refused + self.late
    }

    fn count(&mut self, ended: &Ended) {
        if !ended.counts {
            return;
        }
        add(&mut self.lag, ended.lag);
        match ended.outcome {
            Outcome::Refused => self.refused += 1,
            Outcome::Answered => {
                self.answered += 1;
                add(&mut self.accepted, ended.took);
            }
            Outcome::Late => {
                self.late += 1;
                add(&mut self.accepted, ended.took);
            }
        }
    }
}

struct Ended {
    outcome: Outcome,
    took: Duration,
    lag: Duration,
    counts: bool,
}

/// Sends calls when they come, in turn by these callers, and waits until the last has ended. Each is given up at its
/// deadline.
pub async fn measure(
    mut callers: Vec<Caller>,
    arrivals: Arrivals,
    deadline: Duration,
    times: Times,
) -> Result<Seen, Failure> {
    let clock = SystemClock::default();
    let end = times.warm_up + times.measured;
    let mut seen = Seen {
        window: times.measured,
        ..Seen::nothing()?
    };
    let mut calls = JoinSet::new();
    let begin = clock.monotonic();
    let turns = callers.len();
    for (turn, due) in arrivals.take_while(|due| *due < end).enumerate() {
        let wait = due.saturating_sub(clock.monotonic().saturating_sub(begin));
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        while let Some(ended) = calls.try_join_next() {
            seen.count(&joined(ended)?);
        }
        if calls.len() >= MOST_UNDER_WAY {
            return Err(Failure::failed(format!(
                "{MOST_UNDER_WAY} calls are under way at once: this machine cannot send more"
            )));
        }
        let Some(caller) = callers.get_mut(turn % turns.max(1)) else {
            return Err(Failure::failed("there is no caller"));
        };
        let mut caller = caller.once();
        let counts = due >= times.warm_up;
        calls.spawn(async move {
            let since = |due: Duration| clock.monotonic().saturating_sub(begin).saturating_sub(due);
            let lag = since(due);
            let answer = tokio::time::timeout(deadline + GRACE, caller.call()).await;
            let outcome = match answer {
                Ok(Ok(())) => Outcome::Answered,
                Err(_) => Outcome::Late,
                Ok(Err(status)) => match Outcome::of(&status) {
                    Some(outcome) => outcome,
                    // tonic's own timer says that a call is cancelled.
                    None if since(due) >= deadline => Outcome::Late,
                    None => return Err(failure(&status)),
                },
            };
            Ok(Ended {
                outcome,
                took: since(due),
                lag,
                counts,
            })
        });
    }
    while let Some(ended) = calls.join_next().await {
        seen.count(&joined(ended)?);
    }
    Ok(seen)
}

fn joined(ended: Result<Result<Ended, Failure>, JoinError>) -> Result<Ended, Failure> {
    ended.map_err(|error| Failure::failed(format!("a call ended: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_as_often_as_they_should_and_never_go_back_in_time() {
        let times: Vec<_> = Arrivals::new(1_000.0, 7).take(100_000).collect();
        assert!(times.is_sorted());
        let last = times.last().expect("some").as_secs_f64();
        assert!((98.0..102.0).contains(&last), "{last}");
    }

    #[test]
    fn the_gaps_are_those_of_a_poisson_process() {
        let times: Vec<_> = Arrivals::new(1.0, 3).take(100_000).collect();
        let longer = times
            .windows(2)
            .filter(|pair| pair[1] - pair[0] > Duration::from_secs(1))
            .count();
        // The part of them that is longer than the mean is 1/e.
        assert!((36_000..37_600).contains(&longer), "{longer}");
    }

    #[test]
    fn a_seed_gives_the_same_times_again() {
        let times = |seed| Arrivals::new(10.0, seed).take(100).collect::<Vec<_>>();
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
    }

    #[test]
    fn only_what_counts_is_counted_and_a_late_call_was_accepted() {
        let mut seen = Seen::nothing().expect("histograms");
        for (outcome, counts) in [
            (Outcome::Answered, true),
            (Outcome::Answered, false),
            (Outcome::Late, true),
            (Outcome::Refused, true),
        ] {
            seen.count(&Ended {
                outcome,
                took: Duration::from_millis(5),
                lag: Duration::ZERO,
                counts,
            });
        }
        assert_eq!((seen.answered, seen.late, seen.refused), (1, 1, 1));
        assert_eq!((seen.accepted.len(), seen.offered()), (2, 3));
    }
}

//! The generic cell rate algorithm (GCRA, ITU-T I.371), in the form of virtual scheduling: pure.
//!
//! All that is kept of who is limited is one time: when what was taken so far is *due* at an even rate. Taking one moves that
//! time on by an interval; how far it may lie ahead of now is the burst. In any stretch of time `t` at most
//! `burst + t / interval` are given, a refusal takes nothing, and who comes again after the time that a refusal names, with nobody
//! in between, gets what it came for. A time that has passed says nothing: it can be forgotten.
//!
//! Rejected: windows of a minute (twice the limit goes through around the turn of a window, or a count for each call is kept),
//! and buckets that a timer fills.
//!
//! Why not `governor`, which has the same algorithm: it gives one rate to all keys of a limiter, while agents have rates of their
//! own; it bounds no table of keys; and what several routers share is decided by a script in Redis, which has to decide as the
//! code here does. That is the function [`take`], and the rest of the library would be unused.

use std::time::Duration;

/// Nanoseconds in a minute.
const MINUTE: u64 = 60_000_000_000;

/// Most that a rate may be: there the interval, in whole nanoseconds, is exact to one in a thousand.
pub const MOST_PER_MINUTE: u32 = 60_000_000;

/// How many are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_minute: u32,
    burst: u32,
}

impl Rate {
    /// So many a minute, and so many at once; each at least one.
    #[must_use]
    pub fn new(per_minute: u32, burst: u32) -> Self {
        Self {
            per_minute: per_minute.clamp(1, MOST_PER_MINUTE),
            burst: burst.max(1),
        }
    }

    /// So many a minute, and a tenth of it at once.
    #[must_use]
    pub fn per_minute(per_minute: u32) -> Self {
        Self::new(per_minute, per_minute / 10)
    }

    /// How many a minute.
    #[must_use]
    pub const fn each_minute(self) -> u32 {
        self.per_minute
    }

    /// How many at once.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// Between two that are given at an even rate. Rounded up, so that the rate is never exceeded.
    #[must_use]
    pub fn interval(self) -> Duration {
        Duration::from_nanos(MINUTE.div_ceil(u64::from(self.per_minute)))
    }
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// How many are given.
    pub given: u32,
    /// Where not all are: after which time there is one more.
    pub retry_after: Duration,
}

/// Takes up to `wanted`. `due` is what is kept from one time to the next; zero at first.
pub fn take(due: &mut Duration, rate: Rate, wanted: u32, now: Duration) -> Taken {
    let interval = rate.interval();
    let base = (*due).max(now);
    let horizon = now.saturating_add(interval.saturating_mul(rate.burst));
    let room = horizon.saturating_sub(base).as_nanos() / interval.as_nanos().max(1);
    let given = u32::try_from(room).unwrap_or(u32::MAX).min(wanted);
    let after = base.saturating_add(interval.saturating_mul(given));
    if given > 0 {
        *due = after;
    }
    let retry_after = if given < wanted {
        after.saturating_add(interval).saturating_sub(horizon)
    } else {
        Duration::ZERO
    };
    Taken { given, retry_after }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Seven a minute is no whole number of nanoseconds.
    fn rates() -> impl Strategy<Value = Rate> {
        (1u32..100_000, 1u32..50).prop_map(|(per_minute, burst)| Rate::new(per_minute, burst))
    }

    #[test]
    fn a_burst_is_given_at_once_and_then_one_for_each_interval() {
        let rate = Rate::new(60, 3);
        let (mut due, now) = (Duration::ZERO, Duration::from_secs(100));
        let given: u32 = (0..5).map(|_| take(&mut due, rate, 1, now).given).sum();
        assert_eq!(given, 3);
        assert_eq!(
            take(&mut due, rate, 1, now),
            Taken {
                given: 0,
                retry_after: Duration::from_secs(1)
            }
        );
        let later = now + Duration::from_millis(2_500);
        assert_eq!(
            take(&mut due, rate, 5, later),
            Taken {
                given: 2,
                retry_after: Duration::from_millis(500)
            }
        );
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_than_burst_and_rate(
            rate in rates(), steps in proptest::collection::vec((0u64..3_000_000, 1u32..8), 1..120),
        ) {
            let (mut due, mut now) = (Duration::ZERO, Duration::from_secs(1));
            let mut given = Vec::new();
            for (micros, wanted) in steps {
                now += Duration::from_micros(micros);
                let taken = take(&mut due, rate, wanted, now);
                prop_assert!(taken.given <= wanted);
                given.push((now, u64::from(taken.given)));
            }
            for first in 0..given.len() {
                let mut sum = 0;
                for (at, count) in &given[first..] {
                    sum += count;
                    let passed = (*at - given[first].0).as_nanos() / rate.interval().as_nanos();
                    prop_assert!(u128::from(sum) <= u128::from(rate.burst()) + passed);
                    let even = (*at - given[first].0).as_secs_f64() / 60.0 * f64::from(rate.each_minute());
                    prop_assert!(passed as f64 <= even + 1e-6, "rounding gives nothing away");
                }
            }
        }

        #[test]
        fn a_refusal_takes_nothing_and_its_time_is_exact(
            rate in rates(), steps in proptest::collection::vec(0u64..500_000, 1..80),
        ) {
            let (mut due, mut now) = (Duration::ZERO, Duration::from_secs(1));
            for micros in steps {
                now += Duration::from_micros(micros);
                let before = due;
                let taken = take(&mut due, rate, 1, now);
                if taken.given == 1 {
                    prop_assert_eq!(taken.retry_after, Duration::ZERO);
                    continue;
                }
                prop_assert_eq!(due, before);
                prop_assert!(taken.retry_after > Duration::ZERO);
                let too_early = now + taken.retry_after - Duration::from_nanos(1);
                prop_assert_eq!(take(&mut due.clone(), rate, 1, too_early).given, 0);
                prop_assert_eq!(take(&mut due.clone(), rate, 1, now + taken.retry_after).given, 1);
            }
        }

        #[test]
        fn several_at_once_are_as_many_as_one_by_one(
            rate in rates(), steps in proptest::collection::vec((0u64..3_000_000, 1u32..8), 1..60),
        ) {
            let (mut together, mut single, mut now) = (Duration::ZERO, Duration::ZERO, Duration::from_secs(1));
            for (micros, wanted) in steps {
                now += Duration::from_micros(micros);
                let taken = take(&mut together, rate, wanted, now);
                let alone: u32 = (0..wanted).map(|_| take(&mut single, rate, 1, now).given).sum();
                prop_assert_eq!(taken.given, alone);
                prop_assert_eq!(together, single);
            }
        }
    }
}

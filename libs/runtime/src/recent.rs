//! What became of the calls of the last minutes: how many, how many failed, and the quantiles of how long they took. For people who
//! look now; metrics have the rest.
//!
//! Five whole minutes and the one that runs, each a histogram of buckets that grow by a fifth. Counting takes no lock. At the turn of a
//! minute a call that counts just then may be lost, which a picture for people can bear.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Minutes that are kept, the one that runs among them.
const MINUTES: usize = 6;

/// Histogram buckets: the first ends at [`FIRST`], and four later ones at twice of it.
const BUCKETS: usize = 96;
const FIRST: Duration = Duration::from_micros(50);
const EACH_DOUBLING: f64 = 4.0;

/// See the module.
#[derive(Debug)]
pub struct Recent {
    slots: [Slot; MINUTES],
}

#[derive(Debug)]
struct Slot {
    /// Which minute it is of, from one on; zero of none.
    minute: AtomicU64,
    failed: AtomicU64,
    took: [AtomicU32; BUCKETS],
}

/// What is read of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Calls whose answers began.
    pub calls: u64,
    /// Calls that ended and failed.
    pub failed: u64,
    /// Half of the calls took no longer; a fifth too much at most.
    pub median: Duration,
    /// Of twenty calls nineteen took no longer; a fifth too much at most.
    pub p95: Duration,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            slots: std::array::from_fn(|_| Slot {
                minute: AtomicU64::new(0),
                failed: AtomicU64::new(0),
                took: std::array::from_fn(|_| AtomicU32::new(0)),
            }),
        }
    }
}

impl Recent {
    /// An answer has begun after that long.
    pub fn answered(&self, now: Duration, took: Duration) {
        if let Some(count) = self.slot(now).took.get(bucket(took)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call has failed.
    pub fn failed(&self, now: Duration) {
        self.slot(now).failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The slot of this minute, emptied where it is of an older one.
    fn slot(&self, now: Duration) -> &Slot {
        let minute = minute(now);
        let slot = &self.slots[usize::try_from(minute % MINUTES as u64).unwrap_or_default()];
        let known = slot.minute.load(Ordering::Acquire);
        if known < minute {
            let turned = slot
                .minute
                .compare_exchange(known, minute, Ordering::AcqRel, Ordering::Acquire);
            if turned.is_ok() {
                slot.failed.store(0, Ordering::Relaxed);
                for count in &slot.took {
                    count.store(0, Ordering::Relaxed);
                }
            }
        }
        slot
    }

    /// What became of the calls of the last minutes.
    #[must_use]
    pub fn summary(&self, now: Duration) -> Summary {
        let minute = minute(now);
        let is_recent = |slot: &&Slot| {
            let of = slot.minute.load(Ordering::Acquire);
            of > 0 && of + MINUTES as u64 > minute
        };
        let mut counts = [0_u64; BUCKETS];
        let mut failed = 0;
        for slot in self.slots.iter().filter(is_recent) {
            failed += slot.failed.load(Ordering::Relaxed);
            for (sum, count) in counts.iter_mut().zip(&slot.took) {
                *sum += u64::from(count.load(Ordering::Relaxed));
            }
        }
        Summary {
            calls: counts.iter().sum(),
            failed,
            median: quantile(&counts, 50),
            p95: quantile(&counts, 95),
        }
    }
}

/// The minute, from one on.
const fn minute(now: Duration) -> u64 {
    now.as_secs() / 60 + 1
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and a few hundred at most"
)]
fn bucket(took: Duration) -> usize {
    let times = took.as_secs_f64() / FIRST.as_secs_f64();
    if times <= 1.0 {
        return 0;
    }
    let place = (times.log2() * EACH_DOUBLING).ceil() as usize;
    place.min(BUCKETS - 1)
}

/// Where a bucket ends.
fn end(bucket: usize) -> Duration {
    let place = u32::try_from(bucket).unwrap_or(u32::MAX);
    Duration::try_from_secs_f64(FIRST.as_secs_f64() * (f64::from(place) / EACH_DOUBLING).exp2())
        .unwrap_or(Duration::MAX)
}

/// The end of the bucket in which that percentage of the calls is reached; zero without calls.
fn quantile(counts: &[u64], percent: u64) -> Duration {
    let all: u64 = counts.iter().sum();
    let wanted = (all * percent).div_ceil(100);
    let mut reached = 0;
    for (bucket, count) in counts.iter().enumerate() {
        reached += count;
        if *count > 0 && reached >= wanted {
            return end(bucket);
        }
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(10_000);

    #[test]
    fn five_minutes_are_kept_and_then_forgotten() {
        let recent = Recent::default();
        assert_eq!(recent.summary(NOW), Summary::default());
        recent.answered(NOW, Duration::from_millis(3));
        recent.failed(NOW);
        let minutes = |count: u64| NOW + Duration::from_secs(60 * count);
        assert_eq!(
            (
                recent.summary(minutes(5)).calls,
                recent.summary(minutes(5)).failed
            ),
            (1, 1)
        );
        assert_eq!(recent.summary(minutes(6)), Summary::default());
        // Whoever uses the slot next finds it empty.
        recent.answered(minutes(6), Duration::from_millis(3));
        assert_eq!(
            (
                recent.summary(minutes(6)).calls,
                recent.summary(minutes(6)).failed
            ),
            (1, 0)
        );
    }

    proptest! {
        #[test]
        fn quantiles_are_at_most_a_fifth_too_long(micros in proptest::collection::vec(1..600_000_000_u64, 1..200)) {
            let recent = Recent::default();
            for took in &micros {
                recent.answered(NOW, Duration::from_micros(*took));
            }
            let mut sorted = micros;
            sorted.sort_unstable();
            let told = recent.summary(NOW);
            prop_assert_eq!(told.calls, sorted.len() as u64);
            for (percent, told) in [(50, told.median), (95, told.p95)] {
                let exact = Duration::from_micros(sorted[(sorted.len() * percent).div_ceil(100) - 1]);
                let most = (exact.as_secs_f64() * 1.19).max(FIRST.as_secs_f64());
                prop_assert!(told + Duration::from_micros(1) >= exact && told.as_secs_f64() <= most + 1e-9, "{percent}: {told:?}, {exact:?}");
            }
        }
    }
}

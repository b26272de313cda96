//! Exponential backoff with full jitter: a random wait between nothing and a bound that doubles up to a limit.
//!
//! Full jitter, and not a fixed wait with a little noise, because what makes clients fail together (a restarted
//! service) also makes them come back together; only a wait that may be anything spreads them out.

use std::time::Duration;

/// How waits grow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Bound of the first wait.
    pub base: Duration,
    /// What each further bound is multiplied by; less than 1 counts as 1.
    pub factor: f64,
    /// No bound exceeds this.
    pub limit: Duration,
}

impl Backoff {
    /// Doubling bounds from `base` up to `limit`.
    #[must_use]
    pub const fn doubling(base: Duration, limit: Duration) -> Self {
        Self {
            base,
            factor: 2.0,
            limit,
        }
    }

    /// The longest that the wait after this attempt may be; attempts count from 0.
    #[must_use]
    pub fn bound(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt).unwrap_or(i32::MAX);
        let factor = if self.factor.is_finite() {
            self.factor.max(1.0)
        } else {
            1.0
        };
        let seconds = self.base.as_secs_f64() * factor.powi(exponent);
        // An infinite product fails the conversion and is the limit, as is a NaN from zero times infinity.
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(if self.base.is_zero() {
                Duration::ZERO
            } else {
                self.limit
            })
            .min(self.limit)
    }

    /// The wait after this attempt, for a random number from 0 to 1.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let share = if random.is_finite() {
            random.clamp(0.0, 1.0)
        } else {
            1.0
        };
        self.bound(attempt).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(5));

    #[test]
    fn bounds_double_up_to_the_limit() {
        let bounds: Vec<_> = (0..8).map(|attempt| BACKOFF.bound(attempt).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(BACKOFF.bound(u32::MAX), BACKOFF.limit);
    }

    #[test]
    fn the_wait_is_the_random_share_of_the_bound() {
        assert_eq!(BACKOFF.delay(1, 0.0), Duration::ZERO);
        assert_eq!(BACKOFF.delay(1, 0.5), Duration::from_millis(100));
        assert_eq!(BACKOFF.delay(1, 1.0), Duration::from_millis(200));
    }

    proptest! {
        #[test]
        fn waits_are_bounded_whatever_the_numbers(
            base in 0u64..100_000, factor in proptest::num::f64::ANY, limit in 0u64..1_000_000,
            attempt in any::<u32>(), random in proptest::num::f64::ANY,
        ) {
            let backoff = Backoff {
                base: Duration::from_millis(base),
                factor,
                limit: Duration::from_millis(limit),
            };
            prop_assert!(backoff.delay(attempt, random) <= backoff.limit);
        }

        #[test]
        fn bounds_never_shrink(attempt in 0u32..10_000) {
            prop_assert!(BACKOFF.bound(attempt) <= BACKOFF.bound(attempt + 1));
        }
    }
}

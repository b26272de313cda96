//! Pauses between tries: growing, bounded, and different for everybody.

use std::time::Duration;

use rand::RngExt as _;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(500);

/// The pauses of one call.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::between(FIRST, LONGEST)
    }
}

impl Backoff {
    /// Pauses whose bounds grow from `first` to `longest`.
    pub(super) const fn between(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The next pause: between half and all of a bound that doubles, so that those who failed together do not return
    /// together.
    pub(super) fn pause(&mut self) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(self.longest);
        bound.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        assert!(backoff.pause() <= FIRST);
        let later = (0..100).map(|_| backoff.pause()).last();
        assert!(later.is_some_and(|pause| pause <= LONGEST && pause >= LONGEST / 2));
    }
}

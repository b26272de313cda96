//! Where decisions are made: on the async thread, or on the pool for what may take long.
//!
//! Handing a decision to another thread and back costs more than nearly all of them take. But an expression may compute for a
//! while, and requests must not wait for it. So runs of a document decide on the pool at first, and in place once decisions
//! of that document have been quick several times in a row. What one decision may compute is bounded; one that is slow all the
//! same sends them back to the pool.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How long the decisions of a document's runs have taken.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    quick_in_a_row: AtomicU8,
}

impl Pace {
    /// What is quick: not much more than the way to another thread and back.
    const QUICK: Duration = Duration::from_micros(500);

    /// So many are enough to decide in place.
    const ENOUGH: u8 = 3;

    /// Whether the next one is to be made in place.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick_in_a_row.load(Ordering::Relaxed) >= Self::ENOUGH
    }

    /// One has taken so long. Where two come at once, one may not count.
    pub(crate) fn took(&self, time: Duration) {
        let quick = self.quick_in_a_row.load(Ordering::Relaxed);
        let quick = if time > Self::QUICK {
            0
        } else {
            quick.saturating_add(1)
        };
        self.quick_in_a_row.store(quick, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_quick_for_a_while_decides_in_place_until_it_is_slow() {
        let pace = Pace::default();
        for _ in 0..Pace::ENOUGH {
            assert!(!pace.is_quick());
            pace.took(Pace::QUICK);
        }
        for _ in 0..1_000 {
            assert!(pace.is_quick());
            pace.took(Duration::ZERO);
        }
        pace.took(Pace::QUICK * 2);
        assert!(!pace.is_quick());
    }
}

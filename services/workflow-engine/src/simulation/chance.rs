//! Chance out of a seed.

use std::fmt::Display;
use std::ops::RangeInclusive;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::trace::Digest;
use crate::random::Random;

/// One after the other.
#[derive(Debug)]
pub(crate) struct Chance(StdRng);

impl Chance {
    /// Of its own for each purpose, so that a change of one leaves the others as they are.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        Self(StdRng::seed_from_u64(decided(seed, &[&purpose])))
    }

    pub(crate) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// True so many times of a hundred.
    pub(crate) fn percent(&mut self, odds: u64) -> bool {
        self.within(0..=99) < odds
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.0.random_range(0..choices.len())]
    }
}

/// A number that follows from the seed and from what it is about, whenever it is asked for.
#[must_use]
pub fn decided(seed: u64, about: &[&dyn Display]) -> u64 {
    let mut digest = Digest::default();
    digest.add(&seed.to_string());
    for part in about {
        digest.add(&part.to_string());
    }
    digest.value()
}

/// What the engine leaves to chance.
pub(crate) struct Seeded(Mutex<StdRng>);

impl Seeded {
    pub(crate) fn new(seed: u64, life: usize) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(decided(
            seed,
            &[&"engine", &life],
        ))))
    }
}

impl Random for Seeded {
    fn number(&self) -> u64 {
        self.0.lock().random()
    }
}

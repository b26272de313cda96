//! Randomness, injected: a simulation repeats whatever a seed has led to.

use std::sync::Arc;

/// Where random numbers come from.
pub trait Random: Send + Sync + 'static {
    /// The next one.
    fn number(&self) -> u64;
}

/// A source that is passed around.
pub type SharedRandom = Arc<dyn Random>;

/// The machine's source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn number(&self) -> u64 {
        rand::random()
    }
}

//! Time as the runtime's paused clock shows it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_runtime::clock::Clock;
use tokio::time::Instant;

/// The time of one life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Virtual {
    begin: Timestamp,
    since: Instant,
    /// By how much it is wrong.
    skew: SignedDuration,
}

impl Virtual {
    /// A clock that shows this time now. To be made in the life's runtime.
    pub(crate) fn showing(begin: Timestamp) -> Self {
        Self {
            begin,
            since: Instant::now(),
            skew: SignedDuration::ZERO,
        }
    }

    /// The same clock, wrong by so much.
    pub(crate) fn wrong_by(self, skew: SignedDuration) -> Self {
        Self { skew, ..self }
    }
}

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        self.begin + self.monotonic() + self.skew
    }

    fn monotonic(&self) -> Duration {
        self.since.elapsed()
    }
}

//! Durations, written down or computed.

use std::time::Duration;

use super::Template;

/// A duration of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Period {
    /// Known from the document.
    Fixed(Duration),
    /// Evaluates to what [`crate::duration::from_value`] reads, each time it is needed; the outcome is recorded.
    Computed(Template),
}

impl Period {
    /// The duration, if it is known from the document.
    #[must_use]
    pub fn fixed(&self) -> Option<Duration> {
        match self {
            Self::Fixed(duration) => Some(*duration),
            Self::Computed(_) => None,
        }
    }
}

impl Default for Period {
    fn default() -> Self {
        Self::Fixed(Duration::ZERO)
    }
}

impl From<Duration> for Period {
    fn from(duration: Duration) -> Self {
        Self::Fixed(duration)
    }
}

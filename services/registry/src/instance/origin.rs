//! Where an instance is registered that the registry of another region keeps.
//!
//! All instances of a region share one [`Origin`], so that an outage of their registry marks a hundred thousand of them by one
//! write. Whether the registry is heard is no part of an instance: it changes nothing that watchers are told.

use jiff::Timestamp;
use parking_lot::Mutex;

/// The registry of another region. Equal when region and address are.
#[derive(Debug)]
pub struct Origin {
    /// The region, as the configuration names it.
    pub region: String,
    /// Where its registry is.
    pub registry_url: String,
    stale_since: Mutex<Option<Timestamp>>,
}

impl Origin {
    /// A registry that is heard.
    #[must_use]
    pub fn new(region: impl Into<String>, registry_url: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            registry_url: registry_url.into(),
            stale_since: Mutex::new(None),
        }
    }

    /// Since when the registry has not been heard; `None` while it is.
    #[must_use]
    pub fn stale_since(&self) -> Option<Timestamp> {
        *self.stale_since.lock()
    }

    /// The registry is heard, or has not been since then. The first time of an outage counts.
    pub fn set_stale(&self, since: Option<Timestamp>) {
        let mut stale = self.stale_since.lock();
        *stale = since.map(|since| stale.unwrap_or(since));
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.region == other.region && self.registry_url == other.registry_url
    }
}

impl Eq for Origin {}

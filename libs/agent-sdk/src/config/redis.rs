//! Section `agent.redis`: how tasks are kept in Redis. Where Redis is, says `agent.redis_cluster_endpoint`.

use std::path::PathBuf;
use std::time::Duration;

use muster_runtime::config::Mistakes;
use muster_store::redis::Settings;
use muster_store::redis::settings::within;
use serde::{Deserialize, Serialize};

/// Where the operator says where Redis is.
pub(crate) const ENDPOINT: &str = "agent.redis_cluster_endpoint";
/// The section of the settings.
pub(crate) const SECTION: &str = "agent";

/// How tasks are kept in Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// A file of certificate authorities in PEM that certify Redis, in place of Mozilla's.
    pub certificate_authorities: Option<PathBuf>,
    /// What all keys start with; systems with different ones share a Redis.
    pub key_prefix: String,
    /// How long a command may take to be answered; then the connection counts as broken.
    pub answer_within_seconds: u64,
    /// How long a call is tried again before it is refused, and how long another instance may take to do what it is asked.
    pub patience_seconds: u64,
    /// For how long tasks are an instance's own without a sign of life; the time after which others take over.
    pub lease_seconds: u64,
}

impl Default for Redis {
    fn default() -> Self {
        let shared = Settings::default();
        Self {
            certificate_authorities: shared.certificate_authorities,
            key_prefix: shared.key_prefix,
            answer_within_seconds: shared.answer_within_seconds,
            patience_seconds: shared.patience_seconds,
            lease_seconds: 5,
        }
    }
}

impl Redis {
    /// What it has in common with the sections of other services.
    #[must_use]
    pub fn shared(&self) -> Settings {
        Settings {
            certificate_authorities: self.certificate_authorities.clone(),
            key_prefix: self.key_prefix.clone(),
            answer_within_seconds: self.answer_within_seconds,
            patience_seconds: self.patience_seconds,
        }
    }

    /// See [`Redis::lease_seconds`].
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    pub(super) fn validate(&self, endpoint: Option<&str>, namespace: &str, mistakes: &mut Mistakes) {
        self.shared().validate(SECTION, endpoint, mistakes);
        // Braces would be hash tags, and take keys out of their slots.
        if endpoint.is_some() && namespace.contains(['{', '}']) {
            mistakes.add(
                "agent.namespace",
                format!("'{namespace}' has braces, which keys in Redis cannot have; choose another"),
            );
        }
        within(SECTION, "lease_seconds", self.lease_seconds, 3..=600, mistakes);
    }
}

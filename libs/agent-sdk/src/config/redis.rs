//! Section `agent.redis`: how tasks are kept in Redis. Where Redis is, says `agent.redis_cluster_endpoint`.

use std::path::PathBuf;
use std::time::Duration;

use muster_runtime::config::Mistakes;
use muster_store::redis::{Address, Options};
use serde::{Deserialize, Serialize};

/// Where the operator says where Redis is.
pub(crate) const ENDPOINT: &str = "agent.redis_cluster_endpoint";
/// Where the operator says who certifies it.
pub(crate) const AUTHORITIES: &str = "agent.redis.certificate_authorities";

/// Longest prefix of keys: it is part of every key.
const LONGEST_PREFIX: usize = 64;

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
        let patience = Options::default();
        Self {
            certificate_authorities: None,
            key_prefix: "muster".to_owned(),
            answer_within_seconds: patience.answer_within.as_secs(),
            patience_seconds: patience.patience.as_secs(),
            lease_seconds: 5,
        }
    }
}

impl Redis {
    /// Limits of time of the connection.
    #[must_use]
    pub fn patience(&self) -> Options {
        Options {
            answer_within: Duration::from_secs(self.answer_within_seconds),
            patience: Duration::from_secs(self.patience_seconds),
            ..Options::default()
        }
    }

    /// See [`Redis::lease_seconds`].
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    pub(super) fn validate(&self, endpoint: Option<&str>, namespace: &str, mistakes: &mut Mistakes) {
        match endpoint.map(str::parse::<Address>) {
            Some(Err(error)) => mistakes.add(ENDPOINT, error.to_string()),
            Some(Ok(address)) if self.certificate_authorities.is_some() && !address.is_tls() => {
                mistakes.add(
                    AUTHORITIES,
                    format!("is of no use without TLS: write rediss in place of redis in {ENDPOINT}"),
                );
            }
            Some(Ok(_)) | None => {}
        }
        // Braces would be hash tags, and take keys out of their slots.
        if endpoint.is_some() && namespace.contains(['{', '}']) {
            mistakes.add(
                "agent.namespace",
                format!("'{namespace}' has braces, which keys in Redis cannot have; choose another"),
            );
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        let prefix = &self.key_prefix;
        if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(plain) {
            mistakes.add(
                "agent.redis.key_prefix",
                format!("must be 1 to {LONGEST_PREFIX} letters, digits, '-', '_', '.' or ':'"),
            );
        }
        let mut within = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                mistakes.add(
                    format!("agent.redis.{key}"),
                    format!("is {value}, must be from {least} to {most}"),
                );
            }
        };
        within("answer_within_seconds", self.answer_within_seconds, 1, 60);
        within("patience_seconds", self.patience_seconds, 1, 600);
        within("lease_seconds", self.lease_seconds, 3, 600);
    }
}

//! Section `registry.redis`: how leases are kept in Redis. Where Redis is, says `registry.redis_cluster_endpoint`.

use std::path::PathBuf;
use std::time::Duration;

use muster_runtime::config::Mistakes;
use muster_store::redis::{Address, Options as Patience};
use serde::{Deserialize, Serialize};

/// Longest prefix of keys: it is part of every key.
const LONGEST_PREFIX: usize = 64;

/// How leases are kept in Redis. All registries over one store must have the same prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// A file of certificate authorities in PEM that certify Redis, in place of Mozilla's.
    pub certificate_authorities: Option<PathBuf>,
    /// What all keys start with; stores with different ones share a Redis.
    pub key_prefix: String,
    /// How long a command may take to be answered; then the connection counts as broken.
    pub answer_within_seconds: u64,
    /// How long a write is tried again before it is refused.
    pub patience_seconds: u64,
}

impl Default for Redis {
    fn default() -> Self {
        let patience = Patience::default();
        Self {
            certificate_authorities: None,
            key_prefix: "muster".to_owned(),
            answer_within_seconds: patience.answer_within.as_secs(),
            patience_seconds: patience.patience.as_secs(),
        }
    }
}

impl Redis {
    /// Limits of time of the connection.
    #[must_use]
    pub fn patience(&self) -> Patience {
        Patience {
            answer_within: Duration::from_secs(self.answer_within_seconds),
            patience: Duration::from_secs(self.patience_seconds),
            ..Patience::default()
        }
    }

    pub(super) fn validate(&self, endpoint: Option<&str>, mistakes: &mut Mistakes) {
        match endpoint.map(str::parse::<Address>) {
            Some(Err(error)) => mistakes.add("registry.redis_cluster_endpoint", error.to_string()),
            Some(Ok(address)) if self.certificate_authorities.is_some() && !address.is_tls() => {
                mistakes.add(
                    "registry.redis.certificate_authorities",
                    "is of no use without TLS: write rediss in place of redis in registry.redis_cluster_endpoint",
                );
            }
            Some(Ok(_)) | None => {}
        }
        // Braces would be hash tags, and take the keys out of their slot.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        let prefix = &self.key_prefix;
        if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(plain) {
            mistakes.add(
                "registry.redis.key_prefix",
                format!("must be 1 to {LONGEST_PREFIX} letters, digits, '-', '_', '.' or ':'"),
            );
        }
        let times = [
            ("answer_within_seconds", self.answer_within_seconds, 60),
            ("patience_seconds", self.patience_seconds, 600),
        ];
        for (key, value, most) in times {
            if !(1..=most).contains(&value) {
                mistakes.add(
                    format!("registry.redis.{key}"),
                    format!("is {value}, must be from 1 to {most}"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let bad = Redis {
            certificate_authorities: Some("ca.pem".into()),
            key_prefix: "a{b}".into(),
            answer_within_seconds: 0,
            patience_seconds: 601,
        };
        let mut mistakes = Mistakes::default();
        bad.validate(Some("redis://localhost"), &mut mistakes);
        let keys: Vec<&str> = mistakes.iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "registry.redis.certificate_authorities",
                "registry.redis.key_prefix",
                "registry.redis.answer_within_seconds",
                "registry.redis.patience_seconds"
            ]
        );
        let mut mistakes = Mistakes::default();
        Redis::default().validate(Some("redis+cluster://a,b"), &mut mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
    }
}

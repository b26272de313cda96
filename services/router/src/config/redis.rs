//! Section `router.redis`: how what routers share is kept in Redis. Where Redis is, says `router.redis_cluster_endpoint`.

use std::path::PathBuf;
use std::time::Duration;

use muster_runtime::config::Mistakes;
use muster_store::redis::{Address, Options as Patience};
use serde::{Deserialize, Serialize};

/// Longest prefix of keys: it is part of every key.
const LONGEST_PREFIX: usize = 64;

/// How what routers share is kept in Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// A file of certificate authorities in PEM that certify Redis, in place of Mozilla's.
    pub certificate_authorities: Option<PathBuf>,
    /// What all keys start with; routers of the same prefix and namespace share what they keep.
    pub key_prefix: String,
    /// How long a command may take to be answered; then the connection counts as broken.
    pub answer_within_seconds: u64,
    /// How long a command is tried again before what needs it is refused. Callers wait meanwhile.
    pub patience_seconds: u64,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            certificate_authorities: None,
            key_prefix: "muster".to_owned(),
            answer_within_seconds: 2,
            patience_seconds: 5,
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

    /// What the keys of routers of this namespace start with, such as `muster:router:default`: not those of other services,
    /// and not those of another namespace's routers, whose agents may have the same ids.
    #[must_use]
    pub fn prefix(&self, namespace: &str) -> String {
        format!("{}:router:{namespace}", self.key_prefix)
    }

    pub(super) fn validate(&self, endpoint: Option<&str>, mistakes: &mut Mistakes) {
        match endpoint.map(str::parse::<Address>) {
            Some(Err(error)) => mistakes.add("router.redis_cluster_endpoint", error.to_string()),
            Some(Ok(address)) if self.certificate_authorities.is_some() && !address.is_tls() => {
                mistakes.add(
                    "router.redis.certificate_authorities",
                    "is of no use without TLS: write rediss in place of redis in router.redis_cluster_endpoint",
                );
            }
            Some(Ok(_)) | None => {}
        }
        // Braces would be hash tags, and put keys that are to be spread into one slot.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        let prefix = &self.key_prefix;
        if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(plain) {
            mistakes.add(
                "router.redis.key_prefix",
                format!("must be 1 to {LONGEST_PREFIX} letters, digits, '-', '_', '.' or ':'"),
            );
        }
        for (key, value, most) in [
            ("answer_within_seconds", self.answer_within_seconds, 60),
            ("patience_seconds", self.patience_seconds, 600),
        ] {
            if !(1..=most).contains(&value) {
                mistakes.add(
                    format!("router.redis.{key}"),
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
            key_prefix: "a{b}".into(),
            answer_within_seconds: 0,
            patience_seconds: 601,
            ..Redis::default()
        };
        let mut mistakes = Mistakes::default();
        bad.validate(Some("localhost:6379"), &mut mistakes);
        let keys: Vec<&str> = mistakes.iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "router.redis_cluster_endpoint",
                "router.redis.key_prefix",
                "router.redis.answer_within_seconds",
                "router.redis.patience_seconds",
            ]
        );
        let mut mistakes = Mistakes::default();
        Redis::default().validate(Some("redis+cluster://a,b"), &mut mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
    }
}

//! Section `engine.redis`: how the store is kept in Redis. Where Redis is, says `engine.redis_cluster_endpoint`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use muster_runtime::Error;
use muster_runtime::config::Mistakes;
use muster_store::redis::{Address, Options as Patience};
use serde::{Deserialize, Serialize};

use crate::partition;
use crate::store::events::Room;
use crate::store::redis::Options;

/// Longest prefix of keys: it is part of every key.
const LONGEST_PREFIX: usize = 64;

/// How the store is kept in Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// A file of certificate authorities in PEM that certify Redis, in place of Mozilla's.
    pub certificate_authorities: Option<PathBuf>,
    /// What all keys start with; stores with different ones share a Redis.
    pub key_prefix: String,
    /// How many partitions a store is made with; fixed from then on.
    pub partitions: u16,
    /// How long a command may take to be answered; then the connection counts as broken.
    pub answer_within_seconds: u64,
    /// How long a write is tried again before it is refused.
    pub patience_seconds: u64,
    /// For how long a partition is an engine's own without a sign of life; the time after which others take over.
    pub lease_seconds: u64,
    /// Where other engines reach this one, as `host:port`; where it listens, if that is one address.
    pub advertised_address: Option<String>,
}

impl Default for Redis {
    fn default() -> Self {
        let patience = Patience::default();
        Self {
            certificate_authorities: None,
            key_prefix: "muster".to_owned(),
            partitions: partition::DEFAULT_COUNT,
            answer_within_seconds: patience.answer_within.as_secs(),
            patience_seconds: patience.patience.as_secs(),
            lease_seconds: 5,
            advertised_address: None,
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

    /// See [`Redis::lease_seconds`].
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// Where other engines reach this one, which listens at `data`.
    pub(crate) fn address(&self, data: SocketAddr) -> Result<String, Error> {
        match &self.advertised_address {
            Some(address) => Ok(address.clone()),
            None if data.ip().is_unspecified() => Err(Error::Other(format!(
                "engine.redis.advertised_address: is missing: the engine listens on all addresses ({data}), and other engines have to know one, such as that of the pod with port {}",
                data.port()
            ))),
            None => Ok(data.to_string()),
        }
    }

    /// As the store knows it.
    #[must_use]
    pub fn options(&self, room: Room, format: u32) -> Options {
        Options {
            prefix: self.key_prefix.clone(),
            partitions: self.partitions,
            room,
            format,
            ..Options::default()
        }
    }

    pub(super) fn validate(&self, endpoint: Option<&str>, mistakes: &mut Mistakes) {
        match endpoint.map(str::parse::<Address>) {
            Some(Err(error)) => mistakes.add("engine.redis_cluster_endpoint", error.to_string()),
            Some(Ok(address)) if self.certificate_authorities.is_some() && !address.is_tls() => {
                mistakes.add(
                    "engine.redis.certificate_authorities",
                    "is of no use without TLS: write rediss in place of redis in engine.redis_cluster_endpoint",
                );
            }
            Some(Ok(_)) | None => {}
        }
        // Braces would be hash tags, and take the store's keys out of their slots.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        let prefix = &self.key_prefix;
        if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(plain) {
            mistakes.add(
                "engine.redis.key_prefix",
                format!("must be 1 to {LONGEST_PREFIX} letters, digits, '-', '_', '.' or ':'"),
            );
        }
        if let Some(address) = &self.advertised_address
            && let Err(error) = muster_rpc::endpoint::parse(&format!("http://{address}"))
        {
            mistakes.add(
                "engine.redis.advertised_address",
                format!("must be host:port, such as 10.0.0.7:50051: {error}"),
            );
        }
        let mut within = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                mistakes.add(
                    format!("engine.redis.{key}"),
                    format!("is {value}, must be from {least} to {most}"),
                );
            }
        };
        within("partitions", self.partitions.into(), 1, partition::MOST.into());
        within("answer_within_seconds", self.answer_within_seconds, 1, 60);
        within("patience_seconds", self.patience_seconds, 1, 600);
        within("lease_seconds", self.lease_seconds, 3, 600);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let bad = Redis {
            key_prefix: "a{b}".into(),
            partitions: 0,
            lease_seconds: 1,
            ..Redis::default()
        };
        let mut mistakes = Mistakes::default();
        bad.validate(Some("localhost:6379"), &mut mistakes);
        let keys: Vec<&str> = mistakes.iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "engine.redis_cluster_endpoint",
                "engine.redis.key_prefix",
                "engine.redis.partitions",
                "engine.redis.lease_seconds"
            ]
        );
        let mut mistakes = Mistakes::default();
        Redis::default().validate(Some("redis+cluster://a,b"), &mut mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
    }
}

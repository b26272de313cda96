//! Section `engine.redis`: how the store is kept in Redis. Where Redis is, says `engine.redis_cluster_endpoint`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use muster_runtime::Error;
use muster_runtime::config::Mistakes;
use muster_store::redis::Settings;
use muster_store::redis::settings::within;
use serde::{Deserialize, Serialize};

use crate::partition;
use crate::store::events::Room;
use crate::store::redis::Options;

/// The section of the settings.
pub(crate) const SECTION: &str = "engine";

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
        let shared = Settings::default();
        Self {
            certificate_authorities: shared.certificate_authorities,
            key_prefix: shared.key_prefix,
            partitions: partition::DEFAULT_COUNT,
            answer_within_seconds: shared.answer_within_seconds,
            patience_seconds: shared.patience_seconds,
            lease_seconds: 5,
            advertised_address: None,
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
        self.shared().validate(SECTION, endpoint, mistakes);
        if let Some(address) = &self.advertised_address
            && let Err(error) = muster_rpc::endpoint::parse(&format!("http://{address}"))
        {
            mistakes.add(
                "engine.redis.advertised_address",
                format!("must be host:port, such as 10.0.0.7:50051: {error}"),
            );
        }
        let partitions = self.partitions.into();
        within(
            SECTION,
            "partitions",
            partitions,
            1..=partition::MOST.into(),
            mistakes,
        );
        within(SECTION, "lease_seconds", self.lease_seconds, 3..=600, mistakes);
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

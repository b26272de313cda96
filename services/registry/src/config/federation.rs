//! Section `registry.federation`: the registries of other regions whose agents this one shows.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_rpc::endpoint::{self, Endpoint};
use muster_runtime::config::Mistakes;
use serde::{Deserialize, Serialize};

use crate::federation::mirror::Bounds;

/// Most registries that one follows. Each is a stream, and each has labels of its own in the metrics.
const MOST_PEERS: usize = 32;
/// Longest name of a region.
const LONGEST_REGION: usize = 63;

/// See the module. Without peers a registry follows nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Federation {
    /// This registry's own region: that of instances that name none. Empty for none.
    pub region: String,
    /// The registries of other regions.
    pub peers: Vec<Peer>,
    /// For how long the agents of a registry that is not heard are shown, in seconds.
    pub grace_seconds: u64,
    /// Most instances of one registry that are shown.
    pub max_instances_per_peer: usize,
}

/// The registry of another region.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The region's name.
    pub region: String,
    /// Where its registry is, `http://HOST:PORT`; of registries that share a Redis, the name before all of them.
    pub url: String,
}

impl Default for Federation {
    fn default() -> Self {
        Self {
            region: String::new(),
            peers: Vec::new(),
            grace_seconds: 300,
            max_instances_per_peer: 100_000,
        }
    }
}

impl Federation {
    /// What holds for the agents of each registry.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            grace: Duration::from_secs(self.grace_seconds),
            most: self.max_instances_per_peer,
        }
    }

    /// The regions with the addresses of their registries.
    ///
    /// # Errors
    /// An address is none, with the key that names it.
    pub fn addresses(&self) -> Result<Vec<(String, Endpoint)>, String> {
        let peers = self.peers.iter().enumerate();
        peers
            .map(|(index, peer)| match endpoint::parse(&peer.url) {
                Ok(endpoint) => Ok((peer.region.clone(), endpoint)),
                Err(error) => Err(format!("registry.federation.peers[{index}].url: {error}")),
            })
            .collect()
    }

    pub(super) fn validate(&self, mistakes: &mut Mistakes) {
        if !self.region.is_empty() {
            check_region("registry.federation.region", &self.region, mistakes);
        }
        if self.peers.len() > MOST_PEERS {
            let count = self.peers.len();
            mistakes.add(
                "registry.federation.peers",
                format!("are {count}, must be at most {MOST_PEERS}"),
            );
        }
        let mut seen = BTreeSet::from([self.region.as_str()]);
        for (index, peer) in self.peers.iter().enumerate() {
            let key = |name: &str| format!("registry.federation.peers[{index}].{name}");
            check_region(&key("region"), &peer.region, mistakes);
            if !peer.region.is_empty() && !seen.insert(&peer.region) {
                mistakes.add(
                    key("region"),
                    format!("'{}' is this registry's own or that of another peer", peer.region),
                );
            }
            if let Err(error) = endpoint::parse(&peer.url) {
                mistakes.add(key("url"), error.to_string());
            }
        }
        if !(1..=86_400).contains(&self.grace_seconds) {
            mistakes.add(
                "registry.federation.grace_seconds",
                "must be from 1 to 86400 seconds",
            );
        }
        if !(1..=1_000_000).contains(&self.max_instances_per_peer) {
            mistakes.add(
                "registry.federation.max_instances_per_peer",
                "must be from 1 to 1000000",
            );
        }
    }
}

fn check_region(key: &str, region: &str, mistakes: &mut Mistakes) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if region.is_empty() || region.len() > LONGEST_REGION || !region.bytes().all(plain) {
        mistakes.add(
            key,
            format!("must be 1 to {LONGEST_REGION} letters, digits, '-', '_' or '.'"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let peer = |region: &str, url: &str| Peer {
            region: region.to_owned(),
            url: url.to_owned(),
        };
        let bad = Federation {
            region: "eu".to_owned(),
            peers: vec![
                peer("eu", "http://a:1"),
                peer("us east", "a:1"),
                peer("ap", "http://b:1"),
            ],
            grace_seconds: 0,
            max_instances_per_peer: 0,
        };
        let mut mistakes = Mistakes::default();
        bad.validate(&mut mistakes);
        let keys: Vec<&str> = mistakes.iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "registry.federation.peers[0].region",
                "registry.federation.peers[1].region",
                "registry.federation.peers[1].url",
                "registry.federation.grace_seconds",
                "registry.federation.max_instances_per_peer",
            ]
        );
        assert!(bad.addresses().is_err());
        let mut mistakes = Mistakes::default();
        Federation::default().validate(&mut mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
    }
}

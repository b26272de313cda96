//! The registry's settings.

mod federation;

use std::path::PathBuf;
use std::time::Duration;

use muster_a2a::card::trust;
use muster_rpc::outbound;
use muster_runtime::config::Mistakes;
use muster_runtime::{server, telemetry, workers};
use muster_store::redis;
use serde::{Deserialize, Serialize};

use crate::lease::Terms;
use crate::offline;
use crate::store::watchers::WatchLimits;

pub use federation::{Federation, Peer};

/// Bounds of [`Settings::keeper_lease`].
const SHORTEST_KEEPER_LEASE: Duration = Duration::from_millis(300);
const LONGEST_KEEPER_LEASE: Duration = Duration::from_secs(10);

/// The setting that says where cards may be fetched.
pub const OUTBOUND: &str = "registry.outbound.allow";

/// All sections.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Ports and bounds.
    pub server: server::Config,
    /// Logs.
    pub telemetry: telemetry::Config,
    /// How peers are trusted.
    pub trust: muster_runtime::trust::Config,
    /// The registry's own.
    pub registry: Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: server::Config {
                workers: workers::one_for_each_processor(),
                ..server::Config::on_ports(7401, 7501, 7601)
            },
            telemetry: telemetry::Config::default(),
            trust: muster_runtime::trust::Config::default(),
            registry: Settings::default(),
        }
    }
}

/// The section `registry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How often instances send heartbeats, in seconds.
    pub health_check_interval: u64,
    /// How long a lease lasts without a heartbeat, in seconds.
    pub lease_duration: u64,
    /// Most instances that say they run on one node.
    pub max_agents_per_node: usize,
    /// Most instances at all.
    pub max_instances: usize,
    /// How long an instance whose lease ended without a goodbye is listed as offline, in seconds; 0 for not at all.
    pub offline_retention: u64,
    /// Most instances that are listed as offline; those that left first go first.
    pub max_offline: usize,
    /// Whether a registration is refused when nobody listens at its endpoint. Off where the registry cannot reach
    /// agents that others can.
    pub probe_endpoints: bool,
    /// Most streams that watch.
    pub max_watchers: usize,
    /// How many changes are kept for watchers: one that is behind by more, because it reads slowly or was away, starts
    /// over with a snapshot. About 150 bytes each. In Redis as many are kept for registries that were away.
    pub watch_queue: usize,
    /// Where the Redis is that leases are kept in, so that several registries are one: `redis://HOST:PORT`,
    /// `redis+sentinel://…` or `redis+cluster://…`. None: they are kept in memory.
    pub redis_cluster_endpoint: Option<String>,
    /// How they are kept in Redis.
    pub redis: redis::Settings,
    /// Where the registry writes down which agents it keeps by their cards, so that it keeps them after a restart; in memory
    /// where it is empty. Leases are never on disk. Where they are in Redis, so are those agents: what is here already is taken over once.
    pub data_directory: PathBuf,
    /// Most agents that are kept by their cards. Each is asked for its card as often as instances send heartbeats.
    pub max_managed_agents: usize,
    /// Where the cards and the ways in of those agents may be.
    pub outbound: outbound::Config,
    /// Whose signatures of cards are good, and what becomes of cards without.
    pub card_trust: trust::Config,
    /// The registries of other regions.
    pub federation: Federation,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            health_check_interval: 30,
            lease_duration: 90,
            max_agents_per_node: 10,
            max_instances: 100_000,
            offline_retention: 600,
            max_offline: 10_000,
            probe_endpoints: true,
            max_watchers: 256,
            watch_queue: 65_536,
            redis_cluster_endpoint: None,
            redis: redis::Settings::default(),
            data_directory: PathBuf::new(),
            max_managed_agents: 1_000,
            outbound: outbound::Config::default(),
            card_trust: trust::Config::default(),
            federation: Federation::default(),
        }
    }
}

impl Settings {
    /// How often instances send heartbeats.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.health_check_interval)
    }

    /// For how long a registry keeps agents by their cards without a sign of life; then another one over the same Redis does.
    /// What is left of the agents' own leases then is enough for that one to find them.
    #[must_use]
    pub fn keeper_lease(&self) -> Duration {
        let left = self.lease_duration.saturating_sub(self.health_check_interval);
        (Duration::from_secs(left) / 3).clamp(SHORTEST_KEEPER_LEASE, LONGEST_KEEPER_LEASE)
    }

    /// What leases are granted on.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms {
            time_to_live: Duration::from_secs(self.lease_duration),
            max_per_node: self.max_agents_per_node,
            max_instances: self.max_instances,
            offline: offline::Bounds {
                retention: Duration::from_secs(self.offline_retention),
                most: self.max_offline,
            },
        }
    }

    /// Bounds of the watchers.
    #[must_use]
    pub fn watch_limits(&self) -> WatchLimits {
        WatchLimits {
            queue: self.watch_queue,
            watchers: self.max_watchers,
        }
    }

    fn validate(&self, mistakes: &mut Mistakes) {
        if !(1..=3_600).contains(&self.health_check_interval) {
            mistakes.add("registry.health_check_interval", "must be from 1 to 3600 seconds");
        }
        let least = self.health_check_interval.saturating_mul(2);
        if !(least..=86_400).contains(&self.lease_duration) {
            mistakes.add(
                "registry.lease_duration",
                format!("must be from {least} (twice registry.health_check_interval, so that one heartbeat may get lost) to 86400 seconds"),
            );
        }
        if self.offline_retention > 86_400 {
            mistakes.add("registry.offline_retention", "must be from 0 to 86400 seconds");
        }
        if self.max_offline > 1_000_000 {
            mistakes.add("registry.max_offline", "must be from 0 to 1000000");
        }
        if let Err(error) = outbound::Policy::new(&self.outbound.allow, OUTBOUND) {
            mistakes.add(OUTBOUND, error);
        }
        let counts = [
            ("max_agents_per_node", self.max_agents_per_node, 1_000_000),
            ("max_instances", self.max_instances, 1_000_000),
            ("max_watchers", self.max_watchers, 100_000),
            ("watch_queue", self.watch_queue, 1_000_000),
            ("max_managed_agents", self.max_managed_agents, 10_000),
        ];
        for (key, value, most) in counts {
            if !(1..=most).contains(&value) {
                mistakes.add(format!("registry.{key}"), format!("must be from 1 to {most}"));
            }
        }
        self.federation.validate(mistakes);
        self.redis
            .validate("registry", self.redis_cluster_endpoint.as_deref(), mistakes);
    }
}

impl muster_runtime::config::Settings for Config {
    fn validate(&self, mistakes: &mut Mistakes) {
        self.server.validate(mistakes);
        self.telemetry.validate(mistakes);
        self.trust.validate(&self.server, mistakes);
        self.registry.validate(mistakes);
    }

    fn server(&self) -> &server::Config {
        &self.server
    }

    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }

    fn trust(&self) -> Option<&muster_runtime::trust::Config> {
        Some(&self.trust)
    }

    fn secrets() -> &'static [&'static str] {
        // It may hold a password.
        &["registry.redis_cluster_endpoint"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_runtime::config;

    fn mistakes(overrides: &[(&str, &str)]) -> String {
        let overrides: Vec<_> = overrides
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        match config::load(Config::default(), None, std::iter::empty(), &overrides) {
            Ok(_) => String::new(),
            Err(mistakes) => mistakes.to_string(),
        }
    }

    #[test]
    fn the_defaults_are_valid_and_a_lease_outlives_two_heartbeats() {
        assert_eq!(mistakes(&[]), "");
        let settings = Settings::default();
        assert_eq!(settings.terms().time_to_live, settings.heartbeat_interval() * 3);
    }

    #[test]
    fn every_bad_setting_is_named() {
        for (key, value) in [
            ("registry.health_check_interval", "0"),
            ("registry.lease_duration", "59"),
            ("registry.max_agents_per_node", "0"),
            ("registry.max_instances", "0"),
            ("registry.max_watchers", "0"),
            ("registry.offline_retention", "86401"),
            ("registry.max_offline", "1000001"),
            ("registry.watch_queue", "0"),
            ("registry.redis_cluster_endpoint", "localhost:6379"),
            ("registry.redis.key_prefix", "a{b}"),
            ("registry.max_managed_agents", "10001"),
            ("registry.outbound.allow", "[\"http://a\"]"),
            ("registry.federation.grace_seconds", "0"),
        ] {
            let told = mistakes(&[(key, value)]);
            assert!(told.contains(key), "{key}: {told}");
        }
        let told = mistakes(&[(
            "registry.federation.peers",
            r#"[{"region":"eu","url":"eu:7401"}]"#,
        )]);
        assert!(told.contains("registry.federation.peers[0].url"), "{told}");
        let good = r#"[{"region":"eu","url":"http://eu:7401"}]"#;
        assert_eq!(mistakes(&[("registry.federation.peers", good)]), "");
    }
}

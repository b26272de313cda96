//! Configuration of every agent: the standard sections, the SDK's own (`agent`), and the agent's (`settings`).

pub(crate) mod redis;

use std::path::PathBuf;

use muster_a2a::card::sign;
use muster_rpc::{endpoint, outbound};
use muster_runtime::config::{Mistakes, Settings};
use muster_runtime::{server, telemetry, trust};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use redis::Redis;

/// The section of one agent: what only that agent can be told.
pub trait Section: Serialize + DeserializeOwned + Default + Send + Sync + 'static {
    /// Adds what is wrong, with paths below `settings`.
    fn validate(&self, mistakes: &mut Mistakes) {
        let _ = mistakes;
    }
}

/// The section of an agent that needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoSettings {}

impl Section for NoSettings {}

/// Everything that an agent process can be told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, bound(deserialize = "S: Section"))]
pub struct Config<S> {
    /// Ports and bounds.
    pub server: server::Config,
    /// Logs.
    pub telemetry: telemetry::Config,
    /// Who may talk to whom.
    pub trust: trust::Config,
    /// What the SDK needs to know.
    pub agent: AgentConfig,
    /// What the agent itself needs to know.
    pub settings: S,
}

/// The section `agent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// The registry: `http://HOST:PORT`.
    pub registry_url: String,
    /// Host under which others reach this instance; the listener's address where it is absent. Needed where the
    /// service listens on all addresses, because 0.0.0.0 leads nowhere.
    pub advertise_host: Option<String>,
    /// Whose agent it is; empty means `default`.
    pub namespace: String,
    /// Region, for preference of near instances.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// The machine; where given, the registry's `max_agents_per_node` holds.
    pub node: String,
    /// After how many seconds a heartbeat that has failed is sent again, if it failed again at once.
    pub heartbeat_after_error_seconds: u64,
    /// How many tasks run at once; more are refused. Load is running tasks by this number.
    pub max_concurrent_tasks: u32,
    /// How long a task may run.
    pub task_timeout_seconds: u64,
    /// How many tasks are remembered, those in work included; of all instances together where they share a Redis.
    pub max_stored_tasks: usize,
    /// How many bytes of tasks are remembered; of all instances together where they share a Redis.
    pub max_stored_bytes: usize,
    /// How long a task is remembered after its last change.
    pub task_retention_seconds: u64,
    /// Where tasks and push configurations are kept, so that they survive a restart: in a directory of the agent's id
    /// below it, which one process uses at a time. In memory alone where it is empty.
    pub data_directory: PathBuf,
    /// Where the Redis is that tasks and push configurations are kept in for all instances of the agent: `redis://HOST:PORT`,
    /// `redis+sentinel://…` or `redis+cluster://…`. None: they are kept in the data directory.
    pub redis_cluster_endpoint: Option<String>,
    /// How tasks are kept in Redis.
    pub redis: Redis,
    /// A file of keys by which tasks and push configurations are encrypted where they are kept, one in each line: an id, a space and
    /// 32 bytes in base64. The first one writes, all of them read.
    pub encryption_key_file: Option<PathBuf>,
    /// What push notifications may be sent to; with an empty list the agent has none.
    pub outbound: outbound::Config,
    /// The key that the agent's card is signed with.
    pub card_signing: sign::Config,
}

/// Where the operator sets what push notifications may be sent to.
pub(crate) const OUTBOUND: &str = "agent.outbound.allow";

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            registry_url: "http://127.0.0.1:7401".to_owned(),
            advertise_host: None,
            namespace: String::new(),
            region: String::new(),
            zone: String::new(),
            node: String::new(),
            heartbeat_after_error_seconds: 5,
            max_concurrent_tasks: 16,
            task_timeout_seconds: 600,
            max_stored_tasks: 10_000,
            max_stored_bytes: 64 * 1024 * 1024,
            task_retention_seconds: 3_600,
            data_directory: PathBuf::from("data/agents"),
            redis_cluster_endpoint: None,
            redis: Redis::default(),
            encryption_key_file: None,
            outbound: outbound::Config::default(),
            card_signing: sign::Config::default(),
        }
    }
}

impl<S: Section> Config<S> {
    /// The defaults on these ports.
    #[must_use]
    pub fn on_ports(data: u16, health: u16, metrics: u16) -> Self {
        Self {
            server: server::Config::on_ports(data, health, metrics),
            ..Self::default()
        }
    }
}

impl<S: Section> Settings for Config<S> {
    fn server(&self) -> &server::Config {
        &self.server
    }

    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }

    fn trust(&self) -> Option<&trust::Config> {
        Some(&self.trust)
    }

    fn validate(&self, mistakes: &mut Mistakes) {
        self.server.validate(mistakes);
        self.telemetry.validate(mistakes);
        self.trust.validate(&self.server, mistakes);
        self.agent.validate(&self.server, mistakes);
        self.settings.validate(mistakes);
    }

    fn secrets() -> &'static [&'static str] {
        // It may hold a password.
        &[redis::ENDPOINT]
    }
}

impl AgentConfig {
    fn validate(&self, server: &server::Config, mistakes: &mut Mistakes) {
        if let Err(error) = endpoint::parse(&self.registry_url) {
            mistakes.add("agent.registry_url", error.to_string());
        }
        if server.host.is_unspecified() && self.advertise_host.is_none() {
            mistakes.add(
                "agent.advertise_host",
                format!(
                    "is needed with server.host = {}: say under which host or address others reach this instance",
                    server.host
                ),
            );
        }
        if let Some(host) = &self.advertise_host
            && let Err(error) = endpoint::parse(&format!("http://{}", authority(host, 1)))
        {
            mistakes.add(
                "agent.advertise_host",
                format!("'{host}' is no host name or address: {error}"),
            );
        }
        if let Err(error) = outbound::Policy::new(&self.outbound.allow, OUTBOUND) {
            mistakes.add(OUTBOUND, error);
        }
        self.redis
            .validate(self.redis_cluster_endpoint.as_deref(), &self.namespace, mistakes);
        if !(1..=300).contains(&self.heartbeat_after_error_seconds) {
            mistakes.add(
                "agent.heartbeat_after_error_seconds",
                "must be from 1 to 300 seconds",
            );
        }
        let at_least_one = [
            ("agent.max_concurrent_tasks", u64::from(self.max_concurrent_tasks)),
            ("agent.task_timeout_seconds", self.task_timeout_seconds),
            ("agent.max_stored_tasks", self.max_stored_tasks as u64),
            ("agent.max_stored_bytes", self.max_stored_bytes as u64),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                mistakes.add(key, "is 0; at least 1 is needed");
            }
        }
        if u64::from(self.max_concurrent_tasks) > self.max_stored_tasks as u64 {
            mistakes.add(
                "agent.max_stored_tasks",
                format!(
                    "is {}, less than agent.max_concurrent_tasks ({}): running tasks could not be stored",
                    self.max_stored_tasks, self.max_concurrent_tasks
                ),
            );
        }
    }
}

/// `host:port`, with brackets around a bare IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(change: impl FnOnce(&mut Config<NoSettings>)) -> Vec<String> {
        let mut config = Config::on_ports(7411, 7511, 7611);
        change(&mut config);
        let mut mistakes = Mistakes::default();
        config.validate(&mut mistakes);
        mistakes.iter().map(|(key, _)| key.to_owned()).collect()
    }

    #[test]
    fn the_defaults_are_good_and_each_mistake_is_named_by_its_key() {
        assert!(mistakes(|_| ()).is_empty());
        assert_eq!(
            mistakes(|config| config.agent.registry_url = "registry".to_owned()),
            ["agent.registry_url"]
        );
        assert_eq!(
            mistakes(|config| config.agent.advertise_host = Some("http://me".to_owned())),
            ["agent.advertise_host"]
        );
        assert_eq!(
            mistakes(|config| config.agent.max_concurrent_tasks = 0),
            ["agent.max_concurrent_tasks"]
        );
        assert_eq!(
            mistakes(|config| config.agent.heartbeat_after_error_seconds = 0),
            ["agent.heartbeat_after_error_seconds"]
        );
        assert_eq!(
            mistakes(|config| config.agent.max_stored_tasks = 3),
            ["agent.max_stored_tasks"]
        );
    }

    #[test]
    fn mistakes_about_redis_are_named_by_their_keys() {
        let wrong = mistakes(|config| {
            config.agent.redis_cluster_endpoint = Some("localhost:6379".to_owned());
            config.agent.namespace = "a{b}".to_owned();
            config.agent.redis.key_prefix = "a{b}".to_owned();
            config.agent.redis.lease_seconds = 1;
        });
        assert_eq!(
            wrong,
            [
                "agent.redis_cluster_endpoint",
                "agent.redis.key_prefix",
                "agent.namespace",
                "agent.redis.lease_seconds"
            ]
        );
        let plain = mistakes(|config| {
            config.agent.redis_cluster_endpoint = Some("redis://localhost".to_owned());
            config.agent.redis.certificate_authorities = Some(PathBuf::from("ca.pem"));
        });
        assert_eq!(plain, ["agent.redis.certificate_authorities"]);
        let good = mistakes(|config| {
            config.agent.redis_cluster_endpoint = Some("redis+cluster://a,b".to_owned());
        });
        assert!(good.is_empty(), "{good:?}");
    }

    #[test]
    fn the_password_of_redis_is_not_printed() {
        let mut config = Config::<NoSettings>::on_ports(7411, 7511, 7611);
        config.agent.redis_cluster_endpoint = Some("redis://user:hidden@localhost".to_owned());
        let printed = muster_runtime::config::redacted(&config).to_string();
        assert!(!printed.contains("hidden"), "{printed}");
    }

    #[test]
    fn who_listens_everywhere_has_to_say_where_it_is() {
        let everywhere = |config: &mut Config<NoSettings>| {
            config.server.host = std::net::Ipv4Addr::UNSPECIFIED.into();
            config.trust.allow_plaintext = true;
        };
        assert_eq!(mistakes(everywhere), ["agent.advertise_host"]);
        let named = mistakes(|config| {
            everywhere(config);
            config.agent.advertise_host = Some("weather.agents.svc".to_owned());
        });
        assert!(named.is_empty());
        assert_eq!(authority("::1", 7411), "[::1]:7411");
        assert_eq!(authority("10.0.0.7", 7411), "10.0.0.7:7411");
    }
}

//! Settings of the router.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use muster_a2a::card::sign;
use muster_api::names::DEFAULT_NAMESPACE;
use muster_rpc::{breaker, endpoint, outbound, retry_budget};
use muster_runtime::background::Rhythm;
use muster_runtime::config::{Mistakes, Settings};
use muster_runtime::{server, telemetry, trust, workers};
use muster_store::redis;
use serde::{Deserialize, Serialize};

use crate::balance::Preferences;
use crate::flow::lines;
use crate::quota::Quota;
use crate::rate::gcra::MOST_PER_MINUTE;
use crate::regions::Regions;
use crate::store::answers::Room;
use crate::tuning::{Bounds, WHOLE};
use crate::{credentials, deduplication, durable, forward, inbox};

const MIB: usize = 1 << 20;
/// Most regions that can be put in an order.
const MOST_REGIONS: usize = 64;
const DAY: u64 = 24 * 60 * 60;

/// Where the operator sets what agents of JSON bindings may be reached at.
pub const OUTBOUND: &str = "router.outbound.allow";

/// Everything that can be set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses and limits of the service's ports.
    pub server: server::Config,
    /// Logs.
    pub telemetry: telemetry::Config,
    /// Who is trusted.
    pub trust: trust::Config,
    /// The router itself.
    pub router: Router,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: server::Config {
                workers: workers::one_for_each_processor(),
                ..server::Config::on_ports(7402, 7502, 7602)
            },
            telemetry: telemetry::Config::default(),
            trust: trust::Config::default(),
            router: Router::default(),
        }
    }
}

/// Section `router`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Router {
    /// The registry, `http://HOST:PORT`.
    pub registry_url: String,
    /// The address under which clients reach this router, `http://HOST:PORT`, as agent cards name it. Empty: the
    /// address that it listens on.
    pub public_url: String,
    /// Where the owners of tasks and durable answers are kept, unless that is in Redis. One process at a time may use it.
    /// Empty: in memory.
    pub data_directory: PathBuf,
    /// Where the Redis is in which routers share what they keep: `redis://HOST:PORT`, `redis+sentinel://…` or
    /// `redis+cluster://…`. None: it is kept in the data directory, and no other router knows of it.
    pub redis_cluster_endpoint: Option<String>,
    /// How it is kept in Redis.
    pub redis: redis::Settings,
    /// What agents that speak JSON-RPC or HTTP+JSON may be reached at; those that speak gRPC are where they register.
    pub outbound: outbound::Config,
    /// What agents' cards ask for from who calls them.
    pub credentials: credentials::Config,
    /// The key that the cards are signed with that the router serves.
    pub card_signing: sign::Config,
    /// Whose agents it routes to.
    pub namespace: String,
    /// Region of this router, whose agents are preferred; empty for no preference.
    pub region: String,
    /// Regions that calls go to when the own one has no room or nobody, the preferred first. Others come after these, and are
    /// chosen by how fast and how loaded their instances are.
    pub region_order: Vec<String>,
    /// Requests that each caller may make in a minute. None: 1000 for callers who are told apart, and no limit where they are not;
    /// a number is a limit for all together who are not told apart, too. 0: no limit.
    pub api_rate_limit: Option<u32>,
    /// How many of them may come at once. None: a tenth.
    pub api_rate_burst: Option<u32>,
    /// Messages that agents take in a minute, by agent, in the place of what their cards say.
    pub quotas: BTreeMap<String, Quota>,
    /// Calls that may wait for a place; one more is refused.
    pub message_queue_size: usize,
    /// Messages that may be with agents at once.
    pub max_messages_in_flight: usize,
    /// Operations on tasks (reading, cancelling, following) that may be with agents at once.
    pub max_operations_in_flight: usize,
    /// Largest answer of an agent.
    pub max_answer_bytes: usize,
    /// How long a call with one answer may take when its caller does not say.
    pub default_deadline_seconds: u64,
    /// How long a call with one answer may take at most.
    pub max_deadline_seconds: u64,
    /// How long a stream may stay silent.
    pub stream_idle_seconds: u64,
    /// How long a caller may leave an event of a stream unread.
    pub stream_stall_seconds: u64,
    /// How long more may come for an agent than it answers before calls are refused; four times its answers at least.
    pub burst_seconds: f64,
    /// After which time of waiting a call is a step more urgent.
    pub priority_ageing_seconds: f64,
    /// Load above which other instances are preferred.
    pub max_load: f64,
    /// How long it takes an instance that has just come to get its whole share of the work; 0 for none of it.
    pub slow_start_seconds: f64,
    /// After how long without an answer a call that may be done twice is sent to a second instance as well, in seconds; 0:
    /// never. Each such call is paid from the budget of retries.
    pub hedge_after_seconds: f64,
    /// Instances that one call tries at most.
    pub max_attempts: usize,
    /// Connections to one instance at most; more than one are used when many calls are under way.
    pub connections_per_instance: usize,
    /// Failures in a row after which an instance is left alone.
    pub breaker_failures: u32,
    /// How long it is left alone.
    pub breaker_open_seconds: u64,
    /// Calls that try it out at once afterwards.
    pub breaker_probes: u32,
    /// Attempts that may move to another instance, as a share of all calls.
    pub retry_share: f64,
    /// Attempts per second that may move whatever the traffic.
    pub retry_minimum_per_second: f64,
    /// How long an instance that a reconnected registry does not confirm is kept; at least as long as a lease.
    pub unconfirmed_grace_seconds: u64,
    /// How long the owner of a task is kept.
    pub task_retention_seconds: u64,
    /// Owners that are kept at most.
    pub max_tasks: usize,
    /// How long the same message gets the same answer.
    pub deduplication_seconds: u64,
    /// Answers that are kept for it.
    pub deduplication_entries: usize,
    /// Bytes of answers that are kept for it.
    pub deduplication_bytes: usize,
    /// How long the same message gets the same answer where its caller asks for durability.
    pub deduplication_durable_seconds: u64,
    /// Such messages that are remembered at most; in Redis, its `maxmemory` is the bound.
    pub deduplication_durable_entries: usize,
    /// Bytes of such answers that are kept; in Redis, its `maxmemory` is the bound.
    pub deduplication_durable_bytes: usize,
    /// Largest such answer that is kept. Of a larger one that is a task, its id is.
    pub deduplication_durable_answer_bytes: usize,
    /// How long clients may use an agent card without asking again.
    pub card_max_age_seconds: u64,
    /// The durable inbox, and broadcasts.
    pub inbox: inbox::config::Settings,
    /// How often the router does what it does by itself.
    pub background: Backgrounds,
    /// How far it goes where `telemetry.optimizer` is `apply`.
    pub tuning: Tuning,
}

/// How often the router does what it does by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backgrounds {
    /// Looks for what is slow.
    pub performance: Rhythm,
}

impl Default for Backgrounds {
    fn default() -> Self {
        Self {
            performance: Rhythm::new(600, 300),
        }
    }
}

/// How far the router goes about what is slow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuning {
    /// The smallest part of its share that is left to an instance that is slower than others of its agent.
    pub least_share: f64,
    /// The fewest messages at once that are left to an instance of an agent that answers slower with all its places taken.
    pub min_concurrency: u32,
    /// The most that such an instance gets, whatever its card says.
    pub max_concurrency: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            least_share: 0.3,
            min_concurrency: 1,
            max_concurrency: 4_096,
        }
    }
}

impl Tuning {
    /// The bounds, as the rules have them.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 1, times a thousand"
    )]
    pub fn bounds(&self) -> Bounds {
        let share = (self.least_share.clamp(0.0, 1.0) * f64::from(WHOLE)).round() as u32;
        Bounds {
            least_share: share.max(1),
            places: self.min_concurrency..=self.max_concurrency,
        }
    }

    fn validate(&self, mistakes: &mut Mistakes) {
        if !(0.01..=1.0).contains(&self.least_share) {
            mistakes.add(
                "router.tuning.least_share",
                format!("is {}, must be from 0.01 to 1", self.least_share),
            );
        }
        for (key, places, least) in [
            ("min_concurrency", self.min_concurrency, 1),
            ("max_concurrency", self.max_concurrency, self.min_concurrency),
        ] {
            if !(least..=1_000_000).contains(&places) {
                mistakes.add(
                    format!("router.tuning.{key}"),
                    format!("is {places}, must be from {least} to 1000000"),
                );
            }
        }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self {
            registry_url: "http://127.0.0.1:7401".to_owned(),
            public_url: String::new(),
            data_directory: PathBuf::from("data/router"),
            redis_cluster_endpoint: None,
            // Callers wait meanwhile.
            redis: redis::Settings {
                answer_within_seconds: 2,
                patience_seconds: 5,
                ..redis::Settings::default()
            },
            outbound: outbound::Config::default(),
            credentials: credentials::Config::default(),
            card_signing: sign::Config::default(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            region: String::new(),
            region_order: Vec::new(),
            api_rate_limit: None,
            api_rate_burst: None,
            quotas: BTreeMap::new(),
            message_queue_size: 10_000,
            max_messages_in_flight: 1024,
            max_operations_in_flight: 1024,
            max_answer_bytes: 16 * MIB,
            default_deadline_seconds: 300,
            max_deadline_seconds: 3600,
            stream_idle_seconds: 300,
            stream_stall_seconds: 300,
            burst_seconds: 1.0,
            priority_ageing_seconds: 10.0,
            max_load: 0.8,
            slow_start_seconds: 10.0,
            hedge_after_seconds: 0.0,
            max_attempts: 8,
            connections_per_instance: 1,
            breaker_failures: 5,
            breaker_open_seconds: 60,
            breaker_probes: 1,
            retry_share: 0.2,
            retry_minimum_per_second: 1.0,
            unconfirmed_grace_seconds: 90,
            task_retention_seconds: 7 * DAY,
            max_tasks: 100_000,
            deduplication_seconds: 600,
            deduplication_entries: 10_000,
            deduplication_bytes: 32 * MIB,
            deduplication_durable_seconds: DAY,
            deduplication_durable_entries: 100_000,
            deduplication_durable_bytes: 256 * MIB,
            deduplication_durable_answer_bytes: MIB,
            card_max_age_seconds: 30,
            inbox: inbox::config::Settings::default(),
            background: Backgrounds::default(),
            tuning: Tuning::default(),
        }
    }
}

impl Router {
    /// What the keys of routers of this namespace start with, such as `muster:router:default`: not those of other services,
    /// and not those of another namespace's routers, whose agents may have the same ids.
    #[must_use]
    pub fn redis_prefix(&self) -> String {
        format!("{}:router:{}", self.redis.key_prefix, self.namespace)
    }

    /// Limits and preferences of the core.
    #[must_use]
    pub fn limits(&self, message_bytes: usize) -> forward::Limits {
        forward::Limits {
            message_bytes,
            answer_bytes: self.max_answer_bytes,
            default_deadline: Duration::from_secs(self.default_deadline_seconds),
            most_deadline: Duration::from_secs(self.max_deadline_seconds),
            stream_idle: Duration::from_secs(self.stream_idle_seconds),
            stream_stall: Duration::from_secs(self.stream_stall_seconds),
            preferences: Preferences {
                max_load: self.max_load,
                slow_start: Duration::try_from_secs_f64(self.slow_start_seconds).unwrap_or_default(),
            },
            hedge_after: Duration::try_from_secs_f64(self.hedge_after_seconds)
                .ok()
                .filter(|after| !after.is_zero()),
            attempts: self.max_attempts,
            regions: Regions {
                own: self.region.clone(),
                order: self.region_order.clone(),
            },
        }
    }

    /// How many calls may wait, and for how long.
    #[must_use]
    pub fn lines(&self) -> lines::Bounds {
        lines::Bounds {
            waiting: self.message_queue_size,
            burst: Duration::try_from_secs_f64(self.burst_seconds).unwrap_or_default(),
            ageing: Duration::try_from_secs_f64(self.priority_ageing_seconds).unwrap_or_default(),
        }
    }

    /// When an instance is left alone.
    #[must_use]
    pub fn breaker(&self) -> breaker::Config {
        breaker::Config {
            failures: self.breaker_failures,
            open_for: Duration::from_secs(self.breaker_open_seconds),
            probes: self.breaker_probes,
            successes: 1,
        }
    }

    /// How many attempts may move.
    #[must_use]
    pub fn retry_budget(&self) -> retry_budget::Config {
        retry_budget::Config {
            share: self.retry_share,
            minimum_per_second: self.retry_minimum_per_second,
            ..retry_budget::Config::default()
        }
    }

    /// How much is kept to answer the same message once.
    #[must_use]
    pub fn deduplication(&self) -> deduplication::Limits {
        deduplication::Limits {
            age: Duration::from_secs(self.deduplication_seconds),
            entries: self.deduplication_entries,
            bytes: self.deduplication_bytes,
        }
    }

    /// How long a durable answer is given again, and up to which size.
    #[must_use]
    pub fn durable(&self) -> durable::Limits {
        durable::Limits {
            age: Duration::from_secs(self.deduplication_durable_seconds),
            answer_bytes: self.deduplication_durable_answer_bytes,
        }
    }

    /// How many durable answers are kept where this router keeps them itself.
    #[must_use]
    pub fn durable_room(&self) -> Room {
        Room {
            entries: self.deduplication_durable_entries,
            bytes: self.deduplication_durable_bytes,
        }
    }

    fn validate(&self, mistakes: &mut Mistakes) {
        self.redis
            .validate("router", self.redis_cluster_endpoint.as_deref(), mistakes);
        self.inbox.validate(mistakes);
        self.background
            .performance
            .validate("router.background.performance", mistakes);
        self.tuning.validate(mistakes);
        if let Err(error) = endpoint::parse(&self.registry_url) {
            mistakes.add("router.registry_url", error.to_string());
        }
        if let Err(error) = outbound::Policy::new(&self.outbound.allow, OUTBOUND) {
            mistakes.add(OUTBOUND, error);
        }
        if !self.public_url.is_empty()
            && let Err(error) = endpoint::parse(&self.public_url)
        {
            mistakes.add("router.public_url", error.to_string());
        }
        let ordered: std::collections::BTreeSet<&String> = self.region_order.iter().collect();
        if self.region_order.len() > MOST_REGIONS
            || ordered.len() < self.region_order.len()
            || self.region_order.iter().any(String::is_empty)
        {
            mistakes.add(
                "router.region_order",
                format!("must be at most {MOST_REGIONS} regions, each named once"),
            );
        }
        if self.namespace.is_empty() {
            mistakes.add(
                "router.namespace",
                "must not be empty; 'default' is the usual one",
            );
        }
        let mut within = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                mistakes.add(
                    format!("router.{key}"),
                    format!("is {value}, must be from {least} to {most}"),
                );
            }
        };
        within(
            "message_queue_size",
            self.message_queue_size as u64,
            0,
            10_000_000,
        );
        within(
            "max_messages_in_flight",
            self.max_messages_in_flight as u64,
            1,
            1_000_000,
        );
        within(
            "max_operations_in_flight",
            self.max_operations_in_flight as u64,
            1,
            1_000_000,
        );
        let most = u64::from(MOST_PER_MINUTE);
        if let Some(per_minute) = self.api_rate_limit {
            within("api_rate_limit", u64::from(per_minute), 0, most);
        }
        if let Some(burst) = self.api_rate_burst {
            within("api_rate_burst", u64::from(burst), 1, most);
        }
        within("max_answer_bytes", self.max_answer_bytes as u64, 1 << 10, 1 << 30);
        within(
            "default_deadline_seconds",
            self.default_deadline_seconds,
            1,
            self.max_deadline_seconds,
        );
        within("max_deadline_seconds", self.max_deadline_seconds, 1, 7 * DAY);
        within("stream_idle_seconds", self.stream_idle_seconds, 1, 7 * DAY);
        within("stream_stall_seconds", self.stream_stall_seconds, 1, 7 * DAY);
        within("max_attempts", self.max_attempts as u64, 1, 100);
        within(
            "connections_per_instance",
            self.connections_per_instance as u64,
            1,
            64,
        );
        within("breaker_failures", u64::from(self.breaker_failures), 1, 1_000_000);
        within("breaker_open_seconds", self.breaker_open_seconds, 1, DAY);
        within("breaker_probes", u64::from(self.breaker_probes), 1, 1000);
        within(
            "unconfirmed_grace_seconds",
            self.unconfirmed_grace_seconds,
            0,
            DAY,
        );
        within(
            "task_retention_seconds",
            self.task_retention_seconds,
            60,
            3650 * DAY,
        );
        within("max_tasks", self.max_tasks as u64, 1, 100_000_000);
        within("deduplication_seconds", self.deduplication_seconds, 1, DAY);
        within(
            "deduplication_entries",
            self.deduplication_entries as u64,
            0,
            10_000_000,
        );
        within(
            "deduplication_bytes",
            self.deduplication_bytes as u64,
            0,
            16 << 30,
        );
        within(
            "deduplication_durable_seconds",
            self.deduplication_durable_seconds,
            60,
            30 * DAY,
        );
        within(
            "deduplication_durable_entries",
            self.deduplication_durable_entries as u64,
            0,
            100_000_000,
        );
        within(
            "deduplication_durable_bytes",
            self.deduplication_durable_bytes as u64,
            0,
            1 << 40,
        );
        within(
            "deduplication_durable_answer_bytes",
            self.deduplication_durable_answer_bytes as u64,
            0,
            16 << 20,
        );
        within("card_max_age_seconds", self.card_max_age_seconds, 0, DAY);
        for (agent, quota) in &self.quotas {
            for (field, mistake) in quota.mistakes() {
                mistakes.add(format!("router.quotas.{agent}.{field}"), mistake);
            }
        }
        for (key, value, most) in [
            ("burst_seconds", self.burst_seconds, 3600.0),
            ("priority_ageing_seconds", self.priority_ageing_seconds, 86_400.0),
            ("max_load", self.max_load, 1.0),
            ("slow_start_seconds", self.slow_start_seconds, 3600.0),
            ("hedge_after_seconds", self.hedge_after_seconds, 3600.0),
            ("retry_share", self.retry_share, 10.0),
            ("retry_minimum_per_second", self.retry_minimum_per_second, 1000.0),
        ] {
            if !(0.0..=most).contains(&value) {
                mistakes.add(
                    format!("router.{key}"),
                    format!("is {value}, must be from 0 to {most}"),
                );
            }
        }
    }
}

impl Settings for Config {
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
        self.router.validate(mistakes);
    }

    fn secrets() -> &'static [&'static str] {
        // It may hold a password.
        &["router.redis_cluster_endpoint"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(change: impl FnOnce(&mut Router)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config.router);
        let mut mistakes = Mistakes::default();
        config.validate(&mut mistakes);
        mistakes.iter().map(|(key, _)| key.to_owned()).collect()
    }

    #[test]
    fn the_defaults_are_good() {
        assert_eq!(mistakes(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let found = mistakes(|router| {
            router.registry_url = "registry".to_owned();
            router.public_url = "https://agents.example".to_owned();
            router.region_order = vec!["us".to_owned(), "us".to_owned()];
            router.max_load = 2.0;
            router.retry_share = f64::NAN;
            router.max_messages_in_flight = 0;
            router.redis_cluster_endpoint = Some("localhost".to_owned());
            router.redis.patience_seconds = 0;
            router.background.performance.every_seconds = 0;
            router.tuning = Tuning {
                least_share: 0.0,
                min_concurrency: 9,
                max_concurrency: 8,
            };
            router.deduplication_durable_seconds = 1;
            router.api_rate_limit = Some(MOST_PER_MINUTE + 1);
            let none = Quota {
                messages_per_minute_per_caller: Some(0),
                ..Quota::default()
            };
            router.quotas.insert("weather".to_owned(), none);
        });
        assert_eq!(
            found,
            [
                "router.redis_cluster_endpoint",
                "router.redis.patience_seconds",
                "router.background.performance.every_seconds",
                "router.tuning.least_share",
                "router.tuning.max_concurrency",
                "router.registry_url",
                "router.public_url",
                "router.region_order",
                "router.max_messages_in_flight",
                "router.api_rate_limit",
                "router.deduplication_durable_seconds",
                "router.quotas.weather.messages_per_minute_per_caller",
                "router.max_load",
                "router.retry_share",
            ]
        );
    }
}

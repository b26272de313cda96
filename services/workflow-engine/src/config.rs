//! Settings of the workflow engine.

mod payloads;
pub(crate) mod redis;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_runtime::background::Rhythm;
use muster_runtime::config::{Mistakes, Settings};
use muster_runtime::{server, telemetry, trust};
use muster_workflow_dsl::run::approval::{LONGEST_NAME, MOST_ASSIGNEES};
use muster_workflow_dsl::usage::{self, Limits};
use serde::{Deserialize, Serialize};

use crate::caller::process;
use crate::schedule::{Bounds, Share};
use crate::store::embedded;
use crate::store::events::Room;
use crate::{outbound, secrets};

pub use payloads::{Keeper, Payloads};
pub use redis::Redis;

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
    /// The engine itself.
    pub engine: Engine,
}

/// Section `engine`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// The router through which agents are called, `http://HOST:PORT`.
    pub router_url: String,
    /// Where documents and runs are kept, unless that is in Redis. One process at a time may use it.
    pub data_directory: PathBuf,
    /// A file of keys by which what the data directory holds is encrypted: in each line an id, a space, and 32 random bytes in
    /// base64. The first one writes, any of them reads. None: it is not encrypted.
    pub encryption_key_file: Option<PathBuf>,
    /// Where the Redis is that documents and runs are kept in: `redis://HOST:PORT`, `redis+sentinel://…` or
    /// `redis+cluster://…`. None: they are kept in the data directory.
    pub redis_cluster_endpoint: Option<String>,
    /// How they are kept in Redis.
    pub redis: Redis,
    /// How many runs may work at the same time. Runs that only wait for time to pass do not count.
    pub max_concurrent_workflows: usize,
    /// How many runs may wait for their turn; one more is refused. The last tenth is kept for namespaces that have less
    /// than a tenth of the line.
    pub max_queued_runs: usize,
    /// What namespaces are given, by name; each other one has weight 1 and no limits of its own.
    pub namespaces: BTreeMap<String, Namespace>,
    /// How long a run may take from its first task on, where its document says nothing.
    pub workflow_timeout_seconds: u64,
    /// How long a call of an agent may take, where its task has no tighter limit.
    pub call_timeout_seconds: u64,
    /// How long a call waits for an agent that is not there, before it fails. Covers a fleet that starts again.
    pub agent_wait_seconds: u64,
    /// How long ended runs are kept.
    pub retention_seconds: u64,
    /// The state of a run is kept beside its journal once at least so many entries were written since the last time, and as
    /// soon as they are worth it: whoever takes the run up reads the state and what came after it.
    pub snapshot_entries: u64,
    /// Of a run whose journal grows longer than this, at least so many of its last entries are kept, and at most about twice
    /// as many; earlier ones are forgotten while it goes on. Steps that began in them cannot be retried or forked from.
    pub history_entries: u64,
    /// Largest document, input and answer of an agent; half of a message, because a run is read with both its
    /// input and its output.
    pub max_payload_bytes: usize,
    /// Values of runs that are longer than this, as JSON in bytes, are kept apart from the journals, once for each run.
    pub payload_threshold_bytes: usize,
    /// Format of the store that is written; an older one keeps it readable by older software, which may run beside this, or be gone
    /// back to. What is newer already stays so.
    pub format: u32,
    /// Where such values are kept.
    pub payloads: Payloads,
    /// What documents may connect to.
    pub outbound: outbound::Config,
    /// Programs that `call: mcp` may start, as documents name them, such as `uvx`. None by default.
    pub mcp_stdio_commands: Vec<String>,
    /// Where secrets come from.
    pub secrets: secrets::Config,
    /// Where documents that describe services may be read from as `file://PATH`.
    pub resource_directory: Option<PathBuf>,
    /// What documents may execute.
    pub run: process::Config,
    /// The log of events.
    pub events: Events,
    /// What the engine does by itself again and again.
    pub background: Backgrounds,
    /// What it may do about what is slow.
    pub optimize: Optimize,
}

/// How often the engine does what it does by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backgrounds {
    /// Looks at how much is taken of what there is.
    pub collection: Rhythm,
    /// Forgets runs past their retention, kept answers and old sums of what was used.
    pub cleanup: Rhythm,
    /// Looks for what is slow.
    pub performance: Rhythm,
}

impl Default for Backgrounds {
    fn default() -> Self {
        Self {
            collection: Rhythm::new(60, 30),
            cleanup: Rhythm::new(300, 60),
            performance: Rhythm::new(600, 300),
        }
    }
}

/// What may be done about what is slow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optimize {
    /// How many runs may work at the same time at most, where `telemetry.optimizer` is `apply` and the slots are taken; 0: twice as
    /// many as are configured.
    pub max_concurrent_workflows: usize,
}

impl Optimize {
    /// How many slots there may be, of so many that are configured.
    #[must_use]
    pub fn most_slots(&self, configured: usize) -> usize {
        match self.max_concurrent_workflows {
            0 => configured.saturating_mul(2),
            most => most.max(configured),
        }
    }
}

/// The log of events: what is taken, and what is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Largest event, as JSON in bytes.
    pub max_event_bytes: usize,
    /// How many events are kept; the oldest are forgotten first.
    pub max_events: u64,
    /// How many bytes of events are kept; the oldest are forgotten first.
    pub max_log_bytes: u64,
    /// How long events are kept.
    pub retention_seconds: u64,
    /// Which of its own doings the engine tells as events: `none`, `workflows`, or `tasks` for both.
    pub lifecycle: Lifecycle,
}

/// Which of its own doings the engine tells as events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// None.
    #[default]
    None,
    /// How runs begin and end.
    Workflows,
    /// Of each task, too.
    Tasks,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            max_event_bytes: 256 * KIB,
            max_events: 100_000,
            max_log_bytes: 1024 * MIB as u64,
            retention_seconds: 7 * DAY,
            lifecycle: Lifecycle::None,
        }
    }
}

impl Events {
    /// How much the log keeps.
    #[must_use]
    pub fn room(&self) -> Room {
        Room {
            events: self.max_events,
            bytes: self.max_log_bytes,
        }
    }
}

/// What a namespace is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Namespace {
    /// Its part of the slots, relative to the weights of the others.
    pub weight: u32,
    /// How many of its runs may work at the same time; 0: as many as there are slots.
    pub max_concurrent_workflows: usize,
    /// How many of its runs may wait for their turn; 0: as many as the line takes.
    pub max_queued_runs: usize,
    /// What its runs may use together before people are asked; none: there is no limit.
    pub budget: Option<Budget>,
}

/// What the runs of a namespace may use together before people are asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Tokens; 0: no limit.
    pub tokens: u64,
    /// Money, in the currency of the fleet; 0: no limit.
    pub cost: f64,
    /// In which time; it begins anew at midnight UTC.
    pub per: Period,
    /// Who is asked; nobody: `operators`.
    pub assignees: Vec<String>,
}

/// In which time a budget is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A day.
    #[default]
    Day,
    /// A calendar month.
    Month,
}

impl Budget {
    /// As the interpreter knows it.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            tokens: (self.tokens > 0).then_some(self.tokens),
            cost_micros: usage::micros(self.cost).filter(|micros| *micros > 0),
        }
    }

    fn validate(&self, key: &str, mistakes: &mut Mistakes) {
        if usage::micros(self.cost).is_none() {
            mistakes.add(format!("{key}.cost"), "must be an amount of money");
        }
        if self.limits() == Limits::default() {
            mistakes.add(key, "needs 'tokens', 'cost' or both above zero");
        }
        let named = |name: &String| !name.trim().is_empty() && name.len() <= LONGEST_NAME;
        if self.assignees.len() > MOST_ASSIGNEES || !self.assignees.iter().all(named) {
            mistakes.add(
                format!("{key}.assignees"),
                format!("must be at most {MOST_ASSIGNEES} names of 1 to {LONGEST_NAME} bytes"),
            );
        }
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            weight: 1,
            max_concurrent_workflows: 0,
            max_queued_runs: 0,
            budget: None,
        }
    }
}

impl Namespace {
    fn share(&self) -> Share {
        let bound = |value: usize| if value == 0 { usize::MAX } else { value };
        Share {
            weight: self.weight,
            most_slots: bound(self.max_concurrent_workflows),
            most_pending: bound(self.max_queued_runs),
        }
    }
}

const DAY: u64 = 24 * 60 * 60;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Default for Engine {
    fn default() -> Self {
        Self {
            router_url: "http://127.0.0.1:7402".to_owned(),
            data_directory: PathBuf::from("data/workflow-engine"),
            encryption_key_file: None,
            redis_cluster_endpoint: None,
            redis: Redis::default(),
            max_concurrent_workflows: 100,
            max_queued_runs: 10_000,
            namespaces: BTreeMap::new(),
            workflow_timeout_seconds: 3600,
            call_timeout_seconds: 300,
            agent_wait_seconds: 15,
            retention_seconds: 30 * DAY,
            snapshot_entries: 256,
            history_entries: 20_000,
            max_payload_bytes: 2 * MIB,
            payload_threshold_bytes: 64 * KIB,
            format: embedded::FORMAT.version,
            payloads: Payloads::default(),
            outbound: outbound::Config::default(),
            mcp_stdio_commands: Vec::new(),
            secrets: secrets::Config::default(),
            resource_directory: None,
            background: Backgrounds::default(),
            optimize: Optimize::default(),
            events: Events::default(),
            run: process::Config::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: server::Config::on_ports(7403, 7503, 7603),
            telemetry: telemetry::Config::default(),
            trust: trust::Config::default(),
            engine: Engine::default(),
        }
    }
}

impl Engine {
    /// See [`Engine::workflow_timeout_seconds`].
    #[must_use]
    pub fn workflow_timeout(&self) -> Duration {
        Duration::from_secs(self.workflow_timeout_seconds)
    }

    /// See [`Engine::call_timeout_seconds`].
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        Duration::from_secs(self.call_timeout_seconds)
    }

    /// See [`Engine::agent_wait_seconds`].
    #[must_use]
    pub fn agent_wait(&self) -> Duration {
        Duration::from_secs(self.agent_wait_seconds)
    }

    /// The bounds of the schedule.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let shares = self.namespaces.iter();
        Bounds {
            slots: self.max_concurrent_workflows,
            most_pending: self.max_queued_runs,
            shares: shares
                .map(|(name, namespace)| (Arc::from(name.as_str()), namespace.share()))
                .collect(),
        }
    }

    fn validate_namespaces(&self, mistakes: &mut Mistakes) {
        const MOST_WEIGHT: u32 = 1_000_000;
        for (name, namespace) in &self.namespaces {
            let key = format!("engine.namespaces.{name}");
            if !muster_api::names::is_dns_label(name) {
                mistakes.add(&key, "is not a namespace: 1 to 63 of a-z, 0-9 and '-'");
            }
            if let Some(budget) = &namespace.budget {
                budget.validate(&format!("{key}.budget"), mistakes);
            }
            if !(1..=MOST_WEIGHT).contains(&namespace.weight) {
                let weight = namespace.weight;
                mistakes.add(
                    format!("{key}.weight"),
                    format!("is {weight}, must be from 1 to {MOST_WEIGHT}"),
                );
            }
        }
    }

    fn validate(&self, mistakes: &mut Mistakes) {
        self.validate_namespaces(mistakes);
        self.redis
            .validate(self.redis_cluster_endpoint.as_deref(), mistakes);
        self.payloads.validate(mistakes);
        if let Err(error) = muster_rpc::endpoint::parse(&self.router_url) {
            mistakes.add("engine.router_url", error.to_string());
        }
        if self.data_directory.as_os_str().is_empty() {
            mistakes.add("engine.data_directory", "must name a directory");
        }
        if self.encryption_key_file.is_some() && self.redis_cluster_endpoint.is_some() {
            mistakes.add(
                "engine.encryption_key_file",
                "is for the data directory and of no use in Redis; leave it or engine.redis_cluster_endpoint away, and encrypt \
                 the disks of Redis",
            );
        }
        if let Err(error) = outbound::Policy::new(&self.outbound.allow, outbound::SETTING) {
            mistakes.add("engine.outbound.allow", error);
        }
        if self
            .mcp_stdio_commands
            .iter()
            .any(|command| command.trim().is_empty())
        {
            mistakes.add(
                "engine.mcp_stdio_commands",
                "has an empty entry; each is a program, such as 'uvx'",
            );
        }
        let mut within = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                mistakes.add(key, format!("is {value}, must be from {least} to {most}"));
            }
        };
        within(
            "engine.max_concurrent_workflows",
            self.max_concurrent_workflows as u64,
            1,
            100_000,
        );
        within(
            "engine.max_queued_runs",
            self.max_queued_runs as u64,
            1,
            1_000_000,
        );
        within(
            "engine.workflow_timeout_seconds",
            self.workflow_timeout_seconds,
            1,
            365 * DAY,
        );
        within("engine.call_timeout_seconds", self.call_timeout_seconds, 1, DAY);
        within("engine.agent_wait_seconds", self.agent_wait_seconds, 0, DAY);
        within("engine.retention_seconds", self.retention_seconds, 60, 3650 * DAY);
        within("engine.snapshot_entries", self.snapshot_entries, 16, 1_000_000);
        within("engine.history_entries", self.history_entries, 500, 1_000_000_000);
        within(
            "engine.events.max_event_bytes",
            self.events.max_event_bytes as u64,
            KIB as u64,
            MIB as u64,
        );
        within("engine.events.max_events", self.events.max_events, 1, 100_000_000);
        within(
            "engine.events.max_log_bytes",
            self.events.max_log_bytes,
            MIB as u64,
            1 << 40,
        );
        within(
            "engine.events.retention_seconds",
            self.events.retention_seconds,
            60,
            3650 * DAY,
        );
        within(
            "engine.run.max_processes",
            self.run.max_processes as u64,
            1,
            10_000,
        );
        within(
            "engine.run.max_output_bytes",
            self.run.max_output_bytes as u64,
            1,
            MIB as u64,
        );
        // The interpreter refuses larger values.
        let largest = muster_workflow_dsl::run::LARGEST_VALUE;
        within(
            "engine.max_payload_bytes",
            self.max_payload_bytes as u64,
            KIB as u64,
            largest as u64,
        );
        within(
            "engine.format",
            self.format.into(),
            embedded::FORMAT.oldest.into(),
            embedded::FORMAT.version.into(),
        );
        within(
            "engine.payload_threshold_bytes",
            self.payload_threshold_bytes as u64,
            KIB as u64,
            largest as u64,
        );
        for (name, rhythm) in [
            ("collection", self.background.collection),
            ("cleanup", self.background.cleanup),
            ("performance", self.background.performance),
        ] {
            rhythm.validate(&format!("engine.background.{name}"), mistakes);
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
        self.trust.validate(&self.server, mistakes);
        self.engine.validate(mistakes);
    }

    fn secrets() -> &'static [&'static str] {
        // The first may hold a password.
        &[
            "engine.redis_cluster_endpoint",
            "engine.payloads.secret_access_key",
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good() {
        let mut mistakes = Mistakes::default();
        Config::default().validate(&mut mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
    }

    #[test]
    fn what_is_in_redis_is_not_encrypted_and_nobody_is_to_think_so() {
        let mut config = Config::default();
        config.engine.encryption_key_file = Some("keys".into());
        config.engine.redis_cluster_endpoint = Some("redis://127.0.0.1:6379".into());
        let mut mistakes = Mistakes::default();
        config.validate(&mut mistakes);
        let keys: Vec<&str> = mistakes.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["engine.encryption_key_file"]);
    }

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let mut config = Config::default();
        config.engine.router_url = "router:7402".into();
        config.engine.max_concurrent_workflows = 0;
        config.engine.retention_seconds = 1;
        let mut mistakes = Mistakes::default();
        config.validate(&mut mistakes);
        let keys: Vec<&str> = mistakes.iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "engine.router_url",
                "engine.max_concurrent_workflows",
                "engine.retention_seconds"
            ]
        );
    }
}

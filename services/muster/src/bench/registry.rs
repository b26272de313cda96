//! `muster bench registry`: what a registry of many instances costs.
//!
//! The registry runs as a process of its own, so that what it holds and uses can be told from what its clients do; these are in
//! this one and speak gRPC over loopback. Nobody listens at the instances' endpoints, so they are not probed. With `--redis` two
//! registries share the work: instances register with one or the other and send it their heartbeats; searches and watching are
//! the second's, whatever was written at the first.
//!
//! In this order: memory is what the process holds with all instances more than without; searches are made one after the other,
//! each kind so many times; heartbeats come evenly at the given rate, each with another load, so that each is news for the
//! watcher that reads along, and of each is known how long it took until that heard of it; a snapshot and the taking up of a stream
//! are timed from the request to the last message; the searches are made once more while heartbeats go on; of two registries
//! one is killed ([`failover`]); with `--with etcd`, leases there are kept alive at the same rate.

mod beats;
mod failover;
mod registering;
mod searching;
mod watching;

use std::time::Duration;

use clap::{Args, ValueEnum};
use muster_api::registry::WatchAgentsRequest;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use serde_json::{Value, json};
use tonic::Status;

use self::beats::{Beaten, Beats};
use self::searching::Search;
use super::etcd;
use super::latency::number;
use super::part::Part;
use super::process::{Memory, Process, Used};
use crate::connect::{self, Channel};
use crate::failure::Failure;
use crate::output::Output;

/// Calls that are under way at once.
pub const AT_ONCE: usize = 64;

/// Longest wait for one message of a stream, and for a heartbeat that is tried again.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Largest message that is taken.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

type Client = RegistryServiceClient<Channel>;

/// Arguments of `muster bench registry`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Agents, each with a card of its own.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    agents: u32,
    /// Instances of each agent.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    instances: u32,
    /// Heartbeats a second.
    #[arg(long, default_value_t = 3_333, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    heartbeats: u32,
    /// Seconds of heartbeats.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Searches of each kind.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    searches: u32,
    /// A Redis to keep leases in, in place of memory, for two registries. What is written there stays there: use one that is for
    /// nothing else.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Another program to measure in the same run.
    #[arg(long, value_enum)]
    with: Option<Beside>,
}

/// What is measured beside the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Beside {
    /// Leases of an etcd of one node, kept alive at the same rate.
    Etcd,
}

/// The registries that are measured: one, or two over one Redis.
struct Registries {
    processes: Vec<Process>,
    clients: Vec<Client>,
}

impl Registries {
    async fn start(arguments: &Arguments) -> Result<Self, Failure> {
        let count = arguments.count();
        let mut settings = vec![
            ("registry.probe_endpoints", "false".to_owned()),
            ("registry.max_instances", count.clamp(1, 1_000_000).to_string()),
            // Nothing ends while it is measured.
            ("registry.lease_duration", "86400".to_owned()),
        ];
        let mut names = vec!["registry"];
        if let Some(url) = &arguments.redis {
            let prefix = format!("bench-{}", uuid::Uuid::now_v7());
            settings.push(("registry.redis_cluster_endpoint", url.clone()));
            settings.push(("registry.redis.key_prefix", prefix));
            names.push("second registry");
        }
        let mut registries = Self {
            processes: Vec::new(),
            clients: Vec::new(),
        };
        for name in names {
            let mut process = Process::service_called(name, Part::Registry, &settings).await?;
            process.ready().await?;
            let client = RegistryServiceClient::new(connect::channel(&process.url())?);
            registries.processes.push(process);
            let client = client.max_decoding_message_size(MAX_MESSAGE_BYTES);
            registries.clients.push(client);
        }
        Ok(registries)
    }

    /// The one that answers searches and is watched.
    fn reader(&self) -> Result<&Client, Failure> {
        self.clients
            .last()
            .ok_or_else(|| Failure::failed("there is no registry"))
    }

    /// What the reader holds. The other one holds the same.
    fn memory(&self) -> Memory {
        self.processes
            .last()
            .map_or_else(Memory::default, Process::memory)
    }

    /// What all have used.
    fn used(&self) -> Used {
        let used = self.processes.iter().map(Process::used);
        used.fold(Used::default(), Used::and)
    }

    async fn stop(self) {
        for process in self.processes {
            process.stop().await;
        }
    }
}

impl Arguments {
    /// How many instances there are.
    const fn count(&self) -> u32 {
        self.agents.saturating_mul(self.instances)
    }
}

/// Runs `muster bench registry`.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let registries = Registries::start(arguments).await?;
    let measured = measure(arguments, &registries).await?;
    let failover = if registries.clients.len() > 1 {
        Some(failover::measure(registries, arguments, &measured.leases).await?)
    } else {
        registries.stop().await;
        None
    };
    let etcd = match arguments.with {
        Some(Beside::Etcd) => {
            let directory = tempfile::tempdir()
                .map_err(|error| Failure::failed(format!("a directory for etcd: {error}")))?;
            let (rate, seconds) = (arguments.heartbeats, arguments.seconds);
            Some(etcd::measure(arguments.count(), rate, seconds, directory.path()).await?)
        }
        None => None,
    };
    let outcome = Outcome {
        measured,
        failover,
        etcd,
    };
    if output.is_json() {
        output.json(&outcome.json(arguments));
    } else {
        outcome.print(arguments, output);
    }
    Ok(())
}

/// What was measured while all registries lived.
struct Measured {
    leases: Vec<String>,
    registering: Duration,
    empty: Memory,
    full: Memory,
    searches: Vec<Search>,
    searches_beside: Vec<Search>,
    snapshot: watching::Watched,
    resumed: watching::Watched,
    beaten: Beaten,
}

async fn measure(arguments: &Arguments, registries: &Registries) -> Result<Measured, Failure> {
    let reader = registries.reader()?;
    let empty = registries.memory();
    let (leases, registering) = registering::register(&registries.clients, arguments).await?;
    let full = registries.memory();
    let searches = searching::all(reader, arguments).await?;
    let everything = WatchAgentsRequest {
        incremental: true,
        ..WatchAgentsRequest::default()
    };
    let snapshot = watching::watch(reader, everything, None).await?;
    let beats = Beats::new(&registries.clients, &leases, arguments.heartbeats);
    let total = u64::from(arguments.heartbeats) * arguments.seconds;
    let beaten = beats.watched(registries, total, &snapshot.place).await?;
    let resumed = watching::watch(reader, snapshot.place.clone(), Some(total)).await?;
    let searches_beside = tokio::select! {
        found = searching::all(reader, arguments) => found?,
        ended = beats.go_on(total) => return Err(ended.err().unwrap_or_else(|| Failure::failed("heartbeats have ended"))),
    };
    Ok(Measured {
        leases,
        registering,
        empty,
        full,
        searches,
        searches_beside,
        snapshot,
        resumed,
        beaten,
    })
}

/// All that was measured.
struct Outcome {
    measured: Measured,
    failover: Option<failover::Outcome>,
    etcd: Option<etcd::Kept>,
}

impl Outcome {
    fn bytes_per_instance(&self, arguments: &Arguments) -> u64 {
        let Measured { empty, full, .. } = &self.measured;
        full.resident.saturating_sub(empty.resident) / u64::from(arguments.count().max(1))
    }

    fn json(&self, arguments: &Arguments) -> Value {
        let measured = &self.measured;
        let beaten = &measured.beaten;
        let rows = |searches: &[Search]| searches.iter().map(Search::json).collect::<Vec<_>>();
        json!({
            "agents": arguments.agents,
            "instances": arguments.count(),
            "store": if arguments.redis.is_some() { "Redis" } else { "memory" },
            "registries": if arguments.redis.is_some() { 2 } else { 1 },
            "registrationsPerSecond": f64::from(arguments.count()) / measured.registering.as_secs_f64(),
            "bytesPerInstance": self.bytes_per_instance(arguments),
            "residentBytes": measured.full.resident,
            "discovery": rows(&measured.searches),
            "discoveryBesideHeartbeats": rows(&measured.searches_beside),
            "heartbeats": beaten.json(),
            "snapshot": measured.snapshot.json(),
            "resume": measured.resumed.json(),
            "changesMissed": beaten.sent,
            "failover": self.failover.as_ref().map(failover::Outcome::json),
            "etcd": self.etcd.as_ref().map(|kept| json!({
                "perSecond": number(kept.sent) / kept.took.as_secs_f64(),
                "shareOfACore": kept.share(),
                "residentBytes": kept.resident,
                "ratio": beaten.share() / kept.share(),
            })),
        })
    }

    fn print(&self, arguments: &Arguments, output: &Output) {
        let measured = &self.measured;
        let beaten = &measured.beaten;
        output.line(&format!(
            "{} agents with {} instances each, registered at {:.0} a second; {} bytes each, {} MiB in all",
            arguments.agents,
            arguments.instances,
            f64::from(arguments.count()) / measured.registering.as_secs_f64(),
            self.bytes_per_instance(arguments),
            measured.full.resident >> 20
        ));
        for (name, searches) in [
            ("DISCOVERY", &measured.searches),
            ("BESIDE HEARTBEATS", &measured.searches_beside),
        ] {
            let rows = searches.iter().map(Search::row).collect();
            output.table([name, "P50", "P99", "LONGEST", "FOUND"], rows);
        }
        output.line(&beaten.line());
        if let Some(kept) = &self.etcd {
            output.line(&format!(
                "etcd: {:.0} keep-alives a second of as many leases: {:.3} of a core ({:.2} times as much here), {} MiB",
                number(kept.sent) / kept.took.as_secs_f64(),
                kept.share(),
                beaten.share() / kept.share(),
                kept.resident >> 20
            ));
        }
        if let Some(failover) = &self.failover {
            output.line(&failover.line());
        }
        let rows = vec![
            measured.snapshot.row("snapshot"),
            measured
                .resumed
                .row(&format!("resume after {} changes", beaten.sent)),
        ];
        output.table(["WATCH", "TOOK", "MESSAGES", "MIB"], rows);
    }
}

fn refused(status: &Status) -> Failure {
    Failure::failed(format!("the registry refused: {}", status.message()))
}

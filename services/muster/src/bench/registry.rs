//! `muster bench registry`: what a registry of many instances costs.
//!
//! The registry runs as a process of its own, so that what it holds and uses can be told from what its clients do; these are in
//! this one and speak gRPC over loopback. Nobody listens at the instances' endpoints, so they are not probed.
//!
//! In this order: memory is what the process holds with all instances more than without; searches are made one after the other,
//! each kind so many times; heartbeats come evenly at the given rate, each with another load, so that each is news for the
//! watcher that reads along; with `--with etcd`, leases there are kept alive at the same rate; a snapshot and the taking up of a stream are timed from the request to the last message.

use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use muster_api::a2a::{AgentCard, AgentSkill};
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::watch_agents_response::Change;
use muster_api::registry::{
    DiscoverRequest, HeartbeatRequest, Instance, RegisterRequest, SortOrder, WatchAgentsRequest,
    WatchAgentsResponse,
};
use muster_runtime::clock::{Clock as _, SystemClock};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Status, Streaming};

use crate::bench::etcd;
use crate::bench::part::Part;
use crate::bench::process::Process;
use crate::connect::{self, Channel};
use crate::failure::Failure;
use crate::output::Output;

/// Registrations and heartbeats that are under way at once.
pub const AT_ONCE: usize = 64;

/// How often heartbeats are sent, all that are due together.
pub const TICK: Duration = Duration::from_millis(10);

/// Skills that many agents share.
const COMMON: u32 = 10;

/// Longest wait for one message of a stream.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Largest message that is taken.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

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
    /// A Redis to keep leases in, in place of memory. What is written there stays there: use one that is for nothing else.
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

/// What was measured of watching.
struct Watched {
    took: Duration,
    messages: u64,
    bytes: u64,
    /// Where the stream was left.
    place: WatchAgentsRequest,
}

/// What was measured of heartbeats.
struct Beaten {
    sent: u64,
    took: Duration,
    processor: Duration,
    /// Changes that the watcher read meanwhile.
    told: u64,
}

type Client = RegistryServiceClient<Channel>;

/// Runs `muster bench registry`.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let count = arguments.agents.saturating_mul(arguments.instances);
    let mut settings = vec![
        ("registry.probe_endpoints", "false".to_owned()),
        ("registry.max_instances", count.clamp(1, 1_000_000).to_string()),
        // Nothing ends while it is measured.
        ("registry.lease_duration", "86400".to_owned()),
    ];
    if let Some(url) = &arguments.redis {
        let prefix = format!("bench-{}", uuid::Uuid::now_v7());
        settings.push(("registry.redis_cluster_endpoint", url.clone()));
        settings.push(("registry.redis.key_prefix", prefix));
    }
    let mut registry = Process::service(Part::Registry, &settings).await?;
    registry.ready().await?;
    let client = RegistryServiceClient::new(connect::channel(&registry.url())?)
        .max_decoding_message_size(MAX_MESSAGE_BYTES);

    let empty = registry.memory();
    let (leases, registering) = register(&client, arguments).await?;
    let full = registry.memory();
    let searches = search_all(&client, arguments).await?;
    let snapshot = watch(
        &client,
        WatchAgentsRequest {
            incremental: true,
            ..Default::default()
        },
        None,
    )
    .await?;
    let beaten = beat(&client, arguments, &leases, &registry, &snapshot.place).await?;
    let missed = beaten.told.min(u64::from(count));
    let resumed = watch(&client, snapshot.place.clone(), Some(beaten.told)).await?;
    registry.stop().await;
    let etcd = match arguments.with {
        Some(Beside::Etcd) => {
            let directory = tempfile::tempdir()
                .map_err(|error| Failure::failed(format!("a directory for etcd: {error}")))?;
            let (rate, seconds) = (arguments.heartbeats, arguments.seconds);
            Some(etcd::measure(count, rate, seconds, directory.path()).await?)
        }
        None => None,
    };

    let per_instance = full.resident.saturating_sub(empty.resident) / u64::from(count.max(1));
    let share = beaten.processor.as_secs_f64() / beaten.took.as_secs_f64();
    let result = json!({
        "agents": arguments.agents,
        "instances": count,
        "store": if arguments.redis.is_some() { "Redis" } else { "memory" },
        "registrationsPerSecond": f64::from(count) / registering.as_secs_f64(),
        "bytesPerInstance": per_instance,
        "residentBytes": full.resident,
        "discovery": searches.iter().map(Search::json).collect::<Vec<_>>(),
        "heartbeats": {
            "perSecond": number(beaten.sent) / beaten.took.as_secs_f64(),
            "seconds": beaten.took.as_secs_f64(),
            "shareOfACore": share,
            "processorMicrosEach": beaten.processor.as_secs_f64() * 1e6 / number(beaten.sent.max(1)),
        },
        "snapshot": snapshot.json(),
        "resume": resumed.json(),
        "changesMissed": beaten.told,
        "etcd": etcd.as_ref().map(|kept| json!({
            "perSecond": number(kept.sent) / kept.took.as_secs_f64(),
            "shareOfACore": kept.share(),
            "residentBytes": kept.resident,
            "ratio": share / kept.share(),
        })),
    });
    if output.is_json() {
        output.json(&result);
        return Ok(());
    }
    output.line(&format!(
        "{} agents with {} instances each, registered at {:.0} a second; {per_instance} bytes each, {} MiB in all",
        arguments.agents,
        arguments.instances,
        f64::from(count) / registering.as_secs_f64(),
        full.resident >> 20
    ));
    let rows = searches.iter().map(Search::row).collect();
    output.table(["DISCOVERY", "P50", "P99", "LONGEST", "FOUND"], rows);
    output.line(&format!(
        "{:.0} heartbeats a second for {:.1} s: {:.3} of a core, {:.1} µs each",
        number(beaten.sent) / beaten.took.as_secs_f64(),
        beaten.took.as_secs_f64(),
        share,
        beaten.processor.as_secs_f64() * 1e6 / number(beaten.sent.max(1))
    ));
    if let Some(kept) = &etcd {
        output.line(&format!(
            "etcd: {:.0} keep-alives a second of as many leases: {:.3} of a core ({:.2} times as much here), {} MiB",
            number(kept.sent) / kept.took.as_secs_f64(),
            kept.share(),
            share / kept.share(),
            kept.resident >> 20
        ));
    }
    let rows = vec![
        snapshot.row("snapshot"),
        resumed.row(&format!("resume after {missed} changes")),
    ];
    output.table(["WATCH", "TOOK", "MESSAGES", "MIB"], rows);
    Ok(())
}

fn refused(status: &Status) -> Failure {
    Failure::failed(format!("the registry refused: {}", status.message()))
}

/// The card of an agent, about as long as those of real ones.
fn card(agent: u32) -> AgentCard {
    let skill = |id: String, name: &str| AgentSkill {
        description: format!("{name} in whatever order they come, with reasons and references for {id}"),
        tags: vec![format!("tag-{}", agent % 100), "benchmark".to_owned()],
        name: name.to_owned(),
        id,
        ..AgentSkill::default()
    };
    AgentCard {
        name: format!("Agent {agent}"),
        description: format!("Answers questions of kind {} about everything", agent % 1_000),
        version: "1.0.0".to_owned(),
        skills: vec![
            skill(format!("own-{agent}"), "Answers its own questions"),
            skill(format!("common-{}", agent % COMMON), "Answers what many answer"),
            skill("everything".to_owned(), "Answers what all answer"),
        ],
        ..AgentCard::default()
    }
}

/// Registers everybody; says the leases and how long it took.
async fn register(client: &Client, arguments: &Arguments) -> Result<(Vec<String>, Duration), Failure> {
    let clock = SystemClock::default();
    let began = clock.monotonic();
    let all =
        (0..arguments.agents).flat_map(|agent| (0..arguments.instances).map(move |number| (agent, number)));
    let granted = stream::iter(all).map(|(agent, number)| {
        let mut client = client.clone();
        async move {
            let instance = Instance {
                agent_id: format!("agent-{agent}"),
                card: Some(card(agent)),
                endpoint: format!("http://10.{}.{}.{}:7411", number, agent >> 8 & 0xff, agent & 0xff),
                region: format!("region-{}", number % 3),
                version: "1.0.0".to_owned(),
                load: f64::from(agent % 80) / 100.0,
                ..Instance::default()
            };
            let request = RegisterRequest {
                instance: Some(instance),
            };
            let answer = client
                .register(request)
                .await
                .map_err(|status| refused(&status))?;
            let lease = answer.into_inner().lease;
            lease
                .map(|lease| lease.lease_id)
                .ok_or_else(|| Failure::failed("the registry granted no lease"))
        }
    });
    let leases = granted.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok((leases, clock.monotonic().saturating_sub(began)))
}

/// One kind of search, measured.
struct Search {
    name: &'static str,
    times: Histogram<u64>,
    found: usize,
}

impl Search {
    fn micros(&self, quantile: f64) -> f64 {
        number(self.times.value_at_quantile(quantile)) / 1e3
    }

    fn json(&self) -> Value {
        json!({
            "search": self.name,
            "p50Micros": self.micros(0.5),
            "p99Micros": self.micros(0.99),
            "maxMicros": number(self.times.max()) / 1e3,
            "found": self.found,
        })
    }

    fn row(&self) -> [String; 5] {
        [
            self.name.to_owned(),
            format!("{:.0} µs", self.micros(0.5)),
            format!("{:.0} µs", self.micros(0.99)),
            format!("{:.0} µs", number(self.times.max()) / 1e3),
            self.found.to_string(),
        ]
    }
}

type Ask = fn(u32) -> DiscoverRequest;

async fn search_all(client: &Client, arguments: &Arguments) -> Result<Vec<Search>, Failure> {
    let kinds: [(&'static str, Ask); 7] = [
        ("an agent's own skill", |n| ask(&format!("own-{n}"))),
        ("a skill of a tenth", |n| ask(&format!("common-{}", n % COMMON))),
        ("a skill of all", |_| ask("everything")),
        ("no filter", |_| DiscoverRequest {
            page_size: 10,
            ..Default::default()
        }),
        ("a skill of all, by latency", |_| DiscoverRequest {
            sort: SortOrder::Latency.into(),
            ..ask("everything")
        }),
        ("a tag and a word", |n| DiscoverRequest {
            tags: vec![format!("tag-{}", n % 100)],
            text: "questions".to_owned(),
            page_size: 10,
            ..Default::default()
        }),
        ("a skill nobody has", |_| ask("everythink")),
    ];
    let mut searches = Vec::new();
    for (name, make) in kinds {
        searches.push(search(client, arguments, name, make).await?);
    }
    Ok(searches)
}

fn ask(skill: &str) -> DiscoverRequest {
    DiscoverRequest {
        skills: vec![skill.to_owned()],
        page_size: 10,
        ..DiscoverRequest::default()
    }
}

async fn search(
    client: &Client,
    arguments: &Arguments,
    name: &'static str,
    make: Ask,
) -> Result<Search, Failure> {
    let clock = SystemClock::default();
    let mut client = client.clone();
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let mut times = Histogram::new(3).map_err(|error| failed(&error))?;
    let mut found = 0;
    for number in 0..arguments.searches {
        // Spread over all agents.
        let request = make(number.wrapping_mul(7_919) % arguments.agents);
        let began = clock.monotonic();
        let answer = client
            .discover(request)
            .await
            .map_err(|status| refused(&status))?;
        let took = clock.monotonic().saturating_sub(began);
        found = answer.into_inner().instances.len();
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        times.record(nanoseconds).map_err(|error| failed(&error))?;
    }
    Ok(Search { name, times, found })
}

async fn next(stream: &mut Streaming<WatchAgentsResponse>) -> Result<WatchAgentsResponse, Failure> {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await;
    let message = message.map_err(|_| Failure::failed("the registry tells its watcher nothing"))?;
    message
        .map_err(|status| refused(&status))?
        .ok_or_else(|| Failure::failed("the registry's stream ended"))
}

/// Watches until the snapshot is whole, or until so many missed changes have come.
async fn watch(client: &Client, place: WatchAgentsRequest, missed: Option<u64>) -> Result<Watched, Failure> {
    let clock = SystemClock::default();
    let began = clock.monotonic();
    let stream = client.clone().watch_agents(place).await;
    let mut stream = stream.map_err(|status| refused(&status))?.into_inner();
    let mut watched = Watched {
        took: Duration::ZERO,
        messages: 0,
        bytes: 0,
        place: WatchAgentsRequest::default(),
    };
    let mut changes = 0;
    loop {
        let message = next(&mut stream).await?;
        watched.messages += 1;
        watched.bytes += message.encoded_len() as u64;
        let is_whole = match &message.change {
            Some(Change::Snapshot(snapshot)) => {
                if missed.is_some() {
                    return Err(Failure::failed(
                        "the stream was not taken up: more changes were missed than are kept (`registry.watch_queue`); take fewer --seconds",
                    ));
                }
                watched.place = WatchAgentsRequest {
                    since_revision: message.revision,
                    incarnation: message.incarnation,
                    incremental: true,
                    own_only: false,
                };
                !snapshot.more
            }
            Some(Change::Resumed(_)) => missed == Some(0),
            _ => {
                changes += 1;
                missed == Some(changes)
            }
        };
        if is_whole {
            watched.took = clock.monotonic().saturating_sub(began);
            return Ok(watched);
        }
    }
}

impl Watched {
    fn json(&self) -> Value {
        json!({"seconds": self.took.as_secs_f64(), "messages": self.messages, "bytes": self.bytes})
    }

    fn row(&self, name: &str) -> [String; 4] {
        [
            name.to_owned(),
            format!("{:.1} ms", self.took.as_secs_f64() * 1e3),
            self.messages.to_string(),
            format!("{:.2}", number(self.bytes) / f64::from(1 << 20)),
        ]
    }
}

/// Sends heartbeats evenly while somebody watches.
async fn beat(
    client: &Client,
    arguments: &Arguments,
    leases: &[String],
    registry: &Process,
    place: &WatchAgentsRequest,
) -> Result<Beaten, Failure> {
    let clock = SystemClock::default();
    let stream = client.clone().watch_agents(place.clone()).await;
    let mut stream = stream.map_err(|status| refused(&status))?.into_inner();
    next(&mut stream).await?;
    let before = registry.used();
    let began = clock.monotonic();
    let total = u64::from(arguments.heartbeats) * arguments.seconds;
    let sending = async {
        let mut sent: u64 = 0;
        let mut tick = tokio::time::interval(TICK);
        while sent < total {
            tick.tick().await;
            let passed = clock.monotonic().saturating_sub(began).as_millis();
            let due = u64::try_from(passed)
                .unwrap_or(u64::MAX)
                .saturating_mul(arguments.heartbeats.into())
                / 1_000;
            let due = due.min(total);
            let beats = stream::iter(sent..due).map(|number| one_beat(client.clone(), leases, number));
            beats.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            sent = due;
        }
        Ok::<(), Failure>(())
    };
    let watching = async {
        for _ in 0..total {
            next(&mut stream).await?;
        }
        Ok::<(), Failure>(())
    };
    tokio::try_join!(sending, watching)?;
    let took = clock.monotonic().saturating_sub(began);
    Ok(Beaten {
        sent: total,
        took,
        processor: registry.used().since(before).processor,
        told: total,
    })
}

async fn one_beat(mut client: Client, leases: &[String], number: u64) -> Result<(), Failure> {
    let count = leases.len().max(1) as u64;
    let index = usize::try_from(number % count).unwrap_or_default();
    let Some(lease_id) = leases.get(index) else {
        return Ok(());
    };
    // Another load each time round, and none that the registrations had: each is a change.
    let round = u32::try_from(number / count % 1_000).unwrap_or_default();
    let request = HeartbeatRequest {
        lease_id: lease_id.clone(),
        load: 0.000_5 + f64::from(round) / 2_000.0,
        mean_latency_seconds: 0.01,
        succeeded_total: number / count + 1,
        ..HeartbeatRequest::default()
    };
    client
        .heartbeat(request)
        .await
        .map_err(|status| refused(&status))?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn number(count: u64) -> f64 {
    count as f64
}

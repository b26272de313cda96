//! `muster bench workflow`: how fast durable steps are, and what they cost.
//!
//! Registry, router, engine and one agent run as processes of their own, anew for each case; the clients are in this one. Each
//! client starts a run, waits for its end and starts the next (a closed loop), so that the load is what the system takes and
//! never more. Nothing is acknowledged before it is on disk: the directory decides what is measured, and a file system in
//! memory would flatter. With a store in Redis, Redis's own settings decide.
//!
//! What is compared are three kinds of steps; see [`steps::Kind`]. Steps are counted by the engine, so that runs that are
//! longer than the measurement count too.

mod load;
mod parts;
mod processes;
mod report;
mod steps;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use muster_api::workflow::{ApplyWorkflowRequest, GetStatusRequest};
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bench::latency::{Latencies, latencies, quantiles};
use crate::bench::process::{self, Memory};
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;
use load::{Load, Work};
use processes::{Keeping, Processes, Room};
use report::Row;
use steps::{Kind, Park, WRITTEN_OUT};

/// How often the engine's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How long the processes are left alone before what they hold counts as idle.
const REST: Duration = Duration::from_secs(1);

/// A measurement goes on until as many runs have ended as there are clients, but no longer than this; nor does parking.
const LONGEST: Duration = Duration::from_secs(600);

/// Starts of runs that are under way at once while runs are parked.
const STARTERS: u32 = 64;

/// The engine ends a run that computes so many tasks without a call between them.
const MOST_COMPUTED: u32 = 10_000;

/// The counter of the engine that counts steps that are calls.
const CALLS: &str = "workflow_calls_total";

/// Arguments of `muster bench workflow`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What the steps do; may be a list.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Agent, Kind::Noop, Kind::Set])]
    kind: Vec<Kind>,
    /// Clients at once; may be a list.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64], value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: Vec<u32>,
    /// Steps of a run, up to ten or a multiple of ten; may be a list.
    #[arg(long, value_delimiter = ',', default_values_t = [10], value_parser = steps)]
    steps: Vec<u32>,
    /// Runs that are parked before; may be a list.
    #[arg(long, value_delimiter = ',', default_values_t = [0], value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    parked: Vec<u32>,
    /// What they are parked by.
    #[arg(long, value_enum, default_value_t = Park::Listen)]
    park: Park,
    /// Workflows in the catalogue, which are run in turn; may be a list.
    #[arg(long, value_delimiter = ',', default_values_t = [1], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    definitions: Vec<u32>,
    /// Bytes that go to the agent with each step and come back.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    payload: u32,
    /// Seconds that are measured, for each case.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warm_up: u64,
    /// Where to make the directory that the processes keep their data in; default: that for temporary files.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A Redis to keep the engine's store in, in place of its data directory. What is written there stays there: use one that
    /// is for nothing else. How safely it keeps things is its own setting (`appendfsync`).
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// A setting of the engine, as its own `--set` takes it; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

impl Arguments {
    /// Where the engine keeps its store, which is a new one each time.
    fn keeping(&self) -> Keeping {
        match &self.redis {
            None => Keeping::Embedded,
            Some(url) => Keeping::Redis {
                url: url.clone(),
                prefix: format!("bench-{}", uuid::Uuid::now_v7()),
            },
        }
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn steps(text: &str) -> Result<u32, String> {
    let steps: u32 = text.parse().map_err(|_| "is not a number".to_owned())?;
    let whole = steps <= WRITTEN_OUT || steps.is_multiple_of(WRITTEN_OUT);
    if (1..=10_000).contains(&steps) && whole {
        Ok(steps)
    } else {
        Err(format!(
            "must be from 1 to {WRITTEN_OUT}, or a multiple of {WRITTEN_OUT} up to 10000"
        ))
    }
}

/// What is measured at once.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What the steps do.
    kind: Kind,
    /// How many a run has.
    steps: u32,
    /// Clients at once.
    clients: u32,
    /// Runs that are parked.
    parked: u32,
    /// Workflows in the catalogue.
    definitions: u32,
}

/// Runs `muster bench workflow`.
pub async fn run(arguments: Arguments, output: &Output) -> Result<(), Failure> {
    let longest = arguments.steps.iter().max().copied().unwrap_or_default();
    if longest >= MOST_COMPUTED && arguments.kind.iter().any(|kind| !kind.is_call()) {
        let told = format!("--steps {longest}: a run computes fewer than {MOST_COMPUTED} steps of `set`");
        return Err(Failure::usage(told).with_remedy("name fewer steps, or other kinds of steps with --kind"));
    }
    let directory = directory(arguments.data_dir.as_deref())?;
    let disk = parts::disk(directory.path()).await?;
    let call = bare_call(&arguments, directory.path()).await?;
    let machine = process::machine();
    let store = match &arguments.redis {
        None => "embedded, on disk before it is acknowledged",
        Some(_) => "Redis",
    };
    if !output.is_json() {
        let at = |name: &str, part: &Value| {
            let quantile = |quantile: &str| part[quantile].as_f64().unwrap_or(f64::NAN);
            format!(
                "{name}: p50 {:.2} ms, p99 {:.2} ms",
                quantile("p50"),
                quantile("p99")
            )
        };
        output.line(&format!(
            "{} × {}, Linux {}; store: {store}; payload {} B",
            machine["cores"],
            machine["processor"].as_str().unwrap_or_default(),
            machine["kernel"].as_str().unwrap_or_default(),
            arguments.payload
        ));
        output.line(&at("4 KiB to disk", &quantiles(&disk)));
        output.line(&at(
            "a call of the agent through the router, alone",
            &quantiles(&call),
        ));
    }
    let mut rows = Vec::new();
    for case in cases(&arguments) {
        if output.is_terminal() {
            output.line(&format!("measuring {case:?}"));
        }
        rows.push(measure(case, &arguments, directory.path()).await?);
    }
    if output.is_json() {
        output.json(&json!({
            "machine": machine,
            "store": store,
            "payloadBytes": arguments.payload,
            "diskMillis": quantiles(&disk),
            "callMillis": quantiles(&call),
            "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
        }));
    } else {
        report::print(&rows, output);
    }
    Ok(())
}

fn directory(parent: Option<&Path>) -> Result<tempfile::TempDir, Failure> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("muster-bench-");
    let made = match parent {
        Some(parent) => builder.tempdir_in(parent),
        None => builder.tempdir(),
    };
    made.map_err(|error| {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        Failure::usage(format!(
            "no directory can be made in {}: {error}",
            parent.display()
        ))
        .with_remedy("name another with --data-dir")
    })
}

fn cases(arguments: &Arguments) -> Vec<Case> {
    let mut cases = Vec::new();
    for &parked in &arguments.parked {
        for &definitions in &arguments.definitions {
            for &kind in &arguments.kind {
                for &steps in &arguments.steps {
                    for &clients in &arguments.clients {
                        cases.push(Case {
                            kind,
                            steps,
                            clients,
                            parked,
                            definitions,
                        });
                    }
                }
            }
        }
    }
    cases
}

/// How long a call of the agent takes without an engine.
async fn bare_call(arguments: &Arguments, directory: &Path) -> Result<Latencies, Failure> {
    let room = Room {
        clients: 1,
        parked: 0,
    };
    let directory = directory.join("call");
    let processes = Processes::start(&directory, &arguments.keeping(), &arguments.set, room).await?;
    let call = parts::call(
        &processes.endpoints(),
        &Kind::Agent.input(arguments.payload as usize),
    )
    .await;
    processes.stop().await;
    forget(&directory)?;
    call
}

async fn measure(case: Case, arguments: &Arguments, directory: &Path) -> Result<Row, Failure> {
    let room = Room {
        clients: case.clients,
        parked: case.parked,
    };
    let directory = directory.join("case");
    let processes = Processes::start(&directory, &arguments.keeping(), &arguments.set, room).await?;
    let measured = measured(case, arguments, &processes).await;
    processes.stop().await;
    forget(&directory)?;
    measured
}

fn forget(directory: &Path) -> Result<(), Failure> {
    std::fs::remove_dir_all(directory)
        .map_err(|error| Failure::failed(format!("{}: {error}", directory.display())))
}

async fn measured(case: Case, arguments: &Arguments, processes: &Processes) -> Result<Row, Failure> {
    let endpoints = processes.endpoints();
    let clock = SystemClock::default();
    tokio::time::sleep(REST).await;
    let idle = processes.engine.memory();
    let begin = clock.monotonic();
    park(case.parked, arguments.park, &endpoints).await?;
    let parking = clock.monotonic().saturating_sub(begin);
    if case.parked > 0 {
        tokio::time::sleep(REST).await;
    }
    let parked = processes.engine.memory();
    let work = Work {
        workflows: apply(case, processes.agent.health(), &endpoints).await?,
        input: case.kind.input(arguments.payload as usize).to_string(),
    };
    let mut load = Load::start(case.clients, &work, &endpoints)?;
    load.pass(Duration::from_secs(arguments.warm_up)).await?;

    let calls = async || match case.kind.is_call() {
        true => processes.engine.counter(CALLS).await,
        false => Ok(0),
    };
    let services = [&processes.engine, &processes.router, &processes.agent];
    let used = || {
        let services = services.iter().map(|service| (service.name(), service.used()));
        services
            .chain(std::iter::once(("clients", process::used("self"))))
            .collect::<Vec<_>>()
    };
    load.count();
    let (begin, calls_before, used_before) = (clock.monotonic(), calls().await?, used());
    let mut loaded = Memory::default();
    let enough = |time: Duration, runs: u64| {
        time >= Duration::from_secs(arguments.seconds) && runs >= u64::from(case.clients) || time >= LONGEST
    };
    while !enough(clock.monotonic().saturating_sub(begin), load.runs()) {
        load.pass(LOOK).await?;
        let memory = processes.engine.memory();
        if memory.resident > loaded.resident {
            loaded = memory;
        }
    }
    let (calls_after, used_after) = (calls().await?, used());
    let window = clock.monotonic().saturating_sub(begin);
    let (run, runs, recent) = load.stop().await;
    let steps = match case.kind.is_call() {
        true => calls_after.saturating_sub(calls_before),
        false => runs * u64::from(case.steps),
    };
    // Steps that are computed in one batch begin at the same time.
    let step = match case.kind.is_call() {
        true => load::step_latencies(&recent, &endpoints).await?,
        false => latencies()?,
    };
    let used = used_after.into_iter().zip(used_before);
    Ok(Row {
        case,
        window,
        steps,
        runs,
        run,
        step,
        parking,
        used: used
            .map(|((name, after), (_, before))| (name, after.since(before)))
            .collect(),
        idle,
        parked,
        loaded,
    })
}

/// Adds the workflows of a case to the catalogue and says their names.
async fn apply(case: Case, health: &str, endpoints: &Endpoints) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for number in 0..case.definitions {
        add(case.kind.document(case.steps, number, health), endpoints).await?;
        names.push(case.kind.workflow(number));
    }
    Ok(names)
}

async fn add(document: Value, endpoints: &Endpoints) -> Result<(), Failure> {
    let request = ApplyWorkflowRequest {
        document: document.to_string(),
    };
    let answer = endpoints.engine()?.apply_workflow(request).await;
    answer.map_err(|status| endpoints.failure(Service::Engine, &status))?;
    Ok(())
}

/// Starts runs that do nothing for hours, and waits until all of them do.
async fn park(count: u32, by: Park, endpoints: &Endpoints) -> Result<(), Failure> {
    if count == 0 {
        return Ok(());
    }
    add(by.document(), endpoints).await?;
    let mut starters = JoinSet::new();
    for starter in 0..STARTERS {
        let mut client = endpoints.engine()?;
        let share = count / STARTERS + u32::from(starter < count % STARTERS);
        starters.spawn(async move {
            for _ in 0..share {
                load::started(&mut client, by.workflow(), "").await?;
            }
            Ok::<(), Failure>(())
        });
    }
    while let Some(ended) = starters.join_next().await {
        ended.map_err(|error| Failure::failed(error.to_string()))??;
    }
    let mut client = endpoints.engine()?;
    let waiting = async {
        loop {
            let status = client.get_status(GetStatusRequest {}).await;
            let status = status.map_err(|status| endpoints.failure(Service::Engine, &status))?;
            if status.into_inner().waiting >= u64::from(count) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let late = |_| Failure::failed(format!("waited {} s for runs to park", LONGEST.as_secs()));
    tokio::time::timeout(LONGEST, waiting).await.map_err(late)?
}

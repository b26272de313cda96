//! `muster bench route`: what a hop costs, and whether the router stands its ground under overload.
//!
//! Everything that is measured is a process of its own: registry, router, agent, a forwarder that does nothing, and, where
//! they are asked for, nginx and Envoy; the clients are in this one. By default a closed loop goes through each way in turn:
//! straight to the agent, through the forwarder, the router and the proxies. A round has each way once, and the next round
//! begins with another one, so that a machine that becomes slower does so for all; what is compared is what ways did in the
//! same round. The clients and their connections are the same for every way: one connection for a few clients, because one
//! alone would bind a proxy to one of its threads.
//!
//! The router asks for tokens and limits callers unless it is told not to ([`auth`]); every way is called with the same token. Where
//! the agent has several instances, the proxies and the callers of the direct way share their calls among them, too.
//!
//! With `--overload` and `--noisy` the agents' capacity is limited, and the calls come at times of their own, whatever
//! becomes of those before (an open loop): only so does a load become more than what is taken. See [`limited`].

mod auth;
mod client;
mod closed;
mod fleet;
mod limited;
mod open;
mod outcome;
pub mod part;
mod proxy;
mod report;
mod service;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use muster_runtime::Shutdown;
use serde_json::json;

use crate::bench::process::{self, Process, Used};
use crate::failure::Failure;
use crate::output::Output;
use auth::{Auth, CALLER, Tokens};
use client::{Call, Caller, Metadata, Sent};
use closed::{Refusals, Times};
use fleet::{Beside, Fleet, SINK, Telemetry};
use proxy::Proxy;
use report::Row;

/// The way without a hop.
const DIRECT: &str = "direct";

/// Who uses processor time: what is between the clients and the agent.
const HOP: &str = "hop";
/// Who uses processor time: the agent.
const AGENT: &str = "agent";
/// Who uses processor time: the clients.
const CLIENTS: &str = "clients";

/// Arguments of `muster bench route`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How messages are sent; may be a list.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Call::Unary, Call::Streaming])]
    call: Vec<Call>,
    /// Clients at once; may be a list.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256], value_parser = clap::value_parser!(u32).range(1..=4_096))]
    clients: Vec<u32>,
    /// Proxies to measure beside the router; may be a list. Their programs must be on the PATH or in $MUSTER_TEST_TOOLS.
    #[arg(long, value_enum, value_delimiter = ',')]
    with: Vec<Proxy>,
    /// Further routers to measure, which measure and tell so much of themselves; may be a list. With `off` among them, the others are
    /// compared with that.
    #[arg(long, value_enum, value_delimiter = ',')]
    telemetry: Vec<Telemetry>,
    /// Clients that share a connection.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    clients_per_connection: u32,
    /// Bytes of text in a message.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    payload: u32,
    /// How often each way is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Seconds that are measured, each time.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1.0, value_parser = seconds_or_none)]
    warm_up: f64,
    /// Whether the router demands a token of its callers, and limits what each may ask for in a minute.
    #[arg(long, value_enum, default_value_t = Auth::Token)]
    auth: Auth,
    /// Instances of the agent, among which the router chooses.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100), conflicts_with_all = ["overload", "noisy"])]
    instances: u32,
    /// Metadata to send with each call; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = client::metadata)]
    metadata: Vec<Metadata>,
    /// A setting of the router, as its own `--set` takes it; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Where to make the directory that the processes keep their data in; default: that for temporary files.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    limited: limited::Arguments,
}

fn seconds(text: &str) -> Result<f64, String> {
    within(text, 0.05)
}

fn seconds_or_none(text: &str) -> Result<f64, String> {
    within(text, 0.0)
}

fn within(text: &str, least: f64) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if (least..=3_600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!("must be from {least} to 3600 seconds"))
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Arguments {
    fn times(&self) -> Times {
        Times {
            warm_up: Duration::from_secs_f64(self.warm_up),
            measured: Duration::from_secs_f64(self.seconds),
        }
    }

    /// What callers send who show this.
    fn sent(&self, call: Call, mut shown: Vec<Metadata>) -> Sent {
        shown.extend_from_slice(&self.metadata);
        Sent {
            call,
            text: "x".repeat(self.payload as usize).into(),
            metadata: shown,
            deadline: None,
        }
    }

    /// The proxies that are asked for, each once, with their programs.
    fn proxies(&self) -> Result<Vec<(Proxy, PathBuf)>, Failure> {
        let mut proxies: Vec<(Proxy, PathBuf)> = Vec::new();
        for &proxy in &self.with {
            if proxies.iter().all(|(known, _)| *known != proxy) {
                proxies.push((proxy, proxy.program()?));
            }
        }
        Ok(proxies)
    }

    /// The further routers that are asked for, each once.
    fn telemetries(&self) -> Vec<Telemetry> {
        let mut all: Vec<Telemetry> = Vec::new();
        for telemetry in &self.telemetry {
            if !all.contains(telemetry) {
                all.push(*telemetry);
            }
        }
        all
    }

    fn directory(&self) -> Result<tempfile::TempDir, Failure> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("muster-bench-");
        let made = match &self.data_dir {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        made.map_err(|error| {
            let parent = self.data_dir.clone().unwrap_or_else(std::env::temp_dir);
            Failure::usage(format!(
                "no directory can be made in {}: {error}",
                parent.display()
            ))
            .with_remedy("name another with --data-dir")
        })
    }
}

/// Runs `muster bench route`. A signal ends it in the same way as any failure: with all that it has started.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals();
    let measured = async {
        if arguments.limited.asked_for() {
            limited::run(arguments, output).await
        } else {
            closed_loop(arguments, output).await
        }
    };
    tokio::select! {
        measured = measured => measured,
        () = shutdown.requested() => Err(Failure::failed("interrupted before the end")),
    }
}

async fn closed_loop(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let proxies = arguments.proxies()?;
    let directory = arguments.directory()?;
    let tokens = Tokens::new(arguments.auth, directory.path())?;
    let settings = tokens.settings(&arguments.set);
    let shown = tokens.shown_by(CALLER)?;
    let fleet = Fleet::start(directory.path(), arguments.instances, None, &settings, &shown).await?;
    let mut beside = Beside::start(&fleet, &proxies, directory.path()).await?;
    for telemetry in arguments.telemetries() {
        let router = fleet.router_with(telemetry, directory.path(), &settings);
        beside.proxies.extend(router.await?);
    }
    describe(arguments, output);
    let mut rows = Vec::new();
    for &call in &arguments.call {
        let sent = Arc::new(arguments.sent(call, shown.clone()));
        for &clients in &arguments.clients {
            if output.is_terminal() {
                output.line(&format!("measuring {}, {clients} clients", call.name()));
            }
            rows.extend(measure(clients, arguments, &sent, &fleet, &beside).await?);
        }
    }
    beside.stop().await;
    fleet.stop().await;
    if output.is_json() {
        output.json(&json!({
            "machine": process::machine(),
            "payloadBytes": arguments.payload,
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "warmUpSeconds": arguments.warm_up,
            "clientsPerConnection": arguments.clients_per_connection,
            "auth": arguments.auth.name(),
            "instances": arguments.instances,
            "notMeasured": not_asked_for(arguments),
            "rows": report::json(&rows),
        }));
    } else {
        report::print(&rows, output);
    }
    Ok(())
}

/// Says what is measured, and what is not.
fn describe(arguments: &Arguments, output: &Output) {
    if output.is_json() {
        return;
    }
    let machine = process::machine();
    output.line(&format!(
        "{} × {}, Linux {}; {} B of text; {} × {} s after {} s; a connection for {} clients; instances: {}; auth: {}",
        machine["cores"],
        machine["processor"].as_str().unwrap_or_default(),
        machine["kernel"].as_str().unwrap_or_default(),
        arguments.payload,
        arguments.rounds,
        arguments.seconds,
        arguments.warm_up,
        arguments.clients_per_connection,
        arguments.instances,
        arguments.auth.name(),
    ));
    for name in not_asked_for(arguments) {
        output.line(&format!(
            "{name} is not measured: it is asked for by `--with {name}`"
        ));
    }
}

fn not_asked_for(arguments: &Arguments) -> Vec<&'static str> {
    let all = [Proxy::Nginx, Proxy::Envoy];
    let left = all.into_iter().filter(|proxy| !arguments.with.contains(proxy));
    left.map(Proxy::name).collect()
}

/// A way to the agent.
struct Way<'a> {
    name: &'static str,
    urls: Vec<String>,
    hop: Option<&'a Process>,
    callers: Vec<Caller>,
}

impl Way<'_> {
    fn used(&self, fleet: &Fleet) -> Vec<(&'static str, Used)> {
        let hop = self.hop.map(|process| (HOP, process.used()));
        let agent = fleet
            .agents
            .iter()
            .map(Process::used)
            .fold(Used::default(), Used::and);
        hop.into_iter()
            .chain([(AGENT, agent), (CLIENTS, process::used("self"))])
            .collect()
    }
}

async fn measure(
    clients: u32,
    arguments: &Arguments,
    sent: &Arc<Sent>,
    fleet: &Fleet,
    beside: &Beside,
) -> Result<Vec<Row>, Failure> {
    let agents = fleet.agents.iter().map(Process::url).collect();
    let hops = [&beside.forwarder, &fleet.router]
        .into_iter()
        .chain(beside.proxies.iter().filter(|process| process.name() != SINK));
    let ways = std::iter::once((DIRECT, agents, None))
        .chain(hops.map(|process| (process.name(), vec![process.url()], Some(process))));
    let connections = clients.div_ceil(arguments.clients_per_connection);
    let mut measured = Vec::new();
    for (name, urls, hop) in ways {
        let way = Way {
            name,
            callers: Caller::several(&urls, connections, clients, sent)?,
            urls,
            hop,
        };
        measured.push((Row::new(sent.call, clients, name)?, way));
    }
    for round in 0..arguments.rounds {
        if round > 0 {
            measured.rotate_left(1);
        }
        for (row, way) in &mut measured {
            let callers = way.callers.iter().map(Caller::another).collect();
            let used = || way.used(fleet);
            let round = closed::measure(callers, Refusals::Fail, arguments.times(), used).await;
            row.add(&round.map_err(|failure| at(failure, way, clients))?)?;
        }
    }
    let first = measured.iter().position(|(row, _)| row.way == DIRECT);
    measured.rotate_left(first.unwrap_or_default());
    Ok(measured.into_iter().map(|(row, _)| row).collect())
}

/// Names the way on which something failed.
fn at(mut failure: Failure, way: &Way<'_>, clients: u32) -> Failure {
    failure.message = format!(
        "{} at {}, {clients} clients: {}",
        way.name,
        way.urls.join(", "),
        failure.message
    );
    failure
}

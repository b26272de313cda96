//! `muster readiness`: is a system fit for production? Every answer is found out, and comes with what was seen.
//!
//! ```text
//! check.rs      a check: what it needs, how it came out
//! plan.rs       which are made, one after the other
//! trial.rs      what they share, what they make on the target, and that nothing of it stays
//! target.rs     a stack of one's own, or something that runs
//! report.rs     a table, JSON, JUnit
//! initialisation.rs  health.rs  load.rs  failover.rs  security.rs (attacker.rs)  monitoring.rs (queries.rs)  scaling.rs
//! ```
//!
//! Without arguments a whole stack is started, looked at from all sides, and gone afterwards. Something that runs is named by the
//! addresses that every command takes; there nothing is killed and nobody disturbed unless `--destructive` says so. Rejected: a
//! suite of tests that is compiled apart, which an operator does not have where the system is.

mod attacker;
mod check;
mod failover;
mod health;
mod initialisation;
mod load;
mod monitoring;
mod plan;
mod queries;
mod report;
mod scaling;
mod security;
mod target;
mod trial;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use muster_runtime::Shutdown;
use rand::RngExt as _;
use url::Url;

use crate::connect::Endpoints;
use crate::failure::Failure;
use crate::output::Output;
use check::{Area, Check, Need};
use report::Report;
use target::collector::Collector;
use target::hands::{Hands, Harmed};
use target::local::{Order, Size, Stack};
use target::{Target, network, remote};
use trial::{Made, Options, Trial};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// A stack that is started for it.
    Local,
    /// What answers at --registry, --router and --engine.
    Running,
}

/// Arguments of `muster readiness`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to look at: a stack that is started for it, or what answers at --registry, --router and --engine.
    #[arg(long, value_enum, default_value_t = Which::Local)]
    target: Which,
    /// Only these areas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "AREA,…")]
    only: Vec<Area>,
    /// Say which checks there are and what each needs, and make none.
    #[arg(long)]
    list: bool,
    /// Of something that runs: also what disturbs others.
    #[arg(long)]
    destructive: bool,
    /// Seconds for all checks together.
    #[arg(long, value_name = "SECONDS", default_value_t = 1_800, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    deadline: u64,
    /// The program that harms parts of something that runs and sets them right again: called with `kill` or `start`, `freeze` or
    /// `thaw`, `cut` or `join`, and the part's name.
    #[arg(long, value_name = "PROGRAM", requires_all = ["destructive", "part"])]
    operate_with: Option<PathBuf>,
    /// A part that it may harm, such as `engine=engine-1`: registry, router, engine, agent or redis; may be repeated.
    #[arg(long, value_name = "KIND=NAME", requires = "operate_with")]
    part: Vec<Harmed>,
    /// Write the results into this file, in the form of JUnit.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// What is left to chance, again.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Seconds of each step of the load.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    step: u64,
    /// Workflows at a time, at most.
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    most_clients: u32,
    /// Where the parts' health and metrics ports are, as `muster dev` writes it: JSON with `url`, `health` and `metrics` of each.
    #[arg(long, value_name = "FILE")]
    endpoints: Option<PathBuf>,
    /// An agent that must be registered; may be repeated.
    #[arg(long, value_name = "AGENT")]
    expect: Vec<String>,
    /// The private key that callers' tokens are signed with, for the attempts with tokens.
    #[arg(long, value_name = "FILE")]
    token_key: Option<PathBuf>,
    /// Who issues tokens.
    #[arg(long, value_name = "NAME", default_value = "muster")]
    token_issuer: String,
    /// Where the audit logs are: in a folder of each service's name, or of several replicas in folders of their own there.
    #[arg(long, value_name = "DIR")]
    audit_dir: Option<PathBuf>,
    /// The Prometheus that scrapes it.
    #[arg(long, value_name = "URL")]
    prometheus: Option<Url>,
    /// Its Alertmanager.
    #[arg(long, value_name = "URL", requires = "alert_listen")]
    alertmanager: Option<Url>,
    /// Where that Alertmanager sends its alerts to (a webhook), for this command to listen there.
    #[arg(long, value_name = "ADDRESS")]
    alert_listen: Option<SocketAddr>,
    /// Where traces can be asked for: a Jaeger or a Tempo.
    #[arg(long, value_name = "URL", conflicts_with = "traces_listen")]
    traces: Option<Url>,
    /// Where traces are sent to (OTLP over gRPC), for this command to listen there.
    #[arg(long, value_name = "ADDRESS")]
    traces_listen: Option<SocketAddr>,
    /// Dashboards and rules of this directory, in place of those of this program.
    #[arg(long, value_name = "DIR")]
    deploy_dir: Option<PathBuf>,
}

/// Runs `muster readiness`; fails where a check does.
pub async fn run(
    arguments: Arguments,
    endpoints: Endpoints,
    certificates: Option<PathBuf>,
    output: &Output,
) -> Result<(), Failure> {
    let checks = plan::chosen(&arguments.only);
    if arguments.list {
        plan::list(&checks, output);
        return Ok(());
    }
    let needs_network = |check: &&Check| check.needs.contains(&Need::Network);
    if arguments.target == Which::Local && checks.iter().any(needs_network) {
        network::enter();
    }
    let shutdown = Shutdown::on_signals();
    let options = Options {
        step: Duration::from_secs(arguments.step),
        most_clients: arguments.most_clients,
        seed: arguments.seed.unwrap_or_else(|| rand::rng().random()),
        deploy: arguments.deploy_dir.clone(),
    };
    let deadline = Duration::from_secs(arguments.deadline);
    let junit = arguments.junit.clone();
    let target = tokio::select! {
        target = target(arguments, endpoints, certificates) => target?,
        () = shutdown.requested() => return Err(Failure::failed("interrupted")),
    };
    let mut trial = Trial {
        target,
        options,
        made: Made::new(),
    };
    let done = plan::carry_out(&checks, &mut trial, deadline, &shutdown, output).await;
    // With a stack of its own goes all that is in it.
    let left = match trial.target.running() {
        Some(_) => trial.made.clean(&trial.target.endpoints).await,
        None => Vec::new(),
    };
    let report = Report {
        target: trial.target.describe(),
        seed: trial.options.seed,
        checks: done,
        left,
    };
    report.print(output);
    if let Some(path) = junit {
        report.write_junit(&path)?;
    }
    if shutdown.is_requested() {
        return Err(Failure::failed("interrupted"));
    }
    report.outcome()
}

async fn target(
    arguments: Arguments,
    endpoints: Endpoints,
    certificates: Option<PathBuf>,
) -> Result<Target, Failure> {
    if arguments.target == Which::Local {
        return Target::local(Stack::start(Size::Whole, Order::Stated).await?);
    }
    let issuer = arguments
        .token_key
        .as_deref()
        .map(|key| remote::issuer(key, &arguments.token_issuer))
        .transpose()?;
    let collector = match arguments.traces_listen {
        Some(address) => Some(Collector::start_at(address).await?),
        None => None,
    };
    let running = remote::Running {
        certificates,
        issuer,
        audit: arguments.audit_dir,
        prometheus: arguments.prometheus,
        alertmanager: arguments.alertmanager,
        alert_listen: arguments.alert_listen,
        traces: arguments.traces,
        collector,
        hands: Hands {
            program: arguments.operate_with,
            parts: arguments.part,
        },
    };
    remote::target(
        endpoints,
        arguments.endpoints.as_deref(),
        arguments.expect,
        arguments.destructive,
        running,
    )
}

//! `muster bench part`: one service as a process of its own, so that what each costs can be told apart.
//!
//! A benchmark must run with nothing but this program, so the program starts itself. It listens on free ports and says on
//! standard output which; it ends when its standard input does, so that nothing outlives a benchmark that is killed.

use std::io::Read as _;

use clap::{Args, ValueEnum};
use muster_agent_sdk::{Agent, Card, Failure as AgentFailure, NoSettings, Reply, Request, Skill, Task};
use muster_runtime::config::{self, Settings};
use muster_runtime::{Error, Listeners, Shutdown, server, telemetry};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// The agent's id.
pub const AGENT: &str = "echo";

/// Which service to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The registry.
    Registry,
    /// The router.
    Router,
    /// The workflow engine.
    Engine,
    /// An agent that answers at once with what it was asked.
    Agent,
    /// One of the agents that come with Muster.
    Weather,
    /// Another one.
    Planning,
    /// Another one.
    CustomerService,
    /// Another one.
    DataAnalysis,
    /// Another one.
    SecurityMonitor,
}

impl Part {
    /// Its name on the command line and in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Router => "router",
            Self::Engine => "engine",
            Self::Agent => "agent",
            Self::Weather => "weather",
            Self::Planning => "planning",
            Self::CustomerService => "customer-service",
            Self::DataAnalysis => "data-analysis",
            Self::SecurityMonitor => "security-monitor",
        }
    }
}

/// Arguments of `muster bench part`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Which service to be.
    #[arg(value_enum)]
    pub part: Part,
    /// Set one configuration key of the service.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Listen on these ports; default: free ones.
    #[arg(long, num_args = 3, value_names = ["DATA", "HEALTH", "METRICS"])]
    pub ports: Vec<u16>,
}

/// Where a part listens: what it says first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Addresses {
    /// gRPC and HTTP.
    pub data: String,
    /// `/health`; empty where there is none.
    #[serde(default)]
    pub health: String,
    /// `/metrics`; empty where there is none.
    #[serde(default)]
    pub metrics: String,
}

/// Runs `muster bench part`.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let listeners = match *arguments.ports.as_slice() {
        [data, health, metrics] => Listeners::bind(&server::Config::on_ports(data, health, metrics)),
        _ => Listeners::ephemeral(),
    };
    let listeners = listeners.map_err(|error| failure(arguments.part, &error))?;
    let addresses = Addresses {
        data: listeners.data_address().to_string(),
        health: listeners.health_address().to_string(),
        metrics: listeners.metrics_address().to_string(),
    };
    let shutdown = Shutdown::on_signals();
    end_with_standard_input(shutdown.clone())?;
    let set = &arguments.set;
    let ended = match arguments.part {
        Part::Registry => {
            let config: muster_registry::Config = settings(set)?;
            say(&addresses, output)?;
            muster_registry::run(config, listeners, shutdown).await
        }
        Part::Router => {
            let config: muster_router::Config = settings(set)?;
            say(&addresses, output)?;
            muster_router::run(config, listeners, shutdown).await
        }
        Part::Engine => {
            let config: muster_workflow_engine::Config = settings(set)?;
            say(&addresses, output)?;
            muster_workflow_engine::run(config, listeners, shutdown).await
        }
        Part::Agent => {
            let config: muster_agent_sdk::Config<NoSettings> = settings(set)?;
            say(&addresses, output)?;
            muster_agent_sdk::run(config, listeners, shutdown, |_| Ok(Echo)).await
        }
        Part::Weather => {
            let config: muster_agent_sdk::Config<_> = settings(set)?;
            say(&addresses, output)?;
            muster_agent_weather::run(config, listeners, shutdown).await
        }
        Part::Planning => {
            let config: muster_agent_sdk::Config<_> = settings(set)?;
            say(&addresses, output)?;
            muster_agent_planning::run(config, listeners, shutdown).await
        }
        Part::CustomerService => {
            let config: muster_agent_sdk::Config<_> = settings(set)?;
            say(&addresses, output)?;
            muster_agent_customer_service::run(config, listeners, shutdown).await
        }
        Part::DataAnalysis => {
            let config: muster_agent_sdk::Config<_> = settings(set)?;
            say(&addresses, output)?;
            muster_agent_data_analysis::run(config, listeners, shutdown).await
        }
        Part::SecurityMonitor => {
            let config: muster_agent_sdk::Config<_> = settings(set)?;
            say(&addresses, output)?;
            muster_agent_security_monitor::run(config, listeners, shutdown).await
        }
    };
    ended.map_err(|error| failure(arguments.part, &error))
}

/// Says where it listens.
pub fn say(addresses: &Addresses, output: &Output) -> Result<(), Failure> {
    let text = serde_json::to_string(addresses).map_err(|error| Failure::failed(error.to_string()))?;
    output.line(&text);
    Ok(())
}

fn settings<C: Settings>(set: &[String]) -> Result<C, Failure> {
    let pairs: Result<Vec<_>, _> = set.iter().map(|text| config::parse_override(text)).collect();
    let pairs = pairs.map_err(|what| Failure::usage(format!("--set: {what}")))?;
    // Not the environment: what is measured must not depend on it.
    let config: C = config::load(C::default(), None, std::iter::empty(), &pairs)
        .map_err(|mistakes| Failure::usage(mistakes.to_string()))?;
    telemetry::init(config.telemetry());
    Ok(config)
}

fn failure(part: Part, error: &Error) -> Failure {
    let mut failure = Failure::failed(format!("{}: {error}", part.name()));
    if error.exit_code() == 2 {
        failure.exit = Exit::Usage;
    }
    failure
}

/// Asks for the end when standard input ends.
///
/// A thread, because it waits for input that never comes, and a task of the runtime would keep it from ending.
pub fn end_with_standard_input(shutdown: Shutdown) -> Result<(), Failure> {
    let wait = move || {
        let mut input = std::io::stdin().lock();
        let mut byte = [0];
        while input.read(&mut byte).is_ok_and(|read| read > 0) {}
        shutdown.trigger();
    };
    let started = std::thread::Builder::new()
        .name("standard input".to_owned())
        .spawn(wait);
    started
        .map(|_| ())
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))
}

/// Answers at once with what it was asked.
struct Echo;

impl Agent for Echo {
    fn card(&self) -> Card {
        Card::new(AGENT, "Echo", "Answers with what it was asked", "1.0.0")
            .skill(Skill::new("echo", "Echo", "Answers with what it was asked").idempotent())
    }

    async fn handle(&self, request: Request, _task: Task) -> Result<Reply, AgentFailure> {
        let data = request.data().cloned().unwrap_or(Value::Null);
        Ok(Reply::completed("done").data(data))
    }
}

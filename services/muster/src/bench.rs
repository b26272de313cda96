//! `muster bench`: measures what is promised, on this machine.

mod etcd;
mod fairness;
pub mod latency;
mod pace;
pub mod part;
pub mod process;
mod registry;
mod route;
mod workflow;

use clap::Subcommand;

use crate::failure::Failure;
use crate::output::Output;

/// `muster bench …`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// How long a namespace's runs take to begin, alone and beside another one that has filled the line.
    Fairness(fairness::Arguments),
    /// What a registry of many instances costs: memory, heartbeats, discovery, and watching.
    Registry(registry::Arguments),
    /// How many messages a second go through the router, beside other ways to the same agent, and what a hop costs.
    Route(Box<route::Arguments>),
    /// How many durable steps a second the fleet takes, how long each takes, and what it costs.
    Workflow(workflow::Arguments),
    /// Be one of the processes that a benchmark measures.
    #[command(hide = true)]
    Part(part::Arguments),
    /// Be one of the processes that the benchmark of the router measures beside it.
    #[command(hide = true)]
    RoutePart(route::part::Arguments),
}

/// Runs `muster bench …`.
pub async fn run(command: BenchCommand, output: &Output) -> Result<(), Failure> {
    match command {
        BenchCommand::Fairness(arguments) => fairness::run(&arguments, output).await,
        BenchCommand::Registry(arguments) => registry::run(&arguments, output).await,
        BenchCommand::Route(arguments) => route::run(&arguments, output).await,
        BenchCommand::Workflow(arguments) => workflow::run(arguments, output).await,
        BenchCommand::Part(arguments) => part::run(&arguments, output).await,
        BenchCommand::RoutePart(arguments) => route::part::run(arguments, output).await,
    }
}

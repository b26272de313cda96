//! The command line: what can be typed, and which module answers it.
//!
//! Made for people first and for scripts too: `-o json` on everything that prints, exit codes as in
//! [`crate::failure::Exit`], colours and spinners only on a terminal.

mod events;
mod fleet;
mod local;
mod messages;
mod schedules;
mod upkeep;
mod workflows;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use muster_runtime::trust::Trust;

use crate::approval::{self, ApprovalCommand};
#[cfg(feature = "fleet")]
use crate::bench::{self, BenchCommand};
use crate::connect::{self, Endpoints, Token};
use crate::deploy::{self, DeployCommand};
use crate::failure::Failure;
use crate::inbox::{self, BroadcastArguments, InboxCommand};
use crate::observe::log_level;
use crate::observe::optimize;
use crate::observe::status;
use crate::output::{Format, Output};
#[cfg(feature = "fleet")]
use crate::sim::{self, SimArguments};
use crate::trust::audit::{self, AuditCommand};
use crate::trust::certs::{self, CertsCommand};
use crate::trust::token::{self, TokenCommand};
use crate::{agents, backup, event, readiness, schedule, send, task, workflow};
#[cfg(feature = "fleet")]
use crate::{demo, dev};

pub use events::{EventCommand, EventFilterArguments, PublishArguments};
pub use fleet::{AgentsCommand, CardCommand, InstanceState, RegisterArguments};
pub use local::{DemoArguments, DevArguments, Ports};
pub use messages::{SendArguments, TaskCommand};
pub use schedules::ScheduleCommand;
pub use upkeep::{BackupArguments, LogLevelArguments, OptimizeCommand, RestoreArguments, RevertArguments};
pub use workflows::{BulkArguments, ForkArguments, RunArguments, Steering, WorkflowCommand};

/// A control plane for fleets of AI agents: registry, router, durable workflows.
#[derive(Debug, Parser)]
#[command(name = "muster", version, about, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// How to print: for people, or one JSON object for scripts.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Human)]
    output: Format,
    /// Where the registry answers.
    #[arg(
        long,
        global = true,
        env = "MUSTER_REGISTRY_URL",
        default_value = "http://127.0.0.1:7401"
    )]
    registry: String,
    /// Where the router answers.
    #[arg(
        long,
        global = true,
        env = "MUSTER_ROUTER_URL",
        default_value = "http://127.0.0.1:7402"
    )]
    router: String,
    /// Where the workflow engine answers.
    #[arg(
        long,
        global = true,
        env = "MUSTER_ENGINE_URL",
        default_value = "http://127.0.0.1:7403"
    )]
    engine: String,
    /// Speak mutual TLS with the services, with the command line's certificate out of this directory, which `muster certs` has
    /// made.
    #[arg(long, global = true, env = "MUSTER_CERTIFICATES", value_name = "DIR")]
    certificates: Option<PathBuf>,
    /// The bearer token that says who you are.
    #[arg(
        long,
        global = true,
        env = "MUSTER_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// The same in a file.
    #[arg(long, global = true, env = "MUSTER_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all services in one process.
    #[cfg(feature = "fleet")]
    Dev(DevArguments),
    /// Run all services, then the tour: tables, example workflows, results.
    #[cfg(feature = "fleet")]
    Demo(DemoArguments),
    /// Show every component and agent: health, load, queue, runs.
    Status,
    /// Look at agents.
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Send a message to an agent and print the answer.
    Send(SendArguments),
    /// Look at tasks of agents.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Leave messages with the router, which delivers them when somebody is there, and see what became of them.
    #[command(subcommand)]
    Inbox(InboxCommand),
    /// Send a message to every agent that has a skill, and print the answers.
    Broadcast(BroadcastArguments),
    /// Check, keep and run workflows.
    #[command(subcommand)]
    Workflow(WorkflowCommand),
    /// List and decide what runs ask people.
    #[command(subcommand)]
    Approval(ApprovalCommand),
    /// Measure what is promised, on this machine.
    #[cfg(feature = "fleet")]
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Simulate lives of the workflow engine with crashes and faults, out of seeds; needs no server.
    #[cfg(feature = "fleet")]
    Sim(SimArguments),
    /// Find out whether a system is fit for production: a stack that is started for it, or one that runs.
    Readiness(Box<readiness::Arguments>),
    /// Publish events to the runs that listen for them, and look at the log.
    #[command(subcommand)]
    Event(EventCommand),
    /// Look at and steer the schedules of workflows.
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Make, replace and look at the certificates by which services know each other; needs no server.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// What is slow in workflows, and what would help.
    #[command(subcommand)]
    Optimize(OptimizeCommand),
    /// Show or change what a service logs, while it runs.
    LogLevel(LogLevelArguments),
    /// Copy the engine's store into a file, while it works.
    Backup(BackupArguments),
    /// Make a data directory of a backup, for an engine that is started on it.
    Restore(RestoreArguments),
    /// Bring the system into a Kubernetes cluster, look at it there, go back, and remove it.
    #[command(subcommand)]
    Deploy(DeployCommand),
    /// Make keys and tokens for development, and see what a token says.
    #[command(subcommand, name = "token")]
    Tokens(TokenCommand),
    /// Print audit logs, and check that nothing in them was changed.
    #[command(subcommand)]
    Audit(AuditCommand),
}

/// Parses the command line, runs the command and turns the outcome into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.global.output);
    let outcome = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(dispatch(cli, &output)),
        Err(error) => Err(Failure::failed(format!("cannot start the runtime: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.exit.into()
        }
    }
}

async fn dispatch(cli: Cli, output: &Output) -> Result<(), Failure> {
    let token = Token::read(cli.global.token.as_deref(), cli.global.token_file.as_deref())?;
    let endpoints = Endpoints {
        registry: cli.global.registry,
        router: cli.global.router,
        engine: cli.global.engine,
        trust: match &cli.global.certificates {
            None => Trust::loopback(),
            Some(directory) => connect::identity(directory)?,
        },
        token,
    };
    match cli.command {
        #[cfg(feature = "fleet")]
        Command::Dev(arguments) => dev::run(arguments, output).await,
        #[cfg(feature = "fleet")]
        Command::Demo(arguments) => demo::run(arguments, output).await,
        Command::Status => status::run(&endpoints, output).await,
        Command::Agents(command) => agents::run(command, &endpoints, output).await,
        Command::Send(arguments) => send::run(arguments, &endpoints, output).await,
        Command::Task(command) => task::run(command, &endpoints, output).await,
        Command::Inbox(command) => inbox::run(command, &endpoints, output).await,
        Command::Broadcast(arguments) => inbox::broadcast(arguments, &endpoints, output).await,
        Command::Workflow(command) => workflow::run(command, &endpoints, output).await,
        Command::Approval(command) => approval::run(command, &endpoints, output).await,
        #[cfg(feature = "fleet")]
        Command::Bench(command) => bench::run(command, output).await,
        #[cfg(feature = "fleet")]
        Command::Sim(arguments) => sim::run(&arguments, output),
        Command::Readiness(arguments) => {
            readiness::run(*arguments, endpoints, cli.global.certificates, output).await
        }
        Command::Event(command) => event::run(command, &endpoints, output).await,
        Command::Schedule(command) => schedule::run(command, &endpoints, output).await,
        Command::Certs(command) => certs::run(command, output),
        Command::Optimize(command) => optimize::run(command, &endpoints, output).await,
        Command::LogLevel(arguments) => log_level::run(arguments, &endpoints, output).await,
        Command::Backup(arguments) => backup::back_up(arguments, &endpoints, output).await,
        Command::Restore(arguments) => backup::restore(arguments, output).await,
        Command::Deploy(command) => deploy::run(command, output).await,
        Command::Tokens(command) => token::run(command, output),
        Command::Audit(command) => audit::run(&command, output),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}

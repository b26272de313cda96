//! The command line: what can be typed, and which module answers it.
//!
//! Made for people first and for scripts too: `-o json` on everything that prints, exit codes as in
//! [`crate::failure::Exit`], colours and spinners only on a terminal.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_runtime::trust::Trust;
use muster_workflow_dsl::document::policy::Priority;

use crate::approval::{self, ApprovalCommand};
#[cfg(feature = "fleet")]
use crate::bench::{self, BenchCommand};
use crate::connect::{self, Endpoints, Service, Token};
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

/// `muster optimize …`.
#[derive(Debug, Subcommand)]
pub enum OptimizeCommand {
    /// Show bottlenecks and improvements, each with its evidence, and what was changed.
    Report,
    /// Take back what the router and the engine have changed by themselves; what it was about is left alone until they start again.
    Revert(RevertArguments),
}

/// Arguments of `muster optimize revert`.
#[derive(Debug, Args)]
pub struct RevertArguments {
    /// Changes, as the report names them: `router-3`, `engine-1`. Later ones of the same place are taken back with them.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<String>,
    /// All of them.
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `muster log-level`.
#[derive(Debug, Args)]
pub struct LogLevelArguments {
    /// Whose logs; in `muster dev` all services are one process, and share them.
    #[arg(value_enum)]
    pub service: Service,
    /// TRACE, DEBUG, INFO, WARN or ERROR, or a filter such as `info,muster_router=debug`; empty for what is configured. Not given:
    /// what is logged is shown.
    pub filter: Option<String>,
    /// After how many seconds what is configured is logged again.
    #[arg(long, value_name = "SECONDS", requires = "filter")]
    pub revert_after: Option<u64>,
}

/// Arguments of `muster backup`.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// The file to write; `-` for standard output.
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Replace the file if it is there.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `muster restore`.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The backup; `-` for standard input.
    #[arg(value_name = "FILE")]
    pub file: String,
    /// The directory to make: one that is not there yet, or empty.
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// Which ports `dev` listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ports {
    /// The documented ones (7401 and up).
    Default,
    /// Free ones, chosen by the system; printed and written to `endpoints.json` in the data directory.
    Any,
}

/// Arguments of `muster dev`.
#[derive(Debug, Args)]
pub struct DevArguments {
    /// Where to keep what must survive; default: `muster` in the user's data directory.
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    pub data_dir: Option<PathBuf>,
    /// Keep nothing: a temporary directory that goes when the process ends.
    #[arg(long)]
    pub ephemeral: bool,
    /// Keep in this Redis what several of a kind would share (the engine's catalogue and runs, the registry's leases, owners of tasks,
    /// agents' tasks): redis://HOST:PORT, redis+sentinel://HOST:PORT,…/PRIMARY or redis+cluster://HOST:PORT,…
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// A configuration file (TOML, YAML or JSON).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one configuration key, such as `engine.max_concurrent_workflows=10`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the configuration as it results and stop.
    #[arg(long)]
    pub print_config: bool,
    /// Which ports to listen on.
    #[arg(long, value_enum, default_value_t = Ports::Default)]
    pub ports: Ports,
    /// Let the services speak mutual TLS, as they do apart from each other; the certificates are in `certificates` in the data
    /// directory, and made where there are none.
    #[arg(long, env = "MUSTER_DEV_TLS")]
    pub tls: bool,
}

/// Arguments of `muster demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Keep the fleet running after the tour, until Ctrl-C.
    #[arg(long)]
    pub stay: bool,
}

/// `muster agents …`
#[derive(Debug, Subcommand)]
pub enum AgentsCommand {
    /// List the agents with their skills and load.
    List {
        /// Only instances in this status; may be given several times. `offline` are those whose leases ended a short while
        /// ago, which nothing else lists.
        #[arg(long, value_enum)]
        status: Vec<InstanceState>,
        /// Only instances of this region.
        #[arg(long, default_value = "")]
        region: String,
    },
    /// Show one agent with its card and instances.
    Get {
        /// The agent's id.
        id: String,
    },
    /// Take an agent out of the choice for new work.
    Drain {
        /// The agent's id.
        id: String,
        /// One instance only.
        #[arg(long)]
        instance: Option<String>,
    },
    /// Look at agents' cards.
    #[command(subcommand)]
    Card(CardCommand),
    /// Have the registry keep an agent that knows nothing of Muster, by its card: it stays registered as long as it serves
    /// its card, until it is forgotten.
    Register(RegisterArguments),
    /// List the agents that the registry keeps by their cards, also those that are not there now.
    Kept {
        /// Whose agents.
        #[arg(long, default_value = "")]
        namespace: String,
    },
    /// Have the registry keep an agent no longer that was registered by its card.
    Forget {
        /// URL of the card, or of the agent, as it was registered.
        #[arg(long, value_name = "URL")]
        card: String,
        /// The agent's id; every agent that is kept by this card where none is given.
        #[arg(long, default_value = "")]
        id: String,
        /// Whose agent it is.
        #[arg(long, default_value = "")]
        namespace: String,
    },
}

/// `muster agents card …`
#[derive(Debug, Subcommand)]
pub enum CardCommand {
    /// Verify that a card is signed by a key that you trust.
    Verify {
        /// A file with a card, or the URL of one or of its agent.
        #[arg(value_name = "FILE|URL")]
        card: String,
        /// The keys that you trust: a JSON Web Key Set.
        #[arg(long, value_name = "FILE")]
        jwks: PathBuf,
    },
}

/// What `muster agents register` can be told.
#[derive(Debug, Args)]
pub struct RegisterArguments {
    /// URL of the agent's card, or of the agent: `/.well-known/agent-card.json` is looked for there.
    #[arg(long, value_name = "URL")]
    pub card: String,
    /// Id under which it is found; the card's name as a DNS label where none is given.
    #[arg(long)]
    pub id: Option<String>,
    /// How it is to be called; the fastest way that the card lists where none is given.
    #[arg(long, value_parser = ["GRPC", "JSONRPC", "HTTP+JSON"])]
    pub binding: Option<String>,
    /// Whose agent it is.
    #[arg(long, default_value = "")]
    pub namespace: String,
    /// Its region.
    #[arg(long, default_value = "")]
    pub region: String,
    /// Its zone within the region.
    #[arg(long, default_value = "")]
    pub zone: String,
    /// Its share of new work beside other instances of the agent, 0 to 1000.
    #[arg(long)]
    pub weight: Option<u32>,
    /// Keep it registered from here, until this command ends, where the registry may not or cannot reach the agent.
    #[arg(long)]
    pub keep: bool,
}

/// A status of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InstanceState {
    /// Takes work.
    Active,
    /// Takes work, but others are preferred.
    Busy,
    /// Finishes what it has.
    Draining,
    /// Out of service by an operator's wish.
    Maintenance,
    /// Not heard of any more.
    Offline,
}

/// Arguments of `muster send`.
#[derive(Debug, Args)]
pub struct SendArguments {
    /// The agent to send to.
    #[arg(
        long,
        value_name = "ID",
        required_unless_present_any = ["skill", "task"],
        conflicts_with = "skill"
    )]
    pub agent: Option<String>,
    /// Any agent that has this skill.
    #[arg(long, value_name = "SKILL")]
    pub skill: Option<String>,
    /// Continue this task; the router knows whose it is.
    #[arg(long, value_name = "ID")]
    pub task: Option<String>,
    /// Print updates as they come.
    #[arg(long)]
    pub stream: bool,
    /// Attach a file.
    #[arg(long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// A JSON value, or `@FILE` with one.
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    /// Seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Write the answer's files into this directory.
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// The text.
    #[arg(required_unless_present_any = ["data", "file"])]
    pub text: Option<String>,
}

/// `muster task …`
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Read a task.
    Get {
        /// The task's id.
        id: String,
    },
    /// Ask the agent to stop a task.
    Cancel {
        /// The task's id.
        id: String,
    },
    /// Follow a task until it ends.
    Watch {
        /// The task's id.
        id: String,
    },
}

/// `muster workflow …`
#[derive(Debug, Subcommand)]
pub enum WorkflowCommand {
    /// Check a document and list every problem with its place; needs no server.
    Validate {
        /// The document, YAML or JSON; `-` reads standard input.
        file: PathBuf,
    },
    /// Draw a document, as Mermaid text or as an SVG image; needs no server.
    Graph {
        /// The document, YAML or JSON; `-` reads standard input.
        file: PathBuf,
        /// The form of the picture; default: by the ending of `--save`, else mermaid.
        #[arg(long, value_enum)]
        format: Option<workflow::Picture>,
        /// Write the picture to this file.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Try a document against cases, with recorded answers and in a time that does not pass; needs no server.
    Test {
        /// The document, YAML or JSON.
        file: PathBuf,
        /// The cases, YAML or JSON; `-` reads standard input.
        cases: PathBuf,
        /// Only the cases of this name; may be repeated.
        #[arg(long, value_name = "NAME")]
        case: Vec<String>,
        /// Print what happened in each case.
        #[arg(long)]
        trace: bool,
    },
    /// Add a document to the catalogue.
    Apply {
        /// The document, YAML or JSON; `-` reads standard input.
        file: PathBuf,
    },
    /// List the catalogue.
    List,
    /// Print a document of the catalogue.
    Get {
        /// `NAME` or `NAME@VERSION`, with `NAMESPACE/` before it where that is not `default`.
        name: String,
    },
    /// Start a run.
    Run(RunArguments),
    /// List runs, newest first.
    Runs {
        /// Which runs.
        #[command(flatten)]
        search: workflow::Search,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show a run: status, what it does now, output or error.
    Show {
        /// The run's id.
        run: String,
    },
    /// Print a run's journal.
    History {
        /// The run's id.
        run: String,
    },
    /// Follow a run until it ends.
    Watch {
        /// The run's id.
        run: String,
    },
    /// Say why a run does not go on: the exact thing it waits for.
    Why {
        /// The run's id.
        run: String,
    },
    /// Check that a run's journal is still what was written.
    Verify(workflow::Verification),
    /// Hold a run: nothing new starts, and its time does not count.
    Pause(Steering),
    /// Let a run go on that is held.
    Resume(Steering),
    /// End a run in good order: what handles its errors runs, then completed tasks are compensated.
    Cancel(Steering),
    /// End a run at once.
    Terminate(Steering),
    /// Let a run go on that failed or was cancelled, from the task that failed.
    Retry {
        /// Which run, and why.
        #[command(flatten)]
        steering: Steering,
        /// Go on from the last start of this step: its name, or its JSON pointer.
        #[arg(long, value_name = "STEP")]
        from: Option<String>,
    },
    /// Start a new run that shares the beginning of another.
    Fork(ForkArguments),
    /// Forget a run that has ended.
    Delete {
        /// The run's id.
        run: String,
    },
    /// Erase what people and agents have said in a run that has ended; what happened stays, and can be verified.
    Erase {
        /// The run's id.
        run: String,
        /// Who wants it; the user of this machine where nothing is said.
        #[arg(long)]
        by: Option<String>,
    },
    /// Do one thing to every run that a search finds.
    Bulk(BulkArguments),
}

/// Which run to steer, why, and in whose name.
#[derive(Debug, Args)]
pub struct Steering {
    /// The run's id.
    pub run: String,
    /// Why, for the history.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Who, for the history; default: the user of this machine.
    #[arg(long)]
    pub by: Option<String>,
}

/// Arguments of `muster workflow fork`.
#[derive(Debug, Args)]
pub struct ForkArguments {
    /// The run whose beginning is shared.
    pub run: String,
    /// The step that begins first in the new run: its name, or its JSON pointer; default: the beginning.
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// The input of that step, or of the run: JSON, or `@FILE` with JSON; default: as it was.
    #[arg(long, value_name = "JSON|@FILE")]
    pub input: Option<String>,
    /// Your own id for the new run.
    #[arg(long)]
    pub id: Option<String>,
    /// Who, for the history; default: the user of this machine.
    #[arg(long)]
    pub by: Option<String>,
}

/// Arguments of `muster workflow bulk`.
#[derive(Debug, Args)]
pub struct BulkArguments {
    /// What to do.
    #[arg(value_enum)]
    pub action: workflow::BulkAction,
    /// To which runs; at least one criterion is needed.
    #[command(flatten)]
    pub search: workflow::Search,
    /// Why, for the histories.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Who, for the histories; default: the user of this machine.
    #[arg(long)]
    pub by: Option<String>,
    /// Only say which runs the search finds.
    #[arg(long)]
    pub dry_run: bool,
}

/// `muster event …`
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Add a CloudEvent to the log; the runs that listen for it go on.
    Publish(PublishArguments),
    /// List the log, the oldest first.
    List {
        /// Which events.
        #[command(flatten)]
        filter: EventFilterArguments,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Follow the log until Ctrl-C.
    Watch {
        /// Which events.
        #[command(flatten)]
        filter: EventFilterArguments,
    },
}

/// Which events to show.
#[derive(Debug, Args)]
pub struct EventFilterArguments {
    /// Only events of this type.
    #[arg(long = "type")]
    pub r#type: Option<String>,
    /// Only events of this source.
    #[arg(long)]
    pub source: Option<String>,
    /// From this position of the log on.
    #[arg(long, value_name = "POSITION")]
    pub from: Option<u64>,
}

/// Arguments of `muster event publish`.
#[derive(Debug, Args)]
pub struct PublishArguments {
    /// The event's type.
    #[arg(long = "type", required_unless_present = "event")]
    pub r#type: Option<String>,
    /// Where it comes from; default: `/muster/cli`.
    #[arg(long)]
    pub source: Option<String>,
    /// Your own id; publishing the same source and id again is safe. Default: a new one.
    #[arg(long)]
    pub id: Option<String>,
    /// What it is about.
    #[arg(long)]
    pub subject: Option<String>,
    /// When it happened; default: now.
    #[arg(long)]
    pub time: Option<String>,
    /// The data: JSON, or `@FILE` with JSON.
    #[arg(long, value_name = "JSON|@FILE", conflicts_with = "text")]
    pub data: Option<String>,
    /// The data as text.
    #[arg(long)]
    pub text: Option<String>,
    /// What the data are; default: JSON.
    #[arg(long, value_name = "MEDIA TYPE")]
    pub content_type: Option<String>,
    /// Another attribute; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub attribute: Vec<String>,
    /// The whole event in the CloudEvents JSON format, or `@FILE` with it; other arguments go before it.
    #[arg(long, value_name = "JSON|@FILE")]
    pub event: Option<String>,
}

/// `muster schedule …`; a workflow is `NAME`, or `NAMESPACE/NAME`.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List the schedules: what they say, when they fire next.
    List,
    /// Show one schedule.
    Get {
        /// The workflow.
        name: String,
    },
    /// Let a schedule fire no more until it is resumed; runs that it has started go on.
    Pause {
        /// The workflow.
        name: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a schedule fire again, from now on.
    Resume {
        /// The workflow.
        name: String,
    },
    /// Start a run now.
    Trigger {
        /// The workflow.
        name: String,
        /// The input: JSON, or `@FILE` with JSON.
        #[arg(long, value_name = "JSON|@FILE")]
        input: Option<String>,
        /// Your own id for the run; triggering it again with the same id is safe.
        #[arg(long)]
        id: Option<String>,
    },
    /// Start the runs for the instants of a past time; those that have fired are not started again.
    Backfill {
        /// The workflow.
        name: String,
        /// The first instant, such as 2026-03-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        from: String,
        /// After the last instant.
        #[arg(long, value_name = "TIME")]
        to: String,
        /// The input: JSON, or `@FILE` with JSON.
        #[arg(long, value_name = "JSON|@FILE")]
        input: Option<String>,
    },
}

/// Arguments of `muster workflow run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// A file, or `NAME[@VERSION]` of the catalogue.
    pub workflow: String,
    /// The input: JSON, or `@FILE` with JSON.
    #[arg(long, value_name = "JSON|@FILE")]
    pub input: Option<String>,
    /// Your own id for the run; starting it again with the same id is safe.
    #[arg(long)]
    pub id: Option<String>,
    /// The run's class; default: that of its document.
    #[arg(long, value_parser = str::parse::<Priority>, value_name = "low|normal|high|urgent")]
    pub priority: Option<Priority>,
    /// A label to search by, `KEY=VALUE`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Wait for the end and print the result; exit code 0 only when completed.
    #[arg(long)]
    pub wait: bool,
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

//! Commands about workflows and their runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use muster_workflow_dsl::document::policy::Priority;

use crate::workflow;

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

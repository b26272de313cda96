//! `muster workflow`: check, keep, run and follow workflows.

mod bulk;
mod catalogue;
mod control;
mod graph;
mod rehearsal;
mod runs;
mod search;
mod verify;
mod why;

use std::path::Path;

use clap::ValueEnum;
use muster_api::workflow::RunStatus;
use muster_workflow_dsl::problem::{Problem, Severity};
use muster_workflow_dsl::{Definition, Problems};
use serde_json::{Value, json};

use crate::cli::WorkflowCommand;
use crate::connect::Endpoints;
use crate::failure::Failure;
use crate::output::Output;
use crate::read;

pub use bulk::Action as BulkAction;
pub use catalogue::reference;
pub use graph::Picture;
pub use runs::{run_json, start_and_wait, status_name, time, time_json};
pub use search::Search;
pub use verify::Verification;

/// Largest document that is read; what the parser takes is less, and it says so with a place.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// Statuses to filter runs by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusFilter {
    /// Waits for a slot.
    Pending,
    /// Has work to do now.
    Running,
    /// Waits for time to pass.
    Waiting,
    /// Ended with an output.
    Completed,
    /// Ended with an error.
    Faulted,
    /// Ended by a caller's wish.
    Cancelled,
    /// Held by a caller's wish.
    Paused,
}

impl From<StatusFilter> for RunStatus {
    fn from(filter: StatusFilter) -> Self {
        match filter {
            StatusFilter::Pending => Self::Pending,
            StatusFilter::Running => Self::Running,
            StatusFilter::Waiting => Self::Waiting,
            StatusFilter::Completed => Self::Completed,
            StatusFilter::Faulted => Self::Faulted,
            StatusFilter::Cancelled => Self::Cancelled,
            StatusFilter::Paused => Self::Paused,
        }
    }
}

/// Runs `muster workflow …`.
pub async fn run(command: WorkflowCommand, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    match command {
        WorkflowCommand::Validate { file } => validate(&file, output),
        WorkflowCommand::Graph { file, format, save } => graph::draw(&file, format, save.as_deref(), output),
        WorkflowCommand::Test {
            file,
            cases,
            case,
            trace,
        } => rehearsal::run(&file, &cases, &case, trace, output),
        WorkflowCommand::Apply { file } => catalogue::apply(&file, endpoints, output).await,
        WorkflowCommand::List => catalogue::list(endpoints, output).await,
        WorkflowCommand::Get { name } => catalogue::get(&name, endpoints, output).await,
        WorkflowCommand::Run(arguments) => runs::start(arguments, endpoints, output).await,
        WorkflowCommand::Runs { search, limit } => runs::list(search, limit, endpoints, output).await,
        WorkflowCommand::Show { run } => runs::show(run, endpoints, output).await,
        WorkflowCommand::History { run } => runs::history(run, endpoints, output).await,
        WorkflowCommand::Watch { run } => runs::watch(run, endpoints, output).await,
        WorkflowCommand::Why { run } => why::run(run, endpoints, output).await,
        WorkflowCommand::Verify(arguments) => verify::run(arguments, endpoints, output).await,
        WorkflowCommand::Bulk(arguments) => bulk::run(arguments, endpoints, output).await,
        command => control::run(command, endpoints, output).await,
    }
}

/// Reads a document; `-` is standard input.
fn document(file: &Path) -> Result<String, Failure> {
    read::bounded_text(&file.display().to_string(), file, MAX_DOCUMENT_BYTES)
}

fn validate(file: &Path, output: &Output) -> Result<(), Failure> {
    let text = document(file)?;
    let problems = muster_workflow_dsl::check(&text);
    let errors = problems
        .as_slice()
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    if output.is_json() {
        output.json(&problems_json(file, &problems));
    } else {
        list(file, &problems, output);
        if errors == 0 {
            output.line(&format!("{}: valid", file.display()));
        }
    }
    refused(file, errors, problems.omitted())
}

/// The failure of a file with so many errors, and so many problems that are not listed; none if there are no errors.
fn refused(file: &Path, errors: usize, left_out: usize) -> Result<(), Failure> {
    let errors = match errors {
        0 => return Ok(()),
        1 => "1 error".to_owned(),
        more => format!("{more} errors"),
    };
    let more = match left_out {
        0 => String::new(),
        1 => ", and 1 more problem".to_owned(),
        more => format!(", and {more} more problems"),
    };
    Err(Failure::usage(format!("{}: {errors}{more}", file.display())))
}

/// Prints each problem, and how many are not kept.
fn list(file: &Path, problems: &Problems, output: &Output) {
    let file = file.display();
    for problem in problems {
        output.line(&format!("{file}:{problem}"));
    }
    match problems.omitted() {
        0 => {}
        more => output.line(&format!(
            "{file}: and {more} more; correct these first, and validate again"
        )),
    }
}

fn problems_json(file: &Path, problems: &Problems) -> Value {
    let listed: Vec<Value> = problems.as_slice().iter().map(problem_json).collect();
    json!({
        "file": file.display().to_string(),
        "valid": !problems.has_errors(),
        "problems": listed,
        "leftOut": problems.omitted(),
    })
}

/// Reads a document that is to be used here and not by a server; its problems are printed.
fn definition(file: &Path, output: &Output) -> Result<Definition, Failure> {
    muster_workflow_dsl::parse(&document(file)?).map_err(|problems| explained(file, &problems, output))
}

/// Prints what is wrong with a file, and makes a failure of it.
fn explained(file: &Path, problems: &Problems, output: &Output) -> Failure {
    if output.is_json() {
        output.json(&problems_json(file, problems));
    } else {
        list(file, problems, output);
    }
    let errors = problems.errors().count();
    match refused(file, errors, problems.omitted()) {
        Err(failure) => failure,
        Ok(()) => Failure::usage(format!("{}: refused", file.display())),
    }
}

fn problem_json(problem: &Problem) -> Value {
    json!({
        "severity": match problem.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "line": problem.line,
        "column": problem.column,
        "pointer": problem.pointer,
        "message": problem.message,
    })
}

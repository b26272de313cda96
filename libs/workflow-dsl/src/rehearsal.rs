//! Dry runs: a workflow is run in the pure interpreter, with answers that were written down, in a time that does not pass.
//!
//! What unit tests are to code, cases are to a workflow: each gives the input of a run and what its calls are answered, and
//! says what must come of it. Nothing is called, nothing is awaited: the clock jumps to whatever happens next, so that a case
//! in which a month goes by takes no longer than any other, and always comes out the same.
//!
//! ```yaml
//! cases:
//!   - name: rain is told
//!     input: { city: Seattle }
//!     answers:
//!       forecast: { data: { rainy: [2014-03-02] } }   # by the name of the task, or its pointer
//!     expect:
//!       output: [2014-03-02]
//! ```
//!
//! [`read()`] knows the workflow, so that a case that names a task which is not there is refused like any other slip.

mod difference;
mod stage;
mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::cloud_event::CloudEvent;
use crate::document::{Definition, Task, TaskList, Workflow};
use crate::expression::Expression;
use crate::journal::{Problem, Verdict};
use crate::problem::Problems;
use crate::run::Status;

pub use stage::{Called, Line};
pub use verdict::{Outcome, Report};

/// Largest file of cases, in bytes: that of a document.
pub const MOST_BYTES: usize = crate::node::MOST_BYTES;

/// One run to be tried.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is about; unique.
    pub name: String,
    /// Line of the file, from 1, at which it stands.
    pub line: u32,
    /// The input of the run.
    pub input: Value,
    /// When the run begins.
    pub start: Timestamp,
    /// The secrets that the operator would grant, by name.
    pub secrets: BTreeMap<String, Value>,
    /// What calls are answered: by the name or pointer of their task, one for each call in turn; the last one stays.
    pub answers: BTreeMap<String, Vec<Answer>>,
    /// What people decide of a task with a gate: by its name or pointer, once for each time it is asked; the last one stays.
    pub decisions: BTreeMap<String, Vec<Decision>>,
    /// Events that come from outside, besides those that the run emits.
    pub events: Vec<Arrival>,
    /// After which time the run is cancelled.
    pub cancel: Option<Duration>,
    /// What must come of it.
    pub expect: Expectation,
}

/// What a call is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// How long the answer takes.
    pub after: Duration,
    /// What it is.
    pub reply: Reply,
}

/// An event that comes from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// How long after the beginning it comes.
    pub after: Duration,
    /// The event.
    pub event: CloudEvent,
}

/// The answer of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The raw output of the task.
    Output(Value),
    /// The call fails.
    Failure(Problem),
    /// There never is one.
    Silence,
}

/// What somebody decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// How long they take.
    pub after: Duration,
    /// What they say.
    pub verdict: Verdict,
}

/// What must come of a run. What is left away may come out in any way, but for the status.
#[derive(Debug, Clone, Default)]
pub struct Expectation {
    /// How it ends; where an error is expected it faults, and otherwise it completes.
    pub status: Option<Status>,
    /// Its output, exactly.
    pub output: Option<Value>,
    /// What its output contains: fields and values that may stand among others.
    pub includes: Option<Value>,
    /// The fields of its error that matter.
    pub error: Option<Map<String, Value>>,
    /// Tasks that begin, in this order, others between them or not.
    pub ran: Vec<String>,
    /// Tasks that never begin.
    pub skipped: Vec<String>,
    /// What is called: by the name or pointer of the task.
    pub calls: BTreeMap<String, Calls>,
    /// How long it takes, exactly.
    pub takes: Option<Duration>,
    /// Conditions that hold of the output.
    pub that: Vec<Expression>,
}

/// What is known of the calls of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Calls {
    /// How many there are.
    Count(u64),
    /// What is asked in each, in order: fields and values that may stand among others.
    Requests(Vec<Value>),
}

/// Reads the cases of a workflow, in YAML or JSON.
///
/// # Errors
/// Everything that is wrong with them.
pub fn read(text: &str, workflow: &Workflow) -> Result<Vec<Case>, Problems> {
    crate::parse::cases(text, workflow)
}

/// Runs the cases, one after the other.
#[must_use]
pub fn run(definition: &std::sync::Arc<Definition>, cases: &[Case]) -> Report {
    let outcomes: Vec<Outcome> = cases.iter().map(|case| verdict::of(definition, case)).collect();
    let never_run = every_task(&definition.workflow)
        .into_iter()
        .map(|task| task.pointer.as_str())
        .filter(|task| !outcomes.iter().any(|outcome| outcome.began(task)))
        .map(str::to_owned)
        .collect();
    Report { outcomes, never_run }
}

/// Whether `reference`, a name or a pointer, means the task at `pointer`.
pub(crate) fn means(reference: &str, pointer: &str) -> bool {
    let name = || pointer.rsplit('/').next().unwrap_or_default();
    reference == pointer || reference == name().replace("~1", "/").replace("~0", "~")
}

/// All tasks of a workflow, those of its extensions and functions too, in the order of the document.
pub(crate) fn every_task(workflow: &Workflow) -> Vec<&Task> {
    fn gather<'w>(list: &'w TaskList, tasks: &mut Vec<&'w Task>) {
        for task in &list.tasks {
            tasks.push(task);
            for inner in task.lists() {
                gather(inner, tasks);
            }
        }
    }
    let mut tasks = Vec::new();
    let extensions = workflow.extensions.iter().flat_map(|extension| extension.lists());
    let functions = workflow.functions.iter().map(|function| &function.tasks);
    for list in std::iter::once(&workflow.tasks)
        .chain(extensions)
        .chain(functions)
    {
        gather(list, &mut tasks);
    }
    tasks
}

#[cfg(test)]
mod tests;

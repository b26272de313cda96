//! Whether what came of a run is what its case expects.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::difference::{Extent, differences, shown};
use super::stage::{Called, Line, Stage};
use super::{Calls, Case, Expectation, means};
use crate::document::Definition;
use crate::duration::spoken;
use crate::expression::Variables;
use crate::journal::{Problem, Standard};
use crate::run::Status;

/// What came of all cases.
#[derive(Debug, Clone)]
pub struct Report {
    /// One for each case, in order.
    pub outcomes: Vec<Outcome>,
    /// JSON pointers of the tasks that no case made run.
    pub never_run: Vec<String>,
}

/// What came of a case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Name of the case.
    pub name: String,
    /// What is not as expected; nothing if the case has passed.
    pub failures: Vec<String>,
    /// How the run ended, or where it stands.
    pub status: Status,
    /// Its output.
    pub output: Option<Value>,
    /// Its error.
    pub error: Option<Problem>,
    /// How long it took in its own time.
    pub took: Duration,
    /// What it called.
    pub calls: Vec<Called>,
    /// What happened.
    pub lines: Vec<Line>,
}

impl Report {
    /// Whether every case has passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.outcomes.iter().all(Outcome::passed)
    }
}

impl Outcome {
    /// Whether everything is as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Whether the task at `pointer` began.
    pub(super) fn began(&self, pointer: &str) -> bool {
        begun(&self.lines).any(|task| task == pointer)
    }
}

/// The tasks that began, in order.
fn begun(lines: &[Line]) -> impl Iterator<Item = &str> {
    let starts = lines.iter().filter(|line| line.event == "task.started");
    starts.filter_map(|line| line.task.as_deref())
}

/// Plays a case and judges it.
pub(super) fn of(definition: &Arc<Definition>, case: &Case) -> Outcome {
    let mut stage = Stage::new(definition, case);
    let played = stage.play();
    let took = stage.took();
    let mut outcome = Outcome {
        name: case.name.clone(),
        failures: Vec::new(),
        status: stage.run.status(),
        output: stage.run.output().map(|output| stage.unmarking.value(output)),
        error: stage.run.error().cloned(),
        took,
        calls: stage.calls,
        lines: stage.lines,
    };
    outcome.failures = match played {
        Err(why) => vec![why],
        Ok(()) => failures(&case.expect, &outcome, &stage.run.activity(case.start + took)),
    };
    outcome
}

fn failures(expected: &Expectation, outcome: &Outcome, activity: &[String]) -> Vec<String> {
    let mut failures = Vec::new();
    let ends = if expected.error.is_some() {
        Status::Faulted
    } else {
        Status::Completed
    };
    let ends = expected.status.unwrap_or(ends);
    if outcome.status != ends {
        let mut message = format!(
            "expected the run to be {}, but it is {}",
            name(ends),
            name(outcome.status)
        );
        if let Some(error) = &outcome.error {
            message.push_str(&format!(": {error}"));
        } else if let Some(output) = &outcome.output {
            message.push_str(&format!(" with the output {}", shown(output)));
        } else if !activity.is_empty() {
            message.push_str(&format!(": {}", activity.join("; ")));
        }
        failures.push(message);
        return failures;
    }
    let nothing = Value::Null;
    let output = outcome.output.as_ref().unwrap_or(&nothing);
    for (wanted, extent) in [
        (&expected.output, Extent::Whole),
        (&expected.includes, Extent::Part),
    ] {
        if let Some(wanted) = wanted {
            let found = differences(wanted, output, extent);
            failures.extend(found.into_iter().map(|found| format!("output: {found}")));
        }
    }
    if let (Some(wanted), Some(error)) = (&expected.error, &outcome.error) {
        failures.extend(in_error(wanted, error));
    }
    failures.extend(in_order(&expected.ran, &outcome.lines));
    for task in &expected.skipped {
        if begun(&outcome.lines).any(|begun| means(task, begun)) {
            failures.push(format!("expected '{task}' not to run, but it did"));
        }
    }
    for (task, wanted) in &expected.calls {
        failures.extend(in_calls(task, wanted, &outcome.calls));
    }
    if let Some(takes) = expected.takes.filter(|takes| *takes != outcome.took) {
        failures.push(format!(
            "expected it to take {}, but it took {}",
            spoken(takes),
            spoken(outcome.took)
        ));
    }
    for condition in &expected.that {
        match condition.is_true(output, &Variables::new(), Timestamp::UNIX_EPOCH) {
            Ok(true) => {}
            Ok(false) => failures.push(format!(
                "'{}' does not hold of the output {}",
                condition.source(),
                shown(output)
            )),
            Err(error) => failures.push(error.to_string()),
        }
    }
    failures
}

/// A type may be named as the language does, or by the last part of its URI.
fn in_error(wanted: &Map<String, Value>, error: &Problem) -> Vec<String> {
    let actual = error.to_value();
    let mut wanted = wanted.clone();
    if let Some(Value::String(kind)) = wanted.get_mut("type")
        && let Some(standard) = Standard::by_name(kind)
    {
        *kind = standard.uri();
    }
    let found = differences(&Value::Object(wanted), &actual, Extent::Part);
    found.into_iter().map(|found| format!("error: {found}")).collect()
}

fn in_order(wanted: &[String], lines: &[Line]) -> Option<String> {
    let mut order = begun(lines);
    let mut before: Option<&String> = None;
    for task in wanted {
        if !order.any(|begun| means(task, begun)) {
            let all: Vec<&str> = begun(lines).take(50).collect();
            let all = if all.is_empty() {
                "none".to_owned()
            } else {
                all.join(", ")
            };
            let place = before.map_or_else(String::new, |before| format!(" after '{before}'"));
            return Some(format!("expected '{task}' to run{place}; what ran: {all}"));
        }
        before = Some(task);
    }
    None
}

fn in_calls(task: &str, wanted: &Calls, calls: &[Called]) -> Vec<String> {
    let made: Vec<&Called> = calls.iter().filter(|call| means(task, &call.task)).collect();
    let count = match wanted {
        Calls::Count(count) => *count,
        Calls::Requests(requests) => requests.len() as u64,
    };
    if made.len() as u64 != count {
        return vec![format!(
            "expected '{task}' to make {count} calls, but it made {}",
            made.len()
        )];
    }
    let Calls::Requests(requests) = wanted else {
        return Vec::new();
    };
    let pairs = requests.iter().zip(made).enumerate();
    pairs
        .flat_map(|(index, (wanted, made))| {
            let found = differences(wanted, &made.request, Extent::Part);
            found
                .into_iter()
                .map(move |found| format!("call {} of '{task}': {found}", index + 1))
        })
        .collect()
}

/// The name of a status in a file of cases.
pub(crate) fn name(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Running => "running",
        Status::Completed => "completed",
        Status::Faulted => "faulted",
        Status::Cancelled => "cancelled",
    }
}

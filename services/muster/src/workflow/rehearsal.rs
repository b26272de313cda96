//! `muster workflow test`: a document tried against cases, without any server.

use std::path::Path;
use std::sync::Arc;

use muster_workflow_dsl::rehearsal::{self, Case, Outcome, Report};
use muster_workflow_dsl::run::Status;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::Output;

/// `muster workflow test FILE CASES`
pub fn run(file: &Path, cases: &Path, only: &[String], trace: bool, output: &Output) -> Result<(), Failure> {
    let definition = Arc::new(super::definition(file, output)?);
    let text = super::document(cases)?;
    let read = rehearsal::read(&text, &definition.workflow);
    let all = read.map_err(|problems| super::explained(cases, &problems, output))?;
    let chosen = choose(all, only, cases)?;
    let report = rehearsal::run(&definition, &chosen);
    let failed = report.outcomes.iter().filter(|outcome| !outcome.passed()).count();
    // With a choice of cases, what the others run is not known.
    let never_run: &[String] = if only.is_empty() { &report.never_run } else { &[] };
    if output.is_json() {
        output.json(&report_json(file, cases, &report, never_run, trace));
    } else {
        for (outcome, case) in report.outcomes.iter().zip(&chosen) {
            tell(outcome, case, cases, trace, output);
        }
        for task in never_run {
            output.line(&format!("no case runs {task}"));
        }
        output.line(&format!(
            "{} passed, {failed} failed",
            report.outcomes.len() - failed
        ));
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::failed("1 case failed")),
        more => Err(Failure::failed(format!("{more} cases failed"))),
    }
}

fn choose(all: Vec<Case>, only: &[String], file: &Path) -> Result<Vec<Case>, Failure> {
    if let Some(unknown) = only
        .iter()
        .find(|name| !all.iter().any(|case| case.name == **name))
    {
        let names = all.iter().map(|case| case.name.as_str());
        let nearest = muster_api::names::suggestion(unknown, names);
        let message = format!("{} has no case '{unknown}'{nearest}", file.display());
        return Err(Failure::usage(message));
    }
    let chosen = |case: &Case| only.is_empty() || only.contains(&case.name);
    Ok(all.into_iter().filter(chosen).collect())
}

fn tell(outcome: &Outcome, case: &Case, file: &Path, trace: bool, output: &Output) {
    let verdict = if outcome.passed() { "ok  " } else { "FAIL" };
    let took = outcome.took.as_secs_f64();
    output.line(&format!(
        "{verdict} {} ({}, {} calls, {took} s in its own time)",
        outcome.name,
        status_name(outcome.status),
        outcome.calls.len()
    ));
    for failure in &outcome.failures {
        output.line(&format!("     {failure}"));
    }
    if !outcome.passed() {
        output.line(&format!("     at {}:{}", file.display(), case.line));
    }
    if trace {
        for line in &outcome.lines {
            let task = line.task.as_deref().unwrap_or_default();
            output.line(&format!(
                "     {:>10.3} s  {:18} {task}",
                line.after.as_secs_f64(),
                line.event
            ));
        }
    }
}

fn report_json(file: &Path, cases: &Path, report: &Report, never_run: &[String], trace: bool) -> Value {
    let outcomes: Vec<Value> = report
        .outcomes
        .iter()
        .map(|outcome| outcome_json(outcome, trace))
        .collect();
    json!({
        "file": file.display().to_string(),
        "cases": cases.display().to_string(),
        "passed": report.passed(),
        "outcomes": outcomes,
        "neverRun": never_run,
    })
}

fn outcome_json(outcome: &Outcome, trace: bool) -> Value {
    let calls = outcome.calls.iter();
    let calls: Vec<Value> = calls
        .map(|call| json!({"task": &*call.task, "request": call.request}))
        .collect();
    let mut value = json!({
        "name": outcome.name,
        "passed": outcome.passed(),
        "failures": outcome.failures,
        "status": status_name(outcome.status),
        "output": outcome.output,
        "error": outcome.error.as_ref().map(|error| error.to_value()),
        "seconds": outcome.took.as_secs_f64(),
        "calls": calls,
    });
    if trace {
        let lines = outcome.lines.iter();
        value["events"] = lines
            .map(|line| json!({"seconds": line.after.as_secs_f64(), "type": line.event, "task": line.task.as_deref()}))
            .collect();
    }
    value
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Running => "running",
        Status::Completed => "completed",
        Status::Faulted => "faulted",
        Status::Cancelled => "cancelled",
    }
}

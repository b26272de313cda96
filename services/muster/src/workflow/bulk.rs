//! One thing done to every run that a search finds.

use clap::ValueEnum;
use muster_api::workflow::{BulkAction, BulkOutcome, BulkRunsRequest, ListRunsRequest, RunStatus};
use serde_json::{Value, json};

use super::control::who;
use super::runs::status_name;
use crate::cli::BulkArguments;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// What to do to each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// End in good order: handlers and compensations run.
    Cancel,
    /// End at once.
    Terminate,
    /// Hold.
    Pause,
    /// Let go on.
    Resume,
    /// Go on from the task that failed.
    Retry,
    /// Forget.
    Delete,
    /// Erase what people and agents have said.
    Erase,
}

impl From<Action> for BulkAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Cancel => Self::Cancel,
            Action::Terminate => Self::Terminate,
            Action::Pause => Self::Pause,
            Action::Resume => Self::Resume,
            Action::Retry => Self::Retry,
            Action::Delete => Self::Delete,
            Action::Erase => Self::Erase,
        }
    }
}

/// `muster workflow bulk ACTION`
pub async fn run(arguments: BulkArguments, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = endpoints.engine()?;
    let by = who(arguments.by);
    let search = arguments.search.request()?;
    let mut page_token = String::new();
    let mut outcomes: Vec<BulkOutcome> = Vec::new();
    loop {
        let request = BulkRunsRequest {
            action: BulkAction::from(arguments.action).into(),
            search: Some(ListRunsRequest {
                page_size: 100,
                page_token,
                ..search.clone()
            }),
            reason: arguments.reason.clone(),
            by: by.clone(),
            dry_run: arguments.dry_run,
        };
        let page = client
            .bulk_runs(request)
            .await
            .map_err(|status| endpoints.failure(Service::Engine, &status))?
            .into_inner();
        if !output.is_json() {
            page.outcomes
                .iter()
                .for_each(|outcome| output.line(&line(outcome)));
        }
        outcomes.extend(page.outcomes);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.done).count();
    let done = outcomes.len() - failed;
    if output.is_json() {
        let outcomes: Vec<Value> = outcomes.iter().map(outcome_json).collect();
        output.json(&json!({"dryRun": arguments.dry_run, "done": done, "failed": failed, "runs": outcomes}));
    } else {
        let what = if arguments.dry_run { "found" } else { "done" };
        output.line(&format!("{done} {what}, {failed} refused"));
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::failed(format!(
            "{failed} of {} runs refused",
            outcomes.len()
        ))),
    }
}

fn line(outcome: &BulkOutcome) -> String {
    match outcome.done {
        true => format!("{}  {}", outcome.run_id, status(outcome).unwrap_or("deleted")),
        false => format!("{}  {}: {}", outcome.run_id, outcome.reason, outcome.message),
    }
}

/// Where the run stands; nothing of one that is gone, or was refused.
fn status(outcome: &BulkOutcome) -> Option<&'static str> {
    match outcome.status() {
        RunStatus::Unspecified => None,
        status => Some(status_name(status)),
    }
}

fn outcome_json(outcome: &BulkOutcome) -> Value {
    json!({
        "id": outcome.run_id,
        "done": outcome.done,
        "status": status(outcome),
        "reason": (!outcome.done).then_some(&outcome.reason),
        "message": (!outcome.done).then_some(&outcome.message),
    })
}

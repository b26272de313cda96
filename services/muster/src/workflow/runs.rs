//! Runs: start, list, show, history, watch.

use std::path::Path;

use muster_api::workflow::{
    Compensation, GetHistoryRequest, GetRunRequest, HistoryEvent, Run, RunPriority, RunStatus,
    StartRunRequest, WatchRunRequest, start_run_request, watch_run_response,
};
use muster_workflow_dsl::document::policy::Priority;
use serde_json::{Value, json};

use super::search::Search;
use crate::cli::RunArguments;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;
use crate::output::listing::Listing;
use crate::send::json_argument;

/// `muster workflow run`
pub async fn start(arguments: RunArguments, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let input_json = match &arguments.input {
        Some(text) => json_argument("--input", text)?.to_string(),
        None => String::new(),
    };
    let request = StartRunRequest {
        run_id: arguments.id.unwrap_or_default(),
        source: Some(source(&arguments.workflow)?),
        input_json,
        priority: arguments
            .priority
            .map_or(RunPriority::Unspecified, priority)
            .into(),
        labels: arguments
            .label
            .iter()
            .map(|label| self::label(label))
            .collect::<Result<_, _>>()?,
        hears_from: None,
    };
    let run = started(request, endpoints).await?;
    if !arguments.wait {
        if output.is_json() {
            output.json(&json!({"id": run.run_id, "status": status_name(run.status())}));
        } else {
            output.line(&format!("run {}: {}", run.run_id, status_name(run.status())));
        }
        return Ok(());
    }
    let run = wait(&run.run_id, endpoints, |event| {
        if !output.is_json() {
            output.line(&event_line(event));
        }
    })
    .await?;
    print(&run, output)?;
    outcome(&run)
}

fn label(text: &str) -> Result<(String, String), Failure> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("--label: '{text}' is not KEY=VALUE")))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn priority(priority: Priority) -> RunPriority {
    match priority {
        Priority::Low => RunPriority::Low,
        Priority::Normal => RunPriority::Normal,
        Priority::High => RunPriority::High,
        Priority::Urgent => RunPriority::Urgent,
    }
}

/// What a run was, for callers that print it in their own way.
pub struct RunView {
    /// The run as it ended.
    pub run: Run,
    /// Its journal.
    pub events: Vec<HistoryEvent>,
}

/// Starts a document and waits for the end, telling `on_event` what happens.
pub async fn start_and_wait(
    document: &str,
    input: &Value,
    endpoints: &Endpoints,
    mut on_event: impl FnMut(&HistoryEvent),
) -> Result<RunView, Failure> {
    let request = StartRunRequest {
        run_id: String::new(),
        source: Some(start_run_request::Source::Document(document.to_owned())),
        input_json: input.to_string(),
        ..StartRunRequest::default()
    };
    let run = started(request, endpoints).await?;
    let mut events = Vec::new();
    let run = wait(&run.run_id, endpoints, |event| {
        on_event(event);
        events.push(event.clone());
    })
    .await?;
    Ok(RunView { run, events })
}

/// A path that exists or looks like one is a file; anything else is a name in the catalogue.
fn source(workflow: &str) -> Result<start_run_request::Source, Failure> {
    let path = Path::new(workflow);
    let looks_like_file = workflow == "-"
        || path
            .extension()
            .is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|e| ending == *e));
    if looks_like_file || path.is_file() {
        return Ok(start_run_request::Source::Document(super::document(path)?));
    }
    Ok(start_run_request::Source::Workflow(super::catalogue::reference(
        workflow,
    )))
}

async fn started(request: StartRunRequest, endpoints: &Endpoints) -> Result<Run, Failure> {
    endpoints
        .engine()?
        .start_run(request)
        .await
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .into_inner()
        .run
        .ok_or_else(|| Failure::failed("the engine answered without a run"))
}

/// Follows a run to its end.
async fn wait(
    run_id: &str,
    endpoints: &Endpoints,
    mut on_event: impl FnMut(&HistoryEvent),
) -> Result<Run, Failure> {
    let request = WatchRunRequest {
        run_id: run_id.to_owned(),
        after_index: None,
    };
    let failure = |status: &tonic::Status| {
        let failure = endpoints.failure(Service::Engine, status);
        match status.code() {
            tonic::Code::NotFound => failure,
            _ => failure.with_remedy(format!(
                "the run goes on; see it again with `muster workflow show {run_id}`"
            )),
        }
    };
    let mut updates = endpoints
        .engine()?
        .watch_run(request)
        .await
        .map_err(|status| failure(&status))?
        .into_inner();
    while let Some(update) = updates.message().await.map_err(|status| failure(&status))? {
        match update.update {
            Some(watch_run_response::Update::Event(event)) => on_event(&event),
            Some(watch_run_response::Update::Ended(run)) => return Ok(run),
            None => {}
        }
    }
    Err(
        Failure::unavailable(format!("the engine stopped telling about run {run_id}")).with_remedy(format!(
            "the run goes on; see it again with `muster workflow show {run_id}`"
        )),
    )
}

/// `muster workflow runs`
pub async fn list(search: Search, limit: u32, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = endpoints.engine()?;
    let mut request = search.request()?;
    let Listing { entries: runs, more } = Listing::gather(limit, async |page_size, page_token| {
        request.page_size = page_size;
        request.page_token = page_token;
        let page = client
            .list_runs(request.clone())
            .await
            .map_err(|status| endpoints.failure(Service::Engine, &status))?
            .into_inner();
        Ok((page.runs, page.next_page_token))
    })
    .await?;
    if output.is_json() {
        let listed: Vec<Value> = runs.iter().map(run_json).collect();
        output.json(&json!({"runs": listed, "more": more}));
    } else if runs.is_empty() {
        output.line("no runs");
    } else {
        let rows = runs
            .iter()
            .map(|run| {
                [
                    run.run_id.clone(),
                    format!("{}@{}", run.name, run.version),
                    status_name(run.status()).to_owned(),
                    time(run.created_at.as_ref()),
                    time(run.ended_at.as_ref()),
                ]
            })
            .collect();
        output.table(["RUN", "WORKFLOW", "STATUS", "CREATED", "ENDED"], rows);
        if more {
            output.line("there are more; `--limit` shows them");
        }
    }
    Ok(())
}

/// `muster workflow show RUN`
pub async fn show(run_id: String, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let run = endpoints
        .engine()?
        .get_run(GetRunRequest { run_id })
        .await
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .into_inner()
        .run
        .ok_or_else(|| Failure::failed("the engine answered without a run"))?;
    print(&run, output)
}

/// `muster workflow history RUN`
pub async fn history(run_id: String, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = endpoints.engine()?;
    let mut page_token = String::new();
    loop {
        let request = GetHistoryRequest {
            run_id: run_id.clone(),
            page_size: 100,
            page_token,
        };
        let page = client
            .get_history(request)
            .await
            .map_err(|status| endpoints.failure(Service::Engine, &status))?
            .into_inner();
        for event in &page.events {
            if output.is_json() {
                output.json_line(&event_json(event));
            } else {
                output.line(&event_line(event));
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        page_token = page.next_page_token;
    }
}

/// `muster workflow watch RUN`
pub async fn watch(run_id: String, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let run = wait(&run_id, endpoints, |event| {
        if output.is_json() {
            output.json_line(&event_json(event));
        } else {
            output.line(&event_line(event));
        }
    })
    .await?;
    if output.is_json() {
        output.json_line(&run_json(&run))
    } else {
        print(&run, output)?
    }
    outcome(&run)
}

fn outcome(run: &Run) -> Result<(), Failure> {
    match run.status() {
        RunStatus::Completed => Ok(()),
        other => {
            let detail = run
                .error
                .as_ref()
                .map(|e| format!(": {} ({})", e.detail, e.instance))
                .unwrap_or_default();
            Err(Failure::failed(format!(
                "run {} {}{detail}",
                run.run_id,
                status_name(other)
            )))
        }
    }
}

pub(super) fn print(run: &Run, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        output.json(&run_json(run));
        return Ok(());
    }
    output.line(&format!(
        "run {}  {}@{}  {}",
        run.run_id,
        run.name,
        run.version,
        status_name(run.status())
    ));
    output.line(&format!(
        "  created {}  ended {}",
        time(run.created_at.as_ref()),
        time(run.ended_at.as_ref())
    ));
    if let Some(parent) = &run.parent {
        output.line(&format!("  started by run {} at {}", parent.run_id, parent.task));
    }
    for line in &run.activity {
        output.line(&format!("  now: {line}"));
    }
    if let Some(Compensation { done, failed, left }) = &run.compensation {
        for task in done {
            output.line(&format!("  compensated {task}"));
        }
        for failure in failed {
            let detail = failure
                .error
                .as_ref()
                .map(|error| error.detail.as_str())
                .unwrap_or_default();
            output.line(&format!("  not compensated {}: {detail}", failure.task));
        }
        for task in left {
            output.line(&format!("  to compensate {task}"));
        }
    }
    if run.erased_at.is_some() {
        let at = time(run.erased_at.as_ref());
        output.line(&format!(
            "  what people and agents have said was erased {at} by {}",
            run.erased_by
        ));
    }
    if let Some(error) = &run.error {
        output.line(&format!(
            "  error {}: {} {}",
            error.instance, error.title, error.detail
        ));
        output.line(&format!("  type {}", error.r#type));
    }
    if !run.output_json.is_empty() {
        let value: Value = serde_json::from_str(&run.output_json).map_err(|error| {
            Failure::failed(format!("the engine sent an output that is not JSON: {error}"))
        })?;
        output.json(&value);
    }
    Ok(())
}

/// A run's status as the command line writes it.
pub fn status_name(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Unspecified => "unknown",
        RunStatus::Pending => "pending",
        RunStatus::Running => "running",
        RunStatus::Waiting => "waiting",
        RunStatus::Completed => "completed",
        RunStatus::Faulted => "faulted",
        RunStatus::Cancelled => "cancelled",
        RunStatus::Paused => "paused",
    }
}

/// A run as JSON: the same object for `--wait`, `show` and `watch`.
pub fn run_json(run: &Run) -> Value {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    let error = run.error.as_ref().map(|error| {
        json!({"type": error.r#type, "status": error.status, "instance": error.instance, "title": error.title, "detail": error.detail})
    });
    json!({
        "id": run.run_id,
        "workflow": {"namespace": run.namespace, "name": run.name, "version": run.version, "digest": run.digest},
        "status": status_name(run.status()),
        "input": parse(&run.input_json),
        "output": parse(&run.output_json),
        "error": error,
        "createdAt": time_json(run.created_at.as_ref()),
        "startedAt": time_json(run.started_at.as_ref()),
        "endedAt": time_json(run.ended_at.as_ref()),
        "historyLength": run.history_length,
        "firstEntry": run.first_entry,
        "erased": run.erased_at.as_ref().map(|at| json!({"at": time_json(Some(at)), "by": run.erased_by})),
        "labels": run.labels,
        "forkedFrom": (!run.forked_from.is_empty()).then_some(&run.forked_from),
        "retries": run.retries,
        "pausedBy": (!run.paused_by.is_empty()).then_some(&run.paused_by),
        "compensation": run.compensation.as_ref().map(compensation_json),
        "activity": run.activity,
        "usage": run.usage.map(|usage| json!({"tokens": usage.tokens, "cost": usage.cost})),
        "parent": run.parent.as_ref().map(|parent| {
            json!({"id": parent.run_id, "task": parent.task, "awaited": parent.awaited})
        }),
        "scheduledAt": time_json(run.scheduled_at.as_ref()),
    })
}

fn compensation_json(report: &Compensation) -> Value {
    let failed = report.failed.iter().map(|failure| {
        let error = failure.error.clone().unwrap_or_default();
        json!({"task": failure.task, "type": error.r#type, "detail": error.detail})
    });
    json!({"done": report.done, "failed": failed.collect::<Vec<_>>(), "left": report.left})
}

fn event_json(event: &HistoryEvent) -> Value {
    json!({
        "index": event.index,
        "time": time_json(event.time.as_ref()),
        "type": event.r#type,
        "task": event.task,
        "data": serde_json::from_str::<Value>(&event.data_json).unwrap_or(Value::Null),
    })
}

fn event_line(event: &HistoryEvent) -> String {
    format!(
        "{}  {:<18} {}",
        time(event.time.as_ref()),
        event.r#type,
        event.task
    )
}

/// A time as JSON has it.
pub fn time_json(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.and_then(muster_api::time::from_proto)
        .map(muster_api::time::rfc3339)
}

/// A time for people; a dash when there is none.
pub fn time(time: Option<&prost_types::Timestamp>) -> String {
    time_json(time).unwrap_or_else(|| "–".to_owned())
}

//! Between the wire's types and ours; what cannot be is refused with its field.

use jiff::Timestamp;
use muster_api::time::to_proto;
use muster_api::workflow as proto;
use muster_workflow_dsl::document::policy::Priority;
use muster_workflow_dsl::run::Blocker;
use muster_workflow_dsl::usage;
use muster_workflow_dsl::{Problem, Problems, Severity};
use serde_json::Value;

use crate::catalogue::Reference;
use crate::engine::{Doing, Source, StartRun, View};
use crate::error::Error;
use crate::history;
use crate::run::{Entry, Failure, Origin, RunId, Status, Summary};
use crate::schedule::NamespaceCounts;
use crate::store::Workflow;
use crate::watching::Update;

pub(super) fn run_id(text: &str) -> Result<RunId, Error> {
    text.parse()
        .map_err(|error: crate::run::InvalidId| Error::field("run_id", error.to_string()))
}

pub(super) fn start(request: proto::StartRunRequest, most_bytes: usize) -> Result<StartRun, Error> {
    let proto::StartRunRequest {
        run_id,
        source,
        input_json,
        priority,
        labels,
        hears_from,
    } = request;
    let id = if run_id.is_empty() {
        None
    } else {
        Some(self::run_id(&run_id)?)
    };
    let source = match source {
        Some(proto::start_run_request::Source::Document(document)) => Source::Document(document),
        Some(proto::start_run_request::Source::Workflow(reference)) => {
            let proto::WorkflowReference {
                namespace,
                name,
                version,
            } = reference;
            Source::Catalogue(Reference {
                namespace,
                name,
                version,
            })
        }
        None => {
            return Err(Error::field(
                "source",
                "is missing; give 'workflow' or 'document'",
            ));
        }
    };
    Ok(StartRun {
        id,
        source,
        input: input(&input_json, most_bytes)?,
        priority: self::priority(priority)?,
        labels: labels.into_iter().collect(),
        hears_from,
        origin: None,
        caller: None,
    })
}

fn priority(number: i32) -> Result<Option<Priority>, Error> {
    match proto::RunPriority::try_from(number) {
        Ok(proto::RunPriority::Unspecified) => Ok(None),
        Ok(proto::RunPriority::Low) => Ok(Some(Priority::Low)),
        Ok(proto::RunPriority::Normal) => Ok(Some(Priority::Normal)),
        Ok(proto::RunPriority::High) => Ok(Some(Priority::High)),
        Ok(proto::RunPriority::Urgent) => Ok(Some(Priority::Urgent)),
        Err(_) => Err(Error::field(
            "priority",
            format!("is {number}, which is none of low (1), normal (2), high (3), urgent (4)"),
        )),
    }
}

fn priority_to_proto(priority: Priority) -> proto::RunPriority {
    match priority {
        Priority::Low => proto::RunPriority::Low,
        Priority::Normal => proto::RunPriority::Normal,
        Priority::High => proto::RunPriority::High,
        Priority::Urgent => proto::RunPriority::Urgent,
    }
}

/// What an engine does.
pub(super) fn doing(doing: Doing) -> proto::GetStatusResponse {
    let Doing {
        counts,
        namespaces,
        totals,
    } = doing;
    proto::GetStatusResponse {
        running: counts.running as u64,
        pending: counts.pending as u64,
        waiting: counts.waiting as u64,
        max_concurrent: counts.slots as u64,
        completed_total: totals.completed,
        faulted_total: totals.faulted,
        cancelled_total: totals.cancelled,
        namespaces: namespaces.into_iter().map(namespace).collect(),
        engines: 1,
    }
}

/// Adds what another engine does. What bounds a namespace, bounds it in each engine.
pub(super) fn add(status: &mut proto::GetStatusResponse, other: proto::GetStatusResponse) {
    status.running += other.running;
    status.pending += other.pending;
    status.waiting += other.waiting;
    status.max_concurrent += other.max_concurrent;
    status.completed_total += other.completed_total;
    status.faulted_total += other.faulted_total;
    status.cancelled_total += other.cancelled_total;
    status.engines += other.engines;
    for namespace in other.namespaces {
        let mut known = status.namespaces.iter_mut();
        match known.find(|known| known.namespace == namespace.namespace) {
            Some(known) => {
                known.running += namespace.running;
                known.pending += namespace.pending;
                known.max_concurrent += namespace.max_concurrent;
                known.max_pending += namespace.max_pending;
            }
            None => status.namespaces.push(namespace),
        }
    }
    status
        .namespaces
        .sort_by(|one, other| one.namespace.cmp(&other.namespace));
}

pub(super) fn namespace(counts: NamespaceCounts) -> proto::NamespaceStatus {
    // What is unbounded is 0, as in the settings.
    let bound = |most: usize| if most == usize::MAX { 0 } else { most as u64 };
    proto::NamespaceStatus {
        namespace: counts.namespace.to_string(),
        weight: counts.share.weight,
        running: counts.running as u64,
        pending: counts.pending as u64,
        max_concurrent: bound(counts.share.most_slots),
        max_pending: bound(counts.share.most_pending),
    }
}

pub(super) fn input(text: &str, most_bytes: usize) -> Result<Value, Error> {
    if text.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    if text.len() > most_bytes {
        let bytes = text.len();
        let message =
            format!("has {bytes} bytes, and at most {most_bytes} are taken ('engine.max_payload_bytes')");
        return Err(Error::field("input_json", message));
    }
    serde_json::from_str(text).map_err(|error| Error::field("input_json", format!("is not JSON: {error}")))
}

pub(super) fn problems(problems: &Problems) -> Vec<proto::Problem> {
    problems.into_iter().map(problem).collect()
}

fn problem(problem: &Problem) -> proto::Problem {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    proto::Problem {
        severity: severity.to_owned(),
        line: problem.line,
        column: problem.column,
        pointer: problem.pointer.clone(),
        message: problem.message.clone(),
    }
}

pub(super) fn workflow(workflow: Workflow, document: String) -> proto::Workflow {
    proto::Workflow {
        namespace: workflow.key.namespace,
        name: workflow.key.name,
        version: workflow.key.version,
        digest: workflow.digest,
        document,
        applied_at: Some(to_proto(workflow.applied_at)),
        title: workflow.title,
    }
}

pub(super) fn view(view: View) -> proto::Run {
    let View {
        summary,
        input,
        output,
        activity,
    } = view;
    proto::Run {
        input_json: input.to_string(),
        output_json: output.map(|output| output.to_string()).unwrap_or_default(),
        activity,
        ..self::summary(summary)
    }
}

pub(super) fn summary(run: Summary) -> proto::Run {
    let time = |time: Option<Timestamp>| time.map(to_proto);
    let first_entry = run.first_entry();
    let (erased_at, erased_by) = run.marks.erased.map(|erased| (erased.at, erased.by)).unzip();
    proto::Run {
        first_entry,
        erased_at: time(erased_at),
        erased_by: erased_by.unwrap_or_default(),
        run_id: run.id.into(),
        namespace: run.namespace,
        name: run.name,
        version: run.version,
        digest: run.digest,
        status: status(run.status).into(),
        input_json: String::new(),
        output_json: String::new(),
        error: run.failure.map(failure),
        created_at: time(Some(run.created_at)),
        started_at: time(run.started_at),
        ended_at: time(run.ended_at),
        history_length: run.history_length,
        activity: Vec::new(),
        priority: priority_to_proto(run.claim.priority).into(),
        parent: match &run.origin {
            Some(Origin::Run(parent)) => Some(proto::ParentRun {
                run_id: parent.run.to_string(),
                task: parent.task.clone(),
                awaited: parent.awaited,
            }),
            Some(Origin::Schedule { .. }) | None => None,
        },
        scheduled_at: match run.origin {
            Some(Origin::Schedule { scheduled_at }) => Some(to_proto(scheduled_at)),
            Some(Origin::Run(_)) | None => None,
        },
        labels: run.marks.labels.into_iter().collect(),
        forked_from: run
            .marks
            .forked
            .map(|forked| forked.run.into())
            .unwrap_or_default(),
        retries: run.marks.retries,
        compensation: run.marks.compensation.map(super::control::compensation),
        paused_by: run.marks.paused_by.unwrap_or_default(),
        usage: Some(proto::Usage {
            tokens: run.spent.tokens,
            cost: usage::money(run.spent.cost_micros),
        }),
    }
}

pub(super) fn failure(failure: Failure) -> proto::RunError {
    proto::RunError {
        r#type: failure.kind,
        status: i32::from(failure.status),
        instance: failure.instance,
        title: failure.title,
        detail: failure.detail,
    }
}

pub(super) fn status(status: Status) -> proto::RunStatus {
    match status {
        Status::Pending => proto::RunStatus::Pending,
        Status::Running => proto::RunStatus::Running,
        Status::Waiting => proto::RunStatus::Waiting,
        Status::Completed => proto::RunStatus::Completed,
        Status::Faulted => proto::RunStatus::Faulted,
        Status::Cancelled => proto::RunStatus::Cancelled,
        Status::Paused => proto::RunStatus::Paused,
    }
}

pub(super) fn entry(entry: Entry) -> Result<proto::HistoryEvent, Error> {
    let index = entry.index;
    let line = history::line(entry)?;
    Ok(proto::HistoryEvent {
        index,
        time: Some(to_proto(line.time)),
        r#type: line.kind,
        task: line.task,
        data_json: line.data,
    })
}

pub(super) fn blocker(blocker: Blocker) -> proto::Blocker {
    proto::Blocker {
        kind: blocker.kind.name().to_owned(),
        task: blocker.task.map(|task| task.to_string()).unwrap_or_default(),
        message: blocker.message,
        since: blocker.since.map(to_proto),
        until: blocker.until.map(to_proto),
        details_json: Value::Object(blocker.details).to_string(),
    }
}

pub(super) fn update(update: Update) -> Result<proto::WatchRunResponse, Error> {
    let update = match update {
        Update::Entry(entry) => proto::watch_run_response::Update::Event(self::entry(entry)?),
        Update::Ended(view) => proto::watch_run_response::Update::Ended(self::view(*view)),
    };
    Ok(proto::WatchRunResponse { update: Some(update) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(run_id: &str, input_json: &str) -> proto::StartRunRequest {
        let source = Some(proto::start_run_request::Source::Document("a".into()));
        proto::StartRunRequest {
            run_id: run_id.into(),
            source,
            input_json: input_json.into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_empty_input_is_an_empty_object_and_an_empty_id_is_none() {
        let wish = start(request("", ""), 100).unwrap();
        assert_eq!((wish.id, wish.input), (None, json!({})));
        assert_eq!(start(request("r", "[1]"), 100).unwrap().input, json!([1]));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        let refused = |request| match start(request, 10) {
            Err(Error::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(request("a b", "")), "run_id");
        assert_eq!(refused(request("", "{")), "input_json");
        assert_eq!(refused(request("", "\"01234567890\"")), "input_json");
        assert_eq!(
            refused(proto::StartRunRequest {
                source: None,
                ..request("", "")
            }),
            "source"
        );
    }
}

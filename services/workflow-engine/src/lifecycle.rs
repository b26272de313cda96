//! What becomes of runs and tasks, as CloudEvents after the language's own definitions.
//!
//! They become durable with the entries of the journal that they tell of, so that none is lost and none is told twice. They go
//! into the same log as all events; a filter hears them only where it names what it wants.

use jiff::Timestamp;
use muster_workflow_dsl::cloud_event::CloudEvent;
use muster_workflow_dsl::hearing::LIFECYCLE;
use muster_workflow_dsl::journal::{Event, EventKind, Problem};
use muster_workflow_dsl::run::{InProgress, Observation};
use serde_json::{Value, json};

use crate::config::Lifecycle;
use crate::run::Summary;

/// Largest output that is told, as JSON in bytes; larger ones are left away.
const LARGEST_OUTPUT: usize = 16 << 10;

/// What an entry of a run's journal is to the world, where nothing else is known of it. `output` is what the run ended with.
pub(crate) fn events(
    level: Lifecycle,
    run: &Summary,
    event: &Event,
    output: Option<&Value>,
) -> Vec<CloudEvent> {
    observed(level, run, event, output, &Observation::default())
}

/// What an entry of a run's journal is to the world, with what it brought with it.
pub(crate) fn observed(
    level: Lifecycle,
    run: &Summary,
    event: &Event,
    output: Option<&Value>,
    seen: &Observation,
) -> Vec<CloudEvent> {
    let teller = Teller { run, event, seen };
    match level {
        Lifecycle::None => Vec::new(),
        Lifecycle::Workflows => teller.of_run(output),
        Lifecycle::Tasks => {
            let mut events = teller.of_ended();
            events.extend(teller.of_run(output));
            events.extend(teller.of_open());
            events.extend(teller.of_task());
            events
        }
    }
}

struct Teller<'a> {
    run: &'a Summary,
    event: &'a Event,
    seen: &'a Observation,
}

/// Whom an event is about.
#[derive(Clone, Copy)]
enum Subject<'a> {
    /// The run.
    Workflow,
    /// The task that the entry names.
    Task(&'a str),
    /// Another task, of which one entry may tell several.
    Other(&'a InProgress),
}

impl Teller<'_> {
    fn of_run(&self, output: Option<&Value>) -> Vec<CloudEvent> {
        let time = time(self.event.time);
        let run = Subject::Workflow;
        match &self.event.kind {
            EventKind::RunStarted { .. } => self.started(),
            // One that begins at the beginning is started like any other.
            EventKind::RunForked { task: Some(_), .. } => self.started(),
            EventKind::RunPaused { .. } => {
                self.changed(run, "suspended", "suspended", json!({"suspendedAt": time}))
            }
            // A run that goes on after it has ended is the same instance, so it is resumed, and not started, again.
            EventKind::RunResumed { .. } | EventKind::RunRetried { .. } => {
                self.changed(run, "resumed", "running", json!({"resumedAt": time}))
            }
            EventKind::RunCompleted { .. } => {
                let mut data = json!({"completedAt": time});
                if let Some(output) = output.filter(|output| is_small(output)) {
                    data["output"] = output.clone();
                }
                self.changed(run, "completed", "completed", data)
            }
            EventKind::RunFaulted { error } => {
                let data = json!({"faultedAt": time, "error": error.to_value()});
                self.changed(run, "faulted", "faulted", data)
            }
            EventKind::RunCancelled { .. } => {
                self.changed(run, "cancelled", "cancelled", json!({"cancelledAt": time}))
            }
            EventKind::ListenStarted { .. } => {
                self.one(run, "correlation-started", json!({"startedAt": time}))
            }
            EventKind::EventConsumed { done: true, .. } | EventKind::ItemCompleted { done: true, .. } => {
                let data = json!({"completedAt": time, "correlationKeys": self.seen.correlations});
                self.one(run, "correlation-completed", data)
            }
            _ => Vec::new(),
        }
    }

    fn of_task(&self) -> Vec<CloudEvent> {
        let Some(task) = self.event.task().map(Subject::Task) else {
            return Vec::new();
        };
        let time = time(self.event.time);
        match &self.event.kind {
            EventKind::TaskStarted { .. } => {
                let mut events = self.one(task, "created", json!({"createdAt": time.clone()}));
                events.extend(self.changed(task, "started", "running", json!({"startedAt": time})));
                events
            }
            EventKind::TaskRetried { .. } => self.one(task, "retried", json!({"retriedAt": time})),
            EventKind::TaskFaulted { .. } if self.seen.cancelled => self.cancelled(task),
            EventKind::TaskFaulted { error, .. } => {
                let data = json!({"faultedAt": time, "error": Problem::to_value(error)});
                self.changed(task, "faulted", "faulted", data)
            }
            EventKind::TaskCompleted { output, .. } => {
                let mut data = json!({"completedAt": time});
                let output = output.as_ref().or(self.seen.output.as_ref());
                if let Some(output) = output.filter(|output| is_small(output)) {
                    data["output"] = output.as_ref().clone();
                }
                self.changed(task, "completed", "completed", data)
            }
            EventKind::WaitStarted { .. }
            | EventKind::ListenStarted { .. }
            | EventKind::ItemCompleted { done: false, .. } => self.status(task, "waiting"),
            // Something is done for the event, or with all of them.
            EventKind::EventConsumed { .. } if !self.seen.waits => self.status(task, "running"),
            _ => Vec::new(),
        }
    }

    /// Of the tasks that ended with the entry: they have not come to their own end.
    fn of_ended(&self) -> Vec<CloudEvent> {
        let ended = self.seen.ended.iter();
        ended
            .flat_map(|task| self.cancelled(Subject::Other(task)))
            .collect()
    }

    /// Of the tasks in progress, where the run is held or goes on.
    fn of_open(&self) -> Vec<CloudEvent> {
        let time = time(self.event.time);
        let held = matches!(self.event.kind, EventKind::RunPaused { .. });
        let tell = |task| {
            let subject = Subject::Other(task);
            if held {
                return self.changed(subject, "suspended", "suspended", json!({"suspendedAt": time}));
            }
            let status = if task.waits { "waiting" } else { "running" };
            self.changed(subject, "resumed", status, json!({"resumedAt": time}))
        };
        self.seen.open.iter().flat_map(tell).collect()
    }

    fn started(&self) -> Vec<CloudEvent> {
        let definition = json!({
            "name": self.run.name,
            "namespace": self.run.namespace,
            "version": self.run.version,
        });
        let data = json!({"startedAt": time(self.event.time), "definition": definition});
        self.changed(Subject::Workflow, "started", "running", data)
    }

    fn cancelled(&self, of: Subject<'_>) -> Vec<CloudEvent> {
        let data = json!({"cancelledAt": time(self.event.time)});
        self.changed(of, "cancelled", "cancelled", data)
    }

    /// What happened, and the phase that follows from it.
    fn changed(&self, of: Subject<'_>, what: &str, status: &str, data: Value) -> Vec<CloudEvent> {
        let mut events = self.one(of, what, data);
        events.extend(self.status(of, status));
        events
    }

    fn status(&self, of: Subject<'_>, status: &str) -> Vec<CloudEvent> {
        let data = json!({"updatedAt": time(self.event.time), "status": status});
        self.one(of, "status-changed", data)
    }

    fn one(&self, of: Subject<'_>, what: &str, mut data: Value) -> Vec<CloudEvent> {
        let run = self.run;
        let name = format!("{}-{}.{}", run.name, run.id, run.namespace);
        let mut id = format!("{}/{}/", run.id, self.event.index);
        let kind = match of {
            Subject::Workflow => {
                data["name"] = name.into();
                format!("workflow.{what}")
            }
            Subject::Task(task) => {
                data["workflow"] = name.into();
                data["task"] = task.into();
                format!("task.{what}")
            }
            Subject::Other(other) => {
                data["workflow"] = name.into();
                data["task"] = (&*other.task).into();
                id.push_str(&format!("{}/", other.activation));
                format!("task.{what}")
            }
        };
        id.push_str(&kind);
        let event = json!({
            "specversion": muster_workflow_dsl::cloud_event::SPECVERSION,
            "id": id,
            "source": format!("/muster/workflows/{}/{}", run.namespace, run.name),
            "type": format!("{LIFECYCLE}{kind}.v1"),
            "subject": run.id.as_str(),
            "time": time(self.event.time),
            "datacontenttype": "application/json",
            "data": data,
        });
        let event = CloudEvent::check(event);
        if let Err(error) = &event {
            tracing::warn!(run = %run.id, %error, "what became of the run cannot be told");
        }
        event.into_iter().collect()
    }
}

fn time(time: Timestamp) -> String {
    muster_api::time::rfc3339(time)
}

fn is_small(value: &Value) -> bool {
    muster_api::json::length(value) <= LARGEST_OUTPUT
}

//! What becomes of runs and tasks, as CloudEvents after the language's own definitions.
//!
//! They become durable with the entries of the journal that they tell of, so that none is lost and none is told twice. They go
//! into the same log as all events; a filter hears them only where it names what it wants.

use jiff::Timestamp;
use muster_workflow_dsl::cloud_event::CloudEvent;
use muster_workflow_dsl::hearing::LIFECYCLE;
use muster_workflow_dsl::journal::{Event, EventKind, Problem};
use serde_json::{Value, json};

use crate::config::Lifecycle;
use crate::run::Summary;

/// Largest output that is told, as JSON in bytes; larger ones are left away.
const LARGEST_OUTPUT: usize = 16 << 10;

/// What an entry of a run's journal is to the world. `output` is what the run ended with.
pub(crate) fn events(
    level: Lifecycle,
    run: &Summary,
    event: &Event,
    output: Option<&Value>,
) -> Vec<CloudEvent> {
    let teller = Teller { run, event };
    match level {
        Lifecycle::None => Vec::new(),
        Lifecycle::Workflows => teller.of_run(output),
        Lifecycle::Tasks => {
            let mut events = teller.of_run(output);
            events.extend(teller.of_task());
            events
        }
    }
}

struct Teller<'a> {
    run: &'a Summary,
    event: &'a Event,
}

impl Teller<'_> {
    fn of_run(&self, output: Option<&Value>) -> Vec<CloudEvent> {
        let time = time(self.event.time);
        match &self.event.kind {
            EventKind::RunStarted { .. } => self.started(),
            // One that begins at the beginning is started like any other.
            EventKind::RunForked { task: Some(_), .. } => self.started(),
            EventKind::RunPaused { .. } => {
                self.changed("workflow", "suspended", "suspended", json!({"suspendedAt": time}))
            }
            // A run that goes on after it has ended is the same instance, so it is resumed, and not started, again.
            EventKind::RunResumed { .. } | EventKind::RunRetried { .. } => {
                self.changed("workflow", "resumed", "running", json!({"resumedAt": time}))
            }
            EventKind::RunCompleted { .. } => {
                let mut data = json!({"completedAt": time});
                if let Some(output) = output.filter(|output| is_small(output)) {
                    data["output"] = output.clone();
                }
                self.changed("workflow", "completed", "completed", data)
            }
            EventKind::RunFaulted { error } => {
                let data = json!({"faultedAt": time, "error": error.to_value()});
                self.changed("workflow", "faulted", "faulted", data)
            }
            EventKind::RunCancelled { .. } => {
                self.changed("workflow", "cancelled", "cancelled", json!({"cancelledAt": time}))
            }
            EventKind::ListenStarted { .. } => {
                self.one("workflow", "correlation-started", json!({"startedAt": time}))
            }
            EventKind::EventConsumed {
                done: true,
                correlations,
                ..
            } => {
                let data = json!({"completedAt": time, "correlationKeys": correlations});
                self.one("workflow", "correlation-completed", data)
            }
            EventKind::ItemCompleted { done: true, .. } => {
                self.one("workflow", "correlation-completed", json!({"completedAt": time}))
            }
            _ => Vec::new(),
        }
    }

    fn of_task(&self) -> Vec<CloudEvent> {
        let time = time(self.event.time);
        match &self.event.kind {
            EventKind::TaskStarted { .. } => {
                let mut events = self.one("task", "created", json!({"createdAt": time.clone()}));
                events.extend(self.changed("task", "started", "running", json!({"startedAt": time})));
                events
            }
            EventKind::TaskRetried { .. } => self.one("task", "retried", json!({"retriedAt": time})),
            EventKind::TaskFaulted { error, .. } => {
                let data = json!({"faultedAt": time, "error": Problem::to_value(error)});
                self.changed("task", "faulted", "faulted", data)
            }
            EventKind::TaskCompleted { output, .. } => {
                let mut data = json!({"completedAt": time});
                if let Some(output) = output.as_ref().filter(|output| is_small(output)) {
                    data["output"] = output.as_ref().clone();
                }
                self.changed("task", "completed", "completed", data)
            }
            _ => Vec::new(),
        }
    }

    fn started(&self) -> Vec<CloudEvent> {
        let definition = json!({
            "name": self.run.name,
            "namespace": self.run.namespace,
            "version": self.run.version,
        });
        let data = json!({"startedAt": time(self.event.time), "definition": definition});
        self.changed("workflow", "started", "running", data)
    }

    /// What happened, and the phase that follows from it.
    fn changed(&self, of: &str, what: &str, status: &str, data: Value) -> Vec<CloudEvent> {
        let mut events = self.one(of, what, data);
        let data = json!({"updatedAt": time(self.event.time), "status": status});
        events.extend(self.one(of, "status-changed", data));
        events
    }

    fn one(&self, of: &str, what: &str, mut data: Value) -> Vec<CloudEvent> {
        let run = self.run;
        let name = format!("{}-{}.{}", run.name, run.id, run.namespace);
        match self.event.task().filter(|_| of == "task") {
            Some(task) => {
                data["workflow"] = name.into();
                data["task"] = task.into();
            }
            None => data["name"] = name.into(),
        }
        let event = json!({
            "specversion": muster_workflow_dsl::cloud_event::SPECVERSION,
            "id": format!("{}/{}/{of}.{what}", run.id, self.event.index),
            "source": format!("/muster/workflows/{}/{}", run.namespace, run.name),
            "type": format!("{LIFECYCLE}{of}.{what}.v1"),
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

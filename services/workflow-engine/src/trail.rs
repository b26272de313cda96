//! The trace of a run: one span for the run, one for each start of a task, and one for each call.
//!
//! Their identifiers follow from the run, the activation and the attempt, which the journal has. So an engine that takes a run over,
//! or is started again, tells of the same spans, and what agents did before and after a kill hangs from one step. A span
//! of a task is told when its end is durable, and never twice; of one that was under way when its engine died, whoever goes on
//! tells, from the start that the journal has.
//!
//! The trace is that of whoever asked for the run, which is kept with its summary; without one, it follows from the run's id.
//! Rejected: identifiers in the journal, which every step would pay for whether traces are on or not.
//!
//! What people and agents say is in no span: types of errors are, and names, and how long things took.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use muster_runtime::trace;
use muster_runtime::trace::{
    Attribute, Context, Derived, Kind, Place, Subject, TraceContextExt as _, Tracer,
};
use muster_workflow_dsl::journal::{Event, EventKind};
use muster_workflow_dsl::run::Run;
use serde::{Deserialize, Serialize};

use crate::caller::{Call, Failure};
use crate::run::{Status, Summary};

/// Where in a trace a run was asked for, as W3C writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// `traceparent`.
    pub parent: String,
    /// `tracestate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl Asked {
    /// Where we are now; `None` where nothing is traced.
    #[must_use]
    pub fn here() -> Option<Self> {
        let (parent, state) = trace::texts(&trace::current())?;
        Some(Self { parent, state })
    }

    fn place(&self) -> Place {
        trace::parsed(&self.parent, self.state.as_deref())
    }
}

/// Where the spans of a run are in its trace. Clones are of the same run.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    tracer: Tracer,
    run: Arc<str>,
    /// The run's own.
    root: Place,
}

impl Places {
    /// Those of this run; `None` where nothing is traced.
    pub(crate) fn of(tracer: &Tracer, summary: &Summary) -> Option<Self> {
        let asked = summary.marks.asked.as_ref().map(Asked::place);
        // Each time that a run is retried it is another piece of work, which ends by itself.
        let retries = summary.marks.retries.to_string();
        let seed = ["run", summary.id.as_str(), &retries];
        Some(Self {
            root: tracer.derived(asked.as_ref(), &seed)?,
            tracer: tracer.clone(),
            run: Arc::from(summary.id.as_str()),
        })
    }

    /// That of one start of a task.
    pub(crate) fn step(&self, activation: u64) -> Place {
        self.within(&["step", &self.run, &activation.to_string()])
    }

    fn call(&self, activation: u64, attempt: u32) -> Place {
        self.within(&["call", &self.run, &activation.to_string(), &attempt.to_string()])
    }

    fn within(&self, seed: &[&str]) -> Place {
        self.tracer
            .derived(Some(&self.root), seed)
            .unwrap_or_else(|| self.root.clone())
    }

    /// The context of whoever is called, and what is told when the call has ended.
    pub(crate) fn calling(
        &self,
        (activation, attempt): (u64, u32),
        call: &Call,
        started: Timestamp,
    ) -> (Context, Calling) {
        let place = self.call(activation, attempt);
        let context = self.about(&call.task).with_remote_span_context(place.clone());
        let span = Derived {
            kind: Kind::Client,
            name: format!("{} {}", call.request.operation(), call.request.target()).into(),
            parent: self.step(activation).span_id(),
            ended: started,
            started,
            place,
        };
        let calling = Calling {
            tracer: self.tracer.clone(),
            span,
            target: call.request.target(),
            attempt,
            resent: call.resent,
        };
        (context, calling)
    }

    /// The context of what a task starts.
    pub(crate) fn context_of_step(&self, activation: u64, task: &Arc<str>) -> Context {
        self.about(task).with_remote_span_context(self.step(activation))
    }

    fn about(&self, task: &Arc<str>) -> Context {
        trace::about(Subject {
            run: Some(Arc::clone(&self.run)),
            task: Some(Arc::clone(task)),
            agent: None,
        })
    }
}

/// A call that is under way.
pub(crate) struct Calling {
    tracer: Tracer,
    span: Derived,
    target: String,
    attempt: u32,
    resent: bool,
}

impl Calling {
    /// It has ended.
    pub(crate) fn ended<T>(self, outcome: &Result<T, Failure>, now: Timestamp) {
        let attributes = [
            ("muster.call.target", Attribute::from(self.target)),
            ("muster.retry.count", Attribute::from(i64::from(self.attempt))),
            ("muster.resent", Attribute::from(self.resent)),
        ];
        let kind = outcome.as_ref().err().map(|failure| failure.kind.name());
        let span = Derived {
            ended: now,
            ..self.span
        };
        self.tracer.record(span, attributes, kind.map(|kind| (kind, "")));
    }
}

/// The trace of a run that is worked on.
pub(crate) struct Trail {
    places: Places,
    /// Tasks that have started and not ended.
    open: BTreeMap<u64, Open>,
    /// What is to be told once it is durable.
    ended: Vec<Ended>,
}

struct Open {
    task: Arc<str>,
    parent: Option<u64>,
    started: Timestamp,
    retries: u32,
}

struct Ended {
    activation: u64,
    open: Open,
    at: Timestamp,
    how: How,
}

enum How {
    Well,
    /// With an error of this kind.
    Failed(String),
    /// Because what is around it ended.
    Interrupted,
}

impl Trail {
    /// That of a run as it stands; `None` where nothing is traced.
    pub(crate) fn of(tracer: &Tracer, summary: &Summary, run: &Run) -> Option<Self> {
        let places = Places::of(tracer, summary)?;
        let open = run.open_tasks().map(|(activation, task, parent, started)| {
            let open = Open {
                task: Arc::clone(task),
                parent,
                started,
                retries: 0,
            };
            (activation, open)
        });
        Some(Self {
            places,
            open: open.collect(),
            ended: Vec::new(),
        })
    }

    /// Something was decided.
    pub(crate) fn follow(&mut self, event: &Event) {
        match &event.kind {
            EventKind::TaskStarted {
                task,
                activation,
                parent,
                ..
            } => {
                let open = Open {
                    task: Arc::clone(task),
                    parent: *parent,
                    started: event.time,
                    retries: 0,
                };
                self.open.insert(*activation, open);
            }
            EventKind::TaskCompleted { activation, .. } => self.end(*activation, event.time, How::Well),
            EventKind::TaskFaulted {
                activation, error, ..
            } => {
                self.end(*activation, event.time, How::Failed(error_type(&error.kind)));
            }
            EventKind::TaskRetried { activation, .. } => {
                self.interrupt_within(*activation, event.time);
                if let Some(open) = self.open.get_mut(activation) {
                    open.retries += 1;
                }
            }
            _ if event.ends_run() => {
                let left: Vec<u64> = self.open.keys().copied().collect();
                for activation in left {
                    self.take(activation, event.time, How::Interrupted);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, activation: u64, at: Timestamp, how: How) {
        self.interrupt_within(activation, at);
        self.take(activation, at, how);
    }

    fn take(&mut self, activation: u64, at: Timestamp, how: How) {
        if let Some(open) = self.open.remove(&activation) {
            self.ended.push(Ended {
                activation,
                open,
                at,
                how,
            });
        }
    }

    /// What is within a task that has ended has ended with it. Numbers rise, so that whatever is within stands after.
    fn interrupt_within(&mut self, around: u64, at: Timestamp) {
        let mut within = vec![around];
        let later: Vec<(u64, Option<u64>)> = self
            .open
            .range(around.saturating_add(1)..)
            .map(|(activation, open)| (*activation, open.parent))
            .collect();
        for (activation, parent) in later {
            if parent.is_some_and(|parent| within.contains(&parent)) {
                within.push(activation);
                self.take(activation, at, How::Interrupted);
            }
        }
    }

    /// What was decided is durable: tells what has ended.
    pub(crate) fn written(&mut self, summary: &Summary) {
        let places = &self.places;
        for Ended {
            activation,
            open,
            at,
            how,
        } in self.ended.drain(..)
        {
            let parent = match open.parent {
                Some(parent) => places.step(parent).span_id(),
                None => places.root.span_id(),
            };
            let name = open.task.rsplit('/').next().unwrap_or_default();
            let span = Derived {
                kind: Kind::Internal,
                name: format!("step {name}").into(),
                place: places.step(activation),
                parent,
                started: open.started,
                ended: at,
            };
            let attributes = [
                ("muster.run.id", Attribute::from(places.run.to_string())),
                ("muster.task", Attribute::from(open.task.to_string())),
                ("muster.retry.count", Attribute::from(i64::from(open.retries))),
                (
                    "muster.interrupted",
                    Attribute::from(matches!(how, How::Interrupted)),
                ),
            ];
            let failed = match &how {
                How::Failed(kind) => Some((kind.as_str(), "")),
                How::Well | How::Interrupted => None,
            };
            places.tracer.record(span, attributes, failed);
        }
        if let (true, Some(ended)) = (summary.status.is_final(), summary.ended_at) {
            self.run_ended(summary, ended);
        }
    }

    fn run_ended(&self, summary: &Summary, ended: Timestamp) {
        let places = &self.places;
        let asked = summary.marks.asked.as_ref().map(Asked::place);
        let span = Derived {
            kind: Kind::Internal,
            name: format!("run {}", summary.name).into(),
            place: places.root.clone(),
            parent: asked.map_or(trace::NO_SPAN, |asked| asked.span_id()),
            started: summary.created_at,
            ended,
        };
        let waited = summary.started_at.map_or(0.0, |started| {
            started.duration_since(summary.created_at).as_secs_f64()
        });
        let attributes = [
            ("gen_ai.operation.name", Attribute::from("invoke_workflow")),
            ("gen_ai.workflow.name", Attribute::from(summary.name.clone())),
            ("muster.run.id", Attribute::from(places.run.to_string())),
            (
                "muster.workflow.namespace",
                Attribute::from(summary.namespace.clone()),
            ),
            (
                "muster.workflow.version",
                Attribute::from(summary.version.clone()),
            ),
            ("muster.run.status", Attribute::from(summary.status.name())),
            (
                "muster.retry.count",
                Attribute::from(i64::from(summary.marks.retries)),
            ),
            ("muster.queue.wait_seconds", Attribute::from(waited)),
        ];
        let failed = match (summary.status, &summary.failure) {
            (Status::Faulted, Some(failure)) => Some(error_type(&failure.kind)),
            (Status::Faulted, None) => Some("faulted".to_owned()),
            _ => None,
        };
        let failed = failed.as_deref().map(|kind| (kind, ""));
        places.tracer.record(span, attributes, failed);
    }
}

/// The kind of an error is a URI; its last part tells.
fn error_type(kind: &str) -> String {
    kind.rsplit('/').next().unwrap_or(kind).to_owned()
}

//! What has come of a performance, and what was to come of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fates::Fate;
use crate::run::{RunId, Status};
use crate::store::memory::{Kept, State};

/// What is there in the end, without the times at which it came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) runs: BTreeMap<RunId, Ended>,
    /// Ids of the events in the log.
    events: BTreeSet<String>,
    /// Why the document was refused.
    pub(crate) refusal: Option<String>,
}

/// How a run has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Of its document.
    name: String,
    status: Status,
    output: Value,
    /// Type, status and task of its error.
    failure: Option<(String, u16, String)>,
}

impl Ended {
    pub(crate) fn of(run: &Kept) -> Self {
        let failure = run.summary.failure.as_ref();
        Self {
            name: run.summary.name.clone(),
            status: run.summary.status,
            output: without("time", run.output.clone().unwrap_or_default()),
            failure: failure.map(|error| (error.kind.clone(), error.status, error.instance.clone())),
        }
    }

    /// The same of another run: the ids of the events that it has emitted are its own.
    pub(crate) fn without_ids(self) -> Self {
        Self {
            output: without("id", self.output),
            ..self
        }
    }
}

impl Outcome {
    pub(crate) fn of(state: &State, refusal: Option<String>) -> Self {
        let runs = state.runs.iter();
        Self {
            runs: runs.map(|(id, run)| (id.clone(), Ended::of(run))).collect(),
            events: state.event_ids(),
            refusal,
        }
    }
}

/// The value without this attribute of the events in it.
fn without(attribute: &str, value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let is_event = fields.contains_key("specversion");
            let fields = fields.into_iter();
            fields
                .filter(|(name, _)| !is_event || name != attribute)
                .map(|(name, value)| (name, without(attribute, value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(|item| without(attribute, item)).collect(),
        other => other,
    }
}

/// What was to come of the run of an example.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expected {
    /// It completes with this, in the part of its output that this pointer names.
    Completed(String, Value),
    /// It completes with an event of this type and with this data.
    Emitted(String, Value),
    /// It faults.
    Faulted {
        kind: String,
        status: u16,
        /// At the task with this pointer, if that is said.
        task: Option<String>,
    },
    Cancelled,
    /// There is none: the document is refused with these words.
    Refused(String),
}

impl Expected {
    pub(crate) fn of(fate: &Fate) -> Self {
        match fate {
            Fate::Completes(_, output) | Fate::Triggers(output) => {
                Self::Completed(String::new(), output.clone())
            }
            Fate::Hears(_, _, part, value) | Fate::Starts(_, _, part, value) => {
                Self::Completed((*part).to_owned(), value.clone())
            }
            Fate::Emits(kind, data) => Self::Emitted((*kind).to_owned(), data.clone()),
            Fate::Faults(_, kind, status) => Self::Faulted {
                kind: (*kind).to_owned(),
                status: u16::try_from(*status).unwrap(),
                task: None,
            },
            Fate::Listens(..) => Self::Cancelled,
            Fate::Refused(words) => Self::Refused((*words).to_owned()),
        }
    }

    /// Whether that has come of the run of the document with this name, of which there must be one.
    ///
    /// # Errors
    /// What has come instead.
    pub(crate) fn met(&self, name: &str, outcome: &Outcome) -> Result<(), String> {
        let mut runs = outcome.runs.values().filter(|run| run.name == name);
        let (run, more) = (runs.next(), runs.next());
        let is_met = match (self, run) {
            (_, Some(_)) if more.is_some() => false,
            (Self::Refused(words), None) => {
                let refusal = outcome.refusal.as_deref().unwrap_or_default();
                refusal.contains(words.as_str())
            }
            (Self::Completed(part, value), Some(run)) => {
                run.status == Status::Completed && run.output.pointer(part) == Some(value)
            }
            (Self::Emitted(kind, data), Some(run)) => {
                run.status == Status::Completed
                    && run.output["type"] == *kind
                    && run.output["data"] == *data
                    && run.output["id"]
                        .as_str()
                        .is_some_and(|id| outcome.events.contains(id))
            }
            (Self::Faulted { kind, status, task }, Some(run)) => {
                run.status == Status::Faulted
                    && run.failure.as_ref().is_some_and(|(kind_of, status_of, task_of)| {
                        kind_of == kind
                            && status_of == status
                            && task.as_ref().is_none_or(|task| task == task_of)
                    })
            }
            (Self::Cancelled, Some(run)) => run.status == Status::Cancelled,
            _ => false,
        };
        if is_met {
            Ok(())
        } else {
            Err(format!("{self:?} was to come, and what came is {outcome:?}"))
        }
    }
}

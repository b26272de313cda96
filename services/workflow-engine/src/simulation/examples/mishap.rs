//! What goes wrong in a performance, beside that the engine is killed.

use serde_json::json;
use uuid::Uuid;

use super::Example;
use super::fates::Fate;
use super::outcome::Expected;
use crate::caller::{Failure, Kind};

/// A step that calls: one execution of a task, in all its attempts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    /// JSON pointer of the task.
    pub(crate) task: String,
    pub(crate) key: Uuid,
}

impl Step {
    /// The name of the task, or of the function where it calls one: of one at an address, what its path ends with.
    pub(crate) fn name(&self) -> &str {
        let name = self.task.rsplit('/').next().unwrap_or_default();
        // As JSON pointers have a slash.
        name.rsplit("~1").next().unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// Nothing.
    None,
    /// The call of this step fails with an error of the type `communication` and this status.
    CallFails {
        step: Step,
        status: u16,
        /// In its first attempt, or in all.
        always: bool,
    },
    /// The workflow that it runs faults.
    ChildFaults,
    /// People say no where they are asked.
    Rejected,
    /// People leave what they are asked to time.
    LeftToTime,
}

/// The statuses that calls fail with: of services that are not there, and of what they do not have.
pub(crate) const STATUSES: [u16; 2] = [503, 404];

/// The error of a child that faults.
const CHILD_ERROR: &str = "https://library.test/errors/of-a-child";

impl Mishap {
    /// How an attempt of the step fails, if it does.
    pub(crate) fn failure(&self, asked: &Step, attempt: u32) -> Option<Failure> {
        match self {
            Self::CallFails { step, status, always } if step == asked && (*always || attempt == 1) => {
                Some(Failure::new(Kind::Communication, *status, "out of order"))
            }
            _ => None,
        }
    }

    /// A document of the catalogue as it is applied.
    pub(crate) fn applied(&self, document: &str) -> String {
        match (self, document.split_once("\ndo:")) {
            (Self::ChildFaults, Some((header, _))) => {
                format!(
                    "{header}\ndo:\n  - bad: {{raise: {{error: {{type: '{CHILD_ERROR}', status: 500}}}}}}\n"
                )
            }
            _ => document.to_owned(),
        }
    }
}

/// What may go wrong with an example beside its calls, and what becomes of it then. That an example runs others, or asks people,
/// must be said here.
pub(crate) fn others(example: &Example) -> Vec<(Mishap, Expected)> {
    let completes = |output| Expected::Completed(String::new(), output);
    let faults = |kind: &str, status, task: &str| Expected::Faulted {
        kind: kind.to_owned(),
        status,
        task: Some(task.to_owned()),
    };
    let others = match example.name.as_str() {
        "run-subflow" => vec![(Mishap::ChildFaults, faults(CHILD_ERROR, 500, "/do/0/register"))],
        "README order.yaml (2)" => vec![(Mishap::ChildFaults, faults(CHILD_ERROR, 500, "/do/0/pack"))],
        "README refund.yaml" => vec![
            (
                Mishap::Rejected,
                completes(json!({"refunded": 0, "why": "'Refund 30 to Grace?' was rejected by ada"})),
            ),
            (
                Mishap::LeftToTime,
                faults("urn:muster:error:approval-expired", 408, "/do/0/pay/try/0/refund"),
            ),
        ],
        _ => Vec::new(),
    };
    let runs_others = !example.catalogue.is_empty();
    let asks = example.document.contains("approval:");
    assert!(
        others.is_empty() != (runs_others || asks) || matches!(example.fate, Fate::Refused(_)),
        "say what becomes of {} when what it runs faults, or people say no",
        example.name
    );
    others
}

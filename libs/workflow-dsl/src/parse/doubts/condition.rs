//! Conditions that always come out the same, and cases of a switch that are never taken.

use jiff::Timestamp;
use serde_json::Value;

use super::super::Reader;
use super::super::cursor::Cursor;
use super::inside;
use crate::document::{Case, Flow, Kind, Task};
use crate::expression::{Expression, Variables};
use crate::problem::quoted;

impl Reader {
    /// The conditions of a task.
    pub(super) fn doubt_conditions(&mut self, task: &Task, at: &Cursor<'_>) {
        let mut conditions = vec![("/if".to_owned(), task.condition.as_ref())];
        match &task.kind {
            Kind::For(each) => conditions.push(("/while".to_owned(), each.condition.as_ref())),
            Kind::Try(attempt) => {
                let catch = &attempt.catch;
                conditions.push(("/catch/when".to_owned(), catch.when.as_ref()));
                conditions.push(("/catch/exceptWhen".to_owned(), catch.except_when.as_ref()));
            }
            Kind::Switch(cases) => {
                for case in cases {
                    let pointer = inside(at, &case.pointer).pointer;
                    let relative = pointer.strip_prefix(at.pointer.as_str()).unwrap_or_default();
                    conditions.push((format!("{relative}/when"), case.when.as_ref()));
                }
            }
            _ => {}
        }
        for (pointer, condition) in conditions {
            if let Some(condition) = condition {
                self.doubt_condition(&at.descend(&pointer), condition);
            }
        }
    }

    fn doubt_condition(&mut self, at: &Cursor<'_>, condition: &Expression) {
        let message = if condition.shape().assigns {
            "this assigns, and what comes of it counts as true; compare with '=='".to_owned()
        } else {
            match constant(condition) {
                Some(true) => {
                    format!(
                        "{} is always true, whatever the data are",
                        quoted(condition.source())
                    )
                }
                Some(false) => {
                    format!(
                        "{} is always false, whatever the data are",
                        quoted(condition.source())
                    )
                }
                None => return,
            }
        };
        self.problems.warning(at.place(), &at.pointer, message);
    }

    /// Cases that another one always comes before, and a `then` that none lets through.
    pub(super) fn doubt_cases(&mut self, task: &Task, cases: &[Case], at: &Cursor<'_>) {
        for (index, case) in cases.iter().enumerate() {
            let Some(condition) = &case.when else { continue };
            let earlier = cases.iter().take(index).find(|earlier| {
                let asked = earlier.when.as_ref();
                asked.is_some_and(|asked| asked == condition || constant(asked) == Some(true))
            });
            if let Some(earlier) = earlier {
                let message = format!(
                    "this case is never taken: {} stands before it and holds whenever it does",
                    quoted(&earlier.name)
                );
                self.doubtful(&inside(at, &case.pointer), message);
            }
        }
        let decided = cases.iter().any(|case| case.when.is_none());
        if decided && task.condition.is_none() && task.then != Flow::Continue {
            let message = "this is never followed: the case without 'when' decides where the flow goes if no other does";
            self.doubtful(&at.descend("/then"), message);
        }
    }
}

/// Whether a condition holds, where that does not depend on any data.
fn constant(condition: &Expression) -> Option<bool> {
    let decided = condition.shape().constant;
    decided
        .then(|| condition.is_true(&Value::Null, &Variables::new(), Timestamp::UNIX_EPOCH))
        .and_then(Result::ok)
}

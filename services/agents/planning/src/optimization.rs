//! Optimization: what shortening a critical task, or letting two of them run together, would really gain.
//!
//! Each proposal is tried: the plan is scheduled again with that one difference, and only a real gain is shown.
//! Shortening a critical task by a day often gains less than a day, because another chain becomes critical. Changes
//! off the critical path are not tried: the path would stay as long as it is.

use serde::Serialize;

use crate::calendar::Minutes;
use crate::plan::request::PlanRequest;
use crate::plan::{Error, Plan};
use crate::schedule::{Schedule, Variation, vary};

/// By how many days a task is shortened when nothing is said.
const DEFAULT_SHORTEN_DAYS: f64 = 1.0;
/// Most changes of each kind that are tried.
const MAX_TRIED: usize = 100;
/// Most proposals that are shown.
const MAX_PROPOSALS: usize = 50;

/// A change and its gain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proposal {
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// Working days by which the plan ends earlier.
    pub days_gained: f64,
    /// The new end.
    pub finish_date: String,
    /// One critical path after the change.
    pub critical_path: Vec<String>,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A task takes less time.
    Shorten {
        /// The task.
        task: String,
        /// By so many days.
        by_days: f64,
    },
    /// A task no longer waits for another.
    Parallelize {
        /// The task.
        task: String,
        /// What it need not wait for.
        with: String,
    },
}

/// The changes that gain something, most first.
pub fn optimize(plan: &Plan, schedule: &Schedule, request: &PlanRequest) -> Result<Vec<Proposal>, Error> {
    let by = request.shorten_days.unwrap_or(DEFAULT_SHORTEN_DAYS);
    if !(by > 0.0 && by <= 365.0) {
        return Err(Error::new(
            "shorten_days",
            format!("{by} is outside 0 to 365; give how much a task may shrink"),
        ));
    }
    let mut proposals = Vec::new();
    let path = &schedule.critical_path;
    let mut longest: Vec<usize> = path.clone();
    longest.sort_by_key(|&position| (std::cmp::Reverse(plan.tasks[position].duration), position));
    for position in longest.into_iter().take(MAX_TRIED) {
        let task = &plan.tasks[position];
        let shorter = task.duration.min(length(plan, by));
        if shorter > 0 {
            let mut variation = Variation::none(plan);
            variation.durations[position] -= shorter;
            let change = Change::Shorten {
                task: task.id.clone(),
                by_days: plan.calendar.days(shorter),
            };
            proposals.extend(proposal(plan, schedule, change, &variation));
        }
    }
    for pair in path.windows(2).take(MAX_TRIED) {
        let (before, position) = (pair[0], pair[1]);
        let mut variation = Variation::none(plan);
        variation.without = Some((position, before));
        let change = Change::Parallelize {
            task: plan.tasks[position].id.clone(),
            with: plan.tasks[before].id.clone(),
        };
        proposals.extend(proposal(plan, schedule, change, &variation));
    }
    proposals.sort_by(|(a, _), (b, _)| b.cmp(a));
    proposals.truncate(MAX_PROPOSALS);
    Ok(proposals.into_iter().map(|(_, proposal)| proposal).collect())
}

fn proposal(
    plan: &Plan,
    before: &Schedule,
    change: Change,
    variation: &Variation,
) -> Option<(Minutes, Proposal)> {
    let after = vary(plan, variation);
    let gained = before
        .makespan
        .checked_sub(after.makespan)
        .filter(|gained| *gained > 0)?;
    let proposal = Proposal {
        change,
        days_gained: plan.calendar.days(gained),
        finish_date: plan.calendar.finish_date(after.makespan).to_string(),
        critical_path: plan.ids(&after.critical_path),
    };
    Some((gained, proposal))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most a year"
)]
fn length(plan: &Plan, days: f64) -> Minutes {
    (days * plan.calendar.minutes_per_day() as f64).round() as Minutes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::schedule;
    use serde_json::{Value, json};

    fn proposals(extra: Value) -> Result<Vec<Proposal>, Error> {
        let mut request = json!({
            "start_date": "2014-03-03",
            "tasks": [
                {"id": "a", "duration_days": 3}, {"id": "b", "duration_days": 4, "depends_on": ["a"]},
                {"id": "c", "duration_days": 6.5}
            ]
        });
        for (key, value) in extra.as_object().unwrap() {
            request[key] = value.clone();
        }
        let request: PlanRequest = serde_json::from_value(request).unwrap();
        let plan = request.plan(None).unwrap();
        optimize(&plan, &schedule(&plan), &request)
    }

    #[test]
    fn a_gain_ends_where_another_chain_becomes_critical() {
        let proposals = proposals(json!({"shorten_days": 2})).unwrap();
        assert_eq!(proposals.len(), 3);
        for proposal in &proposals {
            assert_eq!(
                (proposal.days_gained, proposal.critical_path.as_slice()),
                (0.5, &["c".to_owned()][..])
            );
        }
        let apart = Change::Parallelize {
            task: "b".to_owned(),
            with: "a".to_owned(),
        };
        assert!(proposals.iter().any(|proposal| proposal.change == apart));
    }

    #[test]
    fn an_impossible_shortening_is_refused() {
        for days in [0.0, -1.0, 366.0] {
            assert_eq!(
                proposals(json!({"shorten_days": days})).unwrap_err().field,
                "shorten_days"
            );
        }
    }
}

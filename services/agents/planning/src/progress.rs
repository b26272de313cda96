//! Progress: what should be done by the evening of a day, what is, and when the plan will end as things stand.
//!
//! Planned and earned work are compared in working days (earned value). Whether a plan is late is decided by the
//! forecast and not by their ratio: half a day of unfinished work with slack delays nothing. The forecast
//! schedules what is left from the next morning, by the same rules as the plan.

use serde::Serialize;

use crate::calendar::Minutes;
use crate::plan::Error;
use crate::plan::Plan;
use crate::plan::request::{PlanRequest, date};
use crate::schedule::{Schedule, Variation, vary};

/// How a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It will end earlier.
    Ahead,
    /// It will end as planned.
    OnTrack,
    /// It will end later.
    Behind,
    /// Everything is done.
    Finished,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// The day that it is about.
    pub today: String,
    /// How it stands.
    pub verdict: Verdict,
    /// Share of the work that is done, in percent.
    pub percent_done: f64,
    /// Share of the work that should be done, in percent.
    pub percent_planned: f64,
    /// Done divided by planned work; none before anything was to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_performance_index: Option<f64>,
    /// Finish as planned.
    pub planned_finish: String,
    /// Finish as things stand.
    pub forecast_finish: String,
    /// Working days that the forecast is later; negative when earlier.
    pub days_behind: f64,
    /// Tasks that should be finished and are not.
    pub late_tasks: Vec<LateTask>,
    /// Unfinished tasks without slack from now on.
    pub critical_now: Vec<String>,
    /// What contradicts itself in the report.
    pub warnings: Vec<String>,
}

/// A task that should be finished.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LateTask {
    /// The task.
    pub task: String,
    /// When it should have finished.
    pub planned_finish: String,
    /// How far it is.
    pub percent: f64,
    /// When it will finish.
    pub forecast_finish: String,
}

/// Reads what is done: a share from 0 to 1 for every task.
fn shares(plan: &Plan, request: &PlanRequest) -> Result<Vec<f64>, Error> {
    let mut shares = vec![0.0; plan.tasks.len()];
    let known: Vec<&str> = plan.tasks.iter().map(|task| task.id.as_str()).collect();
    let find = |field: String, id: &str| {
        known.iter().position(|known| *known == id).ok_or_else(|| {
            let nearest = muster_api::names::suggestion(id, known.iter().copied());
            Error::new(field, format!("no task has the id '{id}'{nearest}"))
        })
    };
    for (id, percent) in &request.progress {
        let field = format!("progress.{id}");
        let position = find(field.clone(), id)?;
        if !(0.0..=100.0).contains(percent) {
            return Err(Error::new(
                field,
                format!("{percent} is outside 0 to 100 percent"),
            ));
        }
        shares[position] = percent / 100.0;
    }
    for (index, id) in request.done.iter().enumerate() {
        shares[find(format!("done[{index}]"), id)?] = 1.0;
    }
    Ok(shares)
}

/// Compares a plan with what is done by the evening of `request.today`.
pub fn monitor(plan: &Plan, planned: &Schedule, request: &PlanRequest) -> Result<Progress, Error> {
    let Some(today) = &request.today else {
        return Err(Error::new(
            "today",
            "is missing; give the day that the progress is reported for, such as 2014-03-07",
        ));
    };
    let today = date("today", today)?;
    let shares = shares(plan, request)?;
    let evening = plan.calendar.evening(today);
    let forecast = vary(plan, &remaining(plan, &shares, evening));
    let all_done = shares.iter().all(|share| *share >= 1.0);
    // What ended earlier than planned is known to have ended by this evening, and no earlier.
    let end = if all_done {
        evening.min(planned.makespan)
    } else {
        forecast.makespan
    };

    let total = sum(plan, |_| 1.0);
    let earned = sum(plan, |position| shares[position]);
    let due = sum(plan, |position| due_share(plan, planned, position, evening));
    let percent = |part: f64| {
        if total > 0.0 {
            round(part / total * 100.0)
        } else {
            100.0
        }
    };
    Ok(Progress {
        today: today.to_string(),
        verdict: match end.cmp(&planned.makespan) {
            _ if all_done => Verdict::Finished,
            std::cmp::Ordering::Less => Verdict::Ahead,
            std::cmp::Ordering::Equal => Verdict::OnTrack,
            std::cmp::Ordering::Greater => Verdict::Behind,
        },
        percent_done: percent(earned),
        percent_planned: percent(due),
        schedule_performance_index: (due > 0.0).then(|| round(earned / due)),
        planned_finish: plan.calendar.finish_date(planned.makespan).to_string(),
        forecast_finish: plan.calendar.finish_date(end).to_string(),
        days_behind: plan.calendar.days(end.saturating_sub(planned.makespan))
            - plan.calendar.days(planned.makespan.saturating_sub(end)),
        late_tasks: late_tasks(plan, planned, &forecast, &shares, evening),
        critical_now: (0..plan.tasks.len())
            .filter(|&position| shares[position] < 1.0 && forecast.slots[position].is_critical())
            .map(|position| plan.tasks[position].id.clone())
            .collect(),
        warnings: warnings(plan, &shares),
    })
}

fn remaining(plan: &Plan, shares: &[f64], evening: Minutes) -> Variation {
    let mut left = Variation::none(plan);
    left.not_before = evening;
    for (position, share) in shares.iter().enumerate() {
        left.durations[position] = part(plan.tasks[position].duration, 1.0 - share);
        left.done[position] = *share >= 1.0;
    }
    left
}

/// Share of a task that the early schedule has finished by a moment.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn due_share(plan: &Plan, planned: &Schedule, position: usize, moment: Minutes) -> f64 {
    let task = &plan.tasks[position];
    let start = planned.slots[position].earliest_start;
    if task.duration == 0 {
        return if start <= moment { 1.0 } else { 0.0 };
    }
    let parts = plan.calendar.parts(start, task.duration, task.weather_sensitive);
    let worked = parts
        .iter()
        .map(|part| part.finish.min(moment).saturating_sub(part.start))
        .sum::<Minutes>();
    worked as f64 / task.duration as f64
}

fn late_tasks(
    plan: &Plan,
    planned: &Schedule,
    forecast: &Schedule,
    shares: &[f64],
    evening: Minutes,
) -> Vec<LateTask> {
    (0..plan.tasks.len())
        .filter(|&position| shares[position] < 1.0 && planned.slots[position].earliest_finish <= evening)
        .map(|position| LateTask {
            task: plan.tasks[position].id.clone(),
            planned_finish: plan
                .calendar
                .finish_date(planned.slots[position].earliest_finish)
                .to_string(),
            percent: round(shares[position] * 100.0),
            forecast_finish: plan
                .calendar
                .finish_date(forecast.slots[position].earliest_finish)
                .to_string(),
        })
        .collect()
}

fn warnings(plan: &Plan, shares: &[f64]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (position, task) in plan.tasks.iter().enumerate() {
        for &before in &task.depends_on {
            if shares[position] > 0.0 && shares[before] < 1.0 {
                let (id, unfinished) = (&task.id, &plan.tasks[before].id);
                warnings.push(format!(
                    "'{id}' is reported as begun, but '{unfinished}', which it waits for, is not finished"
                ));
            }
        }
    }
    warnings
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn sum(plan: &Plan, share: impl Fn(usize) -> f64) -> f64 {
    plan.tasks
        .iter()
        .enumerate()
        .map(|(position, task)| task.duration as f64 * share(position))
        .sum()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a length"
)]
fn part(length: Minutes, share: f64) -> Minutes {
    (length as f64 * share.clamp(0.0, 1.0)).ceil() as Minutes
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::schedule;
    use serde_json::{Value, json};

    fn monitored(extra: Value) -> Result<Progress, Error> {
        let mut request = json!({
            "start_date": "2014-03-03",
            "tasks": [
                {"id": "a", "duration_days": 2}, {"id": "b", "duration_days": 2, "depends_on": ["a"]},
                {"id": "c", "duration_days": 1}
            ]
        });
        for (key, value) in extra.as_object().unwrap() {
            request[key] = value.clone();
        }
        let request: PlanRequest = serde_json::from_value(request).unwrap();
        let plan = request.plan(None).unwrap();
        monitor(&plan, &schedule(&plan), &request)
    }

    #[test]
    fn a_plan_can_be_behind_on_track_ahead_and_finished() {
        let behind = monitored(json!({"today": "2014-03-04", "progress": {"a": 50}, "done": ["c"]})).unwrap();
        assert_eq!((behind.verdict, behind.days_behind), (Verdict::Behind, 1.0));
        assert_eq!((behind.percent_done, behind.percent_planned), (40.0, 60.0));
        assert_eq!(behind.forecast_finish, "2014-03-07");
        assert_eq!(
            (
                behind.late_tasks.len(),
                behind.late_tasks[0].forecast_finish.as_str()
            ),
            (1, "2014-03-05")
        );
        assert_eq!(behind.critical_now, ["a", "b"]);

        let on_track = monitored(json!({"today": "2014-03-04", "done": ["a"]})).unwrap();
        assert_eq!(on_track.verdict, Verdict::OnTrack, "c is late, but has slack");
        assert_eq!(on_track.late_tasks[0].task, "c");

        let ahead = monitored(json!({"today": "2014-03-03", "done": ["a", "c"]})).unwrap();
        assert_eq!((ahead.verdict, ahead.days_behind), (Verdict::Ahead, -1.0));

        let finished = monitored(json!({"today": "2014-03-05", "done": ["a", "b", "c"]})).unwrap();
        assert_eq!(
            (finished.verdict, finished.forecast_finish.as_str()),
            (Verdict::Finished, "2014-03-05")
        );
    }

    #[test]
    fn what_contradicts_itself_is_told_and_what_is_wrong_refused() {
        let odd = monitored(json!({"today": "2014-03-04", "progress": {"b": 10}})).unwrap();
        assert_eq!(odd.warnings.len(), 1);
        assert_eq!(monitored(json!({"done": ["a"]})).unwrap_err().field, "today");
        assert_eq!(monitored(json!({"today": "now"})).unwrap_err().field, "today");
        assert_eq!(
            monitored(json!({"today": "2014-03-04", "done": ["x"]}))
                .unwrap_err()
                .field,
            "done[0]"
        );
        let percent = monitored(json!({"today": "2014-03-04", "progress": {"a": 101}}));
        assert_eq!(percent.unwrap_err().field, "progress.a");
    }
}

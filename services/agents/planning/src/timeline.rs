//! The whole plan as an answer: dates for every task, the critical path, milestones, risks and overloads.

use std::fmt::Write as _;

use jiff::ToSpan as _;
use serde::Serialize;

use crate::calendar::Minutes;
use crate::milestone::{Milestone, milestones};
use crate::plan::Plan;
use crate::resource::{Overload, overloads};
use crate::risk::{Level, Risk, risks};
use crate::schedule::Schedule;

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    /// The plan's name.
    pub name: String,
    /// First day.
    pub start_date: String,
    /// Last day, if nothing goes wrong.
    pub finish_date: String,
    /// Reserve in percent of the working time.
    pub buffer_percent: f64,
    /// Last day with the reserve: the date to promise.
    pub finish_date_with_buffer: String,
    /// Working time from first to last day.
    pub working_days: f64,
    /// Days from the first to the last, both counted.
    pub calendar_days: i32,
    /// Ids of one chain of tasks that decides the end.
    pub critical_path: Vec<String>,
    /// Every task, in the order given.
    pub tasks: Vec<TaskTime>,
    /// When how much is finished.
    pub milestones: Vec<Milestone>,
    /// What endangers the date.
    pub risks: Vec<Risk>,
    /// Where more is needed than is there.
    pub overloads: Vec<Overload>,
}

/// A task's dates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskTime {
    /// The task.
    pub id: String,
    /// For people.
    pub name: String,
    /// Its work.
    pub duration_days: f64,
    /// What it waits for.
    pub depends_on: Vec<String>,
    /// First day, as early as possible.
    pub earliest_start: String,
    /// Last day, as early as possible.
    pub earliest_finish: String,
    /// First day, as late as possible.
    pub latest_start: String,
    /// Last day, as late as possible.
    pub latest_finish: String,
    /// By how many working days it may be late.
    pub slack_days: f64,
    /// Whether any delay delays the plan.
    pub critical: bool,
    /// Whether it avoids the dates to be avoided.
    pub weather_sensitive: bool,
    /// Dates inside its time on which it is not worked on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interrupted_on: Vec<String>,
}

impl Timeline {
    /// The timeline of a scheduled plan.
    #[must_use]
    pub fn new(plan: &Plan, schedule: &Schedule) -> Self {
        let calendar = &plan.calendar;
        let overloads = overloads(plan, schedule);
        let first = (0..plan.tasks.len())
            .map(|position| schedule.slots[position].earliest_start)
            .min()
            .unwrap_or(0);
        let start = calendar.start_date(first);
        let finish = calendar.finish_date(schedule.makespan);
        Self {
            name: plan.name.clone(),
            start_date: calendar.start().to_string(),
            finish_date: finish.to_string(),
            buffer_percent: plan.buffer_percent,
            finish_date_with_buffer: calendar
                .finish_date(buffered(schedule.makespan, plan.buffer_percent))
                .to_string(),
            working_days: calendar.days(schedule.makespan),
            calendar_days: (finish.saturating_add(1.day()) - start.min(calendar.start())).get_days(),
            critical_path: plan.ids(&schedule.critical_path),
            tasks: (0..plan.tasks.len())
                .map(|position| TaskTime::new(plan, schedule, position))
                .collect(),
            milestones: milestones(plan, schedule),
            risks: risks(plan, schedule, &overloads),
            overloads,
        }
    }

    /// A sentence or two for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{}: {} working days from {} to {} ({} with {} % buffer). Critical path: {}.",
            self.name,
            self.working_days,
            self.start_date,
            self.finish_date,
            self.finish_date_with_buffer,
            self.buffer_percent,
            self.critical_path.join(" → ")
        );
        let high: Vec<String> = self
            .risks
            .iter()
            .filter(|risk| risk.level == Level::High)
            .take(3)
            .map(|risk| format!("{} ({}/10)", risk.task, risk.score))
            .collect();
        if !high.is_empty() {
            text += &format!(" High risks: {}.", high.join(", "));
        }
        if let Some(overload) = self.overloads.first() {
            text += &format!(
                " '{}' is overloaded from {} to {} ({} needed, {} there).",
                overload.resource, overload.from, overload.until, overload.needed, overload.capacity
            );
        }
        text
    }

    /// The tasks as a Markdown table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| task | days | earliest | latest | slack | waits for |\n|---|---:|---|---|---:|---|\n",
        );
        for task in &self.tasks {
            let name = task.name.replace('|', "\\|").replace('\n', " ");
            let mark = if task.critical { " (critical)" } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "| {name}{mark} | {} | {} – {} | {} – {} | {} | {} |",
                task.duration_days,
                task.earliest_start,
                task.earliest_finish,
                task.latest_start,
                task.latest_finish,
                task.slack_days,
                task.depends_on.join(", ").replace('|', "\\|")
            );
        }
        table
    }
}

impl TaskTime {
    fn new(plan: &Plan, schedule: &Schedule, position: usize) -> Self {
        let (task, slot) = (&plan.tasks[position], &schedule.slots[position]);
        let calendar = &plan.calendar;
        // A task without length happens in the evening at which what it waits for ends, not the morning after.
        let start = |moment| {
            if task.duration == 0 {
                calendar.finish_date(moment)
            } else {
                calendar.start_date(moment)
            }
        };
        let interrupted = if task.weather_sensitive {
            calendar.avoided_between(slot.earliest_start, slot.earliest_finish)
        } else {
            Vec::new()
        };
        Self {
            id: task.id.clone(),
            name: task.name.clone(),
            duration_days: calendar.days(task.duration),
            depends_on: plan.ids(&task.depends_on),
            earliest_start: start(slot.earliest_start).to_string(),
            earliest_finish: calendar.finish_date(slot.earliest_finish).to_string(),
            latest_start: start(slot.latest_start).to_string(),
            latest_finish: calendar.finish_date(slot.latest_finish).to_string(),
            slack_days: calendar.days(slot.slack()),
            critical: slot.is_critical(),
            weather_sensitive: task.weather_sensitive,
            interrupted_on: interrupted.iter().map(ToString::to_string).collect(),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a length of decades"
)]
fn buffered(makespan: Minutes, percent: f64) -> Minutes {
    makespan + (makespan as f64 * percent / 100.0).ceil() as Minutes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::request::PlanRequest;
    use crate::schedule::schedule;
    use serde_json::json;

    #[test]
    fn dates_buffer_and_milestones_are_those_of_a_calendar_on_the_wall() {
        let request: PlanRequest = serde_json::from_value(json!({
            "name": "Shed", "start_date": "2014-03-03", "working_days_only": true, "avoid_dates": ["2014-03-07"],
            "tasks": [
                {"id": "base", "duration_days": 4},
                {"id": "roof", "duration_days": 2, "depends_on": ["base"], "weather_sensitive": true},
                {"id": "handover", "duration_days": 0, "depends_on": ["roof"]}
            ]
        }))
        .unwrap();
        let plan = request.plan(None).unwrap();
        let timeline = Timeline::new(&plan, &schedule(&plan));
        assert_eq!(
            (timeline.finish_date.as_str(), timeline.working_days),
            ("2014-03-11", 7.0)
        );
        assert_eq!(timeline.finish_date_with_buffer, "2014-03-13");
        assert_eq!(timeline.calendar_days, 9);
        let roof = &timeline.tasks[1];
        assert_eq!(
            (roof.earliest_start.as_str(), roof.earliest_finish.as_str()),
            ("2014-03-10", "2014-03-11")
        );
        assert_eq!(timeline.tasks[2].earliest_start, "2014-03-11");
        let milestones: Vec<_> = timeline
            .milestones
            .iter()
            .map(|milestone| (milestone.percent, milestone.task.as_str()))
            .collect();
        assert_eq!(
            milestones,
            [(25, "base"), (50, "base"), (75, "roof"), (100, "handover")]
        );
        assert!(
            timeline.summary().contains("roof → handover"),
            "{}",
            timeline.summary()
        );
        assert_eq!(timeline.table().lines().count(), 5);
    }
}

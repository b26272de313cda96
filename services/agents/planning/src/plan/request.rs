//! What a caller asks, as JSON, and the way from there to a [`Plan`]. Unknown fields are refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::civil::Date;
use muster_api::names;
use serde::{Deserialize, Serialize};

use super::{Error, Plan, Task};
use crate::calendar::{Calendar, Minutes};

/// Most tasks of one plan.
pub const MAX_TASKS: usize = 500;
/// Longest task, and longest sum of all, in days.
const MAX_DAYS: f64 = 36_500.0;
/// Most dates to avoid.
const MAX_AVOID_DATES: usize = 1_000;
/// Most dependencies of one plan.
const MAX_DEPENDENCIES: usize = 20_000;
/// Longest id or name.
const MAX_NAME: usize = 200;
/// Hours of a working day.
const DEFAULT_HOURS_PER_DAY: f64 = 8.0;
/// Reserve at the end.
const DEFAULT_BUFFER_PERCENT: f64 = 20.0;

/// A plan as a caller describes it, with what the single skills ask beyond the plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanRequest {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// First day, ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_date: Option<String>,
    /// The work.
    pub tasks: Vec<TaskRequest>,
    /// The work as an indented list, in place of `tasks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outline: Option<String>,
    /// Hours of a working day; 8 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours_per_day: Option<f64>,
    /// Whether weekends are free.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub working_days_only: bool,
    /// Dates on which weather-sensitive tasks are not worked on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub avoid_dates: Vec<String>,
    /// Reserve at the end in percent; 20 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_percent: Option<f64>,
    /// How much there is of each resource; 1 of those not named.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, u32>,
    /// Progress: the day that the report is about; its work counts as done or not by the evening.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub today: Option<String>,
    /// Progress: percent done, by task id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub progress: BTreeMap<String, f64>,
    /// Progress: ids of finished tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<String>,
    /// Optimization: by how many days a critical task might be shortened; 1 where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shorten_days: Option<f64>,
}

/// A task as a caller describes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskRequest {
    /// Unique in the plan.
    pub id: String,
    /// For people; the id where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Work in days; this or hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_days: Option<f64>,
    /// Work in hours; this or days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_hours: Option<f64>,
    /// Ids of tasks that must be finished before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// What it needs while it is worked on.
    #[serde(skip_serializing_if = "Demands::is_empty")]
    pub resources: Demands,
    /// Not before this date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earliest_start: Option<String>,
    /// Whether it avoids the dates to be avoided.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub weather_sensitive: bool,
}

/// Resources that a task needs: a list of names means one of each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a list of resource names, or an object from name to amount"
)]
pub enum Demands {
    /// One of each.
    Names(Vec<String>),
    /// So much of each.
    Amounts(BTreeMap<String, u32>),
}

impl Default for Demands {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Demands {
    fn is_empty(&self) -> bool {
        match self {
            Self::Names(names) => names.is_empty(),
            Self::Amounts(amounts) => amounts.is_empty(),
        }
    }
}

impl PlanRequest {
    /// The plan that is described. `start` serves plans without a start date, for questions that need no dates.
    pub fn plan(&self, start: Option<Date>) -> Result<Plan, Error> {
        let start = match (&self.start_date, start) {
            (Some(text), _) => date("start_date", text)?,
            (None, Some(start)) => start,
            (None, None) => {
                return Err(Error::new(
                    "start_date",
                    "is missing; give the first day, such as 2014-03-03",
                ));
            }
        };
        let calendar = self.calendar(start)?;
        let positions = self.positions()?;
        let mut tasks = Vec::with_capacity(self.tasks.len());
        for (position, task) in self.tasks.iter().enumerate() {
            tasks.push(task.parse(&format!("tasks[{position}]"), &positions, &calendar)?);
        }
        let total: Minutes = tasks.iter().map(|task: &Task| task.duration).sum();
        if calendar.days(total) > MAX_DAYS {
            return Err(Error::new(
                "tasks",
                format!("add up to more than {MAX_DAYS} days of work"),
            ));
        }
        let capacities = self.capacities(&tasks)?;
        let buffer_percent = self.buffer_percent.unwrap_or(DEFAULT_BUFFER_PERCENT);
        if !(0.0..=500.0).contains(&buffer_percent) {
            return Err(Error::new(
                "buffer_percent",
                format!("{buffer_percent} is outside 0 to 500"),
            ));
        }
        let name = self.name.clone().unwrap_or_else(|| "Plan".to_owned());
        check_name("name", &name)?;
        Plan::new(name, calendar, tasks, capacities, buffer_percent)
    }

    /// This request on top of another: what is said here holds, the rest is the other's.
    #[must_use]
    pub fn over(self, other: Self) -> Self {
        let mut resources = other.resources;
        resources.extend(self.resources);
        let mut progress = other.progress;
        progress.extend(self.progress);
        Self {
            name: self.name.or(other.name),
            start_date: self.start_date.or(other.start_date),
            tasks: if self.tasks.is_empty() {
                other.tasks
            } else {
                self.tasks
            },
            outline: self.outline.or(other.outline),
            hours_per_day: self.hours_per_day.or(other.hours_per_day),
            working_days_only: self.working_days_only || other.working_days_only,
            avoid_dates: [other.avoid_dates, self.avoid_dates].concat(),
            buffer_percent: self.buffer_percent.or(other.buffer_percent),
            resources,
            today: self.today.or(other.today),
            progress,
            done: [other.done, self.done].concat(),
            shorten_days: self.shorten_days.or(other.shorten_days),
        }
    }

    fn calendar(&self, start: Date) -> Result<Calendar, Error> {
        let hours = self.hours_per_day.unwrap_or(DEFAULT_HOURS_PER_DAY);
        if !(1.0..=24.0).contains(&hours) {
            return Err(Error::new("hours_per_day", format!("{hours} is outside 1 to 24")));
        }
        if self.avoid_dates.len() > MAX_AVOID_DATES {
            let count = self.avoid_dates.len();
            return Err(Error::new(
                "avoid_dates",
                format!("has {count} dates; at most {MAX_AVOID_DATES} are allowed"),
            ));
        }
        let avoid: BTreeSet<Date> = self
            .avoid_dates
            .iter()
            .enumerate()
            .map(|(index, text)| date(&format!("avoid_dates[{index}]"), text))
            .collect::<Result<_, _>>()?;
        Ok(Calendar::new(
            start,
            minutes(hours),
            self.working_days_only,
            &avoid,
        ))
    }

    /// Where each id is.
    fn positions(&self) -> Result<HashMap<&str, usize>, Error> {
        if self.tasks.is_empty() || self.tasks.len() > MAX_TASKS {
            let count = self.tasks.len();
            return Err(Error::new(
                "tasks",
                format!("has {count} tasks; give 1 to {MAX_TASKS}"),
            ));
        }
        let dependencies: usize = self.tasks.iter().map(|task| task.depends_on.len()).sum();
        if dependencies > MAX_DEPENDENCIES {
            let message = format!("have {dependencies} dependencies; at most {MAX_DEPENDENCIES} are read");
            return Err(Error::new("tasks", message));
        }
        let mut positions = HashMap::with_capacity(self.tasks.len());
        for (position, task) in self.tasks.iter().enumerate() {
            let field = format!("tasks[{position}].id");
            check_name(&field, &task.id)?;
            if let Some(first) = positions.insert(task.id.as_str(), position) {
                return Err(Error::new(
                    field,
                    format!("'{}' is also the id of tasks[{first}]; ids are unique", task.id),
                ));
            }
        }
        Ok(positions)
    }

    fn capacities(&self, tasks: &[Task]) -> Result<BTreeMap<String, u32>, Error> {
        let mut capacities = self.resources.clone();
        for (position, task) in tasks.iter().enumerate() {
            for (name, amount) in &task.demands {
                let capacity = *capacities.entry(name.clone()).or_insert(1);
                if *amount > capacity {
                    return Err(Error::new(
                        format!("tasks[{position}].resources.{name}"),
                        format!(
                            "needs {amount}, but there is {capacity}; raise `resources.{name}` or need less"
                        ),
                    ));
                }
            }
        }
        Ok(capacities)
    }
}

impl TaskRequest {
    fn parse(
        &self,
        path: &str,
        positions: &HashMap<&str, usize>,
        calendar: &Calendar,
    ) -> Result<Task, Error> {
        let name = self.name.clone().unwrap_or_else(|| self.id.clone());
        check_name(&format!("{path}.name"), &name)?;
        let mut depends_on = Vec::new();
        for (index, id) in self.depends_on.iter().enumerate() {
            let position = positions.get(id.as_str()).copied().ok_or_else(|| {
                let mut known: Vec<&str> = positions.keys().copied().collect();
                known.sort_unstable();
                let nearest = names::suggestion(id, known);
                Error::new(
                    format!("{path}.depends_on[{index}]"),
                    format!("no task has the id '{id}'{nearest}"),
                )
            })?;
            if !depends_on.contains(&position) {
                depends_on.push(position);
            }
        }
        let earliest_start = match &self.earliest_start {
            Some(text) => calendar.morning(date(&format!("{path}.earliest_start"), text)?),
            None => 0,
        };
        Ok(Task {
            id: self.id.clone(),
            name,
            duration: self.duration(path, calendar)?,
            depends_on,
            earliest_start,
            weather_sensitive: self.weather_sensitive,
            demands: self.demands(path)?,
        })
    }

    fn duration(&self, path: &str, calendar: &Calendar) -> Result<Minutes, Error> {
        #[expect(clippy::cast_precision_loss, reason = "at most a day")]
        let hours_per_day = calendar.minutes_per_day() as f64 / 60.0;
        let (field, given, hours) = match (self.duration_days, self.duration_hours) {
            (Some(days), None) => ("duration_days", days, days * hours_per_day),
            (None, Some(hours)) => ("duration_hours", hours, hours),
            (Some(_), Some(_)) => {
                let message = "both duration_days and duration_hours are given; give one of them";
                return Err(Error::new(format!("{path}.duration_hours"), message));
            }
            (None, None) => {
                let message = format!(
                    "task '{}' has no duration; give duration_days or duration_hours",
                    self.id
                );
                return Err(Error::new(format!("{path}.duration_days"), message));
            }
        };
        if !(0.0..=MAX_DAYS * hours_per_day).contains(&hours) {
            let message = format!("{given} is no duration; give 0 to {MAX_DAYS} days");
            return Err(Error::new(format!("{path}.{field}"), message));
        }
        Ok(minutes(hours))
    }

    fn demands(&self, path: &str) -> Result<BTreeMap<String, u32>, Error> {
        let mut demands = BTreeMap::new();
        match &self.resources {
            Demands::Names(names) => {
                for name in names {
                    *demands.entry(name.clone()).or_insert(0_u32) += 1;
                }
            }
            Demands::Amounts(amounts) => demands.clone_from(amounts),
        }
        for name in demands.keys() {
            check_name(&format!("{path}.resources"), name)?;
        }
        demands.retain(|_, amount| *amount > 0);
        Ok(demands)
    }
}

/// Reads an ISO date in the years that plans are made for.
pub(crate) fn date(field: &str, text: &str) -> Result<Date, Error> {
    let shown: String = text.chars().take(40).collect();
    let date: Date = text
        .trim()
        .parse()
        .map_err(|_| Error::new(field, format!("'{shown}' is no date; write it as 2014-03-03")))?;
    if (1900..=2200).contains(&date.year()) {
        Ok(date)
    } else {
        Err(Error::new(
            field,
            format!("'{shown}' is outside the years 1900 to 2200"),
        ))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 36500 days"
)]
fn minutes(hours: f64) -> Minutes {
    (hours * 60.0).round() as Minutes
}

fn check_name(field: &str, name: &str) -> Result<(), Error> {
    if name.trim().is_empty() {
        return Err(Error::new(field, "is missing or empty"));
    }
    if name.len() > MAX_NAME {
        return Err(Error::new(
            field,
            format!("has {} bytes; at most {MAX_NAME} are allowed", name.len()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn refused(change: impl FnOnce(&mut Value)) -> Error {
        let mut request = json!({
            "start_date": "2014-03-03",
            "tasks": [
                {"id": "a", "duration_days": 1},
                {"id": "b", "duration_hours": 4, "depends_on": ["a"], "resources": ["crew"]}
            ]
        });
        change(&mut request);
        let request: PlanRequest = serde_json::from_value(request).expect("the shape is right");
        request.plan(None).expect_err("something is wrong")
    }

    #[test]
    fn every_bad_field_is_named() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 21] = [
            ("start_date", |r| r["start_date"] = Value::Null),
            ("start_date", |r| r["start_date"] = json!("3 March")),
            ("start_date", |r| r["start_date"] = json!("0001-01-01")),
            ("tasks", |r| r["tasks"] = json!([])),
            ("tasks", |r| {
                r["tasks"] = json!(vec![json!({"id": "x"}); MAX_TASKS + 1])
            }),
            ("tasks[0].id", |r| r["tasks"][0]["id"] = json!(" ")),
            ("tasks[1].id", |r| r["tasks"][1]["id"] = json!("a")),
            ("tasks[0].duration_days", |r| {
                r["tasks"][0]["duration_days"] = json!(-1)
            }),
            ("tasks[0].duration_days", |r| {
                r["tasks"][0]["duration_days"] = Value::Null
            }),
            ("tasks[0].duration_days", |r| {
                r["tasks"][0]["duration_days"] = json!(1e9)
            }),
            ("tasks[1].duration_hours", |r| {
                r["tasks"][1]["duration_days"] = json!(1)
            }),
            ("tasks[1].duration_hours", |r| {
                r["tasks"][1]["duration_hours"] = json!(-0.5)
            }),
            ("tasks[1].depends_on[0]", |r| {
                r["tasks"][1]["depends_on"] = json!(["aa"])
            }),
            ("tasks[1].depends_on", |r| {
                r["tasks"][1]["depends_on"] = json!(["b"])
            }),
            ("tasks[0].earliest_start", |r| {
                r["tasks"][0]["earliest_start"] = json!("2014-02-30")
            }),
            ("tasks[1].resources.crew", |r| {
                r["tasks"][1]["resources"] = json!({"crew": 2})
            }),
            ("avoid_dates[1]", |r| {
                r["avoid_dates"] = json!(["2014-03-04", "rain"])
            }),
            ("hours_per_day", |r| r["hours_per_day"] = json!(25)),
            ("buffer_percent", |r| r["buffer_percent"] = json!(-1)),
            ("name", |r| r["name"] = json!("")),
            ("tasks[0].name", |r| {
                r["tasks"][0]["name"] = json!("x".repeat(MAX_NAME + 1))
            }),
        ];
        for (field, change) in cases {
            assert_eq!(refused(change).field, field);
        }
    }

    #[test]
    fn a_circle_is_named() {
        let error = refused(|request| {
            request["tasks"] = json!([
                {"id": "start", "duration_days": 1},
                {"id": "a", "duration_days": 1, "depends_on": ["start", "c"]},
                {"id": "b", "duration_days": 1, "depends_on": ["a"]},
                {"id": "c", "duration_days": 1, "depends_on": ["b"]},
                {"id": "end", "duration_days": 1, "depends_on": ["c"]}
            ]);
        });
        assert_eq!(error.field, "tasks[1].depends_on");
        assert!(error.message.contains("a → c → b → a"), "{error}");
        let alone = refused(|request| request["tasks"][0]["depends_on"] = json!(["a"]));
        assert!(alone.message.contains("a → a"), "{alone}");
    }

    #[test]
    fn an_unknown_dependency_suggests_the_nearest() {
        let error = refused(|request| {
            request["tasks"][0]["id"] = json!("survey");
            request["tasks"][1]["depends_on"] = json!(["survy"]);
        });
        assert!(error.message.contains("did you mean 'survey'"), "{error}");
    }

    #[test]
    fn days_and_hours_mean_working_time() {
        let request: PlanRequest = serde_json::from_value(json!({
            "start_date": "2014-03-03", "hours_per_day": 6,
            "tasks": [{"id": "a", "duration_days": 1.5}, {"id": "b", "duration_hours": 0.5, "depends_on": ["a", "a"]}]
        }))
        .unwrap();
        let plan = request.plan(None).unwrap();
        assert_eq!([plan.tasks[0].duration, plan.tasks[1].duration], [540, 30]);
        assert_eq!(plan.tasks[1].depends_on, [0]);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_value::<PlanRequest>(json!({"tasks": [{"id": "a", "duration": 3}]}))
            .unwrap_err();
        assert!(error.to_string().contains("unknown field `duration`"), "{error}");
    }
}

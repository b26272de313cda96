//! Risks: which tasks endanger the date, scored 1 to 10 from what the plan itself shows, each point explained.
//!
//! The score is a sum of factors and no probability: it ranks tasks for attention. From 7 a risk is high, from 4
//! medium.

use serde::Serialize;

use crate::calendar::Minutes;
use crate::plan::Plan;
use crate::resource::Overload;
use crate::schedule::Schedule;

/// From this score a risk is high.
const HIGH: u8 = 7;
/// From this score a risk is medium.
const MEDIUM: u8 = 4;

/// How much attention a risk wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// From 7.
    High,
    /// From 4.
    Medium,
    /// Below 4.
    Low,
}

/// A task and what endangers the plan through it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Risk {
    /// The task.
    pub task: String,
    /// 1 to 10.
    pub score: u8,
    /// What the score means.
    pub level: Level,
    /// What it is made of.
    pub factors: Vec<Factor>,
    /// What can be done about the weightiest factor.
    pub mitigation: String,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Factor {
    /// Its share of the score.
    pub points: u8,
    /// The reason.
    pub why: String,
    #[serde(skip)]
    mitigation: &'static str,
}

/// The risks of all tasks that have any, highest first.
#[must_use]
pub fn risks(plan: &Plan, schedule: &Schedule, overloads: &[Overload]) -> Vec<Risk> {
    let followers = followers(plan);
    let mut risks: Vec<(usize, Risk)> = (0..plan.tasks.len())
        .filter_map(|position| {
            let factors: Vec<Factor> = [
                slack(plan, schedule, position),
                length(plan, schedule, position),
                weather(plan, schedule, position),
                dependants(plan, position, followers[position]),
                contention(overloads, position),
            ]
            .into_iter()
            .flatten()
            .collect();
            Some((position, risk(plan, position, factors)?))
        })
        .collect();
    risks.sort_by_key(|(position, risk)| (std::cmp::Reverse(risk.score), *position));
    risks.into_iter().map(|(_, risk)| risk).collect()
}

fn risk(plan: &Plan, position: usize, factors: Vec<Factor>) -> Option<Risk> {
    let weightiest = factors.iter().max_by_key(|factor| factor.points)?;
    let score = factors
        .iter()
        .map(|factor| factor.points)
        .sum::<u8>()
        .saturating_add(1)
        .min(10);
    Some(Risk {
        task: plan.tasks[position].id.clone(),
        score,
        level: match score {
            HIGH.. => Level::High,
            MEDIUM.. => Level::Medium,
            _ => Level::Low,
        },
        mitigation: weightiest.mitigation.to_owned(),
        factors,
    })
}

fn slack(plan: &Plan, schedule: &Schedule, position: usize) -> Option<Factor> {
    let (slack, duration) = (schedule.slots[position].slack(), plan.tasks[position].duration);
    let mitigation = "watch it daily, and keep somebody ready who can help";
    if duration == 0 {
        None
    } else if slack == 0 {
        Some(Factor {
            points: 3,
            why: "no slack: every delay moves the end".to_owned(),
            mitigation,
        })
    } else if slack * 4 <= duration {
        let days = plan.calendar.days(slack);
        Some(Factor {
            points: 1,
            why: format!("little slack: {days} days"),
            mitigation,
        })
    } else {
        None
    }
}

fn length(plan: &Plan, schedule: &Schedule, position: usize) -> Option<Factor> {
    let duration = plan.tasks[position].duration;
    let mut all: Vec<Minutes> = plan.tasks.iter().map(|task| task.duration).collect();
    all.sort_unstable();
    let median = all[all.len() / 2];
    let days = plan.calendar.days(duration);
    let mitigation = "split it into parts that can be finished and seen one by one";
    if duration > 0 && duration * 3 >= schedule.makespan && plan.tasks.len() > 3 {
        let why = format!("long: its {days} days are a third of the plan or more");
        Some(Factor {
            points: 2,
            why,
            mitigation,
        })
    } else if duration >= median.saturating_mul(2) && duration >= 2 * plan.calendar.minutes_per_day() {
        let why = format!("long: {days} days, at least twice the median task");
        Some(Factor {
            points: 1,
            why,
            mitigation,
        })
    } else {
        None
    }
}

fn weather(plan: &Plan, schedule: &Schedule, position: usize) -> Option<Factor> {
    let task = &plan.tasks[position];
    if !task.weather_sensitive || task.duration == 0 {
        return None;
    }
    let slot = &schedule.slots[position];
    let free = task
        .depends_on
        .iter()
        .map(|&before| schedule.slots[before].earliest_finish)
        .max()
        .unwrap_or(0);
    let days = plan.calendar.avoided_between(
        free.max(task.earliest_start),
        slot.latest_finish.max(slot.earliest_finish),
    );
    let mitigation = "plan indoor work as a substitute, and look at the forecast again before it starts";
    Some(if days.is_empty() {
        Factor {
            points: 1,
            why: "depends on the weather".to_owned(),
            mitigation,
        }
    } else {
        let why = format!("bad weather on {} of the days in its time", days.len());
        Factor {
            points: 3,
            why,
            mitigation,
        }
    })
}

fn dependants(plan: &Plan, position: usize, followers: usize) -> Option<Factor> {
    let mitigation = "finish it early, and tell those who wait for it how it stands";
    let direct = plan.dependants(position).len();
    let others = plan.tasks.len().saturating_sub(1);
    if followers >= 3 && followers * 2 >= others {
        let why = format!("{followers} of the {others} other tasks wait for it, directly or not");
        Some(Factor {
            points: 2,
            why,
            mitigation,
        })
    } else if direct >= 3 {
        Some(Factor {
            points: 1,
            why: format!("{direct} tasks wait directly for it"),
            mitigation,
        })
    } else {
        None
    }
}

fn contention(overloads: &[Overload], position: usize) -> Option<Factor> {
    let overload = overloads
        .iter()
        .find(|overload| overload.positions.contains(&position))?;
    let why = format!(
        "needs '{}' while {} are needed and {} are there ({} to {})",
        overload.resource, overload.needed, overload.capacity, overload.from, overload.until
    );
    Some(Factor {
        points: 2,
        why,
        mitigation: "level the plan (skill resource_planning) or get more of the resource",
    })
}

fn followers(plan: &Plan) -> Vec<usize> {
    let mut followers = vec![0; plan.tasks.len()];
    for ancestors in plan.ancestors() {
        for (count, waits) in followers.iter_mut().zip(ancestors) {
            *count += usize::from(waits);
        }
    }
    followers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::request::PlanRequest;
    use crate::resource::overloads;
    use crate::schedule::schedule;
    use serde_json::{Value, json};

    fn of(request: Value) -> Vec<Risk> {
        let plan = serde_json::from_value::<PlanRequest>(request)
            .unwrap()
            .plan(None)
            .unwrap();
        let schedule = schedule(&plan);
        risks(&plan, &schedule, &overloads(&plan, &schedule))
    }

    #[test]
    fn a_long_critical_task_in_the_rain_that_all_wait_for_is_a_high_risk() {
        let risks = of(json!({
            "start_date": "2014-03-03", "avoid_dates": ["2014-03-05"],
            "tasks": [
                {"id": "dig", "duration_days": 6, "weather_sensitive": true},
                {"id": "walls", "duration_days": 2, "depends_on": ["dig"]},
                {"id": "wires", "duration_days": 1, "depends_on": ["dig"]},
                {"id": "doors", "duration_days": 1, "depends_on": ["walls"]}
            ]
        }));
        assert_eq!(
            (risks[0].task.as_str(), risks[0].score, risks[0].level),
            ("dig", 10, Level::High)
        );
        assert_eq!(risks[0].factors.len(), 4);
        let walls = risks.iter().find(|risk| risk.task == "walls").unwrap();
        assert_eq!((walls.score, walls.level), (4, Level::Medium));
        assert!(
            !risks.iter().any(|risk| risk.task == "wires"),
            "a short task with slack is no risk"
        );
    }

    #[test]
    fn rivals_for_a_resource_say_so() {
        let risks = of(json!({
            "start_date": "2014-03-03",
            "tasks": [{"id": "a", "duration_days": 1, "resources": ["crane"]}, {"id": "b", "duration_days": 5, "resources": ["crane"]}]
        }));
        let a = risks.iter().find(|risk| risk.task == "a").unwrap();
        assert!(a.factors[0].why.contains("crane"), "{a:?}");
    }
}

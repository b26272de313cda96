//! Resources: where a schedule needs more than there is, and the schedule that does not.
//!
//! Levelling takes the tasks by how late they may start, dependencies first, and gives each the earliest moment at
//! which everything it needs is free for its whole duration (serial schedule generation). That is good and fast,
//! not optimal: the optimal levelled schedule is NP-hard to find.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::calendar::{Minutes, Stretch};
use crate::plan::{Error, Plan};
use crate::schedule::Schedule;

/// Most overloads that are listed.
const MAX_OVERLOADS: usize = 200;

/// Most comparisons of levelling, so that no request computes for minutes.
const MAX_STEPS: u64 = 100_000_000;

/// A time in which a resource is needed more than there is of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overload {
    /// The resource.
    pub resource: String,
    /// How much there is.
    pub capacity: u32,
    /// How much is needed.
    pub needed: u64,
    /// First day.
    pub from: String,
    /// Last day.
    pub until: String,
    /// Who needs it.
    pub tasks: Vec<String>,
    #[serde(skip)]
    pub(crate) positions: Vec<usize>,
}

/// How much a resource is used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Usage {
    /// The resource.
    pub resource: String,
    /// How much there is.
    pub capacity: u32,
    /// Work that needs it, in days times amount.
    pub days_needed: f64,
    /// Share of the makespan's capacity that is used, in percent.
    pub utilization_percent: f64,
    /// The most that is needed at once.
    pub peak: u64,
}

/// When each task is worked on so that nothing is overloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levelled {
    /// One stretch per task, in the plan's order.
    pub stretches: Vec<Stretch>,
    /// The last finish.
    pub makespan: Minutes,
}

/// The overloads of a schedule in which every task starts as early as it can.
#[must_use]
pub fn overloads(plan: &Plan, schedule: &Schedule) -> Vec<Overload> {
    let mut overloads = Vec::new();
    for (resource, &capacity) in &plan.capacities {
        spans(plan, schedule, resource, |stretch, users, needed| {
            if needed <= u64::from(capacity) || overloads.len() >= MAX_OVERLOADS {
                return;
            }
            let positions: Vec<usize> = users.iter().copied().collect();
            overloads.push(Overload {
                resource: resource.clone(),
                capacity,
                needed,
                from: plan.calendar.start_date(stretch.start).to_string(),
                until: plan.calendar.finish_date(stretch.finish).to_string(),
                tasks: plan.ids(&positions),
                positions,
            });
        });
    }
    overloads
}

/// How much each resource is used.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub fn usage(plan: &Plan, schedule: &Schedule) -> Vec<Usage> {
    let of = |(resource, &capacity): (&String, &u32)| {
        let needed: u64 = plan
            .tasks
            .iter()
            .map(|task| task.duration * u64::from(demand(&task.demands, resource)))
            .sum();
        let available = schedule.makespan * u64::from(capacity);
        let mut peak = 0;
        spans(plan, schedule, resource, |_, _, needed| peak = peak.max(needed));
        let share = if available == 0 {
            0.0
        } else {
            needed as f64 / available as f64
        };
        Usage {
            resource: resource.clone(),
            capacity,
            days_needed: plan.calendar.days(needed),
            utilization_percent: (share * 1000.0).round() / 10.0,
            peak,
        }
    };
    plan.capacities.iter().map(of).collect()
}

/// The schedule without overloads. Refused when finding it would take too many steps.
pub fn level(plan: &Plan, schedule: &Schedule) -> Result<Levelled, Error> {
    let mut steps = 0;
    let mut placed: Vec<Option<Stretch>> = vec![None; plan.tasks.len()];
    let mut work: Vec<Vec<Stretch>> = vec![Vec::new(); plan.tasks.len()];
    let mut ready: BTreeSet<(Minutes, usize)> = BTreeSet::new();
    let mut waits_for: Vec<usize> = plan.tasks.iter().map(|task| task.depends_on.len()).collect();
    let urgency = |position: usize| (schedule.slots[position].latest_start, position);
    ready.extend(
        (0..plan.tasks.len())
            .filter(|&position| waits_for[position] == 0)
            .map(urgency),
    );
    while let Some((_, position)) = ready.pop_first() {
        let (stretch, parts) = place(plan, &placed, &work, position, &mut steps);
        if steps > MAX_STEPS {
            let message = "the plan is too entangled to level; need fewer resources, or avoid fewer dates";
            return Err(Error::new("resources", message));
        }
        placed[position] = Some(stretch);
        work[position] = parts;
        for &after in plan.dependants(position) {
            waits_for[after] -= 1;
            if waits_for[after] == 0 {
                ready.insert(urgency(after));
            }
        }
    }
    let stretches: Vec<Stretch> = placed.into_iter().flatten().collect();
    let makespan = stretches.iter().map(|stretch| stretch.finish).max().unwrap_or(0);
    Ok(Levelled { stretches, makespan })
}

/// The earliest stretch of a task at which its resources are free. A resource becomes free where another task
/// finishes a part of its work, so only those moments need to be tried; behind the last of them all is free.
fn place(
    plan: &Plan,
    placed: &[Option<Stretch>],
    work: &[Vec<Stretch>],
    position: usize,
    steps: &mut u64,
) -> (Stretch, Vec<Stretch>) {
    let task = &plan.tasks[position];
    let finished = task
        .depends_on
        .iter()
        .filter_map(|&before| placed[before])
        .map(|stretch| stretch.finish);
    let free = finished.max().unwrap_or(0).max(task.earliest_start);
    let rivals: Vec<usize> = (0..plan.tasks.len())
        .filter(|&other| {
            task.demands
                .keys()
                .any(|resource| plan.tasks[other].demands.contains_key(resource))
        })
        .collect();
    let pieces =
        rivals.iter().map(|&rival| work[rival].len() as u64).sum::<u64>() * task.demands.len() as u64;
    let ends = rivals
        .iter()
        .flat_map(|&rival| work[rival].iter().map(|part| part.finish));
    let moments: BTreeSet<Minutes> = ends.filter(|end| *end > free).chain([free]).collect();
    let fits = |parts: &[Stretch]| {
        parts.iter().all(|part| {
            task.demands.iter().all(|(resource, amount)| {
                let capacity = plan.capacities.get(resource).copied().unwrap_or(1);
                u64::from(*amount) + peak(plan, work, &rivals, resource, *part) <= u64::from(capacity)
            })
        })
    };
    let mut last = (
        Stretch {
            start: free,
            finish: free,
        },
        Vec::new(),
    );
    for moment in moments {
        let parts = plan.calendar.parts(moment, task.duration, task.weather_sensitive);
        let stretch = plan
            .calendar
            .earliest(moment, task.duration, task.weather_sensitive);
        *steps += parts.len() as u64 * pieces;
        let fitting = *steps > MAX_STEPS || fits(&parts);
        last = (stretch, parts);
        if fitting {
            break;
        }
    }
    last
}

/// The most that placed tasks need of a resource at once within a stretch.
fn peak(plan: &Plan, work: &[Vec<Stretch>], rivals: &[usize], resource: &str, within: Stretch) -> u64 {
    let mut changes: BTreeMap<Minutes, (u64, u64)> = BTreeMap::new();
    for &rival in rivals {
        let amount = u64::from(demand(&plan.tasks[rival].demands, resource));
        for part in &work[rival] {
            let (start, finish) = (part.start.max(within.start), part.finish.min(within.finish));
            if start < finish && amount > 0 {
                changes.entry(start).or_default().0 += amount;
                changes.entry(finish).or_default().1 += amount;
            }
        }
    }
    let (mut needed, mut most) = (0, 0);
    for (more, less) in changes.into_values() {
        needed = needed + more - less;
        most = most.max(needed);
    }
    most
}

/// Tells the spans of a resource's use in order, with their users and what those need; neighbours have different
/// users.
fn spans(
    plan: &Plan,
    schedule: &Schedule,
    resource: &str,
    mut tell: impl FnMut(Stretch, &BTreeSet<usize>, u64),
) {
    let mut changes: BTreeMap<Minutes, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for (position, task) in plan.tasks.iter().enumerate() {
        if demand(&task.demands, resource) == 0 {
            continue;
        }
        let start = schedule.slots[position].earliest_start;
        for part in plan.calendar.parts(start, task.duration, task.weather_sensitive) {
            changes.entry(part.start).or_default().0.push(position);
            changes.entry(part.finish).or_default().1.push(position);
        }
    }
    let amount = |position: usize| u64::from(demand(&plan.tasks[position].demands, resource));
    let mut users: BTreeSet<usize> = BTreeSet::new();
    let (mut needed, mut since) = (0, 0);
    for (moment, (starting, finishing)) in changes {
        if !users.is_empty() {
            tell(
                Stretch {
                    start: since,
                    finish: moment,
                },
                &users,
                needed,
            );
        }
        for position in finishing {
            users.remove(&position);
            needed -= amount(position);
        }
        for position in starting {
            users.insert(position);
            needed += amount(position);
        }
        since = moment;
    }
}

fn demand(demands: &BTreeMap<String, u32>, resource: &str) -> u32 {
    demands.get(resource).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::request::{Demands, PlanRequest, TaskRequest};
    use crate::schedule::schedule;
    use proptest::prelude::*;
    use serde_json::json;

    fn two_roofs() -> Plan {
        let request: PlanRequest = serde_json::from_value(json!({
            "start_date": "2014-03-03",
            "resources": {"crew": 2},
            "tasks": [
                {"id": "north", "duration_days": 2, "resources": {"crew": 2}},
                {"id": "south", "duration_days": 3, "resources": ["crew"]},
                {"id": "paint", "duration_days": 1, "depends_on": ["north"], "resources": ["painter"]}
            ]
        }))
        .unwrap();
        request.plan(None).unwrap()
    }

    #[test]
    fn an_overload_names_when_what_and_who() {
        let plan = two_roofs();
        let overloads = overloads(&plan, &schedule(&plan));
        assert_eq!(overloads.len(), 1);
        assert_eq!((overloads[0].needed, overloads[0].capacity), (3, 2));
        assert_eq!(
            (overloads[0].from.as_str(), overloads[0].until.as_str()),
            ("2014-03-03", "2014-03-04")
        );
        assert_eq!(overloads[0].tasks, ["north", "south"]);
    }

    #[test]
    fn levelling_moves_one_behind_the_other() {
        let plan = two_roofs();
        let levelled = level(&plan, &schedule(&plan)).unwrap();
        assert_eq!(plan.calendar.days(levelled.makespan), 5.0);
        let usage = usage(&plan, &schedule(&plan));
        assert_eq!(usage[0].days_needed, 7.0);
        assert_eq!((usage[0].peak, usage[0].utilization_percent), (3, 116.7));
    }

    #[test]
    fn an_entangled_plan_is_refused_before_it_takes_minutes() {
        let task = |number: usize| TaskRequest {
            id: format!("t{number}"),
            duration_days: Some(60.0),
            resources: Demands::Names(vec!["crew".to_owned()]),
            weather_sensitive: true,
            ..TaskRequest::default()
        };
        let start = jiff::civil::date(2014, 3, 3);
        let every_second_day =
            (0..1_000_i32).map(|day| start.saturating_add(jiff::Span::new().days(day * 2)));
        let request = PlanRequest {
            start_date: Some(start.to_string()),
            tasks: (0..500).map(task).collect(),
            avoid_dates: every_second_day.map(|date| date.to_string()).collect(),
            ..PlanRequest::default()
        };
        let plan = request.plan(None).unwrap();
        assert_eq!(level(&plan, &schedule(&plan)).unwrap_err().field, "resources");
    }

    proptest! {
        #[test]
        fn a_levelled_schedule_overloads_nothing_and_keeps_dependencies(
            tasks in prop::collection::vec((0..20_u32, 0..3_u32, 0..3_u32, any::<bool>(), any::<prop::sample::Index>()), 1..15),
        ) {
            let tasks = tasks.into_iter().enumerate().map(|(position, (hours, crew, crane, weather, before))| TaskRequest {
                id: format!("t{position}"),
                duration_hours: Some(f64::from(hours)),
                depends_on: before.index(position + 2).checked_sub(2).map(|index| format!("t{index}")).into_iter().collect(),
                resources: Demands::Amounts([("crew".to_owned(), crew), ("crane".to_owned(), crane)].into()),
                weather_sensitive: weather,
                ..TaskRequest::default()
            });
            let request = PlanRequest {
                start_date: Some("2014-03-03".to_owned()),
                tasks: tasks.collect(),
                resources: [("crew".to_owned(), 3), ("crane".to_owned(), 2)].into(),
                avoid_dates: vec!["2014-03-04".to_owned(), "2014-03-06".to_owned()],
                ..PlanRequest::default()
            };
            let plan = request.plan(None).unwrap();
            let early = schedule(&plan);
            let levelled = level(&plan, &early).unwrap();
            prop_assert!(levelled.makespan >= early.makespan);
            let work: Vec<Vec<Stretch>> = plan.tasks.iter().zip(&levelled.stretches)
                .map(|(task, stretch)| plan.calendar.parts(stretch.start, task.duration, task.weather_sensitive)).collect();
            let everybody: Vec<usize> = (0..plan.tasks.len()).collect();
            let always = Stretch { start: 0, finish: levelled.makespan };
            prop_assert!(peak(&plan, &work, &everybody, "crew", always) <= 3);
            prop_assert!(peak(&plan, &work, &everybody, "crane", always) <= 2);
            for (task, stretch) in plan.tasks.iter().zip(&levelled.stretches) {
                for &before in &task.depends_on {
                    prop_assert!(stretch.start >= levelled.stretches[before].finish);
                }
            }
        }
    }
}

//! Cases that can be checked by hand, and the invariants on random plans.

use std::collections::BTreeSet;

use jiff::ToSpan as _;
use jiff::civil::{Date, date};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plan::request::{PlanRequest, TaskRequest};

fn plan(request: Value) -> Plan {
    serde_json::from_value::<PlanRequest>(request)
        .unwrap()
        .plan(None)
        .unwrap()
}

fn ids(plan: &Plan, positions: &[usize]) -> String {
    plan.ids(positions).join(" ")
}

/// A small house: foundation 3 d, then walls 5 d and (meanwhile) windows 2 d, then roof 2 d.
fn house(extra: Value) -> Value {
    let mut request = json!({
        "start_date": "2014-03-03",
        "tasks": [
            {"id": "foundation", "duration_days": 3},
            {"id": "walls", "duration_days": 5, "depends_on": ["foundation"]},
            {"id": "windows", "duration_days": 2, "depends_on": ["foundation"]},
            {"id": "roof", "duration_days": 2, "depends_on": ["walls", "windows"], "weather_sensitive": true}
        ]
    });
    for (key, value) in extra.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

#[test]
fn the_longest_chain_decides_and_the_others_have_slack() {
    let plan = plan(house(json!({})));
    let schedule = schedule(&plan);
    assert_eq!(plan.calendar.days(schedule.makespan), 10.0);
    assert_eq!(ids(&plan, &schedule.critical_path), "foundation walls roof");
    assert_eq!(plan.calendar.days(schedule.slots[2].slack()), 3.0);
    assert_eq!(plan.calendar.finish_date(schedule.makespan), date(2014, 3, 12));
}

#[test]
fn weekends_and_rain_move_what_they_touch() {
    let working = plan(house(json!({"working_days_only": true})));
    assert_eq!(
        working.calendar.finish_date(schedule(&working).makespan),
        date(2014, 3, 14)
    );

    let rainy = plan(house(json!({"avoid_dates": ["2014-03-11", "2014-03-12"]})));
    let wet = schedule(&rainy);
    assert_eq!(rainy.calendar.finish_date(wet.makespan), date(2014, 3, 14));
    assert_eq!(
        ids(&rainy, &wet.critical_path),
        "roof",
        "the rain is what the roof waits for"
    );
    assert_eq!(
        rainy.calendar.days(wet.slots[1].slack()),
        2.0,
        "the walls may dawdle while it rains"
    );
}

#[test]
fn an_earliest_start_can_decide() {
    let mut request = house(json!({}));
    request["tasks"][2]["earliest_start"] = json!("2014-03-20");
    let plan = plan(request);
    let schedule = schedule(&plan);
    assert_eq!(ids(&plan, &schedule.critical_path), "windows roof");
    assert_eq!(
        plan.calendar.start_date(schedule.slots[2].earliest_start),
        date(2014, 3, 20)
    );
}

#[test]
fn tasks_without_length_are_moments() {
    let plan = plan(json!({
        "start_date": "2014-03-03",
        "tasks": [
            {"id": "a", "duration_days": 1}, {"id": "gate", "duration_days": 0, "depends_on": ["a"]},
            {"id": "b", "duration_days": 1, "depends_on": ["gate"]}
        ]
    }));
    let schedule = schedule(&plan);
    assert_eq!(ids(&plan, &schedule.critical_path), "a gate b");
    assert_eq!(
        schedule.slots[1].earliest_start,
        schedule.slots[1].earliest_finish
    );
}

#[test]
fn variations_leave_out_shorten_and_finish() {
    let plan = plan(house(json!({})));
    let mut variation = Variation::none(&plan);
    variation.without = Some((1, 0));
    assert_eq!(plan.calendar.days(vary(&plan, &variation).makespan), 7.0);
    let mut variation = Variation::none(&plan);
    variation.done = vec![true, false, true, false];
    variation.not_before = plan.calendar.evening(date(2014, 3, 7));
    assert_eq!(
        plan.calendar.finish_date(vary(&plan, &variation).makespan),
        date(2014, 3, 14)
    );
}

#[derive(Debug, Clone)]
struct Random {
    request: PlanRequest,
    avoid: BTreeSet<Date>,
}

fn random(with_calendar: bool) -> impl Strategy<Value = Random> {
    let task = (
        0..=40_u32,
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        any::<bool>(),
        0..12_i32,
    );
    let tasks = prop::collection::vec(task, 1..25);
    (
        tasks,
        prop::collection::btree_set(0..30_i32, 0..12),
        any::<bool>(),
    )
        .prop_map(move |(tasks, avoid, free)| {
            let start = date(2014, 3, 3);
            let day = |days: i32| start.saturating_add(days.days());
            let tasks =
                tasks
                    .into_iter()
                    .enumerate()
                    .map(|(position, (hours, before, weather, earliest))| TaskRequest {
                        id: format!("t{position}"),
                        duration_hours: Some(f64::from(hours)),
                        depends_on: if position == 0 {
                            Vec::new()
                        } else {
                            before
                                .iter()
                                .map(|index| format!("t{}", index.index(position)))
                                .collect()
                        },
                        weather_sensitive: with_calendar && weather,
                        earliest_start: (with_calendar && earliest > 8).then(|| day(earliest).to_string()),
                        ..TaskRequest::default()
                    });
            let avoid: BTreeSet<Date> = avoid.into_iter().map(day).collect();
            Random {
                request: PlanRequest {
                    start_date: Some(start.to_string()),
                    tasks: tasks.rev().collect(),
                    working_days_only: with_calendar && free,
                    avoid_dates: avoid.iter().map(Date::to_string).collect(),
                    ..PlanRequest::default()
                },
                avoid,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn dependencies_slack_and_weather_are_respected(random in random(true)) {
        let plan = random.request.plan(None).unwrap();
        let schedule = schedule(&plan);
        for (task, slot) in plan.tasks.iter().zip(&schedule.slots) {
            prop_assert!(slot.latest_start >= slot.earliest_start, "slack is not negative");
            prop_assert!(slot.latest_finish <= schedule.makespan);
            prop_assert!(slot.earliest_start >= task.earliest_start);
            for &before in &task.depends_on {
                prop_assert!(slot.earliest_start >= schedule.slots[before].earliest_finish);
                prop_assert!(slot.latest_start >= schedule.slots[before].latest_finish);
            }
            for start in [slot.earliest_start, slot.latest_start] {
                let parts = plan.calendar.parts(start, task.duration, task.weather_sensitive);
                let worked: Minutes = parts.iter().map(|part| part.finish - part.start).sum();
                prop_assert_eq!(worked, task.duration);
                for part in parts {
                    for day in part.start / 480..=(part.finish - 1) / 480 {
                        let date = plan.calendar.date_of(day);
                        prop_assert!(!task.weather_sensitive || !random.avoid.contains(&date));
                        let weekend = date.weekday().to_monday_zero_offset() > 4;
                        prop_assert!(!(random.request.working_days_only && weekend));
                    }
                }
            }
        }
        let last = *schedule.critical_path.last().unwrap();
        prop_assert_eq!(schedule.slots[last].earliest_finish, schedule.makespan);
        for &position in &schedule.critical_path {
            prop_assert!(schedule.slots[position].is_critical());
        }
        for pair in schedule.critical_path.windows(2) {
            prop_assert!(plan.tasks[pair[1]].depends_on.contains(&pair[0]));
        }
    }

    #[test]
    fn without_weather_and_fixed_starts_the_critical_path_is_as_long_as_the_plan(random in random(false)) {
        let plan = random.request.plan(None).unwrap();
        let schedule = schedule(&plan);
        let length: Minutes = schedule.critical_path.iter().map(|&position| plan.tasks[position].duration).sum();
        prop_assert_eq!(length, schedule.makespan);
    }

    #[test]
    fn delaying_a_task_by_its_slack_does_not_move_the_end(random in random(true), index in any::<prop::sample::Index>()) {
        let plan = random.request.plan(None).unwrap();
        let before = schedule(&plan);
        let position = index.index(plan.tasks.len());
        let mut delayed = plan.clone();
        delayed.tasks[position].earliest_start = before.slots[position].latest_start;
        prop_assert_eq!(schedule(&delayed).makespan, before.makespan);
    }
}

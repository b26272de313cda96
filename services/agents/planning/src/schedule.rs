//! The schedule of a plan by the critical path method.
//!
//! Forwards, each task starts as early as its dependencies, its own earliest start and the weather allow; backwards
//! from the last finish, as late as its dependants allow. The difference is its slack, in working minutes; a task
//! without slack is critical. Invariants: slack is never negative, no task starts before what it waits for
//! ends, and a weather-sensitive task works on no avoided day.
//!
//! The critical path is one chain of critical tasks back from the last finish. It ends where no critical task
//! forces the start: at the plan's start, at an earliest start, or behind days of bad weather.

use crate::calendar::Minutes;
use crate::plan::Plan;

/// When a task can and must be worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Start as early as possible.
    pub earliest_start: Minutes,
    /// Finish after the earliest start.
    pub earliest_finish: Minutes,
    /// Start as late as possible without moving the end of the plan.
    pub latest_start: Minutes,
    /// Finish after the latest start.
    pub latest_finish: Minutes,
}

impl Slot {
    /// By how much the start may move without moving the end of the plan.
    #[must_use]
    pub fn slack(&self) -> Minutes {
        self.latest_start.saturating_sub(self.earliest_start)
    }

    /// Whether any delay delays the plan.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        self.slack() == 0
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// One slot per task, in the plan's order.
    pub slots: Vec<Slot>,
    /// The last finish.
    pub makespan: Minutes,
    /// Positions of one critical path, first task first.
    pub critical_path: Vec<usize>,
}

/// A plan with differences, to see what they would change.
#[derive(Debug, Clone)]
pub struct Variation {
    /// Durations in place of the plan's.
    pub durations: Vec<Minutes>,
    /// A dependency (task, what it waits for) that is left out.
    pub without: Option<(usize, usize)>,
    /// Nothing starts before.
    pub not_before: Minutes,
    /// Tasks that are finished: they wait for nothing and take no time.
    pub done: Vec<bool>,
}

impl Variation {
    /// The plan as it is.
    #[must_use]
    pub fn none(plan: &Plan) -> Self {
        Self {
            durations: plan.tasks.iter().map(|task| task.duration).collect(),
            without: None,
            not_before: 0,
            done: vec![false; plan.tasks.len()],
        }
    }

    fn counts(&self, task: usize, before: usize) -> bool {
        self.without != Some((task, before)) && !self.done[task]
    }
}

/// The schedule of a plan.
#[must_use]
pub fn schedule(plan: &Plan) -> Schedule {
    vary(plan, &Variation::none(plan))
}

/// The schedule of a plan with differences.
#[must_use]
pub fn vary(plan: &Plan, variation: &Variation) -> Schedule {
    let early = forwards(plan, variation);
    let makespan = early
        .iter()
        .map(|(_, finish)| *finish)
        .max()
        .unwrap_or(variation.not_before);
    let late = backwards(plan, variation, makespan);
    let slots: Vec<Slot> = early
        .into_iter()
        .zip(late)
        .map(
            |((earliest_start, earliest_finish), (latest_start, latest_finish))| Slot {
                earliest_start,
                earliest_finish,
                latest_start,
                latest_finish,
            },
        )
        .collect();
    let critical_path = critical_path(plan, variation, &slots, makespan);
    Schedule {
        slots,
        makespan,
        critical_path,
    }
}

fn forwards(plan: &Plan, variation: &Variation) -> Vec<(Minutes, Minutes)> {
    let mut early = vec![(0, 0); plan.tasks.len()];
    for &position in plan.order() {
        let task = &plan.tasks[position];
        if variation.done[position] {
            early[position] = (variation.not_before, variation.not_before);
            continue;
        }
        let counted = task
            .depends_on
            .iter()
            .filter(|before| variation.counts(position, **before));
        let free = counted.map(|&before| early[before].1).max().unwrap_or(0);
        let free = free.max(task.earliest_start).max(variation.not_before);
        let stretch = plan
            .calendar
            .earliest(free, variation.durations[position], task.weather_sensitive);
        early[position] = (stretch.start, stretch.finish);
    }
    early
}

fn backwards(plan: &Plan, variation: &Variation, makespan: Minutes) -> Vec<(Minutes, Minutes)> {
    let mut late = vec![(0, makespan); plan.tasks.len()];
    for &position in plan.order().iter().rev() {
        let waiting = plan
            .dependants(position)
            .iter()
            .filter(|after| variation.counts(**after, position));
        let until = waiting.map(|&after| late[after].0).min().unwrap_or(makespan);
        let duration = if variation.done[position] {
            0
        } else {
            variation.durations[position]
        };
        let avoiding = plan.tasks[position].weather_sensitive;
        let start = plan.calendar.latest_start(until, duration, avoiding);
        late[position] = (start, plan.calendar.earliest(start, duration, avoiding).finish);
    }
    late
}

fn critical_path(plan: &Plan, variation: &Variation, slots: &[Slot], makespan: Minutes) -> Vec<usize> {
    let ends_last = |position: &usize| slots[*position].earliest_finish == makespan;
    let mut next = (0..slots.len()).filter(ends_last).max_by_key(|&position| {
        // Of tasks that end together, one that nothing waits for, and of those the longest, explains the end best;
        // the first given wins a tie.
        let is_end = plan.dependants(position).is_empty();
        (is_end, variation.durations[position], std::cmp::Reverse(position))
    });
    let mut path = Vec::new();
    while let Some(position) = next {
        path.push(position);
        let task = &plan.tasks[position];
        let forces = |before: &&usize| {
            let finish = slots[**before].earliest_finish;
            let forced =
                plan.calendar
                    .earliest(finish, variation.durations[position], task.weather_sensitive);
            variation.counts(position, **before)
                && slots[**before].is_critical()
                && forced.start == slots[position].earliest_start
        };
        let forcing = task.depends_on.iter().filter(forces);
        next = forcing
            .max_by_key(|&&before| slots[before].earliest_finish)
            .copied();
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests;

//! Milestones: when a quarter, half, three quarters and all of the work is finished, and by which task.
//!
//! Work counts when its task is finished and not before, so that a milestone is an event that can be seen.

use serde::Serialize;

use crate::plan::Plan;
use crate::schedule::Schedule;

/// Shares of the work, in percent.
const SHARES: [u64; 4] = [25, 50, 75, 100];

/// The finish of the task that completes a share of the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Milestone {
    /// Share of the work in percent.
    pub percent: u64,
    /// When, if every task starts as early as it can.
    pub date: String,
    /// The task whose finish completes the share.
    pub task: String,
}

/// The milestones of a schedule.
#[must_use]
pub fn milestones(plan: &Plan, schedule: &Schedule) -> Vec<Milestone> {
    let total: u64 = plan.tasks.iter().map(|task| task.duration).sum();
    let mut by_finish: Vec<usize> = (0..plan.tasks.len()).collect();
    by_finish.sort_by_key(|&position| (schedule.slots[position].earliest_finish, position));
    let mut milestones = Vec::new();
    let mut finished = 0;
    let mut shares = SHARES.iter().peekable();
    for (index, &position) in by_finish.iter().enumerate() {
        finished += plan.tasks[position].duration;
        let is_last = index + 1 == by_finish.len();
        // The last share is complete with the last finish, also when tasks without length follow the last work.
        while let Some(&&percent) = shares.peek()
            && ((percent < 100 && finished * 100 >= total * percent) || is_last)
        {
            milestones.push(Milestone {
                percent,
                date: plan
                    .calendar
                    .finish_date(schedule.slots[position].earliest_finish)
                    .to_string(),
                task: plan.tasks[position].id.clone(),
            });
            shares.next();
        }
    }
    milestones
}

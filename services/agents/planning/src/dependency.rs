//! What the dependencies of a plan say, dates aside: waves of tasks that may run together, bottlenecks, and
//! dependencies that others imply.

use serde::Serialize;

use crate::plan::Plan;
use crate::schedule::Schedule;

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// Tasks that wait for nothing.
    pub starts: Vec<String>,
    /// Tasks that nothing waits for.
    pub ends: Vec<String>,
    /// Tasks by the number of steps before them; those of one wave do not wait for each other.
    pub waves: Vec<Vec<String>>,
    /// Most tasks in one wave.
    pub widest_wave: usize,
    /// One critical path.
    pub critical_path: Vec<String>,
    /// Its length in days.
    pub critical_path_days: f64,
    /// Each task and what waits for it, most first.
    pub bottlenecks: Vec<Bottleneck>,
    /// Dependencies that could be left out without a difference.
    pub redundant: Vec<Redundant>,
}

/// A task that others wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bottleneck {
    /// The task.
    pub task: String,
    /// Tasks that wait directly.
    pub direct_dependants: usize,
    /// Tasks that wait, directly or not.
    pub all_dependants: usize,
}

/// A dependency that another chain implies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Redundant {
    /// The task that waits.
    pub task: String,
    /// What it waits for anyhow.
    pub depends_on: String,
    /// The dependency that implies it.
    pub implied_by: String,
}

/// Analyses a plan.
#[must_use]
pub fn analyse(plan: &Plan, schedule: &Schedule) -> Analysis {
    let ancestors = plan.ancestors();
    let all = || 0..plan.tasks.len();
    let waves = waves(plan);
    let mut bottlenecks: Vec<Bottleneck> = all()
        .map(|position| Bottleneck {
            task: plan.tasks[position].id.clone(),
            direct_dependants: plan.dependants(position).len(),
            all_dependants: ancestors.iter().filter(|before| before[position]).count(),
        })
        .filter(|bottleneck| bottleneck.all_dependants > 0)
        .collect();
    bottlenecks.sort_by_key(|bottleneck| {
        std::cmp::Reverse((bottleneck.all_dependants, bottleneck.direct_dependants))
    });
    let starts: Vec<usize> = all()
        .filter(|&position| plan.tasks[position].depends_on.is_empty())
        .collect();
    let ends: Vec<usize> = all()
        .filter(|&position| plan.dependants(position).is_empty())
        .collect();
    Analysis {
        starts: plan.ids(&starts),
        ends: plan.ids(&ends),
        widest_wave: waves.iter().map(Vec::len).max().unwrap_or(0),
        waves: waves.iter().map(|wave| plan.ids(wave)).collect(),
        critical_path: plan.ids(&schedule.critical_path),
        critical_path_days: plan.calendar.days(
            schedule
                .critical_path
                .iter()
                .map(|&position| plan.tasks[position].duration)
                .sum(),
        ),
        bottlenecks,
        redundant: redundant(plan, &ancestors),
    }
}

fn waves(plan: &Plan) -> Vec<Vec<usize>> {
    let mut depth = vec![0; plan.tasks.len()];
    for &position in plan.order() {
        let before = &plan.tasks[position].depends_on;
        depth[position] = before.iter().map(|&before| depth[before] + 1).max().unwrap_or(0);
    }
    let deepest = depth.iter().copied().max().unwrap_or(0);
    let mut waves = vec![Vec::new(); deepest + 1];
    for (position, depth) in depth.into_iter().enumerate() {
        waves[depth].push(position);
    }
    waves
}

fn redundant(plan: &Plan, ancestors: &[Vec<bool>]) -> Vec<Redundant> {
    let mut redundant = Vec::new();
    for task in &plan.tasks {
        for &before in &task.depends_on {
            let implying = task
                .depends_on
                .iter()
                .find(|&&other| other != before && ancestors[other][before]);
            if let Some(&other) = implying {
                redundant.push(Redundant {
                    task: task.id.clone(),
                    depends_on: plan.tasks[before].id.clone(),
                    implied_by: plan.tasks[other].id.clone(),
                });
            }
        }
    }
    redundant
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::request::PlanRequest;
    use crate::schedule::{Variation, schedule, vary};
    use serde_json::json;

    #[test]
    fn waves_bottlenecks_and_what_is_superfluous() {
        let request: PlanRequest = serde_json::from_value(json!({
            "start_date": "2014-03-03",
            "tasks": [
                {"id": "a", "duration_days": 1}, {"id": "b", "duration_days": 2, "depends_on": ["a"]},
                {"id": "c", "duration_days": 1, "depends_on": ["a"]},
                {"id": "d", "duration_days": 1, "depends_on": ["b", "c", "a"]}
            ]
        }))
        .unwrap();
        let plan = request.plan(None).unwrap();
        let schedule = schedule(&plan);
        let analysis = analyse(&plan, &schedule);
        assert_eq!(analysis.waves, [vec!["a"], vec!["b", "c"], vec!["d"]]);
        assert_eq!((analysis.widest_wave, analysis.critical_path_days), (2, 4.0));
        assert_eq!(
            (
                analysis.bottlenecks[0].task.as_str(),
                analysis.bottlenecks[0].all_dependants
            ),
            ("a", 3)
        );
        assert_eq!(analysis.redundant.len(), 1);
        assert_eq!(
            (
                analysis.redundant[0].depends_on.as_str(),
                analysis.redundant[0].implied_by.as_str()
            ),
            ("a", "b")
        );
        let mut without = Variation::none(&plan);
        without.without = Some((3, 0));
        assert_eq!(
            vary(&plan, &without).slots,
            schedule.slots,
            "leaving it out changes nothing"
        );
    }
}

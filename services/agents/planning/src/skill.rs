//! The seven skills: from a request to an answer. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use crate::dependency;
use crate::optimization::{self, Change};
use crate::outline::{self, Outline};
use crate::plan::request::PlanRequest;
use crate::plan::{Error, Plan};
use crate::progress::{self, Verdict};
use crate::resource;
use crate::risk::{self, Level};
use crate::schedule::{self, Schedule};
use crate::timeline::Timeline;

/// A question about plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skill {
    /// A list into tasks.
    GoalDecomposition,
    /// The schedule.
    TimelineEstimation,
    /// What waits for what.
    DependencyAnalysis,
    /// Who is needed when.
    ResourcePlanning,
    /// What may go wrong.
    RiskAssessment,
    /// How it stands.
    ProgressMonitoring,
    /// How it ends earlier.
    PlanOptimization,
}

/// What a caller gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// For people.
    pub summary: String,
    /// For programs.
    pub data: Value,
    /// A Markdown table, where there is one.
    pub table: Option<String>,
}

impl Skill {
    /// Every skill.
    pub const ALL: [Self; 7] = [
        Self::TimelineEstimation,
        Self::GoalDecomposition,
        Self::DependencyAnalysis,
        Self::ResourcePlanning,
        Self::RiskAssessment,
        Self::ProgressMonitoring,
        Self::PlanOptimization,
    ];

    /// The id by which it is found.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::GoalDecomposition => "goal_decomposition",
            Self::TimelineEstimation => "timeline_estimation",
            Self::DependencyAnalysis => "dependency_analysis",
            Self::ResourcePlanning => "resource_planning",
            Self::RiskAssessment => "risk_assessment",
            Self::ProgressMonitoring => "progress_monitoring",
            Self::PlanOptimization => "plan_optimization",
        }
    }

    /// The skill of that id.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|skill| skill.id() == id)
    }

    /// Answers a request; what neither it nor its list says is taken from the defaults.
    pub fn answer(self, request: PlanRequest, defaults: &PlanRequest) -> Result<Answer, Error> {
        if self == Self::GoalDecomposition {
            return decompose(request);
        }
        let request = with_outline(request)?.over(defaults.clone());
        if self == Self::DependencyAnalysis {
            // Dependencies need no dates, so any start will do.
            let plan = request.plan(Some(jiff::civil::date(2000, 1, 3)))?;
            return Ok(dependencies(&plan, &schedule::schedule(&plan)));
        }
        let plan = request.plan(None)?;
        let schedule = schedule::schedule(&plan);
        match self {
            Self::GoalDecomposition | Self::DependencyAnalysis | Self::TimelineEstimation => {
                Ok(timeline(&plan, &schedule))
            }
            Self::ResourcePlanning => resources(&plan, &schedule),
            Self::RiskAssessment => Ok(risks(&plan, &schedule)),
            Self::ProgressMonitoring => progress(&plan, &schedule, &request),
            Self::PlanOptimization => optimize(&plan, &schedule, &request),
        }
    }
}

/// Reads the request's list into tasks.
fn with_outline(mut request: PlanRequest) -> Result<PlanRequest, Error> {
    let Some(text) = request.outline.take() else {
        return Ok(request);
    };
    if !request.tasks.is_empty() {
        return Err(Error::new(
            "outline",
            "is given together with tasks; give one of them",
        ));
    }
    let outline = outline::parse("outline", &text)?;
    Ok(request.over(outline.request))
}

fn decompose(mut request: PlanRequest) -> Result<Answer, Error> {
    let Some(text) = request.outline.take() else {
        let message =
            "is missing; give the goal as an indented list, one task a line, such as `- Survey (1d)`";
        return Err(Error::new("outline", message));
    };
    let Outline {
        request: outline,
        groups,
    } = outline::parse("outline", &text)?;
    let request = request.over(outline);
    let missing: Vec<&str> = request
        .tasks
        .iter()
        .filter(|task| task.duration_days.is_none() && task.duration_hours.is_none())
        .map(|task| task.id.as_str())
        .collect();
    let goal = request.name.clone().unwrap_or_else(|| "Plan".to_owned());
    let mut summary = format!(
        "{goal}: {} tasks in {} groups.",
        request.tasks.len(),
        groups.len()
    );
    if missing.is_empty() {
        // What is complete is checked as a whole, so that a circle is found here and not a step later.
        request.plan(Some(jiff::civil::date(2000, 1, 3)))?;
    } else {
        summary += &format!(" Still without a duration: {}.", missing.join(", "));
    }
    let data = json!({
        "goal": goal,
        "tasks": request.tasks,
        "groups": groups,
        "missing_durations": missing,
        "plan": request,
    });
    Ok(Answer {
        summary,
        data,
        table: None,
    })
}

fn timeline(plan: &Plan, schedule: &Schedule) -> Answer {
    let timeline = Timeline::new(plan, schedule);
    Answer {
        summary: timeline.summary(),
        table: Some(timeline.table()),
        data: json(&timeline),
    }
}

fn dependencies(plan: &Plan, schedule: &Schedule) -> Answer {
    let analysis = dependency::analyse(plan, schedule);
    let summary = format!(
        "{}: {} tasks in {} waves, up to {} at once. Critical path: {} ({} days). {} dependencies are superfluous.",
        plan.name,
        plan.tasks.len(),
        analysis.waves.len(),
        analysis.widest_wave,
        analysis.critical_path.join(" → "),
        analysis.critical_path_days,
        analysis.redundant.len()
    );
    Answer {
        summary,
        data: json(&analysis),
        table: None,
    }
}

fn resources(plan: &Plan, schedule: &Schedule) -> Result<Answer, Error> {
    let overloads = resource::overloads(plan, schedule);
    let levelled = resource::level(plan, schedule)?;
    let finish = plan.calendar.finish_date(levelled.makespan).to_string();
    let later = plan.calendar.days(levelled.makespan - schedule.makespan);
    let summary = if plan.capacities.is_empty() {
        format!(
            "{}: no task names a resource, so nothing can be overloaded.",
            plan.name
        )
    } else if overloads.is_empty() {
        format!("{}: nothing is overloaded; it ends on {finish}.", plan.name)
    } else {
        format!(
            "{}: {} overloads, the first of '{}' from {}. Without overloads it ends on {finish}, {later} days later.",
            plan.name,
            overloads.len(),
            overloads[0].resource,
            overloads[0].from
        )
    };
    let tasks = plan.tasks.iter().zip(&levelled.stretches).map(|(task, stretch)| {
        json!({
            "id": task.id,
            "start": plan.calendar.start_date(stretch.start).to_string(),
            "finish": plan.calendar.finish_date(stretch.finish).to_string(),
        })
    });
    let data = json!({
        "usage": resource::usage(plan, schedule),
        "overloads": overloads,
        "levelled": {
            "finish_date": finish,
            "days_later": later,
            "tasks": tasks.collect::<Vec<_>>(),
        },
    });
    Ok(Answer {
        summary,
        data,
        table: None,
    })
}

fn risks(plan: &Plan, schedule: &Schedule) -> Answer {
    let risks = risk::risks(plan, schedule, &resource::overloads(plan, schedule));
    let count = |level| risks.iter().filter(|risk| risk.level == level).count();
    let (high, medium) = (count(Level::High), count(Level::Medium));
    let mut summary = format!("{}: {high} high and {medium} medium risks.", plan.name);
    if let Some(worst) = risks.first() {
        let why: Vec<&str> = worst.factors.iter().map(|factor| factor.why.as_str()).collect();
        summary += &format!(
            " The greatest is {} ({}/10): {}.",
            worst.task,
            worst.score,
            why.join("; ")
        );
    }
    Answer {
        summary,
        data: json!({ "risks": risks, "high": high, "medium": medium }),
        table: None,
    }
}

fn progress(plan: &Plan, schedule: &Schedule, request: &PlanRequest) -> Result<Answer, Error> {
    let progress = progress::monitor(plan, schedule, request)?;
    let verdict = match progress.verdict {
        Verdict::Ahead => format!("ahead by {} working days", -progress.days_behind),
        Verdict::OnTrack => "on track".to_owned(),
        Verdict::Behind => format!("behind by {} working days", progress.days_behind),
        Verdict::Finished => "finished".to_owned(),
    };
    let mut summary = format!(
        "{} on {}: {verdict}; {} % done of {} % planned, forecast {} (planned {}).",
        plan.name,
        progress.today,
        progress.percent_done,
        progress.percent_planned,
        progress.forecast_finish,
        progress.planned_finish
    );
    let late: Vec<&str> = progress
        .late_tasks
        .iter()
        .map(|late| late.task.as_str())
        .collect();
    if !late.is_empty() {
        summary += &format!(" Late: {}.", late.join(", "));
    }
    Ok(Answer {
        summary,
        data: json(&progress),
        table: None,
    })
}

fn optimize(plan: &Plan, schedule: &Schedule, request: &PlanRequest) -> Result<Answer, Error> {
    let proposals = optimization::optimize(plan, schedule, request)?;
    let finish = plan.calendar.finish_date(schedule.makespan).to_string();
    let summary = match proposals.first() {
        None => format!(
            "{} ends on {finish}; no single change makes it end earlier.",
            plan.name
        ),
        Some(best) => {
            let change = match &best.change {
                Change::Shorten { task, by_days } => format!("shortening '{task}' by {by_days} days"),
                Change::Parallelize { task, with } => format!("not letting '{task}' wait for '{with}'"),
            };
            format!(
                "{} ends on {finish}; {change} gains {} working days (then {}). {} changes gain something.",
                plan.name,
                best.days_gained,
                best.finish_date,
                proposals.len()
            )
        }
    };
    let data = json!({
        "finish_date": finish,
        "critical_path": plan.ids(&schedule.critical_path),
        "proposals": proposals,
    });
    Ok(Answer {
        summary,
        data,
        table: None,
    })
}

/// Our own types always serialize: their keys are strings and their numbers finite.
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> PlanRequest {
        PlanRequest {
            outline: Some(
                "Shed from 2014-03-03\ntoday 2014-03-04\ndone base\n- Base (2d, @crew)\n- Roof (3d, weather) after Base\n- Gate (1d, @crew)"
                    .to_owned(),
            ),
            ..PlanRequest::default()
        }
    }

    #[test]
    fn every_skill_answers_the_same_plan_in_its_own_way() {
        let expected = [
            (Skill::TimelineEstimation, "/finish_date", json!("2014-03-07")),
            (Skill::GoalDecomposition, "/tasks/1/depends_on/0", json!("base")),
            (Skill::DependencyAnalysis, "/critical_path_days", json!(5.0)),
            (
                Skill::ResourcePlanning,
                "/levelled/tasks/2/start",
                json!("2014-03-05"),
            ),
            (Skill::RiskAssessment, "/risks/0/task", json!("base")),
            (Skill::ProgressMonitoring, "/verdict", json!("on_track")),
            (
                Skill::PlanOptimization,
                "/proposals/0/change",
                json!("parallelize"),
            ),
        ];
        for (skill, pointer, value) in expected {
            let answer = skill.answer(request(), &PlanRequest::default()).unwrap();
            assert_eq!(
                answer.data.pointer(pointer),
                Some(&value),
                "{}: {}",
                skill.id(),
                answer.data
            );
            assert!(answer.summary.contains("Shed"), "{}", answer.summary);
            assert_eq!(Skill::from_id(skill.id()), Some(skill));
        }
    }

    #[test]
    fn a_decomposed_goal_is_the_next_skills_input() {
        let decomposed = Skill::GoalDecomposition
            .answer(request(), &PlanRequest::default())
            .unwrap();
        let plan: PlanRequest = serde_json::from_value(decomposed.data["plan"].clone()).unwrap();
        let again = Skill::TimelineEstimation
            .answer(plan, &PlanRequest::default())
            .unwrap();
        assert_eq!(
            again,
            Skill::TimelineEstimation
                .answer(request(), &PlanRequest::default())
                .unwrap()
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let both = PlanRequest {
            tasks: vec![Default::default()],
            ..request()
        };
        assert_eq!(
            Skill::RiskAssessment
                .answer(both, &PlanRequest::default())
                .unwrap_err()
                .field,
            "outline"
        );
        let none = PlanRequest::default();
        assert_eq!(
            Skill::GoalDecomposition
                .answer(none.clone(), &PlanRequest::default())
                .unwrap_err()
                .field,
            "outline"
        );
        assert_eq!(
            Skill::DependencyAnalysis
                .answer(none, &PlanRequest::default())
                .unwrap_err()
                .field,
            "tasks"
        );
        let circle = PlanRequest {
            outline: Some("- A (1d) after B\n- B (1d) after A".to_owned()),
            ..PlanRequest::default()
        };
        assert!(
            Skill::GoalDecomposition
                .answer(circle, &PlanRequest::default())
                .unwrap_err()
                .message
                .contains("a → b → a")
        );
    }
}

//! The planning agent on the SDK: reads the message, asks the pure part, tells the answer.

use muster_agent_sdk::{
    Agent, Artifact, Card, Failure, Reply, Request, Section, Skill as CardSkill, Task, parse,
};
use muster_runtime::config::Mistakes;
use serde::{Deserialize, Serialize};

use crate::plan::Error;
use crate::plan::request::PlanRequest;
use crate::skill::Skill;

/// What is typed to an agent that does not know where to begin.
const USAGE: &str = "names no plan; send JSON with `start_date` and `tasks`, or lines such as \
                     `Roof from 2014-03-03`, `- Survey (1d)`, `- Shingles (3d, weather) after Survey`";

/// What holds where a request does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Hours of a working day.
    pub hours_per_day: f64,
    /// Reserve at the end, in percent of the working time.
    pub buffer_percent: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hours_per_day: 8.0,
            buffer_percent: 20.0,
        }
    }
}

impl Section for Settings {
    fn validate(&self, mistakes: &mut Mistakes) {
        if !(1.0..=24.0).contains(&self.hours_per_day) {
            mistakes.add("settings.hours_per_day", "must be from 1 to 24");
        }
        if !(0.0..=500.0).contains(&self.buffer_percent) {
            mistakes.add("settings.buffer_percent", "must be from 0 to 500");
        }
    }
}

/// The agent.
#[derive(Debug, Clone, Copy)]
pub struct Planning {
    settings: Settings,
}

impl Planning {
    /// An agent with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }
}

impl Agent for Planning {
    fn card(&self) -> Card {
        let card = Card::new(
            "planning",
            "Planning",
            "Schedules tasks with durations and dependencies by the critical path, around days of bad weather: dates, \
             slack, milestones, risks, resources, progress.",
            env!("CARGO_PKG_VERSION"),
        );
        Skill::ALL
            .into_iter()
            .fold(card, |card, skill| card.skill(describe(skill)))
    }

    async fn handle(&self, request: Request, task: Task) -> Result<Reply, Failure> {
        let skill = match &request.skill {
            None => Skill::TimelineEstimation,
            Some(id) => Skill::from_id(id)
                .ok_or_else(|| Failure::invalid_field("skill", format!("'{id}' is no skill here")))?,
        };
        let defaults = PlanRequest {
            hours_per_day: Some(self.settings.hours_per_day),
            buffer_percent: Some(self.settings.buffer_percent),
            ..PlanRequest::default()
        };
        let plan = read(&request)?;
        task.working(format!("{}: calculating", skill.id())).await;
        // Some hundred tasks with rivals for resources take a while; other requests go on meanwhile.
        let work = tokio::task::spawn_blocking(move || skill.answer(plan, &defaults));
        let answer = work
            .await
            .map_err(|error| Failure::failed(format!("the calculation broke off: {error}")))?
            .map_err(refused)?;
        let reply = Reply::completed(answer.summary).data(answer.data);
        Ok(match answer.table {
            Some(table) => reply.artifact(Artifact::file("schedule.md", "text/markdown", table)),
            None => reply,
        })
    }
}

fn refused(error: Error) -> Failure {
    Failure::invalid_field(error.field, error.message)
}

/// The plan of a message: its data part, JSON typed as text, or a list typed as text.
fn read(request: &Request) -> Result<PlanRequest, Failure> {
    if let Some(plan) = request.parse::<PlanRequest>()? {
        return Ok(plan);
    }
    let text = request.text().trim();
    if text.is_empty() {
        return Err(Failure::invalid_field("message", USAGE));
    }
    if text.starts_with('{') {
        let data = serde_json::from_str(text).map_err(|error| {
            Failure::invalid_field("text", format!("begins like JSON, but is none: {error}"))
        })?;
        return parse(&data);
    }
    Ok(PlanRequest {
        outline: Some(text.to_owned()),
        ..PlanRequest::default()
    })
}

fn describe(skill: Skill) -> CardSkill {
    let (name, description, example) = match skill {
        Skill::TimelineEstimation => (
            "Timeline estimation",
            "Schedule by critical path: earliest and latest dates, slack, buffer, milestones, risks, overloads; \
             weather-sensitive tasks keep off `avoid_dates`",
            "Roof from 2014-03-03: survey 1d; order 4h after survey; roof 3d weather after order; avoid 2014-03-05",
        ),
        Skill::GoalDecomposition => (
            "Goal decomposition",
            "Turns an indented list into tasks with dependencies, by fixed rules, ready for the other skills",
            "Goal: Move house\n- Pack\n  1. Books (1d)\n  2. Kitchen (2d)\n- Drive (4h) after Pack",
        ),
        Skill::DependencyAnalysis => (
            "Dependency analysis",
            "Waves that may run together, bottlenecks, superfluous dependencies, the critical path",
            "survey 1d; order 4h after survey; roof 3d after order, survey",
        ),
        Skill::ResourcePlanning => (
            "Resource planning",
            "Use and overload of resources, and a schedule without overloads",
            "Roofs from 2014-03-03: north 2d @crew; south 3d @crew",
        ),
        Skill::RiskAssessment => (
            "Risk assessment",
            "Scores each task 1 to 10 by slack, length, weather, dependants and resources, and explains the score",
            "Roof from 2014-03-03: dig 6d weather; walls 2d after dig; doors 1d after walls",
        ),
        Skill::ProgressMonitoring => (
            "Progress monitoring",
            "Given `today` and what is done: ahead or behind, the forecast, late tasks",
            "Roof from 2014-03-03: survey 1d; roof 3d after survey; today 2014-03-04; done survey",
        ),
        Skill::PlanOptimization => (
            "Plan optimization",
            "What shortening critical tasks or running them together would really gain",
            "Roof from 2014-03-03: survey 1d; order 2d after survey; roof 3d after order",
        ),
    };
    CardSkill::new(skill.id(), name, description)
        .tags(["planning", "schedule"])
        .example(example)
        .idempotent()
}

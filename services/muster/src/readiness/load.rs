//! Real workflows, ten at a time and then more and more until there is no more to gain.
//!
//! Where the target has the agents for it, each run is the example `trip`: five calls to four agents. Else each run reads a list of
//! every agent.

use std::time::Duration;

use futures::future::join_all;
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::check::{Area, Check, Evidence, Need, Stop, Verdict};
use super::initialisation::{agent_ids, instances, reading};
use super::trial::{Made, Trial, completed};
use crate::bench::latency::{self, Latencies, add, at, latencies, merge, number};
use crate::connect::Endpoints;
use crate::demo::examples;
use crate::failure::Failure;

/// Workflows at a time, to begin with.
const TOGETHER: u32 = 10;

/// The part of them that must complete.
const SUCCESS: f64 = 0.95;

/// What none may take.
const LONGEST: Duration = Duration::from_secs(30);

/// What another step must gain to be worth it.
const GAIN: f64 = 1.1;

/// The checks.
pub const CHECKS: &[Check] = &[
    Check {
        area: Area::Load,
        name: "ten workflows at a time complete",
        needs: &[],
        run: |trial| Box::pin(ten(trial)),
    },
    Check {
        area: Area::Load,
        name: "more and more, up to the knee",
        needs: &[Need::Leave],
        run: |trial| Box::pin(rising(trial)),
    },
];

/// What is run.
#[derive(Debug, Clone)]
pub struct Work {
    /// What it is, for people.
    pub title: String,
    /// The document.
    pub document: String,
    /// The input, JSON.
    pub input: String,
}

impl Work {
    /// What the target's agents can do.
    pub async fn of(trial: &Trial) -> Result<Self, Stop> {
        let skills: Vec<String> = instances(trial)
            .await?
            .into_iter()
            .filter_map(|(_, instance)| instance.card)
            .flat_map(|card| card.skills)
            .map(|skill| skill.id)
            .collect();
        let example = examples::ALL
            .first()
            .ok_or_else(|| Stop::failed("there is no example"))?;
        let wanted = example
            .document
            .lines()
            .filter_map(|line| line.split("skill://").nth(1));
        if wanted
            .map(str::trim)
            .all(|skill| skills.iter().any(|has| has == skill))
        {
            return Ok(Self {
                title: "trip (5 calls to 4 agents)".to_owned(),
                document: example.document.to_owned(),
                input: example.input()?.to_string(),
            });
        }
        let agents = agent_ids(trial).await?;
        if agents.is_empty() {
            return Err(Stop::failed("no agent is registered"));
        }
        Ok(Self {
            title: format!("reading a list of {} agents", agents.len()),
            document: reading(&agents),
            input: "{}".to_owned(),
        })
    }
}

/// What a step of the load has shown.
pub struct Step {
    clients: u32,
    completed: u64,
    failed: Vec<String>,
    latencies: Latencies,
    took: Duration,
}

impl Step {
    /// Runs that completed in a second.
    fn throughput(&self) -> f64 {
        number(self.completed) / self.took.as_secs_f64().max(1e-9)
    }

    fn success(&self) -> f64 {
        let failed = u64::try_from(self.failed.len()).unwrap_or(u64::MAX);
        number(self.completed) / number(self.completed.saturating_add(failed)).max(1.0)
    }

    fn longest(&self) -> Duration {
        Duration::from_micros(self.latencies.max())
    }

    fn seconds(&self, part: f64) -> f64 {
        at(&self.latencies, part).unwrap_or(0.0) / 1e3
    }

    /// Fails where too few completed, or one took too long.
    fn judge(&self) -> Result<(), Stop> {
        if self.success() < SUCCESS {
            return Err(Stop::failed(format!(
                "with {} at a time {:.1} % of {} completed; the first that did not: {}",
                self.clients,
                100.0 * self.success(),
                self.completed + u64::try_from(self.failed.len()).unwrap_or(u64::MAX),
                self.failed.first().map_or("", String::as_str)
            )));
        }
        if self.longest() >= LONGEST {
            return Err(Stop::failed(format!(
                "with {} at a time the longest took {:.1} s",
                self.clients,
                self.longest().as_secs_f64()
            )));
        }
        Ok(())
    }

    /// For people.
    fn describe(&self) -> String {
        format!(
            "{} at a time: {:.1}/s, {:.1} % of {} completed, p50 {:.2} s, p95 {:.2} s, p99 {:.2} s",
            self.clients,
            self.throughput(),
            100.0 * self.success(),
            self.completed + u64::try_from(self.failed.len()).unwrap_or(u64::MAX),
            self.seconds(0.5),
            self.seconds(0.95),
            self.seconds(0.99)
        )
    }

    fn json(&self) -> Value {
        json!({
            "clients": self.clients,
            "perSecond": self.throughput(),
            "completed": self.completed,
            "failed": self.failed.len(),
            "success": self.success(),
            "p50Seconds": self.seconds(0.5),
            "p95Seconds": self.seconds(0.95),
            "p99Seconds": self.seconds(0.99),
            "longestSeconds": self.longest().as_secs_f64(),
        })
    }
}

/// What one client has seen.
struct Seen {
    completed: u64,
    failed: Vec<String>,
    latencies: Latencies,
}

/// One run after the other for so long; at least one.
async fn client(made: Made, endpoints: Endpoints, work: Work, time: Duration) -> Result<Seen, Failure> {
    let clock = SystemClock::default();
    let mut seen = Seen {
        completed: 0,
        failed: Vec::new(),
        latencies: latencies()?,
    };
    // A connection of its own, as clients on different machines have.
    let mut client = endpoints.engine()?;
    let begin = clock.monotonic();
    loop {
        let before = clock.monotonic();
        let run = tokio::time::timeout(LONGEST, made.run(&mut client, &work.document, &work.input)).await;
        let outcome = match run {
            Ok(run) => run.and_then(completed),
            Err(_) => Err(format!("no end within {} s", LONGEST.as_secs())),
        };
        add(&mut seen.latencies, clock.monotonic().saturating_sub(before));
        match outcome {
            Ok(_) => seen.completed += 1,
            Err(what) => seen.failed.push(what),
        }
        if clock.monotonic().saturating_sub(begin) >= time {
            return Ok(seen);
        }
    }
}

/// So many clients at a time for so long.
pub async fn step(trial: &Trial, work: &Work, clients: u32, time: Duration) -> Result<Step, Stop> {
    let clock = SystemClock::default();
    let before = clock.monotonic();
    let mut working = JoinSet::new();
    for _ in 0..clients {
        working.spawn(client(
            trial.made.clone(),
            trial.target.endpoints.clone(),
            work.clone(),
            time,
        ));
    }
    let mut step = Step {
        clients,
        completed: 0,
        failed: Vec::new(),
        latencies: latency::latencies()?,
        took: Duration::ZERO,
    };
    while let Some(ended) = working.join_next().await {
        let seen = ended.map_err(|error| Stop::failed(error.to_string()))??;
        step.completed += seen.completed;
        step.failed.extend(seen.failed);
        merge(&mut step.latencies, &seen.latencies)?;
    }
    step.took = clock.monotonic().saturating_sub(before);
    Ok(step)
}

async fn ten(trial: &mut Trial) -> Verdict {
    let work = Work::of(trial).await?;
    let step = step(trial, &work, TOGETHER, Duration::ZERO).await?;
    step.judge()?;
    if step.took >= LONGEST {
        return Err(Stop::failed(format!(
            "all together took {:.1} s",
            step.took.as_secs_f64()
        )));
    }
    Ok(Evidence::new(format!(
        "{}: all in {:.2} s; {}",
        work.title,
        step.took.as_secs_f64(),
        step.describe()
    ))
    .figure("step", step.json()))
}

async fn rising(trial: &mut Trial) -> Verdict {
    let work = Work::of(trial).await?;
    let mut steps: Vec<Step> = Vec::new();
    let mut clients = TOGETHER;
    while clients <= trial.options.most_clients.max(TOGETHER) {
        let step = step(trial, &work, clients, trial.options.step).await?;
        step.judge()?;
        let gained = steps
            .last()
            .is_none_or(|before| step.throughput() >= GAIN * before.throughput());
        steps.push(step);
        if !gained {
            break;
        }
        clients *= 2;
    }
    let best = steps
        .iter()
        .max_by(|one, other| one.throughput().total_cmp(&other.throughput()));
    let best = best.ok_or_else(|| Stop::failed("nothing was run"))?;
    let figures: Vec<Value> = steps.iter().map(Step::json).collect();
    Ok(
        Evidence::new(format!("{}: the knee is at {}", work.title, best.describe()))
            .figure("kneeClients", best.clients)
            .figure("steps", figures),
    )
}

/// Some runs, so that there is something to see of them; they need not complete.
pub async fn some(trial: &Trial, works: &[Work]) -> Result<(), Failure> {
    let runs = works.iter().map(|work| async {
        let mut client = trial.engine()?;
        let run = trial.made.run(&mut client, &work.document, &work.input);
        // How it ends is no matter here.
        let _ended = tokio::time::timeout(LONGEST, run).await;
        Ok(())
    });
    join_all(runs).await.into_iter().collect()
}

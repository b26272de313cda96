//! `muster bench fairness`: how long a namespace's runs take to begin beside another one that has filled the line.
//!
//! It starts an engine of its own, with an agent that takes its time, in a directory that goes when it ends. First one
//! namespace runs alone; then another one fills the line and the first does the same again. What is compared is how long its
//! runs took from being accepted until their first task began.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use muster_agent_sdk::{Agent, Card, Failure as AgentFailure, NoSettings, Reply, Request, Skill, Task};
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_api::workflow::{
    GetRunRequest, GetStatusRequest, Run, RunStatus, StartRunRequest, start_run_request,
};
use muster_runtime::{Listeners, Shutdown};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::connect::{self, Channel};
use crate::failure::Failure;
use crate::output::Output;

/// Starts of runs that are under way at once while the line is filled.
const STARTERS: u32 = 64;

/// How long anything but the measurement may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Arguments of `muster bench fairness`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Runs that the other namespace has queued.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub queued: u32,
    /// Runs that are measured, each time.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub probes: u32,
    /// Milliseconds between two of them. As many slots as the agent takes of these are in use: no slot is kept for a namespace that
    /// holds half of its share or more.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub every: u64,
    /// Milliseconds that the agent takes, on average.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub agent: u64,
    /// Slots of the engine (`engine.max_concurrent_workflows`).
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slots: u32,
}

/// Takes between half and one and a half times its time for each message.
struct Slow {
    milliseconds: u64,
    asked: AtomicU64,
}

impl Agent for Slow {
    fn card(&self) -> Card {
        Card::new("slow", "Slow", "Takes its time", "1.0.0")
            .skill(Skill::new("waiting", "Waiting", "Waits and answers").idempotent())
    }

    async fn handle(&self, _request: Request, _task: Task) -> Result<Reply, AgentFailure> {
        // Spread evenly, so that the slots do not become free all at once.
        let number = self
            .asked
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let spread = (number >> 32) % self.milliseconds.max(1);
        tokio::time::sleep(Duration::from_millis(self.milliseconds / 2 + spread)).await;
        Ok(Reply::completed("done"))
    }
}

/// An engine and its agent in this process.
struct Bench {
    client: WorkflowServiceClient<Channel>,
    shutdown: Shutdown,
    services: JoinSet<Result<(), muster_runtime::Error>>,
}

impl Bench {
    async fn start(arguments: &Arguments, directory: &Path) -> Result<Self, Failure> {
        let bind = || Listeners::ephemeral().map_err(|error| Failure::failed(error.to_string()));
        let (agent, engine) = (bind()?, bind()?);
        let url = |listeners: &Listeners| format!("http://{}", listeners.data_address());
        let (agent_url, engine_url) = (url(&agent), url(&engine));
        let shutdown = Shutdown::new();
        let mut services = JoinSet::new();
        let milliseconds = arguments.agent;
        let mut config = muster_agent_sdk::Config::<NoSettings>::default();
        config.agent.max_concurrent_tasks = 10_000;
        // It is reached directly; there is no registry.
        config.agent.registry_url.clone_from(&agent_url);
        config.agent.data_directory = PathBuf::new();
        services.spawn(muster_agent_sdk::run(
            config,
            agent,
            shutdown.clone(),
            move |_| {
                Ok(Slow {
                    milliseconds,
                    asked: AtomicU64::new(0),
                })
            },
        ));
        let mut config = muster_workflow_engine::Config::default();
        config.engine.router_url = agent_url;
        config.engine.data_directory = directory.to_owned();
        config.engine.max_concurrent_workflows = arguments.slots as usize;
        config.engine.max_queued_runs = 2 * arguments.queued as usize + 1_000;
        services.spawn(muster_workflow_engine::run(config, engine, shutdown.clone()));
        let bench = Self {
            client: WorkflowServiceClient::new(connect::channel(&engine_url)?),
            shutdown,
            services,
        };
        bench
            .until("the engine to answer", async || bench.status().await.is_ok())
            .await?;
        Ok(bench)
    }

    async fn status(&self) -> Result<muster_api::workflow::GetStatusResponse, tonic::Status> {
        let answer = self.client.clone().get_status(GetStatusRequest {}).await?;
        Ok(answer.into_inner())
    }

    async fn until(&self, what: &str, done: impl AsyncFn() -> bool) -> Result<(), Failure> {
        let waiting = async {
            while !done().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .map_err(|_| Failure::failed(format!("waited {} s for {what}", PATIENCE.as_secs())))
    }

    /// Fills the line.
    async fn fill(&self, count: u32) -> Result<(), Failure> {
        let mut starters = JoinSet::new();
        for starter in 0..STARTERS {
            let client = self.client.clone();
            let share = count / STARTERS + u32::from(starter < count % STARTERS);
            starters.spawn(async move {
                for _ in 0..share {
                    start(&client, "crowd").await?;
                }
                Ok::<(), Failure>(())
            });
        }
        while let Some(ended) = starters.join_next().await {
            ended.map_err(|error| Failure::failed(error.to_string()))??;
        }
        Ok(())
    }

    /// How long each of so many runs took to begin, in milliseconds, sorted.
    async fn probe(&self, arguments: &Arguments) -> Result<Vec<f64>, Failure> {
        let mut ids = Vec::new();
        let mut beat = tokio::time::interval(Duration::from_millis(arguments.every));
        for _ in 0..arguments.probes {
            beat.tick().await;
            ids.push(start(&self.client, "quiet").await?);
        }
        let mut latencies = Vec::new();
        for id in ids {
            latencies.push(self.latency(&id).await?);
        }
        latencies.sort_by(f64::total_cmp);
        Ok(latencies)
    }

    async fn latency(&self, id: &str) -> Result<f64, Failure> {
        let read = async || {
            let request = GetRunRequest {
                run_id: id.to_owned(),
            };
            self.client
                .clone()
                .get_run(request)
                .await
                .ok()
                .and_then(|answer| answer.into_inner().run)
        };
        self.until("a run to end", async || {
            read()
                .await
                .is_some_and(|run| run.status() == RunStatus::Completed)
        })
        .await?;
        let run = read().await.ok_or_else(|| Failure::failed("a run is gone"))?;
        began_after(&run).ok_or_else(|| Failure::failed(format!("run {id} has not begun")))
    }

    async fn stop(mut self) -> Result<(), Failure> {
        self.shutdown.trigger();
        while let Some(ended) = self.services.join_next().await {
            let ended = ended.map_err(|error| Failure::failed(error.to_string()))?;
            ended.map_err(|error| Failure::failed(error.to_string()))?;
        }
        Ok(())
    }
}

/// Milliseconds from being accepted until the first task began.
fn began_after(run: &Run) -> Option<f64> {
    let time = |time: Option<&prost_types::Timestamp>| time.and_then(muster_api::time::from_proto);
    let (accepted, began) = (time(run.created_at.as_ref())?, time(run.started_at.as_ref())?);
    Some(began.duration_since(accepted).as_secs_f64() * 1000.0)
}

async fn start(client: &WorkflowServiceClient<Channel>, namespace: &str) -> Result<String, Failure> {
    let document = format!(
        "document: {{dsl: 1.0.0, namespace: {namespace}, name: ask, version: 1.0.0}}\ndo:\n  - ask:\n      call: a2a\n      with:\n        server: agent://slow\n        method: SendMessage\n        parameters: {{message: {{parts: [{{text: x}}]}}}}\n"
    );
    let request = StartRunRequest {
        source: Some(start_run_request::Source::Document(document)),
        ..StartRunRequest::default()
    };
    let answer = client.clone().start_run(request).await;
    let answer =
        answer.map_err(|status| Failure::failed(format!("a run was refused: {}", status.message())))?;
    let run = answer.into_inner().run;
    run.map(|run| run.run_id)
        .ok_or_else(|| Failure::failed("the engine answered without a run"))
}

/// Runs `muster bench fairness`.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let directory = tempfile::tempdir().map_err(|error| Failure::failed(error.to_string()))?;
    let bench = Bench::start(arguments, &directory.path().join("engine")).await?;
    // Warm: the first run pays for what all share.
    bench.latency(&start(&bench.client, "quiet").await?).await?;
    let alone = bench.probe(arguments).await?;
    bench.fill(arguments.queued).await?;
    let status = |status: tonic::Status| Failure::failed(status.message());
    let before = bench.status().await.map_err(status)?;
    let beside = bench.probe(arguments).await?;
    let after = bench.status().await.map_err(status)?;
    bench.stop().await?;
    let ratio = |part: f64| quantile(&beside, part) / quantile(&alone, part);
    let result = json!({
        "queued": {"before": before.pending, "after": after.pending},
        "slots": arguments.slots,
        "probes": arguments.probes,
        "alone": milliseconds(&alone),
        "beside": milliseconds(&beside),
        "ratio": {"p50": ratio(0.5), "p95": ratio(0.95)},
    });
    if output.is_json() {
        output.json(&result);
        return Ok(());
    }
    output.line(&format!(
        "{} runs of one namespace in {} slots, {} of another, which began after",
        before.pending, arguments.slots, arguments.probes
    ));
    let rows = [("alone", &alone), ("beside", &beside)].map(|(name, values)| {
        [
            name.to_owned(),
            format!("{:.2} ms", quantile(values, 0.5)),
            format!("{:.2} ms", quantile(values, 0.95)),
        ]
    });
    output.table(["QUIET NAMESPACE", "P50", "P95"], rows.into());
    output.line(&format!("ratio: p50 {:.2}, p95 {:.2}", ratio(0.5), ratio(0.95)));
    Ok(())
}

fn milliseconds(sorted: &[f64]) -> Value {
    json!({"p50": quantile(sorted, 0.5), "p95": quantile(sorted, 0.95), "max": quantile(sorted, 1.0)})
}

/// The value below which this part of the values is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index into a short list"
)]
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let index = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

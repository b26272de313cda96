//! The closed loop: each client starts a run, waits for its end, and starts the next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_api::workflow::{
    GetHistoryRequest, Run, RunStatus, StartRunRequest, WatchRunRequest, WorkflowReference,
    start_run_request, watch_run_response,
};
use muster_runtime::clock::{Clock as _, SystemClock};
use tokio::task::JoinSet;

use super::steps::{NAMESPACE, is_step};
use crate::bench::latency::{Latencies, add, latencies};
use crate::connect::{Channel, Endpoints};
use crate::failure::Failure;

/// Runs whose journals are read afterwards for how long their steps took.
const SAMPLED_RUNS: usize = 200;

/// Journal entries that are read for it at most.
const SAMPLED_ENTRIES: usize = 50_000;

/// What the clients run.
#[derive(Debug, Clone)]
pub struct Work {
    /// Names of the workflows, taken in turn.
    pub workflows: Vec<String>,
    /// The input of each run, as JSON.
    pub input: String,
}

/// What the clients have seen since they are to count it.
struct Seen {
    latencies: Latencies,
    runs: u64,
    recent: VecDeque<String>,
}

/// Clients at work.
pub struct Load {
    seen: Arc<Mutex<Seen>>,
    counts: Arc<AtomicBool>,
    clients: JoinSet<Failure>,
}

impl Load {
    /// Sends the clients to work.
    pub fn start(clients: u32, work: &Work, endpoints: &Endpoints) -> Result<Self, Failure> {
        let mut load = Self {
            seen: Arc::new(Mutex::new(Seen {
                latencies: latencies()?,
                runs: 0,
                recent: VecDeque::new(),
            })),
            counts: Arc::default(),
            clients: JoinSet::new(),
        };
        let turn = Arc::new(AtomicU64::new(0));
        for _ in 0..clients {
            // Each has a connection of its own, as clients on different machines have.
            let client = endpoints.engine()?;
            let (seen, counts, turn) = (
                Arc::clone(&load.seen),
                Arc::clone(&load.counts),
                Arc::clone(&turn),
            );
            let work = work.clone();
            load.clients.spawn(async move {
                match repeat(client, work, &seen, &counts, &turn).await {
                    Ok(never) => match never {},
                    Err(failure) => failure,
                }
            });
        }
        Ok(load)
    }

    /// From now on what ends counts.
    pub fn count(&self) {
        self.counts.store(true, Ordering::Relaxed);
    }

    /// How many runs have ended and count.
    pub fn runs(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).runs
    }

    /// Lets time pass; a client that fails ends the measurement.
    pub async fn pass(&mut self, time: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            Some(ended) = self.clients.join_next() => Err(match ended {
                Ok(failure) => failure,
                Err(error) => Failure::failed(format!("a client ended: {error}")),
            }),
        }
    }

    /// Stops the clients and says how long the runs took that count, and which were the last of them.
    pub async fn stop(mut self) -> (Latencies, u64, Vec<String>) {
        self.clients.shutdown().await;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = seen.recent.iter().cloned().collect();
        (seen.latencies.clone(), seen.runs, recent)
    }
}

enum Never {}

async fn repeat(
    mut client: WorkflowServiceClient<Channel>,
    work: Work,
    seen: &Mutex<Seen>,
    counts: &AtomicBool,
    turn: &AtomicU64,
) -> Result<Never, Failure> {
    let clock = SystemClock::default();
    loop {
        let turn = usize::try_from(turn.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
        let name = work.workflows.get(turn % work.workflows.len().max(1));
        let name = name.ok_or_else(|| Failure::failed("there is nothing to run"))?;
        let start = clock.monotonic();
        let run = started(&mut client, name, &work.input).await?;
        let id = run.run_id.clone();
        let run = ended(&mut client, run).await?;
        let latency = clock.monotonic().saturating_sub(start);
        if run.status() != RunStatus::Completed {
            let why = run.error.map(|error| error.detail).unwrap_or_default();
            return Err(Failure::failed(format!("run {id} did not complete: {why}")));
        }
        if counts.load(Ordering::Relaxed) {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            add(&mut seen.latencies, latency);
            seen.runs += 1;
            if seen.recent.len() == SAMPLED_RUNS {
                seen.recent.pop_front();
            }
            seen.recent.push_back(id);
        }
    }
}

/// Starts a run of the catalogue's workflow `name`.
pub async fn started(
    client: &mut WorkflowServiceClient<Channel>,
    name: &str,
    input: &str,
) -> Result<Run, Failure> {
    let reference = WorkflowReference {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        version: String::new(),
    };
    let request = StartRunRequest {
        source: Some(start_run_request::Source::Workflow(reference)),
        input_json: input.to_owned(),
        ..StartRunRequest::default()
    };
    let answer = client.start_run(request).await.map_err(refused)?;
    let run = answer.into_inner().run;
    run.ok_or_else(|| Failure::failed("the engine answered without a run"))
}

async fn ended(client: &mut WorkflowServiceClient<Channel>, run: Run) -> Result<Run, Failure> {
    let request = WatchRunRequest {
        run_id: run.run_id,
        // Only the end is wanted.
        after_index: Some(u64::MAX >> 1),
    };
    let mut updates = client.watch_run(request).await.map_err(refused)?.into_inner();
    while let Some(update) = updates.message().await.map_err(refused)? {
        if let Some(watch_run_response::Update::Ended(run)) = update.update {
            return Ok(run);
        }
    }
    Err(Failure::failed("the engine stopped telling of a run"))
}

fn refused(status: tonic::Status) -> Failure {
    Failure::failed(format!("the engine refused: {}", status.message()))
}

/// How long the steps of these runs took: from the start of each until the next one's, so that everything between the two
/// counts, by the times in the runs' journals.
pub async fn step_latencies(runs: &[String], endpoints: &Endpoints) -> Result<Latencies, Failure> {
    let mut client = endpoints.engine()?;
    let mut steps = latencies()?;
    let mut left = SAMPLED_ENTRIES;
    for run in runs {
        let mut before = None;
        let mut page_token = String::new();
        loop {
            let request = GetHistoryRequest {
                run_id: run.clone(),
                page_size: 100,
                page_token,
            };
            let page = client.get_history(request).await.map_err(refused)?.into_inner();
            left = left.saturating_sub(page.events.len());
            let starts = page
                .events
                .iter()
                .filter(|event| event.r#type == "task.started" && is_step(&event.task));
            for time in starts.filter_map(|event| muster_api::time::from_proto(event.time.as_ref()?)) {
                if let Some(before) = before.replace(time) {
                    let took = Duration::try_from(time.duration_since(before)).unwrap_or_default();
                    add(&mut steps, took);
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() || left == 0 {
                break;
            }
        }
        if left == 0 {
            break;
        }
    }
    Ok(steps)
}

//! Work that goes on while replicas come and go, by callers who do what clients of several replicas do.
//!
//! Who finds a replica's port closed, or is told by one that stops that it has not begun with the call, turns to the next one at once:
//! nothing was lost by that, and it is counted apart. Whoever starts a run does so under an id of its own, and comes again under
//! the same id when told to, as the error says. Everything else that fails is a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use muster_api::a2a::ListTasksRequest;
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_api::workflow::{GetRunRequest, RunStatus, StartRunRequest};
use muster_rpc::loss::Loss;
use muster_runtime::clock::{Clock as _, SystemClock};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::connect::{Channel, Endpoints};
use crate::failure::Failure;
use crate::readiness::check::Stop;
use crate::readiness::trial::Made;

/// Callers at a time, and runs.
const CALLERS: usize = 8;

/// How long a run may take in all, which is some tenths of a second of its own.
const LONGEST_RUN: Duration = Duration::from_secs(30);

/// Between two looks at a run.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Steps that take a little while, so that there are always some under way.
const WORK: &str = "document: { dsl: 1.0.3, namespace: readiness, name: short-work, version: 1.0.0 }
do:
  - first: { set: { step: 1 } }
  - pause: { wait: { milliseconds: 200 } }
  - second: { set: { step: 2 } }
";

/// What the callers have seen.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    done: Vec<AtomicU64>,
    turned_away: AtomicU64,
    failed: Mutex<Vec<String>>,
}

/// See the module.
pub struct Load {
    tally: Arc<Tally>,
    working: JoinSet<Result<(), Failure>>,
}

/// What was done in all.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Pieces of work, none of which failed.
    pub done: u64,
    /// How often a replica did not take one, and another one, or a later attempt, did.
    pub turned_away: u64,
}

impl Load {
    fn new(ways: &[Endpoints]) -> Self {
        let tally = Tally {
            done: ways.iter().map(|_| AtomicU64::new(0)).collect(),
            ..Tally::default()
        };
        Self {
            tally: Arc::new(tally),
            working: JoinSet::new(),
        }
    }

    /// Calls of an agent, one after the other, by callers who are spread over these ways.
    pub fn of_calls(ways: &[Endpoints], agent: &str) -> Self {
        let mut load = Self::new(ways);
        for home in 0..CALLERS {
            let (tally, ways, agent) = (Arc::clone(&load.tally), ways.to_vec(), agent.to_owned());
            load.working.spawn(keep_calling(tally, ways, home, agent));
        }
        load
    }

    /// Runs, one after the other, by callers who are spread over these ways.
    pub fn of_runs(ways: &[Endpoints], made: &Made) -> Self {
        let mut load = Self::new(ways);
        for home in 0..CALLERS {
            let (tally, ways, made) = (Arc::clone(&load.tally), ways.to_vec(), made.clone());
            load.working.spawn(keep_running(tally, ways, home, made));
        }
        load
    }

    /// How much was done by each way.
    pub fn done(&self) -> Vec<u64> {
        let done = self.tally.done.iter();
        done.map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Ends it in good order. Fails where something failed.
    pub async fn end(mut self, what: &str) -> Result<Ended, Stop> {
        self.tally.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.working.join_next().await {
            ended.map_err(|error| Stop::failed(error.to_string()))??;
        }
        let done: u64 = self.done().iter().sum();
        let failed = self.tally.failed.lock();
        match failed.first() {
            None => Ok(Ended {
                done,
                turned_away: self.tally.turned_away.load(Ordering::Relaxed),
            }),
            Some(first) => Err(Stop::failed(format!(
                "{} of {} {what} failed, the first: {first}",
                failed.len(),
                done + u64::try_from(failed.len()).unwrap_or(u64::MAX)
            ))),
        }
    }
}

impl Tally {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, outcome: Result<usize, String>) {
        match outcome {
            Ok(way) => {
                if let Some(count) = self.done.get(way) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(what) => self.failed.lock().push(what),
        }
    }

    fn is_turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each call at home, and by the next way where home does not take it.
async fn keep_calling(
    tally: Arc<Tally>,
    ways: Vec<Endpoints>,
    home: usize,
    agent: String,
) -> Result<(), Failure> {
    let clients: Result<Vec<_>, Failure> = ways.iter().map(Endpoints::agents).collect();
    let mut clients = clients?;
    let count = clients.len().max(1);
    while tally.goes_on() {
        let mut outcome = Err("there is no router".to_owned());
        for way in (0..count).map(|step| (home + step) % count) {
            let Some(client) = clients.get_mut(way) else {
                break;
            };
            let request = ListTasksRequest {
                tenant: agent.clone(),
                page_size: Some(1),
                ..ListTasksRequest::default()
            };
            outcome = match client.list_tasks(request).await {
                Ok(_) => Ok(way),
                Err(status) if Loss::of(&status) == Some(Loss::Unsent) => {
                    tally.is_turned_away();
                    Err(format!("no router takes it: {}", status.message()))
                }
                Err(status) => {
                    outcome = Err(format!("{:?}: {}", status.code(), status.message()));
                    break;
                }
            };
            if outcome.is_ok() {
                break;
            }
        }
        tally.note(outcome);
    }
    Ok(())
}

async fn keep_running(
    tally: Arc<Tally>,
    ways: Vec<Endpoints>,
    home: usize,
    made: Made,
) -> Result<(), Failure> {
    let clients: Result<Vec<_>, Failure> = ways.iter().map(Endpoints::engine).collect();
    let mut clients = clients?;
    let mut turn = home;
    while tally.goes_on() {
        let request = made.request(WORK, "{}");
        let outcome = carry_out(&mut clients, &mut turn, &request, &tally).await;
        tally.note(outcome);
    }
    Ok(())
}

/// Sees a run to its end; which way it was told of that.
async fn carry_out(
    clients: &mut [WorkflowServiceClient<Channel>],
    turn: &mut usize,
    request: &StartRunRequest,
    tally: &Tally,
) -> Result<usize, String> {
    let clock = SystemClock::default();
    let begun = clock.monotonic();
    let id = &request.run_id;
    let (mut is_started, mut last) = (false, "it is under way".to_owned());
    while clock.monotonic().saturating_sub(begun) < LONGEST_RUN {
        let way = *turn % clients.len().max(1);
        let client = clients.get_mut(way).ok_or("there is no engine")?;
        let told = if is_started {
            let request = GetRunRequest { run_id: id.clone() };
            let found = client.get_run(request).await;
            found.map(|found| found.into_inner().run.unwrap_or_default().status())
        } else {
            let started = client.start_run(request.clone()).await;
            started.map(|_| RunStatus::Pending)
        };
        match told {
            Ok(RunStatus::Completed) => return Ok(way),
            Ok(status @ (RunStatus::Faulted | RunStatus::Cancelled)) => {
                return Err(format!("run {id} is {status:?}"));
            }
            Ok(_) => is_started = true,
            Err(status) if is_to_come_again(&status) => {
                tally.is_turned_away();
                status.message().clone_into(&mut last);
                *turn += 1;
            }
            Err(status) => return Err(format!("run {id}: {:?}: {}", status.code(), status.message())),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(format!(
        "run {id} did not complete within {} s: {last}",
        LONGEST_RUN.as_secs()
    ))
}

/// Whether the same may be asked again: nobody has begun with it, or whoever was asked says when to come again.
fn is_to_come_again(status: &Status) -> bool {
    match Loss::of(status) {
        Some(loss) => loss == Loss::Unsent,
        None => status.code() == Code::Unavailable,
    }
}

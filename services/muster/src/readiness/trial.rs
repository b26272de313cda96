//! A target under examination: what checks share, and what they have made there.
//!
//! Everything that is made on a target has a name that begins with the trial's own, and is taken away at the end, whatever
//! happened. Tasks of agents have no way to be taken away in A2A; agents forget them after their own retention.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_api::workflow::{
    DeleteRunRequest, Run, RunStatus, StartRunRequest, TerminateRunRequest, WatchRunRequest,
    start_run_request, watch_run_response,
};
use muster_runtime::clock::{Clock as _, SystemClock};
use parking_lot::Mutex;
use tonic::Code;

use super::target::Target;
use crate::connect::{Channel, Endpoints, Service};
use crate::failure::Failure;

/// How long what is made may take to be taken away.
const CLEAN_PATIENCE: Duration = Duration::from_secs(60);

/// Runs that are taken away at once.
const CLEAN_AT_ONCE: usize = 8;

/// How often what is not so yet is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How checks are made.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long each step of the load takes.
    pub step: Duration,
    /// Clients of the load at most.
    pub most_clients: u32,
    /// The seed of what is left to chance.
    pub seed: u64,
    /// Where dashboards and rules are, in place of those of this program.
    pub deploy: Option<PathBuf>,
}

/// See the module.
pub struct Trial {
    /// What is looked at.
    pub target: Target,
    /// How.
    pub options: Options,
    /// What was made.
    pub made: Made,
}

/// Runs that were made; clones share them.
#[derive(Clone)]
pub struct Made {
    name: String,
    next: Arc<AtomicU64>,
    runs: Arc<Mutex<BTreeSet<String>>>,
}

impl Made {
    /// Nothing yet.
    pub fn new() -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self {
            name: format!("readiness-{}", id.get(..8).unwrap_or_default()),
            next: Arc::default(),
            runs: Arc::default(),
        }
    }

    /// A new name.
    pub fn name(&self) -> String {
        format!("{}-{}", self.name, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Starts a run and waits for its end.
    pub async fn run(
        &self,
        client: &mut WorkflowServiceClient<Channel>,
        document: &str,
        input: &str,
    ) -> Result<Run, String> {
        let id = self.start(client, document, input).await?;
        ended(client, &id).await
    }

    /// Starts a run.
    pub async fn start(
        &self,
        client: &mut WorkflowServiceClient<Channel>,
        document: &str,
        input: &str,
    ) -> Result<String, String> {
        let request = self.request(document, input);
        let id = request.run_id.clone();
        let answer = client.start_run(request).await;
        answer.map_err(|status| format!("the engine refused the run: {}", status.message()))?;
        Ok(id)
    }

    /// A run that is to be started, and will be taken away.
    pub fn request(&self, document: &str, input: &str) -> StartRunRequest {
        let id = self.name();
        // Before it is there: an answer that is lost must not leave it behind.
        self.runs.lock().insert(id.clone());
        StartRunRequest {
            run_id: id,
            source: Some(start_run_request::Source::Document(document.to_owned())),
            input_json: input.to_owned(),
            labels: [("readiness".to_owned(), self.name.clone())].into(),
            ..StartRunRequest::default()
        }
    }

    /// Takes everything away; what could not be.
    pub async fn clean(&self, endpoints: &Endpoints) -> Vec<String> {
        let runs = std::mem::take(&mut *self.runs.lock());
        let taken = futures::stream::iter(runs)
            .map(|run| async move {
                let outcome = tokio::time::timeout(CLEAN_PATIENCE, take_away(endpoints, &run)).await;
                match outcome {
                    Ok(Ok(())) => None,
                    Ok(Err(what)) => Some(format!("run {run}: {what}")),
                    Err(_) => Some(format!("run {run}: the engine does not answer")),
                }
            })
            .buffer_unordered(CLEAN_AT_ONCE);
        taken.filter_map(std::future::ready).collect().await
    }
}

/// Ends a run, if it has not ended, and forgets it.
async fn take_away(endpoints: &Endpoints, run: &str) -> Result<(), String> {
    let mut client = endpoints.engine().map_err(|failure| failure.message)?;
    loop {
        let request = DeleteRunRequest {
            run_id: run.to_owned(),
        };
        match client.delete_run(request).await {
            Ok(_) => return Ok(()),
            Err(status) => match status.code() {
                Code::NotFound => return Ok(()),
                Code::FailedPrecondition | Code::Unavailable | Code::Aborted => {}
                _ => return Err(endpoints.failure(Service::Engine, &status).message),
            },
        }
        let request = TerminateRunRequest {
            run_id: run.to_owned(),
            reason: "the examination is over".to_owned(),
            ..TerminateRunRequest::default()
        };
        // One that ends meanwhile is what is wanted; one that does not is told of by the next look.
        let _ended = client.terminate_run(request).await;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits for the end of a run.
pub async fn ended(client: &mut WorkflowServiceClient<Channel>, id: &str) -> Result<Run, String> {
    let request = WatchRunRequest {
        run_id: id.to_owned(),
        // Only the end is wanted.
        after_index: Some(u64::MAX >> 1),
    };
    let refused = |status: tonic::Status| format!("run {id}: {}", status.message());
    let mut updates = client.watch_run(request).await.map_err(refused)?.into_inner();
    while let Some(update) = updates.message().await.map_err(refused)? {
        if let Some(watch_run_response::Update::Ended(run)) = update.update {
            return Ok(run);
        }
    }
    Err(format!("run {id}: the engine stopped telling of it"))
}

/// The output of a run that has completed.
pub fn completed(run: Run) -> Result<String, String> {
    if run.status() == RunStatus::Completed {
        return Ok(run.output_json);
    }
    let why = run
        .error
        .map(|error| format!("{} ({})", error.detail, error.instance));
    Err(format!(
        "run {} did not complete: {}",
        run.run_id,
        why.unwrap_or_default()
    ))
}

/// Looks again and again until something is so, or for so long; then, what was seen last.
pub async fn eventually<T>(
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let clock = SystemClock::default();
    let until = clock.monotonic() + patience;
    loop {
        match look().await {
            Ok(seen) => return Ok(seen),
            Err(what) if clock.monotonic() >= until => {
                return Err(format!("{what} (looked at for {} s)", patience.as_secs()));
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

impl Trial {
    /// A client of the engine, as the operator.
    pub fn engine(&self) -> Result<WorkflowServiceClient<Channel>, Failure> {
        self.target.endpoints.engine()
    }
}

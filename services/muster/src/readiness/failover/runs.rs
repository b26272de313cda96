//! Runs that are under way, and new ones, while something is done to a part: whether all of them complete, and after how long.

use std::time::Duration;

use futures::future::join_all;
use muster_api::workflow::{GetRunRequest, RunStatus, VerifyRunRequest};
use muster_runtime::clock::{Clock as _, SystemClock};

use super::{BACK, within};
use crate::connect::Endpoints;
use crate::readiness::check::{Evidence, Stop};
use crate::readiness::trial::{Trial, completed, ended, eventually};

/// How long a new run may take to be acknowledged, and to end; then another one is tried.
const NEW_RUN: Duration = Duration::from_secs(2);

/// How many there are of each.
const RUNS: usize = 24;

/// Some steps, some of which take their time.
const WORK: &str = "document: { dsl: 1.0.3, namespace: readiness, name: work, version: 1.0.0 }
do:
  - first: { set: { step: 1 } }
  - pause: { wait: { milliseconds: 1500 } }
  - second: { set: { step: 2 } }
  - again: { wait: { milliseconds: 1500 } }
  - third: { set: { step: 3 } }
";

/// One step.
pub const NEW: &str = "document: { dsl: 1.0.3, namespace: readiness, name: new, version: 1.0.0 }\ndo:\n  - done: { set: { done: true } }\n";

/// Runs that are acknowledged and under way.
pub async fn acknowledged(trial: &Trial, endpoints: &Endpoints) -> Result<Vec<String>, Stop> {
    let starts = (0..RUNS).map(|_| async {
        eventually(BACK, async || {
            let mut client = endpoints.engine().map_err(|failure| failure.message)?;
            trial.made.start(&mut client, WORK, "{}").await
        })
        .await
    });
    let started: Result<Vec<String>, String> = join_all(starts).await.into_iter().collect();
    started.map_err(Stop::Failed)
}

/// How many of these runs did not complete, or are gone, or were not whole afterwards.
pub async fn lost(endpoints: &Endpoints, runs: &[String]) -> Result<Vec<String>, Stop> {
    let mut lost = Vec::new();
    let mut client = endpoints.engine()?;
    for run in runs {
        let seen = eventually(BACK, async || {
            let request = GetRunRequest { run_id: run.clone() };
            let found = client
                .get_run(request)
                .await
                .map_err(|status| status.message().to_owned())?;
            let found = found.into_inner().run.unwrap_or_default();
            match found.status() {
                RunStatus::Completed => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        if let Err(what) = seen.await {
            lost.push(format!("{run}: {what}"));
            continue;
        }
        let verified = client.verify_run(VerifyRunRequest { run_id: run.clone() }).await;
        if let Err(status) = verified {
            lost.push(format!("{run}: {}", status.message()));
        }
    }
    Ok(lost)
}

/// Until new runs complete, each in a partition that follows from its id: some are in those of whoever is away.
pub async fn new_runs(trial: &Trial, endpoints: &Endpoints) -> Result<Duration, Stop> {
    let clock = SystemClock::default();
    let before = clock.monotonic();
    let ends = (0..RUNS).map(|_| async {
        let request = trial.made.request(NEW, "{}");
        eventually(BACK, async || {
            let mut client = endpoints.engine().map_err(|failure| failure.message)?;
            // The same again and again, which starts it once.
            tokio::time::timeout(NEW_RUN, client.start_run(request.clone()))
                .await
                .map_err(|_| "a new run is not acknowledged".to_owned())?
                .map_err(|status| status.message().to_owned())?;
            tokio::time::timeout(NEW_RUN, ended(&mut client, &request.run_id))
                .await
                .map_err(|_| "a new run does not end".to_owned())?
                .and_then(completed)
        })
        .await
    });
    let done: Result<Vec<String>, String> = join_all(ends).await.into_iter().collect();
    done.map_err(Stop::Failed)?;
    Ok(clock.monotonic().saturating_sub(before))
}

/// What was seen of runs, beside what is stated.
pub fn of_runs(took: Duration, stated: Duration, lost: &[String]) -> Result<Evidence, Stop> {
    if let Some(first) = lost.first() {
        return Err(Stop::failed(format!(
            "{} of {RUNS} acknowledged runs are lost: {first}",
            lost.len()
        )));
    }
    within("new runs completed", took, stated, "")?;
    Ok(Evidence::new(format!(
        "RTO {:.2} s (stated: {} s), RPO 0 (stated: 0): {RUNS} acknowledged runs completed, their journals are whole",
        took.as_secs_f64(),
        stated.as_secs()
    ))
    .figure("rtoSeconds", took.as_secs_f64())
    .figure("statedRtoSeconds", stated.as_secs())
    .figure("lostRuns", 0)
    .figure("runs", RUNS))
}

//! Replicas that come and go under load: those that come take their share within seconds, those that go do so without an error,
//! and the figure by which the autoscaler decides moves as its rule expects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use muster_api::a2a::ListTasksRequest;
use muster_api::router::GetStatusRequest;
use muster_runtime::clock::{Clock as _, SystemClock};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tonic::Request;

use super::check::{Area, Check, Evidence, Need, Stop, Verdict};
use super::monitoring::sum;
use super::trial::{Trial, completed, ended, eventually};
use crate::bench::latency::number;
use crate::bench::part::Part;
use crate::connect::Endpoints;
use crate::failure::Failure;

/// Within this time a replica that has come has its share.
const SHARE_WITHIN: Duration = Duration::from_secs(15);

/// How long one that goes may take.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// How much is seen of how work is shared.
const LOOKED_AT: Duration = Duration::from_secs(2);

/// The part of the calls that a second instance must get to have its share: half, less what chance takes.
const SHARE: f64 = 0.3;

/// The agent that is called.
const AGENT: &str = "weather";

/// Callers at a time.
const CALLERS: usize = 8;

/// A run that is held in the middle of a call.
const HELD: &str = "document: { dsl: 1.0.3, namespace: readiness, name: held, version: 1.0.0 }
do:
  - held:
      call: a2a
      with: { server: \"agent://readiness-probe\", method: SendMessage, parameters: { message: { parts: [ { data: { hold: true } } ] } } }
";

/// The checks.
pub const CHECKS: &[Check] = &[
    Check {
        area: Area::Scaling,
        name: "an agent's second instance takes its share, and goes without an error",
        needs: &[Need::OwnStack],
        run: |trial| Box::pin(agent(trial)),
    },
    Check {
        area: Area::Scaling,
        name: "the autoscaler's metric moves with the runs",
        needs: &[Need::OwnStack],
        run: |trial| Box::pin(active_workflows(trial)),
    },
];

/// Work that goes on until it is told to stop; what of it failed.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<String>>>,
    working: JoinSet<Result<(), Failure>>,
}

impl Load {
    fn new() -> Self {
        Self {
            stop: Arc::default(),
            done: Arc::default(),
            failed: Arc::default(),
            working: JoinSet::new(),
        }
    }

    /// Calls of an agent, one after the other, by so many callers.
    fn of_calls(endpoints: &Endpoints, agent: &str) -> Self {
        let mut load = Self::new();
        for _ in 0..CALLERS {
            let (stop, done, failed) = (
                Arc::clone(&load.stop),
                Arc::clone(&load.done),
                Arc::clone(&load.failed),
            );
            let (endpoints, agent) = (endpoints.clone(), agent.to_owned());
            load.working.spawn(async move {
                let mut client = endpoints.agents()?;
                while !stop.load(Ordering::Relaxed) {
                    let request = ListTasksRequest {
                        tenant: agent.clone(),
                        page_size: Some(1),
                        ..ListTasksRequest::default()
                    };
                    match client.list_tasks(request).await {
                        Ok(_) => done.fetch_add(1, Ordering::Relaxed),
                        Err(status) => {
                            failed.lock().push(status.message().to_owned());
                            0
                        }
                    };
                }
                Ok(())
            });
        }
        load
    }

    /// Ends it in good order: how much was done. Fails where something failed.
    async fn end(mut self, what: &str) -> Result<u64, Stop> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.working.join_next().await {
            ended.map_err(|error| Stop::failed(error.to_string()))??;
        }
        let done = self.done.load(Ordering::Relaxed);
        let failed = self.failed.lock();
        match failed.first() {
            None => Ok(done),
            Some(first) => Err(Stop::failed(format!(
                "{} of {} {what} failed, the first: {first}",
                failed.len(),
                done + u64::try_from(failed.len()).unwrap_or(u64::MAX)
            ))),
        }
    }
}

/// How many calls each instance of an agent has answered, by its address.
async fn answered(trial: &Trial, agent: &str) -> Result<Vec<(String, u64)>, String> {
    let mut client = trial
        .target
        .endpoints
        .router()
        .map_err(|failure| failure.message)?;
    let status = client.get_status(Request::new(GetStatusRequest {})).await;
    let status = status.map_err(|status| status.message().to_owned())?.into_inner();
    let own = status
        .instances
        .into_iter()
        .filter(|instance| instance.agent_id == agent);
    Ok(own
        .map(|instance| (instance.endpoint, instance.succeeded_total))
        .collect())
}

/// The share of the calls that the instance at this address gets for a while.
async fn share(trial: &Trial, agent: &str, address: &str) -> Result<f64, String> {
    let count = |rows: &[(String, u64)]| {
        let all: u64 = rows.iter().map(|(_, count)| count).sum();
        let own = rows.iter().filter(|(endpoint, _)| endpoint.ends_with(address));
        (own.map(|(_, count)| count).sum::<u64>(), all)
    };
    let before = count(&answered(trial, agent).await?);
    tokio::time::sleep(LOOKED_AT).await;
    let after = count(&answered(trial, agent).await?);
    let all = after.1.saturating_sub(before.1);
    if all == 0 {
        return Err("nothing was answered".to_owned());
    }
    Ok(number(after.0.saturating_sub(before.0)) / number(all))
}

async fn agent(trial: &mut Trial) -> Verdict {
    const SECOND: &str = "second-weather";
    let clock = SystemClock::default();
    let load = Load::of_calls(&trial.target.endpoints, AGENT);
    let before = clock.monotonic();
    trial.target.stack_mut()?.add(SECOND, Part::Weather).await?;
    let address = trial.target.stack()?.member(SECOND)?.addresses.data.clone();
    let got = eventually(SHARE_WITHIN, async || {
        let share = share(trial, AGENT, &address).await?;
        if share >= SHARE {
            Ok(share)
        } else {
            Err(format!(
                "the second instance gets {:.0} % of the calls",
                100.0 * share
            ))
        }
    });
    let got = got.await;
    let took = clock.monotonic().saturating_sub(before).as_secs_f64();
    let gone = tokio::time::timeout(GONE_WITHIN, trial.target.stack_mut()?.remove(SECOND)).await;
    let calls = load.end("calls").await;
    gone.map_err(|_| Stop::failed("the second instance does not end"))??;
    let share = got.map_err(Stop::Failed)?;
    Ok(Evidence::new(format!(
        "{:.0} % of the calls after {took:.1} s; {} calls while it came and went, none failed",
        100.0 * share,
        calls?
    ))
    .figure("share", share)
    .figure("shareAfterSeconds", took))
}

/// The engines are scaled by it: it must rise with runs that hold a slot, and fall again.
async fn active_workflows(trial: &mut Trial) -> Verdict {
    const METRIC: &str = "active_workflows";
    const RUNS: usize = 5;
    let before = sum(trial, METRIC).await.map_err(Stop::Failed)?;
    let probe = trial.target.stack()?.probe()?;
    let mut client = trial.engine()?;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(
            trial
                .made
                .start(&mut client, HELD, "{}")
                .await
                .map_err(Stop::Failed)?,
        );
    }
    let held = tokio::time::timeout(GONE_WITHIN, probe.holds(RUNS)).await;
    let risen = async {
        held.map_err(|_| "the runs did not reach the agent".to_owned())?;
        eventually(GONE_WITHIN, async || {
            let now = sum(trial, METRIC).await?;
            if now >= before + 5.0 {
                Ok(now)
            } else {
                Err(format!(
                    "{METRIC} is {now} with {RUNS} runs under way, and was {before} before"
                ))
            }
        })
        .await
    };
    let risen = risen.await;
    for _ in 0..RUNS {
        probe.release();
    }
    for run in &runs {
        ended(&mut client, run)
            .await
            .and_then(completed)
            .map_err(Stop::Failed)?;
    }
    let risen = risen.map_err(Stop::Failed)?;
    let fallen = eventually(GONE_WITHIN, async || {
        let now = sum(trial, METRIC).await?;
        if now <= before {
            Ok(now)
        } else {
            Err(format!(
                "{METRIC} is {now} after the runs have ended, and was {before} before"
            ))
        }
    });
    let fallen = fallen.await.map_err(Stop::Failed)?;
    Ok(Evidence::new(format!(
        "{METRIC}: {before} before, {risen} with {RUNS} runs under way, {fallen} afterwards"
    )))
}

//! Replicas that come and go under [load](load): those that come take their share within seconds, those that go do so without an
//! error, and the figure by which the autoscaler decides moves as its rule expects.

mod load;

use std::time::Duration;

use muster_api::router::GetStatusRequest;
use muster_runtime::clock::{Clock as _, SystemClock};
use tonic::Request;

use self::load::{Ended, Load};
use super::check::{Area, Check, Evidence, Need, Stop, Verdict};
use super::monitoring::{one, sum};
use super::target::hands::{Deed, Role};
use super::trial::{Trial, completed, ended, eventually};
use crate::bench::latency::number;
use crate::bench::part::Part;
use crate::connect::Endpoints;

/// Within this time a replica that has come has its share.
const SHARE_WITHIN: Duration = Duration::from_secs(15);

/// How long one that goes may take.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// How much is seen of how work is shared.
const LOOKED_AT: Duration = Duration::from_secs(2);

/// The part of the work that one of two must get to have its share, and one of three: a half and a third, less what chance takes.
const OF_TWO: f64 = 0.3;
const OF_THREE: f64 = 0.2;

/// The agent that is called.
const AGENT: &str = "weather";

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
        name: "a third engine takes its share of the runs, and gives it back without an error",
        needs: &[Need::OwnStack, Need::Harm(Role::Engine)],
        run: |trial| Box::pin(engine(trial)),
    },
    Check {
        area: Area::Scaling,
        name: "a router goes without an error, and takes its share when it is back",
        needs: &[Need::OwnStack, Need::Harm(Role::Router)],
        run: |trial| Box::pin(router(trial)),
    },
    Check {
        area: Area::Scaling,
        name: "the autoscaler's metric moves with the runs",
        needs: &[Need::OwnStack],
        run: |trial| Box::pin(active_workflows(trial)),
    },
];

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
    let load = Load::of_calls(std::slice::from_ref(&trial.target.endpoints), AGENT);
    let before = clock.monotonic();
    trial.target.stack_mut()?.add(SECOND, Part::Weather).await?;
    let address = trial.target.stack()?.member(SECOND)?.addresses.data.clone();
    let got = eventually(SHARE_WITHIN, async || {
        let share = share(trial, AGENT, &address).await?;
        if share >= OF_TWO {
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
    Ok(shared("calls", share, took, calls?, "while it came and went"))
}

/// A replica that has its share, and what was done meanwhile.
fn shared(what: &str, share: f64, took: f64, ended: Ended, meanwhile: &str) -> Evidence {
    let Ended { done, turned_away } = ended;
    Evidence::new(format!(
        "{:.0} % of the {what} after {took:.1} s; {done} {what} {meanwhile}, none failed, {turned_away} times another one was asked",
        100.0 * share
    ))
    .figure("share", share)
    .figure("shareAfterSeconds", took)
    .figure("done", done)
    .figure("turnedAway", turned_away)
}

/// The two ways into a stack with two of each.
fn ways(trial: &Trial) -> Result<[Endpoints; 2], Stop> {
    Ok([trial.target.endpoints.clone(), trial.target.other()?])
}

/// How many runs have ended in each engine, by its name, as its metrics say.
async fn ended_in(trial: &Trial) -> Result<Vec<(String, f64)>, String> {
    const METRIC: &str = "workflow_runs_ended_total";
    let stack = trial.target.stack().map_err(|failure| failure.message)?;
    let mut found = Vec::new();
    for place in stack.places() {
        let Some(metrics) = place.metrics.filter(|_| place.name.starts_with("engine-")) else {
            continue;
        };
        // One that has ended none does not show it.
        let count = one(trial, &metrics, METRIC).await?.unwrap_or(0.0);
        found.push((place.name, count));
    }
    Ok(found)
}

/// The share of the runs that end in this engine for a while.
async fn share_of_runs(trial: &Trial, engine: &str) -> Result<f64, String> {
    let count = |rows: &[(String, f64)]| {
        let all: f64 = rows.iter().map(|(_, count)| count).sum();
        let own = rows.iter().find(|(name, _)| name == engine);
        (own.map_or(0.0, |(_, count)| *count), all)
    };
    let before = count(&ended_in(trial).await?);
    tokio::time::sleep(LOOKED_AT).await;
    let after = count(&ended_in(trial).await?);
    let all = after.1 - before.1;
    if all <= 0.0 {
        return Err("no run has ended".to_owned());
    }
    Ok((after.0 - before.0) / all)
}

async fn engine(trial: &mut Trial) -> Verdict {
    const THIRD: &str = "engine-3";
    let clock = SystemClock::default();
    let load = Load::of_runs(&ways(trial)?, &trial.made);
    let before = clock.monotonic();
    trial.target.stack_mut()?.add(THIRD, Part::Engine).await?;
    let got = eventually(SHARE_WITHIN, async || {
        let share = share_of_runs(trial, THIRD).await?;
        if share >= OF_THREE {
            Ok(share)
        } else {
            Err(format!(
                "the third engine gets {:.0} % of the runs",
                100.0 * share
            ))
        }
    });
    let got = got.await;
    let took = clock.monotonic().saturating_sub(before).as_secs_f64();
    let gone = tokio::time::timeout(GONE_WITHIN, trial.target.stack_mut()?.remove(THIRD)).await;
    let runs = load.end("runs").await;
    gone.map_err(|_| Stop::failed("the third engine does not end"))??;
    let share = got.map_err(Stop::Failed)?;
    Ok(shared("runs", share, took, runs?, "while it came and went"))
}

/// The share of the work that goes by this way for a while.
async fn share_of_way(load: &Load, way: usize) -> Result<f64, String> {
    let count = |done: &[u64]| (done.get(way).copied().unwrap_or(0), done.iter().sum::<u64>());
    let before = count(&load.done());
    tokio::time::sleep(LOOKED_AT).await;
    let after = count(&load.done());
    let all = after.1.saturating_sub(before.1);
    if all == 0 {
        return Err("nothing was answered".to_owned());
    }
    Ok(number(after.0.saturating_sub(before.0)) / number(all))
}

/// Of the ways, the one whose router goes.
const GOES: usize = 1;

async fn router(trial: &mut Trial) -> Verdict {
    const SECOND: &str = "router-2";
    let clock = SystemClock::default();
    let load = Load::of_calls(&ways(trial)?, AGENT);
    let has_share = || {
        eventually(SHARE_WITHIN, async || {
            let share = share_of_way(&load, GOES).await?;
            if share >= OF_TWO {
                Ok(share)
            } else {
                Err(format!(
                    "the second router gets {:.0} % of the calls",
                    100.0 * share
                ))
            }
        })
    };
    let had = has_share().await;
    let stops = clock.monotonic();
    let gone = tokio::time::timeout(GONE_WITHIN, trial.target.stack_mut()?.stop(SECOND)).await;
    let drained = clock.monotonic().saturating_sub(stops).as_secs_f64();
    let starts = clock.monotonic();
    let back = trial.target.act(Deed::Start, SECOND).await;
    let has = has_share().await;
    let took = clock.monotonic().saturating_sub(starts).as_secs_f64();
    let calls = load.end("calls").await;
    gone.map_err(|_| Stop::failed("the second router does not end"))??;
    back?;
    had.map_err(Stop::Failed)?;
    let share = has.map_err(Stop::Failed)?;
    let mut evidence = shared("calls", share, took, calls?, "while it went and came");
    evidence.text = format!("it ended in order in {drained:.1} s; again {}", evidence.text);
    Ok(evidence.figure("endedInSeconds", drained))
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

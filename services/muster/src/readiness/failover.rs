//! Each kind of part is killed, and cut off, while there is work: how long it takes until work goes on (RTO), and what of what was
//! acknowledged is lost (RPO), beside what the README promises.
//!
//! A part is cut off by freezing it: it answers nobody, and when it wakes it does not know that time has passed, which is the
//! worst that a partition of the network can do to it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::a2a::{
    ListTasksRequest, Message, Part as MessagePart, Role as A2aRole, SendMessageRequest, part,
};
use muster_api::router::{GetStatusRequest, GetStatusResponse};
use muster_api::workflow::{GetRunRequest, RunStatus, VerifyRunRequest};
use muster_runtime::clock::{Clock as _, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::check::{Area, Check, Evidence, Need, Stop, Verdict};
use super::target::hands::{Deed, Role};
use super::trial::{Made, Trial, completed, ended, eventually};
use crate::bench::part::Part;
use crate::connect::{Channel, Endpoints};
use crate::failure::Failure;

/// Calls go on at once: within this time of a part's death.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A part that is silent is noticed by its callers within this time.
const NOTICED: Duration = Duration::from_secs(20);

/// Runs go on within this time.
const RUNS_GO_ON: Duration = Duration::from_secs(10);

/// What is killed and started again is back within this time.
const BACK: Duration = Duration::from_secs(60);

/// How long callers go on after a fault before it counts as over.
const CALM: Duration = Duration::from_secs(2);

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);

/// How long they work before something is done.
const WARM: Duration = Duration::from_secs(1);

/// How long a new run may take to be acknowledged, and to end; then another one is tried.
const NEW_RUN: Duration = Duration::from_secs(2);

/// Callers, and runs that are under way.
const CALLERS: usize = 4;
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
const NEW: &str = "document: { dsl: 1.0.3, namespace: readiness, name: new, version: 1.0.0 }\ndo:\n  - done: { set: { done: true } }\n";

/// The checks.
pub const CHECKS: &[Check] = &[
    Check {
        area: Area::Failover,
        name: "a registry is killed: calls go on",
        needs: &[Need::Harm(Role::Registry)],
        run: |trial| Box::pin(registry(trial, Deed::Kill)),
    },
    Check {
        area: Area::Failover,
        name: "a registry is cut off: calls go on",
        needs: &[Need::Harm(Role::Registry)],
        run: |trial| Box::pin(registry(trial, Deed::Freeze)),
    },
    Check {
        area: Area::Failover,
        name: "a router is killed: callers go on at another",
        needs: &[Need::Harm(Role::Router)],
        run: |trial| Box::pin(router(trial, Deed::Kill)),
    },
    Check {
        area: Area::Failover,
        name: "a router is cut off: callers go on at another",
        needs: &[Need::Harm(Role::Router)],
        run: |trial| Box::pin(router(trial, Deed::Freeze)),
    },
    Check {
        area: Area::Failover,
        name: "an agent's instance is killed: calls go to another",
        needs: &[Need::Harm(Role::Agent)],
        run: |trial| Box::pin(agent(trial, Deed::Kill)),
    },
    Check {
        area: Area::Failover,
        name: "an agent's instance is cut off: calls go to another",
        needs: &[Need::Harm(Role::Agent), Need::OwnStack],
        run: |trial| Box::pin(agent(trial, Deed::Freeze)),
    },
    Check {
        area: Area::Failover,
        name: "an engine is killed: another goes on with its runs",
        needs: &[Need::Harm(Role::Engine)],
        run: |trial| Box::pin(engine(trial, Deed::Kill)),
    },
    Check {
        area: Area::Failover,
        name: "an engine is cut off: another goes on with its runs",
        needs: &[Need::Harm(Role::Engine)],
        run: |trial| Box::pin(engine(trial, Deed::Freeze)),
    },
    Check {
        area: Area::Failover,
        name: "Redis is killed: nothing acknowledged is lost",
        needs: &[Need::Harm(Role::Redis)],
        run: |trial| Box::pin(redis(trial)),
    },
];

fn harmed(trial: &Trial, role: Role) -> Result<String, Stop> {
    let part = trial.target.harmed(role);
    part.ok_or_else(|| Stop::skipped(Need::Harm(role).describe()))
}

/// The deed that undoes another.
const fn undone(deed: Deed) -> Deed {
    match deed {
        Deed::Freeze => Deed::Thaw,
        Deed::Kill | Deed::Start | Deed::Thaw => Deed::Start,
    }
}

/// What callers do, and when something was done to a part.
#[derive(Clone)]
struct Calling {
    ways: Vec<Endpoints>,
    agent: String,
    /// Whether the agent is to work, or to read a list.
    sends: bool,
    made: Made,
    clock: SystemClock,
    /// When the fault was, once it was.
    fault: watch::Receiver<Option<Duration>>,
}

/// What callers saw since the fault.
#[derive(Debug, Default)]
struct Seen {
    calls: u64,
    failed: u64,
    /// From the fault until the last call that failed had ended.
    until: Duration,
    last: String,
}

/// One call.
async fn call(client: &mut A2aServiceClient<Channel>, calling: &Calling) -> Result<(), String> {
    let answer = async {
        if calling.sends {
            let text = part::Content::Text("Seattle 2014-03-01".to_owned());
            let message = Message {
                message_id: calling.made.name(),
                role: A2aRole::User.into(),
                parts: vec![MessagePart {
                    content: Some(text),
                    ..MessagePart::default()
                }],
                ..Message::default()
            };
            let request = SendMessageRequest {
                tenant: calling.agent.clone(),
                message: Some(message),
                ..SendMessageRequest::default()
            };
            client.send_message(request).await.map(|_| ())
        } else {
            let request = ListTasksRequest {
                tenant: calling.agent.clone(),
                page_size: Some(1),
                ..ListTasksRequest::default()
            };
            client.list_tasks(request).await.map(|_| ())
        }
    };
    let answer = tokio::time::timeout(CALL, answer).await;
    answer
        .map_err(|_| format!("no answer within {} s", CALL.as_secs()))?
        .map_err(|status| status.message().to_owned())
}

/// One call after the other; after a failure by the next way. Ends some time after the fault, once no call has failed for a while.
async fn caller(calling: Calling) -> Result<Seen, Failure> {
    let clients: Result<Vec<_>, Failure> = calling.ways.iter().map(Endpoints::agents).collect();
    let mut clients = clients?;
    let mut seen = Seen::default();
    let (mut way, count) = (0, clients.len().max(1));
    loop {
        let client = clients.get_mut(way % count);
        let client = client.ok_or_else(|| Failure::failed("there is no router"))?;
        let failed = call(client, &calling).await.err();
        let fault = *calling.fault.borrow();
        let Some(fault) = fault else {
            match failed {
                None => continue,
                Some(what) => {
                    return Err(Failure::failed(format!(
                        "calls fail before anything was done: {what}"
                    )));
                }
            }
        };
        seen.calls += 1;
        let now = calling.clock.monotonic().saturating_sub(fault);
        match failed {
            None if now >= seen.until + CALM => return Ok(seen),
            None => {}
            Some(what) => {
                seen.failed += 1;
                seen.until = now;
                seen.last = what;
                way += 1;
                if now >= BACK {
                    return Ok(seen);
                }
            }
        }
    }
}

/// Callers by these ways while something is done to a part; what all of them saw together.
async fn calls(
    trial: &mut Trial,
    calling: Calling,
    fault: &watch::Sender<Option<Duration>>,
    deed: Deed,
    part: &str,
) -> Result<Seen, Stop> {
    let clock = calling.clock;
    let mut working = JoinSet::new();
    for _ in 0..CALLERS {
        working.spawn(caller(calling.clone()));
    }
    tokio::time::sleep(WARM).await;
    fault.send_replace(Some(clock.monotonic()));
    trial.target.act(deed, part).await?;
    let mut seen = Seen::default();
    while let Some(ended) = working.join_next().await {
        let one = ended.map_err(|error| Stop::failed(error.to_string()))??;
        seen.calls += one.calls;
        seen.failed += one.failed;
        if one.until > seen.until {
            seen.until = one.until;
            seen.last = one.last;
        }
    }
    Ok(seen)
}

/// What callers are to do.
fn calling(
    trial: &Trial,
    ways: Vec<Endpoints>,
    agent: &str,
    sends: bool,
) -> (Calling, watch::Sender<Option<Duration>>) {
    let (sender, fault) = watch::channel(None);
    let calling = Calling {
        ways,
        agent: agent.to_owned(),
        sends,
        made: trial.made.clone(),
        clock: SystemClock::default(),
        fault,
    };
    (calling, sender)
}

/// Fails where it took longer than is stated.
fn within(what: &str, took: Duration, stated: Duration, last: &str) -> Result<(), Stop> {
    if took <= stated {
        return Ok(());
    }
    Err(Stop::failed(format!(
        "{what} after {:.2} s, and {} s are stated; last: {last}",
        took.as_secs_f64(),
        stated.as_secs()
    )))
}

fn of_calls(seen: &Seen, stated: Duration, more: &str) -> Evidence {
    Evidence::new(format!(
        "RTO {:.2} s (stated: {} s), {} of {} calls failed meanwhile{more}",
        seen.until.as_secs_f64(),
        stated.as_secs(),
        seen.failed,
        seen.calls
    ))
    .figure("rtoSeconds", seen.until.as_secs_f64())
    .figure("statedRtoSeconds", stated.as_secs())
    .figure("calls", seen.calls)
    .figure("failedCalls", seen.failed)
}

/// Where the instances are that the router routes to; one that was started again is at the same place twice until its lease ends.
fn addresses(status: &GetStatusResponse) -> usize {
    let all: BTreeSet<&str> = status
        .instances
        .iter()
        .map(|instance| instance.endpoint.as_str())
        .collect();
    all.len()
}

/// Waits until the router hears its registry and routes to as many places as before.
async fn whole(trial: &Trial, places: usize) -> Result<(), Stop> {
    let mut client = trial.target.endpoints.router()?;
    let seen = eventually(BACK, async || {
        let status = client.get_status(GetStatusRequest {}).await;
        let status = status.map_err(|status| status.message().to_owned())?.into_inner();
        let now = addresses(&status);
        if status.view_stale || now < places {
            return Err(format!(
                "the router's view: stale {}, instances at {now} places of {places}",
                status.view_stale
            ));
        }
        Ok(())
    });
    seen.await.map_err(Stop::Failed)
}

async fn count(trial: &Trial) -> Result<usize, Stop> {
    let status = trial
        .target
        .endpoints
        .router()?
        .get_status(GetStatusRequest {})
        .await;
    let status = status.map_err(|status| Stop::failed(status.message().to_owned()))?;
    Ok(addresses(&status.into_inner()))
}

/// An agent that is not the one that is harmed.
async fn an_agent(trial: &Trial) -> Result<String, Stop> {
    let agents = super::initialisation::agent_ids(trial).await?;
    let harmed = trial.target.harmed(Role::Agent);
    let other = agents.iter().find(|agent| Some(*agent) != harmed.as_ref());
    other
        .cloned()
        .ok_or_else(|| Stop::failed("no agent is registered"))
}

async fn registry(trial: &mut Trial, deed: Deed) -> Verdict {
    let part = harmed(trial, Role::Registry)?;
    let instances = count(trial).await?;
    let agent = an_agent(trial).await?;
    let ways = vec![trial.target.endpoints.clone()];
    let (calling, fault) = calling(trial, ways, &agent, false);
    let seen = calls(trial, calling, &fault, deed, &part).await;
    trial.target.act(undone(deed), &part).await?;
    let seen = seen?;
    if seen.failed > 0 {
        return Err(Stop::failed(format!(
            "{} of {} calls failed, though the router has its last view: {}",
            seen.failed, seen.calls, seen.last
        )));
    }
    whole(trial, instances).await?;
    Ok(of_calls(
        &seen,
        Duration::ZERO,
        "; all instances are registered again afterwards",
    ))
}

async fn router(trial: &mut Trial, deed: Deed) -> Verdict {
    let part = harmed(trial, Role::Router)?;
    let agent = an_agent(trial).await?;
    let ways = vec![trial.target.endpoints.clone(), trial.target.other()?];
    let (calling, fault) = calling(trial, ways, &agent, false);
    let seen = calls(trial, calling, &fault, deed, &part).await;
    trial.target.act(undone(deed), &part).await?;
    let seen = seen?;
    let stated = if deed == Deed::Kill { AT_ONCE } else { NOTICED };
    within("callers went on", seen.until, stated, &seen.last)?;
    Ok(of_calls(&seen, stated, ""))
}

async fn agent(trial: &mut Trial, deed: Deed) -> Verdict {
    let part = harmed(trial, Role::Agent)?;
    let instances = count(trial).await?;
    let ways = vec![trial.target.endpoints.clone()];
    let (calling, fault) = calling(trial, ways, &part, true);
    let own = trial.target.stack().is_ok();
    if own {
        trial
            .target
            .stack_mut()?
            .add("second-weather", Part::Weather)
            .await?;
        whole(trial, instances + 1).await?;
    }
    let seen = calls(trial, calling, &fault, deed, &part).await;
    trial.target.act(undone(deed), &part).await?;
    if own {
        whole(trial, instances + 1).await?;
        trial.target.stack_mut()?.remove("second-weather").await?;
    }
    whole(trial, instances).await?;
    let seen = seen?;
    let stated = if deed == Deed::Kill { AT_ONCE } else { NOTICED };
    within("calls went to another instance", seen.until, stated, &seen.last)?;
    Ok(of_calls(&seen, stated, ""))
}

/// Runs that are acknowledged and under way.
async fn acknowledged(trial: &Trial, endpoints: &Endpoints) -> Result<Vec<String>, Stop> {
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
async fn lost(endpoints: &Endpoints, runs: &[String]) -> Result<Vec<String>, Stop> {
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
async fn new_runs(trial: &Trial, endpoints: &Endpoints) -> Result<Duration, Stop> {
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

fn of_runs(took: Duration, stated: Duration, lost: &[String]) -> Result<Evidence, Stop> {
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

async fn engine(trial: &mut Trial, deed: Deed) -> Verdict {
    let part = harmed(trial, Role::Engine)?;
    let runs = acknowledged(trial, &trial.target.endpoints).await?;
    let other = trial.target.other()?;
    trial.target.act(deed, &part).await?;
    let measured = async {
        let took = new_runs(trial, &other).await?;
        let lost = lost(&other, &runs).await?;
        Ok::<_, Stop>((took, lost))
    };
    let measured = measured.await;
    trial.target.act(undone(deed), &part).await?;
    let (took, lost) = measured?;
    of_runs(took, RUNS_GO_ON, &lost)
}

async fn redis(trial: &mut Trial) -> Verdict {
    let part = harmed(trial, Role::Redis)?;
    let endpoints = trial.target.endpoints.clone();
    let instances = count(trial).await?;
    let runs = acknowledged(trial, &endpoints).await?;
    trial.target.act(Deed::Kill, &part).await?;
    // Either it is refused, or it is not answered; it is not acknowledged.
    let mut client = endpoints.engine()?;
    let refused = tokio::time::timeout(RUNS_GO_ON, trial.made.start(&mut client, NEW, "{}")).await;
    trial.target.act(Deed::Start, &part).await?;
    if matches!(refused, Ok(Ok(_))) {
        return Err(Stop::failed("a run was acknowledged while Redis was away"));
    }
    let took = new_runs(trial, &endpoints).await?;
    let lost = lost(&endpoints, &runs).await?;
    whole(trial, instances).await?;
    let mut evidence = of_runs(took, RUNS_GO_ON, &lost)?;
    evidence
        .text
        .push_str("; a new run was refused meanwhile; the time counts from the new start of Redis");
    Ok(evidence)
}

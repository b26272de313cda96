//! Each kind of part is killed, frozen and cut off while there is work: how long it takes until work goes on (RTO), and what of what
//! was acknowledged is lost (RPO), beside what the README promises.
//!
//! ```text
//! calling.rs    callers who go on calling meanwhile
//! runs.rs       runs that are under way, and new ones
//! ```
//!
//! A part that is frozen answers nobody, and when it wakes it does not know that time has passed; one that is cut off goes on working,
//! and what it says does not arrive. Both are silent, which others have to notice by themselves.

mod calling;
mod runs;

use std::collections::BTreeSet;
use std::time::Duration;

use muster_api::router::{GetStatusRequest, GetStatusResponse};

use self::calling::{calling, calls, of_calls};
use self::runs::{NEW, acknowledged, lost, new_runs, of_runs};
use super::check::{Area, Check, Need, Stop, Verdict};
use super::monitoring::one;
use super::target::hands::{Deed, Role};
use super::trial::{Trial, eventually};
use crate::bench::part::Part;

/// Calls go on at once: within this time of a part's death.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A part that is silent is noticed by its callers within this time.
const NOTICED: Duration = Duration::from_secs(20);

/// Runs go on within this time.
const RUNS_GO_ON: Duration = Duration::from_secs(10);

/// What is killed and started again is back within this time.
const BACK: Duration = Duration::from_secs(60);

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
        name: "a registry is frozen: calls go on",
        needs: &[Need::Harm(Role::Registry)],
        run: |trial| Box::pin(registry(trial, Deed::Freeze)),
    },
    Check {
        area: Area::Failover,
        name: "a registry is cut off: calls go on",
        needs: &[Need::Harm(Role::Registry), Need::Network],
        run: |trial| Box::pin(registry(trial, Deed::Cut)),
    },
    Check {
        area: Area::Failover,
        name: "a router is killed: callers go on at another",
        needs: &[Need::Harm(Role::Router)],
        run: |trial| Box::pin(router(trial, Deed::Kill)),
    },
    Check {
        area: Area::Failover,
        name: "a router is frozen: callers go on at another",
        needs: &[Need::Harm(Role::Router)],
        run: |trial| Box::pin(router(trial, Deed::Freeze)),
    },
    Check {
        area: Area::Failover,
        name: "a router is cut off: callers go on at another",
        needs: &[Need::Harm(Role::Router), Need::Network],
        run: |trial| Box::pin(router(trial, Deed::Cut)),
    },
    Check {
        area: Area::Failover,
        name: "an agent's instance is killed: calls go to another",
        needs: &[Need::Harm(Role::Agent)],
        run: |trial| Box::pin(agent(trial, Deed::Kill)),
    },
    Check {
        area: Area::Failover,
        name: "an agent's instance is frozen: calls go to another",
        needs: &[Need::Harm(Role::Agent), Need::OwnStack],
        run: |trial| Box::pin(agent(trial, Deed::Freeze)),
    },
    Check {
        area: Area::Failover,
        name: "an agent's instance is cut off: calls go to another",
        needs: &[Need::Harm(Role::Agent), Need::Network, Need::OwnStack],
        run: |trial| Box::pin(agent(trial, Deed::Cut)),
    },
    Check {
        area: Area::Failover,
        name: "an engine is killed: another goes on with its runs",
        needs: &[Need::Harm(Role::Engine)],
        run: |trial| Box::pin(engine(trial, Deed::Kill)),
    },
    Check {
        area: Area::Failover,
        name: "an engine is frozen: another goes on with its runs",
        needs: &[Need::Harm(Role::Engine)],
        run: |trial| Box::pin(engine(trial, Deed::Freeze)),
    },
    Check {
        area: Area::Failover,
        name: "an engine is cut off: another goes on with its runs",
        needs: &[Need::Harm(Role::Engine), Need::Network],
        run: |trial| Box::pin(engine(trial, Deed::Cut)),
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
        Deed::Cut => Deed::Join,
        Deed::Kill | Deed::Start | Deed::Thaw | Deed::Join => Deed::Start,
    }
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

/// Waits until an engine works on partitions: one that was away has none when it comes back, and nothing would be missed without it.
/// One whose metrics are nowhere named is taken as it is.
async fn at_work(trial: &Trial, engine: &str) -> Result<(), Stop> {
    const METRIC: &str = "workflow_partitions";
    let place = trial.target.places.iter().find(|place| place.name == engine);
    let Some(url) = place.and_then(|place| place.metrics.as_deref()) else {
        return Ok(());
    };
    let seen = eventually(BACK, async || match one(trial, url, METRIC).await? {
        Some(count) if count > 0.0 => Ok(()),
        _ => Err(format!("{engine} works on no partition")),
    });
    seen.await.map_err(Stop::Failed)
}

async fn engine(trial: &mut Trial, deed: Deed) -> Verdict {
    let part = harmed(trial, Role::Engine)?;
    at_work(trial, &part).await?;
    let runs = acknowledged(trial, &trial.target.endpoints).await?;
    // One that has only just woken may have learned in the meantime that it had lost what it worked on.
    at_work(trial, &part).await?;
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

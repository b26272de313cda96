//! Two registries that are one by a Redis, and what becomes of agents, routers and callers when that Redis is lost.
//!
//! Each registry has a router of its own, and agents register with the first: what the second router knows has come through Redis.

use std::net::Ipv4Addr;

use muster_api::error::Reason;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::watch_agents_response::Change;
use muster_api::registry::{Agent, DrainRequest, GetAgentRequest, WatchAgentsRequest, WatchAgentsResponse};
use muster_testkit::{Program, RedisServer, http, wait_for};
use muster_tests::PATIENCE;
use tonic::{Status, Streaming};

use crate::failing::Failing;
use crate::system::{Running, System, channel, error_in};

/// Times that a test can wait for.
const SHORT: [(&str, &str); 4] = [
    ("REGISTRY__HEALTH_CHECK_INTERVAL", "2"),
    ("REGISTRY__LEASE_DURATION", "15"),
    ("REGISTRY__REDIS__PATIENCE_SECONDS", "2"),
    ("REGISTRY__REDIS__ANSWER_WITHIN_SECONDS", "1"),
];

/// What a registry whose Redis is lost says of itself.
const LOST: &str = "reads are answered from memory";

fn registries(system: &System) -> [&Program; 2] {
    let other = system.other_registry.as_ref().expect("there are two");
    [&system.registry, &other.program]
}

async fn agent(registry: &Program, id: &str) -> Result<Agent, Status> {
    let request = GetAgentRequest {
        agent_id: id.to_owned(),
        ..GetAgentRequest::default()
    };
    let found = RegistryServiceClient::new(channel(registry))
        .get_agent(request)
        .await?;
    Ok(found.into_inner().agent.unwrap_or_default())
}

/// The epoch of the only instance of an agent, the same at both registries.
async fn epoch(system: &System, id: &str) -> u64 {
    wait_for("both registries to show the same", PATIENCE, async || {
        let [first, second] = registries(system);
        let epochs = |agent: Agent| -> Vec<u64> { agent.instances.iter().map(|it| it.epoch).collect() };
        let seen = (
            epochs(agent(first, id).await.map_err(|status| status.to_string())?),
            epochs(agent(second, id).await.map_err(|status| status.to_string())?),
        );
        match (seen.0.as_slice(), seen.1.as_slice()) {
            ([one], [other]) if one == other => Ok(*one),
            _ => Err(format!("{seen:?}")),
        }
    })
    .await
}

/// Waits until what both registries say of themselves holds, while both routers serve.
async fn while_serving(system: &System, what: &str, holds: impl Fn(&str) -> bool) {
    wait_for(what, PATIENCE, async || {
        for router in 0..system.routers.len() {
            system.echo_by(router, "worker", what).await;
        }
        for registry in registries(system) {
            let health = (Ipv4Addr::LOCALHOST, registry.ports().health);
            let answer = http::get(health.into(), "/ready").await?;
            let text = answer.text();
            if answer.status != 200 || !holds(&text) {
                return Err(format!("{}: {text}", answer.status));
            }
        }
        Ok(())
    })
    .await;
}

/// Waits until heartbeats arrive again; the lease must be the one of before.
async fn goes_on(system: &System, before: u64) {
    while_serving(system, "Redis to be used again", |said| !said.contains(LOST)).await;
    assert_eq!(
        epoch(system, "worker").await,
        before,
        "nobody had to register again"
    );
    for router in 0..system.routers.len() {
        system.knows(router, 1).await;
    }
}

/// A second agent comes, and both routers know it.
async fn another_comes(system: &System) -> Running {
    let other = system.worker("another").await;
    for router in 0..system.routers.len() {
        system.echo_by(router, "another", "it came after").await;
    }
    other
}

#[tokio::test]
async fn a_registry_that_dies_leaves_all_leases_to_the_other() {
    let redis = RedisServer::start().await;
    let mut system = System::over_redis(&redis.url(), &SHORT).await;
    let _worker = system.worker("worker").await;
    let before = epoch(&system, "worker").await;
    system.running_registry.take().unwrap().kill().await;
    for router in 0..2 {
        system.echo_by(router, "worker", "one registry is away").await;
    }
    let [_, other] = registries(&system);
    assert_eq!(agent(other, "worker").await.unwrap().instances.len(), 1);
    system.running_registry = Some(system.registry.start_ready().await);
    goes_on(&system, before).await;
    let _another = another_comes(&system).await;
}

#[tokio::test]
async fn a_redis_that_is_killed_and_started_again_costs_nobody_a_lease() {
    let mut redis = RedisServer::start().await;
    let system = System::over_redis(&redis.url(), &SHORT).await;
    let _worker = system.worker("worker").await;
    let before = epoch(&system, "worker").await;
    redis.kill().await;
    while_serving(&system, "Redis to be missed", |said| said.contains(LOST)).await;
    let drain = DrainRequest {
        agent_id: "worker".to_owned(),
        ..DrainRequest::default()
    };
    let mut client = RegistryServiceClient::new(channel(&system.registry));
    let refused = error_in(&client.drain(drain).await.unwrap_err());
    assert_eq!(refused.reason, Reason::StoreUnavailable);
    assert!(refused.retry_after.is_some(), "{refused:?}");
    assert!(
        refused.message.contains("check that it runs"),
        "{}",
        refused.message
    );
    assert_eq!(epoch(&system, "worker").await, before, "reads go on");
    redis.restart().await;
    goes_on(&system, before).await;
    let _another = another_comes(&system).await;
}

#[tokio::test]
async fn a_redis_that_was_emptied_is_filled_by_the_agents_themselves() {
    let redis = RedisServer::start().await;
    let system = System::over_redis(&redis.url(), &SHORT).await;
    let _worker = system.worker("worker").await;
    let before = epoch(&system, "worker").await;
    redis.ask(&["FLUSHALL"]).await;
    wait_for("the agent to register again", PATIENCE, async || {
        for router in 0..2 {
            system.echo_by(router, "worker", "Redis is empty").await;
        }
        let found = agent(registries(&system)[1], "worker").await;
        let instances = found.map_err(|status| status.to_string())?.instances;
        let is_new = instances.iter().any(|instance| instance.epoch > before);
        is_new.then_some(()).ok_or_else(|| format!("{instances:?}"))
    })
    .await;
    let _another = another_comes(&system).await;
}

/// Both routers serve until something is done.
async fn serving_until(system: &System, done: impl Future<Output = ()>) {
    let mut done = std::pin::pin!(done);
    loop {
        let round = async {
            for router in 0..system.routers.len() {
                system.echo_by(router, "worker", "Redis fails over").await;
            }
        };
        tokio::select! {
            () = &mut done => return,
            () = round => {}
        }
    }
}

/// Somebody who follows the second registry.
async fn watch(system: &System) -> Streaming<WatchAgentsResponse> {
    let request = WatchAgentsRequest {
        incremental: true,
        ..WatchAgentsRequest::default()
    };
    let [_, other] = registries(system);
    let watching = RegistryServiceClient::new(channel(other))
        .watch_agents(request)
        .await;
    let mut changes = watching.unwrap().into_inner();
    let first = changes.message().await.unwrap().unwrap();
    assert!(matches!(first.change, Some(Change::Snapshot(_))), "{first:?}");
    changes
}

/// Reads on until an agent comes; nobody may leave meanwhile.
async fn shows(changes: &mut Streaming<WatchAgentsResponse>, id: &str) {
    let reading = async {
        loop {
            let change = changes.message().await.unwrap().expect("the watch goes on");
            match change.change {
                Some(Change::Upserted(instance)) if instance.agent_id == id => return,
                Some(Change::Removed(removal)) => panic!("somebody left: {removal:?}"),
                _ => {}
            }
        }
    };
    let shown = tokio::time::timeout(PATIENCE, reading).await;
    shown.unwrap_or_else(|_| panic!("'{id}' is not shown"));
}

/// What is promised while the registries' Redis fails over: routing goes on, no lease ends and nobody has to register again, what was
/// watched goes on in the same stream, and who comes afterwards is known everywhere.
async fn registries_follow(mut redis: Failing) {
    let system = System::over_redis(redis.url(), &SHORT).await;
    let _worker = system.worker("worker").await;
    let before = epoch(&system, "worker").await;
    let mut changes = watch(&system).await;
    serving_until(&system, redis.lose_primary_of("muster:{registry}:state")).await;
    goes_on(&system, before).await;
    let _another = another_comes(&system).await;
    shows(&mut changes, "another").await;
}

#[tokio::test]
async fn registries_follow_sentinels_to_another_primary() {
    registries_follow(Failing::sentinels().await).await;
}

#[tokio::test]
async fn registries_follow_a_cluster_that_loses_the_node_with_their_slot() {
    registries_follow(Failing::cluster().await).await;
}

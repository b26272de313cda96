//! A registry that is away for a while, and a client that changes from one router to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_a2a::ProtocolError;
use muster_api::a2a::stream_response::Payload;
use muster_api::a2a::{CancelTaskRequest, GetTaskRequest, SubscribeToTaskRequest, TaskState};
use muster_api::error::Reason;
use muster_api::registry::ListAgentsRequest;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_testkit::{http, wait_for};
use muster_tests::PATIENCE;
use tokio::task::JoinSet;
use tonic::Code;

use crate::failing::PACE;
use crate::system::{Running, System, channel, error_in, message};
use crate::worker::LOOK;

#[tokio::test]
async fn while_the_registry_is_away_routing_goes_on_and_says_so_and_agents_come_back_by_themselves() {
    // Agents find out with their next heartbeats.
    let heartbeats = [("REGISTRY__HEALTH_CHECK_INTERVAL", "2")];
    let mut system = System::start(&heartbeats, &[]).await;
    let _worker = system.worker("worker").await;
    let gate = system.gate("gate");
    let request = message("worker", &gate.hold());
    let events = system.client().send_streaming_message(request).await;
    let mut events = events.unwrap().into_inner();
    gate.reached(1).await;

    system.running_registry.take().unwrap().kill().await;
    let health = (
        std::net::Ipv4Addr::LOCALHOST,
        system.routers[0].program.ports().health,
    );
    let stale = wait_for("the router to notice", PATIENCE, async || {
        system.echo("worker", "the registry is away").await;
        let answer = http::get(health.into(), "/ready").await?;
        let text = answer.text();
        if text.contains("routing from a view that is") {
            Ok(answer)
        } else {
            Err(text)
        }
    })
    .await;
    assert_eq!(
        stale.status,
        200,
        "degraded, and not out of service: {}",
        stale.text()
    );
    assert!(system.status(0).await.unwrap().view_stale);
    for round in 0..10 {
        system.echo("worker", &format!("round {round}")).await;
    }

    // It comes back with an empty table.
    system.running_registry = Some(system.registry.start_ready().await);
    wait_for("the view to be fresh", PATIENCE, async || {
        system.echo("worker", "the registry comes back").await;
        let status = system.status(0).await?;
        if status.view_stale {
            Err(format!("{status:?}"))
        } else {
            Ok(())
        }
    })
    .await;
    let url = system.registry.url();
    wait_for("the agent to register again", PATIENCE, async || {
        system.echo("worker", "it registers").await;
        let mut registry = RegistryServiceClient::connect(url.clone())
            .await
            .map_err(|error| error.to_string())?;
        let listed = registry.list_agents(ListAgentsRequest::default()).await;
        let listed = listed.map_err(|error| error.to_string())?.into_inner().agents;
        if listed.len() == 1 {
            Ok(())
        } else {
            Err(format!("{} agents", listed.len()))
        }
    })
    .await;

    // The stream has gone through all of it.
    gate.open();
    while events.message().await.unwrap().is_some() {}
}

/// How long the registry is away in the next test, in seconds: more than twice as long as a lease lasts.
const OUTAGE: f64 = 20.0;

#[tokio::test]
async fn an_outage_of_the_registry_that_outlasts_every_lease_stops_no_call_and_nobody_is_forgotten() {
    let short = [
        ("REGISTRY__HEALTH_CHECK_INTERVAL", "2"),
        ("REGISTRY__LEASE_DURATION", "8"),
    ];
    let mut system = System::start(&short, &[]).await;
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(system.worker("worker").await);
    }
    let (answered, mut calls) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for _ in 0..8 {
        let (mut client, answered) = (system.client(), Arc::clone(&answered));
        calls.spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            for round in 0.. {
                pace.tick().await;
                let request = message("worker", &format!("echo {round}"));
                client.send_message(request).await.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let load = async || {
        let before = answered.load(Ordering::Relaxed);
        wait_for("calls to be answered", PATIENCE, async || {
            answered.load(Ordering::Relaxed) >= before + 100
        })
        .await;
    };
    load().await;

    system.running_registry.take().unwrap().kill().await;
    wait_for("the outage to have lasted", PATIENCE, async || {
        let status = system.status(0).await?;
        assert_eq!(status.instances.len(), workers.len(), "nobody is forgotten");
        if status.view_age_seconds >= OUTAGE {
            assert!(status.view_stale);
            Ok(())
        } else {
            Err(format!("{} s", status.view_age_seconds))
        }
    })
    .await;
    load().await;

    system.running_registry = Some(system.registry.start_ready().await);
    let mut registry = RegistryServiceClient::new(channel(&system.registry));
    wait_for("all to have registered again", PATIENCE, async || {
        let status = system.status(0).await?;
        assert_eq!(status.instances.len(), workers.len(), "nobody is forgotten");
        let listed = registry.list_agents(ListAgentsRequest::default()).await;
        let agents = listed.map_err(|error| error.to_string())?.into_inner().agents;
        let instances = agents.iter().map(|agent| agent.instances.len()).sum::<usize>();
        if instances == workers.len() && !status.view_stale {
            Ok(())
        } else {
            Err(format!("{instances} instances; {status:?}"))
        }
    })
    .await;
    load().await;
    // None of them has ended, as one does that is refused.
    assert!(calls.try_join_next().is_none());
}

/// Two routers that share nothing but the registry, and two instances of the agent.
async fn two_and_two() -> (System, [Running; 2]) {
    let system = System::with_routers(2, &[], &[]).await;
    let workers = [system.worker("worker").await, system.worker("worker").await];
    (system, workers)
}

fn get(task: &str, target: &str) -> GetTaskRequest {
    GetTaskRequest {
        id: task.to_owned(),
        tenant: target.to_owned(),
        ..GetTaskRequest::default()
    }
}

#[tokio::test]
async fn a_task_that_began_through_one_router_goes_on_through_another() {
    let (system, _workers) = two_and_two().await;
    let mut other = system.client_of(1);
    let skill = format!("skill:{LOOK}");
    // With one task on each instance, at the least, an answer by chance is excluded.
    let mut owners = std::collections::BTreeSet::new();
    for round in 0.. {
        assert!(round < 50, "chance chooses one instance only: {owners:?}");
        if owners.len() == 2 && round >= 4 {
            break;
        }
        let target = if round % 2 == 0 { "worker" } else { skill.as_str() };
        let gate = system.gate(&format!("gate-{round}"));
        let begun = system
            .client()
            .send_streaming_message(message("worker", &gate.hold()))
            .await
            .unwrap();
        let owner = begun.metadata().get("muster-instance").unwrap().clone();
        owners.insert(owner.to_str().unwrap().to_owned());
        let mut events = begun.into_inner();
        let Some(Payload::Task(task)) = events.message().await.unwrap().unwrap().payload else {
            panic!("a stream begins with its task");
        };
        gate.reached(1).await;

        let found = other.get_task(get(&task.id, target)).await.unwrap();
        assert_eq!(found.metadata().get("muster-instance"), Some(&owner));
        assert_eq!(found.into_inner().id, task.id);
        let found = other.get_task(get(&task.id, "")).await.unwrap().into_inner();
        assert_eq!(found.id, task.id, "it is remembered");

        let subscribe = SubscribeToTaskRequest {
            id: task.id.clone(),
            tenant: target.to_owned(),
        };
        let mut followed = system
            .client_of(1)
            .subscribe_to_task(subscribe)
            .await
            .unwrap()
            .into_inner();
        followed.message().await.unwrap().unwrap();
        let cancel = CancelTaskRequest {
            id: task.id.clone(),
            tenant: target.to_owned(),
            ..CancelTaskRequest::default()
        };
        let cancelled = other.cancel_task(cancel).await.unwrap().into_inner();
        assert_eq!(cancelled.status.unwrap().state(), TaskState::Canceled);
        while followed.message().await.unwrap().is_some() {}
        while events.message().await.unwrap().is_some() {}
    }
}

#[tokio::test]
async fn cancelling_and_following_find_a_task_by_themselves() {
    let (system, _workers) = two_and_two().await;
    for round in 0..6 {
        let gate = system.gate(&format!("gate-{round}"));
        let begun = system
            .client()
            .send_streaming_message(message("worker", &gate.hold()))
            .await;
        let mut events = begun.unwrap().into_inner();
        let Some(Payload::Task(task)) = events.message().await.unwrap().unwrap().payload else {
            panic!("a stream begins with its task");
        };
        gate.reached(1).await;
        if round % 2 == 0 {
            let cancel = CancelTaskRequest {
                id: task.id,
                tenant: "worker".to_owned(),
                ..CancelTaskRequest::default()
            };
            let cancelled = system
                .client_of(1)
                .cancel_task(cancel)
                .await
                .unwrap()
                .into_inner();
            assert_eq!(cancelled.status.unwrap().state(), TaskState::Canceled);
        } else {
            let subscribe = SubscribeToTaskRequest {
                id: task.id,
                tenant: "worker".to_owned(),
            };
            let followed = system.client_of(1).subscribe_to_task(subscribe).await;
            let mut followed = followed.unwrap().into_inner();
            followed.message().await.unwrap().unwrap();
            gate.open();
            while followed.message().await.unwrap().is_some() {}
        }
    }
}

#[tokio::test]
async fn a_task_is_not_found_only_when_all_say_so() {
    let (system, [gone, _stays]) = two_and_two().await;
    let unknown = system.client_of(1).get_task(get("nobody-has-it", "worker")).await;
    let unknown = unknown.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(ProtocolError::of(&unknown), Some(ProtocolError::TaskNotFound));

    gone.process.kill().await;
    let perhaps = system
        .client_of(1)
        .get_task(get("somebody-had-it", "worker"))
        .await;
    let perhaps = perhaps.unwrap_err();
    assert_eq!(perhaps.code(), Code::Unavailable, "{perhaps:?}");
    let error = error_in(&perhaps);
    assert_eq!(error.reason, Reason::NoInstanceAvailable);
    assert!(error.retry_after.is_some(), "{error:?}");
}

//! Staying found through everything that a registry can do.

use a2a_pb::proto::TaskState;
use muster_api::error::{Error, Reason};
use muster_api::registry::InstanceStatus;
use muster_testkit::http::get;
use muster_testkit::wait_for;

use crate::registry::{FakeRegistry, Script};
use crate::stage::{PATIENCE, Stage, say, say_and_go, state, task};

async fn open(registry: &FakeRegistry) -> Stage {
    let url = format!("http://{}", registry.address);
    Stage::open(|config| config.agent.registry_url = url).await
}

async fn registered(script: &Script, times: usize) {
    let script = script.clone();
    wait_for("the registration", PATIENCE, async || {
        script.registered().len() >= times && script.holds_a_lease()
    })
    .await;
}

#[tokio::test]
async fn an_instance_registers_with_its_card_and_address_and_reports_its_load() {
    let script = Script::default();
    let registry = FakeRegistry::start(&script).await;
    let stage = open(&registry).await;
    registered(&script, 1).await;
    let instance = script.registered().remove(0);
    assert_eq!(instance.agent_id, "puppet");
    assert_eq!(instance.endpoint, format!("http://{}", stage.address));
    assert_eq!(instance.version, "1.2.3");
    assert_eq!(instance.card.unwrap().skills.len(), 2);
    assert_eq!(
        uuid::Uuid::parse_str(&instance.instance_id)
            .unwrap()
            .get_version_num(),
        7
    );

    stage.client().send_message(say("hello")).await.unwrap();
    for _ in 0..4 {
        stage.client().send_message(say_and_go("wait")).await.unwrap();
    }
    wait_for("a heartbeat with the load", PATIENCE, async || {
        script
            .heartbeats()
            .last()
            .is_some_and(|beat| (beat.load - 0.25).abs() < 1e-9 && beat.mean_latency_seconds > 0.0)
    })
    .await;
    stage.close().await;
}

#[tokio::test]
async fn a_lease_that_is_gone_is_asked_for_again() {
    let script = Script::default();
    let registry = FakeRegistry::start(&script).await;
    let stage = open(&registry).await;
    for times in 1..=3 {
        registered(&script, times).await;
        script.forget();
    }
    registered(&script, 4).await;
    let ids: std::collections::BTreeSet<String> = script
        .registered()
        .into_iter()
        .map(|instance| instance.instance_id)
        .collect();
    assert_eq!(ids.len(), 1, "an instance keeps its id");
    stage.close().await;
}

#[tokio::test]
async fn a_registry_that_comes_late_or_back_finds_the_agent() {
    let script = Script::default();
    let registry = FakeRegistry::start(&script).await;
    let address = registry.address;
    registry.stop().await;

    let url = format!("http://{address}");
    let stage = Stage::open(|config| config.agent.registry_url = url).await;
    wait_for("a degraded check", PATIENCE, async || {
        let ready = get(stage.health, "/ready").await.unwrap();
        assert!(ready.status.is_success(), "an agent serves without a registry");
        ready.json()["checks"]["registry"]["status"] == "degraded"
    })
    .await;
    let served = task(stage.client().send_message(say("hello")).await.unwrap());
    assert_eq!(state(&served), TaskState::Completed);

    let registry = FakeRegistry::start_at(&script, address).await;
    registered(&script, 1).await;
    registry.stop().await;
    script.forget();
    let _registry = FakeRegistry::start_at(&script, address).await;
    registered(&script, 2).await;
    wait_for("a healthy check", PATIENCE, async || {
        let ready = get(stage.health, "/ready").await.unwrap();
        ready.json()["checks"]["registry"]["status"] == "healthy"
    })
    .await;
    stage.close().await;
}

#[tokio::test]
async fn a_refused_instance_serves_says_why_and_tries_on() {
    let script = Script::default();
    script.refuse(true);
    let registry = FakeRegistry::start(&script).await;
    let stage = open(&registry).await;
    wait_for("the reason in the health check", PATIENCE, async || {
        let ready = get(stage.health, "/ready").await.unwrap();
        let error = ready.json()["checks"]["registry"]["error"].to_string();
        ready.status.is_success() && error.contains("instance.endpoint")
    })
    .await;
    script.refuse(false);
    registered(&script, 1).await;
    stage.close().await;
}

#[tokio::test]
async fn an_operators_drain_lets_tasks_finish_and_takes_no_new_ones() {
    let script = Script::default();
    let registry = FakeRegistry::start(&script).await;
    let stage = open(&registry).await;
    registered(&script, 1).await;
    let asking = task(stage.client().send_message(say("ask")).await.unwrap());

    script.drain();
    wait_for("a draining heartbeat", PATIENCE, async || {
        let draining = i32::from(InstanceStatus::Draining);
        script
            .heartbeats()
            .last()
            .is_some_and(|beat| beat.status == draining)
    })
    .await;
    let status = stage.client().send_message(say("hello")).await.unwrap_err();
    assert_eq!(Error::from_status(&status).unwrap().reason, Reason::ShuttingDown);
    let mut answer = say("Seattle");
    answer.message.as_mut().unwrap().task_id = asking.id;
    let done = task(stage.client().send_message(answer).await.unwrap());
    assert_eq!(state(&done), TaskState::Completed);
    stage.close().await;
}

#[tokio::test]
async fn the_end_of_the_process_ends_the_lease() {
    let script = Script::default();
    let registry = FakeRegistry::start(&script).await;
    let stage = open(&registry).await;
    registered(&script, 1).await;
    stage.close().await;
    assert_eq!(script.deregistered(), 1);
    assert!(!script.holds_a_lease());
}

//! Routers that are killed while the inbox holds messages: what was acknowledged is delivered.

use muster_api::router as proto;
use muster_api::router::EntryStatus;
use muster_api::router::inbox_service_client::InboxServiceClient;
use muster_testkit::{RedisServer, wait_for};
use muster_tests::PATIENCE;
use tonic::transport::Channel;

use crate::system::{System, channel, message};
use crate::worker::LOOK;

fn client(system: &System, router: usize) -> InboxServiceClient<Channel> {
    InboxServiceClient::new(channel(&system.routers[router].program))
}

/// Leaves a message with a router; its id.
async fn enqueue(system: &System, router: usize, target: &str, text: &str) -> String {
    let request = proto::EnqueueRequest {
        message: Some(message(target, text)),
        ..proto::EnqueueRequest::default()
    };
    let answer = client(system, router).enqueue(request).await.unwrap();
    answer.into_inner().entry.unwrap().entry_id
}

async fn done(system: &System, router: usize, id: &str) -> proto::Entry {
    wait_for("the message to be delivered", PATIENCE, async || {
        let request = proto::GetEntryRequest {
            entry_id: id.to_owned(),
        };
        let entry = client(system, router).get_entry(request).await;
        let entry = entry
            .map_err(|status| status.to_string())?
            .into_inner()
            .entry
            .unwrap();
        if entry.status() == EntryStatus::Done {
            Ok(entry)
        } else {
            Err(format!("{entry:?}"))
        }
    })
    .await
}

#[tokio::test]
async fn a_router_that_is_killed_delivers_what_it_has_acknowledged_when_it_is_back() {
    let mut system = System::start(&[], &[]).await;
    let target = format!("skill:{LOOK}");
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(enqueue(&system, 0, &target, &format!("echo {number}")).await);
    }
    let running = system.routers.remove(0);
    let program = running.program;
    running.process.kill().await;
    let process = program.start_ready().await;
    system.routers.push(crate::system::Running { program, process });

    let _worker = system.worker("worker").await;
    for id in &ids {
        let entry = done(&system, 0, id).await;
        assert_eq!(entry.attempts, 1);
    }
}

#[tokio::test]
async fn a_message_that_was_with_a_killed_router_is_delivered_by_it_again() {
    let mut system = System::start(&[], &[]).await;
    let _worker = system.worker("worker").await;
    let gate = system.gate("gate");
    let id = enqueue(&system, 0, "worker", &gate.hold()).await;
    gate.reached(1).await;
    let running = system.routers.remove(0);
    let program = running.program;
    running.process.kill().await;
    let process = program.start_ready().await;
    system.routers.push(crate::system::Running { program, process });
    gate.open();
    let entry = done(&system, 0, &id).await;
    assert_eq!((entry.attempts, entry.failures), (2, 1));
}

#[tokio::test]
async fn what_was_with_a_killed_router_is_delivered_by_another_over_the_same_redis() {
    let redis = RedisServer::start().await;
    // Settings are names for the whole of a test process.
    let url: &'static str = Box::leak(redis.url().into_boxed_str());
    let settings = [
        ("ROUTER__REDIS_CLUSTER_ENDPOINT", url),
        ("ROUTER__INBOX__LEASE_SECONDS", "3"),
    ];
    let mut system = System::with_routers(2, &[], &settings).await;
    let _worker = system.worker("worker").await;
    let gate = system.gate("gate");
    let id = enqueue(&system, 0, "worker", &gate.hold()).await;
    gate.reached(1).await;
    let holder = wait_for("one router to have it", PATIENCE, async || {
        for router in 0..2 {
            if system.status(router).await?.in_flight == 1 {
                return Ok(router);
            }
        }
        Err("none has it".to_owned())
    })
    .await;
    system.routers.remove(holder).process.kill().await;
    gate.open();
    let entry = done(&system, 0, &id).await;
    assert_eq!((entry.attempts, entry.agent_id.as_str()), (2, "worker"));
}

//! Routers that are killed while the inbox holds messages, and a Redis that fails over: what was acknowledged is delivered.

use muster_api::router as proto;
use muster_api::router::inbox_service_client::InboxServiceClient;
use muster_api::router::{DeadReason, EntryDelivery, EntryStatus};
use muster_testkit::{RedisServer, wait_for};
use muster_tests::PATIENCE;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::failing::{Failing, PACE, is_refused_for_now};
use crate::system::{System, channel, message, outcome};
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
    becomes(system, router, id, EntryStatus::Done).await
}

async fn becomes(system: &System, router: usize, id: &str, status: EntryStatus) -> proto::Entry {
    wait_for("the message's status", PATIENCE, async || {
        let request = proto::GetEntryRequest {
            entry_id: id.to_owned(),
        };
        let entry = client(system, router).get_entry(request).await;
        let entry = entry
            .map_err(|status| status.to_string())?
            .into_inner()
            .entry
            .unwrap();
        if entry.status() == status {
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

/// Leaves messages with one router and the other in turn, each until it is acknowledged, and says so; ends when it is told to.
async fn keep_enqueueing(
    mut clients: [InboxServiceClient<Channel>; 2],
    acknowledged: watch::Sender<Vec<String>>,
    stop: watch::Receiver<bool>,
) {
    let mut pace = tokio::time::interval(PACE);
    for number in 0.. {
        pace.tick().await;
        if *stop.borrow() {
            return;
        }
        let request = proto::EnqueueRequest {
            message: Some(message("worker", &format!("echo {number}"))),
            ..proto::EnqueueRequest::default()
        };
        let client = &mut clients[number % 2];
        let id = loop {
            match client.enqueue(request.clone()).await {
                Ok(answer) => break answer.into_inner().entry.unwrap().entry_id,
                Err(status) => is_refused_for_now(&status),
            }
            pace.tick().await;
        };
        acknowledged.send_modify(|ids| ids.push(id));
    }
}

/// What is promised while the inbox's Redis fails over: each message that was acknowledged is delivered, at least once; what a
/// consumer has taken it can acknowledge afterwards; dead letters are there, with their reason, and can be replayed. What cannot be
/// kept meanwhile is refused with the time to try again.
async fn the_inbox_outlives_the_primary(mut redis: Failing) {
    let settings = [
        ("ROUTER__REDIS_CLUSTER_ENDPOINT", redis.url()),
        ("ROUTER__REDIS__PATIENCE_SECONDS", "2"),
        ("ROUTER__REDIS__ANSWER_WITHIN_SECONDS", "1"),
    ];
    let system = System::with_routers(2, &[], &settings).await;
    let _worker = system.worker("worker").await;
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });

    let expires = proto::EnqueueRequest {
        message: Some(message("skill:nobody-has-it", "x")),
        ttl: seconds(1),
        ..proto::EnqueueRequest::default()
    };
    let dead = client(&system, 0).enqueue(expires).await.unwrap().into_inner();
    let dead = dead.entry.unwrap().entry_id;
    becomes(&system, 0, &dead, EntryStatus::Dead).await;
    let to_be_taken = proto::EnqueueRequest {
        message: Some(message("skill:by-hand", "x")),
        delivery: EntryDelivery::Pull.into(),
        ..proto::EnqueueRequest::default()
    };
    client(&system, 0).enqueue(to_be_taken).await.unwrap();
    let receive = proto::ReceiveRequest {
        target: "skill:by-hand".to_owned(),
        lease: seconds(300),
        consumer: "somebody".to_owned(),
        ..proto::ReceiveRequest::default()
    };
    let received = client(&system, 0).receive(receive).await.unwrap().into_inner();
    let taken = received.entries.into_iter().next().expect("one was taken");
    let gate = system.gate("gate");
    let lasting = enqueue(&system, 0, "worker", &gate.hold()).await;
    gate.reached(1).await;

    let (told, acknowledged) = watch::channel(Vec::new());
    let (stop, stopped) = watch::channel(false);
    let mut flow = JoinSet::new();
    let clients = [client(&system, 0), client(&system, 1)];
    flow.spawn(keep_enqueueing(clients, told, stopped));
    let goes_on = async || {
        let before = acknowledged.borrow().len();
        wait_for("messages to be acknowledged", PATIENCE, async || {
            acknowledged.borrow().len() >= before + 20
        })
        .await;
    };
    goes_on().await;
    redis.lose_primary_of("muster:{inbox}:all").await;
    goes_on().await;
    stop.send_replace(true);
    outcome(&mut flow, PATIENCE).await;

    let ids = acknowledged.borrow().clone();
    for (number, id) in ids.iter().enumerate() {
        done(&system, (number + 1) % 2, id).await;
    }
    gate.open();
    done(&system, 1, &lasting).await;
    let taken_id = taken.entry.unwrap().entry_id;
    let acknowledge = proto::AcknowledgeRequest {
        entry_id: taken_id.clone(),
        lease_token: taken.lease_token,
        ..proto::AcknowledgeRequest::default()
    };
    client(&system, 1).acknowledge(acknowledge).await.unwrap();
    done(&system, 0, &taken_id).await;
    let expired = becomes(&system, 1, &dead, EntryStatus::Dead).await;
    assert_eq!(expired.dead_reason(), DeadReason::Expired);
    let replay = proto::ReplayEntriesRequest {
        entry_id: dead,
        ..proto::ReplayEntriesRequest::default()
    };
    let replayed = client(&system, 1).replay_entries(replay).await.unwrap();
    assert_eq!(replayed.into_inner().count, 1);
}

#[tokio::test]
async fn the_inbox_outlives_a_primary_whose_replica_sentinels_promote() {
    the_inbox_outlives_the_primary(Failing::sentinels().await).await;
}

#[tokio::test]
async fn the_inbox_outlives_a_primary_of_a_cluster() {
    the_inbox_outlives_the_primary(Failing::cluster().await).await;
}

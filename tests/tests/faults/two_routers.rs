//! Two routers over one Redis: who owns a task, and what was answered, the one knows from the other. And a router that is killed.

use std::collections::BTreeSet;

use muster_api::a2a::stream_response::Payload;
use muster_api::a2a::{
    CancelTaskRequest, GetTaskRequest, ListTasksRequest, ListTasksResponse, SendMessageRequest,
    SubscribeToTaskRequest, Task, TaskState, send_message_response,
};
use muster_api::extension::ROUTING;
use muster_api::registry::RegisterRequest;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_testkit::{FakeAgent, RedisServer, wait_for};
use muster_tests::PATIENCE;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::failing::{Failing, PACE, is_refused_for_now};
use crate::system::{Running, Setting, System, channel, message, outcome, said};

/// Two routers over one Redis, and two instances of the agent.
async fn two_and_two() -> (RedisServer, System, [Running; 2]) {
    let redis = RedisServer::start().await;
    let url: &'static str = redis.url().leak();
    let settings: [Setting; 1] = [("ROUTER__REDIS_CLUSTER_ENDPOINT", url)];
    let system = System::with_routers(2, &[], &settings).await;
    let workers = [system.worker("worker").await, system.worker("worker").await];
    (redis, system, workers)
}

/// A message whose caller relies on one answer.
fn durable(target: &str, text: &str) -> SendMessageRequest {
    let yes = Value {
        kind: Some(Kind::BoolValue(true)),
    };
    let routing = Value {
        kind: Some(Kind::StructValue(Struct {
            fields: [("durable".to_owned(), yes)].into(),
        })),
    };
    SendMessageRequest {
        metadata: Some(Struct {
            fields: [(ROUTING.to_owned(), routing)].into(),
        }),
        ..message(target, text)
    }
}

/// The router is killed as by `kill -9`, and starts again while the others are used.
async fn kill(system: &mut System, router: usize) -> Running {
    let Running { program, process } = system.routers.remove(router);
    process.kill().await;
    let process = program.start();
    Running { program, process }
}

async fn send_to(system: &System, router: usize, request: SendMessageRequest) -> Task {
    let answer = system.client_of(router).send_message(request).await;
    match answer.unwrap().into_inner().payload {
        Some(send_message_response::Payload::Task(task)) => task,
        other => panic!("no task: {other:?}"),
    }
}

#[tokio::test]
async fn a_client_that_changes_routers_in_the_middle_of_a_task_names_nothing_but_the_task() {
    let (_redis, system, _workers) = two_and_two().await;
    for round in 0..6 {
        let gate = system.gate(&format!("gate-{round}"));
        let begun = system
            .client()
            .send_streaming_message(message("worker", &gate.hold()))
            .await
            .unwrap();
        let owner = begun.metadata().get("muster-instance").unwrap().clone();
        let mut events = begun.into_inner();
        let Some(Payload::Task(task)) = events.message().await.unwrap().unwrap().payload else {
            panic!("a stream begins with its task");
        };
        gate.reached(1).await;
        let mut other = system.client_of(1);
        let get = GetTaskRequest {
            id: task.id.clone(),
            ..GetTaskRequest::default()
        };
        let found = other.get_task(get).await.unwrap();
        assert_eq!(found.metadata().get("muster-instance"), Some(&owner));
        assert_eq!(found.into_inner().id, task.id);
        let subscribe = SubscribeToTaskRequest {
            id: task.id.clone(),
            ..SubscribeToTaskRequest::default()
        };
        let mut followed = other.subscribe_to_task(subscribe).await.unwrap().into_inner();
        followed.message().await.unwrap().unwrap();
        // The stream at the first router is given up in the middle.
        drop(events);
        if round % 2 == 0 {
            gate.open();
        } else {
            let cancel = CancelTaskRequest {
                id: task.id.clone(),
                ..CancelTaskRequest::default()
            };
            let cancelled = other.cancel_task(cancel).await.unwrap().into_inner();
            assert_eq!(cancelled.status.unwrap().state(), TaskState::Canceled);
        }
        let mut last = None;
        while let Some(event) = followed.message().await.unwrap() {
            last = event.payload;
        }
        assert!(last.is_some(), "the stream at the other router tells the end");
    }
}

#[tokio::test]
async fn a_durable_message_that_comes_again_at_the_other_router_is_executed_once() {
    let (_redis, system, _workers) = two_and_two().await;
    let gate = system.gate("gate");
    let request = durable("worker", &gate.hold());
    let mut calls = JoinSet::new();
    let (mut one, sent) = (system.client_of(0), request.clone());
    calls.spawn(async move { one.send_message(sent).await.map(|_| ()) });
    gate.reached(1).await;
    // The client loses its connection, and asks the other router.
    calls.shutdown().await;
    let mut calls = JoinSet::new();
    for router in [1, 0, 1] {
        let (mut client, sent) = (system.client_of(router), request.clone());
        calls.spawn(async move { client.send_message(sent).await });
    }
    gate.open();
    for _ in 0..3 {
        let answer = outcome(&mut calls, PATIENCE).await.unwrap().into_inner();
        assert_eq!(said(answer), "released");
    }
    assert_eq!(gate.ports().len(), 1, "one execution");
}

#[tokio::test]
async fn what_a_killed_router_had_under_way_is_taken_over_and_what_it_answered_is_not_done_again() {
    let (_redis, mut system, _workers) = two_and_two().await;
    let answered = durable("worker", "echo answered");
    let first = send_to(&system, 0, answered.clone()).await;

    let gate = system.gate("gate");
    let request = durable("worker", &gate.hold());
    let mut calls = JoinSet::new();
    let (mut one, sent) = (system.client_of(0), request.clone());
    calls.spawn(async move { one.send_message(sent).await.map(|_| ()) });
    gate.reached(1).await;
    let mut killed = kill(&mut system, 0).await;
    outcome(&mut calls, PATIENCE).await.unwrap_err();
    gate.open();

    // What is left is the other router, which is the first one now.
    assert_eq!(send_to(&system, 0, answered.clone()).await, first);
    let taken_over = send_to(&system, 0, request.clone()).await;
    assert_eq!(taken_over.status.as_ref().unwrap().state(), TaskState::Completed);
    // The first died before it had the answer, so that the agent may have got the message twice, and no more often.
    assert!(gate.ports().len() <= 2, "{:?}", gate.ports());

    killed.process.ready().await;
    system.routers.push(killed);
    system.knows(1, 2).await;
    assert_eq!(send_to(&system, 1, request).await, taken_over);
    assert_eq!(send_to(&system, 1, answered).await, first);
}

#[tokio::test]
async fn a_durable_stream_goes_on_at_the_other_router_when_its_own_is_killed() {
    let (_redis, mut system, _workers) = two_and_two().await;
    let gate = system.gate("gate");
    let request = durable("worker", &gate.hold());
    let begun = system.client().send_streaming_message(request.clone()).await;
    let mut events = begun.unwrap().into_inner();
    let Some(Payload::Task(task)) = events.message().await.unwrap().unwrap().payload else {
        panic!("a stream begins with its task");
    };
    gate.reached(1).await;
    let _killed = kill(&mut system, 0).await;
    while events.message().await.is_ok_and(|event| event.is_some()) {}

    let again = system.client().send_streaming_message(request.clone()).await;
    let mut again = again.unwrap().into_inner();
    let Some(Payload::Task(followed)) = again.message().await.unwrap().unwrap().payload else {
        panic!("a stream begins with its task");
    };
    assert_eq!(followed.id, task.id);
    gate.open();
    let mut last = None;
    while let Some(event) = again.message().await.unwrap() {
        last = event.payload;
    }
    let Some(Payload::StatusUpdate(end)) = last else {
        panic!("a stream ends with the task's end: {last:?}");
    };
    assert_eq!(end.status.unwrap().state(), TaskState::Completed);
    assert_eq!(gate.ports().len(), 1, "one execution");
    // What has ended is told in one event.
    let ended = system.client().send_streaming_message(request).await;
    let mut ended = ended.unwrap().into_inner();
    let Some(Payload::Task(ended_task)) = ended.message().await.unwrap().unwrap().payload else {
        panic!("the task is told");
    };
    assert_eq!(ended_task.status.unwrap().state(), TaskState::Completed);
    assert!(ended.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_router_that_was_killed_gives_the_same_answer_from_its_own_files() {
    let mut system = System::start(&[], &[]).await;
    let worker = system.worker("worker").await;
    let request = durable("worker", "echo once");
    let first = send_to(&system, 0, request.clone()).await;
    let mut killed = kill(&mut system, 0).await;
    killed.process.ready().await;
    system.routers.push(killed);
    system.knows(0, 1).await;
    assert_eq!(send_to(&system, 0, request).await, first);
    drop(worker);
}

async fn page(system: &System, router: usize, token: &str) -> ListTasksResponse {
    let request = ListTasksRequest {
        tenant: "worker".to_owned(),
        page_size: Some(3),
        page_token: token.to_owned(),
        ..ListTasksRequest::default()
    };
    let page = system.client_of(router).list_tasks(request).await;
    page.unwrap().into_inner()
}

#[tokio::test]
async fn the_tasks_of_instances_that_share_no_store_are_in_one_list_whichever_router_gives_the_page() {
    let (_redis, system, _workers) = two_and_two().await;
    let mut sent = BTreeSet::new();
    for round in 0..10 {
        let task = send_to(&system, round % 2, message("worker", &format!("echo {round}"))).await;
        sent.insert(task.id);
    }
    let (mut listed, mut token) = (Vec::new(), String::new());
    for number in 0.. {
        let page = page(&system, number % 2, &token).await;
        assert_eq!(page.total_size, 10);
        if number == 1 {
            // It is newer than the pages that come, and shifts nothing.
            send_to(&system, 0, message("worker", "echo new")).await;
        }
        listed.extend(page.tasks);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let times: Vec<_> = listed
        .iter()
        .map(|task| task.status.as_ref().unwrap().timestamp.unwrap())
        .map(|time| (time.seconds, time.nanos))
        .collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    assert_eq!(listed.len(), 10);
    assert_eq!(
        listed.into_iter().map(|task| task.id).collect::<BTreeSet<_>>(),
        sent
    );
}

/// Durable messages through one router and the other in turn, each sent until it is answered. It ends when it is told to.
struct Flow {
    answered: watch::Receiver<Vec<(SendMessageRequest, Task)>>,
    stop: watch::Sender<bool>,
    sending: JoinSet<()>,
}

impl Flow {
    fn start(system: &System, target: &'static str) -> Self {
        let mut clients = [system.client_of(0), system.client_of(1)];
        let (told, answered) = watch::channel(Vec::new());
        let (stop, stopped) = watch::channel(false);
        let mut sending = JoinSet::new();
        sending.spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            for number in 0.. {
                pace.tick().await;
                if *stopped.borrow() {
                    return;
                }
                let request = durable(target, &format!("message {number}"));
                let client = &mut clients[number % 2];
                let task = loop {
                    match client.send_message(request.clone()).await {
                        Ok(answer) => match answer.into_inner().payload {
                            Some(send_message_response::Payload::Task(task)) => break task,
                            other => panic!("no task: {other:?}"),
                        },
                        Err(status) => is_refused_for_now(&status),
                    }
                    pace.tick().await;
                };
                told.send_modify(|answered| answered.push((request, task)));
            }
        });
        Self {
            answered,
            stop,
            sending,
        }
    }

    fn count(&self) -> usize {
        self.answered.borrow().len()
    }

    /// Waits until so many more are answered.
    async fn goes_on(&self, count: usize) {
        let before = self.count();
        wait_for("durable messages to be answered", PATIENCE, async || {
            self.count() >= before + count
        })
        .await;
    }

    /// Stops it; what was answered.
    async fn end(mut self) -> Vec<(SendMessageRequest, Task)> {
        self.stop.send_replace(true);
        outcome(&mut self.sending, PATIENCE).await;
        self.answered.borrow().clone()
    }
}

/// What is promised while the routers' Redis fails over: who owns a task, and what a durable message was answered, is known to every
/// router afterwards; a message that was answered before is not executed again. What cannot be kept meanwhile is refused with the time
/// to try again, and is answered when it is sent again.
async fn owners_and_answers_outlive_the_primary(mut redis: Failing) {
    let settings = [
        ("ROUTER__REDIS_CLUSTER_ENDPOINT", redis.url()),
        ("ROUTER__REDIS__PATIENCE_SECONDS", "2"),
        ("ROUTER__REDIS__ANSWER_WITHIN_SECONDS", "1"),
    ];
    // Nobody gives signs of life for the agent that counts.
    let long = [("REGISTRY__LEASE_DURATION", "3600")];
    let system = System::with_routers(2, &long, &settings).await;
    let _workers = [system.worker("worker").await, system.worker("worker").await];
    let counting = FakeAgent::start("counting").await;
    let instance = Some(counting.instance(&["count"]));
    let mut registry = RegistryServiceClient::new(channel(&system.registry));
    registry.register(RegisterRequest { instance }).await.unwrap();
    for router in 0..2 {
        system.knows(router, 3).await;
    }

    // Tasks that last, of which the second router has seen nothing; and a durable message that is under way all the time.
    let gate = system.gate("gate");
    let mut owned = Vec::new();
    for _ in 0..6 {
        let request = message("worker", &gate.hold());
        let begun = system.client().send_streaming_message(request).await.unwrap();
        let owner = begun.metadata().get("muster-instance").unwrap().clone();
        let event = begun.into_inner().message().await.unwrap().unwrap();
        let Some(Payload::Task(task)) = event.payload else {
            panic!("a stream begins with its task");
        };
        owned.push((task.id, owner));
    }
    let lasting = durable("worker", &gate.hold());
    let mut calls = JoinSet::new();
    let (mut client, sent) = (system.client(), lasting.clone());
    calls.spawn(async move { client.send_message(sent).await });
    gate.reached(7).await;

    let flow = Flow::start(&system, "counting");
    flow.goes_on(20).await;
    let before = flow.count();
    let key = format!("muster:router:default:owner:{}", owned[0].0);
    redis.lose_primary_of(&key).await;
    flow.goes_on(20).await;
    let answered = flow.end().await;

    let calls_of = counting.calls_by_message_id();
    for (number, (request, task)) in answered.iter().enumerate() {
        let again = send_to(&system, (number + 1) % 2, request.clone()).await;
        assert_eq!(&again, task, "message {number} has one answer");
        let id = &request.message.as_ref().unwrap().message_id;
        assert!(
            number >= before || calls_of[id] == 1,
            "message {number}: {calls_of:?}"
        );
    }
    assert_eq!(
        counting.calls_by_message_id(),
        calls_of,
        "nothing is executed again"
    );

    let mut other = system.client_of(1);
    let mut followed = Vec::new();
    for (id, owner) in &owned {
        let get = GetTaskRequest {
            id: id.clone(),
            ..GetTaskRequest::default()
        };
        let found = other.get_task(get).await.unwrap();
        assert_eq!(found.metadata().get("muster-instance"), Some(owner));
        let subscribe = SubscribeToTaskRequest {
            id: id.clone(),
            ..SubscribeToTaskRequest::default()
        };
        followed.push(other.subscribe_to_task(subscribe).await.unwrap().into_inner());
    }
    gate.open();
    for mut events in followed {
        let mut last = None;
        while let Some(event) = events.message().await.unwrap() {
            last = event.payload;
        }
        assert!(matches!(last, Some(Payload::StatusUpdate(_))), "{last:?}");
    }
    let answer = outcome(&mut calls, PATIENCE).await.unwrap().into_inner();
    let Some(send_message_response::Payload::Task(task)) = answer.payload else {
        panic!("no task");
    };
    assert_eq!(send_to(&system, 1, lasting).await, task);
}

#[tokio::test]
async fn owners_and_answers_outlive_a_primary_whose_replica_sentinels_promote() {
    owners_and_answers_outlive_the_primary(Failing::sentinels().await).await;
}

#[tokio::test]
async fn owners_and_answers_outlive_a_primary_of_a_cluster() {
    owners_and_answers_outlive_the_primary(Failing::cluster().await).await;
}

//! Instances of one agent that share their tasks in a Redis, behind a router: one dies, or Redis does, or it fails over.

use muster_a2a::grpc::Client;
use muster_api::a2a::stream_response::Payload;
use muster_api::a2a::{
    GetTaskRequest, ListTasksRequest, ListTasksResponse, SendMessageConfiguration, SubscribeToTaskRequest,
    Task, TaskState, send_message_response,
};
use muster_testkit::{RedisServer, wait_for};
use muster_tests::PATIENCE;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Status;

use crate::failing::{Failing, PACE};
use crate::system::{Running, System, channel, message, outcome, take};
use crate::worker::LOOK;

/// An instance with its tasks in this Redis, and leases that a test can wait for.
async fn sharing(system: &System, redis: &RedisServer) -> Running {
    sharing_at(system, redis.url().leak(), "3").await
}

/// The same in the Redis at a URL, with leases of so many seconds.
async fn sharing_at(system: &System, url: &'static str, lease: &'static str) -> Running {
    let settings = [
        ("AGENT__REDIS_CLUSTER_ENDPOINT", url),
        ("AGENT__REDIS__LEASE_SECONDS", lease),
        ("AGENT__REDIS__PATIENCE_SECONDS", "2"),
    ];
    system.worker_with("worker", &settings).await
}

/// Has a task begun, which is durable then.
async fn begin(client: &mut Client, target: &str, text: &str) -> Result<Task, Status> {
    let mut request = message(target, text);
    request.configuration = Some(SendMessageConfiguration {
        return_immediately: true,
        ..SendMessageConfiguration::default()
    });
    let sent = client.send_message(request).await?.into_inner();
    match sent.payload {
        Some(send_message_response::Payload::Task(task)) => Ok(task),
        other => panic!("no task: {other:?}"),
    }
}

async fn read(system: &System, id: &str) -> Result<Task, Status> {
    let request = GetTaskRequest {
        id: id.to_owned(),
        tenant: "worker".to_owned(),
        ..GetTaskRequest::default()
    };
    system
        .client()
        .get_task(request)
        .await
        .map(tonic::Response::into_inner)
}

/// What the router lists, of which nothing may be refused.
async fn list(system: &System) -> ListTasksResponse {
    let request = ListTasksRequest {
        tenant: "worker".to_owned(),
        ..ListTasksRequest::default()
    };
    let listed = system.client().list_tasks(request).await;
    listed
        .expect("one of the instances answers for both")
        .into_inner()
}

/// Waits until the router answers with the task in this state.
async fn becomes(system: &System, id: &str, state: TaskState) -> Task {
    wait_for("the task's state", PATIENCE, async || {
        let task = read(system, id).await.map_err(|status| status.to_string())?;
        let is = task.status.as_ref().is_some_and(|status| status.state() == state);
        if is { Ok(task) } else { Err(format!("{task:?}")) }
    })
    .await
}

#[tokio::test]
async fn what_a_killed_instance_worked_on_fails_and_another_answers_for_it() {
    let leases = [
        ("REGISTRY__HEALTH_CHECK_INTERVAL", "30"),
        ("REGISTRY__LEASE_DURATION", "600"),
    ];
    let (system, redis) = (System::start(&leases, &[]).await, RedisServer::start().await);
    let mut workers = vec![sharing(&system, &redis).await, sharing(&system, &redis).await];
    let gate = system.gate("gate");
    let task = begin(&mut system.client(), "worker", &gate.hold()).await.unwrap();
    let at = gate.reached(1).await[0];
    take(&mut workers, at).process.kill().await;

    // Its lease lasts, and the other, which shares its store, answers for it at once.
    let listed = list(&system).await;
    assert_eq!(
        (listed.total_size, listed.tasks[0].id.as_str()),
        (1, task.id.as_str())
    );
    assert_eq!(read(&system, &task.id).await.unwrap().id, task.id);
    let failed = becomes(&system, &task.id, TaskState::Failed).await;
    let said = format!("{:?}", failed.status);
    assert!(
        said.contains("the agent ended while it worked on the task"),
        "{said}"
    );
    let listed = list(&system).await;
    assert_eq!((listed.total_size, listed.tasks.len()), (1, 1));
}

#[tokio::test]
async fn what_may_be_repeated_is_worked_on_by_another_instance() {
    let (system, redis) = (System::start(&[], &[]).await, RedisServer::start().await);
    let mut workers = vec![sharing(&system, &redis).await, sharing(&system, &redis).await];
    let gate = system.gate("gate");
    let target = format!("skill:{LOOK}");
    let task = begin(&mut system.client(), &target, &gate.hold()).await.unwrap();
    let at = gate.reached(1).await[0];
    take(&mut workers, at).process.kill().await;
    let both = gate.reached(2).await;
    assert_eq!(both[1], workers[0].port(), "it is with the other now");
    gate.open();
    becomes(&system, &task.id, TaskState::Completed).await;
}

#[tokio::test]
async fn a_frozen_instance_that_wakes_changes_nothing() {
    let (system, redis) = (System::start(&[], &[]).await, RedisServer::start().await);
    let mut workers = vec![sharing(&system, &redis).await, sharing(&system, &redis).await];
    let gate = system.gate("gate");
    let task = begin(&mut system.client(), "worker", &gate.hold()).await.unwrap();
    let at = gate.reached(1).await[0];
    let frozen = take(&mut workers, at);
    frozen.process.signal("STOP").await;
    // The other takes it over when the lease has ended.
    let key = format!("muster:{{agent.default.worker}}:task:{}", task.id);
    wait_for("the task to fail", PATIENCE, async || {
        let state = redis.ask(&["HGET", &key, "state"]).await;
        if state.trim() == (TaskState::Failed as i32).to_string() {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
    let version = redis.ask(&["HGET", &key, "version"]).await;
    gate.open();
    frozen.process.signal("CONT").await;
    // It learns that it was taken for dead, and begins a new life.
    wait_for("the frozen one to be back", PATIENCE, async || {
        let lives = redis
            .ask(&["ZCARD", "muster:{agent.default.worker}:leases"])
            .await;
        if lives.trim() == "2" { Ok(()) } else { Err(lives) }
    })
    .await;
    becomes(&system, &task.id, TaskState::Failed).await;
    assert_eq!(redis.ask(&["HGET", &key, "version"]).await, version);
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_where_redis_restarts() {
    // Agents that have refused five times in a row are left alone for a while, and then are asked again.
    let breaker = [("ROUTER__BREAKER_OPEN_SECONDS", "1")];
    let (system, mut redis) = (System::start(&[], &breaker).await, RedisServer::start().await);
    let _workers = [sharing(&system, &redis).await, sharing(&system, &redis).await];
    let gate = system.gate("gate");
    let mut client = system.client();
    let mut acknowledged = vec![begin(&mut client, "worker", &gate.hold()).await.unwrap().id];
    gate.reached(1).await;
    for round in 0..6 {
        if round % 3 == 1 {
            redis.kill().await;
        }
        // Some of them are refused, and say so in time.
        if let Ok(task) = begin(&mut client, "worker", &format!("echo {round}")).await {
            acknowledged.push(task.id);
        }
        if round % 3 == 2 {
            redis.restart().await;
        }
    }
    gate.open();
    for id in &acknowledged {
        becomes(&system, id, TaskState::Completed).await;
    }
    assert!(acknowledged.len() >= 2, "{acknowledged:?}");
}

/// A client of an instance itself.
fn directly(instance: &Running) -> Client {
    muster_a2a::grpc::client(channel(&instance.program))
}

async fn state_at(instance: &Running, id: &str) -> Result<TaskState, Status> {
    let request = GetTaskRequest {
        id: id.to_owned(),
        ..GetTaskRequest::default()
    };
    let task = directly(instance).get_task(request).await?.into_inner();
    Ok(task.status.unwrap_or_default().state())
}

/// Has tasks begun, one after the other, and says which are acknowledged; ends when it is told to.
async fn keep_beginning(
    mut client: Client,
    acknowledged: watch::Sender<Vec<String>>,
    stop: watch::Receiver<bool>,
) {
    let mut pace = tokio::time::interval(PACE);
    for number in 0.. {
        pace.tick().await;
        if *stop.borrow() {
            return;
        }
        // Some are refused while the store is away.
        if let Ok(task) = begin(&mut client, "worker", &format!("echo {number}")).await {
            acknowledged.send_modify(|ids| ids.push(task.id));
        }
    }
}

/// What is promised while the Redis of the agents' tasks fails over: no task that was acknowledged is lost; who works on a task goes on
/// with it, and any instance tells and streams it; an instance that dies afterwards is followed by another.
async fn tasks_outlive_the_primary(mut redis: Failing) {
    // Agents that have refused five times in a row are left alone for a while, and then are asked again.
    let breaker = [("ROUTER__BREAKER_OPEN_SECONDS", "1")];
    let (system, url) = (System::start(&[], &breaker).await, redis.url());
    let mut workers = vec![
        sharing_at(&system, url, "8").await,
        sharing_at(&system, url, "8").await,
    ];
    let gates = [system.gate("gate"), system.gate("gate-of-the-other")];
    let lasting = begin(&mut system.client(), "worker", &gates[0].hold())
        .await
        .unwrap();
    let owner = gates[0].reached(1).await[0];

    let (told, acknowledged) = watch::channel(Vec::new());
    let (stop, stopped) = watch::channel(false);
    let mut flow = JoinSet::new();
    flow.spawn(keep_beginning(system.client(), told, stopped));
    let goes_on = async || {
        let before = acknowledged.borrow().len();
        wait_for("tasks to begin", PATIENCE, async || {
            acknowledged.borrow().len() >= before + 20
        })
        .await;
    };
    goes_on().await;
    redis
        .lose_primary_of("muster:{agent.default.worker}:leases")
        .await;
    goes_on().await;
    stop.send_replace(true);
    outcome(&mut flow, PATIENCE).await;

    let (owner, other) = {
        let owner = take(&mut workers, owner);
        (owner, workers.remove(0))
    };
    // Each finds its way to the new primary by itself.
    wait_for(
        "the other instance to tell the task",
        PATIENCE,
        async || match state_at(&other, &lasting.id).await {
            Ok(TaskState::Working) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
    let subscribe = SubscribeToTaskRequest {
        id: lasting.id.clone(),
        ..SubscribeToTaskRequest::default()
    };
    let followed = directly(&other).subscribe_to_task(subscribe).await.unwrap();
    let mut followed = followed.into_inner();
    followed.message().await.unwrap().unwrap();
    gates[0].open();
    let mut last = None;
    while let Some(event) = followed.message().await.unwrap() {
        last = event.payload;
    }
    let Some(Payload::StatusUpdate(end)) = last else {
        panic!("a stream ends with the task's end: {last:?}");
    };
    assert_eq!(end.status.unwrap().state(), TaskState::Completed);
    let ids = acknowledged.borrow().clone();
    for id in ids.iter().chain([&lasting.id]) {
        becomes(&system, id, TaskState::Completed).await;
        for instance in [&owner, &other] {
            wait_for("every instance to know it", PATIENCE, async || {
                match state_at(instance, id).await {
                    Ok(TaskState::Completed) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
    }

    let left = begin(&mut system.client(), "worker", &gates[1].hold())
        .await
        .unwrap();
    let at = gates[1].reached(1).await[0];
    let mut both = vec![owner, other];
    take(&mut both, at).process.kill().await;
    becomes(&system, &left.id, TaskState::Failed).await;
    assert_eq!(state_at(&both[0], &left.id).await.unwrap(), TaskState::Failed);
}

#[tokio::test]
async fn tasks_outlive_a_primary_whose_replica_sentinels_promote() {
    tasks_outlive_the_primary(Failing::sentinels().await).await;
}

#[tokio::test]
async fn tasks_outlive_a_primary_of_a_cluster() {
    tasks_outlive_the_primary(Failing::cluster().await).await;
}

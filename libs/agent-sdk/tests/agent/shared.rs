//! Two instances of one agent over one Redis, as a client of either sees them.

use std::time::Duration;

use a2a_pb::proto as pb;
use a2a_pb::proto::TaskState;
use futures::{StreamExt as _, TryStreamExt as _};
use muster_a2a::ProtocolError;
use muster_api::error::{Error, Reason};
use muster_testkit::{RedisServer, wait_for};
use tokio::runtime::Runtime;
use tonic::{Code, Request, Status};

use crate::stage::{PATIENCE, Stage, said, say, say_and_go, state, task};

/// The shortest lease that may be set, and a patience that a test can wait for.
async fn open(redis: &str) -> Stage {
    open_in(redis, "").await
}

async fn open_in(redis: &str, namespace: &str) -> Stage {
    Stage::open(|config| {
        config.agent.redis_cluster_endpoint = Some(redis.to_owned());
        config.agent.redis.lease_seconds = 3;
        config.agent.redis.patience_seconds = 8;
        config.agent.namespace = namespace.to_owned();
        config.agent.outbound.allow = vec!["127.0.0.0/8".to_owned()];
    })
    .await
}

/// An instance that can be killed with all that it does: it has a runtime of its own.
struct Mortal {
    runtime: Runtime,
    stage: Stage,
}

impl Mortal {
    async fn open(redis: &str) -> Self {
        let redis = redis.to_owned();
        let opening = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let stage = runtime.block_on(open(&redis));
            Self { runtime, stage }
        });
        opening.await.unwrap()
    }

    /// As `kill -9` would.
    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

fn get(id: &str) -> pb::GetTaskRequest {
    pb::GetTaskRequest {
        id: id.to_owned(),
        ..Default::default()
    }
}

async fn read(stage: &Stage, id: &str) -> pb::Task {
    stage.client().get_task(get(id)).await.unwrap().into_inner()
}

async fn list(stage: &Stage) -> Vec<String> {
    let request = pb::ListTasksRequest::default();
    let listed = stage.client().list_tasks(request).await.unwrap().into_inner();
    assert_eq!(listed.total_size, i32::try_from(listed.tasks.len()).unwrap());
    listed.tasks.into_iter().map(|task| task.id).collect()
}

/// Starts something that goes on.
async fn start(stage: &Stage, text: &str, skill: &'static str) -> pb::Task {
    let mut request = Request::new(say_and_go(text));
    request
        .metadata_mut()
        .insert("muster-skill", skill.parse().unwrap());
    task(stage.client().send_message(request).await.unwrap())
}

async fn says(stage: &Stage, id: &str, what: &str) {
    wait_for(what, PATIENCE, async || {
        let said = said(&read(stage, id).await);
        if said.contains(what) { Ok(()) } else { Err(said) }
    })
    .await;
}

async fn is_in(stage: &Stage, id: &str, wanted: TaskState) -> pb::Task {
    wait_for("the state", PATIENCE, async || {
        let task = read(stage, id).await;
        if state(&task) == wanted {
            Ok(task)
        } else {
            Err(format!("{task:?}"))
        }
    })
    .await
}

fn answer_to(task: &pb::Task, text: &str) -> pb::SendMessageRequest {
    let mut answer = say(text);
    answer.message.as_mut().unwrap().task_id.clone_from(&task.id);
    answer
}

async fn cancel(stage: &Stage, id: &str) -> Result<pb::Task, Status> {
    let request = pb::CancelTaskRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    stage
        .client()
        .cancel_task(request)
        .await
        .map(tonic::Response::into_inner)
}

async fn subscribe(stage: &Stage, id: &str) -> tonic::Streaming<pb::StreamResponse> {
    let request = pb::SubscribeToTaskRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    stage
        .client()
        .subscribe_to_task(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn each_instance_answers_for_the_tasks_of_all() {
    let redis = RedisServer::start().await;
    let (one, other) = (open(&redis.url()).await, open(&redis.url()).await);
    let stranger = open_in(&redis.url(), "elsewhere").await;
    let done = task(one.client().send_message(say("artifacts")).await.unwrap());
    // Listed where it was done, it is in the store.
    assert_eq!(list(&one).await, [done.id.as_str()]);
    assert_eq!(read(&other, &done.id).await, done);
    let at_work = start(&other, "wait", "act").await;
    says(&one, &at_work.id, "waiting").await;
    assert_eq!(list(&one).await, [at_work.id.as_str(), done.id.as_str()]);
    assert_eq!(list(&other).await, list(&one).await);
    assert!(
        list(&stranger).await.is_empty(),
        "another agent's tasks are its own"
    );
    let unknown = stranger.client().get_task(get(&done.id)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    let busy = one
        .client()
        .send_message(answer_to(&at_work, "more"))
        .await
        .unwrap_err();
    assert_eq!(
        ProtocolError::of(&busy),
        Some(ProtocolError::UnsupportedOperation)
    );
    let cancelled = cancel(&one, &at_work.id).await.unwrap();
    assert_eq!(state(&cancelled), TaskState::Canceled);
    assert_eq!(read(&other, &at_work.id).await, cancelled);
    assert_eq!(cancel(&other, &at_work.id).await.unwrap(), cancelled);
    let ended = cancel(&other, &done.id).await.unwrap_err();
    assert_eq!(ProtocolError::of(&ended), Some(ProtocolError::TaskNotCancelable));
    assert_eq!(cancel(&one, "nothing").await.unwrap_err().code(), Code::NotFound);
    for stage in [one, other, stranger] {
        stage.close().await;
    }
}

#[tokio::test]
async fn a_question_is_answered_at_another_instance_and_who_follows_sees_all_in_order() {
    let redis = RedisServer::start().await;
    let (one, other) = (open(&redis.url()).await, open(&redis.url()).await);
    let asking = task(one.client().send_message(say("ask")).await.unwrap());
    assert_eq!(state(&asking), TaskState::InputRequired);
    // Durable before the list says so.
    list(&one).await;
    let (here, there) = (
        subscribe(&one, &asking.id).await,
        subscribe(&other, &asking.id).await,
    );
    let elsewhere = pb::Message {
        context_id: "of another".to_owned(),
        ..answer_to(&asking, "x").message.unwrap()
    };
    let wrong = pb::SendMessageRequest {
        message: Some(elsewhere),
        ..Default::default()
    };
    let refused = other.client().send_message(wrong).await.unwrap_err();
    assert_eq!(Error::from_status(&refused).unwrap().reason, Reason::InvalidField);

    let answered = task(
        other
            .client()
            .send_message(answer_to(&asking, "Seattle"))
            .await
            .unwrap(),
    );
    assert_eq!(state(&answered), TaskState::Completed);
    assert_eq!(answered.history.len(), 3);
    let here: Vec<_> = here.try_collect().await.unwrap();
    let there: Vec<_> = there.try_collect().await.unwrap();
    assert_eq!(here, there);
    assert_eq!(
        here.len(),
        4,
        "the question, at work, the result, the end: {here:?}"
    );
    assert_eq!(read(&one, &asking.id).await, answered);
    let again = one
        .client()
        .send_message(answer_to(&asking, "more"))
        .await
        .unwrap_err();
    assert_eq!(
        ProtocolError::of(&again),
        Some(ProtocolError::UnsupportedOperation)
    );
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_stream_elsewhere_has_the_events_of_the_stream_here() {
    let redis = RedisServer::start().await;
    let (one, other) = (open(&redis.url()).await, open(&redis.url()).await);
    let mut here = one
        .client()
        .send_streaming_message(say("many"))
        .await
        .unwrap()
        .into_inner();
    let first = here.next().await.unwrap().unwrap();
    let Some(pb::stream_response::Payload::Task(begun)) = first.payload else {
        panic!("a stream begins with the task")
    };
    let mut client = other.client();
    let there = client.subscribe_to_task(pb::SubscribeToTaskRequest {
        id: begun.id.clone(),
        ..Default::default()
    });
    // It may have ended by now: then there is nothing to follow.
    let there: Vec<_> = match there.await {
        Ok(there) => there.into_inner().try_collect().await.unwrap(),
        Err(status) => {
            assert_eq!(
                ProtocolError::of(&status),
                Some(ProtocolError::UnsupportedOperation)
            );
            Vec::new()
        }
    };
    let here: Vec<_> = here.try_collect().await.unwrap();
    assert_eq!(here.len(), 503, "at work, its steps, the result, the end");
    if let Some((_, there)) = there.split_first() {
        assert!(here.ends_with(there), "{} events", there.len());
    }
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn push_configurations_are_those_of_all_instances() {
    let redis = RedisServer::start().await;
    let (one, other) = (open(&redis.url()).await, open(&redis.url()).await);
    let at_work = start(&one, "wait", "act").await;
    let done = task(one.client().send_message(say("hello")).await.unwrap());
    list(&one).await;
    for of in [&at_work, &done] {
        let config = pb::TaskPushNotificationConfig {
            task_id: of.id.clone(),
            url: "http://127.0.0.1:9/hook".to_owned(),
            ..Default::default()
        };
        let mut client = other.client();
        let made = client
            .create_task_push_notification_config(config)
            .await
            .unwrap()
            .into_inner();
        for stage in [&one, &other] {
            let request = pb::ListTaskPushNotificationConfigsRequest {
                task_id: of.id.clone(),
                ..Default::default()
            };
            let listed = stage.client().list_task_push_notification_configs(request).await;
            assert_eq!(listed.unwrap().into_inner().configs, std::slice::from_ref(&made));
            let request = pb::GetTaskPushNotificationConfigRequest {
                task_id: of.id.clone(),
                id: made.id.clone(),
                ..Default::default()
            };
            let found = stage.client().get_task_push_notification_config(request).await;
            assert_eq!(found.unwrap().into_inner(), made);
        }
        let request = pb::DeleteTaskPushNotificationConfigRequest {
            task_id: of.id.clone(),
            id: made.id.clone(),
            ..Default::default()
        };
        client
            .delete_task_push_notification_config(request.clone())
            .await
            .unwrap();
        client
            .delete_task_push_notification_config(request)
            .await
            .unwrap();
        let request = pb::ListTaskPushNotificationConfigsRequest {
            task_id: of.id.clone(),
            ..Default::default()
        };
        let listed = one
            .client()
            .list_task_push_notification_configs(request)
            .await
            .unwrap();
        assert!(listed.into_inner().configs.is_empty());
    }
    assert_eq!(state(&read(&one, &at_work.id).await), TaskState::Working);
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn what_a_dead_instance_worked_on_fails_or_is_worked_on_by_another() {
    let redis = RedisServer::start().await;
    let one = Mortal::open(&redis.url()).await;
    let other = open(&redis.url()).await;
    let once = start(&one.stage, "wait", "order").await;
    let again = start(&one.stage, "wait", "act").await;
    says(&other, &once.id, "waiting").await;
    let mut events = subscribe(&other, &once.id).await;
    events.next().await.unwrap().unwrap();
    one.kill();
    let failed = is_in(&other, &once.id, TaskState::Failed).await;
    assert!(
        said(&failed).contains("the agent ended while"),
        "{}",
        said(&failed)
    );
    let told: Vec<_> = events.try_collect().await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    // It is with the other now, which ends it.
    wait_for("the task to be with the other", PATIENCE, async || {
        let left = redis
            .ask(&["ZCARD", "muster:{agent.default.puppet}:leases"])
            .await;
        if left.trim() == "1" { Ok(()) } else { Err(left) }
    })
    .await;
    says(&other, &again.id, "waiting").await;
    assert_eq!(
        state(&cancel(&other, &again.id).await.unwrap()),
        TaskState::Canceled
    );
    other.close().await;
}

#[tokio::test]
async fn with_nobody_alive_the_next_instance_does_it() {
    let redis = RedisServer::start().await;
    let one = Mortal::open(&redis.url()).await;
    let once = start(&one.stage, "wait", "order").await;
    one.kill();
    let next = open(&redis.url()).await;
    is_in(&next, &once.id, TaskState::Failed).await;
    next.close().await;
}

#[tokio::test]
async fn while_redis_is_away_what_must_be_durable_is_refused_and_the_rest_goes_on() {
    let mut redis = RedisServer::start().await;
    let one = Stage::open(|config| {
        config.agent.redis_cluster_endpoint = Some(redis.url());
        config.agent.redis.lease_seconds = 3;
        config.agent.redis.patience_seconds = 1;
        config.agent.redis.answer_within_seconds = 1;
    })
    .await;
    let at_work = start(&one, "wait", "act").await;
    says(&one, &at_work.id, "waiting").await;
    redis.kill().await;
    // Needs no store before its answer.
    let answered = task(one.client().send_message(say("hello")).await.unwrap());
    assert_eq!(state(&answered), TaskState::Completed);
    assert_eq!(read(&one, &answered.id).await, answered);
    assert_eq!(state(&read(&one, &at_work.id).await), TaskState::Working);
    let refused = one.client().send_message(say_and_go("hello")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let error = Error::from_status(&refused).unwrap();
    assert_eq!(error.reason, Reason::DependencyUnavailable);
    assert!(error.message.contains("Redis at 127.0.0.1"), "{}", error.message);
    assert!(error.retry_after.is_some());
    let unread = one.client().get_task(get("of another")).await.unwrap_err();
    let error = Error::from_status(&unread).unwrap();
    assert_eq!(error.reason, Reason::StoreUnavailable);
    wait_for("the agent to say that it is not ready", PATIENCE, async || {
        let answer = muster_testkit::http::get(one.health, "/ready").await;
        answer.is_ok_and(|answer| !answer.status.is_success())
    })
    .await;
    // Longer than its lease.
    let unable = wait_for("the lease to end", Duration::from_secs(60), async || {
        let refused = one.client().send_message(say_and_go("hello")).await.unwrap_err();
        if refused.message().contains("lease") {
            Ok(refused)
        } else {
            Err(refused.message().to_owned())
        }
    })
    .await;
    assert_eq!(unable.code(), Code::Unavailable);

    redis.restart().await;
    wait_for("the agent to be ready again", PATIENCE, async || {
        let answer = muster_testkit::http::get(one.health, "/ready").await;
        answer.is_ok_and(|answer| answer.status.is_success())
    })
    .await;
    // Nobody has taken anything over.
    assert_eq!(
        state(&cancel(&one, &at_work.id).await.unwrap()),
        TaskState::Canceled
    );
    let other = open(&redis.url()).await;
    wait_for("what was answered to be kept", PATIENCE, async || {
        let kept = other.client().get_task(get(&answered.id)).await;
        kept.map(|kept| assert_eq!(kept.into_inner(), answered))
    })
    .await;
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn what_does_not_pass_by_waiting_ends_the_agent_by_its_key() {
    let redis = RedisServer::start().await;
    redis
        .ask(&["SET", "muster:{agent.default.puppet}:format", "agent-tasks 7"])
        .await;
    let refused = Stage::try_open(|config| {
        config.agent.redis_cluster_endpoint = Some(redis.url());
    })
    .await;
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("agent.redis_cluster_endpoint: Redis at 127.0.0.1") && error.contains("agent-tasks 7"),
        "{error}"
    );
}

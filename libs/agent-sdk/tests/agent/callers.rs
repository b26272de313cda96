//! Callers are told apart: what one has is not there for another, over three bindings, at each instance, and after a restart.
//!
//! The agents are on a loopback, where whoever comes may say on whose behalf, as the router does.

use a2a_pb::proto as pb;
use a2a_pb::proto::TaskState;
use futures::StreamExt as _;
use muster_a2a::ProtocolError;
use muster_runtime::trust::caller::ON_BEHALF_OF_METADATA;
use muster_runtime::trust::{Caller, Grants, Kind, Role};
use muster_testkit::http::{Method, send};
use muster_testkit::{RedisServer, wait_for};
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

use crate::stage::{PATIENCE, Stage, said, say, say_and_go, state, task};

/// Whoever asks, as the router writes it.
fn header(subject: &str, role: Role) -> String {
    let roles = [role].into_iter().collect();
    Caller::new(Kind::EndUser, Some("us"), subject, roles, Grants::default()).to_text()
}

fn of<T>(subject: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let caller = header(subject, Role::AgentWriter);
    request
        .metadata_mut()
        .insert(ON_BEHALF_OF_METADATA, caller.parse().unwrap());
    request
}

fn of_root<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let caller = header("root", Role::Admin);
    request
        .metadata_mut()
        .insert(ON_BEHALF_OF_METADATA, caller.parse().unwrap());
    request
}

fn get(id: &str) -> pb::GetTaskRequest {
    pb::GetTaskRequest {
        id: id.to_owned(),
        ..Default::default()
    }
}

fn push(id: &str) -> pb::TaskPushNotificationConfig {
    pb::TaskPushNotificationConfig {
        id: "p".to_owned(),
        task_id: id.to_owned(),
        url: "http://127.0.0.1:9/".to_owned(),
        ..Default::default()
    }
}

fn in_context(text: &str, context: &str) -> pb::SendMessageRequest {
    let mut request = say(text);
    request.message.as_mut().unwrap().context_id = context.to_owned();
    request
}

fn follow_up(text: &str, id: &str) -> pb::SendMessageRequest {
    let mut request = say(text);
    request.message.as_mut().unwrap().task_id = id.to_owned();
    request
}

fn page(size: i32, token: &str) -> pb::ListTasksRequest {
    pb::ListTasksRequest {
        page_size: Some(size),
        page_token: token.to_owned(),
        ..Default::default()
    }
}

async fn ask(stage: &Stage, subject: &str, method: Method, path: &str, body: Option<Value>) -> Value {
    let caller = header(subject, Role::AgentWriter);
    let headers = [
        ("content-type", "application/json"),
        ("a2a-version", "1.0"),
        (ON_BEHALF_OF_METADATA, caller.as_str()),
    ];
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let answer = send(stage.address, method, path, &headers, body.into());
    answer.await.unwrap().json()
}

/// An answer without the task's id, by which a task that is there and one that is not could differ.
fn without(id: &str, text: &str) -> String {
    text.replace(id, "ID")
}

fn refusal<T: std::fmt::Debug>(id: &str, answer: Result<T, Status>) -> String {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert_eq!(ProtocolError::of(&status), Some(ProtocolError::TaskNotFound));
    without(id, &format!("{:?} {}", status.code(), status.message()))
}

/// All that an attacker is told of a task, whatever he tries.
async fn attack(stage: &Stage, id: &str) -> Vec<String> {
    let mut client = stage.client();
    let mut told = vec![
        refusal(id, client.get_task(of("eve", get(id))).await),
        refusal(
            id,
            client
                .cancel_task(of(
                    "eve",
                    pb::CancelTaskRequest {
                        id: id.to_owned(),
                        ..Default::default()
                    },
                ))
                .await,
        ),
        refusal(
            id,
            client
                .subscribe_to_task(of(
                    "eve",
                    pb::SubscribeToTaskRequest {
                        id: id.to_owned(),
                        ..Default::default()
                    },
                ))
                .await
                .map(|_| ()),
        ),
        refusal(id, client.send_message(of("eve", follow_up("Seattle", id))).await),
        refusal(
            id,
            client
                .send_streaming_message(of("eve", follow_up("Seattle", id)))
                .await
                .map(|_| ()),
        ),
        refusal(
            id,
            client
                .create_task_push_notification_config(of("eve", push(id)))
                .await,
        ),
        refusal(
            id,
            client
                .get_task_push_notification_config(of(
                    "eve",
                    pb::GetTaskPushNotificationConfigRequest {
                        task_id: id.to_owned(),
                        id: "p".to_owned(),
                        ..Default::default()
                    },
                ))
                .await,
        ),
        refusal(
            id,
            client
                .list_task_push_notification_configs(of(
                    "eve",
                    pb::ListTaskPushNotificationConfigsRequest {
                        task_id: id.to_owned(),
                        ..Default::default()
                    },
                ))
                .await,
        ),
        refusal(
            id,
            client
                .delete_task_push_notification_config(of(
                    "eve",
                    pb::DeleteTaskPushNotificationConfigRequest {
                        task_id: id.to_owned(),
                        id: "p".to_owned(),
                        ..Default::default()
                    },
                ))
                .await,
        ),
    ];
    for (method, params) in [
        ("GetTask", json!({ "id": id })),
        ("CancelTask", json!({ "id": id })),
        ("SubscribeToTask", json!({ "id": id })),
        ("ListTaskPushNotificationConfigs", json!({ "taskId": id })),
    ] {
        let call = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let answer = ask(stage, "eve", Method::POST, "/", Some(call)).await;
        assert_eq!(answer["error"]["code"], -32001, "{method}: {answer}");
        told.push(without(id, &answer.to_string()));
    }
    for (method, path) in [
        (Method::GET, format!("/tasks/{id}")),
        (Method::POST, format!("/tasks/{id}:cancel")),
        (Method::GET, format!("/tasks/{id}:subscribe")),
        (Method::GET, format!("/tasks/{id}/pushNotificationConfigs")),
        (Method::DELETE, format!("/tasks/{id}/pushNotificationConfigs/p")),
    ] {
        let answer = ask(stage, "eve", method, &path, None).await;
        assert_eq!(answer["error"]["code"], 404, "{path}: {answer}");
        told.push(without(id, &answer.to_string()));
    }
    told
}

/// What others have is not there: asked for at one instance, where another may have made it.
async fn tells_callers_apart(made_at: &Stage, asked_at: &Stage) {
    let mut ada = made_at.client();
    let question = task(ada.send_message(of("ada", say("ask"))).await.unwrap());
    let at_work = task(ada.send_message(of("ada", say_and_go("wait"))).await.unwrap());
    let config = ada.create_task_push_notification_config(of("ada", push(&question.id)));
    config.await.unwrap();

    let nothing = attack(asked_at, "0197e58b-7a1c-7000-8000-000000000000").await;
    for id in [&question.id, &at_work.id] {
        assert_eq!(attack(asked_at, id).await, nothing, "nothing tells it from none");
    }

    // The owner has all of it, wherever she asks, and so has an admin.
    let mut client = asked_at.client();
    let seen = client.get_task(of("ada", get(&question.id))).await.unwrap();
    assert_eq!(state(&seen.into_inner()), TaskState::InputRequired);
    let seen = client
        .get_task(of_root(get(&at_work.id)))
        .await
        .unwrap()
        .into_inner();
    assert!(matches!(state(&seen), TaskState::Submitted | TaskState::Working));
    let answered = client.send_message(of("ada", follow_up("Seattle", &question.id)));
    assert_eq!(said(&task(answered.await.unwrap())), "thank you");
    let cancelled = client.cancel_task(of_root(pb::CancelTaskRequest {
        id: at_work.id.clone(),
        ..Default::default()
    }));
    assert_eq!(state(&cancelled.await.unwrap().into_inner()), TaskState::Canceled);
    let mut gone = client
        .send_streaming_message(of("ada", say("artifacts")))
        .await
        .unwrap()
        .into_inner();
    while let Some(event) = gone.next().await {
        event.unwrap();
    }
}

/// Lists, totals and page tokens; `before` are the tasks that ada has had.
async fn lists_are_the_callers_own(made_at: &Stage, asked_at: &Stage, before: i32) {
    let mut client = made_at.client();
    for round in 0..5 {
        for subject in ["ada", "bob"] {
            let message = in_context(&format!("round {round}"), "holidays");
            client.send_message(of(subject, message)).await.unwrap();
        }
    }
    // What has ended just now is told at once, and is on the other instances' lists a moment later.
    wait_for("all of them to be listed", PATIENCE, async || {
        let all = asked_at.client().list_tasks(of_root(page(100, ""))).await;
        let total = all.unwrap().into_inner().total_size;
        if total == 10 + before { Ok(()) } else { Err(total) }
    })
    .await;
    let mut client = asked_at.client();
    let mut list = async |subject: &str, request| {
        client
            .list_tasks(of(subject, request))
            .await
            .map(tonic::Response::into_inner)
    };
    for (subject, total) in [("ada", 5 + before), ("bob", 5), ("eve", 0)] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let listed = list(subject, page(2, &token)).await.unwrap();
            assert_eq!(listed.total_size, total, "{subject}");
            seen.extend(listed.tasks.into_iter().map(|task| task.id));
            token = listed.next_page_token;
            if token.is_empty() {
                break;
            }
            let stolen = list("eve", page(2, &token)).await.unwrap_err();
            assert_eq!(stolen.code(), Code::InvalidArgument);
        }
        assert_eq!(seen.len(), usize::try_from(total).unwrap(), "{subject}");
        // A context of one name is another one for each.
        let listed = list(
            subject,
            pb::ListTasksRequest {
                context_id: "holidays".to_owned(),
                ..page(100, "")
            },
        );
        assert_eq!(listed.await.unwrap().total_size, total.min(5), "{subject}");
    }
    let listed = ask(asked_at, "eve", Method::GET, "/tasks", None).await;
    assert_eq!(listed["totalSize"].as_i64().unwrap_or(0), 0, "{listed}");
    let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "ListTasks", "params": {} });
    let listed = ask(asked_at, "bob", Method::POST, "/", Some(call)).await;
    assert_eq!(listed["result"]["totalSize"], 5, "{listed}");
    let all = asked_at
        .client()
        .list_tasks(of_root(page(100, "")))
        .await
        .unwrap();
    assert_eq!(all.into_inner().total_size, 10 + before);
}

#[tokio::test]
async fn what_a_caller_has_is_there_for_nobody_else() {
    let stage = Stage::open(|config| config.agent.outbound.allow = vec!["127.0.0.0/8".to_owned()]).await;
    tells_callers_apart(&stage, &stage).await;
    lists_are_the_callers_own(&stage, &stage, 3).await;
    stage.close().await;
}

#[tokio::test]
async fn nor_at_another_instance() {
    let redis = RedisServer::start().await;
    let open = async || {
        Stage::open(|config| {
            config.agent.redis_cluster_endpoint = Some(redis.url());
            config.agent.outbound.allow = vec!["127.0.0.0/8".to_owned()];
        })
        .await
    };
    let (one, other) = (open().await, open().await);
    tells_callers_apart(&one, &other).await;
    lists_are_the_callers_own(&one, &other, 3).await;
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn nor_after_a_restart() {
    let directory = tempfile::TempDir::new().unwrap();
    let open = async || {
        let path = directory.path().to_owned();
        Stage::open(|config| config.agent.data_directory = path).await
    };
    let stage = open().await;
    let question = task(stage.client().send_message(of("ada", say("ask"))).await.unwrap());
    stage.close().await;
    let stage = open().await;
    let mut client = stage.client();
    refusal(&question.id, client.get_task(of("eve", get(&question.id))).await);
    let listed = client
        .list_tasks(of("eve", page(10, "")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((listed.total_size, listed.tasks.len()), (0, 0));
    let listed = client
        .list_tasks(of("ada", page(10, "")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((listed.total_size, listed.tasks.len()), (1, 1));
    stage.close().await;
}

#[tokio::test]
async fn a_handler_knows_conversations_of_one_name_apart() {
    let stage = Stage::open(|_| {}).await;
    let mut client = stage.client();
    let mut conversation = async |subject: &str, context: &str| {
        let answer = client
            .send_message(of(subject, in_context("where", context)))
            .await;
        said(&task(answer.unwrap()))
    };
    let first = conversation("ada", "holidays").await;
    assert_eq!(conversation("ada", "holidays").await, first);
    assert_ne!(conversation("ada", "work").await, first);
    assert_ne!(conversation("eve", "holidays").await, first);
    stage.close().await;
}

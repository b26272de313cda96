//! Push notifications, as a receiver sees them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use a2a_pb::proto as pb;
use a2a_pb::proto::TaskState;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use muster_testkit::{RedisServer, wait_for};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Code;

use crate::stage::{PATIENCE, Stage, say, say_and_go, state, task};

/// A receiver that answers as it is told, and 200 from then on.
#[derive(Clone, Default)]
struct Receiver {
    heard: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    answers: Arc<Mutex<VecDeque<StatusCode>>>,
    /// Ends with the last of the receiver's clones.
    serving: Arc<Mutex<JoinSet<std::io::Result<()>>>>,
}

impl Receiver {
    async fn start(answers: &[StatusCode]) -> (Self, SocketAddr) {
        let receiver = Self::default();
        receiver.answers.lock().extend(answers);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = axum::Router::new()
            .route("/hook", post(hear))
            .with_state(receiver.clone());
        receiver
            .serving
            .lock()
            .spawn(async move { axum::serve(listener, routes).await });
        (receiver, address)
    }

    fn heard(&self) -> Vec<(HeaderMap, Value)> {
        self.heard.lock().clone()
    }

    /// The kinds of what was heard, with the states.
    fn shapes(&self) -> Vec<String> {
        let shape = |body: &Value| match body.as_object().and_then(|fields| fields.iter().next()) {
            Some((kind, inner)) if kind == "artifactUpdate" => {
                format!("{kind} {}", inner["artifact"]["name"])
            }
            Some((kind, inner)) => format!("{kind} {}", inner["status"]["state"]),
            None => body.to_string(),
        };
        self.heard().iter().map(|(_, body)| shape(body)).collect()
    }

    async fn hears(&self, what: &str) {
        wait_for(what, PATIENCE, async || {
            self.shapes().iter().any(|shape| shape.contains(what))
        })
        .await;
    }
}

async fn hear(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let answer = receiver.answers.lock().pop_front().unwrap_or(StatusCode::OK);
    if answer == StatusCode::OK {
        receiver
            .heard
            .lock()
            .push((headers, serde_json::from_str(&body).unwrap()));
    }
    answer
}

fn config(address: SocketAddr) -> pb::TaskPushNotificationConfig {
    pb::TaskPushNotificationConfig {
        url: format!("http://{address}/hook"),
        token: "my-own".to_owned(),
        authentication: Some(pb::AuthenticationInfo {
            scheme: "Bearer".to_owned(),
            credentials: "secret".to_owned(),
        }),
        ..Default::default()
    }
}

fn pushed_to(mut request: pb::SendMessageRequest, address: SocketAddr) -> pb::SendMessageRequest {
    request
        .configuration
        .get_or_insert_default()
        .task_push_notification_config = Some(config(address));
    request
}

async fn open() -> Stage {
    Stage::open(|config| config.agent.outbound.allow = vec!["127.0.0.0/8".to_owned()]).await
}

#[tokio::test]
async fn every_event_arrives_in_order_with_token_and_credentials() {
    let stage = open().await;
    let (receiver, address) = Receiver::start(&[]).await;
    stage
        .client()
        .send_message(pushed_to(say("artifacts"), address))
        .await
        .unwrap();
    receiver.hears("COMPLETED").await;
    assert_eq!(
        receiver.shapes(),
        [
            r#"statusUpdate "TASK_STATE_WORKING""#,
            r#"artifactUpdate "log""#,
            r#"artifactUpdate "result""#,
            r#"artifactUpdate "chart.svg""#,
            r#"statusUpdate "TASK_STATE_COMPLETED""#,
        ]
    );
    let (headers, _) = receiver.heard().remove(0);
    assert_eq!(headers["content-type"], "application/a2a+json");
    assert_eq!(headers["x-a2a-notification-token"], "my-own");
    assert_eq!(headers["authorization"], "Bearer secret");
    stage.close().await;
}

#[tokio::test]
async fn what_does_not_arrive_is_tried_again_and_what_is_refused_is_not_and_the_end_comes_all_the_same() {
    let stage = open().await;
    let failing = [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];
    let (receiver, address) = Receiver::start(&failing).await;
    stage
        .client()
        .send_message(pushed_to(say("hello"), address))
        .await
        .unwrap();
    receiver.hears("COMPLETED").await;
    assert_eq!(receiver.shapes().len(), 3, "{:?}", receiver.shapes());

    // It takes no artifacts.
    let answers = [StatusCode::OK, StatusCode::PAYLOAD_TOO_LARGE];
    let (choosy, address) = Receiver::start(&answers).await;
    stage
        .client()
        .send_message(pushed_to(say("hello"), address))
        .await
        .unwrap();
    choosy.hears("COMPLETED").await;
    assert_eq!(
        choosy.shapes(),
        [
            r#"statusUpdate "TASK_STATE_WORKING""#,
            r#"statusUpdate "TASK_STATE_COMPLETED""#,
        ]
    );

    let (refusing, address) = Receiver::start(&[StatusCode::GONE; 3]).await;
    stage
        .client()
        .send_message(pushed_to(say("hello"), address))
        .await
        .unwrap();
    wait_for("all pushes to be given up", PATIENCE, async || {
        let metrics = muster_testkit::http::get(stage.metrics, "/metrics")
            .await
            .unwrap();
        metrics
            .text()
            .contains(r#"agent_push_notifications_total{outcome="given_up"} 4"#)
    })
    .await;
    assert!(refusing.heard().is_empty());
    stage.close().await;
}

#[tokio::test]
async fn a_host_that_hangs_holds_up_nobody_else() {
    let stage = open().await;
    let mut client = stage.client();
    // It takes connections and never answers.
    let hanging = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let hook = format!("http://{}/hook", hanging.local_addr().unwrap());
    for _ in 0..25 {
        let asking = task(client.send_message(say("ask")).await.unwrap());
        for _ in 0..8 {
            let config = pb::TaskPushNotificationConfig {
                task_id: asking.id.clone(),
                url: hook.clone(),
                ..Default::default()
            };
            client.create_task_push_notification_config(config).await.unwrap();
        }
        let cancel = pb::CancelTaskRequest {
            id: asking.id,
            ..Default::default()
        };
        client.cancel_task(cancel).await.unwrap();
    }
    let (receiver, address) = Receiver::start(&[]).await;
    client
        .send_message(pushed_to(say("hello"), address))
        .await
        .unwrap();
    receiver.hears("COMPLETED").await;
    stage.close().await;
}

#[tokio::test]
async fn configurations_are_made_read_listed_and_deleted() {
    let stage = open().await;
    let (receiver, address) = Receiver::start(&[]).await;
    let mut client = stage.client();
    let running = task(client.send_message(say_and_go("wait")).await.unwrap());
    let mut made = Vec::new();
    for id in ["", "mine"] {
        let config = pb::TaskPushNotificationConfig {
            task_id: running.id.clone(),
            id: id.to_owned(),
            ..config(address)
        };
        let created = client.create_task_push_notification_config(config).await.unwrap();
        made.push(created.into_inner());
    }
    assert!(!made[0].id.is_empty());
    assert_eq!(made[1].id, "mine");
    let get = pb::GetTaskPushNotificationConfigRequest {
        task_id: running.id.clone(),
        id: "mine".to_owned(),
        ..Default::default()
    };
    let got = client
        .get_task_push_notification_config(get.clone())
        .await
        .unwrap();
    assert_eq!(got.into_inner(), made[1]);
    let delete = pb::DeleteTaskPushNotificationConfigRequest {
        task_id: running.id.clone(),
        id: "mine".to_owned(),
        ..Default::default()
    };
    for _ in 0..2 {
        client
            .delete_task_push_notification_config(delete.clone())
            .await
            .unwrap();
    }
    let status = client.get_task_push_notification_config(get).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let list = pb::ListTaskPushNotificationConfigsRequest {
        task_id: running.id.clone(),
        ..Default::default()
    };
    let listed = client
        .list_task_push_notification_configs(list.clone())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().configs, made[..1]);
    let wrong = pb::ListTaskPushNotificationConfigsRequest {
        page_size: -1,
        ..list
    };
    let refused = client
        .list_task_push_notification_configs(wrong)
        .await
        .unwrap_err();
    assert!(refused.message().contains("page_size"), "{refused}");

    let cancel = pb::CancelTaskRequest {
        id: running.id,
        ..Default::default()
    };
    client.cancel_task(cancel).await.unwrap();
    receiver.hears("CANCELED").await;
    assert_eq!(receiver.shapes().len(), 1, "the deleted one hears nothing");
    stage.close().await;
}

#[tokio::test]
async fn addresses_that_lead_inside_are_refused_by_their_field() {
    let stage = Stage::open(|_| {}).await;
    let mut client = stage.client();
    for url in [
        "http://127.0.0.1:1/",
        "http://169.254.169.254/latest",
        "ftp://example.com/",
        "hook",
    ] {
        let mut request = say("hello");
        request.configuration = Some(pb::SendMessageConfiguration {
            task_push_notification_config: Some(pb::TaskPushNotificationConfig {
                url: url.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        });
        let status = client.send_message(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{url}: {status}");
        assert!(
            status
                .message()
                .contains("configuration.task_push_notification_config.url"),
            "{status}"
        );
    }
    stage.close().await;
}

#[tokio::test]
async fn what_could_not_be_delivered_is_delivered_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let open = |directory: std::path::PathBuf| {
        Stage::open(move |config| {
            config.agent.data_directory = directory;
            config.agent.outbound.allow = vec!["127.0.0.0/8".to_owned()];
        })
    };
    let stage = open(directory.path().to_owned()).await;
    let (receiver, address) = Receiver::start(&[StatusCode::SERVICE_UNAVAILABLE; 1_000]).await;
    let done = task(
        stage
            .client()
            .send_message(pushed_to(say("hello"), address))
            .await
            .unwrap(),
    );
    assert_eq!(state(&done), TaskState::Completed);
    stage.close().await;
    assert!(receiver.heard().is_empty());

    receiver.answers.lock().clear();
    let stage = open(directory.path().to_owned()).await;
    receiver.hears("COMPLETED").await;
    assert_eq!(receiver.heard()[0].1["task"]["id"], done.id);
    stage.close().await;
}

#[tokio::test]
async fn what_an_instance_could_not_deliver_another_delivers() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let open = || {
        Stage::open(|config| {
            config.agent.redis_cluster_endpoint = Some(url.clone());
            config.agent.redis.lease_seconds = 3;
            config.agent.outbound.allow = vec!["127.0.0.0/8".to_owned()];
        })
    };
    let (one, other) = (open().await, open().await);
    let (receiver, address) = Receiver::start(&[StatusCode::SERVICE_UNAVAILABLE; 1_000]).await;
    let request = pushed_to(say("hello"), address);
    let done = task(one.client().send_message(request).await.unwrap());
    assert_eq!(state(&done), TaskState::Completed);
    one.close().await;
    receiver.answers.lock().clear();
    receiver.hears("COMPLETED").await;
    wait_for("nothing to be owed", PATIENCE, async || {
        let held = redis.ask(&["KEYS", "muster:{agent.default.puppet}:held:*"]).await;
        if held.trim().is_empty() { Ok(()) } else { Err(held) }
    })
    .await;
    let ends = receiver
        .shapes()
        .into_iter()
        .filter(|shape| shape.contains("COMPLETED"));
    assert_eq!(ends.count(), 1, "{:?}", receiver.shapes());
    other.close().await;
}

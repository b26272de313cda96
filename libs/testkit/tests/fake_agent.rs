//! The fake agent as a client sees it.

use std::time::Duration;

use futures::StreamExt as _;
use muster_api::a2a::{self, a2a_service_client::A2aServiceClient};
use muster_testkit::{Answer, FakeAgent, wait_for};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);

fn request(message_id: &str, text: &str) -> a2a::SendMessageRequest {
    a2a::SendMessageRequest {
        message: Some(a2a::Message {
            message_id: message_id.to_owned(),
            role: a2a::Role::User.into(),
            parts: vec![a2a::Part {
                content: Some(a2a::part::Content::Text(text.to_owned())),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn task(answer: a2a::SendMessageResponse) -> a2a::Task {
    match answer.payload {
        Some(a2a::send_message_response::Payload::Task(task)) => task,
        other => panic!("no task: {other:?}"),
    }
}

#[tokio::test]
async fn scripted_answers_come_in_order_and_calls_are_counted() {
    let agent = FakeAgent::start("echo").await;
    agent.script([
        Answer::Status(tonic::Status::unavailable("first")),
        Answer::Completed(json!({"n": 1}), "one".to_owned()),
    ]);
    let mut client = A2aServiceClient::connect(agent.endpoint()).await.unwrap();
    let refused = client.send_message(request("m1", "x")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let mut again = tonic::Request::new(request("m1", "x"));
    again
        .metadata_mut()
        .insert("muster-step-key", "step".parse().unwrap());
    let done = task(client.send_message(again).await.unwrap().into_inner());
    assert_eq!(done.status.unwrap().state(), a2a::TaskState::Completed);
    assert_eq!(done.artifacts[0].name, "result");
    client.send_message(request("m2", "y")).await.unwrap();

    assert_eq!(
        agent.calls_by_message_id(),
        [("m1".to_owned(), 2), ("m2".to_owned(), 1)].into()
    );
    assert_eq!(agent.calls_by_step_key(), [("step".to_owned(), 1)].into());
}

#[tokio::test]
async fn held_streams_advance_event_by_event() {
    let agent = FakeAgent::start("slow").await;
    agent.hold();
    let mut client = A2aServiceClient::connect(agent.endpoint()).await.unwrap();
    let mut events = client
        .send_streaming_message(request("m", "x"))
        .await
        .unwrap()
        .into_inner();
    agent.release(1);
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(
        first.payload,
        Some(a2a::stream_response::Payload::Task(_))
    ));
    wait_for("the second event to be held", SOON, async || agent.held() == 1).await;
    agent.release_all();
    let rest: Vec<_> = events.map(Result::unwrap).collect().await;
    assert!(matches!(
        rest.last().unwrap().payload,
        Some(a2a::stream_response::Payload::StatusUpdate(_))
    ));
}

#[tokio::test]
async fn a_caller_who_gives_up_is_held_no_more() {
    let agent = FakeAgent::start("slow").await;
    agent.hold();
    let mut client = A2aServiceClient::connect(agent.endpoint()).await.unwrap();
    let call = tokio::task::JoinSet::from_iter([async move { client.send_message(request("m", "x")).await }]);
    wait_for("the call to be held", SOON, async || agent.held() == 1).await;
    drop(call);
    wait_for("the call to be given up", SOON, async || agent.held() == 0).await;
}

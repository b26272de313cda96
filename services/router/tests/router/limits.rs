//! Queues, deadlines and priorities under load.

use std::sync::Arc;

use muster_api::error::Reason;
use muster_testkit::{FakeAgent, http, wait_for};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::Status;

use crate::harness::{Answered, PATIENCE, Stack, error_in, message, number, reason_of, routed, text};

type Sending = JoinSet<Result<Answered, Status>>;

/// One place, a queue of `queue`, and an agent that answers nothing until released.
async fn busy(queue: usize) -> (Arc<Stack>, FakeAgent, Sending) {
    let stack = Stack::with(|router| {
        router.max_messages_in_flight = 1;
        router.message_queue_size = queue;
    })
    .await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.hold();
    let stack = Arc::new(stack);
    let mut sending = JoinSet::new();
    send(&stack, &mut sending, message("weather", "first"));
    wait_for("the first message to be with the agent", PATIENCE, async || {
        agent.held() == 1
    })
    .await;
    (stack, agent, sending)
}

fn send(stack: &Arc<Stack>, sending: &mut Sending, request: muster_api::a2a::SendMessageRequest) {
    let stack = Arc::clone(stack);
    sending.spawn(async move { stack.send(request).await });
}

async fn queued(stack: &Stack, count: u64) {
    wait_for("the queue to fill", PATIENCE, async || {
        stack.status().await.queue_depth == count
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_try_again() {
    let (stack, agent, mut sending) = busy(1).await;
    send(&stack, &mut sending, message("weather", "second"));
    queued(&stack, 1).await;
    let error = error_in(&stack.send(message("weather", "third")).await.unwrap_err());
    assert_eq!(error.reason, Reason::QueueFull);
    assert!(error.retry_after.is_some());
    let status = stack.status().await;
    assert_eq!((status.in_flight, status.queue_capacity), (1, 1));
    agent.release_all();
    while let Some(outcome) = sending.join_next().await {
        outcome.unwrap().unwrap();
    }
}

#[tokio::test]
async fn urgent_messages_overtake_and_displace() {
    let (stack, agent, mut sending) = busy(2).await;
    send(&stack, &mut sending, message("weather", "normal"));
    queued(&stack, 1).await;
    send(
        &stack,
        &mut sending,
        routed(message("weather", "low"), [("priority", text("low"))]),
    );
    queued(&stack, 2).await;
    send(
        &stack,
        &mut sending,
        routed(message("weather", "urgent"), [("priority", text("urgent"))]),
    );
    let displaced = sending.join_next().await.unwrap().unwrap();
    assert_eq!(reason_of(displaced), Reason::QueueFull);
    agent.release_all();
    while let Some(outcome) = sending.join_next().await {
        outcome.unwrap().unwrap();
    }
    let order: Vec<String> = agent.calls().into_iter().map(|call| call.text).collect();
    assert_eq!(order, ["first", "urgent", "normal"]);
}

#[tokio::test]
async fn tasks_can_be_read_while_messages_queue() {
    let (stack, agent, mut sending) = busy(5).await;
    let request = muster_api::a2a::GetTaskRequest {
        tenant: "weather".to_owned(),
        id: "elsewhere".to_owned(),
        ..Default::default()
    };
    let status = stack.client().get_task(request).await.unwrap_err();
    assert_eq!(status.message(), "weather has no task elsewhere");
    agent.release_all();
    sending.join_next().await.unwrap().unwrap().unwrap();
}

/// Over HTTP, because tonic's client ends a call with a timeout by itself.
async fn within_100_milliseconds(stack: &Stack) -> String {
    let message = json!({"messageId": uuid(), "role": "ROLE_USER", "parts": [{"text": "x"}]});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}});
    let headers = [("grpc-timeout", "100m"), ("a2a-version", "1.0")];
    let path = "/weather";
    let answer = http::send(
        stack.router.address,
        http::Method::POST,
        path,
        &headers,
        body.to_string().into(),
    )
    .await;
    let answer = answer.expect("an answer").json();
    let details = answer["error"]["data"].as_array().expect("details");
    details
        .iter()
        .find_map(|detail| detail["reason"].as_str())
        .expect("a reason")
        .to_owned()
}

fn uuid() -> String {
    message("", "").message.expect("a message").message_id
}

#[tokio::test]
async fn a_deadline_holds_at_the_agent_and_in_the_queue() {
    let (stack, agent, mut sending) = busy(5).await;
    assert_eq!(within_100_milliseconds(&stack).await, "DEADLINE_EXCEEDED");
    assert_eq!(agent.calls().len(), 1, "it never left the queue");
    agent.release_all();
    sending.join_next().await.unwrap().unwrap().unwrap();

    agent.hold();
    assert_eq!(within_100_milliseconds(&stack).await, "DEADLINE_EXCEEDED");
    wait_for("the agent to be told", PATIENCE, async || agent.held() == 0).await;
    assert_eq!(stack.status().await.in_flight, 0);
}

#[tokio::test]
async fn a_message_expires_in_the_queue() {
    let (stack, agent, mut sending) = busy(5).await;
    let short_lived = routed(message("weather", "x"), [("ttl", number(0.05))]);
    assert_eq!(reason_of(stack.send(short_lived).await), Reason::MessageExpired);
    agent.release_all();
    sending.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(agent.calls().len(), 1);
}

//! The same message is answered once.

use std::sync::Arc;

use muster_api::error::Reason;
use muster_testkit::{Answer, wait_for};
use tokio::task::JoinSet;
use tonic::Status;

use crate::harness::{PATIENCE, Stack, message, reason_of};

#[tokio::test]
async fn a_repeated_message_gets_the_same_answer_without_the_agent() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let request = message("weather", "x");
    let first = stack.send(request.clone()).await.unwrap();
    let again = stack.send(request.clone()).await.unwrap();
    assert_eq!((first.instance, first.answer), (again.instance, again.answer));
    assert_eq!(agent.calls().len(), 1);

    let mut other = request;
    other.message.as_mut().unwrap().context_id = "another".to_owned();
    assert_eq!(reason_of(stack.send(other).await), Reason::MessageIdReused);
}

#[tokio::test]
async fn the_same_message_twice_at_once_reaches_the_agent_once() {
    let stack = Arc::new(Stack::start().await);
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.hold();
    let request = message("weather", "x");
    let mut sending = JoinSet::new();
    for _ in 0..5 {
        let (stack, request) = (Arc::clone(&stack), request.clone());
        sending.spawn(async move { stack.send(request).await.unwrap().task().id });
    }
    wait_for("the message to be with the agent", PATIENCE, async || {
        agent.held() == 1
    })
    .await;
    agent.release_all();
    let mut answers = sending.join_all().await;
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert_eq!(agent.calls().len(), 1);
}

#[tokio::test]
async fn after_a_failure_the_same_message_goes_again() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.script([Answer::Status(Status::internal("no"))]);
    let request = message("weather", "x");
    stack.send(request.clone()).await.unwrap_err();
    stack.send(request).await.unwrap();
    assert_eq!(agent.calls().len(), 2);
}

#[tokio::test]
async fn the_same_id_for_another_target_is_another_message() {
    let stack = Stack::start().await;
    let agents = [
        stack.agent("weather", &["a"]).await,
        stack.agent("planning", &["b"]).await,
    ];
    let mut request = message("weather", "x");
    stack.send(request.clone()).await.unwrap();
    request.tenant = "planning".to_owned();
    stack.send(request).await.unwrap();
    assert!(agents.iter().all(|agent| agent.calls().len() == 1));
}

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

/// The same message, with the entries of its maps as another library might write them.
fn other_order(request: &muster_api::a2a::SendMessageRequest) -> Vec<u8> {
    use prost::Message as _;
    let mut bare = request.clone();
    let metadata = bare.metadata.take().expect("there are metadata");
    let mut bytes = bare.encode_to_vec();
    let mut entries = Vec::new();
    for (key, value) in metadata.fields.into_iter().rev() {
        let one = prost_types::Struct {
            fields: [(key, value)].into(),
        };
        entries.extend(one.encode_to_vec());
    }
    prost::encoding::encode_key(4, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(entries.len() as u64, &mut bytes);
    bytes.extend(entries);
    bytes
}

#[test]
fn entries_of_maps_have_no_order() {
    let mut request = message("weather", "x");
    let value = |number| prost_types::Value {
        kind: Some(prost_types::value::Kind::NumberValue(number)),
    };
    request.metadata = Some(prost_types::Struct {
        fields: [("a".to_owned(), value(1.0)), ("b".to_owned(), value(2.0))].into(),
    });
    let other = other_order(&request);
    assert_ne!(other, prost::Message::encode_to_vec(&request));
    let fingerprint = |bytes: Vec<u8>| {
        muster_router::forward::fingerprint(&muster_router::peek::Sent::read(bytes.into()).unwrap())
    };
    let first = fingerprint(prost::Message::encode_to_vec(&request));
    assert_eq!(fingerprint(other), first);
    let metadata = request.metadata.as_mut().unwrap();
    metadata.fields.insert("a".to_owned(), value(3.0));
    assert_ne!(fingerprint(other_order(&request)), first);
}

#[tokio::test]
async fn a_caller_who_hangs_up_and_sends_again_gets_the_answer_of_the_first_time() {
    let stack = Stack::start().await;
    let agents = [
        stack.agent("weather", &["forecasting"]).await,
        stack.agent("weather", &["forecasting"]).await,
    ];
    for agent in &agents {
        agent.hold();
    }
    let request = message("weather", "x");
    let held = || agents.iter().map(muster_testkit::FakeAgent::held).sum::<usize>();
    {
        let mut leaving = std::pin::pin!(stack.send(request.clone()));
        tokio::select! {
            answer = &mut leaving => panic!("it is held: {answer:?}"),
            () = wait_for("the message to be with the agent", PATIENCE, async || held() == 1) => {}
        }
    }
    let again = async {
        let answer = stack.send(request.clone()).await.unwrap();
        answer.task().id
    };
    let release = async {
        wait_for("the caller to have left", PATIENCE, async || held() == 1).await;
        for agent in &agents {
            agent.release_all();
        }
    };
    let (first, ()) = tokio::join!(again, release);
    assert_eq!(stack.send(request).await.unwrap().task().id, first);
    assert_eq!(agents.iter().map(|agent| agent.calls().len()).sum::<usize>(), 1);
}

#[tokio::test]
async fn what_ran_out_of_time_goes_to_the_same_instance_again() {
    let stack = Stack::start().await;
    let mut agents = Vec::new();
    for _ in 0..8 {
        agents.push(stack.agent("weather", &["forecasting"]).await);
    }
    let held = |agents: &[muster_testkit::FakeAgent]| agents.iter().map(|agent| agent.held()).sum::<usize>();
    for round in 0..2 {
        for agent in &agents {
            agent.hold();
        }
        let request = message("weather", &format!("round {round}"));
        let mut hasty = tonic::Request::new(request.clone());
        hasty.set_timeout(std::time::Duration::from_secs(1));
        let mut client = stack.client();
        let (refused, ()) = tokio::join!(
            client.send_message(hasty),
            wait_for("the message to be with an agent", PATIENCE, async || {
                held(&agents) == 1
            })
        );
        refused.unwrap_err();
        wait_for("the call to the agent to have ended", PATIENCE, async || {
            held(&agents) == 0
        })
        .await;
        for agent in &agents {
            agent.release_all();
        }
        stack.send(request).await.unwrap();
        let calls: Vec<_> = agents.iter().map(|agent| agent.calls_by_message_id()).collect();
        let most = calls.iter().flat_map(std::collections::BTreeMap::values).max();
        assert_eq!(most, Some(&2), "both came to one instance: {calls:?}");
    }
}

//! The same message is answered once across routers and restarts, where its caller asks for that.

use std::sync::Arc;

use muster_api::a2a::{SendMessageRequest, StreamResponse, TaskState, stream_response};
use muster_api::error::Reason;
use muster_router::config::Router;
use muster_testkit::{Answer, RedisServer, wait_for};
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

use crate::harness::{PATIENCE, Stack, error_in, message, reason_of, routed, yes};

fn durable(target: &str) -> SendMessageRequest {
    routed(message(target, "x"), [("durable", yes())])
}

fn on(redis: &RedisServer) -> impl Fn(&mut Router) + use<> {
    let url = redis.url();
    move |router| {
        router.redis_cluster_endpoint = Some(url.clone());
        router.redis.answer_within_seconds = 1;
        router.redis.patience_seconds = 1;
    }
}

async fn events(mut stream: Streaming<StreamResponse>) -> Vec<stream_response::Payload> {
    let mut events = Vec::new();
    while let Some(event) = stream.message().await.expect("an event") {
        events.push(event.payload.expect("something"));
    }
    events
}

#[tokio::test]
async fn a_message_sent_through_two_routers_on_one_redis_is_executed_once() {
    let redis = RedisServer::start().await;
    let one = Arc::new(Stack::with(on(&redis)).await);
    let agent = one.agent("weather", &["forecasting"]).await;
    let other = Arc::new(one.beside(on(&redis)).await);
    agent.hold();
    let request = durable("weather");
    let mut sending = JoinSet::new();
    for number in 0..8 {
        let stack = Arc::clone(if number % 2 == 0 { &one } else { &other });
        let request = request.clone();
        sending.spawn(async move {
            let answer = stack.send(request).await.unwrap();
            (answer.instance.clone(), answer.task().id)
        });
    }
    wait_for("the message to be with the agent", PATIENCE, async || {
        agent.held() == 1
    })
    .await;
    agent.release_all();
    let mut answers = sending.join_all().await;
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(agent.calls().len(), 1);

    let mut another = request;
    another.message.as_mut().unwrap().context_id = "another".to_owned();
    for stack in [&one, &other] {
        let refused = stack.send(another.clone()).await;
        assert_eq!(reason_of(refused), Reason::MessageIdReused);
    }
}

#[tokio::test]
async fn a_caller_who_leaves_finds_the_answer_at_the_other_router() {
    let redis = RedisServer::start().await;
    let one = Arc::new(Stack::with(on(&redis)).await);
    let agent = one.agent("weather", &["forecasting"]).await;
    let other = one.beside(on(&redis)).await;
    agent.hold();
    let request = durable("weather");
    let mut leaving = JoinSet::new();
    let (stack, sent) = (Arc::clone(&one), request.clone());
    leaving.spawn(async move { stack.send(sent).await });
    wait_for("the message to be with the agent", PATIENCE, async || {
        agent.held() == 1
    })
    .await;
    leaving.shutdown().await;
    agent.release_all();
    let found = other.send(request).await.unwrap().task();
    assert_eq!(found.status.unwrap().state(), TaskState::Completed);
    assert_eq!(agent.calls().len(), 1);
}

#[tokio::test]
async fn a_restarted_router_gives_the_same_answer_from_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let kept = |router: &mut Router| router.data_directory = directory.path().to_owned();
    let stack = Stack::with(kept).await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let (request, plain) = (durable("weather"), message("weather", "x"));
    let first = stack.send(request.clone()).await.unwrap();
    stack.send(plain.clone()).await.unwrap();
    let stack = stack.again(kept).await;
    let again = stack.send(request).await.unwrap();
    assert_eq!((first.instance, first.answer), (again.instance, again.answer));
    assert_eq!(agent.calls().len(), 2);
    // Who does not ask for it is remembered by the process alone.
    stack.send(plain).await.unwrap();
    assert_eq!(agent.calls().len(), 3);
}

#[tokio::test]
async fn while_redis_is_away_what_relies_on_it_is_refused_and_the_rest_goes_on() {
    let mut redis = RedisServer::start().await;
    let stack = Stack::with(on(&redis)).await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    redis.kill().await;
    let request = durable("weather");
    let refused = stack.send(request.clone()).await.unwrap_err();
    let error = error_in(&refused);
    assert_eq!(error.reason, Reason::StoreUnavailable);
    assert!(error.retry_after.is_some(), "{error:?}");
    assert!(agent.calls().is_empty(), "what is refused was not sent");
    let streamed = stack.client().send_streaming_message(durable("weather")).await;
    assert_eq!(reason_of(streamed), Reason::StoreUnavailable);

    for answer in [Answer::Echo, Answer::Message("no task".to_owned())] {
        agent.script([answer]);
        stack.send(message("weather", "plain")).await.unwrap();
    }
    // A task that goes on needs an owner that others can find.
    agent.script([Answer::Task(TaskState::InputRequired, "which?".to_owned())]);
    let refused = stack.send(message("weather", "goes on")).await.unwrap_err();
    let error = error_in(&refused);
    assert_eq!(error.reason, Reason::StoreUnavailable);
    assert!(error.retry_after.is_some(), "{error:?}");

    redis.restart().await;
    wait_for("Redis to be used again", PATIENCE, async || {
        stack.send(request.clone()).await.map(|_| ())
    })
    .await;
    stack.send(request.clone()).await.unwrap();
    let sent = agent.calls_by_message_id();
    assert_eq!(sent[&request.message.unwrap().message_id], 1);
}

#[tokio::test]
async fn after_a_failure_a_durable_message_goes_again() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.script([Answer::Status(Status::internal("no"))]);
    let request = durable("weather");
    stack.send(request.clone()).await.unwrap_err();
    stack.send(request).await.unwrap();
    assert_eq!(agent.calls().len(), 2);
}

#[tokio::test]
async fn a_streamed_message_is_followed_by_its_task_when_it_comes_again() {
    let redis = RedisServer::start().await;
    let one = Stack::with(on(&redis)).await;
    let agent = one.agent("weather", &["forecasting"]).await;
    let other = one.beside(on(&redis)).await;

    // A task that works: the repeated message is not sent, and its task is followed.
    agent.fall_back_to(Answer::Task(TaskState::Working, "working".to_owned()));
    let request = durable("weather");
    let stream = one.client().send_streaming_message(request.clone()).await;
    let first = events(stream.unwrap().into_inner()).await;
    let stream_response::Payload::Task(task) = &first[0] else {
        panic!("{first:?}");
    };
    for stack in [&one, &other] {
        let stream = stack.client().send_streaming_message(request.clone()).await;
        let again = events(stream.unwrap().into_inner()).await;
        let [stream_response::Payload::Task(followed)] = again.as_slice() else {
            panic!("a fake agent shows the task as it is: {again:?}");
        };
        assert_eq!(followed.id, task.id);
        // Without streaming, the task as it is.
        let unary = stack.send(request.clone()).await.unwrap().task();
        assert_eq!(unary.id, task.id);
    }
    assert_eq!(agent.calls().len(), 1);

    // One that has ended is given in one event, and so is a message.
    for answer in [Answer::Echo, Answer::Message("no task".to_owned())] {
        agent.fall_back_to(answer);
        let request = durable("weather");
        let before = agent.calls().len();
        let stream = one.client().send_streaming_message(request.clone()).await;
        events(stream.unwrap().into_inner()).await;
        let stream = other.client().send_streaming_message(request).await;
        assert_eq!(events(stream.unwrap().into_inner()).await.len(), 1);
        assert_eq!(agent.calls().len(), before + 1);
    }

    // What was answered without streaming is given as an event.
    let request = durable("weather");
    let answer = one.send(request.clone()).await.unwrap().answer;
    let stream = other.client().send_streaming_message(request).await;
    let again = events(stream.unwrap().into_inner()).await;
    let Some(muster_api::a2a::send_message_response::Payload::Message(said)) = answer.payload else {
        panic!("the fallback is a message");
    };
    assert_eq!(again, [stream_response::Payload::Message(said)]);
}

#[tokio::test]
async fn a_stream_that_its_caller_left_before_the_first_event_is_found() {
    let stack = Arc::new(Stack::start().await);
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.hold();
    let request = durable("weather");
    let mut leaving = JoinSet::new();
    let (left, sent) = (Arc::clone(&stack), request.clone());
    leaving.spawn(async move { left.client().send_streaming_message(sent).await.map(|_| ()) });
    wait_for("the message to be with the agent", PATIENCE, async || {
        agent.held() == 1
    })
    .await;
    leaving.shutdown().await;
    agent.release_all();
    let stream = stack.client().send_streaming_message(request).await;
    assert_eq!(events(stream.unwrap().into_inner()).await.len(), 1);
    assert_eq!(agent.calls().len(), 1);
}

#[tokio::test]
async fn of_an_answer_that_is_too_large_the_task_is_found_and_a_message_is_not() {
    let redis = RedisServer::start().await;
    let small = |router: &mut Router| {
        on(&redis)(router);
        router.deduplication_durable_answer_bytes = 10;
    };
    let one = Stack::with(small).await;
    let agent = one.agent("weather", &["forecasting"]).await;
    let other = one.beside(small).await;
    let request = durable("weather");
    let task = one.send(request.clone()).await.unwrap().task();
    assert_eq!(other.send(request).await.unwrap().task(), task);

    agent.fall_back_to(Answer::Message("rather long".to_owned()));
    let request = durable("weather");
    one.send(request.clone()).await.unwrap();
    assert_eq!(reason_of(other.send(request).await), Reason::AnswerNotKept);
    assert_eq!(agent.calls().len(), 2);
}

#[tokio::test]
async fn when_no_more_can_be_remembered_durable_messages_are_refused() {
    let stack = Stack::with(|router| router.deduplication_durable_entries = 1).await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    stack.send(durable("weather")).await.unwrap();
    let refused = stack.send(durable("weather")).await.unwrap_err();
    let error = error_in(&refused);
    assert_eq!(error.reason, Reason::AnswersFull);
    assert!(error.retry_after.is_some());
    stack.send(message("weather", "plain")).await.unwrap();
}

//! Streams pass event by event, and end on both sides together.

use muster_a2a::ProtocolError;
use muster_api::a2a::stream_response::Payload;
use muster_api::a2a::{
    Artifact, Part, StreamResponse, SubscribeToTaskRequest, TaskArtifactUpdateEvent, part,
};
use muster_api::error::Reason;
use muster_api::extension::MAX_CONCURRENCY;
use muster_api::registry::Instance;
use muster_testkit::{Answer, FakeAgent, http, wait_for};
use tokio::task::JoinSet;
use tonic::{Code, Status, Streaming};

use crate::flow::with;
use crate::harness::{PATIENCE, Stack, error_in, message, number};

async fn open(stack: &Stack, text: &str) -> Streaming<StreamResponse> {
    let response = stack
        .client()
        .send_streaming_message(message("weather", text))
        .await
        .expect("it begins");
    assert!(response.metadata().contains_key("muster-instance"));
    response.into_inner()
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.hold();
    let mut events = open(&stack, "Seattle").await;
    let mut kinds = Vec::new();
    for _ in 0..3 {
        agent.release(1);
        kinds.push(match events.message().await.unwrap().unwrap().payload.unwrap() {
            Payload::Task(_) => "task",
            Payload::ArtifactUpdate(_) => "artifact",
            Payload::StatusUpdate(_) => "status",
            Payload::Message(_) => "message",
        });
    }
    assert_eq!(kinds, ["task", "artifact", "status"]);
    assert!(events.message().await.unwrap().is_none());
    wait_for("the place to be free", PATIENCE, async || {
        stack.status().await.in_flight == 0
    })
    .await;
    assert_eq!(stack.statistics(&agent.endpoint()).await.succeeded_total, 1);
}

/// The agent's instance, whose card says this of streams.
fn saying(agent: &FakeAgent, streaming: Option<bool>) -> Instance {
    let mut instance = agent.instance(&["forecasting"]);
    let card = instance.card.as_mut().expect("an instance has a card");
    card.capabilities
        .as_mut()
        .expect("a card has capabilities")
        .streaming = streaming;
    instance
}

#[tokio::test]
async fn who_does_not_stream_is_asked_for_no_stream() {
    let stack = Stack::start().await;
    let mut mutes = Vec::new();
    for (id, streaming) in [("silent", None), ("mute", Some(false))] {
        let agent = FakeAgent::start(id).await;
        stack.register(saying(&agent, streaming)).await;
        mutes.push(agent);
    }
    let unsupported = |status: &Status| {
        let error = ProtocolError::of(status);
        assert_eq!(error, Some(ProtocolError::UnsupportedOperation), "{status:?}");
    };
    let mut client = stack.client();
    for target in ["silent", "mute", "skill:forecasting"] {
        let refused = client.send_streaming_message(message(target, "Seattle")).await;
        unsupported(&refused.expect_err("refused"));
    }
    // Also for a task that the agent has.
    let task = stack.send(message("mute", "Seattle")).await.unwrap().task();
    let subscription = SubscribeToTaskRequest {
        id: task.id,
        ..SubscribeToTaskRequest::default()
    };
    let refused = client.subscribe_to_task(subscription).await;
    unsupported(&refused.expect_err("refused"));
    let streamed = |agent: &FakeAgent| agent.calls().iter().any(|call| call.streaming);
    assert!(!mutes.iter().any(streamed), "no agent was asked");

    // Of several agents of a skill, the one that streams gets all streams.
    let fluent = FakeAgent::start("fluent").await;
    stack.register(saying(&fluent, Some(true))).await;
    for number in 0..8 {
        let text = number.to_string();
        let events = client
            .send_streaming_message(message("skill:forecasting", &text))
            .await;
        events
            .expect("it streams")
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
    }
    assert!(!mutes.iter().any(streamed));
    assert_eq!(fluent.calls().len(), 8);
}

#[tokio::test]
async fn a_stream_that_waits_is_not_given_to_who_does_not_stream() {
    let stack = Stack::start().await;
    let one_place = |agent: &FakeAgent, streaming| {
        let mut instance = with(agent, MAX_CONCURRENCY, number(1.0));
        let card = instance.card.as_mut().expect("an instance has a card");
        let capabilities = card.capabilities.as_mut();
        capabilities.expect("a card has capabilities").streaming = streaming;
        instance
    };
    let (mute, fluent) = (FakeAgent::start("mute").await, FakeAgent::start("fluent").await);
    for (agent, streaming) in [(&mute, None), (&fluent, Some(true))] {
        stack.register(one_place(agent, streaming)).await;
        agent.hold();
    }
    let mut sending = JoinSet::new();
    for agent in [&mute, &fluent] {
        let (client, target) = (stack.client(), agent.id().to_owned());
        sending.spawn(async move {
            client
                .clone()
                .send_message(message(&target, "x"))
                .await
                .map(|_| ())
        });
    }
    wait_for("both to be full", PATIENCE, async || {
        mute.held() == 1 && fluent.held() == 1
    })
    .await;
    let client = stack.client();
    let mut streaming = JoinSet::new();
    streaming.spawn(async move {
        let begun = client
            .clone()
            .send_streaming_message(message("skill:forecasting", "Seattle"))
            .await;
        begun?.into_inner().message().await
    });
    wait_for("the stream to wait", PATIENCE, async || {
        stack.status().await.queue_depth == 1
    })
    .await;
    mute.release_all();
    sending.join_next().await.unwrap().unwrap().unwrap();
    // Whoever does not stream has a place now, and takes what comes without a stream.
    stack.send(message("skill:forecasting", "y")).await.unwrap();
    assert_eq!(stack.status().await.queue_depth, 1, "the stream waits on");
    fluent.release_all();
    let first = streaming.join_next().await.unwrap().unwrap();
    first.expect("it streams").expect("an event");
    assert!(!mute.calls().iter().any(|call| call.streaming));
}

#[tokio::test]
async fn a_caller_who_leaves_cancels_the_call_to_the_agent() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.hold();
    let mut events = open(&stack, "Seattle").await;
    agent.release(1);
    events.message().await.unwrap().unwrap();
    wait_for("the second event to be held", PATIENCE, async || {
        agent.held() == 1
    })
    .await;
    drop(events);
    wait_for("the agent to hear of it", PATIENCE, async || agent.held() == 0).await;
    wait_for("the place to be free", PATIENCE, async || {
        stack.status().await.in_flight == 0
    })
    .await;
    assert_eq!(
        stack.statistics(&agent.endpoint()).await.failed_total,
        0,
        "it is not the agent's fault"
    );
}

#[tokio::test]
async fn a_stream_that_has_begun_is_not_retried() {
    let stack = Stack::start().await;
    let (one, other) = (
        stack.agent("weather", &["forecasting"]).await,
        stack.agent("weather", &["forecasting"]).await,
    );
    let begun = || {
        let task = Payload::Task(muster_api::a2a::Task {
            id: "t".to_owned(),
            ..Default::default()
        });
        Answer::Events(vec![
            Ok(StreamResponse { payload: Some(task) }),
            Err(Status::unavailable("broke down")),
        ])
    };
    one.script([begun()]);
    other.script([begun()]);
    let mut events = open(&stack, "x").await;
    events.message().await.unwrap().unwrap();
    let error = events.message().await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "broke down"));
    assert_eq!(one.calls().len() + other.calls().len(), 1);
}

#[tokio::test]
async fn a_silent_stream_ends_with_a_reason() {
    let stack = Stack::with(|router| router.stream_idle_seconds = 1).await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.hold();
    let mut events = open(&stack, "x").await;
    let error = error_in(&events.message().await.unwrap_err());
    assert_eq!(error.reason, Reason::DeadlineExceeded);
    wait_for("the agent to hear of it", PATIENCE, async || agent.held() == 0).await;
}

#[tokio::test]
async fn a_caller_who_stops_reading_does_not_keep_its_place() {
    let stack = Stack::with(|router| router.stream_stall_seconds = 1).await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    // Far more than the windows and buffers on the way hold.
    let large = || {
        let artifact = Artifact {
            artifact_id: "a".to_owned(),
            parts: vec![Part {
                content: Some(part::Content::Raw(vec![7; 256 << 10])),
                ..Part::default()
            }],
            ..Artifact::default()
        };
        Ok(StreamResponse {
            payload: Some(Payload::ArtifactUpdate(TaskArtifactUpdateEvent {
                task_id: "t".to_owned(),
                artifact: Some(artifact),
                ..TaskArtifactUpdateEvent::default()
            })),
        })
    };
    agent.script([Answer::Events((0..64).map(|_| large()).collect())]);
    let mut events = open(&stack, "x").await;
    wait_for("the stream to begin", PATIENCE, async || {
        stack.status().await.in_flight == 1
    })
    .await;
    wait_for("the place to be free", PATIENCE, async || {
        stack.status().await.in_flight == 0
    })
    .await;
    let row = stack.statistics(&agent.endpoint()).await;
    assert_eq!(row.failed_total, 0, "it is not the agent's fault");
    let error = loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some(), "it did not end well"),
            Err(status) => break error_in(&status),
        }
    };
    assert_eq!(error.reason, Reason::StreamStalled);
    let page = http::get(stack.router.metrics, "/metrics").await.unwrap().text();
    assert!(page.contains("router_stalled_streams_total 1"), "{page}");
}

#[tokio::test]
async fn a_task_can_be_followed_at_its_owner() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let task = stack.send(message("weather", "x")).await.unwrap().task();
    let request = SubscribeToTaskRequest {
        id: task.id.clone(),
        ..SubscribeToTaskRequest::default()
    };
    let mut events = stack
        .client()
        .subscribe_to_task(request)
        .await
        .unwrap()
        .into_inner();
    let first = events.message().await.unwrap().unwrap();
    assert!(matches!(first.payload, Some(Payload::Task(snapshot)) if snapshot.id == task.id));
}

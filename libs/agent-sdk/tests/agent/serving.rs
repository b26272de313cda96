//! What a client sees over gRPC.

use a2a_pb::proto as pb;
use a2a_pb::proto::TaskState;
use a2a_pb::proto::stream_response::Payload;
use muster_api::error::{Error, Reason};
use muster_testkit::wait_for;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};

use crate::stage::{PATIENCE, Stage, said, say, say_and_go, state, task, text_part, texts};

#[tokio::test]
async fn an_answer_has_its_result_first_and_its_summary_twice() {
    let stage = Stage::open(|_| {}).await;
    let task = task(stage.client().send_message(say("artifacts")).await.unwrap());
    assert_eq!(state(&task), TaskState::Completed);
    assert_eq!(said(&task), "drawn");
    let names: Vec<&str> = task
        .artifacts
        .iter()
        .map(|artifact| artifact.name.as_str())
        .collect();
    assert_eq!(names, ["result", "log", "chart.svg"]);
    let [data, summary] = task.artifacts[0].parts.as_slice() else {
        panic!("the result has two parts");
    };
    assert!(matches!(data.content, Some(pb::part::Content::Data(_))));
    assert_eq!(summary.content, text_part("drawn").content);
    assert_eq!(task.artifacts[2].parts[0].media_type, "image/svg+xml");
    stage.close().await;
}

#[tokio::test]
async fn the_routers_skill_reaches_the_handler_and_an_unknown_one_is_rejected() {
    let stage = Stage::open(|_| {}).await;
    let mut request = Request::new(say("hello"));
    request
        .metadata_mut()
        .insert("muster-skill", "order".parse().unwrap());
    let done = task(stage.client().send_message(request).await.unwrap());
    let data = format!("{:?}", done.artifacts[0].parts[0]);
    assert!(data.contains("order"), "{data}");

    let mut request = Request::new(say("hello"));
    request
        .metadata_mut()
        .insert("muster-skill", "akt".parse().unwrap());
    let refused = task(stage.client().send_message(request).await.unwrap());
    assert_eq!(state(&refused), TaskState::Rejected);
    assert!(
        said(&refused).contains("did you mean 'act'"),
        "{}",
        said(&refused)
    );
    stage.close().await;
}

#[tokio::test]
async fn a_stream_begins_with_the_task_and_ends_with_its_last_state() {
    let stage = Stage::open(|_| {}).await;
    let stream = stage
        .client()
        .send_streaming_message(say("artifacts"))
        .await
        .unwrap();
    let events: Vec<Payload> = stream
        .into_inner()
        .map(|event| event.unwrap().payload.unwrap())
        .collect()
        .await;
    let shapes: Vec<String> = events.iter().map(shape).collect();
    assert_eq!(
        shapes,
        [
            "task Submitted",
            "status Working",
            "artifact log",
            "artifact result",
            "artifact chart.svg",
            "status Completed"
        ]
    );
    stage.close().await;
}

#[tokio::test]
async fn an_artifact_that_comes_in_pieces_is_one_in_the_task() {
    let stage = Stage::open(|_| {}).await;
    let stream = stage
        .client()
        .send_streaming_message(say("pieces"))
        .await
        .unwrap();
    let events: Vec<_> = stream.into_inner().map(Result::unwrap).collect().await;
    let Some(Payload::Task(begun)) = events[0].payload.clone() else {
        panic!("a stream begins with the task")
    };
    let pieces: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event.payload {
            Some(Payload::ArtifactUpdate(update)) => Some(update),
            _ => None,
        })
        .collect();
    let ids: Vec<String> = pieces
        .iter()
        .map(|piece| piece.artifact.as_ref().unwrap().artifact_id.clone())
        .collect();
    let flags: Vec<_> = pieces
        .iter()
        .map(|piece| (piece.append, piece.last_chunk))
        .collect();
    assert_eq!(
        flags,
        [(false, false), (true, false), (true, true), (false, true)],
        "three pieces and the result"
    );
    assert!(
        ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3],
        "{ids:?}"
    );
    let get = pb::GetTaskRequest {
        id: begun.id,
        ..Default::default()
    };
    let done = stage.client().get_task(get).await.unwrap().into_inner();
    let parts: Vec<_> = done.artifacts[1].parts.iter().map(|part| &part.content).collect();
    let wanted = ["one", "two", "three"].map(|text| text_part(text).content);
    assert_eq!(parts, wanted.iter().collect::<Vec<_>>());
    stage.close().await;
}

#[tokio::test]
async fn however_many_updates_a_caller_gets_the_end() {
    let stage = Stage::open(|_| {}).await;
    let waiting = task(stage.client().send_message(say("many")).await.unwrap());
    assert_eq!(state(&waiting), TaskState::Completed);
    let mut stream = stage
        .client()
        .send_streaming_message(say("many"))
        .await
        .unwrap()
        .into_inner();
    let mut last = None;
    while let Some(event) = stream.next().await {
        last = event.unwrap().payload;
    }
    let last = match last.unwrap() {
        Payload::StatusUpdate(update) => update.status.unwrap().state(),
        Payload::Task(task) => state(&task),
        other => panic!("{other:?}"),
    };
    assert_eq!(last, TaskState::Completed);
    stage.close().await;
}

#[tokio::test]
async fn a_task_is_cancelled_while_it_runs_and_its_slot_comes_free() {
    let stage = Stage::open(|config| config.agent.max_concurrent_tasks = 1).await;
    let mut client = stage.client();
    let running = task(client.send_message(say_and_go("wait")).await.unwrap());
    assert!(matches!(
        state(&running),
        TaskState::Submitted | TaskState::Working
    ));
    let cancel = pb::CancelTaskRequest {
        id: running.id.clone(),
        ..Default::default()
    };
    let cancelled = client.cancel_task(cancel.clone()).await.unwrap().into_inner();
    assert_eq!(state(&cancelled), TaskState::Canceled);
    let again = client.cancel_task(cancel).await.unwrap().into_inner();
    assert_eq!(state(&again), TaskState::Canceled);
    wait_for("the slot to come free", PATIENCE, async || {
        let answer = stage.client().send_message(say("hello")).await;
        answer.map(|answer| assert_eq!(state(&task(answer)), TaskState::Completed))
    })
    .await;
    stage.close().await;
}

#[tokio::test]
async fn who_waits_for_a_cancelled_task_sees_it_cancelled() {
    let stage = Stage::open(|_| {}).await;
    let mut stream = stage
        .client()
        .send_streaming_message(say("wait"))
        .await
        .unwrap()
        .into_inner();
    let Some(Payload::Task(running)) = stream.next().await.unwrap().unwrap().payload else {
        panic!("the first event is the task");
    };
    let cancel = pb::CancelTaskRequest {
        id: running.id,
        ..Default::default()
    };
    stage.client().cancel_task(cancel).await.unwrap();
    let mut last = None;
    while let Some(event) = stream.next().await {
        last = event.unwrap().payload;
    }
    let last = match last.unwrap() {
        Payload::StatusUpdate(update) => update.status.unwrap().state(),
        Payload::Task(task) => state(&task),
        other => panic!("{other:?}"),
    };
    assert_eq!(last, TaskState::Canceled);
    stage.close().await;
}

#[tokio::test]
async fn a_question_is_answered_on_the_same_task_with_its_history() {
    let stage = Stage::open(|_| {}).await;
    let mut client = stage.client();
    let asking = task(client.send_message(say("ask")).await.unwrap());
    assert_eq!(state(&asking), TaskState::InputRequired);
    assert_eq!(said(&asking), "which city?");
    assert!(asking.artifacts.is_empty());

    let mut answer = say("Seattle");
    answer.message.as_mut().unwrap().task_id.clone_from(&asking.id);
    let done = task(client.send_message(answer).await.unwrap());
    assert_eq!(
        (done.id.as_str(), state(&done)),
        (asking.id.as_str(), TaskState::Completed)
    );
    let history: Vec<String> = done.history.iter().map(texts).collect();
    assert_eq!(history, ["ask", "which city?", "Seattle"]);

    let mut more = say("Boston");
    more.message.as_mut().unwrap().task_id.clone_from(&asking.id);
    let status = client.send_message(more).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    stage.close().await;
}

#[tokio::test]
async fn a_conversation_that_never_ends_is_bounded() {
    let stage = Stage::open(|config| config.server.max_message_bytes = 4 << 10).await;
    let mut client = stage.client();
    let asking = task(client.send_message(say("ask")).await.unwrap());
    let answer = || {
        let mut answer = say(&format!("again {}", "x".repeat(3 << 10)));
        answer.message.as_mut().unwrap().task_id.clone_from(&asking.id);
        answer
    };
    let mut taken = 0;
    let refused = loop {
        match client.send_message(answer()).await {
            Ok(answered) => assert_eq!(state(&task(answered)), TaskState::InputRequired),
            Err(status) => break status,
        }
        taken += 1;
        assert!(taken < 10, "it takes more and more");
    };
    assert_eq!(taken, 3);
    let refused = Error::from_status(&refused).unwrap();
    assert_eq!(refused.reason, Reason::MessageTooLarge, "{refused}");
    assert!(refused.message.contains(&asking.id), "{refused}");

    // It is as it was: it takes less, is read, and is cancelled.
    let mut less = say("again");
    less.message.as_mut().unwrap().task_id.clone_from(&asking.id);
    client.send_message(less).await.unwrap();
    let read = pb::GetTaskRequest {
        id: asking.id.clone(),
        ..Default::default()
    };
    let read = client.get_task(read).await.unwrap().into_inner();
    assert_eq!(state(&read), TaskState::InputRequired);
    let cancel = pb::CancelTaskRequest {
        id: asking.id.clone(),
        ..Default::default()
    };
    let cancelled = client.cancel_task(cancel).await.unwrap().into_inner();
    assert_eq!(state(&cancelled), TaskState::Canceled);
    stage.close().await;
}

#[tokio::test]
async fn what_goes_wrong_in_a_handler_settles_the_task() {
    let stage = Stage::open(|config| config.agent.task_timeout_seconds = 1).await;
    let expected = [
        ("panic", TaskState::Failed, "failed unexpectedly"),
        ("fail", TaskState::Failed, "the instrument broke"),
        ("reject", TaskState::Rejected, "days: at most 366"),
        ("huge", TaskState::Failed, "larger than"),
        ("ignore", TaskState::Failed, "longer than 1 s"),
    ];
    for (command, end, words) in expected {
        let task = task(stage.client().send_message(say(command)).await.unwrap());
        assert_eq!(state(&task), end, "{command}");
        assert!(said(&task).contains(words), "{command}: {}", said(&task));
        assert!(!said(&task).contains("secret"), "a panic's text stays inside");
    }
    stage.close().await;
}

#[tokio::test]
async fn overload_is_refused_with_a_delay_and_before_a_task_exists() {
    let stage = Stage::open(|config| config.agent.max_concurrent_tasks = 2).await;
    let mut client = stage.client();
    for _ in 0..2 {
        client.send_message(say_and_go("wait")).await.unwrap();
    }
    let status = client.send_message(say("hello")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let error = Error::from_status(&status).expect("one of ours");
    assert_eq!(error.reason, Reason::AgentBusy);
    assert!(error.retry_after.is_some());
    let status = client.send_streaming_message(say("hello")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);

    let listed = client
        .list_tasks(pb::ListTasksRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.total_size, 2);
    let metrics = muster_testkit::http::get(stage.metrics, "/metrics")
        .await
        .unwrap()
        .text();
    assert!(
        metrics.contains("agent_messages_refused_total{reason=\"AGENT_BUSY\"} 2"),
        "{metrics}"
    );
    assert!(metrics.contains("agent_tasks_running 2"), "{metrics}");
    stage.close().await;
}

#[tokio::test]
async fn messages_out_of_bounds_are_refused_by_their_field() {
    let stage = Stage::open(|config| config.server.max_message_bytes = 10_000).await;
    let mut client = stage.client();
    let status = client.send_message(say(&"x".repeat(12_000))).await.unwrap_err();
    assert_eq!(
        Error::from_status(&status).unwrap().reason,
        Reason::MessageTooLarge
    );

    let mut empty = say("x");
    empty.message.as_mut().unwrap().parts.clear();
    let status = client.send_message(empty).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("message.parts"), "{status}");

    let mut nameless = say("x");
    nameless.message.as_mut().unwrap().message_id.clear();
    let status = client.send_message(nameless).await.unwrap_err();
    assert!(status.message().contains("message.message_id"), "{status}");

    let mut lost = say("x");
    lost.message.as_mut().unwrap().task_id = "nobody-knows-it".to_owned();
    assert_eq!(
        client.send_message(lost).await.unwrap_err().code(),
        Code::NotFound
    );

    let mut old = Request::new(say("x"));
    old.metadata_mut().insert("a2a-version", "0.3".parse().unwrap());
    let status = client.send_message(old).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    stage.close().await;
}

#[tokio::test]
async fn tasks_are_read_and_listed_newest_first() {
    let stage = Stage::open(|_| {}).await;
    let mut client = stage.client();
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        ids.push(task(client.send_message(say(text)).await.unwrap()).id);
    }
    ids.reverse();
    let listed = client
        .list_tasks(pb::ListTasksRequest::default())
        .await
        .unwrap()
        .into_inner();
    let order: Vec<String> = listed.tasks.iter().map(|task| task.id.clone()).collect();
    assert_eq!(order, ids);
    assert!(listed.tasks.iter().all(|task| task.artifacts.is_empty()));
    let get = pb::GetTaskRequest {
        id: ids[0].clone(),
        ..Default::default()
    };
    let got = client.get_task(get).await.unwrap().into_inner();
    assert_eq!(got.artifacts[0].name, "result");
    stage.close().await;
}

#[tokio::test]
async fn a_late_subscriber_sees_the_task_and_then_its_end() {
    let stage = Stage::open(|_| {}).await;
    let mut client = stage.client();
    let running = task(client.send_message(say_and_go("wait")).await.unwrap());
    let subscribe = pb::SubscribeToTaskRequest {
        id: running.id.clone(),
        ..Default::default()
    };
    let mut stream = client
        .subscribe_to_task(subscribe.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(matches!(
        stream.next().await.unwrap().unwrap().payload,
        Some(Payload::Task(_))
    ));
    let cancel = pb::CancelTaskRequest {
        id: running.id,
        ..Default::default()
    };
    client.cancel_task(cancel).await.unwrap();
    let rest: Vec<_> = stream.collect().await;
    assert!(rest.iter().all(Result::is_ok) && !rest.is_empty(), "{rest:?}");
    let status = client.subscribe_to_task(subscribe).await.unwrap_err();
    assert_eq!(
        status.code(),
        Code::FailedPrecondition,
        "a task that has ended has no stream"
    );

    stage.close().await;
}

#[tokio::test]
async fn who_follows_a_question_sees_how_it_goes_on() {
    let stage = Stage::open(|_| {}).await;
    let mut client = stage.client();
    let asking = task(client.send_message(say("ask")).await.unwrap());
    let subscribe = pb::SubscribeToTaskRequest {
        id: asking.id.clone(),
        ..Default::default()
    };
    let mut stream = client.subscribe_to_task(subscribe).await.unwrap().into_inner();
    let Some(Payload::Task(snapshot)) = stream.next().await.unwrap().unwrap().payload else {
        panic!("the first event is the task");
    };
    assert_eq!(state(&snapshot), TaskState::InputRequired);
    let mut answer = say("Seattle");
    answer.message.as_mut().unwrap().task_id = asking.id;
    client.send_message(answer).await.unwrap();
    let rest: Vec<Payload> = stream
        .map(|event| event.unwrap().payload.unwrap())
        .collect()
        .await;
    let shapes: Vec<String> = rest.iter().map(shape).collect();
    assert_eq!(shapes, ["status Working", "artifact result", "status Completed"]);
    stage.close().await;
}

#[tokio::test]
async fn every_follower_sees_the_same_events_in_the_same_order() {
    let stage = Stage::open(|_| {}).await;
    let mut client = stage.client();
    let running = task(client.send_message(say_and_go("wait")).await.unwrap());
    let subscribe = pb::SubscribeToTaskRequest {
        id: running.id.clone(),
        ..Default::default()
    };
    let mut streams = Vec::new();
    for _ in 0..3 {
        let stream = client.subscribe_to_task(subscribe.clone()).await.unwrap();
        streams.push(stream.into_inner());
    }
    // One leaves; the others go on.
    drop(streams.pop());
    let cancel = pb::CancelTaskRequest {
        id: running.id,
        ..Default::default()
    };
    client.cancel_task(cancel).await.unwrap();
    let mut seen = Vec::new();
    for stream in streams {
        let events: Vec<Payload> = stream
            .map(|event| event.unwrap().payload.unwrap())
            .collect()
            .await;
        // The snapshots may differ by what happened in between.
        seen.push(events.last().map(shape));
    }
    assert_eq!(seen, vec![Some("status Canceled".to_owned()); 2]);
    stage.close().await;
}

fn shape(event: &Payload) -> String {
    match event {
        Payload::Task(task) => format!("task {:?}", state(task)),
        Payload::StatusUpdate(update) => format!("status {:?}", update.status.as_ref().unwrap().state()),
        Payload::ArtifactUpdate(update) => format!("artifact {}", update.artifact.as_ref().unwrap().name),
        Payload::Message(_) => "message".to_owned(),
    }
}

#[tokio::test]
async fn who_waits_at_the_end_of_the_process_gets_an_answer() {
    let stage = Stage::open(|_| {}).await;
    let mut client = stage.client();
    let stream = client.send_streaming_message(say("ignore")).await.unwrap();
    let mut events = stream.into_inner();
    assert!(matches!(
        events.next().await.unwrap().unwrap().payload,
        Some(Payload::Task(_))
    ));
    let (rest, ()) = tokio::join!(events.collect::<Vec<_>>(), stage.close());
    let last = rest.into_iter().next_back().unwrap().unwrap().payload.unwrap();
    let Payload::StatusUpdate(last) = last else {
        panic!("{last:?}");
    };
    assert_eq!(last.status.unwrap().state(), TaskState::Failed);
}

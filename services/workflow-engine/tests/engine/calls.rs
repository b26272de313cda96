//! How agents are called, and what their failures mean to a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muster_api::a2a::TaskState;
use muster_api::error::{Error, Reason};
use muster_api::workflow::RunStatus;
use muster_testkit::{Answer, FakeAgent, wait_for};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::Status;

use crate::harness::{Engine, PATIENCE, document, send};

fn call(method: &str, server: &str, parameters: &str) -> String {
    document(&format!(
        "  - ask: {{call: a2a, with: {{server: '{server}', method: {method}, parameters: {parameters}}}}}\n"
    ))
}

#[tokio::test]
async fn data_goes_out_and_comes_back_unchanged() {
    let engine = Engine::start().await;
    let text = document(
        "  - ask:\n      call: a2a\n      with:\n        server: skill://table_analysis\n        method: message/send\n        \
         parameters: {message: {parts: [{kind: data, data: '${ . }'}]}}\n      \
         output: {as: '${ .artifacts[0].parts[0].data.data }'}\n",
    );
    let input = r#"{"whole":5,"half":0.5,"deep":[{"big":9007199254740991,"none":null,"text":"ü"}]}"#;
    let output = engine.output(&text, input).await;
    assert_eq!(output, serde_json::from_str::<serde_json::Value>(input).unwrap());
    assert_eq!(engine.router.calls()[0].tenant, "skill:table_analysis");
    let headers = &engine.router.calls()[0].metadata;
    assert!(
        headers.contains(&("a2a-version".into(), "1.0".into())),
        "{headers:?}"
    );
    assert!(headers.iter().any(|(name, _)| name == "grpc-timeout"));
}

#[tokio::test]
async fn a_message_a_stream_and_a_working_task_are_answers_as_they_are() {
    let engine = Engine::start().await;
    let message = "{message: {parts: [{text: hi}]}}";
    engine.router.script([Answer::Message("hello".into())]);
    let output = engine
        .output(&call("SendMessage", "agent://a", message), "")
        .await;
    assert_eq!(output["parts"], json!([{"text": "hello"}]));
    assert_eq!(output["role"], "ROLE_AGENT");

    let output = engine
        .output(&call("SendStreamingMessage", "agent://a", message), "")
        .await;
    assert_eq!(output["status"]["state"], "TASK_STATE_COMPLETED");
    assert_eq!(output["artifacts"][0]["parts"][1]["text"], "hi");
    assert!(engine.router.calls()[1].streaming);

    engine
        .router
        .script([Answer::Task(TaskState::Working, "on it".into())]);
    let immediately = "{message: {parts: [{text: hi}]}, configuration: {returnImmediately: true}}";
    let output = engine
        .output(&call("SendMessage", "agent://a", immediately), "")
        .await;
    assert_eq!(output["status"]["state"], "TASK_STATE_WORKING");

    let read = call("GetTask", "agent://a", &format!("{{id: {}}}", output["id"]));
    assert_eq!(engine.output(&read, "").await["id"], output["id"]);
    let cancel = call("CancelTask", "agent://a", &format!("{{id: {}}}", output["id"]));
    assert_eq!(
        engine.output(&cancel, "").await["status"]["state"],
        "TASK_STATE_CANCELED"
    );
    let list = call("ListTasks", "agent://a", "{}");
    assert_eq!(
        engine.output(&list, "").await["tasks"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn failures_of_calls_have_the_standard_types() {
    let engine = Engine::start().await;
    let tasks = document(&send("weather", "x"));
    for (answer, kind, status) in [
        (Answer::Status(Status::unavailable("gone")), "communication", 503),
        (
            Answer::Status(Status::invalid_argument("odd")),
            "communication",
            400,
        ),
        (
            Answer::Status(Status::unauthenticated("who?")),
            "authentication",
            401,
        ),
        (
            Answer::Status(Status::permission_denied("no")),
            "authorization",
            403,
        ),
        (
            Answer::Task(TaskState::AuthRequired, "log in".into()),
            "authentication",
            401,
        ),
        (Answer::Task(TaskState::Failed, "broke".into()), "runtime", 500),
        (
            Answer::Task(TaskState::Canceled, "stopped".into()),
            "runtime",
            500,
        ),
    ] {
        engine.router.script([answer]);
        let error = engine.fault(&tasks).await;
        assert!(error.r#type.ends_with(&format!("/{kind}")), "{error:?}");
        assert_eq!(error.status, status, "{error:?}");
    }
    assert_eq!(
        engine.router.calls().len(),
        7,
        "none of these is repeated unasked"
    );
}

#[tokio::test]
async fn a_call_without_an_answer_ends_at_its_deadline() {
    let engine = Engine::start_with(|settings| settings.call_timeout_seconds = 1).await;
    engine.router.hold();
    let error = engine.fault(&document(&send("weather", "x"))).await;
    assert!(error.r#type.ends_with("/timeout"), "{error:?}");
    assert_eq!(error.status, 408);
}

#[tokio::test]
async fn an_agent_that_is_not_there_yet_is_waited_for_under_the_same_message() {
    let engine = Engine::start().await;
    let missing = || {
        let error = Error::new(Reason::AgentNotFound, "no agent 'weather' is registered");
        Answer::Status(error.with_retry_after(Duration::from_millis(50)).into())
    };
    engine.router.script([missing(), missing(), missing()]);
    assert_eq!(
        engine.output(&document(&send("weather", "x")), "").await,
        json!("x")
    );
    let messages = engine.router.calls_by_message_id();
    assert_eq!(messages.values().copied().collect::<Vec<_>>(), [4]);
}

#[tokio::test]
async fn an_agent_that_never_comes_is_waited_for_only_so_long() {
    let engine = Engine::start_with(|settings| settings.agent_wait_seconds = 0).await;
    let error = Error::new(
        Reason::SkillNotFound,
        "no agent has the skill 'x'; did you mean 'y'?",
    );
    engine.router.fall_back_to(Answer::Status(error.into()));
    let error = engine.fault(&document(&send("weather", "x"))).await;
    assert_eq!(error.status, 404);
    assert!(error.detail.contains("did you mean 'y'?"), "{error:?}");
}

#[tokio::test]
async fn a_router_that_comes_late_is_waited_for_and_the_wait_is_told() {
    let mut engine = Engine::start().await;
    let address = engine.router.address();
    engine.router = FakeAgent::start("elsewhere").await;
    wait_for("the port to be free", PATIENCE, async || {
        std::net::TcpListener::bind(address).is_ok()
    })
    .await;
    let run = engine
        .start_run(&document(&send("weather", "x")), "", "")
        .await
        .unwrap();
    wait_for("the run to say what holds it up", PATIENCE, async || {
        let activity = engine.run(&run.run_id).await.activity;
        if activity.iter().any(|line| line.contains("tries again")) {
            Ok(())
        } else {
            Err(format!("{activity:?}"))
        }
    })
    .await;
    engine.router = FakeAgent::start_at("router", address).await;
    engine.until(&run.run_id, RunStatus::Completed).await;
    assert_eq!(engine.router.calls().len(), 1);
}

#[tokio::test]
async fn an_answer_over_the_limit_is_a_failure_that_names_the_limit() {
    let engine = Engine::start_with(|settings| settings.max_payload_bytes = 10_000).await;
    let large = || Answer::Completed(json!("x".repeat(10_001)), "large".into());
    engine.router.script([large(), large()]);
    let error = engine.fault(&document(&send("weather", "x"))).await;
    assert_eq!(error.status, 413);
    assert!(error.detail.contains("engine.max_payload_bytes"), "{error:?}");
    let streamed = send("weather", "x").replace("SendMessage", "SendStreamingMessage");
    assert_eq!(engine.fault(&document(&streamed)).await.status, 413);
}

/// What a router is sent until this text has come, after which it breaks off. It says SETTINGS, so that it is taken for one.
async fn breaks_off(mut stream: TcpStream, text: &[u8]) -> Vec<u8> {
    let _gone = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        read.extend_from_slice(&piece[..count]);
        if is_in(&read, text) {
            break;
        }
    }
    read
}

fn is_in(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|words| words == text)
}

#[tokio::test]
async fn a_call_whose_router_dies_is_sent_again_under_the_same_message() {
    const LAST: &[u8] = b"the last that it hears";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut dying = JoinSet::new();
    dying.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let heard = breaks_off(stream, LAST).await;
            if is_in(&heard, LAST) {
                return heard;
            }
        }
    });
    let engine = Engine::start_with(|settings| settings.router_url = format!("http://{address}")).await;
    let run = engine
        .start_run(&document(&send("weather", "the last that it hears")), "", "")
        .await
        .unwrap();
    let heard = dying.join_next().await.unwrap().unwrap();
    let router = FakeAgent::start_at("router", address).await;
    engine.until(&run.run_id, RunStatus::Completed).await;
    let again = router.calls();
    assert_eq!(again.len(), 1);
    assert!(is_in(&heard, again[0].message_id.as_bytes()), "another message");
}

#[tokio::test]
async fn a_call_that_breaks_every_connection_is_given_up() {
    /// The text of a message that nobody survives.
    const DEADLY: &[u8] = b"this one kills";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let killed = Arc::new(AtomicUsize::new(0));
    let (counted, mut router) = (Arc::clone(&killed), JoinSet::new());
    router.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if is_in(&breaks_off(stream, DEADLY).await, DEADLY) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let engine = Engine::start_with(|settings| settings.router_url = format!("http://{address}")).await;
    let error = engine.fault(&document(&send("weather", "this one kills"))).await;
    assert_eq!(
        (error.status, killed.load(Ordering::Relaxed)),
        (503, 6),
        "{error:?}"
    );
}

//! What becomes of a run: completed, faulted, cancelled; retries, branches and timers on the way.

use muster_api::a2a::TaskState;
use muster_api::workflow::RunStatus;
use muster_testkit::{Answer, wait_for};
use serde_json::json;

use crate::harness::{Engine, PATIENCE, document, reason, send};

#[tokio::test]
async fn a_run_completes_and_everything_about_it_can_be_read() {
    let engine = Engine::start().await;
    let text = document(&(send("weather", "Seattle") + &send("planning", "${ . }")));
    let started = engine.start_run(&text, "order-1", r#"{"n": 1}"#).await.unwrap();
    assert_eq!(started.run_id, "order-1");
    assert_eq!(
        (started.name.as_str(), started.version.as_str()),
        ("test", "1.0.0")
    );

    let run = engine.until("order-1", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#""Seattle""#);
    assert_eq!(run.input_json, r#"{"n":1}"#);
    assert!(run.created_at.is_some() && run.started_at.is_some() && run.ended_at.is_some());
    assert_eq!(run.error, None);
    assert_eq!(run.activity, Vec::<String>::new());

    let calls = engine.router.calls();
    assert_eq!(
        calls.iter().map(|call| call.tenant.as_str()).collect::<Vec<_>>(),
        ["weather", "planning"]
    );
    assert_eq!(calls[1].text, "Seattle");
    assert!(
        calls
            .iter()
            .all(|call| call.step_key.is_some() && call.step_key != Some(call.message_id.clone()))
    );

    let history = engine.history("order-1").await;
    assert_eq!(history.len() as u64, run.history_length);
    assert!(history.iter().map(|event| event.index).eq(0..run.history_length));
    assert!(history.iter().any(|event| event.task == "/do/0/weather"));
    assert!(
        history
            .iter()
            .all(|event| event.time.is_some() && !event.r#type.is_empty())
    );
    let data: serde_json::Value = serde_json::from_str(&history[0].data_json).unwrap();
    assert!(data.is_object());

    let status = engine.status().await;
    assert_eq!(
        (
            status.completed_total,
            status.running,
            status.pending,
            status.waiting
        ),
        (1, 0, 0, 0)
    );
}

#[tokio::test]
async fn what_an_agent_refuses_faults_the_run_in_its_words() {
    let engine = Engine::start().await;
    engine
        .router
        .script([Answer::Task(TaskState::Rejected, "no such city".into())]);
    let error = engine.fault(&document(&send("weather", "Atlantis"))).await;
    assert_eq!((error.status, error.detail.as_str()), (400, "no such city"));
    assert_eq!(error.instance, "/do/0/weather");
    assert!(error.r#type.ends_with("/runtime"), "{}", error.r#type);
    assert_eq!(engine.status().await.faulted_total, 1);
}

#[tokio::test]
async fn a_failed_try_is_tried_again_under_the_same_key_and_then_caught() {
    let engine = Engine::start().await;
    let busy = || Answer::Task(TaskState::Failed, "busy".into());
    engine.router.script([busy(), busy()]);
    let attempt = send("weather", "Seattle").replace("\n", "\n        ");
    let text = document(&format!(
        "  - guarded:\n      try:\n        {}\n      catch:\n        retry: {{delay: {{milliseconds: 20}}, limit: {{attempt: {{count: 5}}}}}}\n",
        attempt.trim()
    ));
    assert_eq!(engine.output(&text, "").await, json!("Seattle"));
    let messages = engine.router.calls_by_message_id();
    assert_eq!(
        messages.len(),
        3,
        "each attempt is a message of its own: {messages:?}"
    );
    let keys = engine.router.calls_by_step_key();
    assert_eq!(keys.values().copied().collect::<Vec<_>>(), [3], "one step");
}

#[tokio::test]
async fn branches_are_called_at_the_same_time() {
    let engine = Engine::start().await;
    engine.router.hold();
    let branches = (send("weather", "one") + &send("planning", "two")).replace("\n", "\n      ");
    let text = document(&format!(
        "  - both:\n      fork:\n        branches:\n      {}\n",
        branches.trim_end()
    ));
    let run = engine.start_run(&text, "", "").await.unwrap();
    engine.until_held(2).await;
    let running = engine.run(&run.run_id).await;
    assert_eq!(running.status(), RunStatus::Running);
    assert!(!running.activity.is_empty());
    engine.router.release_all();
    let run = engine.until(&run.run_id, RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"["one","two"]"#);
}

#[tokio::test]
async fn a_run_that_waits_holds_no_slot_and_goes_on_by_itself() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    let text = document("  - pause: {wait: {milliseconds: 1500}}\n  - done: {set: {a: 1}}\n");
    let waiting = engine.start_run(&text, "", "").await.unwrap();
    engine.until(&waiting.run_id, RunStatus::Waiting).await;
    assert_eq!(
        engine.output(&document("  - done: {set: {b: 2}}\n"), "").await,
        json!({"b": 2})
    );
    let run = engine.until(&waiting.run_id, RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"{"a":1}"#);
}

#[tokio::test]
async fn a_run_can_be_cancelled_while_it_calls_while_it_waits_and_only_once() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine
        .start_run(&document(&send("weather", "x")), "calls", "")
        .await
        .unwrap();
    engine
        .start_run(&document("  - pause: {wait: {hours: 1}}\n"), "waits", "")
        .await
        .unwrap();
    engine.until_held(1).await;
    engine.until("waits", RunStatus::Waiting).await;
    for id in ["calls", "waits"] {
        let run = engine.cancel(id).await.unwrap();
        assert_eq!(run.status(), RunStatus::Cancelled);
        assert!(run.ended_at.is_some());
        assert_eq!(reason(&engine.cancel(id).await.unwrap_err()), "RUN_ENDED");
    }
    engine.until_held(0).await;
    let last = engine.history("waits").await.pop().unwrap();
    assert!(last.data_json.contains("not needed"), "{}", last.data_json);
    assert_eq!(engine.status().await.cancelled_total, 2);
}

#[tokio::test]
async fn the_agent_of_a_cancelled_run_is_told_to_stop() {
    let engine = Engine::start().await;
    engine.router.hold();
    // A stream names its task first; one event is let through.
    let text = document(&send("weather", "x").replace("SendMessage", "SendStreamingMessage"));
    engine.start_run(&text, "streams", "").await.unwrap();
    engine.until_held(1).await;
    engine.router.release(1);
    let task_id = only_task(&engine).await;
    wait_for("the engine to know the task", PATIENCE, async || {
        let activity = engine.run("streams").await.activity;
        if activity.iter().any(|line| line.contains(&task_id)) {
            Ok(())
        } else {
            Err(format!("{activity:?}"))
        }
    })
    .await;
    assert_eq!(
        engine.cancel("streams").await.unwrap().status(),
        RunStatus::Cancelled
    );
    wait_for("the agent to be told", PATIENCE, async || {
        state_of(&engine, &task_id).await == TaskState::Canceled
    })
    .await;
}

async fn only_task(engine: &Engine) -> String {
    let request = muster_api::a2a::ListTasksRequest::default();
    let tasks = a2a(engine)
        .await
        .list_tasks(request)
        .await
        .unwrap()
        .into_inner()
        .tasks;
    assert_eq!(tasks.len(), 1);
    tasks[0].id.clone()
}

async fn state_of(engine: &Engine, id: &str) -> TaskState {
    let request = muster_api::a2a::GetTaskRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    a2a(engine)
        .await
        .get_task(request)
        .await
        .unwrap()
        .into_inner()
        .status
        .unwrap()
        .state()
}

async fn a2a(
    engine: &Engine,
) -> muster_api::a2a::a2a_service_client::A2aServiceClient<tonic::transport::Channel> {
    muster_api::a2a::a2a_service_client::A2aServiceClient::connect(engine.router.endpoint())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_run_over_its_time_limit_faults() {
    let engine = Engine::start_with(|settings| settings.workflow_timeout_seconds = 1).await;
    engine.router.hold();
    let error = engine.fault(&document(&send("weather", "x"))).await;
    assert!(error.r#type.ends_with("/timeout"), "{error:?}");
    engine.until_held(0).await;
}

#[tokio::test]
async fn an_input_that_the_interpreter_does_not_take_faults_the_run() {
    let engine = Engine::start().await;
    // Small as text, large in memory.
    let numbers = format!("[{}1]", "1,".repeat(600_000));
    engine
        .start_run(&document("  - done: {set: {a: 1}}\n"), "numbers", &numbers)
        .await
        .unwrap();
    let error = engine.until("numbers", RunStatus::Faulted).await.error.unwrap();
    assert!(error.r#type.ends_with("/validation"), "{error:?}");
    assert_eq!(engine.history("numbers").await[0].r#type, "run.faulted");
}

//! Retrying and forking runs: from outside.

use futures::StreamExt as _;
use muster_api::a2a::TaskState;
use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_api::workflow::watch_run_response::Update;
use muster_testkit::Answer;
use tonic::Status;

use crate::harness::{Engine, document, reason, send, until_calls};
use crate::steering::{called, undoable};

impl Engine {
    pub async fn retry(&self, id: &str, from: &str) -> Result<proto::Run, Status> {
        let request = proto::RetryRunRequest {
            run_id: id.to_owned(),
            from: from.to_owned(),
            by: "ada".to_owned(),
            ..Default::default()
        };
        Ok(self
            .client
            .clone()
            .retry_run(request)
            .await?
            .into_inner()
            .run
            .unwrap())
    }

    pub async fn fork(&self, id: &str, from: &str, new: &str, input: &str) -> Result<proto::Run, Status> {
        let request = proto::ForkRunRequest {
            run_id: id.to_owned(),
            from: from.to_owned(),
            new_run_id: new.to_owned(),
            input_json: input.to_owned(),
            by: "ada".to_owned(),
        };
        Ok(self
            .client
            .clone()
            .fork_run(request)
            .await?
            .into_inner()
            .run
            .unwrap())
    }
}

fn broken() -> Answer {
    Answer::Task(TaskState::Failed, "no luck".into())
}

#[tokio::test]
async fn a_retry_goes_on_from_the_task_that_failed_under_a_new_message_and_survives_a_restart() {
    let mut engine = Engine::start().await;
    let text =
        document(&(send("one", "a") + &send("two", "${ . + \"b\" }") + &send("three", "${ . + \"c\" }")));
    engine.router.script([Answer::Echo, broken()]);
    engine.start_run(&text, "r", "").await.unwrap();
    engine.until("r", RunStatus::Faulted).await;
    engine.router.hold();
    let run = engine.retry("r", "").await.unwrap();
    assert_eq!((run.retries, run.error, run.ended_at), (1, None, None));
    assert_eq!(reason(&engine.retry("r", "").await.unwrap_err()), "RUN_ACTIVE");
    engine.until_held(1).await;
    assert_eq!(engine.run("r").await.status(), RunStatus::Running);
    engine.restart().await;
    engine.until_held(1).await;
    engine.router.release_all();
    let run = engine.until("r", RunStatus::Completed).await;
    assert_eq!((run.output_json.as_str(), run.retries), (r#""abc""#, 1));

    let mut agents = called(&engine);
    agents.dedup();
    assert_eq!(agents, ["one", "two", "three"]);
    let two = || {
        engine
            .router
            .calls()
            .into_iter()
            .filter(|call| call.tenant == "two")
    };
    let ids: std::collections::BTreeSet<_> = two().map(|call| call.message_id).collect();
    let keys: std::collections::BTreeSet<_> = two().map(|call| call.step_key).collect();
    assert_eq!((ids.len(), keys.len()), (2, 1));
    let history = engine.history("r").await;
    let retried = history
        .iter()
        .position(|event| event.r#type == "run.retried")
        .unwrap();
    assert_eq!(history[retried - 1].r#type, "run.faulted");
    assert!(history.iter().map(|event| event.index).eq(0..run.history_length));
    assert_eq!(
        reason(&engine.retry("r", "").await.unwrap_err()),
        "RUN_NOT_RETRYABLE"
    );
}

#[tokio::test]
async fn a_watcher_that_comes_back_sees_what_a_retry_adds() {
    let engine = Engine::start().await;
    engine.router.script([broken()]);
    engine
        .start_run(&document(&send("one", "a")), "r", "")
        .await
        .unwrap();
    let length = engine.until("r", RunStatus::Faulted).await.history_length;
    engine.retry("r", "").await.unwrap();
    let request = proto::WatchRunRequest {
        run_id: "r".into(),
        after_index: Some(length - 1),
    };
    let mut updates = engine
        .client
        .clone()
        .watch_run(request)
        .await
        .unwrap()
        .into_inner();
    let mut seen = Vec::new();
    while let Some(update) = updates.next().await {
        match update.unwrap().update.unwrap() {
            Update::Event(event) => seen.push(event.index),
            Update::Ended(run) => assert_eq!(run.status(), RunStatus::Completed),
        }
    }
    assert_eq!(seen.first(), Some(&length));
}

#[tokio::test]
async fn a_retry_from_a_step_repeats_it_and_what_was_compensated_is_not_built_upon() {
    let engine = Engine::start().await;
    let text = document(&(send("one", "a") + &undoable("two", "b") + &send("three", "c")));
    engine.router.script([Answer::Echo, Answer::Echo, broken()]);
    engine.start_run(&text, "r", "").await.unwrap();
    engine.until("r", RunStatus::Faulted).await;
    let refused = engine.retry("r", "").await.unwrap_err();
    assert_eq!(reason(&refused), "RUN_NOT_RETRYABLE");
    assert!(
        refused.message().contains("/do/1/two was compensated"),
        "{refused}"
    );
    assert_eq!(
        reason(&engine.retry("r", "three").await.unwrap_err()),
        "RUN_NOT_RETRYABLE"
    );
    let unknown = engine.retry("r", "thre").await.unwrap_err();
    assert!(unknown.message().contains("did you mean 'three'?"), "{unknown}");
    engine.retry("r", "two").await.unwrap();
    let run = engine.until("r", RunStatus::Completed).await;
    assert_eq!(run.compensation, None);
    assert_eq!(
        called(&engine),
        ["one", "two", "three", "undo-two", "two", "three"]
    );
}

#[tokio::test]
async fn a_cancelled_run_goes_on_and_retries_add_up() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine
        .start_run(&document(&send("one", "a")), "r", "")
        .await
        .unwrap();
    for number in 1..=3 {
        engine.until_held(1).await;
        engine.cancel("r").await.unwrap();
        engine.until_held(0).await;
        assert_eq!(engine.retry("r", "").await.unwrap().retries, number);
    }
    engine.until_held(1).await;
    engine.router.release_all();
    engine.until("r", RunStatus::Completed).await;
    assert_eq!(engine.router.calls_by_message_id().len(), 4);
    assert_eq!(engine.router.calls_by_step_key().len(), 1);
}

#[tokio::test]
async fn a_fork_shares_the_beginning_and_goes_its_own_way() {
    let mut engine = Engine::start().await;
    let text = document(&(send("one", "a") + &send("two", "${ . }") + &send("three", "${ . }")));
    engine.start_run(&text, "r", r#"{"n": 1}"#).await.unwrap();
    let whole = engine.until("r", RunStatus::Completed).await;
    engine.router.hold();
    let fork = engine.fork("r", "two", "s", r#""edited""#).await.unwrap();
    assert_eq!((fork.run_id.as_str(), fork.forked_from.as_str()), ("s", "r"));
    assert_eq!(fork.input_json, whole.input_json);
    let again = engine.fork("r", "two", "s", r#""edited""#).await.unwrap();
    assert_eq!(again.created_at, fork.created_at, "the id is an idempotency key");
    let other = engine.fork("r", "three", "s", "").await.unwrap_err();
    assert_eq!(reason(&other), "RUN_EXISTS");
    engine.until_held(1).await;
    engine.restart().await;
    engine.until_held(1).await;
    engine.router.release_all();
    let fork = engine.until("s", RunStatus::Completed).await;
    assert_eq!(fork.output_json, r#""edited""#);
    assert_eq!(engine.run("r").await, whole, "it is left alone");
    let mut agents = called(&engine);
    agents.dedup();
    assert_eq!(agents, ["one", "two", "three", "two", "three"]);
    let forked = engine
        .history("s")
        .await
        .into_iter()
        .find(|event| event.r#type == "run.forked");
    assert_eq!(forked.unwrap().task, "/do/1/two");
    assert_eq!(
        reason(&engine.fork("r", "nothing", "", "").await.unwrap_err()),
        "INVALID_FIELD"
    );
    assert_eq!(
        reason(&engine.fork("nobody", "", "", "").await.unwrap_err()),
        "RUN_NOT_FOUND"
    );
}

#[tokio::test]
async fn a_fork_from_the_beginning_is_a_run_with_another_input() {
    let engine = Engine::start().await;
    engine
        .start_run(&document("  - a: {set: {m: '${ .n }'}}\n"), "r", r#"{"n": 1}"#)
        .await
        .unwrap();
    engine.until("r", RunStatus::Completed).await;
    engine.fork("r", "", "s", r#"{"n": 2}"#).await.unwrap();
    let run = engine.until("s", RunStatus::Completed).await;
    assert_eq!(
        (run.output_json.as_str(), run.input_json.as_str()),
        (r#"{"m":2}"#, r#"{"n":2}"#)
    );
    assert_eq!(engine.story("s").await[..2], ["run.forked", "run.started"]);
}

#[tokio::test]
async fn a_run_at_work_can_be_forked_and_a_retried_one_too() {
    let engine = Engine::start().await;
    engine.router.script([Answer::Echo, broken()]);
    let text = document(&(send("one", "a") + &send("two", "b") + &send("three", "c")));
    engine.start_run(&text, "r", "").await.unwrap();
    engine.until("r", RunStatus::Faulted).await;
    engine.router.hold();
    engine.retry("r", "").await.unwrap();
    engine.until_held(1).await;
    engine.router.release(1);
    until_calls(&engine, 4).await;
    engine.until_held(1).await;
    engine.fork("r", "three", "s", "").await.unwrap();
    engine.until_held(2).await;
    engine.router.release_all();
    for id in ["r", "s"] {
        let run = engine.until(id, RunStatus::Completed).await;
        assert_eq!((run.output_json.as_str(), run.retries), (r#""c""#, 1), "{id}");
    }
}

#[tokio::test]
async fn null_is_another_input_than_none_and_a_long_name_is_no_broken_connection() {
    let engine = Engine::start().await;
    engine
        .start_run(&document("  - a: {set: {n: '${ . }'}}\n"), "r", r#"{"n": 1}"#)
        .await
        .unwrap();
    engine.until("r", RunStatus::Completed).await;
    engine.fork("r", "", "s", "").await.unwrap();
    engine.fork("r", "", "s", "").await.unwrap();
    assert_eq!(
        reason(&engine.fork("r", "", "s", "null").await.unwrap_err()),
        "RUN_EXISTS"
    );
    let long = engine.fork("r", &"é".repeat(5_000), "", "").await.unwrap_err();
    assert_eq!(reason(&long), "INVALID_FIELD", "{long:?}");
    for dots in [".", "..", "..."] {
        let refused = engine.fork("r", "", dots, "").await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_FIELD", "{dots}");
    }
}

#[tokio::test]
async fn a_fork_from_the_beginning_hears_what_comes_from_now_on() {
    let engine = Engine::start().await;
    let text = document("  - hear: {listen: {to: {one: {with: {type: go}}}}}\n");
    engine.start_run(&text, "r", "").await.unwrap();
    engine.until_blocked("r", "event").await;
    engine.publish("go", serde_json::json!(1)).await;
    engine.until("r", RunStatus::Completed).await;
    engine.fork("r", "", "s", "").await.unwrap();
    engine.until_blocked("s", "event").await;
    engine.publish("go", serde_json::json!(2)).await;
    let run = engine.until("s", RunStatus::Completed).await;
    assert_eq!(run.output_json, "[2]");
    engine.fork("r", "hear", "t", "").await.unwrap();
    let run = engine.until("t", RunStatus::Completed).await;
    assert_eq!(run.output_json, "[1]", "what the other run could hear");
}

//! Answers of idempotent calls stand for the next ones for a while.

use muster_api::workflow::RunStatus;
use muster_testkit::wait_for;
use serde_json::json;

use crate::harness::{Engine, PATIENCE, send, until_calls};

/// A call whose answer is kept.
fn document(namespace: &str, ttl: &str) -> String {
    format!(
        "document: {{dsl: '1.0.0', namespace: {namespace}, name: cached, version: '1.0.0'}}\ndo:\n{}      metadata: {{muster: {{idempotent: true, cache: {{ttl: {ttl}}}}}}}\n",
        send("weather", "${ .city }")
    )
}

#[tokio::test]
async fn the_same_question_is_asked_once_also_after_a_restart() {
    let mut engine = Engine::start().await;
    let answer = engine
        .output(&document("test", "PT1H"), r#"{"city": "Bern"}"#)
        .await;
    assert_eq!(answer, json!("Bern"));
    assert_eq!(
        engine
            .output(&document("test", "PT1H"), r#"{"city": "Bern"}"#)
            .await,
        answer
    );
    engine.restart().await;
    assert_eq!(
        engine
            .output(&document("test", "PT2H"), r#"{"city": "Bern"}"#)
            .await,
        answer
    );
    until_calls(&engine, 1).await;
    engine
        .output(&document("test", "PT1H"), r#"{"city": "Rome"}"#)
        .await;
    engine
        .output(&document("other", "PT1H"), r#"{"city": "Bern"}"#)
        .await;
    until_calls(&engine, 3).await;
}

#[tokio::test]
async fn an_answer_stands_only_so_long_and_a_failure_not_at_all() {
    let engine = Engine::start().await;
    let text = document("test", "{milliseconds: 20}");
    engine.output(&text, r#"{"city": "Bern"}"#).await;
    wait_for("the answer to have had its time", PATIENCE, async || {
        engine.output(&text, r#"{"city": "Bern"}"#).await;
        let calls = engine.router.calls().len();
        if calls > 1 { Ok(()) } else { Err(calls) }
    })
    .await;

    let engine = Engine::start().await;
    let failed = muster_testkit::Answer::Task(muster_api::a2a::TaskState::Failed, "no".into());
    engine.router.script([failed]);
    let text = document("test", "PT1H");
    let run = engine.start_run(&text, "", r#"{"city": "Bern"}"#).await.unwrap();
    engine.until(&run.run_id, RunStatus::Faulted).await;
    assert_eq!(engine.output(&text, r#"{"city": "Bern"}"#).await, json!("Bern"));
    until_calls(&engine, 2).await;
}

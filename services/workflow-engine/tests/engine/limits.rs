//! Limits of a document's own: iterations of loops, and branches that may fail.

use muster_api::workflow::RunStatus;
use serde_json::json;

use crate::harness::{Engine, document, send};

#[tokio::test]
async fn a_loop_that_goes_too_often_fails() {
    let engine = Engine::start().await;
    let tasks = "  - each:\n      for: {in: '${ .items }'}\n      do: [{one: {set: {items: '${ [$item] }'}}}]\n      metadata: {muster: {maxIterations: 2}}\n";
    let run = engine
        .start_run(&document(tasks), "", r#"{"items": [1, 2, 3]}"#)
        .await
        .unwrap();
    let error = engine.until(&run.run_id, RunStatus::Faulted).await.error.unwrap();
    assert_eq!(
        (error.r#type.as_str(), error.status),
        ("urn:muster:error:too-many-iterations", 508)
    );
    assert!(
        error.detail.contains("'maxIterations' lets the loop go 2 times"),
        "{error:?}"
    );
    let output = engine.output(&document(tasks), r#"{"items": [1, 2]}"#).await;
    assert_eq!(output, json!({"items": [2]}));
}

#[tokio::test]
async fn a_fork_goes_on_without_the_branches_that_may_fail() {
    let engine = Engine::start().await;
    let branch = send("good", "a").replace('\n', "\n      ");
    let tasks = format!(
        "  - both:\n      fork:\n        branches:\n      {}\n        - bad: {{raise: {{error: {{type: 'about:blank', status: 500}}}}}}\n      metadata: {{muster: {{minSuccessRatio: 0.5}}}}\n",
        branch.trim_end()
    );
    let output = engine.output(&document(&tasks), "").await;
    assert_eq!(output[1], json!(null));
    assert!(output[0].is_string(), "{output}");
    let error = engine.fault(&document(&tasks.replace("0.5", "0.6"))).await;
    assert_eq!(error.instance, "/do/0/both/fork/branches/1/bad");
}

//! Contexts, and how much of a conversation is shown.

use serde_json::{Value, json};

use super::{list, say, say_about, say_in, task_of, unique, with};
use crate::bench::Bench;
use crate::driver::{Driver, Operation};
use crate::errors::invalid;

pub async fn a_context_is_generated(bench: &Bench) {
    let driver = bench.driver().await;
    let first = task_of(&driver, say("echo")).await;
    let second = task_of(&driver, say("echo")).await;
    for task in [&first, &second] {
        assert!(
            task["contextId"].as_str().is_some_and(|id| !id.is_empty()),
            "{task}"
        );
    }
    assert_ne!(first["contextId"], second["contextId"]);
}

pub async fn a_context_is_preserved(bench: &Bench) {
    let driver = bench.driver().await;
    let context = unique("context");
    let first = task_of(&driver, say_in(&context, "echo")).await;
    let second = task_of(&driver, say_in(&context, "echo")).await;
    assert_eq!(
        (&first["contextId"], &second["contextId"]),
        (&json!(context), &json!(context))
    );
    assert_ne!(first["id"], second["id"], "a context is no task");
}

pub async fn a_context_is_inferred(bench: &Bench) {
    let driver = bench.driver().await;
    let asked = task_of(&driver, say("ask")).await;
    let task = task_of(&driver, say_about(&asked, "Seattle")).await;
    assert_eq!(task["contextId"], asked["contextId"], "{task}");
}

pub async fn a_context_that_does_not_match_is_rejected(bench: &Bench) {
    let driver = bench.driver().await;
    let asked = task_of(&driver, say("ask")).await;
    let params = with(
        say_about(&asked, "Seattle"),
        "/message/contextId",
        json!(unique("other")),
    );
    let outcome = driver.call(Operation::SendMessage, params.clone()).await;
    invalid(outcome, "SendMessage");
    let outcome = driver
        .first_of_stream(Operation::SendStreamingMessage, params)
        .await;
    invalid(outcome, "SendStreamingMessage");
    let matching = with(
        say_about(&asked, "Seattle"),
        "/message/contextId",
        asked["contextId"].clone(),
    );
    task_of(&driver, matching).await;
}

pub async fn send_keeps_to_the_history_length(bench: &Bench) {
    let driver = bench.driver().await;
    for (length, most) in [(Some(0), 0), (Some(1), 1), (Some(100), 100), (None, usize::MAX)] {
        let asked = task_of(&driver, say("ask")).await;
        let mut params = say_about(&asked, "Seattle");
        if let Some(length) = length {
            params["configuration"] = json!({ "historyLength": length });
        }
        let task = task_of(&driver, params).await;
        keeps(&task, length, most);
    }
}

pub async fn get_keeps_to_the_history_length(bench: &Bench) {
    let driver = bench.driver().await;
    let (task, _) = talk(&driver).await;
    for (length, most) in [(Some(0), 0), (Some(1), 1), (Some(100), 100), (None, usize::MAX)] {
        let got = driver
            .ok(Operation::GetTask, params(json!({ "id": task["id"] }), length))
            .await;
        keeps(&got, length, most);
    }
    let newest = driver
        .ok(
            Operation::GetTask,
            json!({ "id": task["id"], "historyLength": 1 }),
        )
        .await;
    let all = driver
        .ok(
            Operation::GetTask,
            json!({ "id": task["id"], "historyLength": 100 }),
        )
        .await;
    assert_eq!(
        list(&newest, "history").last(),
        list(&all, "history").last(),
        "the most recent ones are shown"
    );
}

pub async fn list_keeps_to_the_history_length(bench: &Bench) {
    let driver = bench.driver().await;
    let (_, context) = talk(&driver).await;
    for (length, most) in [(Some(0), 0), (Some(1), 1), (Some(100), 100), (None, usize::MAX)] {
        let listed = driver
            .ok(
                Operation::ListTasks,
                params(json!({ "contextId": context }), length),
            )
            .await;
        assert_eq!(list(&listed, "tasks").len(), 1, "{listed}");
        keeps(&listed["tasks"][0], length, most);
    }
}

/// A task with two messages of its user.
async fn talk(driver: &Driver) -> (Value, String) {
    let context = unique("context");
    let asked = task_of(driver, say_in(&context, "ask")).await;
    (task_of(driver, say_about(&asked, "Seattle")).await, context)
}

fn params(mut params: Value, length: Option<i32>) -> Value {
    if let Some(length) = length {
        params["historyLength"] = json!(length);
    }
    params
}

/// At most so many messages; all of them, where there is room for all.
fn keeps(task: &Value, length: Option<i32>, most: usize) {
    let history = list(task, "history");
    assert!(history.len() <= most, "historyLength {length:?}: {task}");
    if length == Some(0) {
        assert!(task.get("history").is_none(), "history is left out at 0: {task}");
    }
    if most == 1 {
        assert_eq!(history.len(), 1, "historyLength 1: {task}");
    }
    if most > 10 {
        let users = history.iter().filter(|message| message["role"] == "ROLE_USER");
        assert_eq!(users.count(), 2, "historyLength {length:?}: {task}");
    }
}

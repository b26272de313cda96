//! SendMessage: how long it waits, what it answers with, what it refuses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{is_terminal, list, read, say, say_about, say_in, state_of, task_of, unique, waiting, with};
use crate::bench::{Bench, Subject};
use crate::driver::{Answer, Operation, PATIENCE};
use crate::errors::{
    CONTENT_TYPE_NOT_SUPPORTED, INVALID_AGENT_RESPONSE, TASK_NOT_FOUND, UNSUPPORTED_OPERATION, refused,
};

pub async fn send_answers_with_the_task(bench: &Bench) {
    let driver = bench.driver().await;
    let task = task_of(&driver, say("echo hello")).await;
    assert_eq!(state_of(&task), "TASK_STATE_COMPLETED", "{task}");
    assert!(task["id"].as_str().is_some_and(|id| !id.is_empty()), "{task}");
    assert!(!list(&task, "artifacts").is_empty(), "{task}");
    for artifact in list(&task, "artifacts") {
        assert!(
            artifact["artifactId"].as_str().is_some_and(|id| !id.is_empty()),
            "{task}"
        );
        assert!(!list(artifact, "parts").is_empty(), "{task}");
    }
}

pub async fn send_waits_for_a_terminal_state(bench: &Bench) {
    let driver = bench.driver().await;
    let (name, context) = (unique("wait"), unique("context"));
    let params = say_in(&context, &format!("wait {name}"));
    let release = async {
        bench.signals.reached(&name).await;
        muster_testkit::wait_for("the task to be seen at work", PATIENCE, async || {
            let listed = driver
                .ok(Operation::ListTasks, json!({ "contextId": context }))
                .await;
            list(&listed, "tasks")
                .iter()
                .any(|task| state_of(task) == "TASK_STATE_WORKING")
        })
        .await;
        bench.signals.release(&name);
    };
    let (task, ()) = tokio::join!(task_of(&driver, params), release);
    assert_eq!(
        state_of(&task),
        "TASK_STATE_COMPLETED",
        "the answer has waited: {task}"
    );
}

pub async fn send_waits_for_input_required(bench: &Bench) {
    let driver = bench.driver().await;
    let task = task_of(&driver, say("ask")).await;
    assert_eq!(state_of(&task), "TASK_STATE_INPUT_REQUIRED", "{task}");
    let message = &task["status"]["message"];
    assert_eq!(message["role"], "ROLE_AGENT", "what is asked: {task}");
}

pub async fn send_waits_for_auth_required(bench: &Bench) {
    let driver = bench.driver().await;
    let task = task_of(&driver, say("auth")).await;
    assert_eq!(state_of(&task), "TASK_STATE_AUTH_REQUIRED", "{task}");
}

pub async fn send_returns_immediately(bench: &Bench) {
    let driver = bench.driver().await;
    let (task, name) = waiting(bench, &driver).await;
    assert!(!is_terminal(state_of(&task)), "{task}");
    bench.signals.release(&name);
    super::becomes(&driver, &task, "TASK_STATE_COMPLETED").await;
}

pub async fn failures_are_states(bench: &Bench) {
    let driver = bench.driver().await;
    for (text, state) in [("fail", "TASK_STATE_FAILED"), ("reject", "TASK_STATE_REJECTED")] {
        let task = task_of(&driver, say(text)).await;
        assert_eq!(state_of(&task), state, "{task}");
        assert_eq!(state_of(&read(&driver, &task).await), state);
    }
}

pub async fn task_ids_are_the_servers(bench: &Bench) {
    let driver = bench.driver().await;
    let first = task_of(&driver, say("echo")).await;
    let second = task_of(&driver, say("echo")).await;
    assert_ne!(first["id"], second["id"]);
}

pub async fn a_message_sent_again_is_one_task(bench: &Bench) {
    let driver = bench.driver().await;
    let context = unique("context");
    // Over gRPC the fields come in another order each time, which an agent does not mind.
    let metadata = match bench.subject {
        Subject::Agent => json!({ "b": 1, "a": { "d": 2, "c": [3], "e": null } }),
        Subject::Router(_) => json!({ "b": [1] }),
    };
    let params = with(say_in(&context, "echo once"), "/message/metadata", metadata);
    let task = task_of(&driver, params.clone()).await;
    assert_eq!(task_of(&driver, params.clone()).await, task);
    let events = driver
        .stream(Operation::SendStreamingMessage, params.clone())
        .await
        .rest()
        .await;
    super::ends_with(&events, "TASK_STATE_COMPLETED");
    assert_eq!(events[0]["task"]["id"], task["id"], "{events:?}");
    let other = with(params, "/message/parts", json!([{ "text": "echo twice" }]));
    let refusal = driver
        .call(Operation::SendMessage, other)
        .await
        .expect_err("the id stands for another message");
    let reason = refusal.info().map(|(reason, _)| reason);
    assert_eq!(reason, Some("MESSAGE_ID_REUSED"), "{refusal}");
    let listed = driver
        .ok(Operation::ListTasks, json!({ "contextId": context }))
        .await;
    assert_eq!(list(&listed, "tasks").len(), 1, "{listed}");

    let name = unique("wait");
    let params = say(&format!("wait {name}"));
    let mut first = driver
        .stream(Operation::SendStreamingMessage, params.clone())
        .await;
    let begun = super::opening(&mut first).await;
    let mut again = driver.stream(Operation::SendStreamingMessage, params).await;
    assert_eq!(super::opening(&mut again).await["id"], begun["id"]);
    bench.signals.release(&name);
    for events in [first, again] {
        super::ends_with(&events.rest().await, "TASK_STATE_COMPLETED");
    }
}

pub async fn a_client_cannot_make_a_task_id(bench: &Bench) {
    let driver = bench.driver().await;
    let params = with(say("echo"), "/message/taskId", json!(unique("mine")));
    let outcome = driver.call(Operation::SendMessage, params.clone()).await;
    refused(outcome, TASK_NOT_FOUND, "SendMessage");
    let outcome = driver
        .first_of_stream(Operation::SendStreamingMessage, params)
        .await;
    refused(outcome, TASK_NOT_FOUND, "SendStreamingMessage");
}

pub async fn a_terminal_task_takes_no_message(bench: &Bench) {
    let driver = bench.driver().await;
    for task in super::ended(bench, &driver).await {
        let outcome = driver
            .call(Operation::SendMessage, say_about(&task, "echo more"))
            .await;
        refused(outcome, UNSUPPORTED_OPERATION, state_of(&task));
    }
}

pub async fn an_interrupted_task_goes_on(bench: &Bench) {
    let driver = bench.driver().await;
    let asked = task_of(&driver, say("ask")).await;
    let task = task_of(&driver, say_about(&asked, "Seattle")).await;
    assert_eq!(
        (&task["id"], state_of(&task)),
        (&asked["id"], "TASK_STATE_COMPLETED"),
        "{task}"
    );
}

pub async fn content_types_are_checked(bench: &Bench) {
    let driver = bench.driver().await;
    let picture = json!([{ "raw": STANDARD.encode([0, 1, 2]), "mediaType": "image/png" }]);
    let params = with(say("echo"), "/message/parts", picture);
    let outcome = driver.call(Operation::SendMessage, params.clone()).await;
    refused(outcome, CONTENT_TYPE_NOT_SUPPORTED, "SendMessage");
    let outcome = driver
        .first_of_stream(Operation::SendStreamingMessage, params)
        .await;
    refused(outcome, CONTENT_TYPE_NOT_SUPPORTED, "SendStreamingMessage");
    let text = json!([{ "text": "echo", "mediaType": "text/plain" }]);
    task_of(&driver, with(say(""), "/message/parts", text)).await;
}

pub async fn content_survives(bench: &Bench) {
    let driver = bench.driver().await;
    let data = json!({ "n": 5, "f": 1.5, "s": "é\n\"", "list": [null, true, {}], "deep": { "a_b": 1 } });
    let parts = json!([{ "text": "data" }, { "data": data }]);
    let task = task_of(&driver, with(say(""), "/message/parts", parts)).await;
    let mut returned = task["artifacts"][0]["parts"][0]["data"].clone();
    muster_api::json::restore_integers(&mut returned);
    assert_eq!(returned, data, "{task}");

    let task = task_of(&driver, say("artifact")).await;
    let parts = list(&task, "artifacts")
        .iter()
        .flat_map(|artifact| list(artifact, "parts"));
    let raw: Vec<&str> = parts.filter_map(|part| part["raw"].as_str()).collect();
    assert_eq!(raw, [STANDARD.encode([0, 255, 7])], "bytes are base64: {task}");
}

pub async fn an_answer_may_be_a_message(bench: &Bench) {
    let Some(driver) = bench.stranger_driver().await else {
        return; // The SDK answers with tasks, as it may.
    };
    let answer = driver.ok(Operation::SendMessage, say("message")).await;
    let message = &answer["message"];
    assert_eq!(message["role"], "ROLE_AGENT", "{answer}");
    assert!(message["messageId"].is_string(), "{answer}");
    assert!(message["contextId"].is_string(), "{answer}");
}

pub async fn nonsense_of_an_agent_is_told(bench: &Bench) {
    let Some(driver) = bench.stranger_driver().await else {
        return;
    };
    let outcome = driver.call(Operation::SendMessage, say("nonsense")).await;
    refused(
        outcome,
        INVALID_AGENT_RESPONSE,
        "an answer that is neither task nor message",
    );
    let outcome = driver
        .first_of_stream(Operation::SendStreamingMessage, say("nonsense"))
        .await;
    refused(
        outcome,
        INVALID_AGENT_RESPONSE,
        "a stream that begins with neither",
    );
    let mut events = driver
        .stream(Operation::SendStreamingMessage, say("late nonsense"))
        .await;
    super::opening(&mut events).await;
    let next = events.try_next().await.expect("no end without a word");
    let outcome = next.map(|value| Answer {
        value,
        media_type: String::new(),
    });
    refused(
        outcome,
        INVALID_AGENT_RESPONSE,
        "what is no event within a stream",
    );
}

//! How things look on the wire.

use serde_json::{Value, json};

use super::{list, read, say, say_in, state_of, task_of, unique, waiting};
use crate::bench::{Bench, Subject};
use crate::driver::{Binding, Driver, Operation};
use crate::errors::{CONTENT_TYPE_NOT_SUPPORTED, refused};
use crate::puppet::Persona;

pub async fn bindings_agree(bench: &Bench) {
    let driver = bench.driver().await;
    let context = unique("context");
    let made = task_of(&driver, say_in(&context, "artifact")).await;
    let list = json!({ "contextId": context, "includeArtifacts": true });
    let (mut seen, mut streamed) = (Vec::new(), Vec::new());
    for binding in Binding::ALL {
        let driver = bench.driver_over(binding).await;
        let got = read(&driver, &made).await;
        let listed = driver.ok(Operation::ListTasks, list.clone()).await;
        seen.push(same_times(json!([got, listed["tasks"], listed["totalSize"]])));
        let events = driver.stream(Operation::SendStreamingMessage, say("artifact"));
        let events = events.await.rest().await;
        streamed.push(
            events
                .iter()
                .map(|event| super::kind(event).to_owned())
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(same_times(json!(made)), seen[0][0], "as it was answered");
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:#?}");
    assert!(streamed.iter().all(|one| *one == streamed[0]), "{streamed:?}");
}

/// The same with every time in one form, because JSON has more than one for the same.
fn same_times(value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(same_times).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                let time = value.as_str().filter(|_| name == "timestamp");
                let time = time.and_then(|text| text.parse::<jiff::Timestamp>().ok());
                (
                    name,
                    time.map_or_else(|| same_times(value), |time| json!(time.to_string())),
                )
            })
            .collect(),
        other => other,
    }
}

pub async fn json_is_proto_json(bench: &Bench) {
    if bench.binding == Binding::Grpc {
        return; // There is no JSON.
    }
    let driver = bench.driver().await;
    let context = unique("context");
    let task = task_of(&driver, say_in(&context, "artifact")).await;
    let listed = driver
        .ok(
            Operation::ListTasks,
            json!({ "contextId": context, "includeArtifacts": true }),
        )
        .await;
    let events = driver
        .stream(Operation::SendStreamingMessage, say("artifact"))
        .await
        .rest()
        .await;
    for value in [task.clone(), listed, json!(events)] {
        look(&value);
    }
    let history = list(&task, "history");
    assert_eq!(history[0]["role"], "ROLE_USER", "{task}");
}

/// Looks through what is not the user's own.
fn look(value: &Value) {
    match value {
        Value::Array(values) => values.iter().for_each(look),
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_camel = name.starts_with(|c: char| c.is_ascii_lowercase())
                    && name.chars().all(|c| c.is_ascii_alphanumeric());
                assert!(is_camel, "'{name}' is no lowerCamelCase: {value}");
                match name.as_str() {
                    "data" | "metadata" => {}
                    "state" => {
                        let state = value.as_str().unwrap_or_default();
                        assert!(state.starts_with("TASK_STATE_"), "{name}: {value}");
                    }
                    "role" => {
                        let role = value.as_str().unwrap_or_default();
                        assert!(["ROLE_USER", "ROLE_AGENT"].contains(&role), "{name}: {value}");
                    }
                    "timestamp" => {
                        let time = value.as_str().unwrap_or_default();
                        assert!(time.ends_with('Z'), "UTC as 'Z': {value}");
                        assert!(time.parse::<jiff::Timestamp>().is_ok(), "RFC 3339: {value}");
                    }
                    _ => {
                        assert!(!value.is_null(), "what is not set is left out: {name}");
                        look(value);
                    }
                }
            }
        }
        _ => {}
    }
}

pub async fn media_types(bench: &Bench) {
    let expected = match bench.binding {
        Binding::Grpc => return,
        Binding::JsonRpc => "application/json",
        Binding::HttpJson => "application/a2a+json",
    };
    let driver = bench.driver().await;
    // Errors were problems in an earlier draft of the protocol, and are with the official Rust server.
    let errors: &[&str] = match bench.binding {
        Binding::HttpJson => &[expected, "application/json", "application/problem+json"],
        _ => &[expected],
    };
    let answer = driver
        .call(Operation::SendMessage, say("echo"))
        .await
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(answer.media_type, expected);
    let refusal = driver
        .call(Operation::GetTask, json!({ "id": unique("nobody") }))
        .await
        .expect_err("nobody's");
    assert!(
        errors.contains(&refusal.media_type.as_str()),
        "an error: {}",
        refusal.media_type
    );
    let events = driver.stream(Operation::SendStreamingMessage, say("echo")).await;
    assert_eq!(events.media_type, "text/event-stream");
}

pub async fn both_media_types_are_taken(bench: &Bench) {
    if bench.binding != Binding::HttpJson {
        return;
    }
    let driver = bench.driver().await;
    for media_type in [
        "application/json",
        "application/a2a+json",
        "application/json; charset=utf-8",
    ] {
        let response = driver
            .post("/message:send", media_type, &say("echo").to_string())
            .await;
        assert_eq!(response.status, 200, "{media_type}");
        assert_eq!(
            state_of(&response.json()["task"]),
            "TASK_STATE_COMPLETED",
            "{media_type}"
        );
    }
}

pub async fn other_media_types_are_refused(bench: &Bench) {
    if bench.binding != Binding::HttpJson {
        return;
    }
    let driver = bench.driver().await;
    for media_type in ["text/plain", "application/xml"] {
        let response = driver
            .post("/message:send", media_type, &say("echo").to_string())
            .await;
        refused(
            Err(driver.refusal_in(&response)),
            CONTENT_TYPE_NOT_SUPPORTED,
            media_type,
        );
    }
}

pub async fn a_slash_at_the_end(bench: &Bench) {
    if bench.binding != Binding::JsonRpc {
        return;
    }
    let driver = bench.driver().await;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": say("echo") });
    let response = driver.post("/", "application/json", &body.to_string()).await;
    let answer = response.json();
    assert_eq!(
        state_of(&answer["result"]["task"]),
        "TASK_STATE_COMPLETED",
        "{answer}"
    );
}

pub async fn operations_take_a_tenant(bench: &Bench) {
    let driver = bench.driver().await;
    // The router's tenants are its targets, named at its root; an agent alone has none and takes any.
    let driver: Driver = match bench.subject {
        Subject::Router(_) => driver.at("", Persona::Whole.id()),
        Subject::Agent => driver.at(driver.path(), "anybody"),
    };
    let context = unique("context");
    let task = task_of(&driver, say_in(&context, "echo")).await;
    assert_eq!(state_of(&task), "TASK_STATE_COMPLETED", "{task}");
    assert_eq!(read(&driver, &task).await["id"], task["id"]);
    let listed = driver
        .ok(Operation::ListTasks, json!({ "contextId": context }))
        .await;
    assert_eq!(list(&listed, "tasks").len(), 1, "{listed}");
    let (working, name) = waiting(bench, &driver).await;
    let mut events = driver
        .stream(Operation::SubscribeToTask, json!({ "id": working["id"] }))
        .await;
    super::opening(&mut events).await;
    bench.signals.release(&name);
    super::ends_with(&events.rest().await, "TASK_STATE_COMPLETED");
    let events = driver
        .stream(Operation::SendStreamingMessage, say("echo"))
        .await
        .rest()
        .await;
    super::ends_with(&events, "TASK_STATE_COMPLETED");
    let (working, _) = waiting(bench, &driver).await;
    driver
        .ok(Operation::CancelTask, json!({ "id": working["id"] }))
        .await;
    // Those that are optional are at least found.
    let extended = driver.call(Operation::GetExtendedCard, json!({})).await;
    let push = driver
        .call(Operation::ListPush, json!({ "taskId": working["id"] }))
        .await;
    for outcome in [extended, push] {
        if let Err(refusal) = outcome {
            assert!(
                refusal
                    .info()
                    .is_some_and(|(_, domain)| domain == "a2a-protocol.org"),
                "one of the protocol's errors is due: {refusal}"
            );
        }
    }
}

//! Parameters that make no sense.

use serde_json::json;

use super::{say, task_of, waiting, with, without};
use crate::bench::Bench;
use crate::driver::{Binding, Operation};
use crate::errors::invalid;

pub async fn a_request_needs_a_message(bench: &Bench) {
    let driver = bench.driver().await;
    let outcome = driver.call(Operation::SendMessage, json!({})).await;
    invalid(outcome, "no message");
}

pub async fn a_message_needs_its_fields(bench: &Bench) {
    let driver = bench.driver().await;
    for (what, params) in [
        ("no messageId", without(say("echo"), "/message/messageId")),
        (
            "an empty messageId",
            with(say("echo"), "/message/messageId", json!("")),
        ),
        ("no parts", without(say("echo"), "/message/parts")),
        ("empty parts", with(say("echo"), "/message/parts", json!([]))),
        ("no role", without(say("echo"), "/message/role")),
        (
            "an unspecified role",
            with(say("echo"), "/message/role", json!("ROLE_UNSPECIFIED")),
        ),
    ] {
        let outcome = driver.call(Operation::SendMessage, params).await;
        invalid(outcome, what);
    }
}

pub async fn a_part_needs_content(bench: &Bench) {
    let driver = bench.driver().await;
    let params = with(
        say("echo"),
        "/message/parts",
        json!([{ "text": "echo" }, { "filename": "a.txt" }]),
    );
    let outcome = driver.call(Operation::SendMessage, params).await;
    invalid(outcome, "a part that is neither text nor raw nor url nor data");
}

pub async fn enums_are_checked(bench: &Bench) {
    let driver = bench.driver().await;
    // On gRPC an enum is a number.
    let (role, status) = if bench.binding == Binding::Grpc {
        (json!(99), json!(99))
    } else {
        (json!("ROLE_KING"), json!("TASK_STATE_ASLEEP"))
    };
    let params = with(say("echo"), "/message/role", role);
    let outcome = driver.call(Operation::SendMessage, params).await;
    invalid(outcome, "role");
    let outcome = driver
        .call(Operation::ListTasks, json!({ "status": status }))
        .await;
    invalid(outcome, "status");
}

pub async fn an_operation_needs_its_task(bench: &Bench) {
    if bench.binding == Binding::HttpJson {
        return; // The id is a part of the path.
    }
    let driver = bench.driver().await;
    for operation in [Operation::GetTask, Operation::CancelTask] {
        let outcome = driver.call(operation, json!({})).await;
        invalid(outcome, operation.method());
    }
    let outcome = driver
        .first_of_stream(Operation::SubscribeToTask, json!({}))
        .await;
    invalid(outcome, "SubscribeToTask");
}

pub async fn types_are_checked(bench: &Bench) {
    let driver = bench.driver().await;
    let task = task_of(&driver, say("echo")).await;
    let read = |length| json!({ "id": task["id"], "historyLength": length });
    let outcome = driver.call(Operation::GetTask, read(json!(-1))).await;
    invalid(outcome, "historyLength -1");
    if bench.binding == Binding::Grpc {
        return; // The rest is a matter of protobuf.
    }
    let outcome = driver.call(Operation::GetTask, read(json!("all"))).await;
    invalid(outcome, "historyLength 'all'");
    for (what, params) in [
        ("message", json!({ "message": "hello" })),
        (
            "parts",
            with(say("echo"), "/message/parts", json!({ "text": "echo" })),
        ),
        ("text", with(say("echo"), "/message/parts/0/text", json!(5))),
        (
            "returnImmediately",
            with(
                say("echo"),
                "/configuration",
                json!({ "returnImmediately": "maybe" }),
            ),
        ),
    ] {
        let outcome = driver.call(Operation::SendMessage, params).await;
        invalid(outcome, what);
    }
    let outcome = driver
        .call(Operation::ListTasks, json!({ "pageSize": "many" }))
        .await;
    invalid(outcome, "pageSize");
}

pub async fn a_config_needs_a_url(bench: &Bench) {
    let driver = bench.driver().await;
    let (task, name) = waiting(bench, &driver).await;
    for url in [None, Some(""), Some("nowhere"), Some("ftp://127.0.0.1/notify")] {
        let mut config = json!({ "taskId": task["id"] });
        if let Some(url) = url {
            config["url"] = json!(url);
        }
        let outcome = driver.call(Operation::CreatePush, config).await;
        invalid(outcome, &format!("url {url:?}"));
    }
    bench.signals.release(&name);
}

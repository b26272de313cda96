//! Versions and extensions.

use serde_json::{Value, json};

use super::{list, outcome, read, say, task_of};
use crate::bench::Bench;
use crate::driver::{Binding, Operation};
use crate::errors::{EXTENDED_CARD_NOT_CONFIGURED, EXTENSION_REQUIRED, VERSION_NOT_SUPPORTED, refused};
use crate::puppet::{Persona, REQUIRED_EXTENSION};

const VERSION: &str = "a2a-version";
const EXTENSIONS: &str = "a2a-extensions";

pub async fn another_version_is_refused(bench: &Bench) {
    let driver = bench.driver().await;
    let task = task_of(&driver, say("ask")).await;
    for version in ["0.3", "9.9", "one"] {
        let other = driver.header(VERSION, Some(version));
        for (operation, params) in operations(&task) {
            let what = format!("{} in {version}", operation.method());
            refused(
                outcome(&other, operation, params).await,
                VERSION_NOT_SUPPORTED,
                &what,
            );
        }
    }
    assert_eq!(read(&driver, &task).await, task, "nothing was done");
}

/// Every operation, about a task that asks.
fn operations(task: &Value) -> Vec<(Operation, Value)> {
    let id = &task["id"];
    let config = json!({ "taskId": id, "id": "c" });
    vec![
        (Operation::SendMessage, say("echo")),
        (Operation::SendStreamingMessage, say("echo")),
        (Operation::GetTask, json!({ "id": id })),
        (Operation::ListTasks, json!({})),
        (Operation::SubscribeToTask, json!({ "id": id })),
        (
            Operation::CreatePush,
            json!({ "taskId": id, "id": "c", "url": "http://127.0.0.1:9/notify" }),
        ),
        (Operation::GetPush, config.clone()),
        (Operation::ListPush, json!({ "taskId": id })),
        (Operation::DeletePush, config),
        (Operation::GetExtendedCard, json!({})),
        (Operation::CancelTask, json!({ "id": id })),
    ]
}

pub async fn another_version_in_the_query_is_refused(bench: &Bench) {
    if bench.binding == Binding::Grpc {
        return;
    }
    let driver = bench.driver().await.header(VERSION, None);
    for version in ["0.3", "9.9"] {
        let driver = driver.query(&format!("A2A-Version={version}"));
        let outcome = driver.call(Operation::SendMessage, say("echo")).await;
        refused(outcome, VERSION_NOT_SUPPORTED, version);
        let outcome = driver.call(Operation::ListTasks, json!({})).await;
        refused(outcome, VERSION_NOT_SUPPORTED, version);
    }
    task_of(&driver.query("A2A-Version=1.0"), say("echo")).await;
}

pub async fn no_version_means_0_3(bench: &Bench) {
    let driver = bench.driver().await;
    let outcome = driver
        .header(VERSION, None)
        .call(Operation::SendMessage, say("echo"))
        .await;
    refused(outcome, VERSION_NOT_SUPPORTED, "no version");
}

pub async fn patch_versions_do_not_matter(bench: &Bench) {
    let driver = bench.driver().await;
    for version in ["1.0", "1.0.1"] {
        task_of(&driver.header(VERSION, Some(version)), say("echo")).await;
    }
}

pub async fn a_required_extension_is_required(bench: &Bench) {
    declared(bench).await;
    let driver = bench.driver_of(Persona::Strict).await;
    let naming = driver.header(EXTENSIONS, Some(REQUIRED_EXTENSION));
    let task = task_of(&naming, say("ask")).await;
    for driver in [
        driver.clone(),
        driver.header(EXTENSIONS, Some("urn:example:another:v1")),
        // An earlier version of it is another extension.
        driver.header(EXTENSIONS, Some("urn:example:required:v0")),
    ] {
        for (operation, params) in operations(&task) {
            let outcome = outcome(&driver, operation, params).await;
            refused(outcome, EXTENSION_REQUIRED, operation.method());
        }
    }
    assert_eq!(read(&naming, &task).await, task, "nothing was done");
}

pub async fn a_required_extension_that_is_named_serves(bench: &Bench) {
    declared(bench).await;
    let driver = bench.driver_of(Persona::Strict).await;
    for extensions in [
        REQUIRED_EXTENSION.to_owned(),
        format!("urn:example:another:v1, {REQUIRED_EXTENSION}"),
    ] {
        let driver = driver.header(EXTENSIONS, Some(&extensions));
        let task = task_of(&driver, say("ask")).await;
        for (operation, params) in operations(&task) {
            let served = outcome(&driver, operation, params).await;
            if operation == Operation::GetExtendedCard {
                refused(served, EXTENDED_CARD_NOT_CONFIGURED, operation.method());
            } else {
                served.unwrap_or_else(|refusal| panic!("{}: {refusal}", operation.method()));
            }
        }
    }
}

pub async fn other_extensions_are_ignored(bench: &Bench) {
    let driver = bench.driver().await;
    let driver = driver.header(EXTENSIONS, Some("urn:example:another:v1,urn:example:third:v2"));
    task_of(&driver, say("echo")).await;
}

async fn declared(bench: &Bench) {
    let card = bench.card_json(Persona::Strict).await;
    let required = list(&card["capabilities"], "extensions")
        .iter()
        .any(|extension| extension["uri"] == REQUIRED_EXTENSION && extension["required"] == true);
    assert!(required, "the card declares what is required: {card}");
}

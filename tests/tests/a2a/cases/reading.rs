//! GetTask, and tasks that nobody knows.

use serde_json::json;

use super::{list, read, say, state_of, task_of, unique};
use crate::bench::Bench;
use crate::driver::Operation;
use crate::errors::{TASK_NOT_FOUND, refused};

pub async fn a_task_is_read(bench: &Bench) {
    let driver = bench.driver().await;
    let sent = task_of(&driver, say("echo hello")).await;
    let task = read(&driver, &sent).await;
    assert_eq!(
        (&task["id"], &task["contextId"], state_of(&task)),
        (&sent["id"], &sent["contextId"], "TASK_STATE_COMPLETED"),
        "{task}"
    );
    assert_eq!(list(&task, "artifacts"), list(&sent, "artifacts"));
}

pub async fn an_unknown_task_is_not_found(bench: &Bench) {
    let driver = bench.driver().await;
    let nobody = unique("nobody");
    for operation in [Operation::GetTask, Operation::CancelTask] {
        let outcome = driver.call(operation, json!({ "id": nobody })).await;
        refused(outcome, TASK_NOT_FOUND, operation.method());
    }
    let outcome = driver
        .first_of_stream(Operation::SubscribeToTask, json!({ "id": nobody }))
        .await;
    refused(outcome, TASK_NOT_FOUND, "SubscribeToTask");
}

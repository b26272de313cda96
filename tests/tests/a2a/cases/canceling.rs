//! CancelTask.

use serde_json::json;

use super::{ended, read, say, state_of, task_of, waiting};
use crate::bench::Bench;
use crate::driver::Operation;
use crate::errors::{TASK_NOT_CANCELABLE, refused};

pub async fn a_working_task_is_canceled(bench: &Bench) {
    let driver = bench.driver().await;
    let (task, _) = waiting(bench, &driver).await;
    let canceled = driver
        .ok(Operation::CancelTask, json!({ "id": task["id"] }))
        .await;
    assert_eq!(
        (&canceled["id"], state_of(&canceled)),
        (&task["id"], "TASK_STATE_CANCELED"),
        "{canceled}"
    );
    assert_eq!(state_of(&read(&driver, &task).await), "TASK_STATE_CANCELED");
}

pub async fn an_interrupted_task_is_canceled(bench: &Bench) {
    let driver = bench.driver().await;
    let task = task_of(&driver, say("ask")).await;
    let canceled = driver
        .ok(Operation::CancelTask, json!({ "id": task["id"] }))
        .await;
    assert_eq!(state_of(&canceled), "TASK_STATE_CANCELED", "{canceled}");
}

pub async fn a_terminal_task_is_not_cancelable(bench: &Bench) {
    let driver = bench.driver().await;
    for task in ended(bench, &driver).await {
        let outcome = driver
            .call(Operation::CancelTask, json!({ "id": task["id"] }))
            .await;
        if state_of(&task) == "TASK_STATE_CANCELED" {
            // To cancel again is no error and changes nothing.
            let again = outcome.unwrap_or_else(|refusal| panic!("{refusal}")).value;
            assert_eq!(again["status"], task["status"], "{again}");
            continue;
        }
        refused(outcome, TASK_NOT_CANCELABLE, state_of(&task));
        assert_eq!(
            state_of(&read(&driver, &task).await),
            state_of(&task),
            "a terminal state stays"
        );
    }
}

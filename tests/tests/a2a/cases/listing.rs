//! ListTasks: order, pages, filters.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{list, say, say_about, say_in, state_of, task_of, unique};
use crate::bench::Bench;
use crate::driver::{Binding, Driver, Operation};
use crate::errors::invalid;

pub async fn newest_first(bench: &Bench) {
    let driver = bench.driver().await;
    let context = unique("context");
    let first = task_of(&driver, say_in(&context, "ask")).await;
    for _ in 0..3 {
        task_of(&driver, say_in(&context, "echo")).await;
    }
    // The oldest task is the one that was changed last.
    let changed = task_of(&driver, say_about(&first, "Seattle")).await;
    let listed = driver
        .ok(Operation::ListTasks, json!({ "contextId": context }))
        .await;
    let times: Vec<Timestamp> = list(&listed, "tasks").iter().map(updated).collect();
    assert_eq!(times.len(), 4, "{listed}");
    assert!(
        times.windows(2).all(|pair| pair[0] >= pair[1]),
        "newest first: {times:?}"
    );
    assert_eq!(
        times[0],
        updated(&changed),
        "by the last update and not by creation: {listed}"
    );
}

pub async fn pages_follow_cursors(bench: &Bench) {
    let driver = bench.driver().await;
    let context = unique("context");
    let all = fill(&driver, &context, 5).await;
    let first = driver
        .ok(
            Operation::ListTasks,
            json!({ "contextId": context, "pageSize": 2 }),
        )
        .await;
    assert_eq!(
        (&first["pageSize"], &first["totalSize"]),
        (&json!(2), &json!(5)),
        "{first}"
    );
    // A newer task stands before the cursor, and moves nothing behind it.
    task_of(&driver, say_in(&context, "echo")).await;
    let mut sizes = Vec::new();
    let mut seen = Vec::new();
    let mut page = first;
    loop {
        sizes.push(list(&page, "tasks").len());
        seen.extend(list(&page, "tasks").iter().map(id));
        let token = page["nextPageToken"].as_str().unwrap_or_default();
        if token.is_empty() || sizes.len() > 5 {
            break;
        }
        let params = json!({ "contextId": context, "pageSize": 2, "pageToken": token });
        page = driver.ok(Operation::ListTasks, params).await;
    }
    assert_eq!(sizes, [2, 2, 1], "{seen:?}");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), all);
}

pub async fn pages_have_50_by_default_and_100_at_most(bench: &Bench) {
    let driver = bench.driver().await;
    let context = unique("context");
    fill(&driver, &context, 101).await;
    for (size, expected) in [(None, 50), (Some(100), 100), (Some(1), 1)] {
        let mut params = json!({ "contextId": context });
        if let Some(size) = size {
            params["pageSize"] = json!(size);
        }
        let page = driver.ok(Operation::ListTasks, params).await;
        assert_eq!(list(&page, "tasks").len(), expected, "pageSize {size:?}");
        assert!(
            page["nextPageToken"]
                .as_str()
                .is_some_and(|token| !token.is_empty()),
            "there are more: pageSize {size:?}"
        );
    }
}

pub async fn sizes_out_of_bounds(bench: &Bench) {
    let driver = bench.driver().await;
    let context = unique("context");
    fill(&driver, &context, 101).await;
    for size in [0, -1, 101, i32::MAX] {
        let params = json!({ "contextId": context, "pageSize": size });
        match driver.call(Operation::ListTasks, params).await {
            Ok(page) => {
                let tasks = list(&page.value, "tasks").len();
                assert!((1..=100).contains(&tasks), "pageSize {size}: {tasks} tasks");
            }
            refusal => invalid(refusal, &format!("pageSize {size}")),
        }
    }
}

pub async fn a_false_cursor_is_invalid(bench: &Bench) {
    let driver = bench.driver().await;
    let outcome = driver
        .call(Operation::ListTasks, json!({ "pageToken": "nobody gave this" }))
        .await;
    invalid(outcome, "pageToken");
}

pub async fn next_page_token_is_always_there(bench: &Bench) {
    if bench.binding == Binding::Grpc {
        return; // A field of protobuf is always there.
    }
    let driver = bench.driver().await;
    let context = unique("context");
    let empty = driver
        .ok(Operation::ListTasks, json!({ "contextId": context }))
        .await;
    task_of(&driver, say_in(&context, "echo")).await;
    let last = driver
        .ok(Operation::ListTasks, json!({ "contextId": context }))
        .await;
    for page in [empty, last] {
        assert_eq!(
            page.get("nextPageToken"),
            Some(&json!("")),
            "empty on the last page: {page}"
        );
        assert!(page["tasks"].is_array(), "tasks is required: {page}");
    }
}

pub async fn artifacts_only_on_request(bench: &Bench) {
    let driver = bench.driver().await;
    let context = unique("context");
    task_of(&driver, say_in(&context, "artifact")).await;
    for (wanted, params) in [
        (false, json!({ "contextId": context })),
        (false, json!({ "contextId": context, "includeArtifacts": false })),
        (true, json!({ "contextId": context, "includeArtifacts": true })),
    ] {
        let listed = driver.ok(Operation::ListTasks, params.clone()).await;
        let task = &listed["tasks"][0];
        assert!(task.is_object(), "{params}: {listed}");
        assert_eq!(
            task.get("artifacts").is_some(),
            wanted,
            "{params}: artifacts are left out or there: {listed}"
        );
    }
}

pub async fn by_status(bench: &Bench) {
    let driver = bench.driver().await;
    let context = unique("context");
    task_of(&driver, say_in(&context, "echo")).await;
    let asking = task_of(&driver, say_in(&context, "ask")).await;
    // The same state in another context.
    task_of(&driver, say("ask")).await;
    let params = json!({ "contextId": context, "status": "TASK_STATE_INPUT_REQUIRED" });
    let listed = driver.ok(Operation::ListTasks, params).await;
    let found: Vec<(String, &str)> = list(&listed, "tasks")
        .iter()
        .map(|task| (id(task), state_of(task)))
        .collect();
    assert_eq!(found, [(id(&asking), "TASK_STATE_INPUT_REQUIRED")], "{listed}");
    let params = json!({ "contextId": context, "status": "TASK_STATE_CANCELED" });
    let none = driver.ok(Operation::ListTasks, params).await;
    assert!(list(&none, "tasks").is_empty(), "{none}");
}

pub async fn by_time(bench: &Bench) {
    let driver = bench.driver().await;
    let context = unique("context");
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.push(task_of(&driver, say_in(&context, "echo")).await);
    }
    for since in &tasks {
        let moment = &since["status"]["timestamp"];
        let params = json!({ "contextId": context, "statusTimestampAfter": moment });
        let listed = driver.ok(Operation::ListTasks, params).await;
        let found: BTreeSet<String> = list(&listed, "tasks").iter().map(id).collect();
        let expected: BTreeSet<String> = tasks
            .iter()
            .filter(|task| updated(task) >= updated(since))
            .map(id)
            .collect();
        assert_eq!(found, expected, "since {moment}: {listed}");
    }
}

/// So many tasks in a context; their ids.
async fn fill(driver: &Driver, context: &str, count: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for _ in 0..count {
        ids.insert(id(&task_of(driver, say_in(context, "echo")).await));
    }
    ids
}

fn id(task: &Value) -> String {
    task["id"].as_str().unwrap_or_default().to_owned()
}

fn updated(task: &Value) -> Timestamp {
    let text = task["status"]["timestamp"].as_str();
    let text = text.unwrap_or_else(|| panic!("no time of the status: {task}"));
    text.parse().unwrap_or_else(|error| panic!("'{text}': {error}"))
}

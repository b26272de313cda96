//! Who may what, where callers are told apart.

use muster_runtime::trust::Role;
use serde_json::{Value, json};

use super::{list, outcome, read, say, say_about, say_in, task_of, unique, with};
use crate::bench::Bench;
use crate::driver::{Binding, Driver, Operation, Outcome, Refusal};
use crate::errors::{TASK_NOT_FOUND, forbidden, refused, unauthenticated};
use crate::guarded::Guarded;

pub async fn credentials_are_demanded(bench: &Bench) {
    let guarded = bench.guarded().await;
    let ada = guarded.driver("ada", Role::AgentWriter);
    let task = asked(&ada).await;
    let (expired, forged) = (guarded.expired(), Guarded::forged());
    for (what, shown) in [
        ("nothing", None),
        ("nonsense", Some("Bearer nonsense")),
        ("another scheme", Some("Basic YWRhOmFkYQ==")),
        ("a token that has expired", Some(expired.as_str())),
        ("a token of somebody else", Some(forged.as_str())),
    ] {
        let driver = guarded.showing(shown);
        for (operation, about) in operations() {
            let what = format!("{} with {what}", operation.method());
            let said = alike(&driver, operation, about, &task, |outcome| {
                unauthenticated(outcome, &what)
            })
            .await;
            assert!(
                shown.is_none_or(|shown| !said.contains(shown)),
                "{what}: what was shown is not repeated: {said}"
            );
        }
    }
    assert_eq!(read(&ada, &task).await, task, "nothing was done");
    // With credentials there is more to be seen.
    let card = ada.ok(Operation::GetExtendedCard, json!({})).await;
    assert_eq!(list(&card, "skills").len(), 2, "{card}");
}

pub async fn roles_are_demanded(bench: &Bench) {
    let guarded = bench.guarded().await;
    let task = asked(&guarded.driver("ada", Role::AgentWriter)).await;
    let reader = guarded.driver("ada", Role::AgentReader);
    for (operation, about) in operations() {
        let is_reading = matches!(
            operation,
            Operation::GetTask
                | Operation::ListTasks
                | Operation::SubscribeToTask
                | Operation::GetPush
                | Operation::ListPush
                | Operation::GetExtendedCard
        );
        if is_reading {
            let read = outcome(&reader, operation, about(&task)).await;
            read.unwrap_or_else(|refusal| panic!("{}: {refusal}", operation.method()));
        } else {
            let what = operation.method();
            alike(&reader, operation, about, &task, |outcome| {
                forbidden(outcome, what)
            })
            .await;
        }
    }
    assert_eq!(read(&reader, &task).await, task, "nothing was done");
}

pub async fn anothers_task_is_not_there(bench: &Bench) {
    let guarded = bench.guarded().await;
    let ada = guarded.driver("ada", Role::AgentWriter);
    let task = asked(&ada).await;
    let eve = guarded.driver("eve", Role::AgentWriter);
    for (operation, about) in operations() {
        if about(&task) == about(&json!({ "id": "another" })) {
            continue; // It is about no task.
        }
        let what = operation.method();
        alike(&eve, operation, about, &task, |outcome| {
            refused(outcome, TASK_NOT_FOUND, what)
        })
        .await;
    }
    assert_eq!(read(&ada, &task).await, task, "nothing was done");
    let push = json!({ "taskId": task["id"], "id": "c" });
    ada.ok(Operation::GetPush, push).await;
    let admin = guarded.driver("root", Role::Admin);
    assert_eq!(
        read(&admin, &task).await["id"],
        task["id"],
        "an admin sees everything"
    );
}

pub async fn lists_show_what_is_the_callers(bench: &Bench) {
    let guarded = bench.guarded().await;
    let (context, mut own) = (unique("context"), Vec::new());
    let names = [unique("ada"), unique("eve")];
    // They chose the same context, and take turns.
    for number in 0..6 {
        let driver = guarded.driver(&names[number % 2], Role::AgentWriter);
        own.push(task_of(&driver, say_in(&context, "echo")).await["id"].clone());
    }
    for (number, name) in names.iter().enumerate() {
        let driver = guarded.driver(name, Role::AgentReader);
        let mine: Vec<&Value> = own.iter().skip(number).step_by(2).rev().collect();
        for filter in [json!({}), json!({ "contextId": context })] {
            let mut seen = Vec::new();
            let mut params = with(filter.clone(), "/pageSize", json!(2));
            loop {
                let page = driver.ok(Operation::ListTasks, params.clone()).await;
                assert_eq!(page["totalSize"], 3, "{filter}: {page}");
                seen.extend(list(&page, "tasks").iter().map(|task| task["id"].clone()));
                let next = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
                if next.is_empty() || seen.len() > mine.len() {
                    break;
                }
                params["pageToken"] = json!(next);
            }
            assert_eq!(seen.iter().collect::<Vec<_>>(), mine, "{filter}");
        }
    }
    let nobody = guarded.driver(&unique("nobody"), Role::AgentReader);
    let page = nobody
        .ok(Operation::ListTasks, json!({ "contextId": context }))
        .await;
    assert!(list(&page, "tasks").is_empty(), "{page}");
    // Over gRPC a number that is none is not there; over HTTP it has to be.
    let total = match page.get("totalSize") {
        None if nobody.binding == Binding::Grpc => &json!(0),
        total => total.unwrap_or(&Value::Null),
    };
    assert_eq!(*total, json!(0), "{page}");
}

/// A task that asks, with a push configuration.
async fn asked(driver: &Driver) -> Value {
    let task = task_of(driver, say("ask")).await;
    let config = json!({ "taskId": task["id"], "id": "c", "url": "http://127.0.0.1:9/notify" });
    driver.ok(Operation::CreatePush, config).await;
    task
}

/// Parameters of an operation about a task.
type About = fn(&Value) -> Value;

/// Every operation.
fn operations() -> [(Operation, About); 11] {
    fn named(task: &Value) -> Value {
        json!({ "id": task["id"] })
    }
    fn config(task: &Value) -> Value {
        json!({ "taskId": task["id"], "id": "c" })
    }
    [
        (Operation::SendMessage, |task| say_about(task, "Seattle")),
        (Operation::SendStreamingMessage, |task| say_about(task, "Seattle")),
        (Operation::GetTask, named),
        (Operation::ListTasks, |_| json!({})),
        (Operation::CancelTask, named),
        (Operation::SubscribeToTask, named),
        (
            Operation::CreatePush,
            |task| json!({ "taskId": task["id"], "id": "c", "url": "http://127.0.0.1:9/elsewhere" }),
        ),
        (Operation::GetPush, config),
        (Operation::ListPush, |task| json!({ "taskId": task["id"] })),
        (Operation::DeletePush, config),
        (Operation::GetExtendedCard, |_| json!({})),
    ]
}

/// An operation is refused in the same words whether the task is there or not; gives them.
async fn alike(
    driver: &Driver,
    operation: Operation,
    about: About,
    task: &Value,
    refused: impl Fn(Outcome) -> Refusal,
) -> String {
    let nobodys = json!({ "id": unique("nobody") });
    let mut said = Vec::new();
    for task in [task, &nobodys] {
        let refusal = refused(outcome(driver, operation, about(task)).await);
        let words = format!("{refusal} {}", json!(refusal.details));
        let words = words.replace(task["id"].as_str().expect("an id"), "ID");
        // How many seconds ago a token has ended may rise between the two.
        let is_time = |word: &str| word.parse::<u64>().is_ok();
        let words = words
            .split(' ')
            .map(|word| if is_time(word) { "N" } else { word });
        said.push(words.collect::<Vec<_>>().join(" "));
    }
    assert_eq!(
        said[0],
        said[1],
        "{}: it tells whether the task exists",
        operation.method()
    );
    said.remove(0)
}

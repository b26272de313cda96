//! Push notifications: their configurations, and what is sent.

use serde_json::{Value, json};

use super::{becomes, kind, list, say, say_and_go, task_of, unique, waiting, with};
use crate::bench::Bench;
use crate::driver::{Driver, Operation};
use crate::errors::{PUSH_NOT_SUPPORTED, TASK_NOT_FOUND, refused};
use crate::puppet::Persona;
use crate::webhook::Webhook;

const COMPLETED: &str = "TASK_STATE_COMPLETED";

pub async fn without_push_it_is_refused(bench: &Bench) {
    let card = bench.card_json(Persona::Plain).await;
    assert_ne!(card["capabilities"]["pushNotifications"], true, "{card}");
    let driver = bench.driver_of(Persona::Plain).await;
    let task = task_of(&driver, say("ask")).await;
    let id = &task["id"];
    for (operation, params) in operations(id, "http://127.0.0.1:9/notify") {
        let outcome = driver.call(operation, params).await;
        refused(outcome, PUSH_NOT_SUPPORTED, operation.method());
    }
}

pub async fn configs_are_kept(bench: &Bench) {
    let driver = bench.driver().await;
    let (task, name) = waiting(bench, &driver).await;
    let id = &task["id"];
    let url = "http://127.0.0.1:9/notify";
    let named = json!({
        "taskId": id, "id": "mine", "url": url, "token": "t",
        "authentication": { "scheme": "Bearer", "credentials": "c" },
    });
    let created = driver.ok(Operation::CreatePush, named.clone()).await;
    assert_eq!(
        (&created["id"], &created["taskId"], &created["url"]),
        (&json!("mine"), id, &json!(url)),
        "{created}"
    );
    let unnamed = driver
        .ok(Operation::CreatePush, json!({ "taskId": id, "url": url }))
        .await;
    let given = unnamed["id"].as_str().unwrap_or_default().to_owned();
    assert!(!given.is_empty() && given != "mine", "an id is made: {unnamed}");

    let mine = json!({ "taskId": id, "id": "mine" });
    let got = driver.ok(Operation::GetPush, mine.clone()).await;
    assert_eq!((&got["id"], &got["url"]), (&json!("mine"), &json!(url)), "{got}");
    assert_eq!(ids(&driver, id).await, {
        let mut both = vec!["mine".to_owned(), given.clone()];
        both.sort();
        both
    });

    // Creating it again replaces it.
    let moved = with(named, "/url", json!("http://127.0.0.1:9/moved"));
    driver.ok(Operation::CreatePush, moved).await;
    let got = driver.ok(Operation::GetPush, mine.clone()).await;
    assert_eq!(got["url"], "http://127.0.0.1:9/moved", "{got}");

    for _ in 0..2 {
        driver.ok(Operation::DeletePush, mine.clone()).await;
    }
    assert_eq!(ids(&driver, id).await, [given]);
    let outcome = driver.call(Operation::GetPush, mine).await;
    refused(
        outcome,
        TASK_NOT_FOUND,
        "GetTaskPushNotificationConfig after deletion",
    );
    bench.signals.release(&name);
}

pub async fn configs_belong_to_known_tasks(bench: &Bench) {
    let driver = bench.driver().await;
    let nobody = json!(unique("nobody"));
    for (operation, params) in operations(&nobody, "http://127.0.0.1:9/notify") {
        let outcome = driver.call(operation, params).await;
        refused(outcome, TASK_NOT_FOUND, operation.method());
    }
}

pub async fn updates_are_delivered(bench: &Bench) {
    let driver = bench.driver().await;
    let webhook = Webhook::start().await;
    let (task, name) = waiting(bench, &driver).await;
    let config = json!({
        "taskId": task["id"], "url": webhook.url(), "token": "token-of-the-client",
        "authentication": { "scheme": "Bearer", "credentials": "secret" },
    });
    driver.ok(Operation::CreatePush, config).await;
    bench.signals.release(&name);
    webhook.told(COMPLETED).await;
    for delivery in webhook.deliveries() {
        assert_eq!(delivery.method, "POST");
        assert_eq!(delivery.header("content-type"), "application/a2a+json");
        assert_eq!(delivery.header("authorization"), "Bearer secret");
        let tokens = ["a2a-notification-token", "x-a2a-notification-token"];
        assert!(
            tokens
                .iter()
                .any(|name| delivery.header(name) == "token-of-the-client"),
            "{:?}",
            delivery.headers
        );
        let about = match kind(&delivery.body) {
            "task" => &delivery.body["task"]["id"],
            kind => &delivery.body[kind]["taskId"],
        };
        assert_eq!(about, &task["id"], "{}", delivery.body);
    }
}

pub async fn a_failed_delivery_is_retried(bench: &Bench) {
    let driver = bench.driver().await;
    let webhook = Webhook::failing(1).await;
    let (task, name) = waiting(bench, &driver).await;
    configure(&driver, &task, &webhook).await;
    bench.signals.release(&name);
    webhook.told(COMPLETED).await;
    let deliveries = webhook.deliveries();
    assert!(!deliveries[0].taken);
    assert!(
        deliveries
            .iter()
            .any(|delivery| delivery.taken && delivery.body == deliveries[0].body),
        "what was refused comes again: {deliveries:?}"
    );
}

pub async fn a_message_may_bring_its_config(bench: &Bench) {
    let driver = bench.driver().await;
    let webhook = Webhook::start().await;
    let name = unique("wait");
    let params = with(
        say_and_go(&format!("wait {name}")),
        "/configuration/taskPushNotificationConfig",
        json!({ "url": webhook.url() }),
    );
    let task = task_of(&driver, params).await;
    assert_eq!(
        ids(&driver, &task["id"]).await.len(),
        1,
        "it is kept like any other"
    );
    bench.signals.release(&name);
    webhook.told(COMPLETED).await;
}

pub async fn a_deleted_config_is_silent(bench: &Bench) {
    let driver = bench.driver().await;
    let (deleted, kept) = (Webhook::start().await, Webhook::start().await);
    let (task, name) = waiting(bench, &driver).await;
    let config = configure(&driver, &task, &deleted).await;
    configure(&driver, &task, &kept).await;
    driver
        .ok(
            Operation::DeletePush,
            json!({ "taskId": task["id"], "id": config["id"] }),
        )
        .await;
    bench.signals.release(&name);
    becomes(&driver, &task, COMPLETED).await;
    kept.told(COMPLETED).await;
    let told = deleted.deliveries();
    assert!(
        told.iter().all(|delivery| delivery.state() != Some(COMPLETED)),
        "{told:?}"
    );
}

async fn configure(driver: &Driver, task: &Value, webhook: &Webhook) -> Value {
    let config = json!({ "taskId": task["id"], "url": webhook.url() });
    driver.ok(Operation::CreatePush, config).await
}

/// Ids of a task's configurations, sorted.
async fn ids(driver: &Driver, task: &Value) -> Vec<String> {
    let listed = driver.ok(Operation::ListPush, json!({ "taskId": task })).await;
    let mut ids: Vec<String> = list(&listed, "configs")
        .iter()
        .map(|config| config["id"].as_str().unwrap_or_default().to_owned())
        .collect();
    ids.sort();
    ids
}

/// All operations on configurations.
fn operations(task: &Value, url: &str) -> [(Operation, Value); 4] {
    [
        (Operation::CreatePush, json!({ "taskId": task, "url": url })),
        (Operation::GetPush, json!({ "taskId": task, "id": "any" })),
        (Operation::ListPush, json!({ "taskId": task })),
        (Operation::DeletePush, json!({ "taskId": task, "id": "any" })),
    ]
}

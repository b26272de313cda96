//! Push notifications: their configurations, and what is sent.

use serde_json::{Value, json};

use super::{becomes, kind, list, read, say, say_and_go, task_of, unique, waiting, with};
use crate::bench::Bench;
use crate::driver::{Driver, Operation};
use crate::errors::{PUSH_NOT_SUPPORTED, TASK_NOT_FOUND, invalid, refused};
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
    let before = ids(&driver, id).await;
    bench.signals.release(&name);
    becomes(&driver, &task, COMPLETED).await;
    assert_eq!(ids(&driver, id).await, before, "they outlast the task's end");
}

pub async fn configs_come_in_pages(bench: &Bench) {
    let driver = bench.driver().await;
    let task = task_of(&driver, say("ask")).await;
    let mut made = Vec::new();
    for number in 0..5 {
        let name = format!("config-{number}");
        let config = json!({ "taskId": task["id"], "id": name, "url": "http://127.0.0.1:9/notify" });
        driver.ok(Operation::CreatePush, config).await;
        made.push(name);
    }
    let (mut sizes, mut seen, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let mut params = json!({ "taskId": task["id"], "pageSize": 2 });
        if !token.is_empty() {
            params["pageToken"] = json!(token);
        }
        let page = driver.ok(Operation::ListPush, params).await;
        let configs = list(&page, "configs");
        sizes.push(configs.len());
        seen.extend(
            configs
                .iter()
                .map(|config| config["id"].as_str().unwrap_or_default().to_owned()),
        );
        token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() || sizes.len() > 5 {
            break;
        }
    }
    assert_eq!(sizes, [2, 2, 1], "{seen:?}");
    seen.sort();
    assert_eq!(seen, made);
    for (what, params) in [
        ("pageSize -1", json!({ "taskId": task["id"], "pageSize": -1 })),
        (
            "a token that nobody gave",
            json!({ "taskId": task["id"], "pageToken": "nobody gave this" }),
        ),
    ] {
        invalid(driver.call(Operation::ListPush, params).await, what);
    }
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
    let webhook = Webhook::answering(&[500, 503, 429]).await;
    let (task, name) = counting(bench, &driver, &webhook).await;
    bench.signals.release(&name);
    webhook.told(COMPLETED).await;
    let deliveries = webhook.deliveries();
    let first = &deliveries[..4];
    assert!(
        first.iter().all(|delivery| delivery.body == deliveries[0].body),
        "what was not taken comes again before anything else: {deliveries:?}"
    );
    let waits: Vec<_> = first.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(
        waits.iter().all(|wait| !wait.is_zero()),
        "there are pauses: {waits:?}"
    );
    let taken: Vec<Value> = deliveries
        .into_iter()
        .filter(|delivery| delivery.taken)
        .map(|delivery| delivery.body)
        .collect();
    let steps: Vec<&str> = taken
        .iter()
        .filter_map(|body| body["statusUpdate"]["status"]["message"]["parts"][0]["text"].as_str())
        .collect();
    assert_eq!(
        steps,
        ["step 1", "step 2", "step 3", "counted"],
        "in order, each once"
    );
    let end = read(&driver, &task).await;
    assert_eq!(
        taken.last().map(|body| &body["statusUpdate"]["status"]),
        Some(&end["status"])
    );
}

pub async fn a_refused_delivery_is_not_the_last(bench: &Bench) {
    let driver = bench.driver().await;
    for refusal in [400, 410, 413, 422] {
        let webhook = Webhook::refusing_artifacts(refusal).await;
        let (_, name) = counting(bench, &driver, &webhook).await;
        bench.signals.release(&name);
        webhook.told(COMPLETED).await;
        let deliveries = webhook.deliveries();
        let refused = deliveries.iter().filter(|delivery| !delivery.taken);
        assert_eq!(
            refused.count(),
            2,
            "both artifacts, and once each: {deliveries:?}"
        );
    }
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
        told.is_empty(),
        "the task said nothing before the deletion: {told:?}"
    );
}

/// A task that reports three steps and gives artifacts when it is released, all of which the webhook is told.
async fn counting(bench: &Bench, driver: &Driver, webhook: &Webhook) -> (Value, String) {
    let name = unique("count");
    let task = task_of(driver, say_and_go(&format!("count 3 {name}"))).await;
    bench.signals.reached(&name).await;
    configure(driver, &task, webhook).await;
    (task, name)
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

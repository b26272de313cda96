//! The agent as its callers see it: a real server, asked over JSON-RPC.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use muster_agent_customer_service::{Settings, defaults, run};
use muster_runtime::{Error, Listeners, Shutdown};
use muster_testkit::http::{self, Method};
use muster_testkit::wait_for;
use serde_json::{Value, json};
use tokio::task::JoinSet;

static MESSAGES: AtomicU32 = AtomicU32::new(0);

/// Sends a message, on the task given or on a new one, and gives the task.
async fn send(address: SocketAddr, skill: &str, part: Value, task: Option<&Value>) -> Value {
    let id = MESSAGES.fetch_add(1, Ordering::Relaxed).to_string();
    let mut message =
        json!({"messageId": id, "role": "ROLE_USER", "parts": [part], "metadata": {"skill": skill}});
    if let Some(task) = task {
        message["taskId"] = task["id"].clone();
        message["contextId"] = task["contextId"].clone();
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}});
    let headers = [("content-type", "application/json"), ("a2a-version", "1.0")];
    let answer = http::send(
        address,
        Method::POST,
        "/jsonrpc",
        &headers,
        body.to_string().into(),
    );
    let answer = answer.await.expect("the agent answers").json();
    assert!(answer["error"].is_null(), "{answer}");
    answer["result"]["task"].clone()
}

fn result(task: &Value) -> &Value {
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{task}");
    &task["artifacts"][0]["parts"][0]["data"]
}

#[tokio::test]
async fn questions_are_answered_asked_back_and_escalated() {
    let listeners = Listeners::ephemeral().unwrap();
    let (address, health) = (listeners.data_address(), listeners.health_address());
    let shutdown = Shutdown::new();
    let mut server = JoinSet::new();
    let mut config = defaults();
    config.agent.data_directory = std::path::PathBuf::new();
    server.spawn(run(config, listeners, shutdown.clone()));
    wait_for("the agent", Duration::from_secs(20), async || {
        http::get(health, "/startup").await
    })
    .await;

    let question = json!({"text": "How does the router choose an instance?"});
    let task = send(address, "customer_inquiry", question, None).await;
    assert_eq!(result(&task)["source"]["file"], "routing.md");

    let task = send(address, "customer_inquiry", json!({"text": "heartbeats"}), None).await;
    let asked = send(address, "customer_inquiry", json!({"text": "agents"}), None).await;
    assert_eq!(asked["status"]["state"], "TASK_STATE_INPUT_REQUIRED", "{asked}");
    assert!(task["id"] != asked["id"]);
    let candidates = &asked["status"]["message"]["parts"][1]["data"]["candidates"];
    let settled = send(address, "customer_inquiry", json!({"text": "1"}), Some(&asked)).await;
    assert_eq!(result(&settled)["source"]["topic"], candidates[0]["topic"]);

    let mut task = send(address, "customer_inquiry", json!({"text": "agents"}), None).await;
    for reply in ["hm", "still not", "no idea"] {
        assert_eq!(task["status"]["state"], "TASK_STATE_INPUT_REQUIRED", "{task}");
        task = send(address, "customer_inquiry", json!({"text": reply}), Some(&task)).await;
    }
    assert_eq!(result(&task)["escalation"]["reasons"], json!(["attempts"]));

    let issue = json!({"data": {"issue": "The port is already in use", "customer": "Ada"}});
    let task = send(address, "issue_resolution", issue, None).await;
    assert!(result(&task)["steps"].as_array().unwrap().len() >= 3);

    let facts = json!({"data": {"customer": "Ada", "subject": "Rain", "facts": {"rainy_days": 3}}});
    let task = send(address, "customer_notification", facts, None).await;
    assert!(
        result(&task)["message"]["body"]
            .as_str()
            .unwrap()
            .contains("Dear Ada,\n\n- Rainy days: 3")
    );

    let wrong = json!({"data": {"question": "x", "complexity": 11}});
    let task = send(address, "escalation", wrong, None).await;
    assert_eq!(task["status"]["state"], "TASK_STATE_REJECTED");
    assert_eq!(task["status"]["message"]["metadata"]["field"], "complexity");

    shutdown.trigger();
    server.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_unusable_folder_is_a_configuration_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = defaults();
    config.settings = Settings {
        knowledge_directory: Some(folder.path().join("missing")),
        ..Settings::default()
    };
    let error = run(config, Listeners::ephemeral().unwrap(), Shutdown::new())
        .await
        .unwrap_err();
    assert!(matches!(&error, Error::Config(_)) && error.exit_code() == 2);
    assert!(
        error.to_string().contains("settings.knowledge_directory"),
        "{error}"
    );
}

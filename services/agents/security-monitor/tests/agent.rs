//! The agent as its callers see it: a real server, asked over JSON-RPC.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use muster_agent_security_monitor::{Settings, defaults, run};
use muster_runtime::{Error, Listeners, Shutdown};
use muster_testkit::http::{self, Method};
use muster_testkit::wait_for;
use serde_json::{Value, json};
use tokio::task::JoinSet;

static MESSAGES: AtomicU32 = AtomicU32::new(0);

const LOG: &str = include_str!("../samples/auth.log");

async fn send(address: SocketAddr, skill: &str, part: Value) -> Value {
    let id = MESSAGES.fetch_add(1, Ordering::Relaxed).to_string();
    let message = json!({"messageId": id, "role": "ROLE_USER", "parts": [part],
        "metadata": {"skill": skill}});
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
async fn a_log_becomes_findings_and_findings_become_a_plan() {
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

    let log = json!({"data": {"log": LOG, "format": "syslog", "year": 2025}});
    let detected = send(address, "threat_detection", log).await;
    let detected = result(&detected);
    assert_eq!(detected["findings"][0]["rule"], "ssh_login_after_brute_force");
    assert_eq!(detected["findings"][0]["first_seen"], "2025-03-14T08:31:10.000Z");
    assert_eq!(
        (&detected["risk"]["level"], &detected["by_severity"]["critical"]),
        (&json!("critical"), &json!(1))
    );

    let findings = json!({"data": {"findings": detected["findings"]}});
    let planned = send(address, "incident_response", findings).await;
    assert_eq!(result(&planned)["triage"], "P1");
    assert_eq!(result(&planned)["plan"][0]["phase"], "contain");

    let counted = send(
        address,
        "security_analysis",
        json!({"text": LOG, "filename": "auth.log"}),
    )
    .await;
    assert_eq!(result(&counted)["sources"][0]["source"], "192.0.2.143");

    let typed = send(address, "threat_detection", json!({"text": LOG})).await;
    assert_eq!(result(&typed)["log"]["malformed"], 0.0);

    let nothing = send(address, "threat_detection", json!({"text": "hello"})).await;
    assert_eq!(nothing["status"]["state"], "TASK_STATE_REJECTED", "{nothing}");
    assert_eq!(nothing["status"]["message"]["metadata"]["field"], "text");

    shutdown.trigger();
    server.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_bad_rule_is_reported_with_its_file_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.yml"), "title: [").unwrap();
    let mut config = defaults();
    config.settings = Settings {
        rules_directory: Some(folder.path().to_owned()),
    };
    let error = run(config, Listeners::ephemeral().unwrap(), Shutdown::new())
        .await
        .unwrap_err();
    assert!(matches!(&error, Error::Config(_)) && error.exit_code() == 2);
    assert!(error.to_string().contains("broken.yml"), "{error}");
}

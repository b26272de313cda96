//! The agent as its callers see it: a real server, asked over JSON-RPC.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use muster_agent_data_analysis::{defaults, run};
use muster_runtime::{Listeners, Shutdown};
use muster_testkit::http::{self, Method};
use muster_testkit::wait_for;
use serde_json::{Value, json};
use tokio::task::JoinSet;

static MESSAGES: AtomicU32 = AtomicU32::new(0);

/// Sends a message and gives the task that it made.
async fn send(address: SocketAddr, skill: &str, parts: Value) -> Value {
    let id = MESSAGES.fetch_add(1, Ordering::Relaxed).to_string();
    let message = json!({"messageId": id, "role": "ROLE_USER", "parts": parts,
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

#[tokio::test]
async fn tables_are_analysed_and_mistakes_are_named() {
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

    let csv =
        "day,city,rain\n2014-03-01,Seattle,2\n2014-03-02,Seattle,4\n2014-03-01,Oslo,6\n2014-03-02,Oslo,0\n";
    let operations = json!([
        {"type": "group_by", "by": ["city"], "aggregates": [{"function": "mean", "column": "rain", "as": "mean"}]},
        {"type": "sql", "query": "SELECT day FROM data WHERE rain > 3 ORDER BY day"},
        {"type": "chart", "kind": "line", "x": "day", "y": "rain", "series": "city"},
    ]);
    let task = send(
        address,
        "data_processing",
        json!([{"data": {"csv": csv, "operations": operations}}]),
    )
    .await;
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{task}");
    let result = &task["artifacts"][0];
    assert_eq!(result["name"], "result");
    let results = &result["parts"][0]["data"]["results"];
    assert_eq!(
        results[0]["rows"],
        json!([{"city": "Seattle", "mean": 3}, {"city": "Oslo", "mean": 3}])
    );
    assert_eq!(
        results[1]["rows"],
        json!([{"day": "2014-03-01"}, {"day": "2014-03-02"}])
    );
    let chart = &task["artifacts"][1]["parts"][0];
    assert_eq!(
        (&chart["filename"], &chart["mediaType"]),
        (&json!("chart.svg"), &json!("image/svg+xml"))
    );

    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let data = json!({"csv": csv, "operation": {"type": "sql", "query": endless}});
    let task = send(address, "data_processing", json!([{"data": data}])).await;
    assert_eq!(task["status"]["state"], "TASK_STATE_REJECTED", "{task}");
    let message = &task["status"]["message"];
    assert!(
        message["parts"][0]["text"].as_str().unwrap().contains("stopped"),
        "{message}"
    );
    assert_eq!(message["metadata"]["field"], "operation.query");

    let file = json!({"text": csv, "filename": "rain.csv", "mediaType": "text/csv"});
    let task = send(address, "statistical_analysis", json!([file])).await;
    assert_eq!(
        task["artifacts"][0]["parts"][0]["data"]["results"][0]["columns"][2]["mean"], 3.0,
        "{task}"
    );

    shutdown.trigger();
    server.join_next().await.unwrap().unwrap().unwrap();
}

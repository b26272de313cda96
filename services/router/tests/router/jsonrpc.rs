//! The JSON-RPC binding over HTTP/1.1, as a stranger's client sees it.

use std::net::SocketAddr;

use muster_testkit::{Answer, http};
use serde_json::{Value, json};
use tonic::Status;

use crate::harness::Stack;

fn params(message_id: &str) -> Value {
    json!({"message": {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "Seattle"}, {"data": {"days": 5}}]}})
}

async fn rpc(address: SocketAddr, path: &str, method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    let response = crate::harness::post(address, path, &body)
        .await
        .expect("an answer");
    assert_eq!(response.status, 200);
    let answer = response.json();
    assert_eq!(
        (&answer["jsonrpc"], &answer["id"]),
        (&json!("2.0"), &json!(7)),
        "{answer}"
    );
    answer
}

/// The `ErrorInfo` of an error.
fn info(answer: &Value) -> &Value {
    let data = answer["error"]["data"]
        .as_array()
        .unwrap_or_else(|| panic!("no data: {answer}"));
    data.iter()
        .find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo")
        .expect("an ErrorInfo")
}

#[tokio::test]
async fn messages_by_path_with_and_without_a_slash_and_by_tenant() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let address = stack.router.address;
    for (number, path) in [
        "/weather",
        "/weather/",
        "/skill:forecasting",
        "/skill%3Aforecasting",
    ]
    .iter()
    .enumerate()
    {
        let answer = rpc(address, path, "SendMessage", params(&format!("m{number}"))).await;
        let task = &answer["result"]["task"];
        assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{answer}");
        assert_eq!(
            task["artifacts"][0]["parts"][0]["data"],
            json!({"echo": "Seattle", "data": {"days": 5}})
        );
    }
    let mut by_tenant = params("m-tenant");
    by_tenant["tenant"] = json!("weather");
    rpc(address, "/", "SendMessage", by_tenant).await;
    assert_eq!(agent.calls().len(), 5);
    assert_eq!(agent.calls()[2].skill.as_deref(), Some("forecasting"));
}

#[tokio::test]
async fn tasks_are_read_listed_and_cancelled() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let address = stack.router.address;
    let sent = rpc(address, "/weather", "SendMessage", params("m")).await;
    let id = &sent["result"]["task"]["id"];
    for path in ["/", "/weather"] {
        assert_eq!(
            &rpc(address, path, "GetTask", json!({"id": id})).await["result"]["id"],
            id
        );
    }
    let listed = rpc(address, "/weather", "ListTasks", json!({})).await;
    assert_eq!(&listed["result"]["tasks"][0]["id"], id);
    assert_eq!(listed["result"]["nextPageToken"], "");
    let cancelled = rpc(address, "/", "CancelTask", json!({"id": id})).await;
    assert_eq!(cancelled["result"]["status"]["state"], "TASK_STATE_CANCELED");
}

#[tokio::test]
async fn streams_are_server_sent_events() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let body = json!({"jsonrpc": "2.0", "id": "s", "method": "SendStreamingMessage", "params": params("m")});
    let response = crate::harness::post(stack.router.address, "/weather", &body)
        .await
        .unwrap();
    assert_eq!(response.headers["content-type"], "text/event-stream");
    assert!(response.headers.contains_key("muster-instance"));
    let events: Vec<Value> = response
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| {
            assert_eq!(event["id"], "s");
            event["result"]
                .as_object()
                .unwrap()
                .keys()
                .next()
                .unwrap()
                .as_str()
        })
        .collect();
    assert_eq!(kinds, ["task", "artifactUpdate", "statusUpdate"]);
}

#[tokio::test]
async fn our_refusals_have_a_number_a_reason_and_a_remedy() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let address = stack.router.address;
    let mut expired = params("m");
    expired["metadata"] = json!({"urn:muster:a2a:routing:v1": {"ttl": 0}});
    let mut no_parts = params("m");
    no_parts["message"]["parts"] = json!([]);
    for (path, params, number, reason) in [
        ("/wether", params("m"), -32602, "AGENT_NOT_FOUND"),
        ("/skill:nothing", params("m"), -32602, "SKILL_NOT_FOUND"),
        ("/", params("m"), -32602, "TARGET_MISSING"),
        ("/weather", no_parts, -32602, "INVALID_FIELD"),
        ("/weather", expired, -32603, "MESSAGE_EXPIRED"),
    ] {
        let answer = rpc(address, path, "SendMessage", params).await;
        assert_eq!(answer["error"]["code"], number, "{answer}");
        assert_eq!(info(&answer)["reason"], reason);
        assert_eq!(info(&answer)["domain"], "muster");
        assert!(info(&answer)["metadata"]["remedy"].is_string());
    }
    let unknown = rpc(address, "/", "GetTask", json!({"id": "nobodys"})).await;
    assert_eq!(unknown["error"]["code"], -32001);
    assert_eq!(info(&unknown)["domain"], "a2a-protocol.org");
}

#[tokio::test]
async fn the_agents_errors_keep_their_text() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.script([Answer::Status(Status::failed_precondition(
        "the office is closed",
    ))]);
    let answer = rpc(stack.router.address, "/weather", "SendMessage", params("m")).await;
    assert_eq!(answer["error"]["message"], "the office is closed");
}

#[tokio::test]
async fn broken_envelopes_are_answered_as_json_rpc_has_it() {
    let stack = Stack::start().await;
    let address = stack.router.address;
    let post = async |body: &str| {
        let answer = http::send(
            address,
            http::Method::POST,
            "/",
            &[("a2a-version", "1.0")],
            body.to_owned().into(),
        )
        .await
        .unwrap();
        assert_eq!(answer.status, 200);
        answer.json()
    };
    assert_eq!(post("{not json").await["error"]["code"], -32700);
    let no_method = post(r#"{"jsonrpc": "2.0", "id": 3}"#).await;
    assert_eq!(
        (&no_method["error"]["code"], &no_method["id"]),
        (&json!(-32600), &json!(3))
    );
    assert_eq!(
        post(r#"{"jsonrpc": "1.0", "id": 3, "method": "GetTask"}"#).await["error"]["code"],
        -32600
    );
    let misspelt = post(r#"{"jsonrpc": "2.0", "id": 3, "method": "SendMesage", "params": {}}"#).await;
    assert_eq!(misspelt["error"]["code"], -32601);
    assert!(
        misspelt["error"]["message"]
            .as_str()
            .unwrap()
            .contains("SendMessage")
    );
    let typed = post(r#"{"jsonrpc": "2.0", "id": 3, "method": "GetTask", "params": {"id": 5}}"#).await;
    assert_eq!(typed["error"]["code"], -32602);
    let unknown_role = r#"{"jsonrpc": "2.0", "id": 3, "method": "SendMessage",
        "params": {"tenant": "weather", "message": {"messageId": "m", "role": "ROLE_KING", "parts": [{"text": "x"}]}}}"#;
    assert_eq!(post(unknown_role).await["error"]["code"], -32602);
}

#[tokio::test]
async fn versions_are_negotiated_by_header_or_query() {
    let stack = Stack::start().await;
    let address = stack.router.address;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "t"}}).to_string();
    for (path, headers) in [("/", &[("a2a-version", "0.3")][..]), ("/?A2A-Version=2.0", &[])] {
        let answer = http::send(address, http::Method::POST, path, headers, body.clone().into())
            .await
            .unwrap();
        assert_eq!(answer.json()["error"]["code"], -32009, "{path}");
    }
}

#[tokio::test]
async fn too_large_a_body_is_refused_with_the_limit() {
    let stack = Stack::configured(|config| config.server.max_message_bytes = 2048).await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let large = |length: usize| {
        let message = json!({"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x".repeat(length)}]});
        json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}})
    };
    let over_once_decoded = crate::harness::post(stack.router.address, "/weather", &large(3000))
        .await
        .unwrap();
    assert_eq!(info(&over_once_decoded.json())["reason"], "MESSAGE_TOO_LARGE");
    let not_even_read = crate::harness::post(stack.router.address, "/weather", &large(10_000))
        .await
        .unwrap();
    assert_eq!(not_even_read.status, 413);
    assert_eq!(info(&not_even_read.json())["reason"], "MESSAGE_TOO_LARGE");
}

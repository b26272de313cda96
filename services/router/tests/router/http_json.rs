//! The HTTP+JSON binding over HTTP/1.1, as a stranger's client sees it.

use std::net::SocketAddr;

use muster_testkit::http::{self, Method, Response};
use serde_json::{Value, json};

use crate::harness::Stack;

fn message(message_id: &str) -> Value {
    json!({"message": {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "Seattle"}, {"data": {"days": 5}}]}})
}

async fn send(address: SocketAddr, method: Method, path: &str, body: Option<&Value>) -> Response {
    let headers = [("content-type", "application/a2a+json"), ("a2a-version", "1.0")];
    let body = body.map(Value::to_string).unwrap_or_default();
    http::send(address, method, path, &headers, body.into())
        .await
        .expect("an answer")
}

async fn get(address: SocketAddr, path: &str) -> Response {
    send(address, Method::GET, path, None).await
}

/// The `ErrorInfo` of an error.
fn info(answer: &Value) -> &Value {
    answer["error"]["details"]
        .as_array()
        .unwrap_or_else(|| panic!("no details: {answer}"))
        .iter()
        .find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo")
        .expect("an ErrorInfo")
}

#[tokio::test]
async fn messages_and_tasks_by_path_with_the_target_in_front() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let address = stack.router.address;
    for (number, target) in ["weather", "skill:forecasting", "skill%3Aforecasting"]
        .iter()
        .enumerate()
    {
        let path = format!("/{target}/message:send");
        let answer = send(
            address,
            Method::POST,
            &path,
            Some(&message(&format!("m{number}"))),
        )
        .await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.headers["content-type"], "application/a2a+json");
        assert!(answer.headers.contains_key("muster-instance"));
        let task = &answer.json()["task"];
        assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED");
        let id = task["id"].as_str().unwrap();
        for prefix in [String::new(), format!("/{target}")] {
            let got = get(address, &format!("{prefix}/tasks/{id}?historyLength=0")).await;
            assert_eq!(got.json()["id"], id, "{}", got.text());
        }
    }
    let mut by_tenant = message("m-tenant");
    by_tenant["tenant"] = json!("weather");
    assert_eq!(
        send(address, Method::POST, "/message:send", Some(&by_tenant))
            .await
            .status,
        200
    );
    assert_eq!(agent.calls().len(), 4);
    assert_eq!(agent.calls()[1].skill.as_deref(), Some("forecasting"));

    let listed = get(address, "/weather/tasks?pageSize=2&includeArtifacts=true")
        .await
        .json();
    assert_eq!(listed["nextPageToken"], "", "{listed}");
    let id = listed["tasks"][0]["id"].as_str().unwrap().to_owned();
    let cancelled = send(
        address,
        Method::POST,
        &format!("/tasks/{id}:cancel"),
        Some(&json!({})),
    )
    .await;
    assert_eq!(cancelled.json()["status"]["state"], "TASK_STATE_CANCELED");
}

#[tokio::test]
async fn streams_are_server_sent_events_without_an_envelope() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let path = "/weather/message:stream";
    let response = send(stack.router.address, Method::POST, path, Some(&message("m"))).await;
    assert_eq!(response.headers["content-type"], "text/event-stream");
    let kinds: Vec<String> = response
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| {
            let event: Value = serde_json::from_str(data).unwrap();
            event.as_object().unwrap().keys().next().unwrap().clone()
        })
        .collect();
    assert_eq!(kinds, ["task", "artifactUpdate", "statusUpdate"]);
}

#[tokio::test]
async fn errors_have_their_status_reason_and_remedy() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let address = stack.router.address;
    let mut no_parts = message("m");
    no_parts["message"]["parts"] = json!([]);
    for (path, body, status, reason) in [
        ("/wether/message:send", message("m"), 404, "AGENT_NOT_FOUND"),
        ("/message:send", message("m"), 400, "TARGET_MISSING"),
        ("/weather/message:send", no_parts, 400, "INVALID_FIELD"),
        (
            "/weather/message:send",
            json!({"message": 7}),
            400,
            "INVALID_FIELD",
        ),
        ("/weather/message:send", json!([]), 400, "INVALID_FIELD"),
    ] {
        let answer = send(address, Method::POST, path, Some(&body)).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let error = answer.json();
        assert_eq!(error["error"]["code"], status);
        assert_eq!(info(&error)["reason"], reason);
        assert!(info(&error)["metadata"]["remedy"].is_string());
    }
    let unknown = get(address, "/tasks/nobodys").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["error"]["status"], "NOT_FOUND");
    assert_eq!(info(&unknown.json())["reason"], "TASK_NOT_FOUND");
    assert_eq!(info(&unknown.json())["domain"], "a2a-protocol.org");

    let wrong = send(address, Method::DELETE, "/tasks/t", None).await;
    assert_eq!(wrong.status, 405);
    assert_eq!(wrong.headers["allow"], "GET, HEAD");
    let old = http::get(address, "/tasks/t?A2A-Version=0.3").await.unwrap();
    assert_eq!(old.status, 400);
    let page = get(address, "/weather/tasks?pageSize=many").await;
    assert_eq!(page.status, 400);

    let body = message("m").to_string();
    let headers = [("content-type", "text/plain"), ("a2a-version", "1.0")];
    let plain = http::send(
        address,
        Method::POST,
        "/weather/message:send",
        &headers,
        body.into(),
    )
    .await
    .unwrap();
    assert_eq!(info(&plain.json())["reason"], "CONTENT_TYPE_NOT_SUPPORTED");
}

#[tokio::test]
async fn the_cards_name_the_way() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let card = get(stack.router.address, "/weather/.well-known/agent-card.json")
        .await
        .json();
    let interface = card["supportedInterfaces"]
        .as_array()
        .unwrap()
        .iter()
        .find(|interface| interface["protocolBinding"] == "HTTP+JSON")
        .unwrap();
    let url = interface["url"].as_str().unwrap();
    assert!(url.ends_with("/weather"), "{url}");
}

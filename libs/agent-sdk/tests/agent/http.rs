//! What a client sees over HTTP: JSON-RPC with SSE, HTTP+JSON, the card.

use http::{HeaderMap, StatusCode};
use muster_a2a::card::trust::Keys;
use muster_testkit::http::{Method, Response, get, send};
use serde_json::{Value, json};

use crate::stage::{Stage, say_and_go};

async fn post(stage: &Stage, path: &str, body: Value) -> Response {
    let headers = [("content-type", "application/json"), ("a2a-version", "1.0")];
    let body = body.to_string().into_bytes().into();
    send(stage.address, Method::POST, path, &headers, body)
        .await
        .unwrap()
}

fn message(text: &str) -> Value {
    json!({ "message": { "messageId": "m1", "role": "ROLE_USER", "parts": [{ "text": text }] } })
}

fn call(method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

#[tokio::test]
async fn jsonrpc_answers_at_every_path_that_clients_use() {
    let stage = Stage::open(|_| {}).await;
    for path in ["/", "/jsonrpc", "/jsonrpc/"] {
        let answer = post(&stage, path, call("SendMessage", &message("hello")))
            .await
            .json();
        let task = &answer["result"]["task"];
        assert_eq!(
            task["status"]["state"], "TASK_STATE_COMPLETED",
            "{path}: {answer}"
        );
        assert_eq!(task["artifacts"][0]["name"], "result");
        assert_eq!(task["artifacts"][0]["parts"][1]["text"], "echo hello");
    }
    stage.close().await;
}

#[tokio::test]
async fn numbers_mean_the_same_over_jsonrpc() {
    let stage = Stage::open(|_| {}).await;
    let params = json!({ "message": {
        "messageId": "m1", "role": "ROLE_USER", "parts": [{ "data": { "skill": "act", "days": 5 } }]
    } });
    let answer = post(&stage, "/", call("SendMessage", &params)).await.json();
    let mut result = answer["result"]["task"]["artifacts"][0]["parts"][0]["data"].clone();
    muster_api::json::restore_integers(&mut result);
    assert_eq!(result["data"], json!({ "days": 5 }));
    assert_eq!(result["skill"], "act");
    stage.close().await;
}

#[tokio::test]
async fn jsonrpc_streams_as_server_sent_events() {
    let stage = Stage::open(|_| {}).await;
    let answer = post(&stage, "/", call("SendStreamingMessage", &message("artifacts"))).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let text = answer.text();
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| serde_json::from_str(data.trim()).unwrap())
        .collect();
    assert_eq!(
        events[0]["result"]["task"]["status"]["state"],
        "TASK_STATE_SUBMITTED"
    );
    let last = &events.last().unwrap()["result"]["statusUpdate"]["status"];
    assert_eq!(last["state"], "TASK_STATE_COMPLETED");
    stage.close().await;
}

#[tokio::test]
async fn the_task_methods_work_over_jsonrpc_too() {
    let stage = Stage::open(|_| {}).await;
    let running = stage.client().send_message(say_and_go("wait")).await.unwrap();
    let id = crate::stage::task(running).id;
    let cancelled = post(&stage, "/", call("CancelTask", &json!({ "id": id })))
        .await
        .json();
    assert_eq!(
        cancelled["result"]["status"]["state"], "TASK_STATE_CANCELED",
        "{cancelled}"
    );
    let got = post(&stage, "/", call("GetTask", &json!({ "id": id })))
        .await
        .json();
    assert_eq!(got["result"]["id"], json!(id));
    let listed = post(&stage, "/", call("ListTasks", &json!({}))).await.json();
    assert_eq!(listed["result"]["tasks"][0]["id"], json!(id));
    let missing = post(&stage, "/", call("GetTask", &json!({ "id": "nobody" })))
        .await
        .json();
    assert_eq!(missing["error"]["code"], -32001);
    stage.close().await;
}

#[tokio::test]
async fn overload_is_typed_on_both_http_bindings() {
    let stage = Stage::open(|config| config.agent.max_concurrent_tasks = 1).await;
    stage.client().send_message(say_and_go("wait")).await.unwrap();

    let answer = post(&stage, "/", call("SendMessage", &message("hello"))).await;
    assert_eq!(answer.headers["retry-after"], "1");
    let error = &answer.json()["error"];
    let details = error["data"].as_array().unwrap();
    assert_eq!(details[0]["reason"], "AGENT_BUSY");
    assert_eq!(details[0]["domain"], "muster");
    assert!(
        details.iter().any(|detail| detail["retryDelay"] == "1s"),
        "{error}"
    );

    let streaming = post(&stage, "/", call("SendStreamingMessage", &message("hello")))
        .await
        .json();
    assert_eq!(streaming["error"]["data"][0]["reason"], "AGENT_BUSY");

    let answer = post(&stage, "/message:send", message("hello")).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let error = &answer.json()["error"];
    assert_eq!(error["status"], "RESOURCE_EXHAUSTED");
    assert_eq!(error["details"][0]["reason"], "AGENT_BUSY");
    stage.close().await;
}

#[tokio::test]
async fn http_json_is_served_on_the_same_port() {
    let stage = Stage::open(|_| {}).await;
    let answer = post(&stage, "/message:send", message("hello")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let id = answer.json()["task"]["id"].as_str().unwrap().to_owned();
    let path = format!("/tasks/{id}?A2A-Version=1.0");
    let got = get(stage.address, &path).await.unwrap().json();
    assert_eq!(got["status"]["state"], "TASK_STATE_COMPLETED");
    stage.close().await;
}

#[tokio::test]
async fn the_card_names_the_real_address_and_the_idempotent_skills() {
    let stage = Stage::open(|_| {}).await;
    let answer = get(stage.address, "/.well-known/agent-card.json").await.unwrap();
    let headers: &HeaderMap = &answer.headers;
    assert!(headers.contains_key("etag"));
    let card = answer.json();
    let address = stage.address.to_string();
    assert_eq!(card["supportedInterfaces"][0]["url"], json!(address));
    assert_eq!(
        card["supportedInterfaces"][1]["url"],
        format!("http://{address}/jsonrpc")
    );
    let extension = &card["capabilities"]["extensions"][0];
    assert_eq!(extension["uri"], muster_api::extension::ROUTING);
    assert_eq!(extension["params"]["idempotentSkills"], json!(["act"]));
    stage.close().await;
}

#[tokio::test]
async fn the_card_asks_for_a_token_where_one_has_to_be_shown() {
    let card = async |stage: &Stage| {
        let served = get(stage.address, "/.well-known/agent-card.json").await.unwrap();
        served.text()
    };
    let open = Stage::open(|_| {}).await;
    let said: Value = serde_json::from_str(&card(&open).await).unwrap();
    assert_eq!(
        (&said["securitySchemes"], &said["securityRequirements"]),
        (&Value::Null, &Value::Null)
    );
    open.close().await;

    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key.pem");
    muster_testkit::write_signing_key(&key);
    let guarded = Stage::open(|config| {
        config.trust.tokens.required = true;
        config.trust.tokens.jwt_secret_key =
            Some("known to the agent and to those who call it".to_owned().into());
        config.agent.card_signing.key_file = Some(key);
    })
    .await;
    let served = card(&guarded).await;
    let said: Value = serde_json::from_str(&served).unwrap();
    let scheme = &said["securitySchemes"]["bearer"]["httpAuthSecurityScheme"];
    assert_eq!(
        (&scheme["scheme"], &scheme["bearerFormat"]),
        (&json!("bearer"), &json!("JWT"))
    );
    let requirements = said["securityRequirements"].as_array().unwrap();
    assert!(requirements[0]["schemes"]["bearer"].is_object() && requirements.len() == 1);
    let keys = get(guarded.address, "/.well-known/jwks.json").await.unwrap();
    let keys = Keys::parse(&keys.text()).unwrap();
    let signed = muster_a2a::card::parse(served.as_bytes()).unwrap();
    assert_eq!(keys.verify(&signed), Ok(0));
    // It is as the card says.
    let answer = post(&guarded, "/message:send", message("hello")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
    guarded.close().await;
}

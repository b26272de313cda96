//! The engine over plain HTTP with JSON, as `curl` would ask: the same RPCs, the same errors.

use muster_api::workflow::RunStatus;
use muster_testkit::http::{self, Method, Response};
use serde_json::{Value, json};

use crate::harness::{Engine, document, send, until_calls};

const QUICK: &str = "  - done: {set: {a: 1}}\n";

async fn get(engine: &Engine, path: &str) -> Response {
    http::get(engine.address(), path).await.unwrap()
}

async fn post(engine: &Engine, path: &str, body: &Value) -> Response {
    http::post(engine.address(), path, body).await.unwrap()
}

/// HTTP status, reason and field of an error.
fn error(answer: &Response) -> (u16, String, String) {
    let error = &answer.json()["error"];
    assert_eq!(error["code"], answer.status.as_u16(), "{error}");
    let detail = |kind: &str| {
        let details = error["details"].as_array().unwrap();
        let is = |detail: &&Value| detail["@type"] == format!("type.googleapis.com/google.rpc.{kind}");
        details.iter().find(is).cloned().unwrap_or_default()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let info = detail("ErrorInfo");
    assert_eq!(info["domain"], "muster", "{error}");
    assert!(!text(&info["metadata"]["remedy"]).is_empty(), "{error}");
    let field = text(&detail("BadRequest")["fieldViolations"][0]["field"]);
    (answer.status.as_u16(), text(&info["reason"]), field)
}

#[tokio::test]
async fn a_run_is_started_read_and_listed() {
    let engine = Engine::start().await;
    let body = json!({"runId": "mine", "document": document(QUICK), "inputJson": "{}"});
    let started = post(&engine, "/v1/runs", &body).await;
    assert_eq!(
        (started.status.as_u16(), &started.json()["run"]["runId"]),
        (200, &json!("mine"))
    );
    assert_eq!(started.headers["content-type"], "application/json");
    engine.until("mine", RunStatus::Completed).await;

    let run = get(&engine, "/v1/runs/mine").await.json()["run"].take();
    assert_eq!(
        (&run["status"], &run["outputJson"]),
        (&json!("RUN_STATUS_COMPLETED"), &json!(r#"{"a":1}"#))
    );
    assert!(run["createdAt"].as_str().unwrap().ends_with('Z'), "{run}");

    post(
        &engine,
        "/v1/runs",
        &json!({"run_id": "other", "document": document(QUICK)}),
    )
    .await;
    engine.until("other", RunStatus::Completed).await;
    let first = get(
        &engine,
        "/v1/runs?pageSize=1&statuses=RUN_STATUS_COMPLETED&statuses=6",
    )
    .await
    .json();
    assert_eq!(first["runs"][0]["runId"], "other");
    let next = first["nextPageToken"].as_str().unwrap();
    let second = get(
        &engine,
        &format!("/v1/runs?page_size=1&statuses=RUN_STATUS_COMPLETED&statuses=6&pageToken={next}"),
    )
    .await;
    assert_eq!(second.json()["runs"][0]["runId"], "mine", "{}", second.text());
    let none = get(&engine, "/v1/runs?statuses=RUN_STATUS_FAULTED").await;
    assert_eq!(none.json(), json!({}));
}

#[tokio::test]
async fn the_catalogue_and_http2_work_alike() {
    let engine = Engine::start().await;
    let json = [("content-type", "application/json; charset=utf-8")];
    let body = json!({"document": document(QUICK)}).to_string();
    let applied = http::send_http2(
        engine.address(),
        Method::POST,
        "/v1/workflows",
        &json,
        body.into(),
    )
    .await
    .unwrap();
    assert_eq!(applied.json()["workflow"]["name"], "test", "{}", applied.text());
    let read = http::send_http2(
        engine.address(),
        Method::GET,
        "/v1/workflows/test?namespace=test",
        &[],
        "".into(),
    )
    .await
    .unwrap();
    assert_eq!(read.json()["workflow"]["document"], document(QUICK));
    let checked = post(&engine, "/v1/workflows:validate", &json!({"document": "do: 1"}))
        .await
        .json();
    assert_eq!(checked["problems"][0]["severity"], "error", "{checked}");
    assert_eq!(
        get(&engine, "/v1/workflows").await.json()["workflows"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(get(&engine, "/v1/status").await.status, 200);
}

#[tokio::test]
async fn a_watched_run_is_lines_or_events_to_its_end() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine
        .start_run(&document(&send("weather", "x")), "watched", "")
        .await
        .unwrap();
    engine.until_held(1).await;
    let path = "/v1/runs/watched:watch";
    let watching = async {
        let lines = get(&engine, path);
        let accept = [("accept", "text/event-stream")];
        let events = http::send(
            engine.address(),
            Method::GET,
            "/v1/runs/watched:watch?afterIndex=0",
            &accept,
            "".into(),
        );
        tokio::join!(lines, events)
    };
    let release = async {
        until_calls(&engine, 1).await;
        engine.router.release(1);
    };
    let ((lines, events), ()) = tokio::join!(watching, release);
    assert_eq!(lines.headers["content-type"], "application/x-ndjson");
    let text = lines.text();
    let read: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(read[0]["event"]["type"], "run.started", "{text}");
    assert_eq!(
        read.last().unwrap()["ended"]["status"],
        "RUN_STATUS_COMPLETED",
        "{text}"
    );

    let events = events.unwrap();
    assert_eq!(events.headers["content-type"], "text/event-stream");
    let text = events.text();
    let sent: Vec<&str> = text.split_terminator("\n\n").collect();
    assert!(sent.iter().all(|event| event.starts_with("data: {")), "{text}");
    assert_eq!(sent.len(), read.len() - 1, "the first is left out: {text}");
}

#[tokio::test]
async fn a_run_is_cancelled_without_a_body() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine
        .start_run(&document(&send("weather", "x")), "long", "")
        .await
        .unwrap();
    let cancelled = http::send(
        engine.address(),
        Method::POST,
        "/v1/runs/long:cancel",
        &[],
        "".into(),
    )
    .await
    .unwrap();
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    engine.until("long", RunStatus::Cancelled).await;
    let again = post(&engine, "/v1/runs/long:cancel", &json!({"reason": "again"})).await;
    assert_eq!(error(&again).0, 409);
    engine.router.release(1);
}

#[tokio::test]
async fn refusals_carry_reason_field_and_status() {
    let engine = Engine::start().await;
    let missing = get(&engine, "/v1/runs/nowhere").await;
    assert_eq!(error(&missing), (404, "RUN_NOT_FOUND".into(), String::new()));
    assert_eq!(missing.json()["error"]["status"], "NOT_FOUND");
    let stream = get(&engine, "/v1/runs/nowhere:watch").await;
    assert_eq!(error(&stream).0, 404);

    for (body, field, says) in [
        (json!({"dokument": "x"}), "dokument", "did you mean 'document'"),
        (
            json!({"workflow": {"nam": "x"}}),
            "workflow.nam",
            "known are namespace, name, version",
        ),
        (
            json!({"workflow": {"name": 5}}),
            "workflow.name",
            "expected a string",
        ),
        (json!({"runId": ["x"]}), "runId", "expected a string"),
        (json!([1]), "body", "must be a JSON object"),
    ] {
        let answer = post(&engine, "/v1/runs", &body).await;
        assert_eq!(
            error(&answer),
            (400, "INVALID_FIELD".into(), field.into()),
            "{body}"
        );
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(says), "{message}");
    }
    for (path, field, says) in [
        ("/v1/runs?pagesize=1", "pagesize", "did you mean 'pageSize'"),
        ("/v1/runs?pageSize=many", "pageSize", "many"),
        ("/v1/runs?pageSize=-1", "pageSize", "-1"),
        ("/v1/runs?pageSize=1&pageSize=2", "pageSize", "more than once"),
        ("/v1/runs?statuses=DONE", "statuses", "RUN_STATUS_COMPLETED"),
        ("/v1/runs/x?run_id=y", "run_id", "path"),
    ] {
        let answer = get(&engine, path).await;
        assert_eq!(
            error(&answer),
            (400, "INVALID_FIELD".into(), field.into()),
            "{path}: {}",
            answer.text()
        );
        assert!(answer.text().contains(says), "{path}: {}", answer.text());
    }
    let differs = post(&engine, "/v1/runs/a:cancel", &json!({"runId": "b"})).await;
    assert_eq!(error(&differs), (400, "INVALID_FIELD".into(), "run_id".into()));
    let broken = http::send(
        engine.address(),
        Method::POST,
        "/v1/runs",
        &[("content-type", "application/json")],
        "{".into(),
    );
    assert_eq!(error(&broken.await.unwrap()).2, "body");
}

#[tokio::test]
async fn unknown_paths_wrong_methods_and_other_types_are_told_in_json() {
    let engine = Engine::start().await;
    let nowhere = get(&engine, "/v1/nowhere").await;
    assert_eq!(
        (nowhere.status.as_u16(), &nowhere.json()["error"]["status"]),
        (404, &json!("NOT_FOUND"))
    );
    let deleted = http::send(engine.address(), Method::DELETE, "/v1/runs", &[], "".into())
        .await
        .unwrap();
    assert_eq!(
        (
            deleted.status.as_u16(),
            deleted.headers["allow"].to_str().unwrap()
        ),
        (405, "GET, POST")
    );
    assert_eq!(deleted.json()["error"]["code"], 405);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = http::send(engine.address(), Method::POST, "/v1/runs", &form, "{}".into())
        .await
        .unwrap();
    assert_eq!(
        error(&answer),
        (415, "INVALID_FIELD".into(), "content-type".into())
    );
    let with_body = http::send(
        engine.address(),
        Method::GET,
        "/v1/status",
        &[("content-type", "application/json")],
        "{}".into(),
    );
    assert_eq!(error(&with_body.await.unwrap()).2, "body");
}

#[tokio::test]
async fn deadlines_end_calls_and_streams() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine
        .start_run(&document(&send("weather", "x")), "held", "")
        .await
        .unwrap();
    engine.until_held(1).await;
    let address = engine.address();
    let watch = |timeout: &'static str| {
        let headers = [("grpc-timeout", timeout)];
        async move {
            http::send(address, Method::GET, "/v1/runs/held:watch", &headers, "".into())
                .await
                .unwrap()
        }
    };
    // On a busy machine a short deadline may pass before the stream begins; then the answer is the error itself.
    let mut allowed = ["200m", "1S", "5S", "20S"].into_iter();
    let ended = loop {
        let answer = watch(allowed.next().expect("a stream begins within 20 s")).await;
        if answer.status == 200 {
            break answer;
        }
        assert_eq!(error(&answer).0, 504);
    };
    let text = ended.text();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["status"], "DEADLINE_EXCEEDED", "{text}");
    let wrong = watch("soon").await;
    assert_eq!(
        error(&wrong),
        (400, "INVALID_FIELD".into(), "grpc-timeout".into())
    );
    let none = watch("0n").await;
    assert_eq!(error(&none).0, 504);
    engine.router.release(1);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let engine = Engine::start().await;
    let large = json!({"document": "x".repeat(5 << 20)});
    let answer = post(&engine, "/v1/workflows:validate", &large).await;
    assert_eq!(error(&answer), (413, "MESSAGE_TOO_LARGE".into(), String::new()));
    let huge = json!({"document": "x".repeat(9 << 20)});
    let answer = post(&engine, "/v1/workflows:validate", &huge).await;
    assert_eq!(answer.json()["error"]["code"], 413);
}

//! CloudEvents over plain HTTP: structured, binary, batched.

use muster_api::workflow::RunStatus;
use serde_json::{Value, json};

use crate::harness::{Engine, document};

/// Without TLS, which reqwest wants to know of all the same.
fn client() -> reqwest::Client {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

async fn post(engine: &Engine, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> (u16, Value) {
    let mut request = client().post(format!("http://{}/events", engine.address()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn event(id: &str, data: Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/http", "type": "a", "data": data})
}

#[tokio::test]
async fn events_come_in_every_form_and_are_heard() {
    let engine = Engine::start().await;
    let tasks =
        "  - hear: {listen: {to: {any: [{with: {source: /http}}], until: 'length == 6'}, read: envelope}}\n";
    engine.start_run(&document(tasks), "r", "").await.unwrap();

    let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
    let (status, answer) = post(&engine, &structured, event("1", json!({"n": 1})).to_string()).await;
    assert_eq!((status, &answer["events"][0]["duplicate"]), (200, &json!(false)));
    let (_, answer) = post(&engine, &structured, event("1", json!({"n": 1})).to_string()).await;
    assert_eq!(answer["events"][0]["duplicate"], true);

    let batched = [("content-type", "application/cloudevents-batch+json")];
    let batch = json!([event("2", json!(2)), event("3", json!(3))]);
    let (status, answer) = post(&engine, &batched, batch.to_string()).await;
    assert_eq!((status, answer["events"].as_array().unwrap().len()), (200, 2));

    let attributes = [
        ("ce-specversion", "1.0"),
        ("ce-source", "/http"),
        ("ce-type", "a"),
        ("ce-subject", "Euro%20%E2%82%AC"),
        ("ce-tenant", "x"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&attributes[..], more].concat();
    for (more, body) in [
        (
            with(&[("ce-id", "4"), ("content-type", "application/json")]),
            b"{\"n\": 4}".to_vec(),
        ),
        (
            with(&[("ce-id", "5"), ("content-type", "text/plain")]),
            b"five".to_vec(),
        ),
        (
            with(&[("ce-id", "6"), ("content-type", "application/octet-stream")]),
            vec![0, 1, 255],
        ),
    ] {
        let (status, answer) = post(&engine, &more, body).await;
        assert_eq!(status, 200, "{answer}");
    }
    let run = engine.until("r", RunStatus::Completed).await;
    let heard: Vec<Value> = serde_json::from_str(&run.output_json).unwrap();
    let data: Vec<&Value> = heard.iter().map(|event| &event["data"]).collect();
    assert_eq!(
        data[..5],
        [
            &json!({"n": 1}),
            &json!(2),
            &json!(3),
            &json!({"n": 4}),
            &json!("five")
        ]
    );
    assert_eq!(heard[5]["data_base64"], "AAH/");
    assert_eq!(
        (&heard[4]["subject"], &heard[4]["tenant"]),
        (&json!("Euro €"), &json!("x"))
    );
    assert_eq!(heard[4]["datacontenttype"], "text/plain");
}

#[tokio::test]
async fn what_is_no_event_is_refused_with_its_place() {
    let engine = Engine::start_with(|settings| settings.events.max_event_bytes = 2_000).await;
    let structured = ("content-type", "application/cloudevents+json");
    let batched = ("content-type", "application/cloudevents-batch+json");
    let large = event("1", json!("x".repeat(3_000))).to_string();
    for (header, body, status, message) in [
        (
            ("content-type", "application/json"),
            "{}".to_owned(),
            415,
            "there is no CloudEvent here",
        ),
        (
            ("content-type", "application/cloudevents+avro"),
            "{}".to_owned(),
            415,
            "in the JSON format",
        ),
        (structured, "{".to_owned(), 400, "the body is not JSON"),
        (
            structured,
            "{\"specversion\": \"1.0\", \"id\": \"1\", \"type\": \"a\"}".to_owned(),
            400,
            "'source' is missing",
        ),
        (
            structured,
            "{\"type\": \"a\", \"source\": \"/http\", \"id\": \"1\"}".to_owned(),
            400,
            "'specversion' is missing",
        ),
        (
            structured,
            "{\"specversion\": \"1.0\", \"type\": \"a\", \"source\": \"/http\"}".to_owned(),
            400,
            "'id' is missing",
        ),
        (
            structured,
            "{\"specversion\": \"1.0\", \"id\": \"1\", \"type\": \"a\", \"source\": \"/http\", \"data_base64\": \"!!!\"}".to_owned(),
            400,
            "'data_base64' must be Base64",
        ),
        (batched, "{}".to_owned(), 400, "a batch is a JSON array"),
        (
            batched,
            json!([event("1", json!(1)), {"id": 3}]).to_string(),
            400,
            "event 1: ",
        ),
        (structured, large, 400, "engine.events.max_event_bytes"),
    ] {
        let (answered, answer) = post(&engine, &[header], body).await;
        assert_eq!(answered, status, "{answer}");
        let text = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(text.contains(message), "{answer}");
    }
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-source", "/http"),
        ("ce-type", "a"),
    ];
    let (status, answer) = post(&engine, &binary, "").await;
    assert_eq!(status, 400, "{answer}");
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("'id' is missing")
    );
    assert_eq!(
        engine.logged("").await,
        Vec::<Value>::new(),
        "none of them is in the log"
    );

    let url = format!("http://{}/events", engine.address());
    let request = client()
        .request(reqwest::Method::OPTIONS, url)
        .header("webhook-request-origin", "events.test");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["webhook-allowed-origin"], "events.test");
}

#[tokio::test]
async fn the_log_is_read_as_json() {
    let engine = Engine::start().await;
    engine.publish("a", json!({"n": 1})).await;
    let url = format!("http://{}/v1/events?type=a", engine.address());
    let answer = client().get(url).send().await.unwrap().text().await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let event: Value = serde_json::from_str(answer["events"][0]["eventJson"].as_str().unwrap()).unwrap();
    assert_eq!(event["data"], json!({"n": 1}));
}

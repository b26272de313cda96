//! Calls over HTTP: what goes out, what comes back, and what happens when it does not.

use muster_api::workflow::RunStatus;
use serde_json::{Value, json};

use crate::harness::{Engine, document};
use crate::service::{Reply, Seen, Service};

/// An engine that may call this machine.
pub async fn engine() -> Engine {
    Engine::start_with(|settings| settings.outbound.allow = vec!["127.0.0.0/8".into()]).await
}

fn echo(seen: &Seen) -> Reply {
    Reply::json(&json!({"method": seen.method, "path": seen.path, "query": seen.query, "body": seen.json()}))
}

#[tokio::test]
async fn a_request_goes_out_as_it_is_written_and_its_answer_is_the_output() {
    let (engine, service) = (engine().await, Service::start(echo).await);
    let text = document(&format!(
        "  - ask:\n      call: http\n      with:\n        method: post\n        endpoint: {}\n        headers:\n          \
         X-Trace: '${{ .trace }}'\n          X-None: '${{ .none }}'\n        query: {{q: '${{ .words }}', n: 5, none: '${{ .none }}'}}\n        body: {{pet: '${{ .pet }}'}}\n",
        service.url("/pets/{petId}/toys?fixed=1")
    ));
    let input =
        json!({"petId": "a b/ü", "pet": {"legs": 4}, "words": ["x y", "z"], "trace": 7, "none": null});
    let output = engine.output(&text, &input.to_string()).await;
    assert_eq!(
        output,
        json!({
            "method": "POST",
            "path": "/pets/a%20b%2F%C3%BC/toys",
            "query": "fixed=1&n=5&q=x+y&q=z",
            "body": {"pet": {"legs": 4}},
        })
    );
    let seen = &service.seen()[0];
    assert_eq!(
        (seen.header("x-trace"), seen.header("content-type")),
        ("7", "application/json")
    );
    assert!(!seen.headers.contains_key("x-none"));
    assert!(seen.header("user-agent").starts_with("muster/"));
    assert_eq!(seen.header("idempotency-key").len(), 36);
}

#[tokio::test]
async fn addresses_and_headers_may_be_expressions() {
    let (engine, service) = (engine().await, Service::start(echo).await);
    let text = document(
        "  - ask:\n      call: http\n      with:\n        method: GET\n        endpoint: {uri: '${ .base + \"/x/\" + .id }'}\n        \
         headers: '${ {accept: \"application/json\"} }'\n        query: '${ {a: .id} }'\n",
    );
    let input = json!({"base": service.url(""), "id": "7"});
    let output = engine.output(&text, &input.to_string()).await;
    assert_eq!(
        (output["path"].as_str(), output["query"].as_str()),
        (Some("/x/7"), Some("a=7"))
    );
    let seen = &service.seen()[0];
    assert_eq!(seen.header("accept"), "application/json");
    assert!(!seen.headers.contains_key("idempotency-key"), "a GET needs none");
}

fn ask(service: &Service, path: &str, more: &str) -> String {
    document(&format!(
        "  - ask: {{call: http, with: {{method: get, endpoint: '{}'{more}}}}}\n",
        service.url(path)
    ))
}

#[tokio::test]
async fn the_output_is_what_the_document_asks_for() {
    let engine = engine().await;
    let service = Service::start(|seen| match seen.path.as_str() {
        "/binary" => Reply {
            headers: vec![("content-type", "image/png".into())],
            body: vec![0xff, 0],
            ..Reply::text(200, "")
        },
        "/nothing" => Reply::text(204, ""),
        "/text" => Reply::text(200, "5"),
        "/broken" => Reply::text(200, "{").with("content-type", "application/json"),
        _ => Reply::json(&json!({"a": 1})).with("x-more", "yes"),
    })
    .await;
    for (path, more, expected) in [
        ("/json", "", json!({"a": 1})),
        ("/json", ", output: content", json!({"a": 1})),
        ("/json", ", output: raw", json!("eyJhIjoxfQ==")),
        ("/binary", "", json!("/wA=")),
        ("/text", "", json!("5")),
        ("/nothing", "", Value::Null),
    ] {
        assert_eq!(
            engine.output(&ask(&service, path, more), "").await,
            expected,
            "{path}{more}"
        );
    }
    let response = engine
        .output(&ask(&service, "/json", ", output: response, headers: {a: b}"), "")
        .await;
    assert_eq!(response["statusCode"], 200);
    assert_eq!(response["content"], json!({"a": 1}));
    assert_eq!(response["headers"]["x-more"], "yes");
    assert_eq!(
        response["request"],
        json!({"method": "get", "uri": service.url("/json"), "headers": {"a": "b"}})
    );
    let more = ", output: response, query: {q: [x y, z]}, headers: {X-More: 1}, body: {n: 5}";
    let text = ask(&service, "/json?fixed=1", more).replace("method: get", "method: post");
    let request = &engine.output(&text, "").await["request"];
    assert_eq!(request["uri"], service.url("/json?fixed=1&q=x+y&q=z"));
    assert_eq!(
        request["headers"],
        json!({
            "X-More": "1",
            "content-type": "application/json",
            "idempotency-key": service.seen().last().unwrap().header("idempotency-key"),
        })
    );
}

#[tokio::test]
async fn failures_have_the_standard_types_and_say_what_was_answered() {
    let engine = engine().await;
    let service = Service::start(|seen| {
        let status = seen.path.trim_start_matches('/').parse().unwrap();
        Reply::text(status, "no such pet").with("location", "/elsewhere")
    })
    .await;
    for (status, kind) in [
        (400, "communication"),
        (401, "authentication"),
        (403, "authorization"),
        (404, "communication"),
        (302, "communication"),
        (503, "communication"),
    ] {
        let error = engine.fault(&ask(&service, &format!("/{status}"), "")).await;
        assert!(error.r#type.ends_with(&format!("/{kind}")), "{error:?}");
        assert_eq!(error.status, status, "{error:?}");
        assert!(error.detail.contains("no such pet"), "{error:?}");
        assert_eq!(error.instance, "/do/0/ask");
    }
    let followed = engine
        .output(&ask(&service, "/302", ", redirect: true, output: response"), "")
        .await;
    assert_eq!(followed["statusCode"], 302);
    assert_eq!(followed["headers"]["location"], "/elsewhere");
    assert_eq!(service.seen().len(), 7, "nothing is repeated or followed unasked");
}

#[tokio::test]
async fn what_a_document_may_not_reach_is_refused() {
    let engine = Engine::start().await;
    let service = Service::start(echo).await;
    let error = engine.fault(&ask(&service, "/", "")).await;
    assert!(error.r#type.ends_with("/authorization"), "{error:?}");
    assert!(error.detail.contains("engine.outbound.allow"), "{error:?}");
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn nobody_listens_there() {
    let engine = engine().await;
    let service = Service::start(echo).await;
    let text = ask(&service, "/", "");
    drop(service);
    let error = engine.fault(&text).await;
    assert!(error.r#type.ends_with("/communication"), "{error:?}");
    assert_eq!(error.status, 503, "{error:?}");
}

#[tokio::test]
async fn a_service_that_is_silent_is_left_at_the_deadline() {
    let engine = engine().await;
    let service = Service::start(|_| Reply::silence()).await;
    let text = ask(&service, "/", "").replace("with:", "timeout: {after: PT1S}, with:");
    let error = engine.fault(&text).await;
    assert!(error.r#type.ends_with("/timeout"), "{error:?}");
    assert_eq!(error.status, 408);
    service.until_gone(1).await;
}

#[tokio::test]
async fn cancelling_a_run_hangs_up() {
    let engine = engine().await;
    let service = Service::start(|_| Reply::silence()).await;
    engine
        .start_run(&ask(&service, "/slow", ""), "r", "")
        .await
        .unwrap();
    service.until_seen(1).await;
    let activity = engine.run("r").await.activity;
    assert!(
        activity[0].contains(&service.url("/slow")) && activity[0].contains("GET"),
        "{activity:?}"
    );
    engine.cancel("r").await.unwrap();
    service.until_gone(1).await;
    assert_eq!(engine.run("r").await.status(), RunStatus::Cancelled);
}

#[tokio::test]
async fn after_a_restart_the_same_request_goes_out_under_the_same_key() {
    let mut engine = engine().await;
    let answering = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gate = std::sync::Arc::clone(&answering);
    let service = Service::start(move |seen| match gate.load(std::sync::atomic::Ordering::SeqCst) {
        true => echo(seen),
        false => Reply::silence(),
    })
    .await;
    let text = ask(&service, "/", ", body: {n: 1}").replace("method: get", "method: put");
    engine.start_run(&text, "r", "").await.unwrap();
    service.until_seen(1).await;
    engine.stop().await;
    answering.store(true, std::sync::atomic::Ordering::SeqCst);
    engine.launch().await;
    engine.until("r", RunStatus::Completed).await;
    let seen = service.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(
        seen[0].header("idempotency-key"),
        seen[1].header("idempotency-key")
    );
    assert_eq!(seen[0].body, seen[1].body);
}

#[tokio::test]
async fn a_retry_is_another_request() {
    let engine = engine().await;
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let service = Service::start(
        move |seen| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Reply::text(503, "later"),
            _ => echo(seen),
        },
    )
    .await;
    let text = document(&format!(
        "  - all:\n      try:\n        - ask: {{call: http, with: {{method: post, endpoint: '{}', body: {{}}}}}}\n      catch:\n        \
         errors: {{with: {{status: 503}}}}\n        retry: {{delay: PT0S, limit: {{attempt: {{count: 1}}}}}}\n",
        service.url("/")
    ));
    engine.output(&text, "").await;
    let seen = service.seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(
        seen[0].header("idempotency-key"),
        seen[1].header("idempotency-key")
    );
}

#[tokio::test]
async fn an_answer_over_the_limit_is_a_failure_that_names_it() {
    let allow = |settings: &mut muster_workflow_engine::config::Engine| {
        settings.outbound.allow = vec!["127.0.0.0/8".into()];
        settings.max_payload_bytes = 10_000;
    };
    let engine = Engine::start_with(allow).await;
    let service = Service::start(|_| Reply::text(200, &"x".repeat(10_001))).await;
    let error = engine.fault(&ask(&service, "/", "")).await;
    assert_eq!(error.status, 413);
    assert!(error.detail.contains("engine.max_payload_bytes"), "{error:?}");
}

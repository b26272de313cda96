//! Plain HTTP requests: panics, bounds, refusals, counting.

use muster_runtime::server;
use muster_testkit::http::{self, Method, Response};

use crate::stage::{Running, start};

async fn post(running: &Running, path: &str, bytes: usize) -> Response {
    let body = vec![b'x'; bytes].into();
    http::send(running.data, Method::POST, path, &[], body)
        .await
        .unwrap()
}

fn error(answer: &Response) -> (u16, u64) {
    let code = answer.json()["error"]["code"].as_u64().unwrap();
    assert!(!answer.json()["error"]["message"].as_str().unwrap().is_empty());
    (answer.status.as_u16(), code)
}

#[tokio::test]
async fn a_panic_stays_in_its_request_and_is_counted() {
    let running = start(&server::Config::default(), |_| {});
    let answer = http::get(running.data, "/panic").await.unwrap();
    assert_eq!(error(&answer), (500, 500));
    assert_eq!(answer.json()["error"]["status"], "INTERNAL");
    let echoed = http::post(running.data, "/echo", &serde_json::json!({"still": "alive"}))
        .await
        .unwrap();
    assert_eq!(echoed.text(), r#"{"still":"alive"}"#);
    let metrics = running.metrics().await;
    let series = r#"http_requests_total{method="GET",endpoint="/panic",status_code="500"} 1"#;
    assert!(metrics.contains(series), "{metrics}");
    running.stop().await;
}

#[tokio::test]
async fn a_panic_in_an_answers_body_breaks_that_answer_alone() {
    let running = start(&server::Config::default(), |_| {});
    let broken = http::get(running.data, "/panicking-body").await;
    assert!(broken.is_err(), "{broken:?}");
    assert_eq!(post(&running, "/echo", 1).await.text(), "x");
    running.stop().await;
}

#[tokio::test]
async fn bodies_are_bounded_however_they_are_read() {
    let config = server::Config {
        max_message_bytes: 1024,
        ..server::Config::default()
    };
    let running = start(&config, |_| {});
    for path in ["/echo", "/raw"] {
        assert_eq!(post(&running, path, 2048).await.body.len(), 2048, "{path}");
        let refused = post(&running, path, 10_000).await;
        assert_eq!(error(&refused), (413, 413), "{path}");
        assert!(refused.text().contains("2048 bytes"), "{}", refused.text());
    }
    // A content type does not get around it.
    let headers = [("content-type", "application/grpc")];
    let body = vec![0; 10_000].into();
    let disguised = http::send(running.data, Method::POST, "/raw", &headers, body)
        .await
        .unwrap();
    assert_eq!(disguised.status, 413);
    let own = post(&running, "/own-refusal", 10_000).await;
    assert_eq!(own.json()["refused"], true, "the route's own answer stands");
    running.stop().await;
}

#[tokio::test]
async fn refusals_are_json() {
    let running = start(&server::Config::default(), |_| {});
    let nowhere = http::get(running.data, "/nowhere").await.unwrap();
    assert_eq!(error(&nowhere), (404, 404));
    let info = &nowhere.json()["error"]["details"][0];
    assert_eq!(
        (&info["reason"], &info["domain"]),
        (&"PATH_NOT_FOUND".into(), &"muster".into())
    );
    let wrong_method = http::get(running.data, "/echo").await.unwrap();
    assert_eq!(error(&wrong_method), (405, 405));
    assert_eq!(wrong_method.headers["allow"], "POST");
    running.stop().await;
}

#[tokio::test]
async fn grpc_paths_refuse_everything_else() {
    let running = start(&server::Config::default(), |_| {});
    let unknown = http::get(running.data, "/grpc.health.v1.Health/Nope")
        .await
        .unwrap();
    assert_eq!(error(&unknown), (404, 404));
    assert!(!unknown.headers.contains_key("grpc-status"));
    for path in [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let json = http::post(running.data, path, &serde_json::json!({}))
            .await
            .unwrap();
        assert_eq!(error(&json), (415, 415), "{path}");
    }
    let metrics = running.metrics().await;
    let series =
        r#"http_requests_total{method="POST",endpoint="/grpc.health.v1.Health/Check",status_code="415"} 1"#;
    assert!(metrics.contains(series), "{metrics}");
    running.stop().await;
}

#[tokio::test]
async fn the_service_says_what_it_is() {
    let running = start(&server::Config::default(), |_| {});
    let metrics = running.metrics().await;
    let expected = r#"agent_info{service="example",version="0.1.0",environment="development"} 1"#;
    assert!(metrics.contains(expected), "{metrics}");
    running.stop().await;
}

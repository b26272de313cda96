//! What operators see: readiness, metrics, status, reflection.

use muster_testkit::{http, wait_for};

use crate::harness::{PATIENCE, Service, Stack, message};

#[tokio::test]
async fn the_router_is_ready_once_it_has_a_view_and_stays_so() {
    let mut stack = Stack::start().await;
    let ready = async |stack: &Stack| http::get(stack.router.health, "/ready").await.unwrap();
    wait_for("readiness", PATIENCE, async || ready(&stack).await.status == 200).await;
    stack.registry.take().unwrap().stop().await;
    wait_for("the registry to be missed", PATIENCE, async || {
        ready(&stack).await.json()["checks"]["registry"]["status"] == "degraded"
    })
    .await;
    assert_eq!(ready(&stack).await.status, 200, "degraded, and in service");
}

#[tokio::test]
async fn without_any_view_it_is_not_ready() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut config = muster_router::Config::default();
    config.router.data_directory = std::path::PathBuf::new();
    let router = Service::router(config, nobody);
    let report = wait_for("the health port", PATIENCE, async || {
        http::get(router.health, "/ready").await
    })
    .await;
    assert_eq!(report.status, 503);
    assert_eq!(report.json()["checks"]["fleet"]["error"], "not yet");
}

#[tokio::test]
async fn messages_are_counted_by_agent_and_outcome() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    stack.send(message("weather", "x")).await.unwrap();
    stack.send(message("nobody", "x")).await.unwrap_err();
    let page = http::get(stack.router.metrics, "/metrics").await.unwrap().text();
    for series in [
        r#"a2a_messages_sent_total{message_type="send_message",recipient="weather"} 1"#,
        r#"a2a_message_latency_seconds_bucket{message_type="send_message",le="5"} 1"#,
        r#"router_calls_total{binding="grpc",outcome="ok"} 1"#,
        r#"router_calls_total{binding="grpc",outcome="NotFound"} 1"#,
    ] {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
    let status = stack.status().await;
    assert_eq!((status.succeeded_total, status.failed_total), (1, 1));
}

#[tokio::test]
async fn instances_are_listed_with_what_was_measured() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    stack.send(message("weather", "x")).await.unwrap();
    let row = stack.statistics(&agent.endpoint()).await;
    assert_eq!(
        (row.agent_id.as_str(), row.succeeded_total, row.breaker.as_str()),
        ("weather", 1, "closed")
    );
    assert!(row.latency_seconds > 0.0);
}

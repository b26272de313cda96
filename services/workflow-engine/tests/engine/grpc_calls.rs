//! `call: grpc`, with real services: contracts by reflection and from files, every outcome, cancelling and restarts.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use muster_api::workflow::RunStatus;
use muster_testkit::wait_for;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::grpc_service::{Reflection, Service};
use crate::harness::{Engine, PATIENCE, document};

async fn engine() -> Engine {
    Engine::start_with(|settings| settings.outbound.allow = vec!["127.0.0.0/8".to_owned()]).await
}

/// A document with one call of the service; `more` are further fields of the call.
fn call(service: &Service, method: &str, arguments: &str, more: &str) -> String {
    let port = service.address.port();
    document(&format!(
        "  - ask:\n      call: grpc\n      with:\n        service: {{name: grpc.health.v1.Health, host: 127.0.0.1, port: {port}}}\n        \
         method: {method}\n        arguments: {arguments}\n{more}"
    ))
}

/// Serves a contract in two files.
async fn contract() -> (SocketAddr, JoinSet<()>) {
    let service = "syntax = \"proto3\"; package grpc.health.v1;
        import \"parts/messages.proto\";
        import \"google/protobuf/empty.proto\";
        service Health {
          rpc Check(HealthCheckRequest) returns (HealthCheckResponse);
          rpc Watch(HealthCheckRequest) returns (stream HealthCheckResponse);
          rpc Reset(google.protobuf.Empty) returns (google.protobuf.Empty);
        }";
    let messages = "syntax = \"proto3\"; package grpc.health.v1;
        message HealthCheckRequest { string service = 1; }
        message HealthCheckResponse {
          enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
          ServingStatus status = 1;
        }";
    let routes = Router::new()
        .route("/health.proto", get(move || async move { service }))
        .route("/parts/messages.proto", get(move || async move { messages }))
        .route(
            "/wrong.proto",
            get(|| async { "syntax = \"proto3\"; service X { rpc A(B) returns (B); }" }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (address, server)
}

#[tokio::test]
async fn the_contract_comes_by_either_reflection() {
    let engine = engine().await;
    for reflection in [Reflection::V1, Reflection::V1Alpha] {
        let service = Service::start(reflection).await;
        let text = call(&service, "Check", "{service: '${ .about }'}", "");
        let output = engine.output(&text, r#"{"about": "x"}"#).await;
        assert_eq!(output, json!({"status": "SERVING"}));
        let watched = engine.output(&call(&service, "Watch", "{}", ""), "").await;
        assert_eq!(
            watched,
            json!([{"status": "UNKNOWN"}, {"status": "SERVING"}, {"status": "NOT_SERVING"}]),
            "a stream is a list"
        );
        assert_eq!(service.calls(), 2);
    }
}

#[tokio::test]
async fn the_contract_comes_from_files_where_there_is_no_reflection() {
    let engine = engine().await;
    let service = Service::start(Reflection::None).await;
    let (files, _server) = contract().await;
    let with_proto = |file: &str, method: &str| {
        let proto = format!("        proto: {{endpoint: 'http://{files}/{file}'}}\n");
        call(&service, method, "{service: x}", &proto)
    };
    assert_eq!(
        engine.output(&with_proto("health.proto", "Check"), "").await,
        json!({"status": "SERVING"})
    );
    let error = engine.fault(&call(&service, "Check", "{service: x}", "")).await;
    assert_eq!(error.status, 501, "{error:?}");
    assert!(error.detail.contains("'proto'"), "{error:?}");

    let error = engine.fault(&with_proto("nothing.proto", "Check")).await;
    assert_eq!(
        (error.status, error.detail.contains("nothing.proto")),
        (404, true),
        "{error:?}"
    );
    let error = engine.fault(&with_proto("wrong.proto", "Check")).await;
    assert!(error.r#type.ends_with("/validation"), "{error:?}");
    // The contract has it, the service does not.
    let reset = call(
        &service,
        "Reset",
        "{}",
        &format!("        proto: {{endpoint: 'http://{files}/health.proto'}}\n"),
    );
    let error = engine.fault(&reset).await;
    assert_eq!(
        (error.r#type.ends_with("/communication"), error.status),
        (true, 501),
        "{error:?}"
    );
}

#[tokio::test]
async fn failures_have_the_standard_types_and_can_be_caught() {
    let engine = engine().await;
    let service = Service::start(Reflection::V1).await;
    for (method, arguments, kind, status, said) in [
        (
            "Check",
            "{service: unknown}",
            "communication",
            404,
            "no service 'unknown'",
        ),
        ("Chekc", "{}", "validation", 404, "did you mean 'Check'?"),
        ("Check", "{servise: x}", "validation", 400, "servise"),
        (
            "Check",
            "{service: 5}",
            "validation",
            400,
            "grpc.health.v1.HealthCheckRequest",
        ),
        (
            "Check",
            "{service: secret}",
            "authentication",
            401,
            "who is 'none'?",
        ),
        (
            "Watch",
            "{service: endless}",
            "runtime",
            413,
            "engine.max_payload_bytes",
        ),
    ] {
        let error = engine.fault(&call(&service, method, arguments, "")).await;
        assert!(error.r#type.ends_with(&format!("/{kind}")), "{error:?}");
        assert_eq!(error.status, status, "{error:?}");
        assert!(error.detail.contains(said), "{error:?}");
    }
    let nobody = call(&service, "Check", "{}", "").replace(&service.address.port().to_string(), "1");
    assert_eq!(engine.fault(&nobody).await.status, 503);

    let port = service.address.port();
    let caught = document(&format!(
        "  - guarded:\n      try:\n        - ask: {{call: grpc, with: {{service: {{name: grpc.health.v1.Health, host: 127.0.0.1, port: {port}}}, \
         method: Check, arguments: {{service: unknown}}}}}}\n      catch: {{errors: {{with: {{status: 404}}}}, do: [{{note: {{set: {{caught: true}}}}}}]}}\n"
    ));
    assert_eq!(engine.output(&caught, "").await, json!({"caught": true}));
}

#[tokio::test]
async fn addresses_that_the_operator_does_not_allow_are_refused() {
    let engine = Engine::start().await;
    let service = Service::start(Reflection::V1).await;
    let error = engine.fault(&call(&service, "Check", "{}", "")).await;
    assert_eq!(
        (error.r#type.ends_with("/authorization"), error.status),
        (true, 403),
        "{error:?}"
    );
    assert_eq!(service.calls(), 0);
}

#[tokio::test]
async fn a_call_authenticates_itself_with_a_secret_that_no_one_sees() {
    let directory = tempfile::tempdir().unwrap();
    let namespace = directory.path().join("test");
    std::fs::create_dir(&namespace).unwrap();
    std::fs::write(namespace.join("api"), r#"{"token": "t0ken-of-the-test"}"#).unwrap();
    let engine = Engine::start_with(|settings| {
        settings.outbound.allow = vec!["127.0.0.0/8".to_owned()];
        settings.secrets.directory = Some(directory.path().to_owned());
    })
    .await;
    let service = Service::start(Reflection::V1).await;
    let text = call(&service, "Check", "{service: secret}", "").replace(
        "host: 127.0.0.1",
        "authentication: {bearer: {use: api}}, host: 127.0.0.1",
    );
    let text = text.replace("\ndo:", "\nuse: {secrets: [api]}\ndo:");
    let run = engine.start_run(&text, "private", "").await.unwrap();
    let run = engine.until(&run.run_id, RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"{"status":"SERVING"}"#);
    let history = format!("{:?}", engine.history("private").await);
    assert!(!history.contains("t0ken-of-the-test"), "{history}");
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_the_service_hears_of_it() {
    let engine = engine().await;
    let service = Service::start(Reflection::V1).await;
    let text = call(
        &service,
        "Check",
        "{service: slow}",
        "      timeout: {after: {milliseconds: 200}}\n",
    );
    let error = engine.fault(&text).await;
    assert_eq!(
        (error.r#type.ends_with("/timeout"), error.status),
        (true, 408),
        "{error:?}"
    );
    until_waiting(&service, 0).await;
}

#[tokio::test]
async fn cancelling_the_run_cancels_the_call() {
    let engine = engine().await;
    let service = Service::start(Reflection::V1).await;
    let text = call(&service, "Check", "{service: slow}", "");
    engine.start_run(&text, "stopped", "").await.unwrap();
    until_waiting(&service, 1).await;
    let activity = engine.run("stopped").await.activity;
    assert!(
        activity
            .iter()
            .any(|line| line.contains("grpc.health.v1.Health/Check")),
        "{activity:?}"
    );
    engine.cancel("stopped").await.unwrap();
    engine.until("stopped", RunStatus::Cancelled).await;
    until_waiting(&service, 0).await;
}

#[tokio::test]
async fn a_call_is_made_again_after_a_restart_under_the_same_key() {
    let mut engine = engine().await;
    let service = Service::start(Reflection::V1).await;
    let text = call(
        &service,
        "Check",
        "{service: slow}",
        "      timeout: {after: {hours: 1}}\n",
    );
    engine.start_run(&text, "survivor", "").await.unwrap();
    until_waiting(&service, 1).await;
    engine.stop().await;
    until_waiting(&service, 0).await;
    engine.launch().await;
    until_waiting(&service, 1).await;
    assert_eq!(service.calls(), 2);
    engine.cancel("survivor").await.unwrap();
    until_waiting(&service, 0).await;

    let key = call(&service, "Check", "{service: key}", "");
    let error = engine.fault(&key).await;
    assert_eq!((error.status, error.detail.len() > 36), (409, true), "{error:?}");
}

async fn until_waiting(service: &Service, count: usize) {
    wait_for("calls to wait", PATIENCE, async || {
        let waiting = service.waiting();
        if waiting == count {
            Ok(())
        } else {
            Err(format!("{waiting} do"))
        }
    })
    .await;
}

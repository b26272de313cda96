//! The chassis from outside: a real one on free ports, plain HTTP and gRPC clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use muster_runtime::health::Kind;
use muster_runtime::{Chassis, Error, Latch, Listeners, Shutdown, Surface, server};
use muster_testkit::{http, wait_for};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    data: SocketAddr,
    health: SocketAddr,
    metrics: SocketAddr,
    shutdown: Shutdown,
    latch: Latch,
    held: Arc<Notify>,
    arrived: Arc<Notify>,
    ended: JoinHandle<Result<(), Error>>,
}

#[expect(clippy::disallowed_methods, reason = "the test awaits the handle")]
fn start(config: &server::Config, prepare: impl FnOnce(&mut Chassis)) -> Running {
    let listeners = Listeners::ephemeral().unwrap();
    let (data, health, metrics) = (
        listeners.data_address(),
        listeners.health_address(),
        listeners.metrics_address(),
    );
    let shutdown = Shutdown::new();
    let mut chassis = Chassis::new("example", config, &[], shutdown.clone()).unwrap();
    let latch = chassis.health.latch("store");
    prepare(&mut chassis);
    let (held, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let routes = Router::new()
        .route(
            "/panic",
            get(|| async {
                assert!(!std::hint::black_box(true), "on purpose");
                "unreachable"
            }),
        )
        .route("/echo", post(|body: String| async move { body }))
        .route("/held", {
            let (held, arrived) = (Arc::clone(&held), Arc::clone(&arrived));
            get(move || async move {
                arrived.notify_one();
                held.notified().await;
                "finished"
            })
        });
    let surface = Surface::new(tonic_health::pb::FILE_DESCRIPTOR_SET).http(routes);
    let ended = tokio::spawn(chassis.serve(listeners, surface));
    Running {
        data,
        health,
        metrics,
        shutdown,
        latch,
        held,
        arrived,
        ended,
    }
}

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

async fn ready_status(running: &Running) -> (u16, String) {
    let answer = http::get(running.health, "/ready").await.unwrap();
    (
        answer.status.as_u16(),
        answer.json()["status"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn health_goes_from_starting_through_ready_to_draining_and_grpc_says_the_same() {
    let running = start(&server::Config::default(), |chassis| {
        chassis
            .health
            .check(Kind::Informational, "registry", PATIENCE, || async {
                Err("down".to_owned())
            });
    });
    assert_eq!(http::get(running.health, "/health").await.unwrap().status, 200);
    assert_eq!(http::get(running.health, "/startup").await.unwrap().status, 503);
    assert_eq!(ready_status(&running).await, (503, "starting".to_owned()));
    let mut grpc = HealthClient::new(channel(running.data).await);
    let empty = || HealthCheckRequest {
        service: String::new(),
    };
    assert_eq!(
        grpc.check(empty()).await.unwrap().into_inner().status(),
        ServingStatus::NotServing
    );

    running.latch.ready();
    wait_for("gRPC health to follow the latch", PATIENCE, async || {
        grpc.check(empty())
            .await
            .is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
    })
    .await;
    let report = http::get(running.health, "/ready").await.unwrap().json();
    assert_eq!(report["status"], "degraded");
    assert_eq!(report["checks"]["registry"]["error"], "down");
    assert!(
        report["checks"]["store"]["timestamp"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );

    let mut watch = grpc.watch(empty()).await.unwrap().into_inner();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    let held = Arc::clone(&running.held);
    let request = tokio::join!(http::get(running.data, "/held"), async {
        running.arrived.notified().await;
        running.shutdown.trigger();
        assert_eq!(
            watch.message().await.unwrap().unwrap().status(),
            ServingStatus::NotServing
        );
        assert_eq!(ready_status(&running).await, (503, "draining".to_owned()));
        held.notify_one();
        drop(watch);
        drop(grpc);
    })
    .0;
    assert_eq!(
        request.unwrap().text(),
        "finished",
        "a request in flight finishes"
    );
    running.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_stays_in_its_request_and_is_counted() {
    let running = start(&server::Config::default(), |_| {});
    let answer = http::get(running.data, "/panic").await.unwrap();
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["error"]["status"], "INTERNAL");
    let echoed = http::post(running.data, "/echo", &serde_json::json!({"still": "alive"}))
        .await
        .unwrap();
    assert_eq!(echoed.text(), r#"{"still":"alive"}"#);
    let metrics = http::get(running.metrics, "/metrics").await.unwrap().text();
    assert!(
        metrics.contains(r#"http_requests_total{method="GET",endpoint="/panic",status_code="500"} 1"#),
        "{metrics}"
    );
    running.shutdown.trigger();
    running.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn unknown_paths_are_404_for_http_and_unimplemented_for_grpc() {
    let running = start(&server::Config::default(), |_| {});
    let answer = http::get(running.data, "/nowhere").await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["code"].as_u64()),
        (404, Some(404))
    );
    let mut unknown = tonic::client::Grpc::new(channel(running.data).await);
    unknown.ready().await.unwrap();
    let path = http_path("/no.such.Service/Method");
    let codec = tonic_prost_codec();
    let status = unknown
        .unary(tonic::Request::new(HealthCheckRequest::default()), path, codec)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    drop(unknown);
    running.shutdown.trigger();
    running.ended.await.unwrap().unwrap();
}

fn http_path(path: &'static str) -> ::http::uri::PathAndQuery {
    ::http::uri::PathAndQuery::from_static(path)
}

fn tonic_prost_codec() -> tonic_prost::ProstCodec<HealthCheckRequest, tonic_health::pb::HealthCheckResponse> {
    tonic_prost::ProstCodec::default()
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let running = start(&server::Config::default(), |_| {});
    let mut client = ServerReflectionClient::new(channel(running.data).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("not a list: {answer:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
    drop((answers, client));
    running.shutdown.trigger();
    running.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_is_forced_at_its_deadline_and_hooks_run_first() {
    let config = server::Config {
        drain_timeout_seconds: 1,
        ..server::Config::default()
    };
    let (said_goodbye, mut goodbye) = oneshot::channel();
    let running = start(&config, |chassis| {
        chassis.on_drain("goodbye", move || async move {
            said_goodbye.send(()).unwrap();
        });
    });
    let (request, ()) = tokio::join!(http::get(running.data, "/held"), async {
        running.arrived.notified().await;
        running.shutdown.trigger();
    });
    assert!(request.is_err(), "nobody released the request: it is cut");
    goodbye.try_recv().expect("the hook ran");
    running.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_end_of_an_essential_task_ends_the_service_with_its_name() {
    let running = start(&server::Config::default(), |chassis| {
        chassis
            .tasks
            .essential("journal", async { Err::<(), _>("the disk is full") });
    });
    let error = running.ended.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "journal ended: the disk is full");
    let panicking = start(&server::Config::default(), |chassis| {
        chassis.tasks.essential("leases", async {
            assert!(std::hint::black_box(false), "on purpose");
            Ok::<(), String>(())
        });
    });
    let error = panicking.ended.await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("leases ended: panicked: on purpose"),
        "{error}"
    );
}

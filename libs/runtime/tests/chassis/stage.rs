//! A chassis on free ports with a few routes, and clients of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http_body_util::BodyExt as _;
use muster_runtime::trust::{Peer, mesh};
use muster_runtime::{Chassis, Error, Latch, Listeners, Shutdown, Surface, server, trust};
use muster_testkit::http as plain;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::grpc_service::Peculiar;

pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Running {
    pub data: SocketAddr,
    pub health: SocketAddr,
    pub metrics: SocketAddr,
    pub shutdown: Shutdown,
    pub latch: Latch,
    pub held: Arc<Notify>,
    pub arrived: Arc<Notify>,
    pub ended: JoinHandle<Result<(), Error>>,
}

pub fn start(config: &server::Config, prepare: impl FnOnce(&mut Chassis)) -> Running {
    start_as("example", config, prepare)
}

#[expect(clippy::disallowed_methods, reason = "the test awaits the handle")]
pub fn start_as(name: &'static str, config: &server::Config, prepare: impl FnOnce(&mut Chassis)) -> Running {
    let listeners = Listeners::ephemeral().unwrap();
    let (data, health, metrics) = (
        listeners.data_address(),
        listeners.health_address(),
        listeners.metrics_address(),
    );
    let shutdown = Shutdown::new();
    let mut chassis = Chassis::new(name, config, &trust::Config::default(), &[], shutdown.clone()).unwrap();
    let latch = chassis.health.latch("store");
    prepare(&mut chassis);
    let (held, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let surface = Surface::new(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .grpc(Peculiar)
        .http(routes(&held, &arrived));
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

fn routes(held: &Arc<Notify>, arrived: &Arc<Notify>) -> Router {
    let (held, arrived) = (Arc::clone(held), Arc::clone(arrived));
    Router::new()
        .route(
            "/panic",
            get(|| async {
                assert!(!std::hint::black_box(true), "on purpose");
                "unreachable"
            }),
        )
        .route(
            "/panicking-body",
            get(|| async { Body::from_stream(panics_after("begun")) }),
        )
        .route(
            // A path that asks nobody who he is.
            "/.well-known/agent-card.json",
            get(
                |Extension(peer): Extension<Peer>, headers: http::HeaderMap| async move {
                    // What a proxy says is nobody's to read further in.
                    assert!(headers.get(mesh::HEADER).is_none());
                    peer.id().map_or_else(|| "nobody".to_owned(), ToString::to_string)
                },
            ),
        )
        .route("/echo", post(|body: String| async move { body }))
        .route(
            "/raw",
            post(|body: Body| async move { body.collect().await.expect("whole").to_bytes() }),
        )
        .route(
            "/own-refusal",
            post(|body: Body| async move {
                let refused = body.collect().await.is_err();
                axum::Json(serde_json::json!({ "refused": refused }))
            }),
        )
        .route(
            "/held",
            get(move || async move {
                arrived.notify_one();
                held.notified().await;
                "finished"
            }),
        )
}

/// One piece, then a panic.
pub fn panics_after(piece: &'static str) -> impl futures::Stream<Item = Result<&'static str, axum::Error>> {
    let mut pieces = std::iter::once(piece);
    futures::stream::poll_fn(move |_| {
        let piece = pieces.next().expect("on purpose");
        std::task::Poll::Ready(Some(Ok(piece)))
    })
}

impl Running {
    /// Asks it to stop and waits for a clean end.
    pub async fn stop(self) {
        self.shutdown.trigger();
        self.ended.await.unwrap().unwrap();
    }

    /// `/ready`: HTTP status and `status`.
    pub async fn readiness(&self) -> (u16, String) {
        let answer = plain::get(self.health, "/ready").await.unwrap();
        let status = answer.json()["status"].as_str().unwrap().to_owned();
        (answer.status.as_u16(), status)
    }

    pub async fn metrics(&self) -> String {
        plain::get(self.metrics, "/metrics").await.unwrap().text()
    }

    pub async fn health_client(&self) -> HealthClient<Channel> {
        HealthClient::new(channel(self.data).await)
    }
}

pub async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

pub fn service(name: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: name.to_owned(),
    }
}

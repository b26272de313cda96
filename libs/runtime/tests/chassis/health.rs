//! Health and readiness over HTTP and gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use muster_runtime::health::Kind;
use muster_runtime::{Chassis, Listeners, Shutdown, server, trust};
use muster_testkit::{http, wait_for};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::stage::{PATIENCE, channel, service, start};

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
    assert_eq!(running.readiness().await, (503, "starting".to_owned()));
    let mut grpc = running.health_client().await;
    assert_eq!(
        grpc.check(service("")).await.unwrap().into_inner().status(),
        ServingStatus::NotServing
    );

    running.latch.ready();
    wait_for("gRPC health to follow the latch", PATIENCE, async || {
        grpc.check(service(""))
            .await
            .is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
    })
    .await;
    let report = http::get(running.health, "/ready").await.unwrap().json();
    assert_eq!(report["status"], "degraded");
    assert_eq!(report["checks"]["registry"]["error"], "down");
    let timestamp = report["checks"]["store"]["timestamp"].as_str().unwrap();
    assert!(timestamp.ends_with('Z'));

    let mut watch = grpc.watch(service("")).await.unwrap().into_inner();
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
        assert_eq!(running.readiness().await, (503, "draining".to_owned()));
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
async fn grpc_never_says_serving_before_the_first_report() {
    let running = start(&server::Config::default(), |chassis| {
        chassis
            .health
            .check(Kind::Readiness, "slow", PATIENCE, std::future::pending);
    });
    let mut grpc = running.health_client().await;
    for name in ["", "example.v1.Peculiar"] {
        assert_eq!(
            grpc.check(service(name)).await.unwrap().into_inner().status(),
            ServingStatus::NotServing,
            "'{name}'"
        );
    }
    drop(grpc);
    running.stop().await;
}

#[tokio::test]
async fn a_drain_is_told_while_a_check_hangs() {
    let hang = Arc::new(AtomicBool::new(false));
    let running = start(&server::Config::default(), |chassis| {
        let hang = Arc::clone(&hang);
        chassis.health.check(Kind::Readiness, "moody", PATIENCE, move || {
            let hang = hang.load(Ordering::SeqCst);
            async move {
                if hang {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
    });
    running.latch.ready();
    let mut grpc = running.health_client().await;
    let mut watch = grpc
        .watch(service("example.v1.Peculiar"))
        .await
        .unwrap()
        .into_inner();
    while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    hang.store(true, Ordering::SeqCst);
    running.latch.ready(); // asks for a report, which hangs
    let told = tokio::join!(http::get(running.data, "/held"), async {
        running.arrived.notified().await;
        running.shutdown.trigger();
        let told = watch.message().await.unwrap().unwrap().status();
        running.held.notify_one();
        drop(watch);
        drop(grpc);
        told
    })
    .1;
    assert_eq!(told, ServingStatus::NotServing);
    running.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_check_that_panics_is_unhealthy_and_the_service_lives() {
    let running = start(&server::Config::default(), |chassis| {
        chassis
            .health
            .check(Kind::Readiness, "broken", PATIENCE, || async {
                assert!(!std::hint::black_box(true), "on purpose");
                Ok(())
            });
    });
    running.latch.ready();
    let answer = http::get(running.health, "/ready").await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["checks"]["broken"]["error"], "panicked: on purpose");
    let echoed = http::post(running.data, "/echo", &serde_json::json!(1))
        .await
        .unwrap();
    assert_eq!(echoed.text(), "1");
    running.stop().await;
}

#[tokio::test]
async fn a_service_that_waits_for_its_store_says_so_on_all_ports_and_then_has_them() {
    let listeners = Listeners::ephemeral().unwrap();
    let (data, health) = (listeners.data_address(), listeners.health_address());
    let shutdown = Shutdown::new();
    let mut chassis = Chassis::new(
        "example",
        &server::Config::default(),
        &trust::Config::default(),
        &[],
        shutdown.clone(),
    )
    .unwrap();
    let latch = chassis
        .health
        .latch_because("opening", || "Redis is away".to_owned());
    let store = tokio::sync::Notify::new();
    let asking = async {
        let answer = wait_for("the ports to answer", PATIENCE, async || {
            http::get(health, "/ready").await
        })
        .await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["checks"]["opening"]["error"], "Redis is away");
        let refused = http::get(data, "/v1/anything").await.unwrap();
        assert_eq!(refused.status, 503);
        assert_eq!(refused.json()["error"]["status"], "UNAVAILABLE");
        let mut grpc = tonic_health::pb::health_client::HealthClient::new(channel(data).await);
        for name in ["", "muster.Example"] {
            let answer = grpc.check(service(name)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::NotServing);
        }
        store.notify_one();
    };
    let held = chassis.hold(&listeners, &["muster.Example"], async {
        store.notified().await;
        latch.ready();
        "open"
    });
    let (held, ()) = tokio::join!(held, asking);
    assert_eq!(held.unwrap(), Some("open"));
    assert_eq!(
        chassis.hold(&listeners, &[], async { "at once" }).await.unwrap(),
        Some("at once")
    );
    let surface = muster_runtime::Surface::new(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let asking = async {
        wait_for("it to be ready", PATIENCE, async || {
            let answer = http::get(health, "/ready").await?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(answer.text())
            }
        })
        .await;
        shutdown.trigger();
    };
    let (served, ()) = tokio::join!(chassis.serve(listeners, surface), asking);
    served.unwrap();
}

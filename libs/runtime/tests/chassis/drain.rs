//! The way down: hooks, requests, essential tasks, one deadline.

use std::time::Duration;

use muster_runtime::server;
use muster_testkit::http;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::stage::start;

fn deadline(seconds: u64) -> server::Config {
    server::Config {
        drain_timeout_seconds: seconds,
        ..server::Config::default()
    }
}

#[tokio::test]
async fn a_drain_is_forced_at_its_deadline_and_hooks_run_first() {
    let (said_goodbye, mut goodbye) = oneshot::channel();
    let running = start(&deadline(1), |chassis| {
        chassis.on_drain("broken", || async {
            assert!(!std::hint::black_box(true), "on purpose");
        });
        chassis.on_drain("goodbye", move || async move {
            said_goodbye.send(()).unwrap();
        });
    });
    let (request, ()) = tokio::join!(http::get(running.data, "/held"), async {
        running.arrived.notified().await;
        running.shutdown.trigger();
    });
    assert!(request.is_err(), "nobody released the request: it is cut");
    goodbye
        .try_recv()
        .expect("the hook ran, although the one before it panicked");
    running.ended.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn hooks_and_essential_tasks_share_one_deadline() {
    let running = start(&deadline(20), |chassis| {
        chassis.on_drain("endless", std::future::pending);
        chassis
            .tasks
            .essential("endless", std::future::pending::<Result<(), String>>());
    });
    let before = Instant::now();
    running.shutdown.trigger();
    running.ended.await.unwrap().unwrap();
    let took = before.elapsed();
    assert!(
        took >= Duration::from_secs(20) && took < Duration::from_secs(21),
        "{took:?}"
    );
}

#[tokio::test]
async fn an_essential_task_finishes_while_health_still_answers() {
    let (told, hears) = oneshot::channel();
    let (release, released) = oneshot::channel();
    let (finished, mut was_finished) = oneshot::channel();
    let running = start(&deadline(20), |chassis| {
        let shutdown = chassis.shutdown.clone();
        chassis.tasks.essential("flush", async move {
            shutdown.requested().await;
            told.send(()).map_err(|()| "nobody hears")?;
            released.await.map_err(|_| "nobody releases")?;
            finished.send(()).map_err(|()| "nobody waits")
        });
        chassis
            .tasks
            .essential_until_shutdown("loop", std::future::pending::<Result<(), String>>());
    });
    running.shutdown.trigger();
    hears.await.unwrap();
    assert_eq!(running.readiness().await.0, 503);
    release.send(()).unwrap();
    running.ended.await.unwrap().unwrap();
    was_finished.try_recv().expect("it was not cut");
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
        chassis.tasks.essential_until_shutdown("leases", async {
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

//! Slots and the line before them.

use muster_api::error::Error;
use muster_api::workflow::RunStatus;
use muster_testkit::wait_for;

use crate::harness::{Engine, PATIENCE, document, reason, send};

async fn start_many(engine: &Engine, count: usize) {
    for number in 0..count {
        engine
            .start_run(
                &document(&send("weather", &number.to_string())),
                &format!("run-{number}"),
                "",
            )
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn runs_beyond_the_slots_wait_in_order_and_say_so() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 2).await;
    engine.router.hold();
    start_many(&engine, 5).await;
    engine.until_held(2).await;
    let status = engine.status().await;
    assert_eq!((status.running, status.pending, status.max_concurrent), (2, 3, 2));
    let waiting = engine.run("run-3").await;
    assert_eq!(waiting.status(), RunStatus::Pending);
    assert!(waiting.started_at.is_none());
    assert_eq!(
        waiting.activity,
        ["waits for a slot: 2 of 2 are in use, 1 runs are ahead"]
    );

    for number in 2..5 {
        engine.router.release(1);
        wait_for("the next to begin", PATIENCE, async || {
            engine.router.calls().len() == number + 1
        })
        .await;
        assert_eq!(engine.router.calls().last().unwrap().text, number.to_string());
    }
    engine.router.release_all();
    for number in 0..5 {
        engine.until(&format!("run-{number}"), RunStatus::Completed).await;
    }
}

#[tokio::test]
async fn one_run_too_many_is_refused_with_the_time_to_come_back() {
    let engine = Engine::start_with(|settings| {
        settings.max_concurrent_workflows = 1;
        settings.max_queued_runs = 2;
    })
    .await;
    engine.router.hold();
    start_many(&engine, 1).await;
    engine.until_held(1).await;
    start_many(&engine, 3).await;
    let refused = engine
        .start_run(&document(&send("weather", "x")), "one-more", "")
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "TOO_MANY_RUNS");
    assert!(Error::from_status(&refused).unwrap().retry_after.is_some());

    // A run that gives its place up makes room.
    let cancelled = engine.cancel("run-1").await.unwrap();
    assert_eq!(cancelled.status(), RunStatus::Cancelled);
    engine
        .start_run(&document(&send("weather", "x")), "one-more", "")
        .await
        .unwrap();
    engine.router.release_all();
    engine.until("one-more", RunStatus::Completed).await;
    assert!(
        engine.router.calls().iter().all(|call| call.text != "1"),
        "the cancelled run called nobody"
    );
}

#[tokio::test]
async fn the_line_survives_a_restart_in_its_order() {
    let mut engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    engine.router.hold();
    start_many(&engine, 4).await;
    engine.until_held(1).await;
    engine.restart().await;
    engine.until_held(1).await;
    assert_eq!(engine.status().await.pending, 3);
    engine.router.release_all();
    for number in 0..4 {
        engine.until(&format!("run-{number}"), RunStatus::Completed).await;
    }
    let texts: Vec<String> = engine.router.calls().into_iter().map(|call| call.text).collect();
    assert_eq!(
        texts,
        ["0", "0", "1", "2", "3"],
        "only the call in flight was repeated"
    );
}

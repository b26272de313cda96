//! What survives the end of the process, and what a damaged store does.

use std::fs;
use std::path::PathBuf;

use muster_api::workflow::RunStatus;
use muster_runtime::{Listeners, Shutdown};
use muster_workflow_engine::Config;
use muster_workflow_engine::store::embedded::Embedded;
use muster_workflow_engine::store::{Step, Store as _};

use crate::harness::{Engine, document, reason, send, until_calls};

#[tokio::test]
async fn a_restart_in_the_middle_repeats_no_recorded_step() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    let text =
        document(&(send("one", "a") + &send("two", "${ . + \"b\" }") + &send("three", "${ . + \"c\" }")));
    engine.start_run(&text, "long", "").await.unwrap();
    engine.until_held(1).await;
    engine.router.release(1);
    until_calls(&engine, 2).await;
    let before = engine.history("long").await;

    engine.restart().await;
    engine.until_held(1).await;
    assert_eq!(engine.history("long").await, before, "nothing is written twice");
    engine.router.release_all();
    let run = engine.until("long", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#""abc""#);

    let calls: Vec<String> = engine
        .router
        .calls()
        .into_iter()
        .map(|call| call.tenant)
        .collect();
    assert_eq!(calls, ["one", "two", "two", "three"]);
    let repeated: Vec<usize> = engine.router.calls_by_message_id().into_values().collect();
    assert_eq!(
        repeated.iter().filter(|count| **count == 2).count(),
        1,
        "in flight: again, under the same id"
    );
}

#[tokio::test]
async fn a_timer_goes_on_after_a_restart() {
    let mut engine = Engine::start().await;
    let text = document("  - pause: {wait: {milliseconds: 800}}\n  - done: {set: {a: 1}}\n");
    engine.start_run(&text, "waits", "").await.unwrap();
    engine.until("waits", RunStatus::Waiting).await;
    engine.restart().await;
    engine.until("waits", RunStatus::Completed).await;
}

#[tokio::test]
async fn ended_runs_are_there_after_a_restart() {
    let mut engine = Engine::start().await;
    engine
        .start_run(&document(&send("weather", "x")), "done", "")
        .await
        .unwrap();
    let before = engine.until("done", RunStatus::Completed).await;
    let history = engine.history("done").await;
    engine.restart().await;
    assert_eq!(engine.run("done").await, before);
    assert_eq!(engine.history("done").await, history);
}

/// The store's write-ahead file.
fn write_ahead(engine: &Engine) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(engine.data_directory().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    files.sort();
    files.pop().unwrap()
}

#[tokio::test]
async fn a_torn_end_of_the_journal_costs_only_the_last_step() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    engine
        .start_run(&document(&(send("one", "a") + &send("two", "b"))), "torn", "")
        .await
        .unwrap();
    engine.until_held(1).await;
    engine.router.release(1);
    until_calls(&engine, 2).await;
    let before = engine.run("torn").await.history_length;
    engine.stop().await;

    // The last write loses its last byte, as when the power went before it was on disk.
    let path = write_ahead(&engine);
    let bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(end as u64)
        .unwrap();

    engine.launch().await;
    engine.until_held(1).await;
    assert!(engine.run("torn").await.history_length < before);
    engine.router.release_all();
    engine.until("torn", RunStatus::Completed).await;
    let calls: Vec<String> = engine
        .router
        .calls()
        .into_iter()
        .map(|call| call.tenant)
        .collect();
    assert_eq!(
        calls,
        ["one", "two", "one", "two"],
        "the step that was lost is done again"
    );
}

#[tokio::test]
async fn a_damaged_store_is_refused_with_the_files_name() {
    let mut engine = Engine::start().await;
    engine
        .start_run(&document("  - a: {set: {b: 1}}\n"), "one", "")
        .await
        .unwrap();
    engine.until("one", RunStatus::Completed).await;
    engine.stop().await;
    let path = write_ahead(&engine);
    let mut bytes = fs::read(&path).unwrap();
    bytes[13] ^= 0xFF;
    fs::write(&path, bytes).unwrap();

    let mut config = Config::default();
    config.engine.data_directory = engine.data_directory().to_owned();
    let listeners = Listeners::ephemeral().unwrap();
    let error = muster_workflow_engine::run(config, listeners, Shutdown::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[tokio::test]
async fn two_engines_cannot_share_a_directory() {
    let engine = Engine::start().await;
    let mut config = Config::default();
    config.engine.data_directory = engine.data_directory().to_owned();
    let listeners = Listeners::ephemeral().unwrap();
    let error = muster_workflow_engine::run(config, listeners, Shutdown::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("another process uses it"), "{error}");
}

#[tokio::test]
async fn a_damaged_run_is_set_aside_and_the_others_go_on() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    for id in ["damaged", "sound"] {
        engine
            .start_run(&document(&send("weather", id)), id, "")
            .await
            .unwrap();
    }
    engine.until_held(2).await;
    engine.stop().await;

    let directory = muster_runtime::data_directory::open(engine.data_directory()).unwrap();
    let store = Embedded::open(directory).unwrap();
    let mut summary = store.summary(&"damaged".parse().unwrap()).await.unwrap().unwrap();
    let first_index = summary.history_length;
    summary.history_length += 1;
    let entries = vec![b"{\"nonsense\": true}".to_vec()];
    store
        .append(Step {
            summary,
            first_index,
            entries,
            output: None,
            approvals: Vec::new(),
            spent: None,
            events: Vec::new(),
            snapshot: None,
            payloads: Vec::new(),
        })
        .await
        .unwrap();
    drop(store);

    engine.router.release_all();
    engine.launch().await;
    engine.until("sound", RunStatus::Completed).await;
    let run = muster_testkit::wait_for("the run to be set aside", crate::harness::PATIENCE, async || {
        let run = engine.run("damaged").await;
        run.activity
            .iter()
            .any(|line| line.contains("set aside"))
            .then_some(run)
    })
    .await;
    assert!(
        run.activity[0].contains(&format!("entry {first_index} of its journal")),
        "{:?}",
        run.activity
    );
    assert_eq!(
        reason(&engine.cancel("damaged").await.unwrap_err()),
        "STORE_UNAVAILABLE"
    );
}

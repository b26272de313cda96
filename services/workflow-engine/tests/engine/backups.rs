//! Backups of a working engine, and engines that go on from them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_api::workflow::backup_service_client::BackupServiceClient;
use muster_runtime::data_directory;
use muster_store::backup::{self, Summary};
use muster_testkit::wait_for;
use muster_workflow_engine::store::embedded::{Embedded, FORMAT};
use muster_workflow_engine::store::{Filter, Store as _};
use tokio::task::JoinSet;

use crate::harness::{Engine, PATIENCE, document, ended, send, until_calls};

/// Three calls and a pause; comes to "abc".
fn abc() -> String {
    document(
        &(send("one", "a")
            + &send("two", "${ . + \"b\" }")
            + "  - pause: {wait: {milliseconds: 10}}\n"
            + &send("three", "${ . + \"c\" }")),
    )
}

pub async fn back_up(engine: &Engine) -> Vec<u8> {
    let endpoint = format!("http://{}", engine.address());
    let mut client = BackupServiceClient::connect(endpoint).await.unwrap();
    let stream = client.backup(proto::BackupRequest {}).await.unwrap().into_inner();
    let chunks: Vec<Vec<u8>> = stream.map(|chunk| chunk.unwrap().chunk).collect().await;
    chunks.concat()
}

pub fn restore(file: &[u8], directory: &Path) -> Summary {
    backup::restore(file, Path::new("file"), FORMAT, directory).unwrap()
}

/// Asserts that the journal of every run is as long as its summary and its head say, and tells how many runs there are.
async fn assert_sound(directory: &Path) -> usize {
    let store = Embedded::open(data_directory::open(directory).unwrap()).unwrap();
    let (mut runs, mut before) = (0, None);
    loop {
        let page = store
            .runs(&Filter::default(), before.as_ref(), 100)
            .await
            .unwrap();
        for summary in page.entries {
            runs += 1;
            let mut length = 0;
            loop {
                let entries = store.history(&summary.id, length, 100).await.unwrap();
                if entries.is_empty() {
                    break;
                }
                for entry in entries {
                    assert_eq!(entry.index, length, "run {}", summary.id);
                    length += 1;
                }
            }
            assert_eq!(length, summary.history_length, "run {}", summary.id);
        }
        before = page.next;
        if before.is_none() {
            return runs;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_busy_engine_is_one_moment_and_its_runs_all_end_right() {
    const HELD: usize = 10;
    const WRITERS: usize = 4;
    let engine = Engine::start().await;
    engine.router.hold();
    for number in 0..HELD {
        engine
            .start_run(&abc(), &format!("held-{number}"), "")
            .await
            .unwrap();
    }
    engine.until_held(HELD).await;
    // Half of them are at their second call.
    engine.router.release(HELD / 2);
    until_calls(&engine, HELD + HELD / 2).await;

    let accepted = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (mut client, accepted) = (engine.client.clone(), Arc::clone(&accepted));
        writers.spawn(async move {
            for number in 0.. {
                let text = document(
                    "  - a: {set: {n: 1}}\n  - b: {wait: {milliseconds: 1}}\n  - c: {set: {n: 2}}\n",
                );
                let request = proto::StartRunRequest {
                    run_id: format!("busy-{writer}-{number}"),
                    source: Some(proto::start_run_request::Source::Document(text)),
                    ..Default::default()
                };
                client.start_run(request).await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let place = tempfile::tempdir().unwrap();
    let mut last = place.path().join("none");
    let mut number = 0;
    // Each of these runs is at least three commits.
    while accepted.load(Ordering::SeqCst) < 700 || number < 3 {
        let known = accepted.load(Ordering::SeqCst);
        let file = back_up(&engine).await;
        number += 1;
        last = place.path().join(number.to_string());
        restore(&file, &last);
        let found = assert_sound(&last).await;
        assert!(
            found >= HELD + known,
            "{known} were accepted before, {found} are in the backup"
        );
    }
    writers.shutdown().await;

    let restored = Engine::start_with(|settings| settings.data_directory.clone_from(&last)).await;
    for number in 0..HELD {
        let id = format!("held-{number}");
        let run = restored.until(&id, RunStatus::Completed).await;
        assert_eq!(run.output_json, r#""abc""#, "{id}");
    }
    wait_for("all runs to end", PATIENCE, async || {
        let doing = restored.status().await;
        let left = doing.running + doing.pending + doing.waiting;
        if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} have not"))
        }
    })
    .await;
    for id in ["busy-0-0", "busy-3-0"] {
        let run = ended(&restored, id).await;
        assert_eq!(
            (run.status(), run.output_json.as_str()),
            (RunStatus::Completed, r#"{"n":2}"#)
        );
    }

    // What was in flight at the backup is asked again under the same message ids.
    let ids = |engine: &Engine, tenant: &str| -> BTreeSet<String> {
        let calls = engine.router.calls().into_iter();
        calls
            .filter(|call| call.tenant == tenant)
            .map(|call| call.message_id)
            .collect()
    };
    assert!(ids(&engine, "one").is_superset(&ids(&restored, "one")));
    assert_eq!(ids(&restored, "one").len(), HELD / 2);
    assert_eq!(ids(&restored, "two").len(), HELD);
    assert!(ids(&restored, "two").is_superset(&ids(&engine, "two")));
}

#[tokio::test]
async fn steps_after_the_backup_are_repeated_under_the_same_message_ids() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine.start_run(&abc(), "twice", "").await.unwrap();
    engine.until_held(1).await;
    let file = back_up(&engine).await;
    engine.router.release_all();
    let before = engine.until("twice", RunStatus::Completed).await;

    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("restored");
    restore(&file, &directory);
    let restored = Engine::start_with(|settings| settings.data_directory = directory).await;
    let again = restored.until("twice", RunStatus::Completed).await;
    assert_eq!(again.output_json, before.output_json);
    assert_eq!(
        restored.router.calls_by_message_id(),
        engine.router.calls_by_message_id()
    );
}

#[tokio::test]
async fn a_timer_that_became_due_between_backup_and_restore_fires_late() {
    let engine = Engine::start().await;
    let text =
        document("  - pause: {wait: {hours: 2}}\n  - done: {set: {a: 1}}\ntimeout: {after: {days: 30}}\n");
    engine.start_run(&text, "waits", "").await.unwrap();
    engine.until("waits", RunStatus::Waiting).await;
    let file = back_up(&engine).await;

    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("restored");
    restore(&file, &directory);
    let mut restored = Engine::start_with(|settings| settings.data_directory = directory).await;
    restored.until("waits", RunStatus::Waiting).await;
    restored.restart_later(1).await;
    restored.until("waits", RunStatus::Completed).await;
}

#[tokio::test]
async fn plain_http_streams_the_same_backup_as_lines_of_json() {
    use base64::Engine as _;
    let engine = Engine::start().await;
    let response = muster_testkit::http::get(engine.address(), "/v1/backup")
        .await
        .unwrap();
    let text = response.text();
    let chunks: Vec<Vec<u8>> = text
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let chunk = line["chunk"].as_str().unwrap();
            base64::engine::general_purpose::STANDARD.decode(chunk).unwrap()
        })
        .collect();
    let place = tempfile::tempdir().unwrap();
    let summary = restore(&chunks.concat(), &place.path().join("restored"));
    assert_eq!(summary.format, "workflow-engine");
    assert_eq!(assert_sound(&place.path().join("restored")).await, 0);
}

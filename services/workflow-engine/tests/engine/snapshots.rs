//! Long runs: what is read to take one up again, and what is left of their history.

use futures::StreamExt as _;
use muster_api::a2a::TaskState;
use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_api::workflow::watch_run_response::Update;
use muster_store::Batch;
use muster_testkit::Answer;
use muster_workflow_engine::run::RunId;
use muster_workflow_engine::store::embedded::Embedded;
use muster_workflow_engine::store::{SnapshotKind, Store};

use crate::harness::{Engine, document, ended, reason, send};
use crate::verifying::Files;

/// A call for each of so many rounds, and some calls afterwards.
fn rounds(count: u32, after: &str) -> String {
    let call = send("ask", "x").replace("\n", "\n        ");
    document(&format!(
        "  - loop:\n      for: {{each: n, in: '[range({count})]'}}\n      do:\n        {}\n      metadata: {{muster: {{maxIterations: \
         1000000}}}}\n{after}",
        call.trim_end()
    ))
}

/// Entries of the run that can be read.
async fn left(engine: &Engine, id: &str) -> Vec<proto::HistoryEvent> {
    engine.history(id).await
}

#[tokio::test]
async fn a_long_run_is_taken_up_from_its_last_state_and_what_came_after_it() {
    let mut engine = Engine::start().await;
    let nap = "  - nap: {wait: PT30M}\n".to_owned();
    let text = rounds(200, &(nap + &send("last", "y")));
    engine.start_run(&text, "long", "").await.unwrap();
    engine.until("long", RunStatus::Waiting).await;
    engine.stop().await;

    // What is before the state that is kept is not read: it can be gone.
    let id: RunId = "long".parse().unwrap();
    {
        let directory = muster_runtime::data_directory::open(engine.data_directory()).unwrap();
        let store = Embedded::open(directory).unwrap();
        let length = store.summary(&id).await.unwrap().unwrap().history_length;
        assert!(store.snapshot(&id, SnapshotKind::Latest).await.unwrap().is_some());
        assert_eq!(store.snapshot(&id, SnapshotKind::Base).await.unwrap(), None);
        let forgotten = store.forget_entries(&id, length * 6 / 10, 10_000).await.unwrap();
        assert_eq!(forgotten as u64, length * 6 / 10);
    }
    engine.pass(40 * 60);
    engine.launch().await;
    let run = engine.until("long", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#""y""#);
    assert_eq!(engine.router.calls().len(), 201);
    let problems = engine.verify("long").await.problems;
    assert!(problems[0].contains("no entry 0"), "{problems:?}");
}

#[tokio::test]
async fn a_state_that_cannot_be_used_is_no_loss_and_is_found() {
    let mut engine = Engine::start().await;
    let nap = "  - nap: {wait: PT30M}\n".to_owned();
    let text = rounds(200, &(nap + &send("last", "y")));
    for id in ["damaged", "sound"] {
        engine.start_run(&text, id, "").await.unwrap();
        engine.until(id, RunStatus::Waiting).await;
    }
    engine.intact("sound").await;
    engine.stop().await;
    {
        let database = Files::open(&engine).database;
        let journals = database.keyspace("journals").unwrap();
        let mut bytes = journals.get(b"damaged\0l").unwrap().expect("it has a state");
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
        let mut batch = Batch::new();
        batch.put(&journals, b"damaged\0l", bytes);
        database.commit(batch).await.unwrap();
    }
    engine.launch().await;
    let problems = engine.verify("damaged").await.problems;
    assert!(
        problems[0].contains("the state that is kept of it"),
        "{problems:?}"
    );
    engine.pass(40 * 60);
    engine.restart().await;
    for id in ["damaged", "sound"] {
        engine.until(id, RunStatus::Completed).await;
    }
    engine.intact("sound").await;
}

#[tokio::test]
async fn the_history_of_a_very_long_run_is_bounded_and_what_is_left_can_be_checked() {
    let mut engine = Engine::start_with(|config| config.history_entries = 500).await;
    let fails = send("one", "a") + &send("two", "b");
    engine.router.fall_back_to(Answer::Echo);
    engine.router.script(
        (0..1_001)
            .map(|_| Answer::Echo)
            .chain([Answer::Task(TaskState::Failed, "no luck".into())]),
    );
    engine
        .start_run(&rounds(1_000, &fails), "long", "")
        .await
        .unwrap();
    let run = ended(&engine, "long").await;
    assert_eq!(run.status(), RunStatus::Faulted, "{run:?}");
    let history = left(&engine, "long").await;
    let first = history[0].index;
    assert!(run.history_length > 3_000, "{}", run.history_length);
    assert!(first > 1_000, "{first}");
    assert!((500..2_000).contains(&history.len()), "{}", history.len());
    assert_eq!(history.last().unwrap().index + 1, run.history_length);
    engine.intact("long").await;

    let request = proto::WatchRunRequest {
        run_id: "long".into(),
        ..Default::default()
    };
    let mut updates = engine
        .client
        .clone()
        .watch_run(request)
        .await
        .unwrap()
        .into_inner();
    match updates.next().await.unwrap().unwrap().update.unwrap() {
        Update::Event(event) => assert_eq!(event.index, first),
        other => panic!("{other:?}"),
    }

    // Its beginning is there to begin again with, the steps in between are not.
    let refused = engine.fork("long", "one", "f", "").await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");
    assert!(refused.message().contains("outgrown its history"), "{refused}");
    let refused = engine.retry("long", "nowhere").await.unwrap_err();
    assert!(refused.message().contains("since entry"), "{refused}");
    engine.restart().await;
    engine.intact("long").await;
    let calls = engine.router.calls().len();
    engine.retry("long", "").await.unwrap();
    let run = engine.until("long", RunStatus::Completed).await;
    assert_eq!((run.output_json.as_str(), run.retries), (r#""b""#, 1));
    assert_eq!(engine.router.calls().len(), calls + 1);
    engine.intact("long").await;

    engine.fork("long", "", "again", "").await.unwrap();
    let run = engine.until("again", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#""b""#);
    engine.intact("again").await;
}

//! Runs of earlier releases, as those left them: this one reads them and takes them to their end.
//!
//! Each file of `golden/` is a run in the middle of its work: what it is pinned to, where it stands, its journal and its
//! last state, as they were in the store. The files of a release never change. A change of the format adds files, by
//! `cargo test --workspace --test engine -- --ignored golden`, under a new name in [`RELEASE`].

use std::fs;
use std::path::PathBuf;

use muster_runtime::clock::{Clock as _, SystemClock};
use muster_testkit::wait_for;
use muster_workflow_engine::run::{Record, RunId, Summary};
use muster_workflow_engine::store::embedded::Embedded;
use muster_workflow_engine::store::payloads::Payload;
use muster_workflow_engine::store::{Saved, SnapshotKind, Step, Store};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::harness::{Engine, PATIENCE};

/// What the newest files are called after.
const RELEASE: &str = "2";

/// Waits for an event, for an answer, for another attempt and for an hour to pass, in a loop and with what it has learned.
const DOCUMENT: &str = r#"
document: {dsl: 1.0.0, namespace: default, name: golden, version: 1.0.0}
timeout: {after: {days: 30}}
input: {from: '.order'}
use:
  functions:
    greet: {set: {greeting: '${ "hello " + .name }'}}
do:
  - begin: {set: {items: [1, 2], name: '${ .name }'}, export: {as: '{seen: .name}'}}
  - hello: {call: greet, with: {name: '${ .name }'}}
  - skip: {if: 'false', set: {never: true}}
  - choose: {switch: [{other: {when: '.greeting == 1', then: end}}, {usual: {then: each}}]}
  - each:
      for: {each: item, in: '[3, 4]', at: position}
      do:
        - inner: {set: {sum: '${ $item + $position }'}}
  - all:
      fork:
        branches:
          - heard: {listen: {to: {one: {with: {type: test.golden}}}}}
          - asked:
              call: a2a
              with: {server: 'agent://weather', method: SendMessage, parameters: {message: {parts: [{text: '${ $context.seen }'}]}}}
              output: {as: '{answered: true}'}
          - repeated:
              try:
                - fail: {raise: {error: {type: 'https://test.test/broken', status: 503, title: Broken}}}
              catch:
                as: problem
                retry: {delay: {hours: 1}, limit: {attempt: {count: 1}}}
                do: [{handled: {set: {status: '${ $problem.status }'}}}]
          - paused: {do: [{pause: {wait: {hours: 1}}}, {late: {set: {waited: true}}}]}
"#;

#[derive(Serialize, Deserialize)]
struct Golden {
    record: Record,
    summary: Summary,
    /// As they were written: the chain is over their text. Of release 1, which kept nothing apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    journal: Vec<Box<RawValue>>,
    /// The same as texts, since their large values are kept apart.
    #[serde(default)]
    entries: Vec<String>,
    /// The large values.
    #[serde(default)]
    payloads: Vec<String>,
    /// The last state that was kept.
    state: String,
}

/// What stays in a journal at most, where the files of this release are written.
const THRESHOLD: usize = 1024;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/golden"))
}

fn open(engine: &Engine) -> Embedded {
    Embedded::open(muster_runtime::data_directory::open(engine.data_directory()).unwrap()).unwrap()
}

#[tokio::test]
#[ignore = "writes the files of this release"]
async fn write_golden_files() {
    let mut engine = Engine::start_with(|config| {
        config.snapshot_entries = 16;
        config.payload_threshold_bytes = THRESHOLD;
    })
    .await;
    engine.router.hold();
    let letter: String = (0..300).map(|number| format!("{number} ")).collect();
    let input = json!({"order": {"name": "Ada", "letter": letter}});
    engine
        .start_run(DOCUMENT, "golden", &input.to_string())
        .await
        .unwrap();
    engine.until_held(1).await;
    wait_for("all branches to wait", PATIENCE, async || {
        let activity = engine.run("golden").await.activity;
        if activity.len() == 4 {
            Ok(())
        } else {
            Err(activity.join("; "))
        }
    })
    .await;
    engine.stop().await;
    let store = open(&engine);
    let id: RunId = "golden".parse().unwrap();
    let entries = store.history(&id, 0, 1000).await.unwrap();
    let payloads = store.database().keyspace("payloads").unwrap();
    let golden = Golden {
        record: store.record(&id).await.unwrap().unwrap(),
        summary: store.summary(&id).await.unwrap().unwrap(),
        journal: Vec::new(),
        entries: entries
            .into_iter()
            .map(|entry| String::from_utf8(entry.bytes).unwrap())
            .collect(),
        payloads: payloads
            .prefix([])
            .map(|payload| String::from_utf8(payload.unwrap().1).unwrap())
            .collect(),
        state: String::from_utf8(store.snapshot(&id, SnapshotKind::Latest).await.unwrap().unwrap()).unwrap(),
    };
    let text = serde_json::to_string_pretty(&golden).unwrap() + "\n";
    fs::write(folder().join(format!("{RELEASE}.json")), text).unwrap();
}

#[tokio::test]
async fn runs_of_earlier_releases_go_on() {
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let newest = files.last().and_then(|path| path.file_stem()).unwrap();
    assert_eq!(newest, RELEASE);
    for path in files {
        let golden = || serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        goes_on(golden(), true).await;
        goes_on(golden(), false).await;
    }
}

/// Takes the run to its end, the day after it was written, from its last state or from its journal.
async fn goes_on(golden: Golden, from_state: bool) {
    let mut engine = Engine::start().await;
    engine.stop().await;
    let Golden {
        record,
        summary,
        journal,
        entries,
        payloads,
        state,
    } = golden;
    let entries = journal.iter().map(|event| event.get().to_owned()).chain(entries);
    let since = SystemClock::default().now().duration_since(summary.created_at);
    engine.pass(24 * 60 * 60 - since.as_secs());
    {
        let store = open(&engine);
        let beginning = Summary {
            history_length: 0,
            ..summary.clone()
        };
        store.create_run(&record, &beginning).await.unwrap();
        let step = Step {
            summary,
            first_index: 0,
            entries: entries.map(String::into_bytes).collect(),
            output: None,
            approvals: Vec::new(),
            spent: None,
            events: Vec::new(),
            snapshot: from_state.then(|| Saved {
                bytes: state.into_bytes(),
                is_base: false,
            }),
            payloads: payloads.into_iter().map(Payload::new).collect(),
        };
        store.append(step).await.unwrap();
    }
    if from_state {
        // It would be set aside if it were folded from its beginning.
        open(&engine).forget_entries(&record.id, 1, 1).await.unwrap();
    }
    engine.launch().await;
    engine.publish("test.golden", json!({"n": 7})).await;
    let output = engine.completed("golden").await;
    let expected = json!([[{"n": 7}], {"answered": true}, {"status": 503}, {"waited": true}]);
    assert_eq!(output, expected);
}

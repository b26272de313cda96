//! Large values of runs, which are kept apart from their journals.

use std::collections::BTreeMap;

use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_store::Batch;
use muster_testkit::{FakeBucket, wait_for};
use muster_workflow_engine::config;
use muster_workflow_engine::store::embedded::FORMAT;
use serde_json::{Value, json};

use crate::backups::{back_up, restore};
use crate::harness::{Engine, PATIENCE, document, reason, send};
use crate::verifying::Files;

/// Longer than what stays in a journal, and nothing that anybody would write down twice by chance.
fn letter() -> String {
    (0..40_000).map(|number| format!("{number:08}")).collect()
}

fn input() -> String {
    json!({"letter": letter(), "n": 1}).to_string()
}

/// Hands the letter on, to an agent and back, and says it again at the end.
fn handing_on() -> String {
    let tasks = "  - first: {set: '${ . + {step: 1} }'}\n".to_owned()
        + "  - second: {set: {again: '${ .letter }', step: 2}, export: {as: '{kept: .again}'}}\n"
        + &send("agent", "${ .again }")
        + "  - third: {set: {letters: ['${ . }', '${ $context.kept }']}}\n";
    document(&tasks)
}

fn told() -> Value {
    json!({"letters": [letter(), letter()]})
}

impl Engine {
    /// Everything that is kept of payloads, and how much the journals take; of an engine that has stopped.
    fn kept(&self) -> (BTreeMap<Vec<u8>, Vec<u8>>, usize) {
        let files = Files::open(self);
        let all = |name| {
            let keyspace = files.database.keyspace(name).unwrap();
            let entries = keyspace.prefix([]).map(|entry| entry.unwrap());
            entries.collect::<BTreeMap<_, _>>()
        };
        let journals = all("journals").into_values().map(|value| value.len()).sum();
        (all("payloads"), journals)
    }
}

/// Settings of the bucket.
fn in_bucket(fake: &FakeBucket) -> config::Payloads {
    config::Payloads {
        store: config::Keeper::S3,
        bucket: FakeBucket::NAME.to_owned(),
        endpoint: Some(fake.endpoint()),
        access_key_id: Some(FakeBucket::KEY_ID.to_owned()),
        secret_access_key: Some("hush".to_owned()),
        allow_http: true,
        answer_within_seconds: 1,
        ..config::Payloads::default()
    }
}

#[tokio::test]
async fn a_large_value_is_handed_on_kept_once_and_read_as_it_was_after_a_restart() {
    let mut engine = Engine::start_with(|settings| settings.snapshot_entries = 16).await;
    engine.router.hold();
    let run = engine.start_run(&handing_on(), "large", &input()).await.unwrap();
    assert_eq!(run.input_json, input());
    engine.until_held(1).await;
    let history = engine.history("large").await;
    let chain = engine.intact("large").await;
    engine.restart().await;
    engine.until_held(1).await;
    assert_eq!(engine.history("large").await, history);
    assert_eq!(engine.intact("large").await, chain);
    engine.router.release_all();
    let run = engine.until("large", RunStatus::Completed).await;
    let output: Value = serde_json::from_str(&run.output_json).unwrap();
    assert_eq!(output, told());
    assert_eq!(run.input_json, input());
    assert_eq!(engine.router.calls()[0].text, letter());
    let history = engine.history("large").await;
    engine.intact("large").await;

    engine.stop().await;
    let (payloads, journals) = engine.kept();
    assert_eq!(payloads.len(), 1, "it is the same value everywhere");
    assert_eq!(
        payloads.into_values().next().unwrap(),
        json!(letter()).to_string().into_bytes()
    );
    assert!(journals < 32 * 1024, "{journals}");
    // Another threshold changes nothing of what is there.
    engine
        .restart_stopped_with(|settings| settings.payload_threshold_bytes = 1 << 20)
        .await;
    assert_eq!(engine.history("large").await, history);
    let request = proto::DeleteRunRequest {
        run_id: "large".into(),
    };
    engine.client.clone().delete_run(request).await.unwrap();
    engine.stop().await;
    assert_eq!(engine.kept().0.len(), 0, "they go with the run");
}

#[tokio::test]
async fn an_older_format_is_written_until_it_is_raised_and_not_after() {
    let mut engine = Engine::start_with(|settings| settings.format = 1).await;
    engine.start_run(&handing_on(), "before", &input()).await.unwrap();
    engine.until("before", RunStatus::Completed).await;
    engine.stop().await;
    let mark = |engine: &Engine| std::fs::read_to_string(engine.data_directory().join("format")).unwrap();
    assert_eq!(mark(&engine), "workflow-engine 1\n");
    let (payloads, journals) = engine.kept();
    assert!(payloads.is_empty(), "software of that format knows of none");
    assert!(journals > letter().len());
    engine.restart_stopped_with(|settings| settings.format = 2).await;
    engine.start_run(&handing_on(), "after", &input()).await.unwrap();
    for id in ["before", "after"] {
        let run = engine.until(id, RunStatus::Completed).await;
        assert_eq!(serde_json::from_str::<Value>(&run.output_json).unwrap(), told());
        engine.intact(id).await;
    }
    engine.stop().await;
    assert_eq!(mark(&engine), "workflow-engine 2\n");
    assert_eq!(engine.kept().0.len(), 1);
    // The indexes of runs are moved; everything is found as before, and forgotten.
    engine
        .restart_stopped_with(|settings| settings.format = FORMAT.version)
        .await;
    engine.stop().await;
    // What is newer already stays so.
    engine.restart_stopped_with(|settings| settings.format = 2).await;
    assert_eq!(
        engine.search(proto::ListRunsRequest::default()).await,
        ["after", "before"]
    );
    for run_id in ["before", "after"] {
        engine.intact(run_id).await;
        let request = proto::DeleteRunRequest {
            run_id: run_id.into(),
        };
        engine.client.clone().delete_run(request).await.unwrap();
    }
    assert_eq!(engine.search(proto::ListRunsRequest::default()).await, [""; 0]);
    engine.stop().await;
    assert_eq!(mark(&engine), format!("workflow-engine {}\n", FORMAT.version));
    assert_eq!(engine.kept().0.len(), 0);
}

#[tokio::test]
async fn a_payload_that_is_altered_or_gone_is_named_and_harms_no_other_run() {
    let mut engine = Engine::start().await;
    let waits = document("  - keep: {set: '${ . }'}\n  - nap: {wait: PT30M}\n  - end: {set: {done: true}}\n");
    for id in ["altered", "gone", "sound"] {
        engine.start_run(&waits, id, &input()).await.unwrap();
        engine.until(id, RunStatus::Waiting).await;
    }
    engine.stop().await;
    {
        let files = Files::open(&engine);
        let keyspace = files.database.keyspace("payloads").unwrap();
        let mut batch = Batch::new();
        for entry in keyspace.prefix([]) {
            let (key, mut value) = entry.unwrap();
            if key.starts_with(b"altered\0") {
                value[100] ^= 1;
                batch.put(&keyspace, key, value);
            } else if key.starts_with(b"gone\0") {
                batch.remove(&keyspace, key);
            }
        }
        files.database.commit(batch).await.unwrap();
    }
    engine.pass(40 * 60);
    engine.launch().await;
    engine.until("sound", RunStatus::Completed).await;
    engine.intact("sound").await;
    for (id, what) in [("altered", "is not what was written"), ("gone", "is gone")] {
        let blocker = engine.until_blocked(id, "set-aside").await;
        for part in [
            "its payload ",
            what,
            "keyspace payloads",
            "put it back from a backup",
        ] {
            assert!(blocker.message.contains(part), "{part}: {blocker:?}");
        }
        let problems = engine.verify(id).await.problems;
        assert!(
            problems.iter().any(|problem| problem.contains(what)),
            "{problems:?}"
        );
        let request = proto::GetRunRequest { run_id: id.into() };
        let refused = engine.client.clone().get_run(request).await.unwrap_err();
        assert!(refused.message().contains(what), "{refused}");
    }
}

#[tokio::test]
async fn what_is_erased_has_no_payloads_and_a_chain_that_holds() {
    let mut engine = Engine::start().await;
    let run = engine.start_run(&handing_on(), "erased", &input()).await.unwrap();
    engine.until(&run.run_id, RunStatus::Completed).await;
    let chain = engine.intact("erased").await;
    for _ in 0..2 {
        let request = proto::EraseRunRequest {
            run_id: "erased".into(),
            by: "ada".into(),
        };
        engine.client.clone().erase_run(request).await.unwrap();
        assert_eq!(engine.intact("erased").await, chain);
    }
    engine.stop().await;
    assert_eq!(engine.kept().0.len(), 0);
    engine.launch().await;
    assert_eq!(engine.intact("erased").await, chain);
}

#[tokio::test]
async fn a_backup_has_the_payloads() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine
        .start_run(&handing_on(), "restored", &input())
        .await
        .unwrap();
    engine.until_held(1).await;
    let file = back_up(&engine).await;
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("restored");
    restore(&file, &directory);
    let restored = Engine::start_with(|settings| settings.data_directory = directory).await;
    let run = restored.until("restored", RunStatus::Completed).await;
    let output: Value = serde_json::from_str(&run.output_json).unwrap();
    assert_eq!(output, told());
    restored.intact("restored").await;
}

#[tokio::test]
async fn a_fork_has_payloads_of_its_own() {
    let engine = Engine::start().await;
    engine.start_run(&handing_on(), "first", &input()).await.unwrap();
    engine.until("first", RunStatus::Completed).await;
    let request = proto::ForkRunRequest {
        run_id: "first".into(),
        from: "third".into(),
        new_run_id: "second".into(),
        ..Default::default()
    };
    engine.client.clone().fork_run(request).await.unwrap();
    engine.until("second", RunStatus::Completed).await;
    let request = proto::DeleteRunRequest {
        run_id: "first".into(),
    };
    engine.client.clone().delete_run(request).await.unwrap();
    let run = engine.run("second").await;
    assert_eq!(serde_json::from_str::<Value>(&run.output_json).unwrap(), told());
    engine.intact("second").await;
}

#[tokio::test]
async fn in_a_bucket_runs_wait_while_it_does_not_answer_and_others_go_on() {
    let fake = FakeBucket::start().await;
    let mut engine = Engine::start_with(|settings| settings.payloads = in_bucket(&fake)).await;
    engine.router.hold();
    engine.start_run(&handing_on(), "large", &input()).await.unwrap();
    engine.until_held(1).await;
    assert_eq!(fake.objects().len(), 1);
    let known = fake.requests().len();
    fake.fail(true);
    engine.router.release(1);
    wait_for("the step after the call", PATIENCE, async || {
        let asked = fake.requests().split_off(known);
        let is_asked = asked.iter().any(|request| request.contains("/large/"));
        if is_asked {
            Ok(())
        } else {
            Err(format!("{asked:?}"))
        }
    })
    .await;
    let refused = engine
        .start_run(&handing_on(), "refused", &input())
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "STORE_UNAVAILABLE");
    assert!(refused.message().contains("s3://payloads"), "{refused}");
    let small = engine.output(&document("  - a: {set: {n: 1}}\n"), "").await;
    assert_eq!(small, json!({"n": 1}), "what needs no bucket goes on");

    fake.fail(false);
    engine.router.release_all();
    let run = engine.until("large", RunStatus::Completed).await;
    assert_eq!(run.input_json, input());
    engine.intact("large").await;
    engine.restart().await;
    engine.intact("large").await;
    engine.stop().await;
    assert_eq!(engine.kept().0.len(), 0, "nothing of it is in the store");
    engine.launch().await;

    // What is gone from the bucket is named.
    fake.change(BTreeMap::clear);
    let problems = engine.verify("large").await.problems;
    let named = |problem: &String| problem.contains("is gone (s3://payloads/muster/large/");
    assert!(problems.iter().any(named), "{problems:?}");
    let request = proto::DeleteRunRequest {
        run_id: "large".into(),
    };
    engine.client.clone().delete_run(request).await.unwrap();
}

#[tokio::test]
async fn in_a_bucket_what_is_deleted_or_erased_is_deleted_there() {
    let fake = FakeBucket::start().await;
    let engine = Engine::start_with(|settings| settings.payloads = in_bucket(&fake)).await;
    for id in ["deleted", "erased"] {
        engine.start_run(&handing_on(), id, &input()).await.unwrap();
        engine.until(id, RunStatus::Completed).await;
    }
    assert_eq!(fake.objects().len(), 2);
    let request = proto::DeleteRunRequest {
        run_id: "deleted".into(),
    };
    engine.client.clone().delete_run(request).await.unwrap();
    assert_eq!(fake.objects().len(), 1);
    let chain = engine.intact("erased").await;
    let erase = async || {
        let request = proto::EraseRunRequest {
            run_id: "erased".into(),
            by: "ada".into(),
        };
        engine.client.clone().erase_run(request).await
    };
    fake.fail(true);
    erase().await.unwrap_err();
    fake.fail(false);
    wait_for("the run to be erased", PATIENCE, async || erase().await).await;
    assert_eq!(fake.objects().len(), 0);
    assert_eq!(engine.intact("erased").await, chain);
}

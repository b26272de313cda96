//! Whether a run still is what was written of it, and what becomes of one that is not.

use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_store::{Batch, Database, Format, Limits};
use muster_workflow_engine::store::embedded::FORMAT;
use serde_json::{Value, json};

use crate::harness::{Engine, document, send};

impl Engine {
    pub async fn verify(&self, id: &str) -> proto::VerifyRunResponse {
        let request = proto::VerifyRunRequest {
            run_id: id.to_owned(),
        };
        self.client
            .clone()
            .verify_run(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Checks that all is as it was written; the chain.
    pub async fn intact(&self, id: &str) -> String {
        let answer = self.verify(id).await;
        assert_eq!(answer.problems, Vec::<String>::new(), "{id}");
        assert_eq!(answer.entries, self.run(id).await.history_length);
        assert_eq!(answer.chain.len(), 64, "{answer:?}");
        answer.chain
    }
}

/// The files of an engine that has stopped, for whoever wants to alter them.
pub struct Files {
    pub database: Database,
}

impl Files {
    pub fn open(engine: &Engine) -> Self {
        let directory = muster_runtime::data_directory::open(engine.data_directory()).unwrap();
        // In the format that they are in: they are only looked at.
        let version = FORMAT.found(engine.data_directory()).unwrap().unwrap();
        let format = Format { version, ..FORMAT };
        Self {
            database: Database::open(directory, format, Limits::default()).unwrap(),
        }
    }

    /// Changes what is stored under a key.
    async fn alter(&self, keyspace: &'static str, key: &[u8], change: impl FnOnce(&mut Value)) {
        let keyspace = self.database.keyspace(keyspace).unwrap();
        let mut value = serde_json::from_slice(&keyspace.get(key).unwrap().unwrap()).unwrap();
        change(&mut value);
        let mut batch = Batch::new();
        batch.put(&keyspace, key, value.to_string());
        self.database.commit(batch).await.unwrap();
    }
}

fn entry(run: &str, index: u64) -> Vec<u8> {
    [run.as_bytes(), b"\0e", &index.to_be_bytes()].concat()
}

#[tokio::test]
async fn runs_are_what_was_written_of_them_wherever_they_stand() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    let tasks = send("one", "a") + "  - fail: {raise: {error: {type: 'https://test.test/x', status: 500}}}\n";
    engine
        .start_run(&document(&tasks), "retried", r#"{"price": 1.10, "n": 1e2}"#)
        .await
        .unwrap();
    engine
        .start_run(&document("  - nap: {wait: PT1H}\n"), "waiting", "")
        .await
        .unwrap();
    engine.until_held(1).await;
    engine.until("waiting", RunStatus::Waiting).await;
    let (running, waiting) = (engine.intact("retried").await, engine.intact("waiting").await);
    engine.restart().await;
    engine.until_held(1).await;
    assert_eq!(engine.intact("waiting").await, waiting);
    engine.router.release_all();
    engine.until("retried", RunStatus::Faulted).await;
    let faulted = engine.intact("retried").await;
    assert_ne!(faulted, running);

    let request = proto::RetryRunRequest {
        run_id: "retried".into(),
        ..Default::default()
    };
    engine.client.clone().retry_run(request).await.unwrap();
    engine.until("retried", RunStatus::Faulted).await;
    assert_ne!(engine.intact("retried").await, faulted);
    let request = proto::ForkRunRequest {
        run_id: "retried".into(),
        from: "fail".into(),
        new_run_id: "forked".into(),
        ..Default::default()
    };
    engine.client.clone().fork_run(request).await.unwrap();
    engine.until("forked", RunStatus::Faulted).await;
    engine.intact("forked").await;
}

#[tokio::test]
async fn whatever_was_altered_is_found() {
    let mut engine = Engine::start().await;
    let tasks = "  - a: {set: {amount: 100}}\n  - b: {set: {amount: '${ .amount }'}}\n";
    let runs = ["entry", "later", "input", "document", "status", "output", "sound"];
    for id in runs {
        engine
            .start_run(&document(tasks), id, r#"{"who": "ada"}"#)
            .await
            .unwrap();
        engine.until(id, RunStatus::Completed).await;
        engine.intact(id).await;
    }
    engine.stop().await;
    {
        let files = Files::open(&engine);
        let change = |value: &mut Value| value["output"]["amount"] = json!(1);
        files.alter("journals", &entry("entry", 2), change).await;
        let change = |value: &mut Value| value["time"] = json!("2200-01-01T00:00:00Z");
        files.alter("journals", &entry("later", 5), change).await;
        let change = |value: &mut Value| value["input"] = json!({"who": "eve"});
        files.alter("journals", b"input\0r", change).await;
        let change = |value: &mut Value| {
            let text = value["document"].as_str().unwrap().replace("100", "101");
            value["document"] = json!(text);
        };
        files.alter("journals", b"document\0r", change).await;
        let change = |value: &mut Value| value["status"] = json!("faulted");
        files.alter("runs", b"sstatus", change).await;
        let change = |value: &mut Value| value["amount"] = json!(7);
        files.alter("journals", b"output\0o", change).await;
    }
    engine.launch().await;
    engine.intact("sound").await;
    let expected = [
        ("entry", "the chain of digests ends with"),
        ("later", "the chain of digests ends with"),
        ("input", "the chain of digests ends with"),
        ("document", "the chain of digests ends with"),
        (
            "status",
            "it is listed as faulted, and its journal says completed",
        ),
        ("output", "its output is not the one of its journal"),
    ];
    for (id, problem) in expected {
        let problems = engine.verify(id).await.problems;
        assert!(
            problems.iter().any(|found| found.contains(problem)),
            "{id}: {problems:?}"
        );
    }
}

#[tokio::test]
async fn nobody_acts_upon_a_journal_that_was_altered() {
    let mut engine = Engine::start().await;
    let tasks = "  - pay: {set: {amount: 100}}\n  - nap: {wait: PT30M}\n".to_owned()
        + &send("transfer", "${ .amount | tostring }");
    for id in ["altered", "sound"] {
        engine.start_run(&document(&tasks), id, "").await.unwrap();
        engine.until(id, RunStatus::Waiting).await;
    }
    engine.stop().await;
    let change = |value: &mut Value| {
        assert_eq!(value["type"], "task.completed");
        value["output"]["amount"] = json!(1_000_000);
    };
    Files::open(&engine)
        .alter("journals", &entry("altered", 2), change)
        .await;
    engine.pass(40 * 60);
    engine.launch().await;
    engine.until("sound", RunStatus::Completed).await;
    let blocker = engine.until_blocked("altered", "set-aside").await;
    assert!(blocker.message.contains("is not what was written"), "{blocker:?}");
    assert_eq!(engine.router.calls().len(), 1, "nothing was transferred for it");
}

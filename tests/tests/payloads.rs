//! Large values of runs, in one process that is killed: kept in its own store, and in a bucket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use muster_testkit::{FakeBucket, wait_for};
use muster_tests::{Dev, PATIENCE};
use serde_json::{Value, json};

/// Hands a large value on, waits, and tells it.
const RUN: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: large, version: 1.0.0 }
do:
  - first: { set: { letter: "${ .letter }", step: 1 } }
  - second: { set: { letter: "${ .letter }", step: 2 }, export: { as: "${ { kept: .letter } }" } }
  - pause: { wait: { seconds: 3 } }
  - third: { set: { letter: "${ .letter }", kept: "${ $context.kept }" } }
"#;

/// 300 KiB.
fn letter() -> String {
    (0..38_400).map(|number| format!("{number:08}")).collect()
}

async fn survives(directory: &Path, arguments: &[&str], killed: impl FnOnce()) {
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let document = file("large.yaml", RUN);
    let input = format!(
        "@{}",
        file("input.json", &json!({"letter": letter()}).to_string())
    );
    let data = directory.join("data");
    let dev = Dev::start_with(&data, arguments).await;
    let start = [
        "workflow", "run", &document, "--input", &input, "--id", "large", "-o", "json",
    ];
    assert_eq!(dev.muster(&start).await.success().json()["id"], "large");
    wait_for("the pause", PATIENCE, async || {
        dev.muster(&["workflow", "show", "large", "-o", "json"])
            .await
            .json()["status"]
            == "waiting"
    })
    .await;
    let history = async |dev: &Dev| -> Vec<Value> {
        let history = dev.muster(&["workflow", "history", "large", "-o", "json"]).await;
        history.json_lines()
    };
    let before = history(&dev).await;
    dev.process.kill().await;
    killed();

    let dev = Dev::start_with(&data, arguments).await;
    let run = dev.completed("large").await;
    assert_eq!(run["output"], json!({"letter": letter(), "kept": letter()}));
    assert_eq!(history(&dev).await.get(..before.len()), Some(before.as_slice()));
    let _intact = dev.muster(&["workflow", "verify", "large"]).await.success();
}

#[tokio::test]
async fn a_large_value_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    survives(directory.path(), &[], || {}).await;
}

#[tokio::test]
async fn in_a_bucket_it_survives_too_and_is_there_once() {
    let fake = FakeBucket::start().await;
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "hush\n").unwrap();
    let settings = [
        "store=s3".to_owned(),
        format!("bucket={}", FakeBucket::NAME),
        format!("endpoint={}", fake.endpoint()),
        "allow_http=true".to_owned(),
        format!("access_key_id={}", FakeBucket::KEY_ID),
        format!("secret_access_key_file={}", secret.display()),
    ];
    let settings: Vec<String> = settings
        .map(|setting| format!("engine.payloads.{setting}"))
        .into();
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    survives(directory.path(), &arguments, || {
        let objects = fake.objects();
        let kept: Vec<&Vec<u8>> = objects.values().collect();
        assert_eq!(kept, [&json!(letter()).to_string().into_bytes()]);
    })
    .await;
    assert_eq!(fake.objects().len(), 1);
}

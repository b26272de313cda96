//! `muster backup` and `muster restore` as an operator uses them, on a `muster dev` that works.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use muster_tests::Dev;

/// A pause, a real call.
const LATER: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: later, version: 1.0.0 }
do:
  - pause: { wait: { seconds: 5 } }
  - call:
      call: a2a
      with:
        server: skill://weather_forecasting
        method: SendMessage
        parameters: { message: { parts: [ { text: "Seattle 2014-03-01 to 2014-03-02" } ] } }
      output: { as: "${ .artifacts[0].parts[0].data.rainy_dates }" }
"#;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_fleet_that_is_restored_goes_on_with_its_runs() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("later.yaml"), LATER).unwrap();
    let data = place.path().join("data");
    let dev = Dev::start(&data).await;
    let _started = dev
        .shell(place.path(), "muster workflow run later.yaml --id later")
        .await
        .success();
    let told = dev
        .shell(place.path(), "muster backup fleet.backup -o json")
        .await
        .success()
        .json();
    assert_eq!(told["format"], "workflow-engine");
    assert!(told["keyspaces"]["runs"].as_u64() > Some(0), "{told}");
    let digest = dev
        .shell(place.path(), "sha256sum fleet.backup")
        .await
        .success()
        .stdout;
    assert!(digest.starts_with(told["sha256"].as_str().unwrap()), "{digest}");
    // The same through a pipe, in both directions.
    let piped = "muster backup - | cat > piped.backup; cat piped.backup | muster restore - again";
    let _piped = dev.shell(place.path(), piped).await.success();
    dev.process.kill().await;
    std::fs::remove_dir_all(&data).unwrap();

    let restored = place.path().join("restored").join("workflow-engine");
    let file = place.path().join("fleet.backup");
    let arguments = [
        "restore",
        file.to_str().unwrap(),
        restored.to_str().unwrap(),
        "-o",
        "json",
    ];
    let again = muster_tests::muster(&[], &arguments).await.success().json();
    assert_eq!(again["sha256"], told["sha256"]);
    assert_eq!(again["keyspaces"], told["keyspaces"]);

    let dev = Dev::start(&place.path().join("restored")).await;
    let run = dev.completed("later").await;
    assert_eq!(run["output"], serde_json::json!(["2014-03-01", "2014-03-02"]));
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_leaves_nothing_and_the_engine_works_on() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("later.yaml"), LATER).unwrap();
    let dev = Dev::start(&place.path().join("data")).await;
    for id in ["a", "b", "c", "d"] {
        let run = format!("muster workflow run later.yaml --id {id}");
        let _started = dev.shell(place.path(), &run).await.success();
    }
    let before = names(place.path());
    // The system refuses to make the file longer than 1 KiB, as a full disk does.
    let full = "trap '' XFSZ; ulimit -f 1; muster backup full.backup";
    let failed = dev.shell(place.path(), full).await;
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stderr.contains("full.backup: cannot write the backup"),
        "{failed:?}"
    );
    let failed = dev.shell(place.path(), "muster backup - > /dev/full").await;
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stderr.contains("standard output: cannot write"),
        "{failed:?}"
    );
    let failed = dev.shell(place.path(), "muster backup missing/full.backup").await;
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stderr.contains("missing/full.backup: cannot be written"),
        "{failed:?}"
    );
    let failed = dev
        .shell(
            place.path(),
            "muster backup --engine http://127.0.0.1:1 full.backup",
        )
        .await;
    assert_eq!(failed.code, 5, "{failed:?}");
    assert_eq!(names(place.path()), before);
    let _backed_up = dev
        .shell(place.path(), "muster backup whole.backup")
        .await
        .success();
}

//! An engine and a registry whose stores are in Redis, as an operator meets them: killed, doubled, without their Redis.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use muster_testkit::{RedisServer, wait_for};
use muster_tests::{Dev, PATIENCE};
use serde_json::Value;

/// A real call, a pause, and what needs the call's result.
const RUN: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: later, version: 1.0.0 }
do:
  - forecast:
      call: a2a
      with:
        server: skill://weather_forecasting
        method: SendMessage
        parameters: { message: { parts: [ { text: "Seattle 2014-03-01 to 2014-03-02" } ] } }
      output: { as: "${ .artifacts[0].parts[0].data.rainy_dates }" }
  - pause: { wait: { seconds: 3 } }
  - count: { set: "${ length }" }
"#;

/// Leases and patience that a test can wait for.
const SHORT: [&str; 6] = [
    "--set",
    "engine.redis.lease_seconds=3",
    "--set",
    "engine.redis.patience_seconds=1",
    "--set",
    "engine.redis.answer_within_seconds=1",
];

async fn dev(directory: &Path, redis: &RedisServer) -> Dev {
    let url = redis.url();
    let arguments: Vec<&str> = ["--redis", url.as_str()].into_iter().chain(SHORT).collect();
    Dev::start_with(directory, &arguments).await
}

async fn start_run(dev: &Dev, place: &Path) {
    std::fs::write(place.join("later.yaml"), RUN).unwrap();
    let _started = dev
        .shell(place, "muster workflow run later.yaml --id later")
        .await
        .success();
}

async fn history(dev: &Dev) -> Vec<Value> {
    let history = dev.muster(&["workflow", "history", "later", "-o", "json"]).await;
    history.json_lines()
}

/// Waits until the call's result is recorded and the run waits for time to pass.
async fn paused(dev: &Dev) -> Vec<Value> {
    wait_for("the pause", PATIENCE, async || {
        let history = history(dev).await;
        let text = serde_json::to_string(&history).unwrap();
        if text.contains("/do/1/pause") {
            Ok(history)
        } else {
            Err(text)
        }
    })
    .await
}

#[tokio::test]
async fn a_killed_engine_goes_on_from_redis_and_repeats_no_recorded_step() {
    let (place, redis) = (tempfile::tempdir().unwrap(), RedisServer::start().await);
    let data = place.path().join("data");
    let first = dev(&data, &redis).await;
    start_run(&first, place.path()).await;
    let recorded = paused(&first).await;
    first.process.kill().await;

    let second = dev(&data, &redis).await;
    let run = second.completed("later").await;
    assert_eq!(run["output"], 2);
    let history = history(&second).await;
    assert!(history.starts_with(&recorded), "{history:?} after {recorded:?}");
    let of_call = |history: &[Value]| {
        history
            .iter()
            .filter(|event| event["task"] == "/do/0/forecast")
            .count()
    };
    assert_eq!(of_call(&history), of_call(&recorded), "{history:?}");
    let kept: Vec<String> = std::fs::read_dir(data.join("workflow-engine"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !kept.contains(&"data".to_owned()),
        "nothing of it is on this disk: {kept:?}"
    );
}

#[tokio::test]
async fn an_engine_that_stops_gives_everything_back() {
    let (place, redis) = (tempfile::tempdir().unwrap(), RedisServer::start().await);
    let mut first = dev(&place.path().join("first"), &redis).await;
    let owner = std::fs::read_to_string(place.path().join("first/workflow-engine/owner")).unwrap();
    let held = redis.ask(&["HGET", "muster:{p00}:lease", "owner"]).await;
    assert_eq!(held.trim(), owner.trim());
    let leases = async || {
        redis
            .ask(&["HLEN", "muster:{registry}:entries"])
            .await
            .trim()
            .to_owned()
    };
    assert_eq!(leases().await, "5", "the registry's leases are there too");
    // A backup is Redis's own business.
    let backup = first.shell(place.path(), "muster backup whole.backup").await;
    assert_ne!(backup.code, 0, "{backup:?}");
    assert!(backup.stderr.contains("back up Redis itself"), "{backup:?}");
    assert!(first.process.terminate().await.success());
    assert_eq!(leases().await, "0", "the agents have said goodbye");
    let leases = redis.ask(&["HGET", "muster:{p00}:lease", "owner"]).await;
    assert_eq!(leases.trim(), "");
    drop(dev(&place.path().join("second"), &redis).await);
}

#[tokio::test]
async fn runs_wait_while_redis_is_away_and_go_on_when_it_is_back() {
    let (place, mut redis) = (tempfile::tempdir().unwrap(), RedisServer::start().await);
    let fleet = dev(&place.path().join("data"), &redis).await;
    start_run(&fleet, place.path()).await;
    let _recorded = paused(&fleet).await;
    redis.kill().await;
    let refused = fleet
        .shell(place.path(), "muster workflow run later.yaml --id other")
        .await;
    assert_eq!(refused.code, 5, "{refused:?}");
    let place_of_redis = format!("Redis at 127.0.0.1:{}", redis.port());
    assert!(refused.stderr.contains(&place_of_redis), "{refused:?}");
    wait_for("the run to wait for the store", PATIENCE, async || {
        let log = fleet.process.stderr();
        log.contains("the run waits for the store")
            .then_some(())
            .ok_or(log)
    })
    .await;
    redis.restart().await;
    assert_eq!(fleet.completed("later").await["output"], 2);
    let other = fleet.muster(&["workflow", "show", "other"]).await;
    assert_eq!(other.code, 3, "what was refused is not there: {other:?}");
}

#[tokio::test]
async fn a_lease_that_is_lost_is_taken_again_when_it_is_free() {
    let (place, redis) = (tempfile::tempdir().unwrap(), RedisServer::start().await);
    let fleet = dev(&place.path().join("data"), &redis).await;
    // As if another engine had taken it while this one was frozen, and had gone.
    redis.ask(&["HINCRBY", "muster:{p05}:lease", "epoch", "1"]).await;
    redis
        .ask(&["HSET", "muster:{p05}:lease", "owner", "another", "until", "0"])
        .await;
    wait_for("the lease to be taken again", PATIENCE, async || {
        let owner = redis.ask(&["HGET", "muster:{p05}:lease", "owner"]).await;
        (owner.trim() != "another").then_some(()).ok_or(owner)
    })
    .await;
    start_run(&fleet, place.path()).await;
    assert_eq!(fleet.completed("later").await["output"], 2);
}

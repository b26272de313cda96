//! Engines over a Redis Cluster, one server of which dies with what only it has acknowledged: its replica takes over without.
//!
//! That this is lost is Redis's to say. What is promised is that nothing hangs by it: engines know more than the store then, and
//! the other servers of the Cluster, which have lost nothing, know more than the one.

use muster_testkit::{RedisCluster, wait_for};
use muster_tests::{PATIENCE, Replicas};
use serde_json::Value;

/// Waits for an event, and then calls an agent.
const HEARS_AND_CALLS: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: hears-and-calls, version: 1.0.0 }
do:
  - hear: { listen: { to: { one: { with: { type: news } } } } }
  - tell:
      call: a2a
      with:
        server: agent://counter
        method: SendMessage
        parameters: { message: { parts: [ { text: "${ $workflow.id }" } ] } }
      output: { as: "${ $task.name }" }
"#;

/// Waits for one event after the other.
const HEARS_TWICE: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: hears-twice, version: 1.0.0 }
do:
  - first: { listen: { to: { one: { with: { type: first } } } } }
  - second: { listen: { to: { one: { with: { type: second } } } } }
"#;

const STARTED_BY_EVENTS: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: started, version: 1.0.0 }
schedule: { on: { one: { with: { type: begin } } } }
do:
  - done: { set: { by: "${ $workflow.input[0].data.number }" } }
"#;

/// What is in the slot of the log of events.
const LOG: &str = "muster:{log}:events";

/// What is in the slot of the groups of runs.
const GROUPS: &str = "muster:{groups}:server";

/// What is in the slot of a partition.
fn lease(partition: usize) -> String {
    format!("muster:{{p{partition:02}}}:lease")
}

/// A partition on such a server.
async fn partition(cluster: &RedisCluster, wanted: impl Fn(usize) -> bool) -> usize {
    for number in 0..64 {
        if wanted(cluster.primary_of(&lease(number)).await) {
            return number;
        }
    }
    panic!("each server has some of the partitions");
}

fn file(replicas: &Replicas, name: &str, text: &str) -> String {
    let path = replicas.directory().join(format!("{name}.yaml"));
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// What the command line shows of a run, once that is as wanted.
async fn shows(replicas: &Replicas, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("what is wanted of {id}"), PATIENCE, async || {
        let shown = replicas.muster(0, &["workflow", "show", id, "-o", "json"]).await;
        let run: Value = serde_json::from_str(&shown.stdout).map_err(|_| format!("{shown:?}"))?;
        if wanted(&run) {
            Ok(run)
        } else {
            Err(run.to_string())
        }
    })
    .await
}

async fn completed(replicas: &Replicas, id: &str) -> Value {
    shows(replicas, id, |run| run["status"] == "completed").await
}

/// Waits until the run listens for an event in this task.
async fn listens(replicas: &Replicas, id: &str, task: &str) {
    wait_for(&format!("{id} to listen"), PATIENCE, async || {
        let why = replicas.muster(0, &["workflow", "why", id, "-o", "json"]).await;
        let told: Value = serde_json::from_str(&why.stdout).map_err(|_| format!("{why:?}"))?;
        let blocker = &told["blockers"][0];
        let is_there =
            blocker["kind"] == "event" && blocker["task"].as_str().is_some_and(|at| at.contains(task));
        if is_there { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
}

async fn publish(replicas: &Replicas, kind: &str, number: usize) {
    let (id, data) = (format!("{kind}-{number}"), format!("{{\"number\": {number}}}"));
    let arguments = [
        "event", "publish", "--type", kind, "--source", "/test", "--id", &id, "--data", &data,
    ];
    // Refused as long as nobody has the log.
    wait_for(&format!("{id} to be published"), PATIENCE, async || {
        let published = replicas.muster(1, &arguments).await;
        if published.code == 0 {
            Ok(())
        } else {
            Err(format!("{published:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn runs_whose_end_a_server_of_a_cluster_has_lost_go_on_and_end_again() {
    let mut cluster = RedisCluster::start_with_replicas().await;
    let replicas = Replicas::start(2, &cluster.url()).await;
    // What runs need besides their partition is on servers that are well.
    let (log, groups) = (cluster.primary_of(LOG).await, cluster.primary_of(GROUPS).await);
    let lost = partition(&cluster, |server| server != log && server != groups).await;
    let kept = partition(&cluster, |server| server == log).await;
    let document = file(&replicas, "hears-and-calls", HEARS_AND_CALLS);
    let ids = |partition: usize| -> Vec<String> {
        (0..3)
            .map(|number| format!("run-{number}.p{partition}"))
            .collect()
    };
    let (lost_ids, kept_ids) = (ids(lost), ids(kept));
    for id in lost_ids.iter().chain(&kept_ids) {
        let run = ["workflow", "run", &document, "--id", id];
        let _started = replicas.muster(0, &run).await.success();
        listens(&replicas, id, "hear").await;
    }
    cluster.cut_replica_of(&lease(lost)).await;
    publish(&replicas, "news", 0).await;
    let mut ends = Vec::new();
    for id in lost_ids.iter().chain(&kept_ids) {
        ends.push(completed(&replicas, id).await["endedAt"].clone());
    }
    cluster.lose_writes_of(&lease(lost)).await;
    // The store knows nothing of their ends any more, and no engine had them on its list.
    for (id, end) in lost_ids.iter().zip(&ends) {
        let again = shows(&replicas, id, |run| {
            run["status"] == "completed" && run["endedAt"] != *end
        });
        assert_eq!(again.await["output"], "tell");
    }
    for (id, end) in kept_ids.iter().zip(&ends[lost_ids.len()..]) {
        assert_eq!(
            completed(&replicas, id).await["endedAt"],
            *end,
            "it had not lost anything"
        );
    }
    for id in lost_ids.iter().chain(&kept_ids) {
        let verified = replicas.muster(0, &["workflow", "verify", id]).await;
        assert_eq!(verified.code, 0, "{verified:?}");
    }
    let messages = replicas.agent.calls_by_message_id();
    assert_eq!(
        messages.len(),
        6,
        "what comes again has the same id: {messages:?}"
    );
}

#[tokio::test]
async fn events_are_heard_whose_places_in_the_log_a_server_of_a_cluster_would_give_out_again() {
    let mut cluster = RedisCluster::start_with_replicas().await;
    let replicas = Replicas::start(2, &cluster.url()).await;
    let log = cluster.primary_of(LOG).await;
    let elsewhere = partition(&cluster, |server| server != log).await;
    let started = file(&replicas, "started", STARTED_BY_EVENTS);
    let _applied = replicas
        .muster(0, &["workflow", "apply", &started])
        .await
        .success();
    let id = format!("hears-twice.p{elsewhere}");
    let twice = file(&replicas, "hears-twice", HEARS_TWICE);
    let _started = replicas
        .muster(0, &["workflow", "run", &twice, "--id", &id])
        .await
        .success();
    listens(&replicas, &id, "first").await;
    cluster.cut_replica_of(LOG).await;
    let numbers = async |wanted: std::ops::Range<usize>| {
        let runs = [
            "workflow",
            "runs",
            "--name",
            "started",
            "--status",
            "completed",
            "--limit",
            "100",
            "-o",
            "json",
        ];
        wait_for(&format!("the runs of {wanted:?}"), PATIENCE, async || {
            let listed = replicas.muster(0, &runs).await;
            let listed: Value = serde_json::from_str(&listed.stdout).map_err(|_| format!("{listed:?}"))?;
            let mut found = std::collections::BTreeSet::new();
            for run in listed["runs"].as_array().into_iter().flatten() {
                let id = run["id"].as_str().unwrap_or_default();
                let run = replicas.muster(0, &["workflow", "show", id, "-o", "json"]).await;
                let run: Value = serde_json::from_str(&run.stdout).map_err(|_| format!("{run:?}"))?;
                found.extend(run["output"]["by"].as_u64());
            }
            let all = wanted.clone().all(|number| found.contains(&(number as u64)));
            if all { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    for number in 0..6 {
        publish(&replicas, "begin", number).await;
    }
    publish(&replicas, "first", 0).await;
    listens(&replicas, &id, "second").await;
    numbers(0..6).await;
    cluster.lose_writes_of(LOG).await;
    // The log knows nothing of these events any more; runs on other servers have them behind them, and are named for their places.
    for number in 6..12 {
        publish(&replicas, "begin", number).await;
    }
    publish(&replicas, "second", 0).await;
    let _heard = completed(&replicas, &id).await;
    numbers(6..12).await;
}

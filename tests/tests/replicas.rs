//! Several engines over one Redis, as their callers meet them: any answers any call, and whoever is left goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use muster_testkit::{FakeAgent, Program, RedisServer, wait_for};
use muster_tests::{PATIENCE, Replicas};
use serde_json::Value;

/// Two calls with a pause for whoever is to be killed, and what both came to.
const TWO_CALLS: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: two-calls, version: 1.0.0 }
do:
  - first: &call
      call: a2a
      with:
        server: agent://counter
        method: SendMessage
        parameters: { message: { parts: [ { text: "${ $workflow.id + \" \" + $task.name }" } ] } }
      output: { as: "${ $task.name }" }
  - second: *call
"#;

const LISTENS: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: listens, version: 1.0.0 }
do:
  - hear: { listen: { to: { one: { with: { type: news } } } } }
"#;

const STARTED_BY_EVENTS: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: started, version: 1.0.0 }
schedule: { on: { one: { with: { type: begin } } } }
do:
  - done: { set: { by: "${ $workflow.input[0].data.number }" } }
"#;

const PARENT: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: parent, version: 1.0.0 }
do:
  - child: { run: { workflow: { namespace: test, name: two-calls, version: 1.0.0 } } }
"#;

const EVERY_SECOND: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: ticks, version: 1.0.0 }
schedule: { every: { seconds: 1 } }
do:
  - tick: { set: { at: now } }
"#;

fn file(replicas: &Replicas, name: &str, text: &str) -> String {
    let path = replicas.directory().join(format!("{name}.yaml"));
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

async fn json(replicas: &Replicas, engine: usize, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
    replicas.muster(engine, &arguments).await.success().json()
}

async fn done(replicas: &Replicas, engine: usize, arguments: &[&str]) {
    let _said = replicas.muster(engine, arguments).await.success();
}

async fn completed(replicas: &Replicas, engine: usize, id: &str) -> Value {
    wait_for(&format!("{id} to complete"), PATIENCE, async || {
        let shown = replicas
            .muster(engine, &["workflow", "show", id, "-o", "json"])
            .await;
        let run: Value = serde_json::from_str(&shown.stdout).map_err(|_| format!("{shown:?}"))?;
        if run["status"] == "completed" {
            Ok(run)
        } else {
            Err(run.to_string())
        }
    })
    .await
}

/// Runs with such ids, started at alternating engines: some are of each engine's partitions.
async fn start(replicas: &Replicas, document: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        let id = format!("run-{number}");
        let at = number % replicas.count();
        let started = json(replicas, at, &["workflow", "run", document, "--id", &id]).await;
        assert_eq!(started["id"], id.as_str());
        ids.push(id);
    }
    ids
}

/// Each step was recorded once, and no call was made again under another id.
fn assert_no_step_twice(replicas: &Replicas, ids: &[String]) {
    let keys = replicas.agent.calls_by_step_key();
    assert_eq!(keys.len(), 2 * ids.len(), "one key for each step: {keys:?}");
    let messages = replicas.agent.calls_by_message_id();
    assert_eq!(messages.len(), keys.len(), "no step was tried anew: {messages:?}");
}

#[tokio::test]
async fn any_engine_answers_any_call() {
    let redis = RedisServer::start().await;
    let replicas = Replicas::start(2, &redis.url()).await;
    let status = json(&replicas, 0, &["status"]).await;
    assert_eq!(status["engine"]["engines"], 2, "{status}");
    replicas.agent.hold();
    let document = file(&replicas, "two-calls", TWO_CALLS);
    let ids = start(&replicas, &document, 6).await;
    wait_for("all first calls", PATIENCE, async || replicas.agent.held() == 6).await;
    for id in &ids {
        for engine in 0..2 {
            let why = json(&replicas, engine, &["workflow", "why", id]).await;
            assert_eq!(why["blockers"][0]["kind"], "call", "engine {engine}, {id}: {why}");
        }
    }
    for (number, id) in ids.iter().enumerate() {
        let paused = json(&replicas, number % 2, &["workflow", "pause", id]).await;
        assert_eq!(paused["status"], "paused", "{paused}");
        let resumed = json(&replicas, (number + 1) % 2, &["workflow", "resume", id]).await;
        assert_eq!(resumed["status"], "running", "{resumed}");
    }
    // One watches where the run may not be; one is cancelled, one after the other, from the wrong place, too.
    let cancelled = json(&replicas, 1, &["workflow", "cancel", "run-5"]).await;
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    replicas.agent.release_all();
    for id in ids.iter().take(5) {
        let watched = replicas
            .muster(1, &["workflow", "watch", id, "-o", "json"])
            .await
            .success();
        assert!(watched.stdout.contains("run.completed"), "{watched:?}");
        for engine in 0..2 {
            assert_eq!(completed(&replicas, engine, id).await["output"], "second");
        }
        let verified = replicas.muster(0, &["workflow", "verify", id]).await;
        assert_eq!(verified.code, 0, "{verified:?}");
    }
    for engine in 0..2 {
        let runs = replicas
            .muster(engine, &["workflow", "runs", "-o", "json"])
            .await
            .success();
        assert_eq!(runs.json()["runs"].as_array().unwrap().len(), 6, "{runs:?}");
    }
    // Many at once, wherever they are.
    let bulk = [
        "workflow",
        "bulk",
        "delete",
        "--status",
        "completed",
        "--namespace",
        "test",
        "-o",
        "json",
    ];
    let deleted = replicas.muster(0, &bulk).await.success();
    assert_eq!(deleted.json()["done"], 5, "{deleted:?}");
}

/// A call goes on in the router when its engine dies, and who has taken the run over and sends it again gets its answer: nothing
/// comes to the agent twice. Each call says under which lease it was made.
fn assert_no_call_twice(replicas: &Replicas) {
    for call in replicas.agent.calls() {
        assert!(call.epoch.is_some(), "{call:?}");
    }
    let messages = replicas.agent.calls_by_message_id();
    assert!(messages.values().all(|calls| *calls == 1), "{messages:?}");
}

#[tokio::test]
async fn runs_of_a_killed_engine_go_on_in_the_other() {
    let redis = RedisServer::start().await;
    let mut replicas = Replicas::start(2, &redis.url()).await;
    replicas.agent.hold();
    let document = file(&replicas, "two-calls", TWO_CALLS);
    let ids = start(&replicas, &document, 10).await;
    wait_for("all first calls", PATIENCE, async || replicas.agent.held() == 10).await;
    replicas.kill(0).await;
    replicas.agent.release_all();
    for id in &ids {
        assert_eq!(completed(&replicas, 1, id).await["output"], "second");
    }
    assert_no_step_twice(&replicas, &ids);
    assert_no_call_twice(&replicas);
    wait_for("what the other engine counts", PATIENCE, async || {
        let text = replicas.metrics(1).await?;
        let count = |series: &str| {
            let line = text.lines().find(|line| line.starts_with(series))?;
            line.rsplit_once(' ')?.1.parse::<u32>().ok()
        };
        let (taken, renewed) = (
            count("workflow_takeovers_total"),
            count("workflow_lease_renewals_total{outcome=\"renewed\"}"),
        );
        // All, in the end: some from the start, and the others when they had no owner.
        if taken.is_some_and(|taken| taken >= 64) && renewed.is_some_and(|renewed| renewed > 0) {
            Ok(())
        } else {
            Err(format!("{taken:?} {renewed:?}"))
        }
    })
    .await;
    // It comes back under another name, gets its share, and new runs go through both.
    replicas.start_again(0, true);
    replicas.process(0).ready().await;
    wait_for("a share for the new engine", PATIENCE, async || {
        let mut owners = std::collections::BTreeSet::new();
        for partition in 0..64 {
            let key = format!("muster:{{p{partition:02}}}:lease");
            owners.insert(redis.ask(&["HGET", &key, "owner"]).await.trim().to_owned());
        }
        (owners.len() == 2 && !owners.contains(""))
            .then_some(())
            .ok_or(format!("{owners:?}"))
    })
    .await;
    let started = json(&replicas, 0, &["workflow", "run", &document, "--wait"]).await;
    assert_eq!(started["output"], "second");
}

/// Whoever gets calls without a router before it that knows messages again: one that a killed engine had under way comes a second
/// time from the engine that has taken the run over, under the same id, and by its epoch it is told which of both is the newer.
#[tokio::test]
async fn a_call_that_comes_again_from_another_engine_has_the_same_id_and_a_later_epoch() {
    let (redis, directory) = (RedisServer::start().await, tempfile::tempdir().unwrap());
    // It stands where the router is, and takes each call for a new one.
    let stranger = FakeAgent::start("stranger").await;
    stranger.hold();
    let engine = |number: usize| {
        let own = directory.path().join(format!("engine-{number}"));
        Program::named("muster-workflow-engine")
            .env("MUSTER__ENGINE__ROUTER_URL", stranger.endpoint())
            .env("MUSTER__ENGINE__REDIS_CLUSTER_ENDPOINT", redis.url())
            .env("MUSTER__ENGINE__REDIS__LEASE_SECONDS", "5")
            .env("MUSTER__ENGINE__DATA_DIRECTORY", own.display().to_string())
    };
    let [first, second] = [engine(0), engine(1)];
    let document = directory.path().join("two-calls.yaml");
    std::fs::write(&document, TWO_CALLS).unwrap();
    let document = document.display().to_string();
    let at = |engine: &Program| [("MUSTER_ENGINE_URL".to_owned(), engine.url())];

    let dies = first.start_ready().await;
    let run = ["workflow", "run", document.as_str(), "--id", "run"];
    let _said = muster_tests::muster(&at(&first), &run).await.success();
    wait_for("the first call", PATIENCE, async || stranger.held() == 1).await;
    let _lives = second.start_ready().await;
    dies.kill().await;
    let calls = wait_for("the call to come again", PATIENCE, async || {
        let calls = stranger.calls();
        let (earlier, later) = (calls.first().and_then(|call| call.epoch), calls.last());
        if later.and_then(|call| call.epoch) > earlier {
            Ok(calls)
        } else {
            Err(format!("{calls:?}"))
        }
    })
    .await;
    for pair in calls.windows(2) {
        assert_eq!(pair[0].message_id, pair[1].message_id);
        assert_eq!(pair[0].step_key, pair[1].step_key);
        assert!(
            pair[0].epoch.is_some() && pair[0].epoch <= pair[1].epoch,
            "{calls:?}"
        );
    }
    stranger.release_all();
    let shown = wait_for("the run to complete", PATIENCE, async || {
        let show = ["workflow", "show", "run", "-o", "json"];
        let shown = muster_tests::muster(&at(&second), &show).await;
        let run: Value = serde_json::from_str(&shown.stdout).map_err(|_| format!("{shown:?}"))?;
        if run["status"] == "completed" {
            Ok(run)
        } else {
            Err(run.to_string())
        }
    })
    .await;
    assert_eq!(shown["output"], "second");
    let verify = ["workflow", "verify", "run"];
    let _said = muster_tests::muster(&at(&second), &verify).await.success();
}

#[tokio::test]
async fn a_frozen_engine_that_wakes_writes_nothing_and_one_that_stops_is_followed_at_once() {
    let redis = RedisServer::start().await;
    let mut replicas = Replicas::start(2, &redis.url()).await;
    replicas.agent.hold();
    let document = file(&replicas, "two-calls", TWO_CALLS);
    let ids = start(&replicas, &document, 10).await;
    wait_for("all first calls", PATIENCE, async || replicas.agent.held() == 10).await;
    replicas.process(0).signal("STOP").await;
    replicas.agent.release_all();
    for id in &ids {
        assert_eq!(completed(&replicas, 1, id).await["output"], "second");
    }
    // It wakes with the answers of its first calls at hand, and gets partitions again.
    replicas.process(0).signal("CONT").await;
    wait_for("the frozen engine to learn it", PATIENCE, async || {
        let log = replicas.process(0).stderr();
        log.contains("taken over by other engines")
            .then_some(())
            .ok_or(log)
    })
    .await;
    for id in &ids {
        let verified = replicas.muster(0, &["workflow", "verify", id]).await;
        assert_eq!(verified.code, 0, "{verified:?}");
    }
    assert_no_step_twice(&replicas, &ids);
    replicas.stop(1).await;
    let leases = redis.ask(&["HVALS", "muster:{store}:members"]).await;
    assert_eq!(
        leases.lines().filter(|line| !line.is_empty()).count(),
        1,
        "{leases}"
    );
    let started = json(&replicas, 0, &["workflow", "run", &document, "--wait"]).await;
    assert_eq!(started["output"], "second");
}

#[tokio::test]
async fn events_schedules_and_children_work_across_engines() {
    let redis = RedisServer::start().await;
    let replicas = Replicas::start(2, &redis.url()).await;
    // Those who listen are woken by what is published elsewhere.
    let listens = file(&replicas, "listens", LISTENS);
    let ids = start(&replicas, &listens, 6).await;
    for id in &ids {
        wait_for("all to listen", PATIENCE, async || {
            let why = json(&replicas, 0, &["workflow", "why", id]).await;
            if why["blockers"][0]["kind"] == "event" {
                Ok(())
            } else {
                Err(why.to_string())
            }
        })
        .await;
    }
    done(
        &replicas,
        1,
        &["event", "publish", "--type", "news", "--data", "{}"],
    )
    .await;
    for id in &ids {
        completed(&replicas, 0, id).await;
    }
    // Each event starts one run, whoever got it.
    let started = file(&replicas, "started", STARTED_BY_EVENTS);
    done(&replicas, 0, &["workflow", "apply", &started]).await;
    for number in 0..8 {
        let data = format!("{{\"number\": {number}}}");
        let publish = ["event", "publish", "--type", "begin", "--data", &data];
        done(&replicas, number % 2, &publish).await;
    }
    let numbers = wait_for("eight runs", PATIENCE, async || {
        let runs = [
            "workflow",
            "runs",
            "--name",
            "started",
            "--status",
            "completed",
            "-o",
            "json",
        ];
        let runs = replicas.muster(1, &runs).await.success().json();
        let runs = runs["runs"].as_array().unwrap().clone();
        if runs.len() == 8 {
            Ok(runs)
        } else {
            Err(format!("{} runs", runs.len()))
        }
    })
    .await;
    let mut outputs = Vec::new();
    for run in numbers {
        let run = completed(&replicas, 0, run["id"].as_str().unwrap()).await;
        outputs.push(run["output"]["by"].as_u64().unwrap());
    }
    outputs.sort_unstable();
    assert_eq!(outputs, (0..8).collect::<Vec<u64>>());
    // A child is where its parent is, and ends in it.
    let (child, parent) = (
        file(&replicas, "two-calls", TWO_CALLS),
        file(&replicas, "parent", PARENT),
    );
    done(&replicas, 1, &["workflow", "apply", &child]).await;
    for engine in 0..2 {
        let run = json(&replicas, engine, &["workflow", "run", &parent, "--wait"]).await;
        assert_eq!(run["output"], "second");
    }
    // A schedule fires once for each instant, and is steered from anywhere.
    let ticks = file(&replicas, "ticks", EVERY_SECOND);
    done(&replicas, 0, &["workflow", "apply", &ticks]).await;
    wait_for("three ticks", PATIENCE, async || {
        let schedule = json(&replicas, 1, &["schedule", "get", "test/ticks"]).await;
        if schedule["fired"].as_u64() >= Some(3) {
            Ok(())
        } else {
            Err(schedule.to_string())
        }
    })
    .await;
    for engine in 0..2 {
        json(&replicas, engine, &["schedule", "pause", "test/ticks"]).await;
        json(&replicas, engine, &["schedule", "resume", "test/ticks"]).await;
    }
    let paused = json(&replicas, 0, &["schedule", "pause", "test/ticks"]).await;
    let fired = usize::try_from(paused["fired"].as_u64().unwrap()).unwrap();
    let runs = [
        "workflow", "runs", "--name", "ticks", "--limit", "100", "-o", "json",
    ];
    let runs = replicas.muster(1, &runs).await.success().json();
    assert_eq!(
        runs["runs"].as_array().unwrap().len(),
        fired,
        "one run for each instant: {runs:?}"
    );
}

/// One at a time for each customer.
const ONE_AT_A_TIME: &str = r#"
document:
  dsl: 1.0.0
  namespace: test
  name: one-at-a-time
  version: 1.0.0
  metadata: { muster: { concurrency: { limit: 1, key: "${ .customer }" } } }
do:
  - work:
      call: a2a
      with:
        server: agent://counter
        method: SendMessage
        parameters: { message: { parts: [ { text: "${ $workflow.id }" } ] } }
      output: { as: "${ $task.name }" }
"#;

#[tokio::test]
async fn limits_hold_over_all_engines_and_through_the_death_of_one() {
    let redis = RedisServer::start().await;
    let mut replicas = Replicas::start(2, &redis.url()).await;
    replicas.agent.hold();
    let document = file(&replicas, "one-at-a-time", ONE_AT_A_TIME);
    let mut ids = Vec::new();
    for number in 0..8 {
        let id = format!("run-{number}");
        let run = [
            "workflow",
            "run",
            &document,
            "--id",
            &id,
            "--input",
            r#"{"customer": "a"}"#,
        ];
        json(&replicas, number % 2, &run).await;
        ids.push(id);
    }
    // Another customer's need not wait for them.
    let other = [
        "workflow",
        "run",
        &document,
        "--id",
        "other",
        "--input",
        r#"{"customer": "b"}"#,
    ];
    json(&replicas, 0, &other).await;
    wait_for("a call of each customer", PATIENCE, async || {
        replicas.agent.held() == 2
    })
    .await;
    let mut waiting = 0;
    for id in &ids {
        let why = json(&replicas, 1, &["workflow", "why", id]).await;
        waiting += usize::from(why["blockers"][0]["kind"] == "queued");
    }
    assert_eq!(waiting, 7, "all but one wait for their turn");
    // The one that has its turn dies with its engine, and keeps it.
    replicas.kill(0).await;
    wait_for("all to complete", PATIENCE, async || {
        let held = replicas.agent.held();
        replicas.agent.release(held.min(1));
        let done = replicas
            .muster(1, &["workflow", "runs", "--status", "completed", "-o", "json"])
            .await;
        let done = done.success().json();
        let count = done["runs"].as_array().unwrap().len();
        (count == 9).then_some(()).ok_or(format!("{count} of 9"))
    })
    .await;
    assert_eq!(replicas.agent.calls_by_step_key().len(), 9);
    assert_one_after_the_other(&replicas, &ids).await;
}

/// No run began before the one before had ended.
async fn assert_one_after_the_other(replicas: &Replicas, ids: &[String]) {
    let mut spans = Vec::new();
    for id in ids {
        let run = json(replicas, 1, &["workflow", "show", id]).await;
        let time = |field: &str| run[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        spans.push((time("startedAt"), time("endedAt")));
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{pair:?} overlap");
    }
}

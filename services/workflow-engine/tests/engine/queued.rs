//! What `why` says of runs in line: behind which limit, and at which place.

use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_workflow_engine::config::Namespace;
use serde_json::{Value, json};

use crate::harness::{Engine, document, send};
use crate::why::details;

/// A document of a namespace that asks an agent once, and what its metadata say.
fn of(namespace: &str, policy: &str) -> String {
    format!(
        "document:\n  dsl: '1.0.0'\n  namespace: {namespace}\n  name: orders\n  version: '1.0.0'\n  metadata: {{muster: {{{policy}}}}}\ndo:\n{}",
        send("weather", "x")
    )
}

/// What a run in line says of its limit: the message, and the details.
async fn in_line(engine: &Engine, id: &str) -> (String, Value) {
    let blocker = engine.until_blocked(id, "queued").await;
    (blocker.message.clone(), details(&blocker))
}

/// The kinds of what a run waits for.
async fn kinds(engine: &Engine, id: &str) -> Vec<String> {
    let blockers: Vec<proto::Blocker> = engine.why(id).await;
    blockers.into_iter().map(|blocker| blocker.kind).collect()
}

#[tokio::test]
async fn behind_the_slots_a_run_says_how_many_are_ahead_and_moves_up() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    engine.router.hold();
    for id in ["a", "b", "c"] {
        engine.start_run(&of("test", ""), id, "").await.unwrap();
    }
    engine.until_held(1).await;
    let limit = |ahead: u64| json!({"limit": "engine.max_concurrent_workflows", "used": 1, "most": 1, "ahead": ahead});
    let (message, facts) = in_line(&engine, "c").await;
    assert_eq!(message, "waits for a slot: 1 of 1 are in use, 1 runs are ahead");
    assert_eq!(facts, limit(1));
    assert!(engine.until_blocked("c", "queued").await.since.is_some());
    engine.router.release(1);
    engine.until("a", RunStatus::Completed).await;
    engine.until_held(1).await;
    assert_eq!(in_line(&engine, "c").await.1, limit(0));
    engine.router.release_all();
    engine.until("c", RunStatus::Completed).await;
}

#[tokio::test]
async fn behind_the_slots_that_are_kept_for_others_a_run_says_so() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 10).await;
    engine.router.hold();
    for number in 0..10 {
        let id = format!("r{number}");
        engine.start_run(&of("crowd", ""), &id, "").await.unwrap();
    }
    engine.until_held(9).await;
    let (message, facts) = in_line(&engine, "r9").await;
    assert_eq!(
        message,
        "waits for a slot: 9 of 10 are in use, the last 1 are kept for namespaces that hold less than half of their share, 0 runs are ahead"
    );
    assert_eq!(
        facts,
        json!({"limit": "engine.max_concurrent_workflows", "used": 9, "most": 10, "ahead": 0})
    );
    engine.router.release_all();
    engine.until("r9", RunStatus::Completed).await;
}

#[tokio::test]
async fn behind_the_limit_of_its_namespace_a_run_names_the_setting() {
    let engine = Engine::start_with(|settings| {
        let narrow = Namespace {
            max_concurrent_workflows: 1,
            ..Namespace::default()
        };
        settings.namespaces.insert("narrow".into(), narrow);
    })
    .await;
    engine.router.hold();
    for id in ["a", "b", "c"] {
        engine.start_run(&of("narrow", ""), id, "").await.unwrap();
    }
    engine.until_held(1).await;
    let (message, facts) = in_line(&engine, "c").await;
    assert_eq!(
        message,
        "waits for a slot of namespace 'narrow': all 1 that it may have are in use, 1 runs are ahead"
    );
    let limit = "engine.namespaces.narrow.max_concurrent_workflows";
    assert_eq!(facts, json!({"limit": limit, "used": 1, "most": 1, "ahead": 1}));
    engine.router.release_all();
    engine.until("c", RunStatus::Completed).await;
}

#[tokio::test]
async fn behind_the_limit_of_its_workflow_or_key_a_run_names_the_group() {
    let engine = Engine::start().await;
    engine.router.hold();
    for (namespace, policy, group) in [
        ("one", "concurrency: {limit: 1}", "one/orders"),
        (
            "two",
            "concurrency: {limit: 1, key: '${ .customer }'}",
            "two/orders .customer = \"a\"",
        ),
    ] {
        for number in 0..3 {
            let id = format!("{namespace}-{number}");
            engine
                .start_run(&of(namespace, policy), &id, r#"{"customer": "a"}"#)
                .await
                .unwrap();
        }
        // Both namespaces' first runs hold their calls.
        engine.until_held(if namespace == "one" { 1 } else { 2 }).await;
        let (message, facts) = in_line(&engine, &format!("{namespace}-2")).await;
        assert_eq!(
            message,
            format!("waits for its turn in '{group}': 1 of 1 runs are under way, 1 are ahead")
        );
        let limit = "document.metadata.muster.concurrency";
        assert_eq!(
            facts,
            json!({"limit": limit, "group": group, "used": 1, "most": 1, "ahead": 1})
        );
    }
    engine.router.release_all();
    for id in ["one-2", "two-2"] {
        engine.until(id, RunStatus::Completed).await;
    }
}

#[tokio::test]
async fn a_run_that_is_due_again_says_its_place_and_not_the_time_that_has_come() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    let both = "  - both:\n      fork:\n        branches:\n          - short: {wait: {seconds: 3}}\n          - long: {wait: {hours: 1}}\n";
    let hear = "  - hear: {listen: {to: {one: {with: {type: go}}}}}\n";
    for (id, tasks) in [("heard", hear), ("due", both)] {
        engine.start_run(&document(tasks), id, "").await.unwrap();
        engine.until(id, RunStatus::Waiting).await;
    }
    engine.router.hold();
    engine
        .start_run(&document(&send("weather", "x")), "busy", "")
        .await
        .unwrap();
    engine.until_held(1).await;

    engine.publish("go", json!(1)).await;
    let (message, facts) = in_line(&engine, "heard").await;
    assert_eq!(message, "waits for a slot: 1 of 1 are in use, 0 runs are ahead");
    assert_eq!(
        facts,
        json!({"limit": "engine.max_concurrent_workflows", "used": 1, "most": 1, "ahead": 0})
    );
    let (_, facts) = in_line(&engine, "due").await;
    assert_eq!(facts["ahead"], 1);
    assert_eq!(kinds(&engine, "due").await, ["queued", "timer"]);
    let blockers = engine.why("due").await;
    assert_eq!(blockers[1].task, "/do/0/both/fork/branches/1/long");
    assert!(blockers[0].since.is_some(), "{blockers:?}");
    engine.router.release_all();
    engine.until("heard", RunStatus::Completed).await;
    let timer = engine.until_blocked("due", "timer").await;
    assert_eq!(timer.task, "/do/0/both/fork/branches/1/long");
}

#[tokio::test]
async fn calls_of_a_run_that_has_no_slot_after_a_restart_are_not_said_to_be_in_flight() {
    let mut engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 2).await;
    engine.router.hold();
    for id in ["a", "b"] {
        engine
            .start_run(&document(&send("weather", id)), id, "")
            .await
            .unwrap();
    }
    engine.until_held(2).await;
    engine
        .restart_with(|settings| settings.max_concurrent_workflows = 1)
        .await;
    engine.until_held(1).await;
    assert_eq!(kinds(&engine, "a").await, ["call"]);
    assert_eq!(kinds(&engine, "b").await, ["queued"]);
    engine.router.release_all();
    engine.until("b", RunStatus::Completed).await;
}

#[tokio::test]
async fn processes_beyond_the_bound_say_how_many_are_ahead() {
    let engine = Engine::start_with(|settings| {
        settings.run.shell = true;
        settings.run.max_processes = 1;
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let command = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
    let text = document(&format!(
        "  - one: {{run: {{shell: {{command: '{command}'}}}}}}\n"
    ));
    engine.start_run(&text, "first", "").await.unwrap();
    engine.until_blocked("first", "process").await;
    for (ahead, id) in ["second", "third"].into_iter().enumerate() {
        engine.start_run(&text, id, "").await.unwrap();
        let (message, facts) = in_line(&engine, id).await;
        let told =
            format!("1 processes run, and no more may ('engine.run.max_processes'), {ahead} are ahead");
        assert!(message.contains(&told), "{message}");
        assert_eq!(
            (&facts["limit"], &facts["used"], &facts["most"], &facts["ahead"]),
            (
                &json!("engine.run.max_processes"),
                &json!(1),
                &json!(1),
                &json!(ahead)
            )
        );
    }
    // One that gives its place up makes the others move up.
    engine.cancel("second").await.unwrap();
    engine.until("second", RunStatus::Cancelled).await;
    assert_eq!(in_line(&engine, "third").await.1["ahead"], 0);
    std::fs::write(&go, "").unwrap();
    engine.until("third", RunStatus::Completed).await;
}

#[tokio::test]
async fn the_time_in_line_does_not_count_against_limits_of_time() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    let limited = document(&format!(
        "  - hear: {{listen: {{to: {{one: {{with: {{type: go}}}}}}}}}}\n{}",
        send("weather", "patient")
    ))
    .replace("\ndo:", "\ntimeout: {after: PT10M}\ndo:");
    engine.start_run(&limited, "patient", "").await.unwrap();
    engine.until("patient", RunStatus::Waiting).await;
    engine.router.hold();
    engine
        .start_run(&document(&send("weather", "x")), "busy", "")
        .await
        .unwrap();
    engine.until_held(1).await;
    engine.publish("go", json!(1)).await;
    in_line(&engine, "patient").await;
    engine.pass(30 * 60);
    engine.router.release(1);
    engine.until_held(1).await;
    engine.router.release_all();
    engine.until("patient", RunStatus::Completed).await;
    let history = engine.history("patient").await;
    let queued: Vec<&proto::HistoryEvent> = history
        .iter()
        .filter(|event| event.r#type == "run.queued")
        .collect();
    assert_eq!(queued.len(), 1, "{history:?}");
    let data: serde_json::Value = serde_json::from_str(&queued[0].data_json).unwrap();
    let since: jiff::Timestamp = data["since"].as_str().unwrap().parse().unwrap();
    let until = muster_api::time::from_proto(&queued[0].time.unwrap()).unwrap();
    let waited = until.duration_since(since).as_secs();
    assert!((1_800..1_860).contains(&waited), "{waited} s");
}

#[tokio::test]
async fn a_retried_run_waits_behind_its_limit_also_after_a_restart() {
    let mut engine = Engine::start().await;
    let policy = "concurrency: {limit: 1}";
    engine.router.script([muster_testkit::Answer::Task(
        muster_api::a2a::TaskState::Failed,
        "no luck".into(),
    )]);
    engine.start_run(&of("test", policy), "first", "").await.unwrap();
    engine.until("first", RunStatus::Faulted).await;
    engine.router.hold();
    engine.start_run(&of("test", policy), "second", "").await.unwrap();
    engine.until_held(1).await;
    engine.retry("first", "").await.unwrap();
    let one_of_one = "1 of 1 runs are under way, 0 are ahead";
    assert!(in_line(&engine, "first").await.0.ends_with(one_of_one));
    engine.restart().await;
    engine.until_held(1).await;
    assert!(in_line(&engine, "first").await.0.ends_with(one_of_one));
    engine.pause("first").await.unwrap();
    engine.restart().await;
    engine.until_held(1).await;
    engine.resume("first").await.unwrap();
    assert!(in_line(&engine, "first").await.0.ends_with(one_of_one));
    engine.router.release(1);
    engine.until("second", RunStatus::Completed).await;
    engine.router.release_all();
    engine.until("first", RunStatus::Completed).await;
}

//! Workflows that events start: `schedule.on`.

use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_testkit::wait_for;
use serde_json::{Value, json};

use crate::harness::{Engine, PATIENCE};

fn scheduled(version: &str, on: &str, tasks: &str) -> String {
    format!(
        "document: {{dsl: '1.0.0', namespace: test, name: started, version: '{version}'}}\nschedule: {{on: {on}}}\ndo:\n{tasks}"
    )
}

const KEEP: &str = "  - keep: {set: {got: '${ map(.data) }'}}\n";

impl Engine {
    /// Waits until so many runs have completed; what they kept, the oldest first.
    async fn started(&self, count: usize) -> Vec<Value> {
        wait_for("runs to complete", PATIENCE, async || {
            let request = proto::ListRunsRequest {
                name: "started".into(),
                ..Default::default()
            };
            let mut runs = self
                .client
                .clone()
                .list_runs(request)
                .await
                .unwrap()
                .into_inner()
                .runs;
            runs.reverse();
            let completed = runs.iter().filter(|run| run.status() == RunStatus::Completed);
            if completed.count() != count {
                return Err(format!("{runs:?}"));
            }
            let mut kept = Vec::new();
            for run in runs {
                let run = self.run(&run.run_id).await;
                let output: Value = serde_json::from_str(&run.output_json).unwrap();
                kept.push(output["got"].clone());
            }
            Ok(kept)
        })
        .await
    }
}

#[tokio::test]
async fn each_event_starts_a_run_once_also_one_that_came_while_the_engine_was_down() {
    let mut engine = Engine::start().await;
    engine.publish("beat", json!({"n": 0})).await;
    engine
        .apply(&scheduled(
            "1.0.0",
            "{one: {with: {type: beat, data: '${ .n < 9 }'}}}",
            KEEP,
        ))
        .await;
    engine.publish("beat", json!({"n": 1})).await;
    engine.publish("beat", json!({"n": 9})).await;
    engine.publish("other", json!({"n": 1})).await;
    assert_eq!(engine.started(1).await, [json!([{"n": 1}])]);
    engine.restart().await;
    engine.publish("beat", json!({"n": 2})).await;
    assert_eq!(engine.started(2).await, [json!([{"n": 1}]), json!([{"n": 2}])]);
}

#[tokio::test]
async fn events_that_belong_together_start_one_run() {
    let mut engine = Engine::start().await;
    let on = "{all: [{with: {type: t}, correlate: {room: {from: .data.room}}}, {with: {type: h}, correlate: {room: {from: .data.room}}}]}";
    engine.apply(&scheduled("1.0.0", on, KEEP)).await;
    engine.publish("t", json!({"room": 1})).await;
    engine.publish("t", json!({"room": 2})).await;
    engine.restart().await;
    engine.publish("h", json!({"room": 2})).await;
    assert_eq!(engine.started(1).await, [json!([{"room": 2}, {"room": 2}])]);
    engine.publish("h", json!({"room": 1})).await;
    let second = engine.started(2).await;
    assert_eq!(second[1], json!([{"room": 1}, {"room": 1}]));
}

#[tokio::test]
async fn a_newer_version_takes_over_and_one_without_a_schedule_ends_it() {
    let engine = Engine::start().await;
    let on = "{any: [{with: {type: a}}, {with: {type: b}}]}";
    engine.apply(&scheduled("1.0.0", on, KEEP)).await;
    engine.publish("a", json!(1)).await;
    assert_eq!(engine.started(1).await, [json!([1])]);
    engine
        .apply(&scheduled(
            "1.1.0",
            on,
            "  - keep: {set: {got: '${ [\"new\", .[0].data] }'}}\n",
        ))
        .await;
    engine.publish("b", json!(2)).await;
    assert_eq!(engine.started(2).await, [json!([1]), json!(["new", 2])]);
    let plain = "document: {dsl: '1.0.0', namespace: test, name: started, version: '2.0.0'}\ndo: [{a: {set: {n: 1}}}]\n";
    engine.apply(plain).await;
    engine.publish("a", json!(3)).await;
    let request = proto::StartRunRequest {
        run_id: "by-hand".into(),
        source: Some(proto::start_run_request::Source::Document(plain.to_owned())),
        ..Default::default()
    };
    engine.client.clone().start_run(request).await.unwrap();
    assert_eq!(engine.started(3).await[2], json!(null), "only the one by hand");
}

#[tokio::test]
async fn a_run_hears_what_comes_after_the_event_that_started_it() {
    let engine = Engine::start().await;
    let tasks = "  - hear: {listen: {to: {one: {with: {type: a}}}}}\n  - keep: {set: {got: '${ . }'}}\n";
    engine
        .apply(&scheduled("1.0.0", "{one: {with: {type: go}}}", tasks))
        .await;
    engine.publish("a", json!("before")).await;
    engine.publish("go", json!(0)).await;
    engine.publish("a", json!("after")).await;
    assert_eq!(engine.started(1).await, [json!(["after"])]);
}

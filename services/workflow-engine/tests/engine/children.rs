//! Runs that start runs.

use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_testkit::wait_for;
use muster_workflow_engine::run::{Origin, Parent, Status, Summary};
use muster_workflow_engine::store::Store as _;
use muster_workflow_engine::store::embedded::Embedded;
use serde_json::{Value, json};

use crate::harness::{Engine, PATIENCE, document, send};
use crate::why::details;

/// A document of the catalogue.
fn named(name: &str, version: &str, tasks: &str) -> String {
    format!("document: {{dsl: '1.0.0', namespace: test, name: {name}, version: '{version}'}}\ndo:\n{tasks}")
}

/// A task that runs a workflow.
fn child(name: &str, more: &str) -> String {
    format!("{{run: {{workflow: {{namespace: test, name: {name}, version: latest{more}}}}}}}")
}

impl Engine {
    pub async fn apply(&self, document: &str) -> proto::Workflow {
        let request = proto::ApplyWorkflowRequest {
            document: document.to_owned(),
        };
        let answer = self.client.clone().apply_workflow(request).await.unwrap();
        answer.into_inner().workflow.unwrap()
    }

    /// The run that this run waits for, once it is there.
    async fn child_of(&self, id: &str) -> proto::Run {
        let blocker = self.until_blocked(id, "child-run").await;
        let child = details(&blocker)["run"].as_str().unwrap().to_owned();
        wait_for("the child to be there", PATIENCE, async || {
            let request = proto::GetRunRequest {
                run_id: child.clone(),
            };
            self.client
                .clone()
                .get_run(request)
                .await
                .map_err(|status| status.to_string())
        })
        .await
        .into_inner()
        .run
        .unwrap()
    }

    async fn all_runs(&self) -> Vec<proto::Run> {
        let request = proto::ListRunsRequest {
            page_size: 100,
            ..Default::default()
        };
        self.client
            .clone()
            .list_runs(request)
            .await
            .unwrap()
            .into_inner()
            .runs
    }
}

#[tokio::test]
async fn a_child_runs_while_its_parent_holds_no_slot_and_its_output_is_the_tasks() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    engine
        .apply(&named("greet", "1.0.0", "  - old: {set: {old: true}}\n"))
        .await;
    engine
        .apply(&named(
            "greet",
            "1.1.0",
            &(send("worker", "${ .who }") + "  - done: {set: {said: '${ . }'}}\n"),
        ))
        .await;
    engine.router.hold();
    let tasks = format!("  - one: {}\n", child("greet", ", input: {who: '${ .name }'}"));
    engine
        .start_run(&document(&tasks), "parent", r#"{"name": "Ada"}"#)
        .await
        .unwrap();
    engine.until_held(1).await;

    let parent = engine.until("parent", RunStatus::Waiting).await;
    assert_eq!(engine.status().await.running, 1, "only the child holds a slot");
    let greeted = engine.child_of("parent").await;
    assert_eq!(
        (greeted.name.as_str(), greeted.version.as_str()),
        ("greet", "1.1.0")
    );
    assert_eq!(greeted.input_json, r#"{"who":"Ada"}"#);
    let link = greeted.parent.unwrap();
    assert_eq!(
        (link.run_id.as_str(), link.task.as_str(), link.awaited),
        ("parent", "/do/0/one", true)
    );
    let blocker = engine.until_blocked("parent", "child-run").await;
    assert!(
        blocker
            .message
            .contains(&format!("waits for run {} of test/greet", greeted.run_id))
            && blocker.message.contains("which is running"),
        "{blocker:?}"
    );
    assert!(
        parent.activity[0].contains(&greeted.run_id),
        "{:?}",
        parent.activity
    );

    engine.router.release_all();
    let run = engine.until("parent", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"{"said":"Ada"}"#);
    assert_eq!(engine.router.calls().len(), 1);
}

#[tokio::test]
async fn a_childs_error_is_caught_by_its_type_and_a_cancelled_child_is_an_error() {
    let engine = Engine::start().await;
    let raise = "  - bad: {raise: {error: {type: 'https://test.test/full', status: 503, title: Full, detail: no room}}}\n";
    engine.apply(&named("full", "1.0.0", raise)).await;
    let tasks = format!(
        "  - guarded:\n      try: [{{one: {}}}]\n      catch:\n        errors: {{with: {{type: 'https://test.test/full'}}}}\n        \
         do: [{{keep: {{set: {{detail: '${{ $error.detail }}', instance: '${{ $error.instance }}'}}}}}}]\n",
        child("full", "")
    );
    let output = engine.output(&document(&tasks), "").await;
    let detail = output["detail"].as_str().unwrap();
    assert!(
        detail.contains("of test/full@1.0.0 failed at /do/0/bad: no room"),
        "{detail}"
    );
    assert_eq!(output["instance"], "/do/0/guarded/try/0/one");

    engine
        .apply(&named("long", "1.0.0", "  - nap: {wait: PT1H}\n"))
        .await;
    engine
        .start_run(
            &document(&format!("  - one: {}\n", child("long", ""))),
            "parent",
            "",
        )
        .await
        .unwrap();
    let long = engine.child_of("parent").await;
    engine.cancel(&long.run_id).await.unwrap();
    let run = engine.until("parent", RunStatus::Faulted).await;
    let error = run.error.unwrap();
    assert!(
        error.detail.contains("was cancelled") && error.instance == "/do/0/one",
        "{error:?}"
    );
}

#[tokio::test]
async fn whatever_ends_the_waiting_ends_the_child() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine.apply(&named("work", "1.0.0", &send("worker", "x"))).await;
    engine
        .start_run(
            &document(&format!("  - one: {}\n", child("work", ""))),
            "parent",
            "",
        )
        .await
        .unwrap();
    engine.until_held(1).await;
    let work = engine.child_of("parent").await;
    engine.cancel("parent").await.unwrap();
    let ended = engine.until(&work.run_id, RunStatus::Cancelled).await;
    let history = engine.history(&ended.run_id).await;
    let told = |event: &proto::HistoryEvent| {
        event
            .data_json
            .contains("run parent does not wait for it any more")
    };
    assert!(history.iter().any(told), "{history:?}");

    // A time limit of the task, which is handled; and a branch that loses.
    let limited = child("work", "").replace("}}}", "}}, timeout: {after: {milliseconds: 300}}}");
    let tasks = format!(
        "  - guarded: {{try: [{{one: {limited}}}], catch: {{do: [{{late: {{set: {{late: true}}}}}}]}}}}\n"
    );
    engine.start_run(&document(&tasks), "limited", "").await.unwrap();
    let work = engine.child_of("limited").await;
    engine.until("limited", RunStatus::Completed).await;
    engine.until(&work.run_id, RunStatus::Cancelled).await;

    let tasks = format!(
        "  - race: {{fork: {{compete: true, branches: [{{one: {}}}, {{two: {{do: [{{nap: {{wait: {{milliseconds: 200}}}}}}, {{won: {{set: {{won: true}}}}}}]}}}}]}}}}\n",
        child("work", "")
    );
    engine.start_run(&document(&tasks), "race", "").await.unwrap();
    let work = engine.child_of("race").await;
    engine.until("race", RunStatus::Completed).await;
    engine.until(&work.run_id, RunStatus::Cancelled).await;
}

#[tokio::test]
async fn a_restart_while_a_child_works_loses_nothing() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    engine.apply(&named("work", "1.0.0", &send("worker", "x"))).await;
    let branches: Vec<String> = (0..3)
        .map(|number| format!("{{b{number}: {}}}", child("work", "")))
        .collect();
    let tasks = format!("  - all: {{fork: {{branches: [{}]}}}}\n", branches.join(", "));
    engine.start_run(&document(&tasks), "parent", "").await.unwrap();
    engine.until_held(3).await;
    engine.until("parent", RunStatus::Waiting).await;
    engine.restart().await;
    engine.until_held(3).await;
    assert_eq!(engine.all_runs().await.len(), 4, "no child twice");
    // Two end while the parent is parked, the third after another restart.
    engine.router.release(2);
    wait_for("two children to end", PATIENCE, async || {
        let ended = engine
            .all_runs()
            .await
            .iter()
            .filter(|run| run.status() == RunStatus::Completed)
            .count();
        if ended == 2 { Ok(()) } else { Err(ended) }
    })
    .await;
    engine.restart().await;
    engine.router.release_all();
    let run = engine.until("parent", RunStatus::Completed).await;
    assert_eq!(
        serde_json::from_str::<Value>(&run.output_json).unwrap(),
        json!(["x", "x", "x"])
    );
    let children = engine.all_runs().await.len() - 1;
    assert_eq!(children, 3);
}

#[tokio::test]
async fn a_child_that_is_not_awaited_goes_on_alone() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine.apply(&named("work", "1.0.0", &send("worker", "x"))).await;
    let alone = child("work", "").replace("}}}", "}, await: false}}");
    let run = engine
        .start_run(&document(&format!("  - one: {alone}\n")), "parent", r#"{"a": 1}"#)
        .await
        .unwrap();
    let run = engine.until(&run.run_id, RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"{"a":1}"#, "its output is its input");
    engine.until_held(1).await;
    engine.router.release_all();
    let runs = engine.all_runs().await;
    let alone = runs.iter().find(|run| run.name == "work").unwrap();
    assert!(!alone.parent.as_ref().unwrap().awaited);
    engine.until(&alone.run_id, RunStatus::Completed).await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let engine = Engine::start().await;
    let error = engine
        .fault(&document(&format!("  - one: {}\n", child("nobody", ""))))
        .await;
    assert_eq!((error.status, error.instance.as_str()), (404, "/do/0/one"));
    assert!(
        error.r#type.ends_with("/configuration") && error.detail.contains("test/nobody cannot be run"),
        "{error:?}"
    );

    // One that starts itself ends where the depth is bounded.
    engine
        .apply(&named(
            "deep",
            "1.0.0",
            &format!("  - one: {}\n", child("deep", "")),
        ))
        .await;
    let error = engine
        .fault(&document(&format!("  - one: {}\n", child("deep", ""))))
        .await;
    assert!(error.detail.contains("at most 16 deep"), "{error:?}");
    assert_eq!(engine.all_runs().await.len(), 1 + 1 + 16);

    // A child's input is checked by the child.
    let text = named("strict", "1.0.0", "  - done: {set: {a: 1}}\n")
        + "input: {schema: {document: {type: object, required: [who]}}}\n";
    engine.apply(&text).await;
    let error = engine
        .fault(&document(&format!("  - one: {}\n", child("strict", ""))))
        .await;
    assert!(
        error.r#type.ends_with("/validation") && error.detail.contains("who"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_full_line_makes_a_parent_wait_without_its_slot() {
    let engine = Engine::start_with(|settings| {
        settings.max_concurrent_workflows = 1;
        settings.max_queued_runs = 1;
    })
    .await;
    engine.router.hold();
    engine
        .apply(&named("quick", "1.0.0", "  - done: {set: {quick: true}}\n"))
        .await;
    let text = document(&(send("worker", "x") + &format!("  - one: {}\n", child("quick", ""))));
    engine.start_run(&text, "parent", "").await.unwrap();
    engine.until_held(1).await;
    engine
        .start_run(&document(&send("other", "y")), "first", "")
        .await
        .unwrap();
    // The line is full: "first" waits. The parent's call ends, and its child finds no place.
    engine.router.release(1);
    engine.until_held(1).await;
    engine
        .start_run(&document(&send("other", "z")), "second", "")
        .await
        .unwrap();
    let blocker = engine.until_blocked("parent", "child-run").await;
    assert!(details(&blocker)["run"].is_string());
    engine.router.release_all();
    let run = engine.until("parent", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"{"quick":true}"#);
}

#[tokio::test]
async fn many_children_of_one_parent_share_few_slots() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 2).await;
    let double = "  - double: {set: {n: '${ .n * 2 }'}, output: {as: .n}}\n";
    engine.apply(&named("double", "1.0.0", double)).await;
    let branches: Vec<String> = (0..40)
        .map(|number| {
            format!(
                "{{b{number}: {}}}",
                child("double", &format!(", input: {{n: {number}}}"))
            )
        })
        .collect();
    let tasks = format!("  - all: {{fork: {{branches: [{}]}}}}\n", branches.join(", "));
    let expected: Vec<u32> = (0..40).map(|number| number * 2).collect();
    assert_eq!(engine.output(&document(&tasks), "").await, json!(expected));
}

#[tokio::test]
async fn a_child_whose_parent_has_ended_in_a_crash_is_ended_at_the_next_start() {
    let mut engine = Engine::start().await;
    engine
        .start_run(&document("  - nap: {wait: PT1H}\n"), "orphan", "")
        .await
        .unwrap();
    engine.until("orphan", RunStatus::Waiting).await;
    engine
        .start_run(&document("  - done: {set: {a: 1}}\n"), "parent", "")
        .await
        .unwrap();
    engine.until("parent", RunStatus::Completed).await;
    engine.stop().await;
    {
        let directory = muster_runtime::data_directory::open(engine.data_directory()).unwrap();
        let store = Embedded::open(directory).unwrap();
        for (id, awaited) in [("of-an-ended-one", true), ("of-nobody", true), ("alone", false)] {
            let orphan = "orphan".parse().unwrap();
            let mut record = store.record(&orphan).await.unwrap().unwrap();
            let summary = store.summary(&orphan).await.unwrap().unwrap();
            record.id = id.parse().unwrap();
            let parent = if id == "of-nobody" { "nobody" } else { "parent" };
            let summary = Summary {
                id: record.id.clone(),
                status: Status::Pending,
                started_at: None,
                history_length: 0,
                chain: Some(record.chain()),
                created_at: SystemClock::default().now(),
                origin: Some(Origin::Run(Parent {
                    run: parent.parse().unwrap(),
                    task: "/do/0/one".into(),
                    awaited,
                    depth: 1,
                })),
                ..summary
            };
            store.create_run(&record, &summary).await.unwrap();
        }
    }
    engine.launch().await;
    engine.until("of-an-ended-one", RunStatus::Cancelled).await;
    engine.until("of-nobody", RunStatus::Cancelled).await;
    engine.until("alone", RunStatus::Waiting).await;
    engine.until("orphan", RunStatus::Waiting).await;
}

//! Budgets of runs and of namespaces, as agents report what they use.

use muster_api::workflow::{self as proto, RunStatus};
use muster_testkit::{Answer, wait_for};
use muster_workflow_dsl::usage;
use muster_workflow_engine::config::{Budget, Namespace};
use serde_json::json;

use crate::harness::{Engine, PATIENCE, send, until_calls};
use crate::why::details;

/// A document of a namespace with two calls, each of which uses 60 tokens.
fn document(namespace: &str, policy: &str) -> String {
    format!(
        "document:\n  dsl: '1.0.0'\n  namespace: {namespace}\n  name: costly\n  version: '1.0.0'\n  metadata: {{muster: {{{policy}}}}}\ndo:\n{}{}{}",
        send("one", "a"),
        send("two", "b"),
        send("three", "c")
    )
}

/// An engine whose agents report that they use 60 tokens for 0.01.
async fn engine(change: impl FnOnce(&mut muster_workflow_engine::config::Engine)) -> Engine {
    let engine = Engine::start_with(change).await;
    engine.router.fall_back_to(Answer::Metadata(
        json!({usage::KEY: {"tokens": 60, "cost": 0.01}}),
    ));
    engine
}

#[tokio::test]
async fn a_run_that_has_used_its_budget_asks_before_it_goes_on_also_after_a_restart() {
    let mut engine = engine(|_| {}).await;
    engine
        .start_run(
            &document("test", "budget: {tokens: 100, assignees: [ada]}"),
            "r",
            "",
        )
        .await
        .unwrap();
    let approval = engine.until_asked(1).await.remove(0);
    assert_eq!(
        (approval.task.as_str(), approval.assignees.as_slice()),
        ("/do/2/three", &["ada".to_owned()][..])
    );
    let asked: serde_json::Value = serde_json::from_str(&approval.details_json).unwrap();
    assert_eq!(
        asked,
        json!({"namespace": null, "spent": {"tokens": 120, "cost": 0.02}, "budget": {"tokens": 100}})
    );
    let blocker = engine.until_blocked("r", "budget").await;
    assert!(
        blocker.message.contains("the run has used 120 tokens"),
        "{blocker:?}"
    );
    assert_eq!(details(&blocker)["spent"]["tokens"], 120);
    engine.restart().await;
    engine.until_blocked("r", "budget").await;
    until_calls(&engine, 2).await;
    engine.approve(&approval.approval_id).await.unwrap();
    let run = engine.until("r", RunStatus::Completed).await;
    let usage = run.usage.unwrap();
    assert_eq!((usage.tokens, usage.cost), (180, 0.03));
    until_calls(&engine, 3).await;
}

#[tokio::test]
async fn a_no_fails_the_next_call_and_cancelling_withdraws_the_question() {
    let engine = engine(|_| {}).await;
    let policy = "budget: {cost: 0.01}";
    engine
        .start_run(&document("test", policy), "no", "")
        .await
        .unwrap();
    let approval = engine.until_asked(1).await.remove(0);
    assert_eq!(approval.assignees, ["operators"]);
    engine.reject(&approval.approval_id).await.unwrap();
    let error = engine.until("no", RunStatus::Faulted).await.error.unwrap();
    assert_eq!(
        (error.r#type.as_str(), error.status),
        ("urn:muster:error:budget-exceeded", 402)
    );
    assert_eq!(error.instance, "/do/1/two");
    engine
        .start_run(&document("test", policy), "gone", "")
        .await
        .unwrap();
    engine.until_asked(1).await;
    engine.cancel("gone").await.unwrap();
    engine.until_asked(0).await;
}

#[tokio::test]
async fn a_budget_that_nobody_decides_about_in_time_is_refused() {
    let engine = engine(|_| {}).await;
    let policy = "budget: {tokens: 1, deadline: {milliseconds: 30}}";
    engine
        .start_run(&document("test", policy), "r", "")
        .await
        .unwrap();
    let error = engine.until("r", RunStatus::Faulted).await.error.unwrap();
    assert_eq!(error.r#type, "urn:muster:error:budget-exceeded");
}

#[tokio::test]
async fn the_runs_of_a_namespace_share_its_budget_and_others_do_not_notice() {
    let mut engine = engine(|settings| {
        let budget = Budget {
            tokens: 100,
            assignees: vec!["treasurer".into()],
            ..Budget::default()
        };
        let poor = Namespace {
            budget: Some(budget),
            ..Namespace::default()
        };
        settings.namespaces.insert("poor".into(), poor);
    })
    .await;
    engine.start_run(&document("poor", ""), "p-1", "").await.unwrap();
    let first = engine.until_asked(1).await.remove(0);
    assert!(
        first.title.starts_with("namespace 'poor' has used 120 tokens"),
        "{first:?}"
    );
    engine.restart().await;
    engine.start_run(&document("poor", ""), "p-2", "").await.unwrap();
    engine.start_run(&document("rich", ""), "rich", "").await.unwrap();
    engine.until("rich", RunStatus::Completed).await;
    let second = wait_for("the second to ask", PATIENCE, async || {
        let open = engine.until_asked(2).await;
        open.into_iter()
            .find(|approval| approval.run_id == "p-2")
            .ok_or("not yet")
    })
    .await;
    assert_eq!(
        (second.task.as_str(), second.assignees.as_slice()),
        ("/do/0/one", &["treasurer".to_owned()][..])
    );
    let request = proto::ApproveRequest {
        approval_id: first.approval_id,
        by: "treasurer".into(),
        raise_tokens: Some(1000),
        ..proto::ApproveRequest::default()
    };
    engine.people().await.approve(request).await.unwrap();
    engine.until("p-1", RunStatus::Completed).await;
    engine.reject(&second.approval_id).await.unwrap();
    engine.until("p-2", RunStatus::Faulted).await;
}

#[tokio::test]
async fn what_runs_use_that_a_run_has_started_counts_for_it_and_once_for_their_namespace() {
    let engine = engine(|settings| {
        let budget = Budget {
            tokens: 1_000,
            ..Budget::default()
        };
        let namespace = Namespace {
            budget: Some(budget),
            ..Namespace::default()
        };
        settings.namespaces.insert("test".into(), namespace);
    })
    .await;
    let child = document("test", "").replace("name: costly", "name: child");
    engine.apply(&child).await;
    let parent = "document: {dsl: '1.0.0', namespace: test, name: parent, version: '1.0.0', metadata: {muster: {budget: {tokens: 300}}}}\ndo:\n                    - each: {for: {in: '[1, 2, 3]'}, do: [{start: {run: {workflow: {namespace: test, name: child, version: '1.0.0'}}}}]}\n";
    engine.start_run(parent, "r", "").await.unwrap();
    let approval = engine.until_asked(1).await.remove(0);
    assert_eq!(
        approval.task, "/do/0/each/do/0/start",
        "before the third child is started"
    );
    let asked: serde_json::Value = serde_json::from_str(&approval.details_json).unwrap();
    assert_eq!(asked["spent"]["tokens"], 360);
    until_calls(&engine, 6).await;
    engine.approve(&approval.approval_id).await.unwrap();
    let run = engine.until("r", RunStatus::Completed).await;
    assert_eq!(run.usage.unwrap().tokens, 540);
    until_calls(&engine, 9).await;
    // Nine calls of 60 tokens, and not twice as much: nobody is asked about the thousand tokens of the namespace.
    assert_eq!(engine.listed(&[]).await, []);
    engine.start_run(&document("test", ""), "more", "").await.unwrap();
    engine.until("more", RunStatus::Completed).await;
}

#[tokio::test]
async fn a_raise_that_would_do_nothing_is_refused_and_says_why() {
    let engine = engine(|_| {}).await;
    let text = document("test", "budget: {tokens: 100, assignees: [ada]}");
    engine.start_run(&text, "r", "").await.unwrap();
    let id = engine.until_asked(1).await.remove(0).approval_id;
    let raise = async |id: &str, tokens: Option<u64>, cost: Option<f64>| {
        let request = proto::ApproveRequest {
            approval_id: id.to_owned(),
            by: "ada".into(),
            comment: String::new(),
            raise_tokens: tokens,
            raise_cost: cost,
        };
        engine.people().await.approve(request).await
    };
    for (tokens, cost, words) in [
        (Some(0), None, "would still be used up"),
        (Some(20), None, "would still be used up"),
        (None, Some(5.0), "raise_cost: "),
    ] {
        let refused = raise(&id, tokens, cost).await.unwrap_err();
        assert!(refused.message().contains(words), "{refused:?}");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
    raise(&id, Some(21), None).await.unwrap();
    engine.until("r", RunStatus::Completed).await;
    raise(&id, Some(21), None).await.unwrap();
    let refused = raise(&id, Some(100), None).await.unwrap_err();
    assert_eq!(crate::harness::reason(&refused), "APPROVAL_CLOSED", "{refused:?}");
    let gate = "document: {dsl: '1.0.0', namespace: test, name: gate, version: '1.0.0'}\ndo:\n  - a: {set: {a: 1}, metadata: {muster: {approval: {title: Go?, assignees: [ada]}}}}\n";
    engine.start_run(gate, "g", "").await.unwrap();
    let id = engine.until_asked(1).await.remove(0).approval_id;
    let refused = raise(&id, Some(7), None).await.unwrap_err();
    assert!(refused.message().contains("about no budget"), "{refused:?}");
}

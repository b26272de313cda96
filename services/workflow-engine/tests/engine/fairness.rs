//! Whose turn it is: namespaces, classes, and limits on what is under way.

use muster_api::workflow::{self as proto, RunPriority, RunStatus};
use muster_workflow_engine::config::Namespace;

use crate::harness::{Engine, reason, send, until_calls};

/// A document of a namespace that asks the agent once, and what its metadata say.
fn of(namespace: &str, text: &str, policy: &str) -> String {
    format!(
        "document:\n  dsl: '1.0.0'\n  namespace: {namespace}\n  name: orders\n  version: '1.0.0'\n  metadata: {{muster: {{{policy}}}}}\ndo:\n{}",
        send("weather", text)
    )
}

async fn start(
    engine: &Engine,
    document: String,
    id: &str,
    input: &str,
    priority: RunPriority,
) -> proto::Run {
    let request = proto::StartRunRequest {
        run_id: id.to_owned(),
        source: Some(proto::start_run_request::Source::Document(document)),
        input_json: input.to_owned(),
        priority: priority.into(),
        ..Default::default()
    };
    let response = engine.client.clone().start_run(request).await.unwrap();
    response.into_inner().run.unwrap()
}

async fn texts(engine: &Engine, count: usize) -> Vec<String> {
    until_calls(engine, count).await;
    engine.router.calls().into_iter().map(|call| call.text).collect()
}

#[tokio::test]
async fn a_quiet_namespace_is_next_whatever_the_crowd_has_queued_also_after_a_restart() {
    let mut engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    engine.router.hold();
    for number in 0..5 {
        let id = format!("crowd-{number}");
        start(
            &engine,
            of("crowd", &id, "priority: urgent"),
            &id,
            "",
            RunPriority::Unspecified,
        )
        .await;
    }
    engine.until_held(1).await;
    start(&engine, of("quiet", "quiet", ""), "quiet", "", RunPriority::Low).await;
    engine.restart().await;
    engine.until_held(1).await;
    let namespaces = engine.status().await.namespaces;
    let waiting: Vec<(&str, u64)> = namespaces
        .iter()
        .map(|line| (&*line.namespace, line.pending))
        .collect();
    assert_eq!(waiting, [("crowd", 4), ("quiet", 1)]);
    engine.router.release_all();
    engine.until("quiet", RunStatus::Completed).await;
    let order = texts(&engine, 7).await;
    assert_eq!(order[..3], ["crowd-0", "crowd-0", "quiet"], "{order:?}");
}

#[tokio::test]
async fn higher_classes_of_a_namespace_go_first() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    engine.router.hold();
    start(
        &engine,
        of("here", "first", ""),
        "first",
        "",
        RunPriority::Unspecified,
    )
    .await;
    engine.until_held(1).await;
    for (id, policy, priority) in [
        ("low", "priority: low", RunPriority::Unspecified),
        ("normal", "", RunPriority::Unspecified),
        ("raised", "priority: low", RunPriority::High),
        ("urgent", "priority: urgent", RunPriority::Unspecified),
    ] {
        start(&engine, of("here", id, policy), id, "", priority).await;
    }
    assert_eq!(engine.run("raised").await.priority(), RunPriority::High);
    engine.router.release_all();
    assert_eq!(
        texts(&engine, 5).await,
        ["first", "urgent", "raised", "normal", "low"]
    );
}

#[tokio::test]
async fn runs_with_one_key_follow_one_another_and_why_says_behind_what() {
    let engine = Engine::start().await;
    engine.router.hold();
    let policy = "concurrency: {limit: 1, key: '${ .customer }'}";
    for (id, customer) in [("a-1", "a"), ("a-2", "a"), ("b-1", "b")] {
        let input = format!("{{\"customer\": \"{customer}\"}}");
        start(
            &engine,
            of("here", id, policy),
            id,
            &input,
            RunPriority::Unspecified,
        )
        .await;
    }
    engine.until_held(2).await;
    let blockers = engine.why("a-2").await;
    let [blocker] = &blockers[..] else {
        panic!("{blockers:?}");
    };
    assert_eq!(
        blocker.message,
        "waits for its turn in 'here/orders .customer = \"a\"': 1 of 1 runs are under way, 0 are ahead"
    );
    engine.router.release_all();
    engine.until("a-2", RunStatus::Completed).await;
    let order = texts(&engine, 3).await;
    let place = |text: &str| order.iter().position(|called| called == text);
    assert!(place("a-1") < place("a-2"), "{order:?}");
}

#[tokio::test]
async fn a_key_that_cannot_be_evaluated_refuses_the_run() {
    let engine = Engine::start().await;
    let request = proto::StartRunRequest {
        source: Some(proto::start_run_request::Source::Document(of(
            "here",
            "x",
            "concurrency: {limit: 1, key: '${ .customer | error }'}",
        ))),
        ..proto::StartRunRequest::default()
    };
    let refused = engine.client.clone().start_run(request).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");
    assert!(
        refused.message().contains("concurrency key"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn a_namespace_has_its_own_limits_and_why_names_the_setting() {
    let engine = Engine::start_with(|settings| {
        let narrow = Namespace {
            max_concurrent_workflows: 1,
            max_queued_runs: 1,
            ..Namespace::default()
        };
        settings.namespaces.insert("narrow".into(), narrow);
    })
    .await;
    engine.router.hold();
    start(
        &engine,
        of("narrow", "n-1", ""),
        "n-1",
        "",
        RunPriority::Unspecified,
    )
    .await;
    engine.until_held(1).await;
    start(
        &engine,
        of("narrow", "n-2", ""),
        "n-2",
        "",
        RunPriority::Unspecified,
    )
    .await;
    start(
        &engine,
        of("wide", "w-1", ""),
        "w-1",
        "",
        RunPriority::Unspecified,
    )
    .await;
    engine.until_held(2).await;
    let blockers = engine.why("n-2").await;
    assert!(
        blockers[0]
            .details_json
            .contains("engine.namespaces.narrow.max_concurrent_workflows"),
        "{blockers:?}"
    );
    engine.router.release_all();
    engine.until("n-2", RunStatus::Completed).await;
}

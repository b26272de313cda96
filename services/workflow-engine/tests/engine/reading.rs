//! Finding, paging and following runs, and what wrong requests are told.

use futures::StreamExt as _;
use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_api::workflow::watch_run_response::Update;

use crate::harness::{Engine, document, reason, send};

const QUICK: &str = "  - done: {set: {a: 1}}\n";

#[tokio::test]
async fn a_run_id_is_an_idempotency_key() {
    let engine = Engine::start().await;
    let text = document(QUICK);
    let first = engine.start_run(&text, "mine", r#"{"n": 1.50}"#).await.unwrap();
    engine.until("mine", RunStatus::Completed).await;
    let again = engine.start_run(&text, "mine", r#"{ "n": 1.5 }"#).await.unwrap();
    assert_eq!((again.run_id, again.created_at), (first.run_id, first.created_at));
    assert_eq!(again.output_json, r#"{"a":1}"#);

    let error = engine.start_run(&text, "mine", r#"{"n": 2}"#).await.unwrap_err();
    assert_eq!(reason(&error), "RUN_EXISTS");
    assert!(error.message().contains("another input"), "{}", error.message());
    let error = engine
        .start_run(&document("  - b: {set: {a: 2}}\n"), "mine", "")
        .await
        .unwrap_err();
    assert!(
        error.message().contains("another document"),
        "{}",
        error.message()
    );
    assert_eq!(engine.status().await.completed_total, 1);
}

#[tokio::test]
async fn one_id_started_by_many_at_once_is_one_run() {
    let engine = Engine::start().await;
    let text = document(&send("weather", "x"));
    let starts = (0..20).map(|_| engine.start_run(&text, "same", ""));
    let started = futures::future::join_all(starts).await;
    assert!(
        started
            .iter()
            .all(|run| run.as_ref().is_ok_and(|run| run.run_id == "same")),
        "{started:?}"
    );
    engine.until("same", RunStatus::Completed).await;
    assert_eq!(engine.router.calls().len(), 1);
}

#[tokio::test]
async fn runs_are_listed_newest_first_in_pages_and_by_status() {
    let engine = Engine::start().await;
    engine.router.hold();
    for number in 0..5 {
        engine
            .start_run(&document(QUICK), &format!("quick-{number}"), "")
            .await
            .unwrap();
        engine
            .until(&format!("quick-{number}"), RunStatus::Completed)
            .await;
    }
    engine
        .start_run(&document(&send("weather", "x")), "slow", "")
        .await
        .unwrap();
    engine.until_held(1).await;

    let list = async |statuses: &[RunStatus], name: &str, page_size| {
        let statuses: Vec<i32> = statuses.iter().map(|status| i32::from(*status)).collect();
        let mut listed = Vec::new();
        let mut page_token = String::new();
        loop {
            let (statuses, name) = (statuses.clone(), name.to_owned());
            let request = proto::ListRunsRequest {
                statuses,
                name,
                page_size,
                page_token,
                ..Default::default()
            };
            let page = engine
                .client
                .clone()
                .list_runs(request)
                .await
                .unwrap()
                .into_inner();
            assert!(
                page.runs
                    .iter()
                    .all(|run| run.input_json.is_empty() && run.output_json.is_empty())
            );
            listed.extend(page.runs.into_iter().map(|run| run.run_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return listed;
            }
        }
    };
    let all = ["slow", "quick-4", "quick-3", "quick-2", "quick-1", "quick-0"];
    assert_eq!(list(&[], "", 2).await, all);
    assert_eq!(list(&[RunStatus::Running], "", 50).await, ["slow"]);
    assert_eq!(list(&[RunStatus::Completed], "test", 4).await, all[1..]);
    assert_eq!(list(&[], "other", 0).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_watcher_sees_every_entry_once_and_then_the_end() {
    let engine = Engine::start().await;
    engine.router.hold();
    let text = document(&(send("one", "x") + &send("two", "y")));
    engine.start_run(&text, "watched", "").await.unwrap();
    engine.until_held(1).await;
    let watch = async |after_index| {
        let request = proto::WatchRunRequest {
            run_id: "watched".to_owned(),
            after_index,
        };
        engine
            .client
            .clone()
            .watch_run(request)
            .await
            .unwrap()
            .into_inner()
    };
    let (mut early, mut partial) = (watch(None).await, watch(Some(1)).await);
    let first = early.next().await.unwrap().unwrap();
    assert!(matches!(first.update, Some(Update::Event(event)) if event.index == 0));
    engine.router.release_all();

    let indexes = async |stream: &mut tonic::Streaming<proto::WatchRunResponse>| {
        let mut indexes = Vec::new();
        while let Some(response) = stream.next().await {
            match response.unwrap().update.unwrap() {
                Update::Event(event) => indexes.push(event.index),
                Update::Ended(run) => {
                    assert_eq!(run.status(), RunStatus::Completed);
                    assert_eq!(run.output_json, r#""y""#);
                    assert!(stream.next().await.is_none(), "nothing follows the end");
                    return (indexes, run.history_length);
                }
            }
        }
        panic!("the stream ended without the run")
    };
    let (seen, length) = indexes(&mut early).await;
    assert_eq!(seen, (1..length).collect::<Vec<_>>());
    assert_eq!(indexes(&mut partial).await.0, (2..length).collect::<Vec<_>>());
    assert_eq!(
        indexes(&mut watch(None).await).await.0,
        (0..length).collect::<Vec<_>>(),
        "also afterwards"
    );
    assert_eq!(
        indexes(&mut watch(Some(u64::MAX)).await).await.0,
        Vec::<u64>::new()
    );
}

#[tokio::test]
async fn wrong_requests_name_their_field() {
    let engine = Engine::start().await;
    let mut client = engine.client.clone();
    for (document, id, input, expected) in [
        ("", "", "", "INVALID_FIELD"),
        ("a: 1", "a b", "", "INVALID_FIELD"),
        ("a: 1", "", "{", "INVALID_FIELD"),
        ("a: 1", "", "", "INVALID_WORKFLOW"),
    ] {
        let error = engine.start_run(document, id, input).await.unwrap_err();
        assert_eq!(reason(&error), expected, "{error}");
    }
    let large = format!("\"{}\"", "x".repeat(2 * 1024 * 1024));
    let error = engine.start_run(&document(QUICK), "", &large).await.unwrap_err();
    assert!(error.message().contains("engine.max_payload_bytes"), "{error}");
    let deep = "[".repeat(100) + &"]".repeat(100);
    let error = engine.start_run(&document(QUICK), "", &deep).await.unwrap_err();
    assert!(error.message().contains("deeper"), "{error}");

    engine.start_run(&document(QUICK), "order-17", "").await.unwrap();
    let error = client
        .get_run(proto::GetRunRequest {
            run_id: "order-71".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "RUN_NOT_FOUND");
    assert!(error.message().contains("did you mean 'order-17'?"), "{error}");
    let error = engine.cancel("nobody").await.unwrap_err();
    assert_eq!(reason(&error), "RUN_NOT_FOUND");

    let request = proto::ListRunsRequest {
        page_token: "rubbish".into(),
        ..Default::default()
    };
    assert_eq!(
        reason(&client.list_runs(request).await.unwrap_err()),
        "INVALID_PAGE_TOKEN"
    );
}

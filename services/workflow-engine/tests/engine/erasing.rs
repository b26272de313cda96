//! What people and agents have said in a run is erased, and the run stays.

use muster_api::workflow as proto;
use muster_api::workflow::{ApprovalState, RunStatus};
use muster_testkit::Answer;
use serde_json::json;
use tonic::Status;

use crate::harness::{Engine, document, ended, reason, send};

impl Engine {
    async fn erase(&self, id: &str) -> Result<proto::Run, Status> {
        let request = proto::EraseRunRequest {
            run_id: id.to_owned(),
            by: "ada".to_owned(),
        };
        let answer = self.client.clone().erase_run(request).await?;
        Ok(answer.into_inner().run.unwrap())
    }
}

/// Everything that a caller can read of a run.
async fn told(engine: &Engine, id: &str) -> String {
    let list = engine
        .client
        .clone()
        .list_runs(proto::ListRunsRequest::default())
        .await
        .unwrap();
    format!(
        "{:?} {:?} {:?}",
        engine.run(id).await,
        engine.history(id).await,
        list.into_inner()
    )
}

#[tokio::test]
async fn what_was_said_is_gone_and_what_happened_can_be_verified() {
    let mut engine = Engine::start().await;
    engine.router.script([
        Answer::Completed(json!({}), "what the agent knows".into()),
        Answer::Status(Status::internal("what the agent regrets")),
    ]);
    let tasks = "  - keep: {set: '${ . + {kept: .secret} }'}\n".to_owned()
        + &send("one", "${ .secret }")
        + &send("two", "what is asked");
    let input = r#"{"secret": "what the caller knows"}"#;
    engine.start_run(&document(&tasks), "r", input).await.unwrap();
    ended(&engine, "r").await;
    let before = told(&engine, "r").await;
    for text in ["the caller knows", "agent knows", "agent regrets", "is asked"] {
        assert!(before.contains(text), "{text}: {before}");
    }
    let intact = engine.intact("r").await;
    let history = engine.history("r").await;

    let run = engine.erase("r").await.unwrap();
    assert_eq!(run.status(), RunStatus::Faulted);
    assert_eq!(run.erased_by, "ada");
    let erased_at = run.erased_at.unwrap();
    let check = async |engine: &Engine| {
        let after = told(engine, "r").await;
        for text in ["the caller knows", "agent knows", "agent regrets"] {
            assert!(!after.contains(text), "{text}: {after}");
        }
        assert_eq!(engine.intact("r").await, intact);
    };
    check(&engine).await;
    // What happened, when and where is as it was.
    let outline = |events: Vec<proto::HistoryEvent>| -> Vec<_> {
        let events = events.into_iter();
        events
            .map(|event| (event.index, event.time, event.r#type, event.task))
            .collect()
    };
    assert_eq!(outline(engine.history("r").await), outline(history));
    assert_eq!(engine.run("r").await.error.unwrap().status, 500);
    // Once more is no harm.
    assert_eq!(engine.erase("r").await.unwrap().erased_at, Some(erased_at));
    assert_eq!(reason(&engine.retry("r", "").await.unwrap_err()), "RUN_ERASED");
    assert_eq!(
        reason(&engine.fork("r", "two", "f", "").await.unwrap_err()),
        "RUN_ERASED"
    );
    engine.restart().await;
    check(&engine).await;

    let request = proto::DeleteRunRequest { run_id: "r".into() };
    engine.client.clone().delete_run(request).await.unwrap();
    assert_eq!(reason(&engine.erase("r").await.unwrap_err()), "RUN_NOT_FOUND");
}

#[tokio::test]
async fn questions_and_their_answers_are_erased_too() {
    let engine = Engine::start().await;
    let tasks = "  - ask:\n      set: {a: 1}\n      metadata: {muster: {approval: {title: 'may Bob have it', assignees: [carol]}}}\n";
    engine.start_run(&document(tasks), "r", "").await.unwrap();
    engine.until("r", RunStatus::Waiting).await;
    assert_eq!(reason(&engine.erase("r").await.unwrap_err()), "RUN_ACTIVE");
    let open = engine.listed(&[]).await;
    assert_eq!(open[0].title, "may Bob have it");
    engine.cancel("r").await.unwrap();
    ended(&engine, "r").await;
    engine.erase("r").await.unwrap();
    let closed = engine.listed(&[ApprovalState::Withdrawn]).await;
    assert_eq!(closed.len(), 1);
    let texts = format!("{closed:?} {:?}", engine.history("r").await);
    for text in ["Bob", "carol"] {
        assert!(!texts.contains(text), "{text}: {texts}");
    }
    engine.intact("r").await;
}

#[tokio::test]
async fn what_another_run_waits_for_is_not_erased_before_it_has_it() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine
        .apply("document: {dsl: '1.0.0', namespace: test, name: child, version: '1.0.0'}\ndo:\n  - a: {set: {answer: 42}}\n")
        .await;
    let tasks = "  - child: {run: {workflow: {namespace: test, name: child, version: '1.0.0'}}}\n".to_owned()
        + &send("then", "x");
    engine.start_run(&document(&tasks), "parent", "").await.unwrap();
    engine.until_held(1).await;
    let runs = engine
        .client
        .clone()
        .list_runs(proto::ListRunsRequest::default())
        .await
        .unwrap();
    let runs = runs.into_inner().runs.into_iter();
    let child = runs.map(|run| run.run_id).find(|id| id != "parent").unwrap();
    let refused = engine.erase(&child).await.unwrap_err();
    assert_eq!(reason(&refused), "RUN_ACTIVE");
    assert!(refused.message().contains("'parent'"), "{refused}");
    engine.router.release_all();
    engine.until("parent", RunStatus::Completed).await;
    engine.erase(&child).await.unwrap();
    engine.intact(&child).await;
}

//! Pausing, resuming, cancelling in good order, terminating, deleting: from outside.

use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_testkit::{Answer, http, wait_for};
use serde_json::{Value, json};
use tonic::Status;

use crate::harness::{Engine, PATIENCE, document, reason, send, until_calls};
use crate::why::details;

impl Engine {
    pub async fn pause(&self, id: &str) -> Result<proto::Run, Status> {
        let request = proto::PauseRunRequest {
            run_id: id.to_owned(),
            reason: "let me look".to_owned(),
            by: "ada".to_owned(),
        };
        Ok(self
            .client
            .clone()
            .pause_run(request)
            .await?
            .into_inner()
            .run
            .unwrap())
    }

    pub async fn resume(&self, id: &str) -> Result<proto::Run, Status> {
        let request = proto::ResumeRunRequest {
            run_id: id.to_owned(),
            ..Default::default()
        };
        Ok(self
            .client
            .clone()
            .resume_run(request)
            .await?
            .into_inner()
            .run
            .unwrap())
    }

    pub async fn terminate(&self, id: &str) -> Result<proto::Run, Status> {
        let request = proto::TerminateRunRequest {
            run_id: id.to_owned(),
            ..Default::default()
        };
        Ok(self
            .client
            .clone()
            .terminate_run(request)
            .await?
            .into_inner()
            .run
            .unwrap())
    }

    pub async fn delete(&self, id: &str) -> Result<(), Status> {
        let request = proto::DeleteRunRequest {
            run_id: id.to_owned(),
        };
        self.client.clone().delete_run(request).await.map(|_| ())
    }

    /// Types of the run's events.
    pub async fn story(&self, id: &str) -> Vec<String> {
        self.history(id)
            .await
            .into_iter()
            .map(|event| event.r#type)
            .collect()
    }
}

/// A task whose agent undoes what it did when the run fails: `undo-NAME`, told what came of it.
pub fn undoable(name: &str, text: &str) -> String {
    let undo = send(&format!("undo-{name}"), "${ . }").replace('\n', "\n            ");
    let undo = undo.trim_end();
    format!(
        "{}      metadata:\n        muster:\n          compensation:\n            do:\n            {undo}\n",
        send(name, text)
    )
}

/// Agents that were called, in order.
pub fn called(engine: &Engine) -> Vec<String> {
    engine
        .router
        .calls()
        .into_iter()
        .map(|call| call.tenant)
        .collect()
}

#[tokio::test]
async fn a_paused_run_starts_nothing_new_and_says_by_whom_also_after_a_restart() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    let text = document(&(send("one", "a") + &send("two", "b")));
    engine.start_run(&text, "held", "").await.unwrap();
    engine.until_held(1).await;
    let run = engine.pause("held").await.unwrap();
    assert_eq!((run.status(), run.paused_by.as_str()), (RunStatus::Paused, "ada"));
    assert_eq!(
        engine.pause("held").await.unwrap().status(),
        RunStatus::Paused,
        "again"
    );
    let kinds = async || {
        let blockers = engine.why("held").await;
        blockers
            .into_iter()
            .map(|blocker| blocker.kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds().await, ["paused", "call"], "what is in flight goes on");
    engine.router.release_all();
    wait_for("the call to be recorded", PATIENCE, async || {
        engine.story("held").await.contains(&"task.completed".to_owned())
    })
    .await;
    let why = engine.until_blocked("held", "paused").await;
    assert!(
        why.message.contains("is paused by ada (let me look) since"),
        "{why:?}"
    );
    assert_eq!(details(&why), json!({"by": "ada", "reason": "let me look"}));
    let status = engine.status().await;
    assert_eq!((status.running, status.waiting), (0, 1), "it holds no slot");

    engine.restart().await;
    assert_eq!(engine.run("held").await.status(), RunStatus::Paused);
    engine.until_blocked("held", "paused").await;
    assert_eq!(called(&engine), ["one"]);
    assert_eq!(engine.resume("held").await.unwrap().paused_by, "");
    engine.until("held", RunStatus::Completed).await;
    assert_eq!(called(&engine), ["one", "two"]);
    assert_eq!(reason(&engine.pause("held").await.unwrap_err()), "RUN_ENDED");
    assert_eq!(reason(&engine.resume("held").await.unwrap_err()), "RUN_ENDED");
}

#[tokio::test]
async fn the_time_of_a_run_does_not_count_while_it_is_paused() {
    let engine = Engine::start().await;
    // Without the pause it would time out before the wait ends.
    let text = document("  - nap: {wait: {milliseconds: 900}}\n  - done: {set: {a: 1}}\n")
        .replace("do:\n", "timeout: {after: {milliseconds: 1000}}\ndo:\n");
    engine.start_run(&text, "long", "").await.unwrap();
    engine.until("long", RunStatus::Waiting).await;
    engine.pause("long").await.unwrap();
    let pause = document("  - nap: {wait: {milliseconds: 1200}}\n");
    engine.output(&pause, "").await;
    assert_eq!(engine.run("long").await.status(), RunStatus::Paused);
    engine.resume("long").await.unwrap();
    engine.until("long", RunStatus::Completed).await;
}

#[tokio::test]
async fn a_run_in_line_can_be_held_and_gets_its_place_back() {
    let mut engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    engine.router.hold();
    for id in ["first", "second"] {
        engine
            .start_run(&document(&send("weather", id)), id, "")
            .await
            .unwrap();
    }
    engine.until_held(1).await;
    assert_eq!(engine.pause("second").await.unwrap().status(), RunStatus::Paused);
    assert_eq!(engine.status().await.pending, 0);
    engine.restart().await;
    engine.until_held(1).await;
    assert_eq!(engine.run("second").await.status(), RunStatus::Paused);
    engine.router.release_all();
    engine.until("first", RunStatus::Completed).await;
    assert_eq!(
        engine.run("second").await.status(),
        RunStatus::Paused,
        "it was not begun"
    );
    engine.router.hold();
    engine
        .start_run(&document(&send("weather", "third")), "third", "")
        .await
        .unwrap();
    engine.until_held(1).await;
    assert_eq!(
        engine.resume("second").await.unwrap().status(),
        RunStatus::Pending
    );
    engine.until_blocked("second", "queued").await;
    assert_eq!(engine.router.held(), 1, "no run works without a slot");
    engine.router.release_all();
    engine.until("second", RunStatus::Completed).await;
}

#[tokio::test]
async fn a_cancelled_run_handles_and_compensates_and_agents_hear_of_it() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    let tidy = send("tidy", "t").replace('\n', "\n          ");
    let slow = send("slow", "s").replace('\n', "\n        ");
    let guarded = format!(
        "  - guarded:\n      try:\n        {}\n      catch:\n        errors: {{with: {{status: 499}}}}\n        do:\n          {}\n",
        slow.trim(),
        tidy.trim()
    );
    let text = document(&(undoable("book", "b") + &guarded + &send("never", "n")));
    engine.start_run(&text, "r", "").await.unwrap();
    engine.until_held(1).await;
    engine.router.release(1);
    until_calls(&engine, 2).await;
    engine.until_held(1).await;

    let run = engine.cancel("r").await.unwrap();
    assert_eq!(run.status(), RunStatus::Running, "it still has to tidy up");
    until_calls(&engine, 3).await;
    let why = engine.until_blocked("r", "cancelling").await;
    assert!(why.message.contains("is being cancelled (not needed)"), "{why:?}");
    assert_eq!(
        engine.cancel("r").await.unwrap().status(),
        RunStatus::Running,
        "once is enough"
    );
    engine.until_held(1).await;
    engine.restart().await;
    engine.until_held(1).await;
    engine.router.release(1);
    let why = engine.until_blocked("r", "compensating").await;
    assert_eq!(why.task, "/do/0/book");
    engine.router.release_all();
    let run = engine.until("r", RunStatus::Cancelled).await;
    assert_eq!(run.compensation.unwrap().done, ["/do/0/book"]);
    assert_eq!(run.error, None);
    let mut agents = called(&engine);
    agents.dedup();
    assert_eq!(agents, ["book", "slow", "tidy", "undo-book"]);
    assert!(
        engine
            .router
            .calls()
            .iter()
            .any(|call| call.tenant == "undo-book" && call.text == "b")
    );
}

#[tokio::test]
async fn a_terminated_run_handles_and_compensates_nothing() {
    let engine = Engine::start().await;
    let text = document(&(undoable("book", "b") + "  - nap: {wait: {hours: 1}}\n"));
    engine.start_run(&text, "r", "").await.unwrap();
    engine.until("r", RunStatus::Waiting).await;
    assert_eq!(
        engine.terminate("r").await.unwrap().status(),
        RunStatus::Cancelled
    );
    assert_eq!(called(&engine), ["book"]);
    assert_eq!(reason(&engine.terminate("r").await.unwrap_err()), "RUN_ENDED");
}

#[tokio::test]
async fn a_run_that_fails_or_times_out_is_compensated_and_says_so() {
    let engine = Engine::start().await;
    let fail =
        "  - fail: {raise: {error: {type: 'about:blank', status: 500, title: Bad, detail: no luck}}}\n";
    let both = undoable("book", "b") + &undoable("pay", "p");
    engine
        .start_run(&document(&(both.clone() + fail)), "fails", "")
        .await
        .unwrap();
    let run = engine.until("fails", RunStatus::Faulted).await;
    assert_eq!(run.error.unwrap().detail, "no luck");
    assert_eq!(run.compensation.unwrap().done, ["/do/1/pay", "/do/0/book"]);
    assert_eq!(called(&engine), ["book", "pay", "undo-pay", "undo-book"]);

    let late = document(&(both + "  - nap: {wait: {hours: 1}}\n")).replace(
        "do:\n  - book",
        "timeout: {after: {milliseconds: 300}}\ndo:\n  - book",
    );
    engine.start_run(&late, "late", "").await.unwrap();
    let run = engine.until("late", RunStatus::Faulted).await;
    assert!(run.error.unwrap().r#type.ends_with("/timeout"));
    assert_eq!(run.compensation.unwrap().done.len(), 2);
}

#[tokio::test]
async fn a_compensation_that_fails_is_named_with_its_error() {
    let engine = Engine::start().await;
    engine
        .router
        .fall_back_to(Answer::Compute(std::sync::Arc::new(|call| {
            match call.tenant.as_str() {
                "undo-book" => Answer::Task(muster_api::a2a::TaskState::Rejected, "cannot be undone".into()),
                _ => Answer::Echo,
            }
        })));
    let fail = "  - fail: {raise: {error: {type: 'about:blank', status: 500}}}\n";
    let text = document(&(undoable("book", "b") + fail));
    engine.start_run(&text, "r", "").await.unwrap();
    let report = engine.until("r", RunStatus::Faulted).await.compensation.unwrap();
    let failure = &report.failed[0];
    assert_eq!(failure.task, "/do/0/book");
    assert_eq!(failure.error.as_ref().unwrap().detail, "cannot be undone");
    assert!(
        engine
            .story("r")
            .await
            .contains(&"compensation.faulted".to_owned())
    );
}

#[tokio::test]
async fn a_run_is_deleted_once_it_has_ended() {
    let engine = Engine::start().await;
    engine
        .start_run(&document("  - nap: {wait: {hours: 1}}\n"), "r", "")
        .await
        .unwrap();
    engine.until("r", RunStatus::Waiting).await;
    assert_eq!(reason(&engine.delete("r").await.unwrap_err()), "RUN_ACTIVE");
    engine.terminate("r").await.unwrap();
    let answer = http::send(
        engine.address(),
        http::Method::DELETE,
        "/v1/runs/r",
        &[],
        "".into(),
    )
    .await
    .unwrap();
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({})));
    assert_eq!(reason(&engine.delete("r").await.unwrap_err()), "RUN_NOT_FOUND");
    engine
        .start_run(&document("  - a: {set: {b: 1}}\n"), "r", "")
        .await
        .unwrap();
    engine.until("r", RunStatus::Completed).await;
    assert_eq!(
        engine.history("r").await[0].r#type,
        "run.started",
        "the id is free"
    );
}

#[tokio::test]
async fn controls_are_there_over_http() {
    let engine = Engine::start().await;
    engine
        .start_run(&document("  - nap: {wait: {hours: 1}}\n"), "r", "")
        .await
        .unwrap();
    let post =
        async |path: &str, body: Value| http::post(engine.address(), path, &body).await.unwrap().json();
    let paused = post("/v1/runs/r:pause", json!({"by": "ada", "reason": "why not"})).await;
    assert_eq!(
        (&paused["run"]["status"], &paused["run"]["pausedBy"]),
        (&json!("RUN_STATUS_PAUSED"), &json!("ada"))
    );
    assert_eq!(
        post("/v1/runs/r:resume", json!({})).await["run"]["pausedBy"],
        Value::Null
    );
    let cancelled = post("/v1/runs/r:cancel", json!({"reason": "enough"})).await;
    assert_eq!(cancelled["run"]["status"], "RUN_STATUS_CANCELLED");
    let forked = post("/v1/runs/r:fork", json!({"newRunId": "s"})).await;
    assert_eq!(forked["run"]["forkedFrom"], "r");
    assert_eq!(
        post("/v1/runs/s:terminate", json!({})).await["run"]["status"],
        "RUN_STATUS_CANCELLED"
    );
    let retried = post("/v1/runs/r:retry", json!({"by": "ada"})).await;
    assert_eq!(retried["run"]["retries"], 1);
    let error = post("/v1/runs/r:pause", json!({"by": "x".repeat(300)})).await;
    assert_eq!(error["error"]["code"], 400, "{error}");
}

//! Every way to wait, and what the engine says about it.

use std::time::Duration;

use muster_api::error::{Error, Reason};
use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_testkit::{Answer, wait_for};
use serde_json::{Value, json};
use tonic::Status;

use crate::harness::{Engine, PATIENCE, document, reason, send};

impl Engine {
    /// What a run waits for.
    pub async fn why(&self, id: &str) -> Vec<proto::Blocker> {
        let request = proto::ExplainRunRequest {
            run_id: id.to_owned(),
        };
        let answer = self.client.clone().explain_run(request).await.unwrap();
        answer.into_inner().blockers
    }

    /// Waits until the run says that it waits for a thing of that kind.
    pub async fn until_blocked(&self, id: &str, kind: &str) -> proto::Blocker {
        wait_for(&format!("run {id} to wait for {kind}"), PATIENCE, async || {
            let blockers = self.why(id).await;
            let found = blockers.iter().find(|blocker| blocker.kind == kind);
            found.cloned().ok_or_else(|| format!("{blockers:?}"))
        })
        .await
    }
}

pub fn details(blocker: &proto::Blocker) -> Value {
    serde_json::from_str(&blocker.details_json).unwrap()
}

/// What the router says again and again, and the kind that the run names then.
async fn says(error: Error) -> (proto::Blocker, &'static str) {
    let kind = match error.reason {
        Reason::AgentNotFound | Reason::SkillNotFound => "no-agent",
        Reason::NoInstanceAvailable => "breaker-open",
        Reason::AgentBusy => "agent-busy",
        Reason::QueueFull => "queue-full",
        _ => "router-unreachable",
    };
    let engine = Engine::start().await;
    engine.router.fall_back_to(Answer::Status(Status::from(error)));
    engine
        .start_run(&document(&send("weather", "x")), "r", "")
        .await
        .unwrap();
    (engine.until_blocked("r", kind).await, kind)
}

#[tokio::test]
async fn a_call_says_what_the_router_says() {
    let soon = Duration::from_millis(50);
    let (blocker, _) = says(
        Error::new(
            Reason::SkillNotFound,
            "no registered agent has the skill 'forcast'; did you mean 'forecast'?",
        )
        .with_metadata("nearest", "forecast")
        .with_retry_after(soon),
    )
    .await;
    assert_eq!(blocker.task, "/do/0/weather");
    assert!(
        blocker.message.contains("did you mean 'forecast'?"),
        "{blocker:?}"
    );
    assert_eq!(details(&blocker)["nearest"], "forecast");
    assert_eq!(details(&blocker)["target"], "agent://weather");
    assert!(blocker.since.is_some() && blocker.until.is_some());

    let (blocker, _) = says(
        Error::new(
            Reason::NoInstanceAvailable,
            "no instance takes work now: 1 failed too often",
        )
        .with_metadata("cause", "breaker")
        .with_retry_after(soon),
    )
    .await;
    assert!(blocker.message.contains("failed too often"), "{blocker:?}");
    for reason in [
        Reason::AgentBusy,
        Reason::QueueFull,
        Reason::DependencyUnavailable,
    ] {
        let (blocker, kind) = says(Error::new(reason, "not now").with_retry_after(soon)).await;
        assert_eq!(
            (blocker.kind.as_str(), &details(&blocker)["reason"]),
            (kind, &json!(reason.name()))
        );
    }
}

#[tokio::test]
async fn a_router_that_is_not_there_is_named() {
    let engine = Engine::start_with(|settings| settings.router_url = "http://127.0.0.1:1".into()).await;
    engine
        .start_run(&document(&send("weather", "x")), "r", "")
        .await
        .unwrap();
    let blocker = engine.until_blocked("r", "router-unreachable").await;
    assert!(
        blocker.message.contains("the router cannot be reached"),
        "{blocker:?}"
    );
}

#[tokio::test]
async fn a_call_in_flight_says_to_whom_since_when_and_until_when() {
    let engine = Engine::start().await;
    engine.router.hold();
    engine
        .start_run(&document(&send("weather", "x")), "r", "")
        .await
        .unwrap();
    engine.until_held(1).await;
    let blocker = engine.until_blocked("r", "call").await;
    assert!(
        blocker
            .message
            .starts_with("/do/0/weather waits for agent://weather to answer SendMessage since"),
        "{blocker:?}"
    );
    assert!(blocker.since.is_some() && blocker.until.is_some());
    assert_eq!(details(&blocker)["attempt"], 1);
}

#[tokio::test]
async fn timers_and_retries_say_until_when_and_which_error() {
    let engine = Engine::start().await;
    engine
        .start_run(&document("  - nap: {wait: PT1H}\n"), "nap", "")
        .await
        .unwrap();
    let blocker = engine.until_blocked("nap", "timer").await;
    assert_eq!(blocker.task, "/do/0/nap");
    let (since, until) = (blocker.since.unwrap(), blocker.until.unwrap());
    assert_eq!(until.seconds - since.seconds, 3600);

    let tasks = "  - again:\n      try:\n        - bad: {raise: {error: {type: 'about:blank', status: 503, title: Down, \
                 detail: no luck}}}\n      catch: {retry: {delay: PT1H, limit: {attempt: {count: 3}}}}\n";
    engine.start_run(&document(tasks), "again", "").await.unwrap();
    let blocker = engine.until_blocked("again", "retry").await;
    assert!(
        blocker
            .message
            .contains("before attempt 2; the last one failed: Down: no luck"),
        "{blocker:?}"
    );
    assert_eq!(details(&blocker)["error"]["status"], 503);
    assert_eq!(details(&blocker)["attempt"], 2);
    assert!(blocker.since.is_some() && blocker.until.is_some());
}

#[tokio::test]
async fn a_run_in_line_says_its_limit_and_place_and_one_that_has_ended_how() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    engine.router.hold();
    for number in 0..3 {
        let id = format!("r{number}");
        engine
            .start_run(&document(&send("weather", "x")), &id, "")
            .await
            .unwrap();
    }
    engine.until_held(1).await;
    let blocker = engine.until_blocked("r2", "queued").await;
    let facts = details(&blocker);
    assert_eq!(facts["limit"], "engine.max_concurrent_workflows");
    assert_eq!(
        (&facts["used"], &facts["most"], &facts["ahead"]),
        (&json!(1), &json!(1), &json!(1))
    );

    engine.cancel("r2").await.unwrap();
    let blocker = engine.until_blocked("r2", "ended").await;
    assert_eq!(details(&blocker)["status"], "cancelled");
    engine.router.release_all();
    engine.until("r1", RunStatus::Completed).await;

    let request = proto::ExplainRunRequest {
        run_id: "nobody".into(),
    };
    let refused = engine.client.clone().explain_run(request).await.unwrap_err();
    assert_eq!(reason(&refused), "RUN_NOT_FOUND");
}

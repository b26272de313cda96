//! People decide: over gRPC and HTTP, one at a time and several at once, in time and too late, across restarts.

use muster_api::workflow::approval_service_client::ApprovalServiceClient;
use muster_api::workflow::{self as proto, ApprovalState, RunStatus};
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_testkit::{http, wait_for};
use serde_json::{Value, json};
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{Engine, PATIENCE, document, reason, send, until_calls};
use crate::why::details;

impl Engine {
    pub async fn people(&self) -> ApprovalServiceClient<Channel> {
        let url = format!("http://{}", self.address());
        ApprovalServiceClient::connect(url).await.unwrap()
    }

    /// Lists approvals in these states.
    pub async fn listed(&self, states: &[ApprovalState]) -> Vec<proto::Approval> {
        let request = proto::ListApprovalsRequest {
            states: states.iter().map(|state| (*state).into()).collect(),
            ..proto::ListApprovalsRequest::default()
        };
        let answer = self.people().await.list_approvals(request).await.unwrap();
        answer.into_inner().approvals
    }

    /// Waits until so many are open.
    pub async fn until_asked(&self, count: usize) -> Vec<proto::Approval> {
        wait_for(&format!("{count} approvals to be open"), PATIENCE, async || {
            let open = self.listed(&[]).await;
            if open.len() == count {
                Ok(open)
            } else {
                Err(format!("{open:?}"))
            }
        })
        .await
    }

    pub async fn approve(&self, id: &str) -> Result<proto::Approval, Status> {
        let request = proto::ApproveRequest {
            approval_id: id.to_owned(),
            by: "ada".to_owned(),
            comment: "fine".to_owned(),
            ..proto::ApproveRequest::default()
        };
        let answer = self.people().await.approve(request).await?;
        Ok(answer.into_inner().approval.unwrap())
    }

    pub async fn reject(&self, id: &str) -> Result<proto::Approval, Status> {
        let request = proto::RejectRequest {
            approval_id: id.to_owned(),
            by: "bob".to_owned(),
            comment: "too much".to_owned(),
        };
        let answer = self.people().await.reject(request).await?;
        Ok(answer.into_inner().approval.unwrap())
    }

    /// Approves whatever the run asks now.
    pub async fn approve_all(&self, run: &str) {
        let request = proto::ListApprovalsRequest {
            run_id: run.to_owned(),
            ..proto::ListApprovalsRequest::default()
        };
        let open = self.people().await.list_approvals(request).await.unwrap();
        for approval in open.into_inner().approvals {
            // It may have been withdrawn meanwhile.
            let _ = self.approve(&approval.approval_id).await;
        }
    }

    pub async fn approval(&self, id: &str) -> proto::Approval {
        let request = proto::GetApprovalRequest {
            approval_id: id.to_owned(),
        };
        let answer = self.people().await.get_approval(request).await.unwrap();
        answer.into_inner().approval.unwrap()
    }

    pub async fn count(&self, run: &str, kind: &str) -> usize {
        let history = self.history(run).await;
        history.iter().filter(|event| event.r#type == kind).count()
    }
}

/// A call behind an approval, as a task.
pub fn gated(name: &str, more: &str) -> String {
    send(name, "${ .text }")
        + &format!(
            "      metadata: {{muster: {{approval: {{title: '${{ \"Ask {name} about \\(.text)\" }}', assignees: [ada, bob]{more}}}}}}}\n"
        )
}

pub const INPUT: &str = r#"{"text": "rain"}"#;

#[tokio::test]
async fn a_call_is_made_only_once_it_is_approved_and_the_journal_says_by_whom() {
    let engine = Engine::start().await;
    let document = document(&gated(
        "weather",
        ", details: {about: '${ .text }'}, deadline: PT1H",
    ));
    engine.start_run(&document, "r", INPUT).await.unwrap();
    let approval = engine.until_asked(1).await.remove(0);
    assert_eq!(
        (
            approval.approval_id.as_str(),
            approval.run_id.as_str(),
            approval.task.as_str()
        ),
        ("r.2", "r", "/do/0/weather")
    );
    assert_eq!(
        (approval.title.as_str(), approval.name.as_str()),
        ("Ask weather about rain", "test")
    );
    assert_eq!(approval.assignees, ["ada", "bob"]);
    assert_eq!(approval.details_json, r#"{"about":"rain"}"#);
    let (opened, deadline) = (approval.opened_at.unwrap(), approval.deadline.unwrap());
    assert_eq!(deadline.seconds - opened.seconds, 3600);

    let blocker = engine.until_blocked("r", "approval").await;
    assert!(
        blocker
            .message
            .starts_with("/do/0/weather waits for approval r.2 by ada, bob: 'Ask weather about rain', since"),
        "{blocker:?}"
    );
    assert_eq!(details(&blocker)["approval"], "r.2");
    assert_eq!(details(&blocker)["assignees"], json!(["ada", "bob"]));
    assert!(blocker.since.is_some() && blocker.until.is_some());
    let status = engine.status().await;
    assert_eq!((status.running, status.waiting), (0, 1), "it holds no slot");
    assert!(engine.router.calls().is_empty());

    let decided = engine.approve("r.2").await.unwrap();
    assert_eq!(decided.state(), ApprovalState::Approved);
    assert_eq!(
        (decided.decided_by.as_str(), decided.comment.as_str()),
        ("ada", "fine")
    );
    let run = engine.until("r", RunStatus::Completed).await;
    assert!(run.output_json.contains("rain"), "{run:?}");
    until_calls(&engine, 1).await;
    let history = engine.history("r").await;
    let said = history
        .iter()
        .find(|event| event.r#type == "approval.decided")
        .unwrap();
    let said: Value = serde_json::from_str(&said.data_json).unwrap();
    assert_eq!((&said["by"], &said["approved"]), (&json!("ada"), &json!(true)));
    assert_eq!(engine.listed(&[]).await, []);
    assert_eq!(engine.approval("r.2").await, decided);
}

#[tokio::test]
async fn saying_it_again_is_fine_and_saying_otherwise_is_refused() {
    let engine = Engine::start().await;
    engine
        .start_run(&document(&gated("weather", "")), "r", INPUT)
        .await
        .unwrap();
    engine.until_asked(1).await;
    let unknown = engine.approve("r.3").await.unwrap_err();
    assert_eq!(reason(&unknown), "APPROVAL_NOT_FOUND");
    assert!(unknown.message().contains("did you mean 'r.2'?"), "{unknown:?}");
    assert_eq!(reason(&engine.approve("r").await.unwrap_err()), "INVALID_FIELD");
    let nobody = proto::ApproveRequest {
        approval_id: "r.2".into(),
        ..proto::ApproveRequest::default()
    };
    let refused = engine.people().await.approve(nobody).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");

    let (one, other) = tokio::join!(engine.approve("r.2"), engine.approve("r.2"));
    assert_eq!(one.unwrap(), other.unwrap());
    let again = engine.approve("r.2").await.unwrap();
    assert_eq!(again.state(), ApprovalState::Approved);
    let refused = engine.reject("r.2").await.unwrap_err();
    assert_eq!(reason(&refused), "APPROVAL_CLOSED");
    assert!(refused.message().contains("is approved by ada"), "{refused:?}");
    engine.until("r", RunStatus::Completed).await;
    assert_eq!(engine.count("r", "approval.decided").await, 1);
}

#[tokio::test]
async fn no_and_silence_are_errors_that_a_document_can_handle() {
    let engine = Engine::start().await;
    engine
        .start_run(&document(&gated("weather", "")), "no", INPUT)
        .await
        .unwrap();
    engine.until_asked(1).await;
    engine.reject("no.2").await.unwrap();
    let error = engine.until("no", RunStatus::Faulted).await.error.unwrap();
    assert_eq!(
        (error.r#type.as_str(), error.status),
        ("urn:muster:error:approval-rejected", 403)
    );
    assert_eq!(
        error.detail,
        "'Ask weather about rain' was rejected by bob: too much"
    );
    assert_eq!(error.instance, "/do/0/weather");

    let tasks = format!(
        "  - guarded:\n      try:\n      {}\n      catch:\n        errors: {{with: {{type: urn:muster:error:approval-expired}}}}\n        as: problem\n        do: [{{late: {{set: {{status: '${{ $problem.status }}'}}}}}}]\n",
        gated("weather", ", deadline: {milliseconds: 50}")
            .replace('\n', "\n      ")
            .trim_end()
    );
    engine.start_run(&document(&tasks), "late", INPUT).await.unwrap();
    let run = engine.until("late", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"{"status":408}"#);
    let expired = engine.approval("late.3").await;
    assert_eq!(
        (expired.state(), expired.decided_by.as_str()),
        (ApprovalState::Expired, "")
    );
    assert_eq!(
        reason(&engine.approve("late.3").await.unwrap_err()),
        "APPROVAL_CLOSED"
    );
    assert!(engine.router.calls().is_empty());
}

#[tokio::test]
async fn several_are_open_at_once_survive_a_restart_and_no_step_runs_again() {
    let mut engine = Engine::start().await;
    let branches = (gated("one", "") + &gated("two", "")).replace('\n', "\n      ");
    let tasks = format!(
        "{}  - both:\n      fork:\n        branches:\n      {}\n",
        send("first", "before").replace(
            "${ .artifacts[0].parts[1].text }",
            "${ {text: .artifacts[0].parts[1].text} }"
        ),
        branches.trim_end()
    );
    for run in ["r", "s"] {
        engine.start_run(&document(&tasks), run, INPUT).await.unwrap();
    }
    let open = engine.until_asked(4).await;
    let id = |run: &str, task: &str| {
        let found = open
            .iter()
            .find(|approval| approval.run_id == run && approval.task.ends_with(task));
        found.unwrap().approval_id.clone()
    };
    until_calls(&engine, 2).await;
    engine.approve(&id("r", "two")).await.unwrap();
    until_calls(&engine, 3).await;
    engine.restart().await;
    let mut ids: Vec<String> = engine
        .until_asked(3)
        .await
        .into_iter()
        .map(|approval| approval.approval_id)
        .collect();
    ids.sort_unstable();
    let mut expected = [id("r", "one"), id("s", "one"), id("s", "two")];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    engine.until_blocked("r", "approval").await;
    engine.approve(&id("r", "one")).await.unwrap();
    engine.until("r", RunStatus::Completed).await;
    engine.restart().await;
    engine.approve(&id("s", "two")).await.unwrap();
    engine.approve(&id("s", "one")).await.unwrap();
    engine.until("s", RunStatus::Completed).await;
    until_calls(&engine, 6).await;
    for run in ["r", "s"] {
        assert_eq!(engine.count(run, "approval.opened").await, 2);
        assert_eq!(engine.count(run, "call.started").await, 3);
    }
}

#[tokio::test]
async fn whoever_is_asked_later_is_listed_and_may_decide() {
    let engine = Engine::start().await;
    let tasks = gated("weather", ", escalate: {after: {milliseconds: 20}, to: [boss]}");
    engine.start_run(&document(&tasks), "r", INPUT).await.unwrap();
    let request = proto::ListApprovalsRequest {
        assignee: "boss".into(),
        namespace: "test".into(),
        ..proto::ListApprovalsRequest::default()
    };
    let approval = wait_for("the boss to be asked", PATIENCE, async || {
        let answer = engine
            .people()
            .await
            .list_approvals(request.clone())
            .await
            .unwrap();
        answer.into_inner().approvals.pop().ok_or("not yet")
    })
    .await;
    assert_eq!(approval.assignees, ["ada", "bob", "boss"]);
    assert!(approval.escalated && approval.escalates_at.is_none());
    engine.approve("r.2").await.unwrap();
    engine.until("r", RunStatus::Completed).await;
}

#[tokio::test]
async fn the_end_of_a_run_withdraws_what_it_asks() {
    let engine = Engine::start().await;
    engine
        .start_run(&document(&gated("weather", "")), "r", INPUT)
        .await
        .unwrap();
    engine.until_asked(1).await;
    engine.cancel("r").await.unwrap();
    let approval = engine.approval("r.2").await;
    assert_eq!(approval.state(), ApprovalState::Withdrawn);
    assert!(approval.closed_at.is_some());
    assert_eq!(engine.listed(&[]).await, []);
    assert_eq!(
        reason(&engine.approve("r.2").await.unwrap_err()),
        "APPROVAL_CLOSED"
    );
}

#[tokio::test]
async fn what_people_take_does_not_count_against_the_runs_time() {
    let mut engine = Engine::start().await;
    let text =
        document(&gated("weather", "")).replace("do:\n", "timeout: {after: {milliseconds: 1500}}\ndo:\n");
    engine.start_run(&text, "r", INPUT).await.unwrap();
    let approval = engine.until_asked(1).await.remove(0);
    let opened = approval.opened_at.unwrap();
    engine.restart().await;
    // Longer than the run may take.
    wait_for("two seconds to pass", PATIENCE, async || {
        let blocker = engine.until_blocked("r", "approval").await;
        let waited = SystemClock::default().now().as_second() - opened.seconds;
        if waited > 2 {
            Ok(())
        } else {
            Err(format!("{waited} s, {blocker:?}"))
        }
    })
    .await;
    engine.approve("r.2").await.unwrap();
    engine.until("r", RunStatus::Completed).await;
}

#[tokio::test]
async fn lists_have_pages_and_the_closed_come_newest_first() {
    let engine = Engine::start().await;
    for number in 0..5 {
        let id = format!("r{number}");
        engine
            .start_run(&document(&gated("weather", "")), &id, INPUT)
            .await
            .unwrap();
        engine.until_asked(number + 1).await;
    }
    let mut client = engine.people().await;
    let mut request = proto::ListApprovalsRequest {
        page_size: 2,
        ..proto::ListApprovalsRequest::default()
    };
    let mut ids = Vec::new();
    loop {
        let page = client.list_approvals(request.clone()).await.unwrap().into_inner();
        assert!(page.approvals.len() <= 2);
        ids.extend(page.approvals.into_iter().map(|approval| approval.approval_id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(ids, ["r0.2", "r1.2", "r2.2", "r3.2", "r4.2"]);
    engine.reject("r1.2").await.unwrap();
    engine.approve("r3.2").await.unwrap();
    let closed = engine
        .listed(&[ApprovalState::Approved, ApprovalState::Rejected])
        .await;
    let closed: Vec<_> = closed
        .iter()
        .map(|approval| (approval.approval_id.as_str(), approval.state()))
        .collect();
    assert_eq!(
        closed,
        [
            ("r3.2", ApprovalState::Approved),
            ("r1.2", ApprovalState::Rejected)
        ]
    );
}

#[tokio::test]
async fn people_decide_over_plain_http_too() {
    let engine = Engine::start().await;
    engine
        .start_run(&document(&gated("weather", "")), "r", INPUT)
        .await
        .unwrap();
    engine.until_asked(1).await;
    let listed = http::get(engine.address(), "/v1/approvals?assignee=bob")
        .await
        .unwrap();
    assert_eq!(listed.json()["approvals"][0]["approvalId"], "r.2");
    let refused = http::post(engine.address(), "/v1/approvals/r.2:approve", &json!({}))
        .await
        .unwrap();
    assert_eq!(refused.status.as_u16(), 400);
    let body = json!({"by": "ada", "comment": "fine"});
    let approved = http::post(engine.address(), "/v1/approvals/r.2:approve", &body)
        .await
        .unwrap();
    assert_eq!(approved.json()["approval"]["state"], "APPROVAL_STATE_APPROVED");
    let refused = http::post(engine.address(), "/v1/approvals/r.2:reject", &body)
        .await
        .unwrap();
    assert_eq!(refused.status.as_u16(), 409);
    engine.until("r", RunStatus::Completed).await;
}

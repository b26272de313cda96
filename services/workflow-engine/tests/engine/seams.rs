//! Where features meet: each is tested for itself elsewhere, here two of them at once.

use muster_api::a2a::TaskState;
use muster_api::workflow::{ApprovalState, RunStatus};
use muster_testkit::{Answer, wait_for};
use muster_workflow_dsl::usage;
use muster_workflow_engine::config::{Budget, Namespace};
use serde_json::{Value, json};

use crate::approvals::{INPUT, gated};
use crate::harness::{Engine, PATIENCE, document, reason, send, until_calls};
use crate::steering::{called, undoable};

/// What [`send`] makes of an answer, and what a task with an approval is to find there.
const TEXT: &str = "${ .artifacts[0].parts[1].text }";
const OBJECT: &str = "${ {text: .artifacts[0].parts[1].text} }";

/// What an agent answers that reports that it has used 60 tokens.
fn costly() -> Answer {
    Answer::Metadata(json!({usage::KEY: {"tokens": 60}}))
}

/// The same tasks, further in.
fn indented(tasks: &str, by: usize) -> String {
    let blanks = " ".repeat(by);
    tasks.lines().map(|line| format!("{blanks}{line}\n")).collect()
}

/// What is told of a run, of one kind.
async fn told(engine: &Engine, what: &str, run: &str) -> Vec<Value> {
    let kind = format!("io.serverlessworkflow.workflow.{what}.v1");
    let mut events = engine.logged(&kind).await;
    events.retain(|event| event["subject"] == run);
    events
}

#[tokio::test]
async fn what_is_decided_while_a_run_is_paused_takes_effect_once_it_is_resumed_and_only_once() {
    let mut engine = Engine::start().await;
    let tasks = gated("weather", "") + &send("after", "done");
    for (run, restarts) in [("stays", false), ("restarts", true)] {
        let before = called(&engine).len();
        engine.start_run(&document(&tasks), run, INPUT).await.unwrap();
        let approval = engine.until_asked(1).await.remove(0);
        engine.until_blocked(run, "approval").await;
        engine.pause(run).await.unwrap();
        assert_eq!(
            engine.until_asked(1).await,
            std::slice::from_ref(&approval),
            "it can be decided"
        );
        if restarts {
            engine.restart().await;
            assert_eq!(engine.until_asked(1).await, std::slice::from_ref(&approval));
        }
        let decided = engine.approve(&approval.approval_id).await.unwrap();
        assert_eq!(decided.state(), ApprovalState::Approved);
        if restarts {
            engine.restart().await;
        }
        engine.until_blocked(run, "paused").await;
        assert_eq!(engine.run(run).await.status(), RunStatus::Paused);
        assert_eq!(called(&engine).len(), before, "it is held");
        assert_eq!(engine.listed(&[]).await, []);
        engine.resume(run).await.unwrap();
        engine.until(run, RunStatus::Completed).await;
        assert_eq!(called(&engine)[before..], ["weather", "after"]);
        for (kind, times) in [
            ("approval.opened", 1),
            ("approval.decided", 1),
            ("call.started", 2),
        ] {
            assert_eq!(engine.count(run, kind).await, times, "{kind}");
        }
    }
}

#[tokio::test]
async fn a_rejection_while_a_run_is_paused_faults_it_once_it_is_resumed() {
    let engine = Engine::start().await;
    engine
        .start_run(&document(&gated("weather", "")), "r", INPUT)
        .await
        .unwrap();
    engine.until_asked(1).await;
    engine.pause("r").await.unwrap();
    engine.reject("r.2").await.unwrap();
    assert_eq!(engine.run("r").await.status(), RunStatus::Paused);
    engine.resume("r").await.unwrap();
    let error = engine.until("r", RunStatus::Faulted).await.error.unwrap();
    assert_eq!(error.r#type, "urn:muster:error:approval-rejected");
}

#[tokio::test]
async fn a_retry_after_a_no_or_after_silence_asks_anew_and_the_old_question_stays_closed() {
    let mut engine = Engine::start().await;
    let cases = [
        ("no", "", ApprovalState::Rejected),
        ("late", ", deadline: {milliseconds: 50}", ApprovalState::Expired),
    ];
    for (run, more, closed) in cases {
        let tasks = send("before", "rain").replace(TEXT, OBJECT) + &gated("weather", more);
        let before = called(&engine).len();
        engine.start_run(&document(&tasks), run, INPUT).await.unwrap();
        if run == "no" {
            let first = engine.until_asked(1).await.remove(0);
            engine.reject(&first.approval_id).await.unwrap();
        }
        engine.until(run, RunStatus::Faulted).await;
        let first = engine.listed(&[closed]).await.remove(0);
        engine.retry(run, "").await.unwrap();
        // A question with a deadline may be closed by the time it is looked for.
        let second = wait_for("it to be asked anew", PATIENCE, async || {
            let all = [ApprovalState::Open, ApprovalState::Expired];
            let asked = engine.listed(&all).await;
            let new = asked
                .into_iter()
                .find(|approval| approval.run_id == run && approval.approval_id != first.approval_id);
            new.ok_or("not yet")
        })
        .await;
        assert_eq!(second.task, first.task);
        assert_eq!(
            engine.approval(&first.approval_id).await,
            first,
            "it stays closed"
        );
        assert_eq!(
            reason(
                &engine
                    .approve(&first.approval_id)
                    .await
                    .map_or_else(|refused| refused, |approval| panic!("{approval:?}"))
            ),
            "APPROVAL_CLOSED"
        );
        if run == "no" {
            engine.restart().await;
            let open = engine.until_asked(1).await;
            assert_eq!(open[0].approval_id, second.approval_id);
            engine.approve(&second.approval_id).await.unwrap();
            engine.until(run, RunStatus::Completed).await;
            assert_eq!(called(&engine)[before..], ["before", "weather"]);
        } else {
            engine.until(run, RunStatus::Faulted).await;
            assert_eq!(called(&engine)[before..], ["before"]);
        }
    }
}

#[tokio::test]
async fn a_cancellation_closes_what_is_asked_and_compensation_waits_for_nobody() {
    let engine = Engine::start().await;
    let tasks = undoable("book", "b")
        + &gated("weather", "")
            .replace("${ .text }", "${ . }")
            .replace("(.text)", "(.)");
    engine.start_run(&document(&tasks), "r", INPUT).await.unwrap();
    let approval = engine.until_asked(1).await.remove(0);
    engine.router.hold();
    engine.cancel("r").await.unwrap();
    engine.until_held(1).await;
    assert_eq!(
        engine.approval(&approval.approval_id).await.state(),
        ApprovalState::Withdrawn,
        "before it has compensated"
    );
    engine.router.release_all();
    let run = engine.until("r", RunStatus::Cancelled).await;
    assert_eq!(run.compensation.unwrap().done, ["/do/0/book"]);
    assert_eq!(called(&engine), ["book", "undo-book"]);
    assert_eq!(
        reason(&engine.approve(&approval.approval_id).await.unwrap_err()),
        "APPROVAL_CLOSED"
    );
}

#[tokio::test]
async fn a_run_over_its_budget_that_is_cancelled_or_fails_compensates_all_the_same() {
    let mut engine = Engine::start().await;
    engine.router.fall_back_to(costly());
    let text = document(&(undoable("one", "a") + &undoable("two", "b") + &send("three", "c"))).replace(
        "version: '1.0.0'",
        "version: '1.0.0', metadata: {muster: {budget: {tokens: 100}}}",
    );
    for (run, cancelled) in [("cancelled", true), ("refused", false)] {
        let before = called(&engine).len();
        engine.start_run(&text, run, "").await.unwrap();
        let approval = engine.until_asked(1).await.remove(0);
        engine.until_blocked(run, "budget").await;
        engine.router.hold();
        if cancelled {
            engine.cancel(run).await.unwrap();
        } else {
            engine.reject(&approval.approval_id).await.unwrap();
        }
        engine.until_held(1).await;
        assert_eq!(
            engine.listed(&[]).await,
            [],
            "nobody is asked while it compensates"
        );
        engine.restart().await;
        engine.until_held(1).await;
        assert_eq!(engine.listed(&[]).await, []);
        engine.router.release_all();
        let end = if cancelled {
            RunStatus::Cancelled
        } else {
            RunStatus::Faulted
        };
        let ended = engine.until(run, end).await;
        assert_eq!(ended.compensation.unwrap().done, ["/do/1/two", "/do/0/one"]);
        let mut agents = called(&engine)[before..].to_vec();
        agents.dedup();
        assert_eq!(agents, ["one", "two", "undo-two", "undo-one"]);
    }
}

#[tokio::test]
async fn a_handler_of_a_cancelled_run_is_not_held_by_the_budget() {
    let mut engine = Engine::start().await;
    engine.router.fall_back_to(costly());
    let call = |agent: &str| send(agent, "x").replace('\n', "\n          ");
    let tasks = send("one", "a")
        + &send("two", "b")
        + &format!(
            "  - guarded:\n      try:\n          {}\n      catch:\n        errors: {{with: {{status: 499}}}}\n        do:\n          {}\n",
            call("three").trim(),
            call("clean").trim()
        );
    let text = document(&tasks).replace(
        "version: '1.0.0'",
        "version: '1.0.0', metadata: {muster: {budget: {tokens: 100}}}",
    );
    engine.start_run(&text, "r", "").await.unwrap();
    engine.until_blocked("r", "budget").await;
    engine.router.hold();
    engine.cancel("r").await.unwrap();
    engine.until_held(1).await;
    assert_eq!(engine.listed(&[]).await, [], "nobody is asked any more");
    engine.restart().await;
    engine.until_held(1).await;
    engine.router.release_all();
    engine.until("r", RunStatus::Cancelled).await;
    let mut agents = called(&engine);
    agents.dedup();
    assert_eq!(agents, ["one", "two", "clean"]);
}

const EACH: &str = "
  - hear:
      listen: {to: {any: [{with: {type: order}}], until: {one: {with: {type: closing}}}}}
      foreach:
        item: order
        do:
          - keep: {call: a2a, with: {server: 'agent://worker', method: SendMessage, parameters: {message: {parts: [{text: '${ \"n\" + ($order | tostring) }'}]}}}}
        output: {as: '$order'}
";

fn texts(engine: &Engine) -> Vec<String> {
    engine.router.calls().into_iter().map(|call| call.text).collect()
}

#[tokio::test]
async fn events_that_come_while_a_run_is_paused_are_heard_once_it_is_resumed_none_lost_none_twice() {
    let mut engine = Engine::start().await;
    let tasks = "  - hear: {listen: {to: {any: [{with: {type: a}}], until: 'length == 4'}}}\n";
    for (run, restarts) in [("stays", false), ("restarts", true)] {
        engine.start_run(&document(tasks), run, "").await.unwrap();
        engine.until_blocked(run, "event").await;
        engine.publish("a", json!(1)).await;
        wait_for("the first to be heard", PATIENCE, async || {
            match engine.count(run, "event.consumed").await {
                1 => Ok(()),
                other => Err(other),
            }
        })
        .await;
        engine.pause(run).await.unwrap();
        for n in 2..=3 {
            engine.publish("a", json!(n)).await;
        }
        if restarts {
            engine.restart().await;
        }
        engine.until_blocked(run, "paused").await;
        assert_eq!(engine.count(run, "event.consumed").await, 1, "it is held");
        assert_eq!(engine.run(run).await.status(), RunStatus::Paused);
        engine.resume(run).await.unwrap();
        engine.publish("a", json!(4)).await;
        assert_eq!(engine.completed(run).await, json!([1, 2, 3, 4]));
        assert_eq!(engine.count(run, "event.consumed").await, 4);
    }
}

#[tokio::test]
async fn each_event_is_worked_on_once_over_a_pause_and_a_restart() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    engine.start_run(&document(EACH), "r", "").await.unwrap();
    for n in 0..3 {
        engine.publish("order", json!(n)).await;
    }
    engine.until_held(1).await;
    engine.pause("r").await.unwrap();
    engine.router.release_all();
    wait_for(
        "the call in flight to be recorded",
        PATIENCE,
        async || match engine.count("r", "task.completed").await {
            1 => Ok(()),
            other => Err(format!("{other} {:?}", engine.story("r").await)),
        },
    )
    .await;
    engine.publish("order", json!(3)).await;
    engine.restart().await;
    engine.until_blocked("r", "paused").await;
    assert_eq!(texts(&engine), ["n0"], "it is held");
    engine.resume("r").await.unwrap();
    // One whose answer is not recorded by the restart would be sent again.
    wait_for("the last answer to be recorded", PATIENCE, async || match engine
        .count("r", "task.completed")
        .await
    {
        4 => Ok(()),
        other => Err(format!("{other} {:?}", engine.story("r").await)),
    })
    .await;
    engine.restart().await;
    engine.publish("closing", json!({})).await;
    assert_eq!(engine.completed("r").await, json!([0, 1, 2, 3]));
    assert_eq!(texts(&engine), ["n0", "n1", "n2", "n3"]);
}

#[tokio::test]
async fn a_cancellation_while_an_event_is_worked_on_ends_the_listening_and_a_retry_hears_it_once() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    engine.start_run(&document(EACH), "r", "").await.unwrap();
    for n in 0..2 {
        engine.publish("order", json!(n)).await;
    }
    engine.until_held(1).await;
    engine.cancel("r").await.unwrap();
    engine.until("r", RunStatus::Cancelled).await;
    engine.until_held(0).await;
    engine.publish("order", json!(2)).await;
    engine.restart().await;
    assert_eq!(engine.run("r").await.status(), RunStatus::Cancelled);
    assert_eq!(texts(&engine), ["n0"]);
    engine.router.release_all();
    engine.retry("r", "").await.unwrap();
    engine.publish("closing", json!({})).await;
    assert_eq!(engine.completed("r").await, json!([0, 1, 2]));
    // The call that was cancelled is made again, under a new message.
    assert_eq!(texts(&engine), ["n0", "n0", "n1", "n2"]);
}

#[tokio::test]
async fn a_pause_a_resumption_a_retry_and_a_fork_are_told_as_events() {
    let mut engine = Engine::start_with(|settings| {
        settings.events.lifecycle = muster_workflow_engine::config::Lifecycle::Workflows;
    })
    .await;
    engine
        .router
        .script([Answer::Echo, Answer::Task(TaskState::Failed, "no luck".into())]);
    let tasks = send("one", "a") + &send("two", "b");
    engine.router.hold();
    engine.start_run(&document(&tasks), "r", "").await.unwrap();
    engine.until_held(1).await;
    engine.pause("r").await.unwrap();
    let suspended = told(&engine, "suspended", "r").await;
    assert_eq!(suspended.len(), 1);
    assert_eq!(suspended[0]["data"]["name"], "test-r.test");
    assert!(suspended[0]["data"]["suspendedAt"].is_string(), "{suspended:?}");
    assert_eq!(told(&engine, "resumed", "r").await.len(), 0);
    engine.pause("r").await.unwrap();
    engine.restart().await;
    assert_eq!(told(&engine, "suspended", "r").await.len(), 1, "once");
    engine.router.release_all();
    engine.resume("r").await.unwrap();
    let resumed = told(&engine, "resumed", "r").await;
    assert_eq!(resumed.len(), 1);
    assert!(resumed[0]["data"]["resumedAt"].is_string(), "{resumed:?}");
    engine.until("r", RunStatus::Faulted).await;

    engine.retry("r", "").await.unwrap();
    assert_eq!(told(&engine, "resumed", "r").await.len(), 2, "it goes on");
    engine.until("r", RunStatus::Completed).await;
    engine.fork("r", "two", "from-a-step", "").await.unwrap();
    engine.fork("r", "", "from-the-beginning", "").await.unwrap();
    for run in ["from-a-step", "from-the-beginning"] {
        engine.until(run, RunStatus::Completed).await;
        let started = told(&engine, "started", run).await;
        assert_eq!(started.len(), 1, "{run}");
        assert_eq!(started[0]["data"]["definition"]["name"], "test");
        assert_eq!(told(&engine, "completed", run).await.len(), 1, "{run}");
    }
    assert_eq!(told(&engine, "started", "r").await.len(), 1);
    let changes: Vec<Value> = told(&engine, "status-changed", "r")
        .await
        .iter()
        .map(|event| event["data"]["status"].clone())
        .collect();
    assert_eq!(
        changes,
        [
            "running",
            "suspended",
            "running",
            "faulted",
            "running",
            "completed"
        ]
    );
}

#[tokio::test]
async fn a_forked_run_asks_for_itself_and_each_decision_is_of_its_own_run() {
    let mut engine = Engine::start().await;
    let tasks = gated("weather", "") + &send("after", "done");
    engine.start_run(&document(&tasks), "r", INPUT).await.unwrap();
    engine.until_asked(1).await;
    engine.fork("r", "weather", "s", "").await.unwrap();
    let asked = engine.until_asked(2).await;
    let of = |run: &str| {
        let found = asked.iter().find(|approval| approval.run_id == run);
        found.unwrap().approval_id.clone()
    };
    engine.restart().await;
    engine.until_asked(2).await;
    engine.reject(&of("s")).await.unwrap();
    engine.until("s", RunStatus::Faulted).await;
    assert_eq!(engine.approval(&of("r")).await.state(), ApprovalState::Open);
    engine.until_blocked("r", "approval").await;
    assert!(called(&engine).is_empty());
    engine.approve(&of("r")).await.unwrap();
    engine.until("r", RunStatus::Completed).await;
    assert_eq!(engine.approval(&of("s")).await.state(), ApprovalState::Rejected);
    assert_eq!(called(&engine), ["weather", "after"]);
}

#[tokio::test]
async fn a_run_forked_behind_an_open_question_of_another_branch_has_that_question_for_itself() {
    let engine = Engine::start().await;
    let branches = gated("one", "") + &gated("two", "");
    let tasks = format!(
        "  - both:\n      fork:\n        branches:\n{}",
        indented(&branches, 6)
    );
    engine.start_run(&document(&tasks), "r", INPUT).await.unwrap();
    engine.until_asked(2).await;
    engine.fork("r", "two", "s", "").await.unwrap();
    let asked = engine.until_asked(4).await;
    let of = |run: &str, task: &str| {
        let found = asked
            .iter()
            .find(|approval| approval.run_id == run && approval.task.ends_with(task));
        found.unwrap().approval_id.clone()
    };
    for task in ["one", "two"] {
        engine.approve(&of("s", task)).await.unwrap();
    }
    engine.until("s", RunStatus::Completed).await;
    assert_eq!(engine.until_asked(2).await.len(), 2);
    assert_eq!(called(&engine).len(), 2);
    for task in ["one", "two"] {
        engine.approve(&of("r", task)).await.unwrap();
    }
    engine.until("r", RunStatus::Completed).await;
    assert_eq!(called(&engine).len(), 4);
}

/// The report `{"tokens": COUNT}` as a value of Protocol Buffers.
fn number_of_tokens(count: f64) -> prost_types::Value {
    use prost_types::value::Kind;
    let value = |kind| prost_types::Value { kind: Some(kind) };
    let fields = [("tokens".to_owned(), value(Kind::NumberValue(count)))];
    value(Kind::StructValue(prost_types::Struct {
        fields: fields.into(),
    }))
}

#[tokio::test]
async fn what_a_failed_and_a_streamed_answer_report_counts_against_the_budget() {
    let engine = Engine::start().await;
    let metered = |tasks: &str| {
        document(tasks).replace(
            "version: '1.0.0'",
            "version: '1.0.0', metadata: {muster: {budget: {tokens: 50}}}",
        )
    };
    let failed = || {
        let report = prost_types::Struct {
            fields: [(usage::KEY.to_owned(), number_of_tokens(60.0))].into(),
        };
        let task = muster_api::a2a::Task {
            id: "t".into(),
            context_id: "c".into(),
            status: Some(muster_api::a2a::TaskStatus {
                state: TaskState::Failed.into(),
                ..Default::default()
            }),
            metadata: Some(report),
            ..Default::default()
        };
        let payload = Some(muster_api::a2a::stream_response::Payload::Task(task));
        Answer::Events(vec![Ok(muster_api::a2a::StreamResponse { payload })])
    };
    for (run, method) in [("failed", "SendMessage"), ("broken", "SendStreamingMessage")] {
        engine.router.script([failed()]);
        let guarded = format!(
            "  - guarded:\n      try:\n{}      catch: {{do: [{{go: {{set: {{a: 1}}}}}}]}}\n",
            indented(&send("one", "a").replace("SendMessage", method), 6)
        );
        let text = metered(&(guarded + &send("two", "b")));
        engine.start_run(&text, run, "").await.unwrap();
        let approval = engine.until_asked(1).await.remove(0);
        assert_eq!(approval.task, "/do/1/two", "{run}");
        assert_eq!(engine.run(run).await.usage.unwrap().tokens, 60, "{run}");
        engine.cancel(run).await.unwrap();
        engine.until(run, RunStatus::Cancelled).await;
    }
    // The names of the DSL ask for all events, those of A2A 1.0 for what they add up to.
    for (run, method) in [("events", "message/stream"), ("whole", "SendStreamingMessage")] {
        engine.router.script([costly()]);
        let streamed = send("one", "a")
            .replace("SendMessage", method)
            .replace(TEXT, "${ . }");
        let text = metered(&(streamed + &send("two", "b")));
        engine.start_run(&text, run, "").await.unwrap();
        let approval = wait_for("it to ask or to end", PATIENCE, async || {
            match engine.listed(&[]).await.pop() {
                Some(approval) => Ok(Some(approval)),
                None if engine.run(run).await.status() == RunStatus::Completed => Ok(None),
                None => Err(format!("{:?}", engine.run(run).await)),
            }
        })
        .await;
        assert_eq!(
            approval.map(|approval| approval.task).as_deref(),
            Some("/do/1/two"),
            "{run}"
        );
        assert_eq!(engine.run(run).await.usage.unwrap().tokens, 60, "{run}");
        engine.cancel(run).await.unwrap();
        engine.until(run, RunStatus::Cancelled).await;
    }
}

#[tokio::test]
async fn what_a_stream_has_reported_counts_although_it_breaks_off() {
    let engine = Engine::start().await;
    let begun = || {
        let task = muster_api::a2a::Task {
            id: "t".into(),
            status: Some(muster_api::a2a::TaskStatus {
                state: TaskState::Working.into(),
                ..Default::default()
            }),
            metadata: Some(prost_types::Struct {
                fields: [(usage::KEY.to_owned(), number_of_tokens(60.0))].into(),
            }),
            ..Default::default()
        };
        let payload = Some(muster_api::a2a::stream_response::Payload::Task(task));
        Ok(muster_api::a2a::StreamResponse { payload })
    };
    let broken = [
        ("early", Answer::Events(vec![begun()])),
        (
            "broken",
            Answer::Events(vec![begun(), Err(tonic::Status::internal("broke down"))]),
        ),
    ];
    for (run, answer) in broken {
        engine.router.script([answer]);
        let text = document(&send("one", "a").replace("SendMessage", "SendStreamingMessage"));
        engine.start_run(&text, run, "").await.unwrap();
        let faulted = engine.until(run, RunStatus::Faulted).await;
        assert_eq!(faulted.usage.unwrap().tokens, 60, "{run}: {:?}", faulted.error);
    }
}

#[tokio::test]
async fn a_secret_reaches_a_process_and_is_kept_and_told_nowhere() {
    let secrets = tempfile::tempdir().unwrap();
    crate::secrets::put(secrets.path(), "token", "s3cr3t-token");
    let path = secrets.path().to_owned();
    let mut engine = Engine::start_with(|settings| {
        settings.run.shell = true;
        settings.secrets.directory = Some(path);
        settings.events.lifecycle = muster_workflow_engine::config::Lifecycle::Tasks;
    })
    .await;
    let outside = tempfile::tempdir().unwrap();
    let (file, go) = (outside.path().join("seen"), outside.path().join("go"));
    let command = format!(
        "echo \"$TOKEN $1\" > {}; until [ -e {} ]; do sleep 0.05; done; echo \"out $TOKEN\"; echo \"err $TOKEN\" >&2; exit 3",
        file.display(),
        go.display()
    );
    let more = "          environment: {TOKEN: '${ $secrets.token }'}\n          arguments: ['${ $secrets.token }']\n";
    let text = |returns: &str| {
        let more = format!("{more}        return: {returns}\n");
        crate::processes::shell(&command, &more).replace("\ndo:\n", "\nuse: {secrets: [token]}\ndo:\n")
    };
    engine.start_run(&text("all"), "all", "").await.unwrap();
    wait_for("the process to have its secret", PATIENCE, async || {
        let seen = std::fs::read_to_string(&file).unwrap_or_default();
        if seen == "s3cr3t-token s3cr3t-token\n" {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
    let why = engine.until_blocked("all", "process").await;
    assert!(!format!("{why:?}").contains("s3cr3t"), "{why:?}");
    std::fs::write(&go, "").unwrap();
    let run = engine.until("all", RunStatus::Completed).await;
    assert!(run.output_json.contains("out muster-secret~token~"), "{run:?}");
    engine.start_run(&text("stdout"), "fails", "").await.unwrap();
    let error = engine.until("fails", RunStatus::Faulted).await.error.unwrap();
    assert!(error.detail.contains("exited with code 3"), "{error:?}");
    let mut told = format!("{error:?} {:?}", engine.logged("").await);
    for run in ["all", "fails"] {
        told.push_str(&crate::secrets::story(&engine, run).await);
    }
    engine.stop().await;
    let stored = crate::secrets::kept(engine.data_directory());
    assert!(!told.contains("s3cr3t-token"), "{told}");
    assert!(!stored.contains("s3cr3t-token"), "it is on disk");
}

#[tokio::test]
async fn containers_that_are_to_be_removed_after_a_while_are_removed_when_it_is_time() {
    let directory = tempfile::tempdir().unwrap();
    let client = crate::processes::container_client(directory.path());
    let mut engine = Engine::start_with(|settings| {
        settings.run.container = true;
        settings.run.container_program = client;
    })
    .await;
    let file = directory.path().join("asked");
    let asked = || std::fs::read_to_string(&file).unwrap_or_default();
    let task = "  - one: {run: {container: {image: alpine, stdin: text, lifetime: {cleanup: eventually, after: {hours: 1}}}}}\n";
    assert_eq!(engine.output(&document(task), "").await, "text");
    let line = asked()
        .lines()
        .find(|line| line.starts_with("run "))
        .unwrap()
        .to_owned();
    assert!(!line.contains("--rm"), "{line}");
    let (_, due) = line.split_once("--label=muster.remove-at=").unwrap();
    let due: i64 = due.split(' ').next().unwrap().parse().unwrap();
    assert!(!asked().contains("rm --force"), "{}", asked());
    engine.stop().await;
    // What the client lists: one whose time has come, one that has an hour, and one whose label is damaged.
    let listed = format!("0ver {}\n1ater {due}\n0dd soon\n", due - 2 * 3600);
    std::fs::write(directory.path().join("listed"), listed).unwrap();
    engine.launch().await;
    wait_for("the container to be removed", PATIENCE, async || {
        if asked().lines().any(|line| line == "rm --force 0ver") {
            Ok(())
        } else {
            Err(asked())
        }
    })
    .await;
    engine.stop().await;
    let asked = asked();
    let removed = asked.lines().filter(|line| line.starts_with("rm "));
    assert!(removed.clone().all(|line| line == "rm --force 0ver"), "{asked}");
    assert!(
        asked.contains("--filter=label=muster.remove-at --filter=status=exited"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_retry_after_a_no_in_one_branch_repeats_nothing_of_the_other() {
    let engine = Engine::start().await;
    let branches = gated("one", "") + &gated("two", "");
    let tasks = format!(
        "  - both:\n      fork:\n        branches:\n{}",
        indented(&branches, 6)
    );
    engine.start_run(&document(&tasks), "r", INPUT).await.unwrap();
    let asked = engine.until_asked(2).await;
    let of = |task: &str| {
        let found = asked.iter().find(|approval| approval.task.ends_with(task));
        found.unwrap().approval_id.clone()
    };
    engine.approve(&of("two")).await.unwrap();
    until_calls(&engine, 1).await;
    wait_for("the call to be recorded", PATIENCE, async || {
        match engine.count("r", "task.completed").await {
            1 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    engine.reject(&of("one")).await.unwrap();
    engine.until("r", RunStatus::Faulted).await;
    engine.retry("r", "").await.unwrap();
    let anew = engine.until_asked(1).await.remove(0);
    assert!(anew.task.ends_with("one"), "{anew:?}");
    assert_ne!(anew.approval_id, of("one"));
    engine.approve(&anew.approval_id).await.unwrap();
    engine.until("r", RunStatus::Completed).await;
    assert_eq!(called(&engine), ["two", "one"]);
}

#[tokio::test]
async fn a_retry_after_a_no_to_more_budget_asks_for_it_anew() {
    let engine = Engine::start().await;
    engine.router.fall_back_to(costly());
    let text = document(&(send("one", "a") + &send("two", "b"))).replace(
        "version: '1.0.0'",
        "version: '1.0.0', metadata: {muster: {budget: {tokens: 50}}}",
    );
    engine.start_run(&text, "r", "").await.unwrap();
    let first = engine.until_asked(1).await.remove(0);
    engine.reject(&first.approval_id).await.unwrap();
    engine.until("r", RunStatus::Faulted).await;
    engine.retry("r", "").await.unwrap();
    let second = wait_for("it to ask anew", PATIENCE, async || {
        match engine.listed(&[]).await.pop() {
            Some(approval) => Ok(Some(approval)),
            None if engine.run("r").await.status() == RunStatus::Faulted => Ok(None),
            None => Err("not yet"),
        }
    })
    .await
    .unwrap();
    assert_ne!(second.approval_id, first.approval_id);
    engine.approve(&second.approval_id).await.unwrap();
    engine.until("r", RunStatus::Completed).await;
    assert_eq!(called(&engine), ["one", "two"]);
}

#[tokio::test]
async fn what_the_budget_of_a_namespace_holds_goes_on_in_its_next_period() {
    let mut engine = Engine::start_with(|settings| {
        let budget = Budget {
            tokens: 100,
            ..Budget::default()
        };
        let poor = Namespace {
            budget: Some(budget),
            ..Namespace::default()
        };
        settings.namespaces.insert("test".into(), poor);
    })
    .await;
    engine.router.fall_back_to(costly());
    let text = document(&(send("one", "a") + &send("two", "b") + &send("three", "c")));
    engine.start_run(&text, "r", "").await.unwrap();
    let first = engine.until_asked(1).await.remove(0);
    engine
        .start_run(&document(&send("one", "a")), "s", "")
        .await
        .unwrap();
    let second = wait_for("both to ask", PATIENCE, async || {
        let open = engine.until_asked(2).await;
        open.into_iter()
            .find(|approval| approval.run_id == "s")
            .ok_or("not yet")
    })
    .await;
    let why = engine.until_blocked("r", "budget").await;
    assert!(why.message.contains("the budget is renewed at"), "{why:?}");
    engine.restart().await;
    assert_eq!(engine.until_asked(2).await.len(), 2, "the day is the same");

    engine.restart_later(1).await;
    let run = engine.until("r", RunStatus::Completed).await;
    assert_eq!(run.usage.unwrap().tokens, 180);
    for asked in [&first, &second] {
        let closed = engine.approval(&asked.approval_id).await;
        assert_eq!(closed.state(), ApprovalState::Withdrawn);
        assert_eq!(
            reason(&engine.approve(&asked.approval_id).await.unwrap_err()),
            "APPROVAL_CLOSED"
        );
    }
    engine.until("s", RunStatus::Completed).await;
    assert_eq!(called(&engine).len(), 4, "no call is made twice");
}

//! The details of what `why` says: which event, whose approval, which error, when next.

use muster_api::error::{Error, Reason};
use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_testkit::{Answer, wait_for};
use muster_workflow_dsl::usage;
use muster_workflow_engine::config::{Budget, Namespace};
use muster_workflow_engine::store::embedded::Embedded;
use muster_workflow_engine::store::{Step, Store as _};
use serde_json::{Value, json};
use tonic::Status;

use crate::harness::{Engine, PATIENCE, document, send};
use crate::puppet::Stage;
use crate::steering::undoable;
use crate::why::details;

const RETRIED: &str = "      catch: {retry: {delay: PT1H, limit: {attempt: {count: 3}}}}\n";

/// A task whose agent is called again after an hour if it fails.
fn tried(name: &str) -> String {
    let call = send(name, "x").replace('\n', "\n        ");
    format!("  - again:\n      try:\n        {}\n{RETRIED}", call.trim())
}

/// Seconds from the beginning of the wait to its end.
fn seconds(blocker: &proto::Blocker) -> i64 {
    blocker.until.unwrap().seconds - blocker.since.unwrap().seconds
}

/// Waits until the run says that it waits for something, in these words.
async fn until_told(engine: &Engine, id: &str, words: &str) -> proto::Blocker {
    wait_for(&format!("run {id} to say '{words}'"), PATIENCE, async || {
        let blockers = engine.why(id).await;
        let found = blockers.iter().find(|blocker| blocker.message.contains(words));
        found.cloned().ok_or_else(|| format!("{blockers:?}"))
    })
    .await
}

#[tokio::test]
async fn a_call_that_finds_no_agent_says_which_are_near_and_when_it_is_tried_again() {
    let soon = std::time::Duration::from_millis(50);
    for (reason, said, key, fact) in [
        (
            Reason::AgentNotFound,
            "no agent 'wether' is registered; did you mean 'weather'?",
            "nearest",
            "weather",
        ),
        (
            Reason::SkillNotFound,
            "no registered agent has all of the skills a, b; 'weather' lacks b",
            "lacking",
            "b",
        ),
        (
            Reason::NoInstanceAvailable,
            "no instance of 'weather' takes work now: 1 is draining or in maintenance",
            "cause",
            "draining",
        ),
    ] {
        let engine = Engine::start().await;
        let error = Error::new(reason, said)
            .with_metadata(key, fact)
            .with_retry_after(soon);
        engine.router.fall_back_to(Answer::Status(Status::from(error)));
        engine
            .start_run(&document(&send("wether", "x")), "r", "")
            .await
            .unwrap();
        let blocker = engine.until_blocked("r", "no-agent").await;
        assert!(
            blocker.message.ends_with(&format!(": tries again: {said}")),
            "{blocker:?}"
        );
        let facts = details(&blocker);
        assert_eq!(
            (&facts["reason"], &facts[key], &facts["target"]),
            (&json!(reason.name()), &json!(fact), &json!("agent://wether"))
        );
        assert_eq!(facts["triesAgainAfterSeconds"], 0.05);
        assert!(blocker.since.is_some() && blocker.until.is_some());
    }
}

#[tokio::test]
async fn an_open_breaker_is_named_with_the_time_of_the_next_attempt() {
    let engine = Engine::start().await;
    let error = Error::new(
        Reason::NoInstanceAvailable,
        "no instance of 'weather' takes work now: 1 failed too often and is left alone for a while",
    )
    .with_metadata("cause", "breaker")
    .with_retry_after(std::time::Duration::from_secs(3));
    engine.router.fall_back_to(Answer::Status(Status::from(error)));
    engine
        .start_run(&document(&send("weather", "x")), "r", "")
        .await
        .unwrap();
    let blocker = engine.until_blocked("r", "breaker-open").await;
    let facts = details(&blocker);
    assert_eq!(
        (
            &facts["cause"],
            &facts["target"],
            &facts["triesAgainAfterSeconds"]
        ),
        (&json!("breaker"), &json!("agent://weather"), &json!(3.0))
    );
}

#[tokio::test]
async fn a_call_says_what_its_agent_says_and_names_the_task() {
    let engine =
        Engine::start_with(|settings| settings.outbound.allow = vec!["127.0.0.0/8".to_owned()]).await;
    let agent = Stage::open().await;
    let text = document(&format!(
        "  - ask:\n      call: a2a\n      with:\n        server: 'http://{}'\n        method: SendStreamingMessage\n        parameters: {{message: {{parts: [{{text: wait}}]}}}}\n",
        agent.address
    ));
    engine.start_run(&text, "r", "").await.unwrap();
    let blocker = until_told(&engine, "r", "is working: waiting").await;
    assert_eq!(
        (blocker.kind.as_str(), blocker.task.as_str()),
        ("call", "/do/0/ask")
    );
    let facts = details(&blocker);
    assert!(facts["taskId"].is_string(), "{facts}");
    assert_eq!(facts["operation"], "SendStreamingMessage");
    engine.cancel("r").await.unwrap();
    agent.until(1, 1).await;
}

#[tokio::test]
async fn a_call_that_obtains_the_contract_of_its_service_says_so() {
    let engine =
        Engine::start_with(|settings| settings.outbound.allow = vec!["127.0.0.0/8".to_owned()]).await;
    // Takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let text = document(&format!(
        "  - ask:\n      call: grpc\n      with:\n        service: {{name: a.Health, host: 127.0.0.1, port: {port}}}\n        method: Check\n"
    ));
    engine.start_run(&text, "r", "").await.unwrap();
    let blocker = until_told(&engine, "r", "obtains the service's contract first").await;
    assert_eq!(
        (blocker.kind.as_str(), blocker.task.as_str()),
        ("call", "/do/0/ask")
    );
    engine.terminate("r").await.unwrap();
}

#[tokio::test]
async fn a_retry_names_the_error_of_the_call_the_attempt_and_when_it_is_due() {
    let engine = Engine::start().await;
    engine.router.fall_back_to(Answer::Task(
        muster_api::a2a::TaskState::Failed,
        "the instrument broke".into(),
    ));
    engine
        .start_run(&document(&tried("weather")), "r", "")
        .await
        .unwrap();
    let blocker = engine.until_blocked("r", "retry").await;
    assert_eq!(blocker.task, "/do/0/again");
    assert!(
        blocker
            .message
            .contains("before attempt 2; the last one failed: ")
            && blocker.message.contains("the instrument broke"),
        "{blocker:?}"
    );
    assert_eq!(seconds(&blocker), 3600);
    let facts = details(&blocker);
    assert_eq!(facts["attempt"], 2);
    let detail = facts["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("the instrument broke"), "{facts}");
    assert!(
        facts["error"]["instance"]
            .as_str()
            .unwrap()
            .starts_with("/do/0/again/try/0"),
        "{facts}"
    );
}

#[tokio::test]
async fn the_second_attempt_of_a_call_says_which_it_is() {
    let engine = Engine::start().await;
    engine
        .router
        .script([Answer::Task(muster_api::a2a::TaskState::Failed, "not now".into())]);
    let tasks = tried("weather").replace("PT1H", "PT0S");
    engine.router.hold();
    engine.start_run(&document(&tasks), "r", "").await.unwrap();
    engine.until_held(1).await;
    engine.router.release(1);
    let blocker = until_told(&engine, "r", ", attempt 2").await;
    assert_eq!(blocker.kind, "call");
    assert_eq!(details(&blocker)["attempt"], 2);
}

#[tokio::test]
async fn a_listener_names_each_event_that_it_still_waits_for() {
    let engine = Engine::start().await;
    let listen = |to: &str| document(&format!("  - hear:\n      listen: {{to: {{{to}}}}}\n"));
    for (id, to, words) in [
        (
            "all",
            "all: [{with: {type: a}}, {with: {type: b, source: '/shop'}}]",
            "waits for an event with type \"a\" and for an event with type \"b\", source \"/shop\"",
        ),
        (
            "any",
            "any: [{with: {type: a}}, {with: {type: 'b\\..*'}}]",
            "waits for an event with type \"a\" or an event with type like b\\..*",
        ),
        (
            "condition",
            "any: [{with: {type: c}}], until: '${ length > 1 }'",
            "waits for an event with type \"c\", until ${ length > 1 } is true of those heard",
        ),
        (
            "events",
            "any: [{with: {type: c}}], until: {one: {with: {type: closing}}}",
            "waits for an event with type \"c\", until an event with type \"closing\"",
        ),
        (
            "learned",
            "all: [{with: {type: d}, correlate: {order: {from: .data.order}}}, {with: {type: e}, correlate: {order: {from: .data.order}}}]",
            "correlation order (.data.order) = that of the first event",
        ),
        (
            "anything",
            "any: [], until: {one: {with: {type: closing}}}",
            "waits for any event, until",
        ),
    ] {
        engine.start_run(&listen(to), id, "").await.unwrap();
        let blocker = engine.until_blocked(id, "event").await;
        assert!(blocker.message.contains(words), "{id}: {blocker:?}");
        assert_eq!(blocker.task, "/do/0/hear");
        let facts = details(&blocker);
        assert!(facts["filters"].is_object() && facts["heard"] == 0, "{facts}");
    }

    engine.publish("a", json!(1)).await;
    let blocker = until_told(&engine, "all", "it has heard 1").await;
    assert_eq!(details(&blocker)["heard"], 1);
    assert!(
        blocker
            .message
            .contains("/do/0/hear waits for an event with type \"b\""),
        "{blocker:?}"
    );
    engine.publish("d", json!({"order": 7})).await;
    let blocker = until_told(&engine, "learned", "correlation order (.data.order) = 7").await;
    assert_eq!(details(&blocker)["correlations"], json!({"order": 7}));
}

#[tokio::test]
async fn a_listener_with_a_deadline_says_until_when() {
    let engine = Engine::start().await;
    let tasks = "  - hear:\n      listen: {to: {one: {with: {type: a}}}}\n      timeout: {after: PT1H}\n";
    engine.start_run(&document(tasks), "r", "").await.unwrap();
    let blocker = engine.until_blocked("r", "event").await;
    assert!(blocker.message.contains(", at most until "), "{blocker:?}");
    assert_eq!(seconds(&blocker), 3600);
}

#[tokio::test]
async fn an_approval_says_who_is_asked_and_when_others_are() {
    let engine = Engine::start().await;
    let gated = |after: &str| {
        document(&format!(
            "{}      metadata: {{muster: {{approval: {{title: Really, assignees: [ada], escalate: {{after: {after}, to: [boss]}}}}}}}}\n",
            send("weather", "x")
        ))
    };
    engine.start_run(&gated("PT1H"), "early", "").await.unwrap();
    let facts = details(&engine.until_blocked("early", "approval").await);
    assert_eq!(
        (&facts["assignees"], &facts["title"], &facts["escalated"]),
        (&json!(["ada"]), &json!("Really"), &json!(false))
    );
    assert!(facts["escalatesAt"].is_string(), "{facts}");

    engine
        .start_run(&gated("{milliseconds: 20}"), "late", "")
        .await
        .unwrap();
    let blocker = until_told(&engine, "late", "by ada, boss: 'Really', since").await;
    let facts = details(&blocker);
    assert_eq!(
        (&facts["assignees"], &facts["escalated"], &facts["escalatesAt"]),
        (&json!(["ada", "boss"]), &json!(true), &Value::Null)
    );
}

#[tokio::test]
async fn a_budget_says_whose_it_is_what_was_spent_and_who_decides() {
    let engine = Engine::start_with(|settings| {
        let budget = Budget {
            tokens: 50,
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
    engine.router.fall_back_to(Answer::Metadata(
        json!({usage::KEY: {"tokens": 60, "cost": 0.01}}),
    ));
    let tasks = send("one", "a") + &send("two", "b");
    let of_the_run = document(&tasks).replace(
        "version: '1.0.0'}",
        "version: '1.0.0', metadata: {muster: {budget: {tokens: 10, assignees: [ada], deadline: PT1H}}}}",
    );
    engine.start_run(&of_the_run, "own", "").await.unwrap();
    let blocker = engine.until_blocked("own", "budget").await;
    assert_eq!(blocker.task, "/do/1/two");
    assert_eq!(seconds(&blocker), 3600);
    let facts = details(&blocker);
    assert_eq!(
        (&facts["namespace"], &facts["assignees"], &facts["budget"]),
        (&Value::Null, &json!(["ada"]), &json!({"tokens": 10}))
    );
    assert_eq!(facts["spent"], json!({"tokens": 60, "cost": 0.01}));

    let of_all = document(&tasks).replace("namespace: test", "namespace: poor");
    engine.start_run(&of_all, "shared", "").await.unwrap();
    let blocker = engine.until_blocked("shared", "budget").await;
    assert!(
        blocker.message.contains("namespace 'poor' has used 60 tokens"),
        "{blocker:?}"
    );
    let facts = details(&blocker);
    assert_eq!(
        (
            &facts["namespace"],
            &facts["assignees"],
            &facts["budget"]["tokens"]
        ),
        (&json!("poor"), &json!(["treasurer"]), &json!(50))
    );
}

#[tokio::test]
async fn a_run_that_is_held_before_it_begins_says_by_whom() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 1).await;
    engine.router.hold();
    for id in ["first", "second"] {
        engine
            .start_run(&document(&send("weather", id)), id, "")
            .await
            .unwrap();
    }
    engine.until_held(1).await;
    engine.pause("second").await.unwrap();
    let blocker = engine.until_blocked("second", "paused").await;
    assert!(
        blocker
            .message
            .starts_with("is paused by ada (let me look) since ")
            && blocker
                .message
                .ends_with("; `muster workflow resume` lets it go on"),
        "{blocker:?}"
    );
    assert_eq!(details(&blocker), json!({"by": "ada", "reason": "let me look"}));
    assert!(blocker.since.is_some());
    assert_eq!(engine.why("second").await.len(), 1);
    engine.router.release_all();
}

#[tokio::test]
async fn a_run_that_ends_in_good_order_says_for_whom_and_what_is_taken_back() {
    let engine = Engine::start().await;
    engine.router.hold();
    let tidy = send("tidy", "t").replace('\n', "\n          ");
    let guarded = format!(
        "  - guarded:\n      try: [{{nap: {{wait: PT1H}}}}]\n      catch:\n        errors: {{with: {{status: 499}}}}\n        do:\n          {}\n",
        tidy.trim()
    );
    let text = document(&(undoable("book", "b") + &guarded));
    engine.start_run(&text, "r", "").await.unwrap();
    engine.until_held(1).await;
    engine.router.release(1);
    engine.until_blocked("r", "timer").await;
    let request = proto::CancelRunRequest {
        run_id: "r".into(),
        reason: "not needed".into(),
        by: "ada".into(),
    };
    engine.client.clone().cancel_run(request).await.unwrap();
    let blocker = engine.until_blocked("r", "cancelling").await;
    assert!(
        blocker
            .message
            .contains("is being cancelled by ada (not needed): what handles its errors runs"),
        "{blocker:?}"
    );
    assert_eq!(details(&blocker), json!({"by": "ada", "reason": "not needed"}));
    assert!(blocker.since.is_some());
    engine.until_held(1).await;
    engine.router.release(1);
    let blocker = engine.until_blocked("r", "compensating").await;
    assert!(
        blocker.message.contains(
            "was cancelled by ada (not needed) and takes back what it did: 0 of 1 tasks, now /do/0/book"
        ),
        "{blocker:?}"
    );
    assert_eq!(
        details(&blocker),
        json!({"done": [], "failed": [], "left": ["/do/0/book"]})
    );
    engine.until_held(1).await;
    engine.router.release_all();
    engine.until("r", RunStatus::Cancelled).await;
}

#[tokio::test]
async fn a_run_that_failed_and_takes_back_names_the_error() {
    let engine = Engine::start().await;
    engine.router.hold();
    let fail =
        "  - fail: {raise: {error: {type: 'about:blank', status: 500, title: Bad, detail: no luck}}}\n";
    let text = document(&(undoable("book", "b") + fail));
    engine.start_run(&text, "r", "").await.unwrap();
    engine.until_held(1).await;
    engine.router.release(1);
    let blocker = engine.until_blocked("r", "compensating").await;
    assert!(
        blocker.message.contains("failed with Bad: no luck"),
        "{blocker:?}"
    );
    engine.until_held(1).await;
    engine.router.release_all();
    engine.until("r", RunStatus::Faulted).await;
    let blocker = engine.until_blocked("r", "ended").await;
    assert_eq!(blocker.message, "has ended: faulted, Bad no luck");
    assert_eq!(details(&blocker), json!({"status": "faulted"}));
    assert!(blocker.since.is_some());
}

const QUICK: &str =
    "document: {dsl: '1.0.0', namespace: test, name: quick, version: '1.0.0'}\ndo:\n  - nap: {wait: PT1H}\n";

const RUN_QUICK: &str = "  - one: {run: {workflow: {namespace: test, name: quick, version: latest}}}\n";

/// An engine with one slot, which a parent holds that is about to start its child, while another run is in line.
async fn about_to_start_a_child(most_queued: usize) -> Engine {
    let engine = Engine::start_with(|settings| {
        settings.max_concurrent_workflows = 1;
        settings.max_queued_runs = most_queued;
    })
    .await;
    engine.apply(QUICK).await;
    engine.router.hold();
    let parent = document(&(send("worker", "x") + RUN_QUICK));
    engine.start_run(&parent, "parent", "").await.unwrap();
    engine.until_held(1).await;
    engine
        .start_run(&document(&send("other", "y")), "other", "")
        .await
        .unwrap();
    engine
}

#[tokio::test]
async fn a_parent_says_where_its_child_stands() {
    let engine = about_to_start_a_child(10).await;
    engine.router.release(1);
    let blocker = until_told(&engine, "parent", "which is pending").await;
    let child = details(&blocker)["run"].as_str().unwrap().to_owned();
    assert_eq!(details(&blocker)["status"], "pending");
    let blocker = engine.until_blocked(&child, "queued").await;
    assert_eq!(details(&blocker)["limit"], "engine.max_concurrent_workflows");
    engine.router.release_all();
    until_told(&engine, "parent", "which is waiting").await;
    engine.pause(&child).await.unwrap();
    let blocker = until_told(&engine, "parent", "which is paused").await;
    assert_eq!(
        (blocker.kind.as_str(), blocker.task.as_str()),
        ("child-run", "/do/1/one")
    );
}

#[tokio::test]
async fn a_parent_whose_child_finds_no_place_in_line_says_so() {
    let engine = about_to_start_a_child(1).await;
    engine.router.release(1);
    // The other one holds the slot and a third is in line: there is no room for the child.
    engine.until_held(1).await;
    engine
        .start_run(&document(&send("other", "z")), "third", "")
        .await
        .unwrap();
    let blocker = until_told(
        &engine,
        "parent",
        "which is not started yet: while the line of runs is full, it is tried again",
    )
    .await;
    assert_eq!(
        (blocker.kind.as_str(), &details(&blocker)["status"]),
        ("child-run", &json!("absent"))
    );
    engine.router.release_all();
    until_told(&engine, "parent", "which is waiting").await;
}

#[tokio::test]
async fn a_damaged_run_says_what_is_damaged_and_so_does_its_parent() {
    let mut engine = Engine::start().await;
    engine.apply(QUICK).await;
    engine
        .start_run(&document(RUN_QUICK), "parent", "")
        .await
        .unwrap();
    let blocker = until_told(&engine, "parent", "which is waiting").await;
    let child = details(&blocker)["run"].as_str().unwrap().to_owned();
    engine.stop().await;
    {
        let directory = muster_runtime::data_directory::open(engine.data_directory()).unwrap();
        let store = Embedded::open(directory).unwrap();
        let mut summary = store.summary(&child.parse().unwrap()).await.unwrap().unwrap();
        let first_index = summary.history_length;
        summary.history_length += 1;
        let step = Step {
            summary,
            first_index,
            entries: vec![b"{\"nonsense\": true}".to_vec()],
            output: None,
            approvals: Vec::new(),
            spent: None,
            events: Vec::new(),
            snapshot: None,
            payloads: Vec::new(),
        };
        store.append(step).await.unwrap();
    }
    engine.launch().await;
    let blocker = engine.until_blocked(&child, "set-aside").await;
    let reason = details(&blocker)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("of its journal"), "{blocker:?}");
    assert_eq!(blocker.message, format!("is set aside: {reason}"));
    let blocker = until_told(&engine, "parent", "which is set aside: ").await;
    assert!(blocker.message.contains(&reason), "{blocker:?}");
    assert_eq!(details(&blocker)["status"], "set-aside");
}

#[tokio::test]
async fn the_next_engine_on_a_directory_says_what_the_last_one_said() {
    let mut engine = Engine::start().await;
    engine.router.fall_back_to(Answer::Task(
        muster_api::a2a::TaskState::Failed,
        "the instrument broke".into(),
    ));
    let gated = send("weather", "x")
        + "      metadata: {muster: {approval: {title: Really, assignees: [ada], deadline: PT1H}}}\n";
    let tasks = [
        ("timer", "  - nap: {wait: PT1H}\n".to_owned()),
        ("retry", tried("weather")),
        (
            "event",
            "  - hear: {listen: {to: {one: {with: {type: a}}}}}\n".to_owned(),
        ),
        ("approval", gated),
        ("paused", "  - nap: {wait: PT1H}\n".to_owned()),
    ];
    let mut before = Vec::new();
    for (kind, tasks) in &tasks {
        engine.start_run(&document(tasks), kind, "").await.unwrap();
        if *kind == "paused" {
            engine.until(kind, RunStatus::Waiting).await;
            engine.pause(kind).await.unwrap();
        }
        before.push(engine.until_blocked(kind, kind).await);
    }
    engine.stop().await;
    let request = proto::ExplainRunRequest {
        run_id: "timer".into(),
    };
    let silence = engine.client.clone().explain_run(request).await.unwrap_err();
    assert_eq!(silence.code(), tonic::Code::Unavailable);
    engine.launch().await;
    for told in before {
        let now = engine.until_blocked(&told.kind, &told.kind).await;
        assert_eq!(
            (&now.task, now.since, now.until, details(&now)),
            (&told.task, told.since, told.until, details(&told))
        );
    }
}

//! The whole as separate processes: messages and workflows through eight binaries, and an engine that is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_api::admin::SetLogLevelRequest;
use muster_api::admin::admin_service_client::AdminServiceClient;
use muster_api::registry::RegisterRequest;
use muster_api::workflow::{StartRunRequest, start_run_request};
use muster_testkit::{FakeAgent, wait_for};
use muster_tests::{PATIENCE, Stack, repository_file};
use serde_json::{Value, json};

fn file(path: &str) -> String {
    repository_file(path).display().to_string()
}

#[tokio::test]
async fn messages_and_workflows_go_through_eight_processes() {
    let stack = Stack::start().await;

    let status = stack.muster(&["status", "-o", "json"]).await.success().json();
    assert_eq!(
        status["registry"]["agents"].as_array().unwrap().len(),
        5,
        "{status}"
    );
    assert_eq!(status["router"]["viewStale"], false);

    let question = "Seattle 2014-03-01 to 2014-03-05";
    let answer = stack
        .muster(&["send", "--skill", "weather_forecasting", question, "-o", "json"])
        .await
        .success()
        .json();
    let task = &answer["task"];
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{answer}");
    let days = task["artifacts"][0]["parts"][0]["data"]["days"]
        .as_array()
        .unwrap();
    assert_eq!((days.len(), &days[0]["date"]), (5, &json!("2014-03-01")));
    let again = stack
        .muster(&["task", "get", task["id"].as_str().unwrap(), "-o", "json"])
        .await
        .success()
        .json();
    assert_eq!(again["id"], task["id"]);

    for example in ["trip", "incident", "resilience"] {
        let document = file(&format!("services/muster/examples/{example}.yaml"));
        let input = format!("@{}", file(&format!("services/muster/examples/{example}.json")));
        let arguments = [
            "workflow", "run", &document, "--input", &input, "--wait", "-o", "json",
        ];
        let run = stack.muster(&arguments).await.success().json();
        assert_eq!(run["status"], "completed", "{example}: {run}");
        let id = run["id"].as_str().unwrap();
        let shown = stack
            .muster(&["workflow", "show", id, "-o", "json"])
            .await
            .success()
            .json();
        assert_eq!(shown, run, "show prints the same object as --wait");
        let history = stack
            .muster(&["workflow", "history", id, "-o", "json"])
            .await
            .success()
            .json_lines();
        assert_eq!(
            u64::try_from(history.len()).unwrap(),
            run["historyLength"].as_u64().unwrap()
        );
        assert!(history.iter().all(|event| event["type"].is_string()
            && event["task"].is_string()
            && event["time"].is_string()));
    }
}

/// Four calls of a fake agent, one after the other; each answer names its step.
const FOUR_STEPS: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: four-steps, version: 1.0.0 }
do:
  - first: &call
      call: a2a
      with:
        server: agent://counter
        method: SendMessage
        parameters: { message: { parts: [ { text: "${ $task.name }" } ] } }
      output: { as: "${ $task.name }" }
  - second: *call
  - third: *call
  - fourth: *call
"#;

#[tokio::test]
async fn a_killed_engine_goes_on_from_the_journal_and_repeats_no_recorded_step() {
    let mut stack = Stack::start().await;
    let agent = FakeAgent::start("counter").await;
    let instance = Some(agent.instance(&["count"]));
    stack
        .registry()
        .await
        .register(RegisterRequest { instance })
        .await
        .unwrap();
    stack.knows_instances(6).await;

    let directory = tempfile::tempdir().unwrap();
    let document = directory.path().join("four-steps.yaml");
    std::fs::write(&document, FOUR_STEPS).unwrap();
    let document = document.display().to_string();

    // Two steps are answered and recorded, the third is with the agent when the engine dies.
    agent.hold();
    agent.release(2);
    let arguments = ["workflow", "run", &document, "--id", "survivor", "-o", "json"];
    let started = stack.muster(&arguments).await.success().json();
    assert_eq!(started["id"], "survivor");
    wait_for("the third call", PATIENCE, async || agent.calls().len() == 3).await;
    wait_for("two recorded steps", PATIENCE, async || {
        completed_steps(&stack, "survivor").await.len() == 2
    })
    .await;
    stack.kill_engine().await;
    agent.release_all();
    stack.start_engine().await;

    let run = wait_for("the run to complete by itself", PATIENCE, async || {
        let shown = stack
            .muster(&["workflow", "show", "survivor", "-o", "json"])
            .await;
        if shown.code != 0 {
            return Err(shown.stderr);
        }
        let run = shown.json();
        if run["status"] == "completed" {
            Ok(run)
        } else {
            Err(run.to_string())
        }
    })
    .await;
    assert_eq!(run["output"], "fourth");
    assert_eq!(
        completed_steps(&stack, "survivor").await,
        ["/do/0/first", "/do/1/second", "/do/2/third", "/do/3/fourth"]
    );

    // Per step: how many calls, under how many message ids.
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for call in agent.calls() {
        calls
            .entry(call.step_key.expect("every step passes its key"))
            .or_default()
            .push(call.message_id);
    }
    let mut counts: Vec<usize> = calls.values().map(Vec::len).collect();
    counts.sort_unstable();
    assert_eq!(calls.len(), 4, "{calls:?}");
    assert!(
        counts == [1, 1, 1, 2] || counts == [1, 1, 1, 1],
        "only the step in flight may repeat: {calls:?}"
    );
    for ids in calls.values() {
        assert!(
            ids.iter().all(|id| *id == ids[0]),
            "a repeated delivery has the same message id: {calls:?}"
        );
    }
    let again = stack.muster(&arguments).await.success().json();
    assert_eq!(
        again["status"], "completed",
        "starting the same run again is safe"
    );
}

async fn completed_steps(stack: &Stack, run: &str) -> Vec<String> {
    let history = stack.muster(&["workflow", "history", run, "-o", "json"]).await;
    let completed = |event: &Value| {
        event["type"] == "task.completed"
            && event["task"].as_str().expect("a pointer").matches('/').count() == 3
    };
    history
        .json_lines()
        .iter()
        .filter(|event| completed(event))
        .map(|event| event["task"].as_str().expect("a pointer").to_owned())
        .collect()
}

#[tokio::test]
async fn an_agent_that_asks_back_is_answered_by_the_task_alone() {
    let stack = Stack::start().await;
    let unclear = r#"{"question": "zzz qqq xxyyzz"}"#;
    let asked = stack
        .muster(&[
            "send",
            "--agent",
            "customer-service",
            "--data",
            unclear,
            "-o",
            "json",
        ])
        .await;
    let task = asked.success().json()["task"].clone();
    assert_eq!(task["status"]["state"], "TASK_STATE_INPUT_REQUIRED", "{task}");
    let id = task["id"].as_str().expect("a task has an id");
    let answer = "How does the router choose an instance?";
    let answered = stack
        .muster(&["send", "--task", id, answer, "-o", "json"])
        .await
        .success()
        .json();
    assert_eq!(answered["task"]["id"], task["id"]);
    assert_eq!(
        answered["task"]["status"]["state"], "TASK_STATE_COMPLETED",
        "{answered}"
    );
}

#[tokio::test]
async fn unknown_names_are_refused_with_the_nearest_and_a_drained_agent_takes_nothing_new() {
    let stack = Stack::start().await;
    let refused = stack.muster(&["send", "--agent", "wether", "hello"]).await;
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("did you mean 'weather'"), "{refused:?}");
    let refused = stack
        .muster(&["send", "--skill", "weather_forcasting", "hello"])
        .await;
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("weather_forecasting"), "{refused:?}");
    let drained = stack
        .muster(&["agents", "drain", "weather", "-o", "json"])
        .await
        .success()
        .json();
    assert_eq!(drained["draining"], 1);
    let refused = wait_for(
        "the router to see the drain",
        Duration::from_secs(20),
        async || {
            let sent = stack
                .muster(&["send", "--agent", "weather", "Seattle 2014-03-01"])
                .await;
            if sent.code == 5 {
                Ok(sent)
            } else {
                Err(format!("{sent:?}"))
            }
        },
    )
    .await;
    assert!(refused.stderr.contains("try again"), "{refused:?}");
}

/// A call whose answer is the agent's task.
const ONE_CALL: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: one-call, version: 1.0.0 }
do:
  - ask:
      call: a2a
      with:
        server: agent://weather
        method: SendMessage
        parameters: { message: { parts: [ { text: "Seattle 2014-03-01" } ] } }
      output: { as: .id }
"#;

#[tokio::test]
async fn logs_say_which_trace_run_task_and_agent_they_are_about_and_their_level_changes_at_run_time() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    // Nobody takes the spans, which logs need not know.
    let stack = Stack::start_with(&[("MUSTER__TELEMETRY__OTLP__ENDPOINT", "http://127.0.0.1:9")]).await;
    let services = ["workflow-engine", "router", "weather"];
    let is_debug = |line: &Value| line["level"] == "DEBUG";
    for service in services {
        let log = stack.log(service);
        assert!(!log.is_empty() && !log.iter().any(is_debug), "{service}: {log:?}");
    }
    let level = async |service: &str, filter: &str| {
        let mut admin = AdminServiceClient::connect(stack.url(service)).await.unwrap();
        let request = SetLogLevelRequest {
            filter: filter.to_owned(),
            revert_after: None,
        };
        admin.set_log_level(request).await.unwrap().into_inner()
    };
    for service in services {
        let changed = level(service, "debug").await;
        assert_eq!(
            (changed.previous.as_str(), changed.filter.as_str()),
            ("INFO", "debug")
        );
    }

    let mut request = tonic::Request::new(StartRunRequest {
        run_id: "logged".to_owned(),
        source: Some(start_run_request::Source::Document(ONE_CALL.to_owned())),
        ..StartRunRequest::default()
    });
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    stack.engine().await.start_run(request).await.unwrap();
    let shown = wait_for("the run to complete", PATIENCE, async || {
        let shown = stack.muster(&["workflow", "show", "logged", "-o", "json"]).await;
        let run = shown.success().json();
        if run["status"] == "completed" {
            Ok(run)
        } else {
            Err(run.to_string())
        }
    })
    .await;
    let task = shown["output"].as_str().unwrap();

    let expected = [
        ("workflow-engine", json!({"run": "logged"})),
        (
            "workflow-engine",
            json!({"run": "logged", "task": "/do/0/ask", "trace_id": TRACE}),
        ),
        ("router", json!({"trace_id": TRACE})),
        (
            "weather",
            json!({"agent": "weather", "task": task, "trace_id": TRACE}),
        ),
    ];
    for (service, fields) in expected {
        let fields = fields.as_object().unwrap();
        wait_for(
            &format!("a line of {service} with {fields:?}"),
            PATIENCE,
            async || {
                let log = stack.log(service);
                let fits = |line: &Value| fields.iter().all(|(name, value)| line[name] == *value);
                if log.iter().any(fits) {
                    Ok(())
                } else {
                    Err(format!("{log:#?}"))
                }
            },
        )
        .await;
    }

    // Back to what is configured: nothing is said at that level any more.
    for service in services {
        assert_eq!(level(service, "").await.filter, "INFO");
    }
    let sent = ["send", "--agent", "weather", "Seattle 2014-03-01"];
    let _sent = stack.muster(&sent).await.success();
    for service in services {
        let log = stack.log(service);
        let changed = |line: &Value| line["message"] == "what is logged was changed";
        let since = log.iter().rposition(changed).unwrap();
        assert!(
            !log[since..].iter().any(is_debug),
            "{service}: {:#?}",
            &log[since..]
        );
    }
}

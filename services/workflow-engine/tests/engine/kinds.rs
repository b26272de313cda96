//! Each kind of task in the five ways that a run can take: it succeeds, it fails, it takes too long, it is cancelled, and the
//! engine is restarted in the middle of it.
//!
//! Each document asks an agent somewhere, so that the test can stop the run there and look at what the kind does around it.

use muster_api::a2a::TaskState;
use muster_api::workflow::RunStatus;
use muster_testkit::Answer;
use serde_json::{Value, json};

use crate::harness::{Engine, document};

const CALL: &str = "{call: a2a, with: {server: 'agent://asked', method: SendMessage, parameters: {message: {parts: [{text: hi}]}}}, \
                    output: {as: '.artifacts[0].parts[1].text'}}";

/// A kind of task in a document.
struct Row {
    kind: &'static str,
    /// The tasks; `CALL` is a call, `TIMEOUT` the place for a timeout.
    tasks: &'static str,
    /// How many calls are in flight at the first moment, and in all.
    calls: (usize, usize),
    output: Value,
    /// The call that fails first.
    asks: &'static str,
    /// The task that has the timeout, if the kind takes any time.
    timed: Option<&'static str>,
}

fn rows() -> Vec<Row> {
    let row = |kind, tasks, calls, output, asks, timed| Row {
        kind,
        tasks,
        calls,
        output,
        asks,
        timed,
    };
    vec![
        row(
            "do",
            "  - it: {do: [{ask: CALL}, {keep: {set: {said: '${ . }'}}}]TIMEOUT}\n",
            (1, 1),
            json!({"said": "hi"}),
            "/do/0/it/do/0/ask",
            Some("/do/0/it"),
        ),
        row(
            "for",
            "  - it: {for: {each: n, in: '[1, 2, 3]'}, while: $n < 3, do: [{ask: CALL}, {add: {set: '${ [., $n, $index] }'}}]TIMEOUT}\n",
            (1, 2),
            json!(["hi", 2, 1]),
            "/do/0/it/do/0/ask",
            Some("/do/0/it"),
        ),
        row(
            "fork",
            "  - it: {fork: {branches: [{one: CALL}, {two: {do: [{ask: CALL}, {keep: {set: {said: '${ . }'}}}]}}]}TIMEOUT}\n",
            (2, 2),
            json!(["hi", {"said": "hi"}]),
            "/do/0/it/fork/branches/0/one",
            Some("/do/0/it"),
        ),
        row(
            "try",
            "  - it: {try: [{ask: CALL}], catch: {errors: {with: {status: 418}}, do: [{no: {set: {no: true}}}]}TIMEOUT}\n",
            (1, 1),
            json!("hi"),
            "/do/0/it/try/0/ask",
            Some("/do/0/it"),
        ),
        row(
            "call",
            "  - it: {do: [{ask: CALL}]TIMEOUT}\n",
            (1, 1),
            json!("hi"),
            "/do/0/it/do/0/ask",
            Some("/do/0/it"),
        ),
        row(
            "wait",
            "  - it: {fork: {compete: true, branches: [{ask: CALL}, {rest: {wait: {hours: 1}}}]}TIMEOUT}\n  - then: {wait: {milliseconds: 5}}\n",
            (1, 1),
            json!("hi"),
            "/do/0/it/fork/branches/0/ask",
            Some("/do/0/it"),
        ),
        row(
            "set",
            "  - ask: CALL\n  - it: {set: {said: '${ . }', fixed: [1]}}\n",
            (1, 1),
            json!({"said": "hi", "fixed": [1]}),
            "/do/0/ask",
            None,
        ),
        row(
            "emit",
            "  - ask: CALL\n  - it: {emit: {event: {with: {source: /tests, type: test.said.v1, data: '${ . }'}}}, output: {as: .data}}\n",
            (1, 1),
            json!("hi"),
            "/do/0/ask",
            None,
        ),
        row(
            "listen",
            "  - ask: CALL\n  - tell: {fork: {branches: [{say: {do: [{moment: {wait: {milliseconds: 5}}}, {it: {emit: {event: {with: {source: /tests, type: test.heard.v1, data: '${ . }'}}}}}]}}, {hear: {listen: {to: {one: {with: {type: test.heard.v1}}}}, timeout: {after: PT20S}}}]}, output: {as: '.[1][0]'}}\n",
            (1, 1),
            json!("hi"),
            "/do/0/ask",
            None,
        ),
        row(
            "switch",
            "  - ask: CALL\n  - it: {switch: [{same: {when: '. == \"hi\"', then: good}}, {other: {then: end}}]}\n  - bad: {set: {bad: true}, then: end}\n  - good: {set: {good: '${ . }'}}\n",
            (1, 1),
            json!({"good": "hi"}),
            "/do/0/ask",
            None,
        ),
        row(
            "raise",
            "  - ask: CALL\n  - it: {try: [{fail: {raise: {error: {type: 'https://test.test/full', status: 418, detail: '${ . }'}}}}], catch: {as: full, do: [{keep: {set: '${ $full.detail }'}}]}}\n",
            (1, 1),
            json!("hi"),
            "/do/0/ask",
            None,
        ),
    ]
}

impl Row {
    fn document(&self, timeout: &str) -> String {
        document(&self.tasks.replace("TIMEOUT", timeout).replace("CALL", CALL))
    }
}

#[tokio::test]
async fn each_kind_succeeds() {
    let engine = Engine::start().await;
    for row in rows() {
        let before = engine.router.calls().len();
        assert_eq!(
            engine.output(&row.document(""), "").await,
            row.output,
            "{}",
            row.kind
        );
        assert_eq!(engine.router.calls().len() - before, row.calls.1, "{}", row.kind);
    }
}

#[tokio::test]
async fn a_failure_inside_each_kind_is_that_of_the_task_that_failed() {
    let engine = Engine::start().await;
    for row in rows() {
        let failed = || Answer::Task(TaskState::Failed, "broken".into());
        engine.router.script((0..row.calls.0).map(|_| failed()));
        let error = engine.fault(&row.document("")).await;
        assert_eq!(
            (error.instance.as_str(), error.detail.as_str()),
            (row.asks, "broken"),
            "{}",
            row.kind
        );
    }
}

/// What the kinds get wrong by themselves: the kind, the tasks, the last part of the error's type, and its instance.
const FAULTS: [(&str, &str, &str, &str); 12] = [
    (
        "emit",
        "  - it: {emit: {event: {with: {source: /tests, type: test.v1, data: '${ error(\"no\") }'}}}}\n",
        "expression",
        "/do/0/it",
    ),
    (
        "emit",
        "  - it: {emit: {event: {with: {source: /tests, type: '${ {a: 1} }'}}}}\n",
        "validation",
        "/do/0/it",
    ),
    (
        "listen",
        "  - it: {listen: {to: {one: {with: {type: test.v1}, correlate: {n: {from: '${ .data.n }', expect: '${ error(\"no\") }'}}}}}}\n",
        "expression",
        "/do/0/it",
    ),
    (
        "run",
        "  - it: {run: {workflow: {namespace: test, name: none, version: '1.0.0'}}}\n",
        "configuration",
        "/do/0/it",
    ),
    (
        "set",
        "  - it: {set: {x: '${ .a | error(\"no\") }'}}\n",
        "expression",
        "/do/0/it",
    ),
    (
        "do",
        "  - it: {do: [{in: {set: {x: '${ \"a\" + 1 }'}}}]}\n",
        "expression",
        "/do/0/it/do/0/in",
    ),
    (
        "for",
        "  - it: {for: {in: '5'}, do: [{in: {set: {x: 1}}}]}\n",
        "expression",
        "/do/0/it",
    ),
    (
        "fork",
        "  - it: {fork: {branches: [{slow: {wait: PT1H}}, {bad: {set: {x: '${ error }'}}}]}}\n",
        "expression",
        "/do/0/it/fork/branches/1/bad",
    ),
    (
        "switch",
        "  - it: {switch: [{a: {when: '.x[\"a\"] | error', then: end}}]}\n",
        "expression",
        "/do/0/it",
    ),
    (
        "try",
        "  - it: {try: [{a: {raise: {error: {type: 'https://test.test/full', status: 503}}}}], catch: {do: [{b: {set: {x: '${ error }'}}}]}}\n",
        "expression",
        "/do/0/it/catch/do/0/b",
    ),
    (
        "raise",
        "  - it: {raise: {error: {type: 'https://test.test/full', status: 503}}}\n",
        "full",
        "/do/0/it",
    ),
    (
        "wait",
        "  - it: {wait: '${ \"soon\" }'}\n",
        "expression",
        "/do/0/it",
    ),
];

#[tokio::test]
async fn each_kind_fails_in_its_own_way() {
    let engine = Engine::start().await;
    for (kind, tasks, of_type, instance) in FAULTS {
        let error = engine.fault(&document(tasks)).await;
        assert_eq!(error.instance, instance, "{kind}: {error:?}");
        assert!(
            error.r#type.ends_with(&format!("/{of_type}")),
            "{kind}: {error:?}"
        );
    }
}

#[tokio::test]
async fn each_kind_that_takes_time_ends_at_its_timeout() {
    let engine = Engine::start().await;
    engine.router.hold();
    for row in rows() {
        let Some(timed) = row.timed else { continue };
        let error = engine
            .fault(&row.document(", timeout: {after: {milliseconds: 40}}"))
            .await;
        assert_eq!(
            (error.status, error.instance.as_str()),
            (408, timed),
            "{}",
            row.kind
        );
        assert!(error.r#type.ends_with("/timeout"), "{}: {error:?}", row.kind);
        engine.until_held(0).await;
    }
}

#[tokio::test]
async fn kinds_that_take_no_time_do_not_mind_a_timeout() {
    let engine = Engine::start().await;
    let tasks = "
  - set: {set: {n: 1}, timeout: {after: {milliseconds: 1}}}
  - choose: {switch: [{go: {when: .n == 1, then: guarded}}], timeout: {after: {milliseconds: 1}}}
  - guarded:
      try:
        - fail: {raise: {error: {type: 'https://test.test/full', status: 418}}, timeout: {after: {milliseconds: 1}}}
      catch: {errors: {with: {status: 418}}}
";
    assert_eq!(engine.output(&document(tasks), "").await, json!({"n": 1}));
}

#[tokio::test]
async fn each_kind_is_cancelled_and_nothing_goes_on() {
    let engine = Engine::start().await;
    engine.router.hold();
    for row in rows() {
        let run = engine.start_run(&row.document(""), "", "").await.unwrap();
        engine.until_held(row.calls.0).await;
        engine.cancel(&run.run_id).await.unwrap();
        engine.until(&run.run_id, RunStatus::Cancelled).await;
        engine.until_held(0).await;
        let history = engine.history(&run.run_id).await;
        assert_eq!(history.last().unwrap().r#type, "run.cancelled", "{}", row.kind);
        let completed = history.iter().filter(|event| event.r#type == "task.completed");
        assert_eq!(completed.count(), 0, "{}", row.kind);
    }
}

#[tokio::test]
async fn each_kind_goes_on_where_it_was_after_a_restart() {
    let mut engine = Engine::start().await;
    for row in rows() {
        engine.router.hold();
        let before = engine.router.calls_by_message_id().len();
        let run = engine.start_run(&row.document(""), "", "").await.unwrap();
        engine.until_held(row.calls.0).await;
        engine.restart().await;
        engine.until_held(row.calls.0).await;
        engine.router.release_all();
        let run = engine.until(&run.run_id, RunStatus::Completed).await;
        let output: Value = serde_json::from_str(&run.output_json).unwrap();
        assert_eq!(output, row.output, "{}", row.kind);
        let messages = engine.router.calls_by_message_id().len() - before;
        assert_eq!(
            messages, row.calls.1,
            "{}: what was in flight is sent again under the same id",
            row.kind
        );
    }
}

#[tokio::test]
async fn a_pause_goes_on_through_a_restart_and_ends_when_it_would_have() {
    let mut engine = Engine::start().await;
    let text = document("  - rest: {wait: {milliseconds: 900}}\n  - done: {set: {rested: true}}\n");
    let run = engine.start_run(&text, "", "").await.unwrap();
    engine.until(&run.run_id, RunStatus::Waiting).await;
    let until = |history: &[muster_api::workflow::HistoryEvent]| {
        let wait = history
            .iter()
            .find(|event| event.r#type == "wait.started")
            .unwrap();
        let data: Value = serde_json::from_str(&wait.data_json).unwrap();
        data["until"].clone()
    };
    let before = until(&engine.history(&run.run_id).await);
    engine.restart().await;
    let run = engine.until(&run.run_id, RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"{"rested":true}"#);
    let history = engine.history(&run.run_id).await;
    assert_eq!(until(&history), before);
    let begun = history
        .iter()
        .filter(|event| event.task == "/do/0/rest" && event.r#type == "task.started");
    assert_eq!(begun.count(), 1);
}

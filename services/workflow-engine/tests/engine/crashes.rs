//! A crash after every single entry of a journal, for a set of documents.
//!
//! A document is run to its end; then each beginning of its journal, from no entry to all but the last, becomes the
//! journal of a run of its own, as a crash at that instant would have left it. The engine starts on all of them at
//! once, and every one must end as the whole run did. Entries that are written in one step are cut apart, too: that
//! asks more than any crash can.

use muster_api::a2a::TaskState;
use muster_api::workflow::{Run, RunStatus};
use muster_testkit::Answer;
use muster_workflow_engine::approval::{Approval, ApprovalId, State};
use muster_workflow_engine::run::{Entry, Status, Summary};
use muster_workflow_engine::store::embedded::Embedded;
use muster_workflow_engine::store::{Step, Store};
use serde_json::{Value, json};

use crate::harness::{Engine, document, send};

/// What is compared: how the run ended and with what.
fn outcome(run: &Run) -> (RunStatus, String, Option<(String, i32, String)>) {
    let error = run
        .error
        .as_ref()
        .map(|error| (error.r#type.clone(), error.status, error.instance.clone()));
    (run.status(), run.output_json.clone(), error)
}

/// Every beginning of the run's journal, from that length on, as a run of its own; their ids.
async fn cut(store: &Embedded, id: &str, first: usize) -> Vec<String> {
    let id = id.parse().unwrap();
    let record = store.record(&id).await.unwrap().unwrap();
    let summary = store.summary(&id).await.unwrap().unwrap();
    let journal = store.history(&id, 0, 1000).await.unwrap();
    assert_eq!(journal.len() as u64, summary.history_length);
    let mut cuts = Vec::new();
    for length in first..journal.len() {
        let id: muster_workflow_engine::run::RunId = format!("{id}.{length}").parse().unwrap();
        let mut record = record.clone();
        record.id = id.clone();
        let beginning = Summary {
            id: id.clone(),
            status: Status::Pending,
            started_at: None,
            ended_at: None,
            failure: None,
            history_length: 0,
            // That of the whole journal is not that of its beginnings.
            chain: None,
            ..summary.clone()
        };
        store.create_run(&record, &beginning).await.unwrap();
        if length > 0 {
            let beginning_of = beginning.clone();
            let step = Step {
                entries: journal[..length]
                    .iter()
                    .map(|entry| entry.bytes.clone())
                    .collect(),
                approvals: approvals(&beginning_of, &journal[..length]),
                ..Step::to(Summary {
                    status: Status::Running,
                    started_at: summary.started_at,
                    history_length: length as u64,
                    ..beginning
                })
            };
            store.append(step).await.unwrap();
        }
        cuts.push(id.to_string());
    }
    cuts
}

/// What a run had asked people when it was cut.
fn approvals(run: &Summary, journal: &[Entry]) -> Vec<Approval> {
    let mut open: Vec<Approval> = Vec::new();
    for entry in journal {
        let event: Value = serde_json::from_slice(&entry.bytes).unwrap();
        let number = event["approval"].as_u64();
        match (event["type"].as_str().unwrap(), number) {
            ("approval.opened", Some(number)) => open.push(Approval {
                id: ApprovalId {
                    run: run.id.clone(),
                    number,
                },
                namespace: run.namespace.clone(),
                name: run.name.clone(),
                version: run.version.clone(),
                task: event["task"].as_str().unwrap().to_owned(),
                question: serde_json::from_value(event.clone()).unwrap(),
                budget: None,
                raise: None,
                opened_at: serde_json::from_value(event["time"].clone()).unwrap(),
                escalated: false,
                state: State::Open,
                decided_by: String::new(),
                comment: String::new(),
                closed_at: None,
            }),
            ("approval.decided" | "approval.expired", Some(number)) => {
                open.retain(|approval| approval.id.number != number);
            }
            _ => {}
        }
    }
    open
}

/// Runs the document, crashes it after each entry, and compares.
async fn survives(document: &str, input: Value) {
    survives_with(document, input, Answer::Echo).await;
}

/// As [`survives`], with agents that answer so.
async fn survives_with(document: &str, input: Value, answer: Answer) {
    survives_beside(&[], document, input, answer).await;
}

/// As [`survives_with`], with other documents in the catalogue.
async fn survives_beside(catalogue: &[&str], document: &str, input: Value, answer: Answer) {
    let engine = crate::http::engine().await;
    for document in catalogue {
        engine.apply(document).await;
    }
    engine.router.fall_back_to(answer);
    engine
        .start_run(document, "whole", &input.to_string())
        .await
        .unwrap();
    ended(&engine, "whole").await;
    recovers(engine, 0).await;
}

/// Crashes the run that has ended after each entry from the one with this number on, and compares.
pub async fn recovers(mut engine: Engine, first: usize) {
    let whole = ended(&engine, "whole").await;
    engine.stop().await;
    let cuts = {
        let directory = muster_runtime::data_directory::open(engine.data_directory()).unwrap();
        cut(&Embedded::open(directory).unwrap(), "whole", first).await
    };
    engine.launch().await;
    for id in cuts {
        let run = ended(&engine, &id).await;
        assert_eq!(outcome(&run), outcome(&whole), "{id}");
        let history = engine.history(&id).await;
        let begun = history.iter().filter(|event| event.r#type == "run.started");
        assert_eq!(begun.count(), 1, "{id} began once");
    }
}

pub async fn ended(engine: &Engine, id: &str) -> Run {
    muster_testkit::wait_for(&format!("{id} to end"), crate::harness::PATIENCE, async || {
        engine.approve_all(id).await;
        let run = engine.run(id).await;
        match run.status() {
            RunStatus::Completed | RunStatus::Faulted | RunStatus::Cancelled => Ok(run),
            other => Err(format!("{other:?} {:?}", run.activity)),
        }
    })
    .await
}

#[tokio::test]
async fn calls_and_data_in_sequence() {
    let tasks = send("one", "a")
        + "  - keep: {set: {text: '${ . }'}, export: {as: .text}}\n"
        + &send("two", "${ $context + .text }");
    survives(&document(&tasks), Value::Null).await;
}

#[tokio::test]
async fn calls_of_agents_by_url_of_services_and_of_servers() {
    let service = crate::grpc_service::Service::start(crate::grpc_service::Reflection::V1).await;
    let server = crate::mcp_server::Server::start().await;
    let agent = muster_testkit::FakeAgent::start("stranger").await;
    let tasks = format!(
        "
  - serve: {{call: grpc, with: {{service: {{name: grpc.health.v1.Health, host: 127.0.0.1, port: {}}}, method: Check}}}}
  - tool: {{call: mcp, with: {{method: tools/call, parameters: {{name: echo, arguments: '${{ . }}'}}, transport: {{http: {{endpoint: '{}'}}}}}}}}
  - ask:
      call: a2a
      with: {{server: 'grpc://{}', method: SendStreamingMessage, parameters: {{message: {{parts: [{{data: '${{ . }}'}}]}}}}}}
      output: {{as: '.artifacts[0].parts[0].data'}}
  - refused:
      try: [{{x: {{call: grpc, with: {{service: {{name: grpc.health.v1.Health, host: 127.0.0.1, port: {}}}, method: Check, arguments: {{service: unknown}}}}}}}}]
      catch: {{errors: {{with: {{status: 404}}}}, do: [{{y: {{set: {{got: '${{ . }}'}}}}}}]}}
",
        service.address.port(),
        server.url(),
        agent.address(),
        service.address.port(),
    );
    survives(&document(&tasks), Value::Null).await;
}

#[tokio::test]
async fn a_loop_with_a_call_for_each_item() {
    let inner = send("each", "${ $word }").replace('\n', "\n        ");
    let tasks = format!(
        "  - all:\n      for: {{each: word, in: .words}}\n      do:\n        {}\n",
        inner.trim()
    );
    survives(&document(&tasks), json!({"words": ["a", "b", "c"]})).await;
}

#[tokio::test]
async fn branches_that_all_count() {
    let inner = (send("one", "a") + &send("two", "b")).replace('\n', "\n      ");
    let tasks = format!(
        "  - both:\n      fork:\n        branches:\n      {}\n",
        inner.trim_end()
    );
    survives(&document(&tasks), Value::Null).await;
}

#[tokio::test]
async fn branches_of_which_the_first_wins() {
    let tasks = "
  - race:
      fork:
        compete: true
        branches:
          - slow: {do: [{pause: {wait: {hours: 1}}}, {late: {set: {won: slow}}}]}
          - quick: {do: [{pause: {wait: {milliseconds: 5}}}, {early: {set: {won: quick}}}]}
";
    survives(&document(tasks), Value::Null).await;
}

#[tokio::test]
async fn a_try_that_is_repeated_and_then_handled() {
    let tasks = "
  - guarded:
      try:
        - fail: {raise: {error: {type: 'https://test.test/broken', status: 503, title: Broken}}}
      catch:
        as: problem
        retry: {delay: {milliseconds: 5}, limit: {attempt: {count: 2}}}
        do:
          - keep: {set: {caught: '${ $problem.status }'}}
  - after: {set: {before: '${ .caught }'}}
";
    survives(&document(tasks), Value::Null).await;
}

#[tokio::test]
async fn choices_pauses_and_conditions() {
    let tasks = "
  - choose:
      switch:
        - high: {when: .n > 3, then: wait}
        - other: {then: end}
  - never: {set: {never: true}}
  - wait: {wait: {milliseconds: 5}}
  - skipped: {if: .n > 100, set: {n: 0}}
  - done: {set: {n: '${ .n + 1 }'}}
";
    survives(&document(tasks), json!({"n": 4})).await;
}

#[tokio::test]
async fn an_error_that_nobody_catches() {
    let tasks = "
  - outer:
      do:
        - fine: {set: {a: 1}}
        - fail: {raise: {error: {type: 'https://test.test/broken', status: 500, title: Broken}}}
";
    survives(&document(tasks), Value::Null).await;
}

#[tokio::test]
async fn a_time_limit_that_is_caught() {
    let tasks = "
  - guarded:
      try:
        - slow: {wait: {hours: 1}, timeout: {after: {milliseconds: 5}}}
      catch:
        errors: {with: {status: 408}}
        do:
          - keep: {set: {late: true}}
";
    survives(&document(tasks), Value::Null).await;
}

#[tokio::test]
async fn people_are_asked_and_others_escalate_and_expire() {
    let gate = |title: &str, more: &str| {
        format!("metadata: {{muster: {{approval: {{title: {title}, assignees: [ada]{more}}}}}}}")
    };
    let tasks = format!(
        "
  - both:
      fork:
        branches:
          - one: {{do: [{{a: {{set: {{a: 1}}, {}}}}}, {{b: {{set: {{b: 2}}, {}}}}}]}}
          - other: {{set: {{c: 3}}, {}}}
  - guarded:
      try:
        - never: {{set: {{d: 4}}, if: 'false', {}}}
        - {}
      catch: {{as: problem, do: [{{keep: {{set: {{kind: '${{ $problem.type }}'}}}}}}]}}
",
        gate("A", ""),
        gate("B", ", escalate: {after: {milliseconds: 5}, to: boss}"),
        gate("C", ", deadline: PT1H"),
        gate("D", ""),
        send("weather", "x")
            .trim_start_matches("  - ")
            .replace('\n', "\n      ")
            .trim_end()
    );
    survives(&document(&tasks), Value::Null).await;
}

#[tokio::test]
async fn calls_of_services_and_functions() {
    let service = crate::service::Service::start(|seen| {
        crate::service::Reply::json(&json!({"path": seen.path, "body": seen.json()}))
    })
    .await;
    let tasks = format!(
        "  - direct: {{call: http, with: {{method: put, endpoint: '{0}', body: {{n: '${{ .n }}'}}}}}}\n  - function: {{call: twice, with: {{n: '${{ .body.n }}'}}}}\n  - again: {{call: ask, with: {{n: 3}}}}\n",
        service.url("/direct")
    );
    let functions = format!(
        "\nuse:\n  functions:\n    ask: {{call: http, with: {{method: post, endpoint: '{0}', body: '${{ . }}'}}, output: {{as: .body}}}}\n    twice: {{do: [{{one: {{call: ask, with: {{n: '${{ .n + 1 }}'}}}}}}, {{two: {{call: ask, with: {{n: '${{ .n + 1 }}'}}}}}}]}}\ndo:\n",
        service.url("/ask/{n}")
    );
    survives(&document(&tasks).replace("\ndo:\n", &functions), json!({"n": 1})).await;
}

#[tokio::test]
async fn an_error_that_is_compensated() {
    let compensation = send("undo", "${ $compensated.output }").replace('\n', "\n            ");
    let tasks = format!(
        "{}      metadata:\n        muster:\n          compensation:\n            do:\n            {}\n  - bad: {{raise: {{error: {{type: 'about:blank', status: 500}}}}}}\n",
        send("one", "a"),
        compensation.trim_end()
    );
    survives(&document(&tasks), Value::Null).await;
}

/// A task that fails with the first message that it sends, whenever that is delivered, and no other: so a crash does
/// not change which attempt fails.
async fn with_a_first_message_that_fails(engine: &Engine, agent: &'static str) {
    let failing = std::sync::Arc::new(std::sync::Mutex::new(None::<String>));
    engine
        .router
        .fall_back_to(Answer::Compute(std::sync::Arc::new(move |call| {
            let mut first = failing.lock().unwrap();
            let fails = call.tenant == agent
                && *first.get_or_insert_with(|| call.message_id.clone()) == call.message_id;
            match fails {
                true => Answer::Task(TaskState::Failed, "no luck".into()),
                false => Answer::Echo,
            }
        })));
}

#[tokio::test]
async fn a_run_that_was_retried() {
    let engine = Engine::start().await;
    with_a_first_message_that_fails(&engine, "two").await;
    let text = document(&(send("one", "a") + &send("two", "b") + &send("three", "c")));
    engine.start_run(&text, "whole", "").await.unwrap();
    engine.until("whole", RunStatus::Faulted).await;
    engine.retry("whole", "").await.unwrap();
    engine.until("whole", RunStatus::Completed).await;
    let retried = engine.history("whole").await;
    let retried = retried
        .iter()
        .position(|event| event.r#type == "run.retried")
        .unwrap();
    recovers(engine, retried + 1).await;
}

#[tokio::test]
async fn a_run_that_was_paused_resumed_and_cancelled() {
    let engine = Engine::start().await;
    engine.router.hold();
    let tidy = "catch: {do: [{tidy: {set: {tidied: true}}}]}";
    let slow = send("slow", "s").replace('\n', "\n        ");
    let tasks = format!(
        "  - guarded:\n      try:\n        {}\n      {tidy}\n",
        slow.trim()
    );
    engine.start_run(&document(&tasks), "whole", "").await.unwrap();
    engine.until_held(1).await;
    engine.pause("whole").await.unwrap();
    engine.resume("whole").await.unwrap();
    engine.cancel("whole").await.unwrap();
    engine.until("whole", RunStatus::Cancelled).await;
    engine.router.release_all();
    let wished = engine.history("whole").await;
    let wished = wished
        .iter()
        .position(|event| event.r#type == "run.cancelling")
        .unwrap();
    recovers(engine, wished + 1).await;
}

#[tokio::test]
async fn a_budget_that_is_raised_and_an_answer_that_is_kept() {
    let header = "document: {dsl: '1.0.0', namespace: test, name: test, version: '1.0.0', metadata: {muster: {budget: {tokens: 10}}}}";
    let kept = "      metadata: {muster: {idempotent: true, cache: {ttl: PT1H}}}\n";
    let tasks = send("one", "a") + &send("two", "b") + kept + &send("three", "c");
    let costly = Answer::Metadata(json!({muster_workflow_dsl::usage::KEY: {"tokens": 9}}));
    survives_with(&format!("{header}\ndo:\n{tasks}"), Value::Null, costly).await;
}

#[tokio::test]
async fn events_that_are_emitted_and_heard() {
    // All runs share one log, and what they emit is alike.
    let tasks = "
  - tell: {emit: {event: {with: {source: /t, type: told, data: {n: 1}}}}}
  - one: {listen: {to: {one: {with: {type: told}}}}}
  - more:
      fork:
        branches:
          - left: {emit: {event: {with: {source: /t, type: left, data: 2}}}}
          - right: {do: [{nap: {wait: {milliseconds: 5}}}, {tell: {emit: {event: {with: {source: /t, type: right, data: 3}}}}}]}
      output: {as: length}
  - hear:
      listen: {to: {all: [{with: {type: left}}, {with: {type: right}}]}}
      foreach:
        do:
          - nap: {wait: {milliseconds: 5}}
          - keep: {set: {got: '${ $item }'}}
        output: {as: .got}
      output: {as: sort}
";
    survives(&document(tasks), Value::Null).await;
}

#[tokio::test]
async fn runs_of_other_workflows() {
    let double = "document: {dsl: '1.0.0', namespace: test, name: double, version: '1.0.0'}\ndo:\n  \
                  - pause: {wait: {milliseconds: 5}}\n  - double: {set: {n: '${ .n * 2 }'}}\n";
    let bad = "document: {dsl: '1.0.0', namespace: test, name: bad, version: '1.0.0'}\ndo:\n  \
               - bad: {raise: {error: {type: 'https://test.test/broken', status: 500, title: Broken}}}\n";
    let tasks = "
  - first: {run: {workflow: {namespace: test, name: double, input: {n: '${ .n }'}}}}
  - alone: {run: {workflow: {namespace: test, name: double, input: {n: 1}}, await: false}}
  - both:
      fork:
        branches:
          - one: {run: {workflow: {namespace: test, name: double, input: {n: '${ .n }'}}}}
          - two: {run: {workflow: {namespace: test, name: double, input: {n: '${ .n + 1 }'}}}}
  - guarded:
      try:
        - bad: {run: {workflow: {namespace: test, name: bad}}}
      catch:
        retry: {delay: {milliseconds: 5}, limit: {attempt: {count: 1}}}
        do:
          - keep: {set: {caught: '${ $error.status }', got: '${ . }'}}
";
    survives_beside(&[double, bad], &document(tasks), json!({"n": 4}), Answer::Echo).await;
}

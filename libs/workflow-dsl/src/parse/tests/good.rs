//! What becomes of a right document.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::document::{
    Backoff, Call, Endpoint, ErrorFilter, Flow, Jitter, Kind, Method, RetryLimit, Server, Template,
};

fn whole() -> Definition {
    parse(WHOLE).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_header_is_kept() {
    let definition = whole();
    let header = &definition.workflow.header;
    assert_eq!(
        (header.namespace.as_str(), header.name.as_str()),
        ("samples", "whole")
    );
    assert_eq!(
        (header.dsl.as_str(), header.version.as_str()),
        ("1.0.1", "1.2.3-rc.1")
    );
    assert_eq!(header.title.as_deref(), Some("All of it"));
    assert_eq!(json!(header.tags), json!({"area": "tests"}));
    assert_eq!(json!(header.metadata), json!({"owner": "nobody"}));
    assert_eq!(&*definition.source, WHOLE);
    assert!(definition.warnings.is_empty(), "{}", definition.warnings);
}

#[test]
fn the_digest_is_that_of_the_text() {
    assert_eq!(
        digest("abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(whole().digest, digest(WHOLE));
}

#[test]
fn tasks_are_found_by_their_pointers() {
    let definition = whole();
    let workflow = &definition.workflow;
    for (pointer, line) in [
        ("/do/0/prepare", 33),
        ("/do/1/skipped~1over~0", 44),
        ("/do/3/forecasts/do/0/ask", 56),
        ("/do/4/guarded/try/0/fail", 67),
        ("/do/4/guarded/catch/do/0/note", 75),
        ("/do/5/parallel/fork/branches/0/one/do/0/nap", 80),
    ] {
        let task = workflow.task(pointer).unwrap_or_else(|| panic!("{pointer}"));
        assert_eq!((task.pointer.as_str(), task.line), (pointer, line));
        assert!(workflow.raw_task(task).is_object(), "{pointer}");
    }
    for pointer in [
        "",
        "/do",
        "/do/0",
        "/do/0/prep",
        "/do/0/prepare/set",
        "/do/9/prepare",
        "do/0/prepare",
    ] {
        assert!(workflow.task(pointer).is_none(), "{pointer}");
    }
}

#[test]
fn references_are_resolved() {
    let definition = whole();
    let workflow = &definition.workflow;
    assert_eq!(workflow.timeout, Some(Duration::from_secs(3600).into()));
    assert_eq!(workflow.tasks.tasks[0].then, Flow::Task(2));
    assert_eq!(
        workflow.tasks.tasks[0].timeout,
        Some(Duration::from_secs(300).into())
    );
    let Kind::Switch(cases) = &workflow.tasks.tasks[2].kind else {
        panic!("no switch")
    };
    let flows: Vec<Flow> = cases.iter().map(|case| case.then).collect();
    assert_eq!(flows, [Flow::Task(3), Flow::Exit, Flow::Task(1)]);
    assert_eq!(cases[2].pointer, "/do/2/choose/switch/2/otherwise");

    let Kind::Try(attempt) = &workflow.tasks.tasks[4].kind else {
        panic!("no try")
    };
    let retry = attempt.catch.retry.as_ref().expect("a retry policy");
    assert_eq!(retry.delay, Duration::from_millis(2500).into());
    assert_eq!(retry.backoff, Backoff::Exponential);
    let limit = RetryLimit {
        attempts: Some(3),
        attempt_duration: Some(Duration::from_secs(5).into()),
        duration: Some(Duration::from_secs(60).into()),
    };
    assert_eq!(retry.limit, limit);
    assert_eq!(
        retry.jitter,
        Some(Jitter {
            from: Duration::ZERO.into(),
            to: Duration::from_millis(500).into()
        })
    );
    let filter = ErrorFilter {
        kind: Some("https://serverlessworkflow.io/spec/1.0.0/errors/runtime".into()),
        status: Some(500),
        ..ErrorFilter::default()
    };
    assert_eq!(attempt.catch.errors, filter);
    assert_eq!(attempt.catch.variable, "problem");
    let Kind::Raise(error) = &attempt.tasks.tasks[0].kind else {
        panic!("no raise")
    };
    assert_eq!(error.status, 500);
    assert_eq!(
        error.title.as_ref().and_then(Template::literal),
        Some(&json!("Broken"))
    );
}

#[test]
fn calls_know_whom_they_call() {
    let definition = whole();
    let call = |pointer: &str| match &definition.workflow.task(pointer).expect("a task").kind {
        Kind::Call(Call::A2a(call)) => call.clone(),
        other => panic!("{other:?}"),
    };
    let ask = call("/do/3/forecasts/do/0/ask");
    assert!(matches!(ask.server, Server::Fixed(Endpoint::Skill(skill)) if skill == "weather_forecasting"));
    assert_eq!(ask.method, Method::SendMessage);
    assert!(matches!(ask.parameters, Template::Object(_)));
    let get = call("/do/5/parallel/fork/branches/1/two");
    assert!(matches!(get.server, Server::Fixed(Endpoint::Agent(agent)) if agent == "weather"));
    assert!(matches!(get.parameters, Template::Expression(_)));
    let computed = call("/do/5/parallel/fork/branches/2/three");
    assert!(matches!(computed.server, Server::Computed(_)));
}

#[test]
fn values_without_expressions_are_one_literal() {
    let definition = whole();
    let Kind::Set(Template::Object(fields)) = &definition.workflow.tasks.tasks[0].kind else {
        panic!("no object")
    };
    assert!(matches!(fields[0].1, Template::Expression(_)));
    assert_eq!(fields[1].1.literal(), Some(&json!([1, true, null, "text", 2.5])));
}

#[test]
fn json_says_the_same_as_yaml() {
    let raw = &whole().workflow.raw;
    let indented = serde_json::to_string_pretty(raw).expect("JSON");
    let tabs = indented.replace("  ", "\t");
    for text in [raw.to_string(), indented, tabs] {
        let definition = parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        assert_eq!(&definition.workflow.raw, raw);
    }
}

#[test]
fn json_escapes_are_read() {
    let header = r#""document": {"dsl": "1.0.1", "namespace": "a", "name": "b", "version": "1.0.0"}"#;
    let escaped = r#"{"b": "\u00e9 \ud83d\ude00 \/ \" \n"}"#;
    let text = format!(r#"{{{header}, "do": [{{"a": {{"set": {escaped}}}}}]}}"#);
    let definition = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(definition.workflow.raw["do"][0]["a"]["set"]["b"], "é 😀 / \" \n");
    // Behind the escapes, places are still those of the text.
    let wrong = format!(r#"{{{header}, "do": [{{"a": {{"set": {escaped}, "wait": "PT1S"}}}}]}}"#);
    let column = wrong.find("\"wait\"").expect("the field") + 1;
    refuses(&wrong, &format!("1:{column} /do/0/a/wait"), &["'set' and 'wait'"]);
}

#[test]
fn anchors_and_aliases_stand_for_what_they_name() {
    let tasks = "  - a: {set: &both {x: 1}}\n  - b: {set: *both}\n";
    let definition = parse(&with_tasks(tasks)).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(definition.workflow.raw["do"][1]["b"]["set"], json!({"x": 1}));
}

#[test]
fn what_is_legal_but_doubtful_is_warned_of() {
    for (tasks, place, words) in [
        (
            "  - a: {set: {x: 1}, then: end}\n  - b: {set: {x: 1}}\n",
            "warning 4:5 /do/1/b",
            "no flow reaches",
        ),
        (
            "  - a: {switch: [{d: {then: exit}}]}\n  - b: {set: {x: 1}}\n",
            "warning 4:5 /do/1/b",
            "no flow reaches",
        ),
        (
            "  - a: {try: [{b: {set: {x: 1}}}], catch: {retry: {delay: PT1S}}}\n",
            "warning 3:44 /do/0/a/catch/retry",
            "add limit.attempt.count",
        ),
        (
            "  - a: {set: {x: 'Hello ${ .name }!'}}\n",
            "warning 3:18 /do/0/a/set/x",
            "not evaluated",
        ),
        (
            "  - end: {set: {x: 1}}\n",
            "warning 3:5 /do/0/end",
            "never means this task",
        ),
    ] {
        refuses(&with_tasks(tasks), place, &[words]);
        let definition = parse(&with_tasks(tasks)).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(definition.warnings.as_slice().len(), 1);
    }
}

#[test]
fn a_task_that_may_be_skipped_lets_the_flow_pass() {
    for tasks in [
        "  - a: {if: .x, set: {x: 1}, then: end}\n  - b: {set: {x: 1}}\n",
        "  - a: {set: {x: 1}, then: c}\n  - b: {set: {x: 1}}\n  - c: {if: .x, set: {x: 1}, then: b}\n",
        "  - a: {switch: [{d: {when: .x, then: exit}}]}\n  - b: {set: {x: 1}}\n",
    ] {
        assert_eq!(complaints(&with_tasks(tasks)), [], "{tasks}");
    }
}

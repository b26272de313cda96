//! `run`: what is asked for, and what becomes of the answer.

use serde_json::json;

use super::*;
use crate::journal::Standard;
use crate::request::Request;
use crate::run::{BlockerKind, Effect, Run, Stimulus};

/// What the run asks for.
fn request(run: &Run) -> Request {
    let effects = run.effects();
    let Some(Effect::Call { request, .. }) = effects.first() else {
        panic!("{effects:?}");
    };
    request.as_ref().clone()
}

fn begun(document: &str) -> World {
    let mut world = World::with_agents(document, |_| Reply::Silence);
    world.decide(Stimulus::Start {
        input: json!({"n": 1, "name": "x"}),
    });
    world
}

#[test]
fn a_child_gets_its_input_and_its_output_is_the_tasks() {
    let document = "
        do:
          - child: {run: {workflow: {namespace: test, name: '${ .name }', version: latest, input: {a: '${ .n + 1 }'}}}}
        ";
    let world = begun(document);
    let Request::Workflow(child) = request(&world.run) else {
        panic!("a child")
    };
    assert_eq!(
        (
            child.namespace.as_str(),
            child.name.as_str(),
            child.version.as_deref()
        ),
        ("test", "x", None)
    );
    assert_eq!(*child.input, json!({"a": 2}));
    assert!(world.run.waits_outside());
    let blocker = world.run.waiting(world.now).remove(0);
    assert_eq!(blocker.kind, BlockerKind::ChildRun);
    assert!(
        blocker.message.contains("of test/x to end"),
        "{}",
        blocker.message
    );
    assert!(blocker.message.contains(blocker.details["run"].as_str().unwrap()));

    World::with_agents(document, |called| {
        Reply::Answer(json!({"from": called.agent, "got": called.data}), 5)
    })
    .run(json!({"n": 1, "name": "x"}))
    .yields(json!({"from": "test/x", "got": {"a": 2}}));
}

#[test]
fn what_is_not_awaited_or_returns_nothing() {
    let answer = |_: &world::Called| Reply::Answer(json!("answer"), 0);
    let child = "{workflow: {namespace: test, name: x}";
    World::with_agents(&format!("do: [{{a: {{run: {child}, await: false}}}}}}]"), answer)
        .run(json!({"n": 1}))
        .yields(json!({"n": 1}));
    World::with_agents(&format!("do: [{{a: {{run: {child}, return: none}}}}}}]"), answer)
        .run(json!({"n": 1}))
        .yields(json!(null));
    World::with_agents(&format!("do: [{{a: {{run: {child}}}}}}}]"), answer)
        .run(json!({"n": 1}))
        .yields(json!("answer"));
}

#[test]
fn a_process_is_told_everything_as_text() {
    let document = "
        do:
          - process:
              run:
                shell:
                  command: cat
                  stdin: '${ {n: .n} }'
                  arguments: ['${ .name }', 5, true]
                  environment: {A: '${ .n }', B: text}
        ";
    let world = begun(document);
    let Request::Process(process) = request(&world.run) else {
        panic!("a process")
    };
    assert_eq!(process.stdin.as_deref(), Some("{\"n\":1}"));
    assert_eq!(
        serde_json::to_value(&process.arguments).unwrap(),
        json!(["x", "5", "true"])
    );
    assert_eq!(json!(process.environment), json!({"A": "1", "B": "text"}));
    assert!(!world.run.waits_outside());
    assert_eq!(world.run.waiting(world.now)[0].kind, BlockerKind::Process);
}

#[test]
fn what_is_computed_must_fit() {
    let fails = |run: &str, what: &str| {
        World::new(&format!("do: [{{a: {{run: {run}}}}}]"))
            .run(json!({"n": 1}))
            .faults(Standard::Validation, what);
    };
    fails(
        "{workflow: {namespace: test, name: '${ .n }'}}",
        "name must be text",
    );
    fails("{shell: {command: '${ .n }'}}", "the command must be text");
    fails(
        "{shell: {command: x, arguments: '${ .n }'}}",
        "the arguments must be a list",
    );
    fails(
        "{shell: {command: x, environment: '${ .n }'}}",
        "the environment must be an object",
    );
}

#[test]
fn each_attempt_is_another_child() {
    let document = "
        do:
          - again:
              try:
                - child: {run: {workflow: {namespace: test, name: x}}}
              catch: {retry: {limit: {attempt: {count: 2}}}}
        ";
    let world = World::with_agents(document, |called| match called.attempt {
        1 => Reply::Failure(problem_of(Standard::Runtime), 0),
        _ => Reply::Answer(json!("done"), 0),
    })
    .run(json!({}));
    world.yields(json!("done"));
    assert_ne!(world.calls[0].message_id, world.calls[1].message_id);
}

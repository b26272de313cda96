//! How often a loop may go, and how many branches may fail.

use serde_json::json;

use super::world::World;
use crate::journal::Own;
use crate::run::Status;

#[test]
fn a_loop_takes_as_many_iterations_as_it_may() {
    let document = "
        do:
          - each:
              for: {in: '${ [range(.)] }'}
              do: [{one: {set: '${ $item }'}}]
              metadata: {muster: {maxIterations: 3}}
    ";
    World::new(document).run(json!(3)).yields(json!(2));
    let world = World::new(document).run(json!(4));
    let error = world.run.error().unwrap();
    assert_eq!(
        (error.kind.as_str(), error.status),
        (Own::TooManyIterations.uri(), 508)
    );
    assert_eq!(world.count("iteration.started each"), 3);
}

#[test]
fn without_a_limit_a_loop_is_as_long_as_its_collection() {
    let document = "
        do:
          - each:
              for: {in: '${ [range(.)] }'}
              do: [{one: {set: '${ $item }'}}]
    ";
    World::new(document).run(json!(2000)).yields(json!(1999));
}

#[test]
fn going_back_is_limited_too_and_the_documents_limit_is_for_all() {
    let document = "
        document: {dsl: '1.0.0', namespace: test, name: test, version: '1.0.0', metadata: {muster: {maxIterations: 5}}}
        do:
          - count: {set: {n: '${ .n + 1 }'}}
          - again: {switch: [{more: {when: '.n < $workflow.input.most', then: count}}]}
    "
    .replace("\n        ", "\n");
    World::new(&document)
        .run(json!({"n": 0, "most": 5}))
        .yields(json!({"n": 5}));
    let world = World::new(&document).run(json!({"n": 0, "most": 6}));
    let error = world.run.error().unwrap();
    assert_eq!(error.kind, Own::TooManyIterations.uri());
    assert_eq!(error.instance.as_deref(), Some("/do/0/count"));
}

/// A fork of which the branches named in the input fail.
fn fork(ratio: &str) -> World {
    let branch = |name: &str| {
        format!(
            "- {name}: {{do: [{{x: {{switch: [{{bad: {{when: 'index(\"{name}\") != null', then: fail}}}}, {{good: {{then: ok}}}}]}}}}, {{fail: {{raise: {{error: {{type: 'about:blank', status: 500, detail: {name}}}}}}}}}, {{ok: {{set: '${{ \"{name}\" }}'}}}}]}}\n"
        )
    };
    let branches: String = ["a", "b", "c", "d"]
        .map(|name| format!("          {}", branch(name)))
        .concat();
    World::new(&format!(
        "do:\n  - all:\n      fork:\n        branches:\n{branches}      metadata: {{muster: {{minSuccessRatio: {ratio}}}}}\n"
    ))
}

#[test]
fn a_fork_bears_as_many_failures_as_its_ratio_says() {
    fork("0.5")
        .run(json!(["b", "d"]))
        .yields(json!(["a", null, "c", null]));
    fork("0.5").run(json!([])).yields(json!(["a", "b", "c", "d"]));
    let world = fork("0.5").run(json!(["b", "c", "d"]));
    assert_eq!(world.run.status(), Status::Faulted);
    assert_eq!(world.run.error().unwrap().detail.as_deref(), Some("d"));
    let world = fork("1").run(json!(["a"]));
    assert_eq!(world.run.status(), Status::Faulted);
    fork("0.1")
        .run(json!(["a", "b", "c"]))
        .yields(json!([null, null, null, "d"]));
    assert_eq!(
        fork("0.1").run(json!(["a", "b", "c", "d"])).run.status(),
        Status::Faulted
    );
}

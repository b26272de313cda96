//! How data flow through a run.

use serde_json::json;

use super::*;
use crate::journal::Standard;

#[test]
fn each_stage_sees_what_the_language_says() {
    World::new(
        "
        input: {from: .payload}
        output: {as: '{result: ., context: $context, raw: $workflow.input.payload.n}'}
        do:
          - first:
              input: {from: '{n: .n, context: $context}'}
              set: {doubled: '${ .n * 2 }', input: '${ $input.n }', raw: '${ $task.input.n }', fixed: [1, {a: b}]}
              output: {as: '. + {shaped: true, name: $task.name, reference: $task.reference}'}
              export: {as: '{seen: $output.doubled, before: $context.n}'}
          - second:
              set: '${ {from: .doubled, shaped, name, reference, fixed, context: $context, input, raw} }'
        ",
    )
    .run(json!({"payload": {"n": 4}}))
    .yields(json!({
        "result": {
            "from": 8, "shaped": true, "name": "first", "reference": "/do/0/first", "fixed": [1, {"a": "b"}],
            "context": {"seen": 8, "before": 4}, "input": 4, "raw": 4,
        },
        "context": {"seen": 8, "before": 4},
        "raw": 4,
    }));
}

#[test]
fn descriptors_tell_about_run_task_and_runtime() {
    World::new(
        "
        do:
          - tell:
              set:
                id: ${ $workflow.id }
                name: ${ $workflow.definition.document.name }
                started: ${ $workflow.startedAt.iso8601 }
                seconds: ${ $task.startedAt.epoch.seconds }
                definition: ${ $task.definition.metadata.note }
                runtime: ${ $runtime.name }
                output: ${ $runtime.metadata }
              metadata: {note: hello}
        ",
    )
    .run(json!(null))
    .yields(json!({
        "id": "run-1", "name": "test", "started": "2026-03-01T12:00:00.000Z", "seconds": 1_772_366_400,
        "definition": "hello", "runtime": "muster", "output": {},
    }));
}

#[test]
fn a_call_carries_the_evaluated_arguments_and_yields_the_answer() {
    let world = World::with_agents(
        "
        do:
          - ask:
              call: a2a
              with:
                server: '${ .who }'
                method: message/send
                parameters: {message: {parts: [{kind: data, data: {city: '${ .city }'}}]}}
              output: {as: '.artifacts[0].parts[0].data.temperature'}
        ",
        |called| {
            assert_eq!(called.agent, "skill://weather_forecasting");
            assert_eq!(called.data, json!({"city": "Seattle"}));
            Reply::Answer(
                json!({"artifacts": [{"parts": [{"data": {"temperature": 7}}]}]}),
                10,
            )
        },
    );
    let world = world.run(json!({"who": "skill://weather_forecasting", "city": "Seattle"}));
    world.yields(json!(7));
    assert_eq!(
        world.story(),
        [
            "run.started",
            "task.started ask",
            "call.started ask",
            "task.completed ask",
            "run.completed"
        ]
    );
}

#[test]
fn a_skipped_task_passes_its_input_on() {
    let world = World::new(
        "
        do:
          - never: {if: '.n > 5', set: {n: 100}, then: end}
          - always: {if: .n, set: {n: '${ .n + 1 }'}}
        ",
    );
    let world = world.run(json!({"n": 1}));
    world.yields(json!({"n": 2}));
    assert_eq!(world.count("task.skipped never"), 1);
}

#[test]
fn failing_expressions_fail_the_task_that_has_them() {
    for (task, pointer) in [
        ("- a: {if: 'error(\"x\")', set: {b: 1}}", "/do/0/a"),
        ("- a: {input: {from: .x.y.z}, set: {b: 1}}", "/do/0/a"),
        ("- a: {set: {b: '${ .x | keys }'}}", "/do/0/a"),
        ("- a: {set: {b: 1}, output: {as: '.b.c'}}", "/do/0/a"),
        ("- a: {set: {b: 1}, export: {as: '.b.c'}}", "/do/0/a"),
        ("- a: {switch: [{one: {when: .x.y, then: end}}]}", "/do/0/a"),
        (
            "- a: {for: {each: i, in: .x}, do: [{b: {set: {c: 1}}}]}",
            "/do/0/a",
        ),
        (
            "- a: {for: {each: i, in: '[1]'}, while: .x.y, do: [{b: {set: {c: 1}}}]}",
            "/do/0/a",
        ),
        ("- a: {do: [{b: {set: {c: '${ .x | keys }'}}}]}", "/do/0/a/do/0/b"),
    ] {
        let world = World::new(&format!("do:\n  {task}\n")).run(json!({"x": 1}));
        let error = world.faults(Standard::Expression, "");
        assert_eq!(
            (error.status, error.instance.as_deref()),
            (400, Some(pointer)),
            "{task}: {error}"
        );
    }
}

#[test]
fn failing_expressions_of_the_workflow_fail_the_run() {
    World::new("input: {from: .x.y}\ndo:\n  - a: {set: {b: 1}}\n")
        .run(json!({"x": 1}))
        .faults(Standard::Expression, "cannot index");
    World::new("output: {as: .b.y}\ndo:\n  - a: {set: {b: 1}}\n")
        .run(json!({"x": 1}))
        .faults(Standard::Expression, "cannot index");
}

#[test]
fn calls_that_cannot_be_made_say_why() {
    let call = |server: &str, parameters: &str| {
        format!(
            "do:\n  - a: {{call: a2a, with: {{server: '{server}', method: message/send, parameters: {parameters}}}}}\n"
        )
    };
    let message = "{message: {parts: [{text: hi}]}}";
    World::new(&call("${ .who }", message))
        .run(json!({"who": "nobody"}))
        .faults(Standard::Validation, "agent://ID");
    World::new(&call("${ .who }", message))
        .run(json!({"who": 5}))
        .faults(Standard::Validation, "must be text");
    World::new(&call("agent://a", "'${ {message: {parts: .who}} }'"))
        .run(json!({"who": []}))
        .faults(Standard::Validation, "at least one part");
}

#[test]
fn values_are_bounded() {
    let large = "x".repeat(crate::run::LARGEST_VALUE / 2 + 100);
    World::new("do:\n  - a: {set: {both: '${ [., .] }'}}\n")
        .run(json!(large))
        .faults(Standard::Runtime, "bytes");
    World::with_agents(
        "do:\n  - a: {call: a2a, with: {server: agent://a, method: GetTask, parameters: {id: x}}}\n",
        move |_| Reply::Answer(json!([large, large, large]), 0),
    )
    .run(json!(null))
    .faults(Standard::Runtime, "the answer has about");
    let mut world = World::new("do:\n  - a: {set: {b: 1}}\n");
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let refused = world.run.decide(
        crate::run::Stimulus::Start { input: deep },
        world.now,
        &mut rand::rng(),
    );
    assert!(matches!(refused, Err(crate::run::Error::Input(_))), "{refused:?}");
}

#[test]
fn the_context_is_the_input_of_the_workflow_until_something_is_exported() {
    let world = World::new(
        "
        use: {functions: {inner: {set: {b: '${ $context.k }'}}}}
        input: {from: '{k: .k, more: true}'}
        do:
          - first: {set: {a: '${ $context }'}}
          - called: {call: inner, output: {as: '$input + .'}}
          - exports: {set: '${ . }', export: {as: {k: other}}}
          - last: {set: '${ . + {c: $context.k} }'}
        output: {as: '. + {d: $context.k}'}
        ",
    );
    world.run(json!({"k": "v", "gone": 1})).yields(json!({
        "a": {"k": "v", "more": true},
        "b": "v",
        "c": "other",
        "d": "other",
    }));
}

//! Extensions.

use serde_json::json;

use super::*;
use crate::journal::Standard;

const ASK: &str = "call: a2a, with: {server: agent://a, method: message/send, parameters: {message: {parts: [{data: {at: '${ $task.reference }', got: '${ . }'}}]}}}";

#[test]
fn tasks_run_before_and_after_without_changing_the_data() {
    let document = format!(
        "
        use:
          extensions:
            - log:
                extend: set
                before: [{{begin: {{{ASK}}}}}]
                after: [{{end: {{{ASK}}}}}]
        do:
          - first: {{set: {{n: '${{ .n + 1 }}'}}}}
          - pause: {{wait: PT1S}}
          - second: {{set: {{n: '${{ .n + 1 }}'}}}}
        "
    );
    let world = World::new(&document).run(json!({"n": 1}));
    world.yields(json!({"n": 3}));
    let seen: Vec<_> = world.calls.iter().map(|called| called.data.clone()).collect();
    assert_eq!(
        seen,
        [
            json!({"at": "/do/0/first", "got": {"n": 1}}),
            json!({"at": "/do/0/first", "got": {"n": 2}}),
            json!({"at": "/do/2/second", "got": {"n": 2}}),
            json!({"at": "/do/2/second", "got": {"n": 3}}),
        ]
    );
    let messages: std::collections::BTreeSet<_> =
        world.calls.iter().map(|called| called.message_id).collect();
    assert_eq!(
        messages.len(),
        4,
        "each time the same task runs it sends another message"
    );
    assert!(
        world
            .journal
            .iter()
            .any(|event| event.task() == Some("/use/extensions/0/log/before/0/begin"))
    );
}

/// The example of the specification, with an agent in place of a service.
#[test]
fn exit_in_before_replaces_the_task() {
    let document = "
        use:
          extensions:
            - mock:
                extend: call
                when: $task.call == \"a2a\" and ($task.with.server | startswith(\"agent://mocked\"))
                before:
                  - intercept: {set: {status: 200}, then: exit}
                after:
                  - never: {raise: {error: {type: about:blank, status: 500}}}
        do:
          - mocked:
              call: a2a
              with: {server: agent://mocked, method: GetTask, parameters: {id: x}}
              output: {as: '{got: .status}'}
    ";
    let world = World::with_agents(document, |_| Reply::Silence).run(json!(null));
    world.yields(json!({"got": 200}));
    assert!(world.calls.is_empty());
    let other = document
        .replace("server: agent://mocked", "server: agent://real")
        .replace(
            "- never: {raise: {error: {type: about:blank, status: 500}}}",
            "- noted: {set: {x: 1}}",
        );
    let world = World::with_agents(&other, |_| Reply::Answer(json!({"status": 1}), 5)).run(json!(null));
    world.yields(json!({"got": 1}));
}

#[test]
fn several_extensions_run_in_order_around_every_kind() {
    let document = format!(
        "
        use:
          extensions:
            - one: {{extend: all, before: [{{a: {{{ASK}}}}}]}}
            - two: {{extend: composite, before: [{{b: {{{ASK}}}}}], after: [{{c: {{{ASK}}}}}]}}
        do:
          - group: {{do: [{{inner: {{set: {{x: 1}}}}}}], export: {{as: .}}}}
          - choose: {{switch: [{{go: {{when: .x == 1, then: end}}}}]}}
          - never: {{set: {{x: 2}}}}
        "
    );
    let world = World::new(&document).run(json!({}));
    world.yields(json!({"x": 1}));
    let seen: Vec<_> = world
        .calls
        .iter()
        .map(|called| called.data["at"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        seen,
        [
            "/do/0/group",
            "/do/0/group",
            "/do/0/group/do/0/inner",
            "/do/0/group",
            "/do/1/choose"
        ]
    );
}

#[test]
fn what_fails_or_times_out_in_an_extension_fails_the_task() {
    let document = format!(
        "
        use: {{extensions: [{{slow: {{extend: set, before: [{{a: {{{ASK}}}}}]}}}}]}}
        do:
          - guarded:
              try: [{{late: {{set: {{x: 1}}, timeout: {{after: PT3S}}}}}}]
              catch: {{errors: {{with: {{status: 408}}}}}}
        "
    );
    let world = World::with_agents(&document, |_| Reply::Silence).run(json!({"in": 1}));
    world.yields(json!({"in": 1}));
    assert_eq!(world.elapsed(), 3.0);
    let broken = "
        use: {extensions: [{broken: {extend: set, when: '.x | error', before: [{a: {wait: PT1S}}]}}]}
        do: [{a: {set: {x: 1}}}]
    ";
    World::new(broken)
        .run(json!({"x": "no"}))
        .faults(Standard::Expression, "no");
}

#[test]
fn an_extension_after_a_task_sees_its_output_before_and_after_the_transformation() {
    const SEES: &str = "call: a2a, with: {server: agent://log, method: message/send, parameters: {message: {parts: [{data: {raw: '${ $task.output }', got: '${ . }'}}]}}}";
    let document = format!(
        "
        use: {{extensions: [{{log: {{extend: all, when: $task.name != \"log\", after: [{{log: {{{SEES}}}}}]}}}}]}}
        do:
          - made: {{set: {{n: 1}}, output: {{as: .n}}}}
          - asked: {{call: a2a, with: {{server: agent://a, method: GetTask, parameters: {{id: x}}}}, output: {{as: .id}}}}
          - listed: {{fork: {{branches: [{{in: {{set: {{m: 2}}}}}}]}}, output: {{as: length}}}}
          - plain: {{set: {{k: 3}}}}
        "
    );
    let world = World::new(&document).run(json!({}));
    world.yields(json!({"k": 3}));
    let seen = |journal: &[crate::journal::Event]| -> Vec<serde_json::Value> {
        let mut run = crate::run::Run::new("run-1", super::world::definition(&document));
        for event in journal {
            let text = serde_json::to_string(event).unwrap();
            run.apply(&serde_json::from_str(&text).unwrap()).unwrap();
        }
        let calls = journal.iter().filter_map(|event| match &event.kind {
            crate::journal::EventKind::CallStarted {
                request: crate::request::Request::A2a(call),
                ..
            } => call.parameters.pointer("/message/parts/0/data").cloned(),
            _ => None,
        });
        calls.collect()
    };
    assert_eq!(
        seen(&world.journal),
        [
            json!({"raw": {"n": 1}, "got": 1}),
            json!({"raw": {"id": "x"}, "got": "x"}),
            json!({"raw": {"m": 2}, "got": {"m": 2}}),
            json!({"raw": [{"m": 2}], "got": 1}),
            json!({"raw": {"k": 3}, "got": {"k": 3}}),
        ]
    );
}

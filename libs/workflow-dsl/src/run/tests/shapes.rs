//! Schemas, the arguments of expressions, loose mode, and durations that are computed.

use serde_json::json;

use super::*;
use crate::journal::{EventKind, Standard};

#[test]
fn data_are_checked_at_each_stage_in_order() {
    let document = "
        input:
          schema: {document: {type: object, required: [count]}}
          from: '{n: .count}'
        output:
          schema: {document: {properties: {n: {maximum: 5}}}}
        do:
          - grow:
              input: {schema: {document: {properties: {n: {type: integer}}}}}
              set: {n: '${ .n + 1 }', extra: true}
              output: {as: '{n: .n}', schema: {document: {properties: {n: {minimum: 1}}, additionalProperties: false}}}
              export: {as: '{seen: .n}', schema: {document: {properties: {seen: {multipleOf: 2}}}}}
    ";
    World::new(document)
        .run(json!({"count": 1}))
        .yields(json!({"n": 2}));
    let error = World::new(document)
        .run(json!({}))
        .faults(Standard::Validation, "the run's input does not fit")
        .clone();
    assert_eq!(error.status, 400);
    assert!(
        error
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("\"count\" is a required"),
        "{error}"
    );
    let world = World::new(document).run(json!({"count": "x"}));
    let error = world.faults(Standard::Validation, "the input does not fit its schema: at /n");
    assert_eq!(error.instance.as_deref(), Some("/do/0/grow"));
    World::new(document)
        .run(json!({"count": -5}))
        .faults(Standard::Validation, "the output does not fit");
    World::new(document)
        .run(json!({"count": 2}))
        .faults(Standard::Validation, "the exported context does not fit");
    World::new(document).run(json!({"count": 9})).faults(
        Standard::Validation,
        "the run's output does not fit its schema: at /n",
    );
}

#[test]
fn a_schema_error_can_be_caught() {
    World::new(
        "
        do:
          - guarded:
              try: [{strict: {set: {n: 1}, output: {schema: {document: {required: [m]}}}}}]
              catch:
                errors: {with: {type: 'https://serverlessworkflow.io/spec/1.0.0/errors/validation', status: 400}}
                do: [{handle: {set: {at: '${ $error.instance }'}}}]
        ",
    )
    .run(json!({}))
    .yields(json!({"at": "/do/0/guarded/try/0/strict"}));
}

#[test]
fn loose_text_is_an_expression_or_stays_text() {
    World::new(
        "
        evaluate: {mode: loose}
        do:
          - a:
              set:
                sum: .x + 1
                text: hello, world
                braces: ${ .x }
                within: ${ .x | error }
                number: '42'
                failing: .x | error
                unknown: $nothing
                url: https://example.com/a
          - nap: {wait: .nap?.delay // \"PT1S\"}
        ",
    )
    .run(json!({"x": 1}))
    .yields(json!({
        "sum": 2, "text": "hello, world", "braces": 1, "number": 42, "failing": ".x | error", "within": "${ .x | error }", "unknown": "$nothing",
        "url": "https://example.com/a",
    }));
    // A condition must be one.
    World::new("evaluate: {mode: loose}\ndo: [{a: {if: '${ .x | error }', set: {x: 1}}}]\n")
        .run(json!({"x": "no"}))
        .faults(Standard::Expression, "no");
}

#[test]
fn durations_are_computed_and_recorded() {
    let world = World::new("do:\n  - nap: {wait: '${ .delay }'}\n").run(json!({"delay": "PT90S"}));
    assert_eq!(world.elapsed(), 90.0);
    let world = World::new("do:\n  - nap: {wait: {minutes: '${ .n }', seconds: 5}}\n").run(json!({"n": 2}));
    assert_eq!(world.elapsed(), 125.0);
    let world = World::new("do:\n  - nap: {wait: '${ .delay }'}\n").run(json!({"delay": "soon"}));
    world.faults(
        Standard::Expression,
        "the time to wait is not an ISO 8601 duration",
    );

    let call = "call: a2a, with: {server: agent://a, method: GetTask, parameters: {id: x}}";
    let document = format!(
        "use: {{timeouts: {{short: {{after: '${{ .limit }}'}}}}}}\ndo:\n  - slow: {{{call}, timeout: short}}\n"
    );
    let world = World::with_agents(&document, |_| Reply::Silence).run(json!({"limit": {"seconds": 7}}));
    world.faults(Standard::Timeout, "did not end");
    assert_eq!(world.elapsed(), 7.0);
    let world = World::with_agents(&document, |_| Reply::Silence).run(json!({"limit": "PT0S"}));
    world.faults(Standard::Expression, "must be above zero");
    let document = format!("timeout: {{after: '${{ $workflow.input.limit }}'}}\ndo:\n  - slow: {{{call}}}\n");
    let world = World::with_agents(&document, |_| Reply::Silence).run(json!({"limit": "PT9S"}));
    world.faults(Standard::Timeout, "the run did not end");
    assert_eq!(world.elapsed(), 9.0);
}

#[test]
fn a_retry_policy_may_be_computed() {
    let document = "
        do:
          - guarded:
              try: [{slow: {call: a2a, with: {server: agent://a, method: GetTask, parameters: {id: x}}}}]
              catch:
                retry:
                  delay: ${ .delay }
                  backoff: {linear: {}}
                  limit: {attempt: {count: 5, duration: '${ .each }'}, duration: '${ .all }'}
                  jitter: {from: '${ .delay }', to: '${ .delay }'}
    ";
    let input = json!({"delay": "PT1S", "each": {"seconds": 2}, "all": "PT12S"});
    let world = World::with_agents(document, |_| Reply::Silence).run(input);
    // Attempts of 2 s; pauses of 2, 3 and 4 s, the last of which would end after 12 s.
    assert_eq!(world.calls.len(), 3);
    let retried = world.journal.iter().filter_map(|event| match &event.kind {
        EventKind::TaskRetried {
            attempt_deadline,
            due,
            ..
        } => Some((*attempt_deadline, *due)),
        _ => None,
    });
    for (deadline, due) in retried {
        assert_eq!(deadline.unwrap().duration_since(due).as_secs(), 2);
    }
    world.faults(Standard::Timeout, "");
}

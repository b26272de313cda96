//! Errors: raised, caught, retried.

use serde_json::json;

use super::*;
use crate::journal::{EventKind, Standard};

const ASK: &str = "call: a2a, with: {server: agent://a, method: GetTask, parameters: {id: x}}";

fn guarded(catch: &str) -> String {
    format!(
        "
        do:
          - guarded:
              try: [{{ask: {{{ASK}}}}}]
              catch: {catch}
          - after: {{set: '${{ {{after: .}} }}'}}
        "
    )
}

fn failing(times: u32, kind: Standard) -> impl FnMut(&super::world::Called) -> Reply {
    let mut failures = 0;
    move |_| {
        failures += 1;
        if failures <= times {
            Reply::Failure(problem_of(kind), 0)
        } else {
            Reply::Answer(json!("fine"), 0)
        }
    }
}

#[test]
fn a_raised_error_is_what_the_document_says() {
    let world = World::new(
        "
        do:
          - fail:
              raise:
                error: {type: 'https://example.com/errors/broken', status: 418, title: Broken, detail: '${ \"because of \\(.why)\" }'}
        ",
    );
    let world = world.run(json!({"why": "rain"}));
    let error = serde_json::to_value(world.run.error().unwrap()).unwrap();
    let expected = json!({
        "type": "https://example.com/errors/broken", "status": 418, "title": "Broken",
        "detail": "because of rain", "instance": "/do/0/fail",
    });
    assert_eq!(error, expected);
    assert_eq!(
        world.story(),
        [
            "run.started",
            "task.started fail",
            "task.faulted fail",
            "run.faulted"
        ]
    );
}

#[test]
fn a_caught_error_is_handled_or_swallowed() {
    let catch = "{do: [{handle: {set: {status: '${ $error.status }', kind: '${ $error.type }', at: '${ $error.instance }'}}}]}";
    let world = World::with_agents(&guarded(catch), failing(1, Standard::Communication)).run(json!("in"));
    world.yields(json!({"after": {"status": 500, "kind": Standard::Communication.uri(), "at": "/do/0/guarded/try/0/ask"}}));
    let world = World::with_agents(&guarded("{}"), failing(1, Standard::Communication)).run(json!("in"));
    world.yields(json!({"after": "in"}));
    assert_eq!(world.count("task.caught guarded"), 1);
}

#[test]
fn a_try_that_succeeds_is_its_tasks() {
    World::with_agents(
        &guarded("{do: [{handle: {set: {no: 1}}}]}"),
        failing(0, Standard::Timeout),
    )
    .run(json!(null))
    .yields(json!({"after": "fine"}));
}

#[test]
fn only_errors_that_fit_are_caught() {
    let uri = Standard::Communication.uri();
    for (catch, caught) in [
        ("{errors: {with: {status: 500}}}".to_owned(), true),
        ("{errors: {with: {status: 503}}}".to_owned(), false),
        (
            format!("{{errors: {{with: {{type: '{uri}', detail: as told}}}}}}"),
            true,
        ),
        (
            format!("{{errors: {{with: {{type: '{}'}}}}}}", Standard::Timeout.uri()),
            false,
        ),
        (
            "{errors: {with: {instance: /do/0/guarded/try/0/ask}}}".to_owned(),
            true,
        ),
        ("{errors: {with: {instance: /do/0/guarded}}}".to_owned(), false),
        ("{errors: {with: {title: Communication Error}}}".to_owned(), true),
        (
            "{as: e, when: '$e.status == 500 and . == \"in\"'}".to_owned(),
            true,
        ),
        ("{when: '$error.status == 501'}".to_owned(), false),
        ("{exceptWhen: $error.status == 500}".to_owned(), false),
        ("{exceptWhen: $error.status == 501}".to_owned(), true),
    ] {
        let world =
            World::with_agents(&guarded(&catch), failing(1, Standard::Communication)).run(json!("in"));
        assert_eq!(world.run.error().is_none(), caught, "{catch}");
    }
}

#[test]
fn an_error_in_a_handler_or_its_condition_is_an_error_of_the_try() {
    let catch = "{do: [{handle: {raise: {error: {type: about:blank, status: 501}}}}]}";
    let world = World::with_agents(&guarded(catch), failing(1, Standard::Communication)).run(json!(1));
    assert_eq!(world.run.error().map(|error| error.status), Some(501));
    let world = World::with_agents(&guarded("{when: .x.y}"), failing(1, Standard::Communication))
        .run(json!({"x": 1}));
    world.faults(Standard::Expression, "cannot index");
}

#[test]
fn nested_tries_catch_from_the_inside_out() {
    World::new(
        "
        do:
          - outer:
              try:
                - inner:
                    try: [{fail: {raise: {error: {type: about:blank, status: 500}}}}]
                    catch: {errors: {with: {status: 404}}}
              catch:
                as: outer
                do: [{handle: {set: {caught: '${ $outer.status }'}}}]
        ",
    )
    .run(json!(null))
    .yields(json!({"caught": 500}));
}

#[test]
fn retries_wait_as_the_policy_says_and_end_with_success() {
    let retry = "{retry: {delay: PT2S, backoff: {exponential: {}}, limit: {attempt: {count: 5}}}}";
    let world = World::with_agents(&guarded(retry), failing(3, Standard::Communication)).run(json!("in"));
    world.yields(json!({"after": "fine"}));
    assert_eq!(world.elapsed(), 2.0 + 4.0 + 8.0);
    assert_eq!(
        world
            .calls
            .iter()
            .map(|called| called.attempt)
            .collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    let messages: std::collections::BTreeSet<_> =
        world.calls.iter().map(|called| called.message_id).collect();
    let steps: std::collections::BTreeSet<_> = world.calls.iter().map(|called| called.step_key).collect();
    assert_eq!((messages.len(), steps.len()), (4, 1));
}

#[test]
fn used_up_retries_fail_the_try_or_are_handled() {
    let retry = "retry: {limit: {attempt: {count: 2}}}";
    let world = World::with_agents(
        &guarded(&format!("{{{retry}}}")),
        failing(9, Standard::Communication),
    )
    .run(json!(1));
    world.faults(Standard::Communication, "as told");
    assert_eq!(world.calls.len(), 3, "one attempt and two retries");
    let handled = format!("{{{retry}, do: [{{handle: {{set: {{given: up}}}}}}]}}");
    let world = World::with_agents(&guarded(&handled), failing(9, Standard::Communication)).run(json!(1));
    world.yields(json!({"after": {"given": "up"}}));
    assert_eq!(world.calls.len(), 3);
}

#[test]
fn retries_end_with_their_total_duration_and_where_they_are_not_wanted() {
    let by_duration = "{retry: {delay: PT2S, limit: {duration: PT7S}}}";
    let world = World::with_agents(&guarded(by_duration), failing(99, Standard::Communication)).run(json!(1));
    assert_eq!(world.calls.len(), 4, "at 0, 2, 4 and 6 seconds");
    for condition in ["when: $error.status == 503", "exceptWhen: $error.status == 500"] {
        let catch = format!("{{retry: {{{condition}, limit: {{attempt: {{count: 5}}}}}}}}");
        let world = World::with_agents(&guarded(&catch), failing(99, Standard::Communication)).run(json!(1));
        assert_eq!(world.calls.len(), 1, "{condition}");
    }
}

#[test]
fn retries_without_a_limit_have_one_nevertheless() {
    let world = World::with_agents(
        &guarded("{retry: {delay: PT1S}}"),
        failing(9_999, Standard::Communication),
    )
    .run(json!(1));
    world.faults(Standard::Communication, "as told");
    assert_eq!(world.calls.len(), 1_001);
}

#[test]
fn a_limit_of_the_duration_holds_also_beyond_a_thousand_retries() {
    let world = World::with_agents(
        &guarded("{retry: {delay: PT1S, limit: {duration: PT1500S}}}"),
        failing(9_999, Standard::Communication),
    )
    .run(json!(1));
    world.faults(Standard::Communication, "as told");
    assert_eq!(world.calls.len(), 1_501, "the last at 1,500 seconds");
}

#[test]
fn jitter_is_recorded_and_within_its_bounds() {
    let catch = "{retry: {delay: PT1S, jitter: {from: PT0.1S, to: PT0.5S}, limit: {attempt: {count: 20}}}}";
    let world = World::with_agents(&guarded(catch), failing(20, Standard::Communication)).run(json!(1));
    let delays: Vec<f64> = world
        .journal
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::TaskRetried { due, .. } => Some(due.duration_since(event.time).as_secs_f64()),
            _ => None,
        })
        .collect();
    assert_eq!(delays.len(), 20);
    assert!(
        delays.iter().all(|delay| (1.1..=1.5).contains(delay)),
        "{delays:?}"
    );
    assert!(delays.windows(2).any(|pair| pair[0] != pair[1]), "{delays:?}");
}

#[test]
fn an_attempt_may_have_a_time_limit_of_its_own() {
    let mut calls = 0;
    let catch = "{retry: {limit: {attempt: {count: 3, duration: PT5S}}}}";
    let world = World::with_agents(&guarded(catch), move |_| {
        calls += 1;
        if calls < 3 {
            Reply::Silence
        } else {
            Reply::Answer(json!("at last"), 1_000)
        }
    });
    let world = world.run(json!(1));
    world.yields(json!({"after": "at last"}));
    assert_eq!(world.elapsed(), 11.0);
}

#[test]
fn errors_from_outside_are_cut_to_size() {
    let world = World::with_agents(&format!("do:\n  - a: {{{ASK}}}\n"), |_| {
        let mut problem = problem_of(Standard::Runtime);
        problem.detail = Some("x".repeat(1_000_000));
        Reply::Failure(problem, 0)
    });
    let world = world.run(json!(null));
    assert!(world.run.error().unwrap().detail.as_ref().unwrap().len() < 5_000);
}

#[test]
fn variables_in_the_type_of_an_error_are_replaced() {
    let raise = "do: [{a: {raise: {error: {type: 'https://e.com/{a}/{b,c}', status: 418}}}}]";
    let world = World::new(raise).run(json!({"a": "x y", "b": 1, "c": true}));
    assert_eq!(world.run.error().unwrap().kind, "https://e.com/x%20y/1,true");
    World::new(raise)
        .run(json!({"a": []}))
        .faults(Standard::Expression, "the type of the error: '{a}'");
    let reused = "
        use: {errors: {bad: {type: 'https://e.com/{a}', status: 418}}}
        do:
          - guarded:
              try: [{a: {raise: {error: bad}}}]
              catch: {errors: {with: {type: 'https://e.com/x'}}, do: [{done: {set: {done: true}}}]}
    ";
    World::new(reused)
        .run(json!({"a": "x"}))
        .yields(json!({"done": true}));
}

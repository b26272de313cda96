//! Compensation of completed tasks.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::journal::{Event, EventKind, Problem, Standard};
use crate::run::{BlockerKind, Effect, MOST_COMPENSATIONS, Run, Status, Stimulus};

/// A task that asks agent `do-NAME`, and has it undone by `undo-NAME`, which is sent what was done.
fn step(name: &str) -> String {
    let call = |agent: String, data: &str| {
        format!(
            "call: a2a, with: {{server: 'agent://{agent}', method: SendMessage, parameters: {{message: {{parts: [{{data: '${{ {data} }}'}}]}}}}}}"
        )
    };
    format!(
        "{name}: {{{}, metadata: {{muster: {{compensation: {{{}}}}}}}}}",
        call(format!("do-{name}"), "{n: (.n + 1)}"),
        call(
            format!("undo-{name}"),
            "{was: ., took: $compensated.input, of: $compensated.name}"
        )
    )
}

const FAIL: &str = "fail: {raise: {error: {type: about:blank, status: 500, detail: no luck}}}";

fn agents(world: &World) -> Vec<&str> {
    world
        .calls
        .iter()
        .map(|called| called.agent.trim_start_matches("agent://"))
        .collect()
}

#[test]
fn completed_tasks_are_taken_back_in_reverse_order_when_the_run_fails() {
    let document = format!("do:\n  - {}\n  - {}\n  - {FAIL}\n", step("a"), step("b"));
    let world = World::new(&document).run(json!({"n": 0}));
    let error = world.run.error().unwrap();
    assert_eq!((world.run.status(), error.status), (Status::Faulted, 500));
    assert_eq!(agents(&world), ["do-a", "do-b", "undo-b", "undo-a"]);
    assert_eq!(
        world.calls[2].data,
        json!({"was": {"n": 2}, "took": {"n": 1}, "of": "b"})
    );
    let report = world.run.compensation().unwrap();
    assert_eq!(report.done, [Arc::from("/do/1/b"), Arc::from("/do/0/a")]);
    assert!(report.failed.is_empty() && report.left.is_empty());
    let story = world.story();
    let tail = &story[story.iter().position(|line| line == "run.compensating").unwrap()..];
    let part = [
        "task.started compensation",
        "call.started compensation",
        "task.completed compensation",
    ];
    let each = |name: &str| {
        let (start, end) = (
            format!("compensation.started {name}"),
            format!("compensation.completed {name}"),
        );
        [vec![start], part.map(str::to_owned).to_vec(), vec![end]].concat()
    };
    let expected = [
        vec!["run.compensating".to_owned()],
        each("b"),
        each("a"),
        vec!["run.faulted".to_owned()],
    ]
    .concat();
    assert_eq!(tail, expected);
    let ids: std::collections::BTreeSet<_> = world.calls.iter().map(|called| called.message_id).collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn a_run_that_completes_takes_nothing_back() {
    let world = World::new(&format!("do:\n  - {}\n", step("a"))).run(json!({"n": 0}));
    world.yields(json!({"n": 1}));
    assert_eq!((world.calls.len(), world.run.compensation()), (1, None));
}

#[test]
fn a_cancelled_run_takes_back_and_a_terminated_one_does_not() {
    let document = format!("do:\n  - {}\n  - nap: {{wait: PT1H}}\n", step("a"));
    for (wish, calls) in [
        (
            Stimulus::Cancel {
                by: String::new(),
                reason: "enough".into(),
            },
            vec!["do-a", "undo-a"],
        ),
        (
            Stimulus::Terminate {
                by: String::new(),
                reason: "enough".into(),
            },
            vec!["do-a"],
        ),
    ] {
        let mut world = World::new(&document);
        world.decide(Stimulus::Start {
            input: json!({"n": 0}),
        });
        world.step();
        world.decide(wish);
        world.go_on();
        assert_eq!((world.run.status(), agents(&world)), (Status::Cancelled, calls));
        assert!(
            matches!(&world.journal.last().unwrap().kind, EventKind::RunCancelled { reason } if reason == "enough")
        );
    }
}

#[test]
fn a_compensation_that_fails_is_reported_and_stops_no_other() {
    let document = format!("do:\n  - {}\n  - {}\n  - {FAIL}\n", step("a"), step("b"));
    let world = World::with_agents(&document, |called| match called.agent.as_str() {
        "agent://undo-b" => Reply::Failure(problem_of(Standard::Communication), 0),
        _ => Reply::Answer(called.data.clone(), 0),
    });
    let world = world.run(json!({"n": 0}));
    assert_eq!(
        world.run.error().unwrap().detail.as_deref(),
        Some("no luck"),
        "the cause stays"
    );
    let report = world.run.compensation().unwrap();
    assert_eq!(report.done, [Arc::from("/do/0/a")]);
    let (task, error) = &report.failed[0];
    assert_eq!(
        (&**task, error.kind.as_str()),
        ("/do/1/b", &*Standard::Communication.uri())
    );
    assert_eq!(world.count("compensation.faulted b"), 1);
}

#[test]
fn a_compensation_is_a_task_with_retries_of_its_own() {
    let compensation = "{try: [{undo: {call: a2a, with: {server: 'agent://undo', method: GetTask, parameters: {id: x}}}}], \
                        catch: {retry: {delay: PT1S, limit: {attempt: {count: 3}}}}}";
    let document = format!(
        "do:\n  - a: {{set: {{n: 1}}, metadata: {{muster: {{compensation: {compensation}}}}}}}\n  - {FAIL}\n"
    );
    let mut failures = 2;
    let world = World::with_agents(&document, move |_| {
        failures -= 1;
        match failures {
            0.. => Reply::Failure(problem_of(Standard::Communication), 0),
            _ => Reply::Answer(json!(1), 0),
        }
    });
    let world = world.run(json!(null));
    assert_eq!(
        world
            .calls
            .iter()
            .map(|called| called.attempt)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(world.run.compensation().unwrap().done, [Arc::from("/do/0/a")]);
}

#[test]
fn each_execution_is_taken_back_with_the_variables_that_it_saw() {
    let document = format!(
        "
        do:
          - each:
              for: {{each: word, in: .}}
              do:
                - one:
                    set: {{said: '${{ $word }}'}}
                    metadata: {{muster: {{compensation: {{do: [{{unsay: {{call: a2a, with: {{server: 'agent://un', method: SendMessage, parameters: {{message: {{parts: [{{data: '${{ [$word, $index, .said] }}'}}]}}}}}}}}}}]}}}}}}
          - {FAIL}
        "
    );
    let world = World::new(&document).run(json!(["x", "y"]));
    let told: Vec<_> = world.calls.iter().map(|called| called.data.clone()).collect();
    assert_eq!(told, [json!(["y", 1, "y"]), json!(["x", 0, "x"])]);
    assert_ne!(world.calls[0].message_id, world.calls[1].message_id);
}

#[test]
fn losers_and_caught_branches_are_taken_back_too() {
    let document = format!(
        "
        do:
          - guarded:
              try: [{{inner: {{do: [{{{}}}, {{{FAIL}}}]}}}}]
              catch: {{do: [{{note: {{set: {{n: 5}}}}}}]}}
          - {}
          - {FAIL}
        ",
        step("a"),
        step("b")
    );
    let world = World::new(&document).run(json!({"n": 0}));
    assert_eq!(agents(&world), ["do-a", "do-b", "undo-b", "undo-a"]);
}

#[test]
fn a_timeout_of_the_run_takes_back_within_as_much_time_again() {
    let document = format!(
        "timeout: {{after: PT60S}}\ndo:\n  - {}\n  - {}\n  - nap: {{wait: PT1H}}\n",
        step("a"),
        step("b")
    );
    let world = World::with_agents(&document, |called| match called.agent.as_str() {
        "agent://undo-b" => Reply::Silence,
        _ => Reply::Answer(called.data.clone(), 0),
    });
    let world = world.run(json!({"n": 0}));
    world.faults(Standard::Timeout, "the run did not end");
    assert_eq!(world.elapsed(), 120.0);
    let report = world.run.compensation().unwrap();
    assert_eq!(report.left, [Arc::from("/do/1/b"), Arc::from("/do/0/a")]);
}

#[test]
fn a_run_says_that_it_compensates() {
    let document = format!("do:\n  - {}\n  - {FAIL}\n", step("a"));
    let mut world = World::with_agents(&document, |called| match called.agent.as_str() {
        "agent://undo-a" => Reply::Silence,
        _ => Reply::Answer(called.data.clone(), 0),
    });
    world.decide(Stimulus::Start {
        input: json!({"n": 0}),
    });
    world.step();
    let why = world.run.waiting(world.now);
    assert_eq!(
        (why[0].kind, why[1].kind),
        (BlockerKind::Compensating, BlockerKind::Call)
    );
    assert!(
        why[0]
            .message
            .contains("takes back what it did: 0 of 1 tasks, now /do/0/a"),
        "{}",
        why[0].message
    );
    let nothing = world.decide(Stimulus::Cancel {
        by: String::new(),
        reason: String::new(),
    });
    assert!(nothing.is_empty(), "it is ending");
}

#[test]
fn what_can_be_remembered_is_bounded_and_said_before_the_task_begins() {
    let document = "
        do:
          - many:
              for: {each: n, in: '[range(1001)]'}
              do: [{one: {set: {a: 1}, metadata: {muster: {compensation: {set: {b: 1}}}}}}]
        ";
    let world = World::new(document).run(json!(null));
    world.faults(Standard::Runtime, "a run remembers at most 1000 tasks");
    assert_eq!(world.run.compensation().unwrap().done.len(), MOST_COMPENSATIONS);
}

#[test]
fn events_of_compensations_that_do_not_fit_are_refused() {
    let document = format!("do:\n  - {}\n  - nap: {{wait: PT1H}}\n", step("a"));
    let mut world = World::new(&document);
    world.decide(Stimulus::Start {
        input: json!({"n": 0}),
    });
    world.step();
    let error = Problem::standard(Standard::Runtime, "x");
    let (a, b): (Arc<str>, Arc<str>) = ("/do/0/a".into(), "/do/1/b".into());
    let refused = |run: &mut Run, kind: EventKind| {
        let event = Event {
            index: run.next_index(),
            time: run.time(),
            kind,
        };
        assert!(run.apply(&event).is_err(), "{event:?}");
    };
    let tasks = |tasks: &[&Arc<str>]| EventKind::RunCompensating {
        tasks: tasks.iter().map(|task| Arc::clone(task)).collect(),
        deadline: None,
        error: Some(error.clone()),
    };
    refused(&mut world.run, tasks(&[&b]));
    refused(
        &mut world.run,
        EventKind::CompensationStarted {
            task: a.clone(),
            activation: 0,
        },
    );
    let event = Event {
        index: world.run.next_index(),
        time: world.run.time(),
        kind: tasks(&[&a]),
    };
    world.run.apply(&event).unwrap();
    refused(&mut world.run, tasks(&[&a]));
    refused(
        &mut world.run,
        EventKind::CompensationStarted {
            task: a.clone(),
            activation: 7,
        },
    );
    refused(
        &mut world.run,
        EventKind::CompensationCompleted {
            task: a.clone(),
            activation: 0,
        },
    );
    assert!(matches!(world.run.effects()[..], [Effect::Timer { .. }]));
}

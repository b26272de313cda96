//! Waits, timeouts, cancellation, and what a run says about itself.

use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::journal::Standard;
use crate::run::{Effect, Status, Stimulus};

const ASK: &str = "call: a2a, with: {server: agent://a, method: GetTask, parameters: {id: x}}";

#[test]
fn a_wait_lasts_as_long_as_it_says() {
    let world = World::new("do:\n  - nap: {wait: {minutes: 90}}\n").run(json!("in"));
    world.yields(json!("in"));
    assert_eq!(world.elapsed(), 5400.0);
}

#[test]
fn a_task_times_out_and_the_error_can_be_caught() {
    let document = format!("do:\n  - slow: {{{ASK}, timeout: {{after: PT30S}}}}\n");
    let world = World::with_agents(&document, |_| Reply::Silence).run(json!(null));
    let error = world.faults(Standard::Timeout, "/do/0/slow did not end within its timeout");
    assert_eq!(
        (error.status, error.instance.as_deref()),
        (408, Some("/do/0/slow"))
    );
    assert_eq!(world.elapsed(), 30.0);
    let document = format!(
        "
        do:
          - guarded:
              try: [{{inner: {{do: [{{slow: {{{ASK}}}}}], timeout: {{after: PT10S}}}}}}]
              catch: {{errors: {{with: {{status: 408}}}}, do: [{{handle: {{set: {{late: '${{ $error.instance }}'}}}}}}]}}
        "
    );
    let world = World::with_agents(&document, |_| Reply::Silence).run(json!(null));
    world.yields(json!({"late": "/do/0/guarded/try/0/inner"}));
}

#[test]
fn the_run_times_out_whatever_it_does() {
    let document = format!(
        "
        timeout: {{after: PT1M}}
        do:
          - guarded:
              try: [{{slow: {{{ASK}}}}}]
              catch: {{do: [{{handle: {{set: {{never: 1}}}}}}]}}
        "
    );
    let world = World::with_agents(&document, |_| Reply::Silence).run(json!(null));
    world.faults(Standard::Timeout, "the run did not end");
    assert_eq!(world.elapsed(), 60.0);
}

#[test]
fn calls_carry_the_earliest_deadline_around_them() {
    let document = format!(
        "
        timeout: {{after: PT1H}}
        do:
          - outer:
              timeout: {{after: PT20S}}
              do:
                - slow: {{{ASK}, timeout: {{after: PT30S}}}}
        "
    );
    let mut world = World::with_agents(&document, |_| Reply::Silence);
    world.decide(Stimulus::Start { input: json!(null) });
    let effects = world.run.effects();
    let twenty = world.now + SignedDuration::from_secs(20);
    assert!(matches!(&effects[0], Effect::Call { deadline: Some(due), attempt: 1, .. } if *due == twenty));
    assert_eq!(effects[1], Effect::Timer { due: twenty });
}

#[test]
fn what_was_due_while_nobody_looked_happens_in_its_order() {
    let mut world = World::new(
        "do:\n  - outer: {timeout: {after: PT10S}, do: [{nap: {wait: PT5S}}, {ask: {call: a2a, with: {server: agent://a, method: GetTask, parameters: {id: x}}}}]}\n",
    );
    world.decide(Stimulus::Start { input: json!(null) });
    world.now += SignedDuration::from_secs(60);
    world.decide(Stimulus::Tick);
    world.faults(Standard::Timeout, "/do/0/outer");
    assert!(
        world.story().iter().position(|line| line == "task.completed nap")
            < world.story().iter().position(|line| line == "task.faulted outer")
    );
}

#[test]
fn a_run_can_be_ended_once() {
    let mut world = World::with_agents(&format!("do:\n  - slow: {{{ASK}}}\n"), |_| Reply::Silence);
    world.decide(Stimulus::Start { input: json!(null) });
    let terminate = |reason: &str| Stimulus::Terminate {
        by: String::new(),
        reason: reason.into(),
    };
    assert_eq!(world.decide(terminate("enough")).len(), 1);
    assert_eq!(
        (world.run.status(), world.run.effects()),
        (Status::Cancelled, vec![])
    );
    for late in [
        terminate("again"),
        Stimulus::Cancel {
            by: String::new(),
            reason: "again".into(),
        },
        Stimulus::Tick,
        Stimulus::Start { input: json!(null) },
        Stimulus::CallReturned {
            activation: 0,
            attempt: 1,
            result: Ok(json!(1)),
        },
    ] {
        assert!(world.decide(late).is_empty());
    }
}

#[test]
fn stale_answers_change_nothing() {
    let document = format!("do:\n  - slow: {{{ASK}}}\n");
    let mut world = World::with_agents(&document, |_| Reply::Silence);
    world.decide(Stimulus::Start { input: json!(null) });
    for (activation, attempt) in [(0, 2), (1, 1), (99, 1)] {
        let answer = Stimulus::CallReturned {
            activation,
            attempt,
            result: Ok(json!(1)),
        };
        assert!(world.decide(answer).is_empty(), "{activation} {attempt}");
    }
    assert!(world.decide(Stimulus::Start { input: json!(null) }).is_empty());
    let answer = || Stimulus::CallReturned {
        activation: 0,
        attempt: 1,
        result: Ok(json!(1)),
    };
    assert_eq!(world.decide(answer()).len(), 2);
    assert!(world.decide(answer()).is_empty());
}

#[test]
fn the_journal_does_not_go_back_in_time() {
    let mut world = World::with_agents(&format!("do:\n  - slow: {{{ASK}}}\n"), |_| Reply::Silence);
    world.decide(Stimulus::Start { input: json!(null) });
    let started = world.now;
    world.now -= SignedDuration::from_hours(1);
    let events = world.decide(Stimulus::CallReturned {
        activation: 0,
        attempt: 1,
        result: Ok(json!(1)),
    });
    assert!(events.iter().all(|event| event.time == started));
}

#[test]
fn a_run_explains_what_it_waits_for() {
    let document = format!(
        "
        do:
          - all:
              fork:
                branches:
                  - ask: {{{ASK}, timeout: {{after: PT1M}}}}
                  - nap: {{wait: PT30S}}
                  - again: {{try: [{{fail: {{raise: {{error: {{type: about:blank, status: 500}}}}}}}}], catch: {{retry: {{delay: PT5S, limit: {{attempt: {{count: 3}}}}}}}}}}
        "
    );
    let mut world = World::with_agents(&document, |_| Reply::Silence);
    world.decide(Stimulus::Start { input: json!(null) });
    let lines = world.run.activity(world.now + SignedDuration::from_secs(2));
    let branches = "/do/0/all/fork/branches";
    assert_eq!(
        lines,
        [
            format!(
                "{branches}/0/ask waits for agent://a to answer GetTask since 2026-03-01T12:00:00.000Z (2 s ago), at most until 2026-03-01T12:01:00.000Z (in 58 s)"
            ),
            format!("{branches}/1/nap waits until 2026-03-01T12:00:30.000Z (in 28 s)"),
            format!(
                "{branches}/2/again waits until 2026-03-01T12:00:05.000Z (in 3 s) before attempt 2; the last one failed: about:blank (at {branches}/2/again/try/0/fail)"
            ),
        ]
    );
}

//! Pausing, resuming, cancelling in good order, terminating.

use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::journal::{Event, EventKind, Standard};
use crate::run::{BlockerKind, CANCELLATION, Effect, Run, Status, Stimulus};

const ASK: &str = "call: a2a, with: {server: agent://a, method: GetTask, parameters: {id: x}}";

fn pause() -> Stimulus {
    Stimulus::Pause {
        by: "ada".into(),
        reason: "let me look".into(),
    }
}

fn resume() -> Stimulus {
    Stimulus::Resume {
        by: "ada".into(),
        reason: String::new(),
    }
}

fn cancel() -> Stimulus {
    Stimulus::Cancel {
        by: "ada".into(),
        reason: "enough".into(),
    }
}

fn started(document: &str) -> World {
    let mut world = World::with_agents(document, |_| Reply::Silence);
    world.decide(Stimulus::Start {
        input: json!({"n": 1}),
    });
    world
}

fn answer(activation: u64) -> Stimulus {
    Stimulus::CallReturned {
        activation,
        attempt: 1,
        result: Ok(json!("fine")),
    }
}

#[test]
fn nothing_new_starts_while_a_run_is_paused_and_what_was_in_flight_is_recorded() {
    let mut world = started(&format!("do:\n  - one: {{{ASK}}}\n  - two: {{{ASK}}}\n"));
    assert_eq!(world.decide(pause()).len(), 1);
    assert!(world.decide(pause()).is_empty(), "it is paused");
    assert!(world.run.waits_outside());
    let events = world.decide(answer(0));
    let names: Vec<&str> = events.iter().map(Event::name).collect();
    assert_eq!(names, ["task.completed"]);
    assert!(world.decide(Stimulus::Tick).is_empty());
    assert_eq!(world.run.effects(), []);
    let why = world.run.waiting(world.now);
    assert_eq!(why[0].kind, BlockerKind::Paused);
    assert!(
        why[0].message.contains("is paused by ada (let me look) since"),
        "{}",
        why[0].message
    );
    world.decide(resume());
    assert!(world.decide(resume()).is_empty(), "it goes on");
    assert!(matches!(&world.run.effects()[0], Effect::Call { task, .. } if task.ends_with("/two")));
}

#[test]
fn limits_of_time_move_by_the_pause_and_the_end_of_a_wait_does_not() {
    let document = format!(
        "
        timeout: {{after: PT60S}}
        do:
          - both:
              fork:
                branches:
                  - ask: {{{ASK}, timeout: {{after: PT30S}}}}
                  - nap: {{wait: PT40S}}
        "
    );
    let mut world = started(&document);
    let began = world.now;
    world.now += SignedDuration::from_secs(10);
    world.decide(pause());
    world.now += SignedDuration::from_secs(100);
    assert!(world.decide(Stimulus::Tick).is_empty(), "no timer fires");
    world.decide(resume());
    assert_eq!(world.count("task.completed nap"), 1, "it was due meanwhile");
    let due = began + SignedDuration::from_secs(130);
    assert!(world.run.effects().contains(&Effect::Timer { due }));
    world.go_on();
    world.faults(Standard::Timeout, "/do/0/both/fork/branches/0/ask");
    assert_eq!(world.elapsed(), 130.0);
}

#[test]
fn limits_of_time_move_by_the_time_in_line_unless_they_were_over_before() {
    let document = format!(
        "
        timeout: {{after: PT60S}}
        do:
          - both:
              fork:
                branches:
                  - late: {{try: [{{ask: {{{ASK}, timeout: {{after: PT10S}}}}}}], catch: {{}}}}
                  - ask: {{{ASK}, timeout: {{after: PT30S}}}}
        "
    );
    let mut world = started(&document);
    let since = world.now + SignedDuration::from_secs(10);
    world.now = since + SignedDuration::from_secs(100);
    world.decide(Stimulus::Queued { since });
    assert_eq!(world.count("run.queued"), 1);
    assert_eq!(world.count("task.caught late"), 1, "it was due before");
    world.go_on();
    world.faults(Standard::Timeout, "/do/0/both/fork/branches/1/ask");
    assert_eq!(world.elapsed(), 130.0);
}

#[test]
fn the_duration_of_retries_moves_by_the_pause() {
    let document = format!(
        "do: [{{it: {{try: [{{ask: {{{ASK}, timeout: {{after: PT1S}}}}}}], catch: {{retry: {{delay: PT5S, limit: {{duration: PT8S}}}}}}}}}}]"
    );
    let mut world = started(&document);
    world.now += SignedDuration::from_millis(500);
    world.decide(pause());
    world.now += SignedDuration::from_secs(100);
    world.decide(resume());
    world.go_on();
    assert_eq!(
        world.count("task.retried it"),
        1,
        "the second attempt begins at 6 seconds and more than 100"
    );
    world.faults(Standard::Timeout, "/do/0/it/try/0/ask");
    assert_eq!(world.elapsed(), 107.0);
}

#[test]
fn a_run_that_has_not_begun_can_be_paused_and_ended() {
    let mut world = World::new("do:\n  - a: {set: {x: 1}}\n");
    world.decide(pause());
    assert!(world.decide(Stimulus::Start { input: json!(1) }).is_empty());
    assert_eq!(
        (world.run.status(), world.run.has_begun()),
        (Status::Pending, false)
    );
    world.decide(resume());
    world.decide(Stimulus::Start { input: json!(1) });
    world.yields(json!({"x": 1}));

    let mut world = World::new("do:\n  - a: {set: {x: 1}}\n");
    world.decide(cancel());
    assert_eq!((world.run.status(), world.journal.len()), (Status::Cancelled, 1));
    assert!(world.decide(Stimulus::Start { input: json!(1) }).is_empty());
}

#[test]
fn a_cancellation_reaches_every_branch_and_handlers_run_once_and_without_retries() {
    let branch = |name: &str| {
        format!(
            "{name}: {{try: [{{slow: {{{ASK}}}}}], catch: {{retry: {{limit: {{attempt: {{count: 5}}}}}}, do: [{{tidy: {{{ASK}}}}}]}}}}"
        )
    };
    let document = format!(
        "do:\n  - both: {{fork: {{branches: [{{{}}}, {{{}}}]}}}}\n  - never: {{set: {{no: 1}}}}\n",
        branch("one"),
        branch("two")
    );
    let mut world = started(&document);
    let before = world.run.effects();
    world.decide(cancel());
    assert_eq!(world.run.status(), Status::Running);
    let after = world.run.effects();
    assert!(
        before.iter().all(|effect| !after.contains(effect)),
        "the calls are abandoned"
    );
    assert_eq!(
        (world.count("task.faulted slow"), world.count("task.started tidy")),
        (2, 2)
    );
    assert_eq!(world.run.waiting(world.now)[0].kind, BlockerKind::Cancelling);
    assert!(world.decide(cancel()).is_empty(), "once is enough");
    let tidying: Vec<u64> = after
        .iter()
        .filter_map(world::key)
        .map(|(activation, _)| activation)
        .collect();
    world.decide(answer(tidying[0]));
    assert_eq!(world.run.status(), Status::Running, "the other branch tidies up");
    world.decide(answer(tidying[1]));
    assert_eq!(world.run.status(), Status::Cancelled);
    assert_eq!(
        world.count("task.retried one") + world.count("task.started never"),
        0
    );
    assert_eq!(world.count("task.faulted both"), 1);
    let error = world.journal.iter().find_map(|event| match &event.kind {
        EventKind::TaskFaulted { error, .. } => Some(error.clone()),
        _ => None,
    });
    let error = error.unwrap();
    assert_eq!((error.kind.as_str(), error.status), (CANCELLATION, 499));
    assert!(error.detail.unwrap().contains("cancelled by ada (enough)"));
}

#[test]
fn a_handler_only_sees_a_cancellation_that_its_catch_fits() {
    for (with, tidies) in [
        ("{status: 499}", 1),
        ("{status: 500}", 0),
        (&*format!("{{type: '{CANCELLATION}'}}"), 1),
    ] {
        let document = format!(
            "do:\n  - guarded: {{try: [{{slow: {{wait: PT1H}}}}], catch: {{errors: {{with: {with}}}, do: [{{tidy: {{set: {{a: 1}}}}}}]}}}}\n"
        );
        let mut world = started(&document);
        world.decide(cancel());
        assert_eq!(world.run.status(), Status::Cancelled);
        assert_eq!(world.count("task.started tidy"), tidies, "{with}");
    }
}

#[test]
fn whatever_a_run_waits_for_a_cancellation_ends_it() {
    for task in [
        "{wait: PT1H}",
        "{try: [{fail: {raise: {error: {type: about:blank, status: 500}}}}], catch: {retry: {delay: PT1H, limit: {attempt: {count: 3}}}}}",
        "{for: {each: n, in: '[1, 2]'}, do: [{nap: {wait: PT1H}}]}",
        "{fork: {compete: true, branches: [{a: {wait: PT1H}}, {b: {do: [{c: {wait: PT1H}}]}}]}}",
        "{try: [{fail: {raise: {error: {type: about:blank, status: 500}}}}], catch: {do: [{nap: {wait: PT1H}}]}}",
        "{try: [{nap: {wait: PT1H}}], catch: {}}",
        "{try: [{nap: {wait: PT1H}}], catch: {do: [{leave: {set: {a: 1}, then: end}}]}}",
    ] {
        let mut world = started(&format!("do:\n  - t: {task}\n  - never: {{set: {{no: 1}}}}\n"));
        world.decide(cancel());
        assert_eq!(world.run.status(), Status::Cancelled, "{task}");
        assert_eq!(world.count("task.started never"), 0, "{task}");
    }
}

#[test]
fn a_paused_run_that_is_cancelled_runs_its_handlers() {
    let document = "do:\n  - guarded: {try: [{slow: {wait: PT1H}}], catch: {do: [{tidy: {set: {a: 1}}}]}}\n";
    let mut world = started(document);
    world.decide(pause());
    world.decide(cancel());
    assert_eq!(
        (world.run.status(), world.count("task.started tidy")),
        (Status::Cancelled, 1)
    );
}

#[test]
fn handlers_of_a_cancelled_run_are_bound_by_the_time_of_the_run() {
    let document = format!(
        "timeout: {{after: PT1M}}\ndo:\n  - guarded: {{try: [{{slow: {{{ASK}}}}}], catch: {{do: [{{tidy: {{{ASK}}}}}]}}}}\n"
    );
    let mut world = started(&document);
    world.decide(cancel());
    world.go_on();
    assert_eq!((world.run.status(), world.elapsed()), (Status::Cancelled, 60.0));
}

#[test]
fn the_end_at_once_runs_nothing_more() {
    let document = "do:\n  - guarded: {try: [{slow: {wait: PT1H}}], catch: {do: [{tidy: {set: {a: 1}}}]}}\n";
    let mut world = started(document);
    let terminate = Stimulus::Terminate {
        by: "ada".into(),
        reason: "now".into(),
    };
    assert_eq!(world.decide(terminate).len(), 1);
    assert_eq!(
        (world.run.status(), world.run.effects()),
        (Status::Cancelled, vec![])
    );
}

#[test]
fn wishes_survive_in_the_journal() {
    let document = format!("do:\n  - one: {{{ASK}}}\n");
    let mut world = started(&document);
    world.decide(pause());
    let mut folded = Run::new("run-1", definition(&document));
    for event in &world.journal {
        let text = serde_json::to_string(event).unwrap();
        folded.apply(&serde_json::from_str(&text).unwrap()).unwrap();
    }
    assert_eq!(folded.paused_by(), Some("ada"));
    assert_eq!(folded.effects(), world.run.effects());
}

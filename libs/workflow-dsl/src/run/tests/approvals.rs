//! People decide before a task begins: what they are asked, what follows, and whose time it is.

use jiff::SignedDuration;
use serde_json::json;

use super::world::World;
use crate::journal::Own;
use crate::run::{BlockerKind, Status, Stimulus};

/// A task that asks before it sets something.
fn gated(more: &str) -> String {
    format!(
        "- pay: {{set: {{paid: '${{ .amount }}'}}, metadata: {{muster: {{approval: {{title: '${{ \"Pay \\(.amount)\" }}', assignees: '${{ .who }}'{more}}}}}}}}}"
    )
}

fn asked(document: &str) -> World {
    let mut world = World::new(document);
    world.decide(Stimulus::Start {
        input: json!({"amount": 7, "who": ["ada", "bob"]}),
    });
    world
}

#[test]
fn nothing_of_a_task_happens_before_it_is_approved() {
    let document = format!(
        "use: {{extensions: [{{log: {{extend: set, before: [{{note: {{call: a2a, with: {{server: 'agent://log', method: SendMessage, parameters: {{message: {{parts: [{{data: 1}}]}}}}}}}}}}], after: [{{x: {{set: {{x: 1}}}}}}]}}}}]}}\ndo:\n  {}\n",
        gated(", details: {total: '${ .amount }'}")
    );
    let mut world = asked(&document);
    world.go_on();
    assert_eq!(
        world.story(),
        ["run.started", "task.started pay", "approval.opened pay"]
    );
    let approval = world.run.approvals().next().unwrap().clone();
    assert_eq!(approval.question.title, "Pay 7");
    assert_eq!(approval.question.assignees, ["ada", "bob"]);
    assert_eq!(approval.question.details.as_deref(), Some(&json!({"total": 7})));
    assert!(world.run.waits_outside() && world.run.effects().is_empty());
    let blocker = world.run.waiting(world.now).remove(0);
    assert_eq!(blocker.kind, BlockerKind::Approval);
    assert!(
        blocker.message.contains("approval run-1.2 by ada, bob: 'Pay 7'"),
        "{}",
        blocker.message
    );

    assert_eq!(world.say(1, true), [], "there is no such approval");
    assert!(!world.say(2, true).is_empty());
    assert_eq!(world.say(2, false), [], "it was decided");
    world.go_on();
    world.yields(json!({"paid": 7}));
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn no_is_an_error_that_can_be_caught_and_another_attempt_asks_again() {
    let world = World::new(&format!("do:\n  {}\n", gated(""))).asking(|_| Some((false, 0)));
    let world = world.run(json!({"amount": 1, "who": "ada"}));
    let error = world.run.error().unwrap();
    assert_eq!(
        (error.kind.as_str(), error.status),
        (Own::ApprovalRejected.uri(), 403)
    );
    assert_eq!(error.instance.as_deref(), Some("/do/0/pay"));
    assert!(
        error
            .detail
            .as_deref()
            .unwrap()
            .contains("'Pay 1' was rejected by ada")
    );

    let document = format!(
        "do:\n  - safe:\n      try: [{}]\n      catch: {{errors: {{with: {{type: '{}'}}}}, retry: {{limit: {{attempt: {{count: 1}}}}}}, do: [{{no: {{set: {{paid: nothing}}}}}}]}}\n",
        gated("").trim_start_matches("- "),
        Own::ApprovalRejected.uri()
    );
    let document = document
        .replace("try: [pay:", "try: [{pay:")
        .replace("}]\n      catch", "}}]\n      catch");
    let twice = World::new(&document).asking(|approval| Some((approval.number > 4, 0)));
    twice
        .run(json!({"amount": 1, "who": "ada"}))
        .yields(json!({"paid": 1}));
    let never = World::new(&document).asking(|_| Some((false, 0)));
    never
        .run(json!({"amount": 1, "who": "ada"}))
        .yields(json!({"paid": "nothing"}));
}

#[test]
fn silence_escalates_and_then_fails() {
    let mut world = asked(&format!(
        "do:\n  {}\n",
        gated(", deadline: PT2H, escalate: {after: PT1H, to: [boss]}")
    ));
    world.step();
    assert_eq!(world.elapsed(), 3600.0);
    let approval = world.run.approvals().next().unwrap();
    assert_eq!(approval.asked().collect::<Vec<_>>(), ["ada", "bob", "boss"]);
    world.go_on();
    assert_eq!(world.elapsed(), 7200.0);
    let error = world.run.error().unwrap();
    assert_eq!(
        (error.kind.as_str(), error.status),
        (Own::ApprovalExpired.uri(), 408)
    );
    assert!(
        error
            .detail
            .as_deref()
            .unwrap()
            .contains("by ada, bob, boss in time")
    );
    assert_eq!(world.count("approval.escalated pay"), 1);
}

#[test]
fn a_pause_gives_people_as_much_more_time() {
    let mut world = asked(&format!(
        "do:\n  {}\n",
        gated(", deadline: PT2H, escalate: {after: PT1H, to: [boss]}")
    ));
    world.now += SignedDuration::from_mins(30);
    world.decide(Stimulus::Pause {
        by: "ada".into(),
        reason: String::new(),
    });
    world.now += SignedDuration::from_hours(10);
    world.decide(Stimulus::Resume {
        by: "ada".into(),
        reason: String::new(),
    });
    assert_eq!(world.count("approval.escalated pay"), 0);
    world.step();
    assert_eq!(world.elapsed(), 11.0 * 3600.0);
    assert_eq!(world.count("approval.escalated pay"), 1);
    world.go_on();
    assert_eq!(world.elapsed(), 12.0 * 3600.0);
    assert_eq!(world.run.error().unwrap().kind, Own::ApprovalExpired.uri());
}

#[test]
fn several_are_open_at_once_and_decided_in_any_order() {
    let document = "
        do:
          - all:
              fork:
                branches:
                  - a: {set: a, metadata: {muster: {approval: {title: A, assignees: ada}}}}
                  - b: {set: b, metadata: {muster: {approval: {title: B, assignees: ada}}}}
                  - c: {set: c}
    "
    .replace("set: a,", "set: '${ \"a\" }',")
    .replace("set: b,", "set: '${ \"b\" }',")
    .replace("set: c}", "set: '${ \"c\" }'}");
    let mut world = asked(&document);
    let open =
        |world: &World| -> Vec<u64> { world.run.approvals().map(|approval| approval.number).collect() };
    let [a, b] = open(&world)[..] else {
        panic!("{:?}", world.story())
    };
    world.say(b, true);
    assert_eq!(open(&world), [a]);
    world.say(a, true);
    world.yields(json!(["a", "b", "c"]));
}

#[test]
fn the_time_of_people_counts_against_no_time_limit() {
    let document = format!(
        "timeout: {{after: PT10S}}\ndo:\n  - outer:\n      timeout: {{after: PT8S}}\n      do:\n        - before: {{wait: PT3S}}\n        {}\n        - rest: {{wait: PT4S}}\n",
        gated(", deadline: P1D")
            .replace("metadata", "timeout: {after: PT1S}, metadata")
            .replace("set: {paid: '${ .amount }'}", "set: '${ . }'")
    );
    let patient = World::new(&document).asking(|_| Some((true, 3_600_000)));
    let world = patient.run(json!({"amount": 7, "who": "ada"}));
    assert_eq!(world.run.status(), Status::Completed, "{:?}", world.run.error());
    assert_eq!(world.elapsed(), 3607.0);

    let late = World::new(&document.replace("wait: PT4S", "wait: PT6S")).asking(|_| Some((true, 3_600_000)));
    let world = late.run(json!({"amount": 7, "who": "ada"}));
    assert_eq!(world.run.error().unwrap().status, 408);
    assert_eq!(world.elapsed(), 3608.0, "the task's limit has moved by the hour");
}

#[test]
fn beside_a_branch_that_works_the_clock_goes_on() {
    let document = format!(
        "timeout: {{after: PT10S}}\ndo:\n  - both:\n      fork:\n        branches:\n          - nap: {{wait: PT1H}}\n          {}\n",
        gated("")
    );
    let world = World::new(&document).asking(|_| Some((true, 7_200_000)));
    let world = world.run(json!({"amount": 7, "who": "ada"}));
    assert_eq!(world.elapsed(), 10.0);
    assert_eq!(world.run.status(), Status::Faulted);
    assert!(!world.run.waits_outside());
}

#[test]
fn what_cannot_be_asked_fails_the_task() {
    for (input, expected) in [
        (json!({"amount": 1, "who": []}), "1 to 32 names"),
        (json!({"amount": 1, "who": [1]}), "1 to 32 names"),
        (json!({"amount": 1, "who": [" "]}), "1 to 32 names"),
    ] {
        let world = World::new(&format!("do:\n  {}\n", gated(""))).run(input);
        world.faults(crate::journal::Standard::Expression, expected);
    }
}

#[test]
fn cancelling_a_run_ends_its_approvals() {
    let mut world = asked(&format!("do:\n  {}\n", gated(", deadline: PT1H")));
    world.decide(Stimulus::Cancel {
        by: String::new(),
        reason: "enough".into(),
    });
    assert_eq!(world.run.approvals().count(), 0);
    assert!(world.run.effects().is_empty() && !world.run.waits_outside());
}

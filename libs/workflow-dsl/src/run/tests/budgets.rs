//! Budgets: what is counted, who is asked, and what follows.

use serde_json::{Value, json};

use super::world::{Reply, World};
use crate::journal::{Breach, Own, Verdict};
use crate::run::spending::Exhausted;
use crate::run::{BlockerKind, Status, Stimulus};
use crate::usage::{KEY, Limits, Usage};

/// A document with a budget, whose agents each use what they are asked to.
fn with_budget(budget: &str, tasks: &str) -> World {
    let document = format!(
        "document: {{dsl: '1.0.0', namespace: test, name: test, version: '1.0.0', metadata: {{muster: {{budget: {budget}}}}}}}\ndo:\n{tasks}"
    );
    World::with_agents(&document, |called| {
        let answer = json!({"id": "t", "metadata": {KEY: {"tokens": called.data}}});
        Reply::Answer(answer, 1000)
    })
}

fn call(name: &str, tokens: u32) -> String {
    format!(
        "  - {name}: {{call: a2a, with: {{server: 'agent://a', method: SendMessage, parameters: {{message: {{parts: [{{data: {tokens}}}]}}}}}}}}\n"
    )
}

fn tokens(tokens: u64) -> Usage {
    Usage {
        tokens,
        cost_micros: 0,
    }
}

fn two() -> String {
    call("one", 70) + &call("two", 40) + &call("three", 5)
}

#[test]
fn below_its_budget_a_run_asks_nobody() {
    let world = with_budget("{tokens: 200}", &two()).run(json!({}));
    assert_eq!(world.run.status(), Status::Completed);
    assert_eq!(world.run.spent(), tokens(115));
    assert_eq!(world.count("approval.opened three"), 0);
    assert_eq!(world.run.spent_on_the_last_day().1, tokens(115));
}

#[test]
fn the_next_call_is_held_until_more_is_allowed() {
    let budget = "{tokens: 100, assignees: '${ .who }', escalate: {after: PT1H, to: boss}}";
    let mut world = with_budget(budget, &two());
    world.decide(Stimulus::Start {
        input: json!({"who": "ada"}),
    });
    world.go_on();
    assert_eq!(world.calls.len(), 2, "the call that used it up is answered");
    let approval = world.run.approvals().next().unwrap().clone();
    assert_eq!(approval.asked().collect::<Vec<_>>(), ["ada", "boss"]);
    assert_eq!(
        approval.question.title,
        "the run has used 110 tokens and 0 of money of a budget of 100 tokens; let it use more?"
    );
    let blocker = world.run.waiting(world.now).remove(0);
    assert_eq!(blocker.kind, BlockerKind::Budget);
    assert_eq!(blocker.details["budget"], json!({"tokens": 100}));
    assert_eq!(blocker.details["spent"]["tokens"], 110);
    world.say(approval.number, true);
    world.go_on();
    assert_eq!(world.run.status(), Status::Completed, "100 more");
    assert_eq!(world.count("approval.decided three"), 1);
}

#[test]
fn a_small_raise_is_asked_about_again_and_an_exact_one_is_recorded() {
    let tasks = call("one", 100) + &call("two", 10) + &call("three", 10);
    let mut world = with_budget("{tokens: 100}", &tasks);
    world.decide(Stimulus::Start { input: json!({}) });
    world.go_on();
    let number = world.run.approvals().next().unwrap().number;
    world.decide(Stimulus::Decide {
        approval: number,
        verdict: Verdict {
            approved: true,
            by: "ada".into(),
            comment: String::new(),
            raise: Some(Limits {
                tokens: Some(10),
                cost_micros: None,
            }),
        },
    });
    world.go_on();
    assert_eq!(world.calls.len(), 2);
    assert_eq!(world.run.approvals().count(), 1, "asked again");
}

#[test]
fn after_a_no_each_call_fails_and_nobody_is_asked_again() {
    let tasks = format!(
        "  - first: {}\n  - safe:\n      try: [{{second: {}}}]\n      catch: {{errors: {{with: {{type: '{}'}}}}, do: [{{third: {}}}]}}\n",
        call("x", 100).trim().trim_start_matches("- x: "),
        call("x", 1).trim().trim_start_matches("- x: "),
        Own::BudgetExceeded.uri(),
        call("x", 1).trim().trim_start_matches("- x: "),
    );
    let world = with_budget("{tokens: 100}", &tasks).asking(|_| Some((false, 1)));
    let world = world.run(json!({}));
    let error = world.run.error().unwrap();
    assert_eq!(
        (error.kind.as_str(), error.status),
        (Own::BudgetExceeded.uri(), 402)
    );
    assert_eq!(world.calls.len(), 1);
    assert_eq!(
        world
            .story()
            .iter()
            .filter(|line| line.starts_with("approval.opened"))
            .count(),
        1
    );

    let late = with_budget("{tokens: 100, deadline: PT1H}", &two()).run(json!({}));
    assert_eq!(late.run.error().unwrap().kind, Own::BudgetExceeded.uri());
    assert_eq!(late.count("approval.expired three"), 1);
}

#[test]
fn several_calls_are_held_by_one_question() {
    let branches = ["a", "b", "c"].map(|name| format!("            {}", call(name, 1).trim_start()));
    let tasks = format!(
        "{}  - all:\n      fork:\n        branches:\n{}",
        call("first", 100),
        branches.concat()
    );
    let mut world = with_budget("{tokens: 100}", &tasks);
    world.decide(Stimulus::Start { input: json!({}) });
    world.go_on();
    assert_eq!(world.run.approvals().count(), 1);
    assert_eq!(world.run.waiting(world.now).len(), 3);
    assert!(world.run.waits_outside() && world.run.effects().is_empty());
    let number = world.run.approvals().next().unwrap().number;
    world.say(number, true);
    assert_eq!(world.run.effects().len(), 3);
    world.go_on();
    assert_eq!(world.run.status(), Status::Completed);
}

#[test]
fn the_budget_of_a_namespace_is_asked_about_in_its_runs() {
    let mut world = World::new(&format!("do:\n{}{}", call("one", 1), call("two", 1)));
    let exhausted = || Exhausted {
        breach: Breach {
            namespace: Some("test".into()),
            spent: tokens(1000),
            limits: Limits {
                tokens: Some(1000),
                cost_micros: None,
            },
            renews: None,
        },
        assignees: vec!["treasurer".into()],
    };
    world.run.know_namespace(Some(exhausted()));
    world.decide(Stimulus::Start { input: Value::Null });
    let approval = world.run.approvals().next().unwrap().clone();
    assert_eq!(approval.question.assignees, ["treasurer"]);
    assert!(
        approval
            .question
            .title
            .starts_with("namespace 'test' has used 1000 tokens")
    );
    assert!(world.calls.is_empty());
    world.say(approval.number, true);
    world.go_on();
    assert_eq!(world.run.status(), Status::Completed, "it may use as much again");
}

#[test]
fn a_report_is_counted_once() {
    let mut world = with_budget("{tokens: 100}", &call("one", 1));
    world.decide(Stimulus::Start { input: json!({}) });
    let used = |attempt| Stimulus::Used {
        activation: 0,
        attempt,
        usage: tokens(7),
    };
    assert_eq!(world.decide(used(2)), [], "another attempt");
    assert_eq!(world.decide(used(1)).len(), 1);
    assert_eq!(world.decide(used(1)), [], "again, after a crash");
    assert_eq!(world.run.spent(), tokens(7));
}

#[test]
fn the_end_of_a_run_ends_the_question() {
    let mut world = with_budget("{tokens: 1, deadline: PT1H}", &two());
    world.decide(Stimulus::Start { input: json!({}) });
    world.step();
    assert_eq!(world.run.approvals().count(), 1);
    world.decide(Stimulus::Cancel {
        by: String::new(),
        reason: "enough".into(),
    });
    assert_eq!(world.run.approvals().count(), 0);
    assert!(world.run.effects().is_empty());
}

#[test]
fn what_a_budget_holds_goes_on_when_it_is_renewed_and_is_held_again_if_that_is_used_up() {
    let mut world = World::new(&format!("do:\n{}{}", call("one", 1), call("two", 1)));
    let start = world.now;
    let exhausted = |renews| Exhausted {
        breach: Breach {
            namespace: Some("test".into()),
            spent: tokens(1000),
            limits: Limits {
                tokens: Some(1000),
                cost_micros: None,
            },
            renews: Some(renews),
        },
        assignees: vec!["treasurer".into()],
    };
    let hour = jiff::SignedDuration::from_hours(1);
    world.run.know_namespace(Some(exhausted(start + hour)));
    world.decide(Stimulus::Start { input: Value::Null });
    let first = world.run.approvals().next().unwrap().number;

    world.now = start + hour;
    world.run.know_namespace(Some(exhausted(start + hour * 2)));
    world.decide(Stimulus::Tick);
    assert_eq!(world.count("budget.renewed one"), 1);
    let second = world.run.approvals().next().unwrap().number;
    assert!(second > first && world.calls.is_empty());

    world.now = start + hour * 2;
    world.run.know_namespace(None);
    world.decide(Stimulus::Tick);
    assert_eq!(world.run.approvals().count(), 0);
    world.go_on();
    assert_eq!(world.run.status(), Status::Completed);
}

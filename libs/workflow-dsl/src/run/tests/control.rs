//! Where the flow goes: `then`, switch, loops and branches.

use serde_json::json;

use super::*;
use crate::journal::Standard;
use crate::run::{MOST_TASKS_AT_ONCE, Status, Stimulus};

#[test]
fn then_leads_on_back_out_and_to_the_end() {
    let document = "
        do:
          - count: {set: {n: '${ .n + 1 }'}}
          - inner:
              do:
                - leave: {set: {n: '${ .n }', left: true}, then: exit}
                - never: {set: {never: true}}
          - again:
              switch:
                - more: {when: .n < 3, then: count}
                - end: {when: .left, then: finish}
          - skipped: {set: {skipped: true}}
          - finish: {set: {n: '${ .n }'}, then: end}
          - beyond: {set: {beyond: true}}
        ";
    let world = World::new(document).run(json!({"n": 0}));
    world.yields(json!({"n": 3}));
    assert_eq!(
        (
            world.count("task.completed count"),
            world.count("task.started never")
        ),
        (3, 0)
    );
}

#[test]
fn a_switch_takes_the_first_case_that_holds_then_the_default() {
    let document = "
        do:
          - choose:
              switch:
                - otherwise: {then: other}
                - big: {when: . > 10, then: big}
                - bigger: {when: . > 5, then: small}
          - small: {set: {is: small}, then: end}
          - big: {set: {is: big}, then: end}
          - other: {set: {is: other}}
        ";
    for (input, expected) in [(20, "big"), (7, "small"), (1, "other")] {
        World::new(document)
            .run(json!(input))
            .yields(json!({"is": expected}));
    }
    let world = World::new(document).run(json!(20));
    let line = serde_json::to_string(&world.journal).unwrap();
    assert!(line.contains(r#""case":"big""#), "{line}");
}

#[test]
fn a_switch_without_a_case_that_holds_goes_on() {
    World::new("do:\n  - s: {switch: [{a: {when: 'false', then: end}}]}\n  - t: {set: {on: true}}\n")
        .run(json!(1))
        .yields(json!({"on": true}));
}

#[test]
fn a_loop_passes_each_output_to_the_next_iteration() {
    World::new(
        "
        do:
          - each:
              for: {each: word, in: .words, at: i}
              do:
                - join: {set: {words: '${ .words }', text: '${ (.text // \"\") + \"\\($i)\" + $word }'}}
              output: {as: .text}
        ",
    )
    .run(json!({"words": ["a", "b", "c"]}))
    .yields(json!("0a1b2c"));
}

#[test]
fn a_loop_ends_early_or_does_nothing() {
    let document = "
        do:
          - each:
              for: {each: n, in: .}
              while: $n < 3
              do: [{last: {set: {n: '${ $n }', index: '${ $index }'}}}]
        ";
    World::new(document)
        .run(json!([1, 2, 3, 1]))
        .yields(json!({"n": 2, "index": 1}));
    World::new(document).run(json!([])).yields(json!([]));
}

#[test]
fn loops_nest_and_calls_know_their_iterations() {
    let document = "
        do:
          - rows:
              for: {each: row, in: .}
              do:
                - columns:
                    for: {each: column, in: $row, at: at}
                    do:
                      - ask: {call: a2a, with: {server: agent://a, method: message/send, parameters: {message: {parts: [{data: '${ [$row, $column, $at, $index] }'}]}}}}
        ";
    let world = World::new(document).run(json!([["a", "b"], ["c"]]));
    let asked: Vec<_> = world.calls.iter().map(|called| called.data.clone()).collect();
    assert_eq!(
        json!(asked),
        json!([
            [["a", "b"], "a", 0, 0],
            [["a", "b"], "b", 1, 0],
            [["c"], "c", 0, 1]
        ])
    );
    let ids: std::collections::BTreeSet<_> = world.calls.iter().map(|called| called.step_key).collect();
    assert_eq!(ids.len(), 3, "each iteration is a step of its own");
    let iterations = world.journal.iter().filter_map(|event| match &event.kind {
        crate::journal::EventKind::TaskStarted { task, iterations, .. } if task.ends_with("ask") => {
            Some(iterations.clone())
        }
        _ => None,
    });
    assert_eq!(
        iterations.collect::<Vec<_>>(),
        [vec![0, 0], vec![0, 1], vec![1, 0]]
    );
}

const FORK: &str = "
    do:
      - both:
          fork:
            compete: COMPETE
            branches:
              - slow: {call: a2a, with: {server: agent://slow, method: GetTask, parameters: {id: x}}}
              - fast: {call: a2a, with: {server: agent://fast, method: GetTask, parameters: {id: x}}}
              - plain: {do: [{nap: {wait: PT2S}}, {say: {set: {plain: true}}}]}
      - after: {set: '${ {got: .} }'}
    ";

fn fork(compete: bool, agents: impl FnMut(&str) -> Reply + 'static) -> World {
    let mut agents = agents;
    World::with_agents(&FORK.replace("COMPETE", &compete.to_string()), move |called| {
        agents(&called.agent)
    })
}

fn by_speed(agent: &str) -> Reply {
    let delay = if agent == "agent://slow" { 5_000 } else { 1_000 };
    Reply::Answer(json!(agent), delay)
}

#[test]
fn branches_run_at_once_and_their_outputs_keep_their_order() {
    let world = fork(false, by_speed).run(json!(null));
    world.yields(json!({"got": ["agent://slow", "agent://fast", {"plain": true}]}));
    assert_eq!(world.elapsed(), 5.0);
}

#[test]
fn the_first_branch_wins_and_the_others_are_cancelled() {
    let world = fork(true, by_speed).run(json!(null));
    world.yields(json!({"got": "agent://fast"}));
    assert_eq!(world.elapsed(), 1.0);
    assert_eq!(world.run.effects(), []);
}

#[test]
fn a_failing_branch_fails_the_fork_and_ends_the_others() {
    let world = fork(false, |agent| match agent {
        "agent://fast" => Reply::Failure(problem_of(Standard::Communication), 100),
        _ => Reply::Silence,
    });
    let world = world.run(json!(null));
    let error = world.faults(Standard::Communication, "as told");
    assert_eq!(error.instance.as_deref(), Some("/do/0/both/fork/branches/1/fast"));
    assert_eq!(world.count("task.faulted both"), 1);
    assert_eq!(world.elapsed(), 0.1);
}

#[test]
fn a_branch_that_fails_first_fails_a_race_unless_its_error_is_caught() {
    let race = |first: &str| {
        let document = format!(
            "
            do:
              - race:
                  fork:
                    compete: true
                    branches:
                      - first: {first}
                      - second: {{do: [{{nap: {{wait: PT1S}}}}, {{won: {{set: {{won: second}}}}}}]}}
            "
        );
        World::new(&document).run(json!(null))
    };
    let raise = "{raise: {error: {type: 'https://example.com/errors/bad', status: 500}}}";
    let world = race(raise);
    assert_eq!(world.run.status(), Status::Faulted);
    let error = world.run.error().unwrap();
    assert_eq!(error.kind, "https://example.com/errors/bad");
    assert_eq!(world.elapsed(), 0.0);
    // Whoever wants the others to go on lets the branch wait for them.
    let guarded = format!("{{try: [{{bad: {raise}}}], catch: {{do: [{{out: {{wait: PT1H}}}}]}}}}");
    race(&guarded).yields(json!({"won": "second"}));
}

#[test]
fn a_skipped_branch_does_not_win() {
    let document = "
        do:
          - race:
              fork:
                compete: true
                branches:
                  - not: {if: 'false', set: {not: true}}
                  - runs: {wait: PT1S}
        ";
    let world = World::new(document).run(json!({"in": 1}));
    world.yields(json!({"in": 1}));
    assert_eq!(world.elapsed(), 1.0);
    World::new(&document.replace("wait: PT1S", "if: 'false', wait: PT1S"))
        .run(json!({"in": 1}))
        .yields(json!({"in": 1}));
}

#[test]
fn the_end_in_a_branch_ends_the_run() {
    World::new(
        "
        do:
          - both:
              fork:
                branches:
                  - long: {wait: PT1H}
                  - ends: {do: [{nap: {wait: PT1S}}, {out: {set: {ended: true}, then: end}}]}
          - never: {set: {never: true}}
        ",
    )
    .run(json!(null))
    .yields(json!({"ended": true}));
}

#[test]
fn what_is_decided_at_once_is_bounded_in_bytes() {
    let world = World::new(
        "do:\n  - all: {for: {each: i, in: '${ [range(9000)] }'}, do: [{big: {set: {x: '${ \"abcdefghij\" * 100000 }'}}}]}\n",
    );
    let world = world.run(json!(null));
    world.faults(Standard::Runtime, "recorded more than 16777216 bytes");
    assert!(world.count("task.completed big") < 20);
}

#[test]
fn what_is_evaluated_at_once_is_bounded() {
    // Each evaluation is within its own bound, all together are not.
    let tasks = "do:\n  - all: {for: {each: i, in: '${ [range(9000)] }'}, do: [{hard: {set: '${ last(range(90000)) }'}}]}\n";
    let world = World::new(tasks).run(json!(null));
    world.faults(Standard::Runtime, "needed more than 8000000 steps");
    assert!(world.count("task.completed hard") < 1000);
    // With a pause in between it is no longer at once.
    let tasks = "do:\n  - all: {for: {each: i, in: '${ [range(60)] }'}, do: [{hard: {set: '${ last(range(90000)) }'}}, {rest: {wait: PT1S}}]}\n";
    World::new(tasks).run(json!(null)).yields(json!(89_999));
}

#[test]
fn what_a_run_holds_is_bounded() {
    let branch = |index: usize| {
        format!(
            "{{b{index}: {{do: [{{nap: {{wait: {{milliseconds: {index}}}}}}}, {{big: {{set: '${{ \"0123456789\" * 300000 }}'}}}}, {{rest: {{wait: PT1H}}}}]}}}}"
        )
    };
    let branches = |count: usize| {
        let branches: Vec<String> = (1..=count).map(branch).collect();
        format!(
            "do:\n  - many: {{fork: {{compete: true, branches: [{}]}}}}\n",
            branches.join(", ")
        )
    };
    let world = World::new(&branches(40)).run(json!(null));
    world.faults(Standard::Runtime, "50331648 is the most");
    assert!(world.count("task.completed big") < 20);
    assert_eq!(
        World::new(&branches(10)).run(json!(null)).run.status(),
        Status::Completed
    );
}

#[test]
fn a_flow_in_circles_is_ended() {
    let world = World::new("do:\n  - a: {set: {x: 1}}\n  - b: {set: {y: 1}, then: a}\n").run(json!(null));
    world.faults(Standard::Runtime, "more than 10000 tasks");
    let started = world.count("task.started a") + world.count("task.started b");
    assert_eq!(started as u64, MOST_TASKS_AT_ONCE);
    let world = World::new(
        "do:\n  - a: {try: [{b: {raise: {error: {type: about:blank, status: 500}}}}], catch: {retry: {delay: PT0S}}}\n",
    );
    world.run(json!(null)).faults_with("about:blank");
}

#[test]
fn a_circle_that_waits_is_a_run_that_waits() {
    let mut world = World::new("do:\n  - a: {wait: PT1H}\n  - b: {set: {y: 1}, then: a}\n");
    world.decide(Stimulus::Start { input: json!(null) });
    for _ in 0..100 {
        assert!(world.step());
    }
    assert_eq!(world.run.status(), Status::Running);
    assert_eq!(world.run.active_tasks(), 1, "what has ended is forgotten");
}

impl World {
    #[track_caller]
    fn faults_with(&self, kind: &str) {
        assert_eq!(self.run.error().map(|error| error.kind.as_str()), Some(kind));
    }
}

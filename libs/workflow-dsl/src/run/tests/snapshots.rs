//! A run that is put away as bytes and taken up again is the same run.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::replay::{agents, document, log, outcome, people, retried, steered};
use super::rewinding::folded;
use super::*;
use crate::run::snapshot::{FORMAT, Unreadable};
use crate::run::{Run, Status, Stimulus};

/// The run from its own bytes.
fn put_away(run: &Run) -> Run {
    let bytes = run.snapshot();
    Run::restored(run.id(), Arc::clone(run.definition()), &bytes)
        .unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&bytes)))
}

fn text(run: &Run) -> String {
    String::from_utf8(run.snapshot()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_run_that_is_put_away_between_any_two_steps_does_the_same(definition in document(), seed in any::<u64>()) {
        let world = || log(World::of(Arc::clone(&definition), agents(seed))).asking(people(seed, false));
        let whole = world().run(json!({"n": 0}));
        let mut again = world();
        again.decide(Stimulus::Start { input: json!({"n": 0}) });
        loop {
            let effects = again.run.effects();
            again.run = put_away(&again.run);
            prop_assert_eq!(again.run.effects(), effects);
            if !again.step() {
                break;
            }
        }
        prop_assert_eq!(&again.journal, &whole.journal);
        prop_assert_eq!(outcome(&again.run), outcome(&whole.run));
    }

    #[test]
    fn what_is_written_depends_on_the_events_alone(
        definition in document(),
        seed in any::<u64>(),
        wishes in prop::collection::vec((0..12_usize, 0..4_u8), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut whole = log(World::of(Arc::clone(&definition), agents(seed))).asking(people(seed, true));
        whole.decide(Stimulus::Start { input: json!({"n": 0}) });
        steered(&mut whole, &wishes);
        retried(&mut whole);
        steered(&mut whole, &[]);
        let parsed: Vec<_> = whole
            .journal
            .iter()
            .map(|event| serde_json::from_str(&serde_json::to_string(event).unwrap()).unwrap())
            .collect();
        let (decided, from_text) = (text(&whole.run), text(&folded(&whole, "run-1", &parsed).0));
        prop_assert_eq!(&from_text, &decided);

        // From a snapshot in the middle on, where all that was recorded before it still counts.
        let retried = whole.journal.iter().any(|event| event.name() == "run.retried");
        if !retried {
            let kept = cut.index(parsed.len() + 1);
            let mut run = put_away(&folded(&whole, "run-1", &parsed[..kept]).0);
            for event in &parsed[kept..] {
                run.apply(event).unwrap();
                prop_assert_eq!(text(&put_away(&run)), text(&run));
            }
            prop_assert_eq!(&text(&run), &decided);
        }
    }
}

#[test]
fn a_value_in_many_places_is_written_once() {
    let large = "x".repeat(10_000);
    let branches: Vec<String> = (0..50)
        .map(|index| format!("{{b{index}: {{wait: PT1H}}}}"))
        .collect();
    let mut world = World::new(&format!(
        "do:\n  - all: {{fork: {{branches: [{}]}}}}\n",
        branches.join(", ")
    ));
    world.decide(Stimulus::Start {
        input: json!({"text": large}),
    });
    let written = text(&world.run);
    assert_eq!(written.matches(&large).count(), 1);
    assert!(written.len() < large.len() + 50 * 500, "{} bytes", written.len());
    world.run = put_away(&world.run);
    assert_eq!(text(&world.run), written);
    world.go_on();
    assert_eq!(world.run.status(), Status::Completed);
}

#[test]
fn variables_of_loops_and_catches_are_there_again() {
    let mut world = World::new(
        "
        do:
          - outer:
              for: {each: a, in: '[1, 2]', at: i}
              do:
                - inner:
                    for: {each: b, in: '[10, 20]'}
                    do:
                      - nap: {wait: PT1S}
                      - add: {set: '${ . + [$a * 100 + $b + $i] }'}
        ",
    );
    world.decide(Stimulus::Start { input: json!([]) });
    loop {
        world.run = put_away(&world.run);
        if !world.step() {
            break;
        }
    }
    world.yields(json!([110, 120, 211, 221]));
}

#[test]
fn what_is_no_snapshot_is_refused_and_says_why() {
    let mut world = World::new("do:\n  - nap: {wait: PT1H}\n");
    world.decide(Stimulus::Start { input: Value::Null });
    let bytes = world.run.snapshot();
    let restored = |bytes: &[u8]| Run::restored("run-1", Arc::clone(world.run.definition()), bytes);
    let newer = text(&world.run).replacen(&format!("\"format\":{FORMAT}"), "\"format\":99", 1);
    assert_eq!(restored(newer.as_bytes()).unwrap_err(), Unreadable::Format(99));
    for end in 0..bytes.len() {
        let error = restored(&bytes[..end]).unwrap_err();
        assert!(matches!(error, Unreadable::Damaged(_)), "{end}: {error}");
    }
    let missing = text(&world.run).replacen("\"input\":", "\"input\":7000,\"was\":", 1);
    let error = restored(missing.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("no value 7000"), "{error}");
    let other = definition("do:\n  - other: {set: {a: 1}}\n");
    let error = Run::restored("run-1", other, &bytes).unwrap_err().to_string();
    assert!(error.contains("/do/0/nap"), "{error}");
}

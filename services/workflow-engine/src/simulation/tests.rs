use super::*;

/// Seeds of a test run. More: `muster sim --seeds N`.
const SEEDS: u64 = 60;

#[test]
fn no_promise_is_broken() {
    let simulation = Simulation::new().unwrap();
    let mut figures = Figures::default();
    for seed in 0..SEEDS {
        let outcome = simulation.run(seed);
        assert_eq!(
            outcome.violation,
            None,
            "seed {seed}\n{}",
            outcome.trace.join("\n")
        );
        figures += outcome.figures;
    }
    assert!(
        figures.faults > SEEDS
            && figures.completed > SEEDS
            && figures.resent > 0
            && figures.timers > 0
            && figures.starts > 0
            && figures.strays > 0,
        "{figures:?}"
    );
}

#[test]
fn a_seed_replays_exactly() {
    let simulation = Simulation::new().unwrap();
    // Of those, some have several engines, and processes that freeze with several of their tasks waiting.
    for seed in (0..3).chain([131, 2_347]) {
        let (one, other) = (simulation.run(seed), simulation.run(seed));
        assert_eq!(one, other);
    }
    assert_ne!(simulation.run(1).digest, simulation.run(2).digest);
}

/// Which promises it may be seen to break.
fn broken_by(sabotage: Sabotage) -> &'static [Invariant] {
    match sabotage {
        Sabotage::ForgetsAcknowledged | Sabotage::ForgetsEvent => &[Invariant::AcknowledgedIsDurable],
        Sabotage::AcknowledgesEarly | Sabotage::RaisesAttempt => &[Invariant::CallsAreAskedFor],
        // What is not found again is not counted either.
        Sabotage::ForgetsTimers => &[Invariant::RunsEnd, Invariant::LimitsHold],
        Sabotage::HurriesTimers => &[Invariant::TimersWait],
        Sabotage::RepeatsTimer => &[Invariant::TimersFireOnce],
        Sabotage::SkipsEntry => &[Invariant::JournalsAreWhole],
        Sabotage::RepeatsRecorded => &[Invariant::RecordedStepsStay],
        Sabotage::CallsTwice => &[Invariant::CallsAreMadeOnce],
        Sabotage::MiscountsSlots | Sabotage::MiscountsNamespace | Sabotage::ForgetsGroups => {
            &[Invariant::LimitsHold]
        }
        Sabotage::AnswersAnew => &[Invariant::OutputsAgree],
        Sabotage::KeepsOldState => &[Invariant::RecordedStepsStay, Invariant::RunsEnd],
        Sabotage::IgnoresFences => &[Invariant::FencesHold],
        Sabotage::ForgetsOthers => &[Invariant::LimitsHold],
        Sabotage::SkipsInstant | Sabotage::RepeatsEvent => &[Invariant::StartsHappenOnce],
    }
}

#[test]
fn every_broken_promise_is_seen() {
    const MOST: u64 = 400;
    let simulation = Simulation::new().unwrap();
    for sabotage in Sabotage::ALL {
        let mut outcomes = (0..MOST).map(|seed| simulation.run_with(seed, Some(sabotage)));
        let violation = outcomes.find_map(|outcome| outcome.violation);
        let violation = violation.unwrap_or_else(|| panic!("{sabotage:?} is not seen in {MOST} seeds"));
        assert!(
            broken_by(sabotage).contains(&violation.invariant),
            "{sabotage:?}: {violation}"
        );
    }
}

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use muster_runtime::clock::Clock as _;
use muster_runtime::{Shutdown, Tasks};
use muster_store::redis::members::Member;
use muster_workflow_dsl::cloud_event::CloudEvent;
use muster_workflow_dsl::request;
use serde_json::json;

use super::clock::Virtual;
use super::disk::Disk;
use super::plan::{End, Plan};
use super::shared::Seat;
use super::*;
use crate::caller::Progress;
use crate::caller::emit::Emitter;
use crate::config;
use crate::events::Events;
use crate::off_thread::Inline;
use crate::store::events::EventLog as _;

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

#[test]
fn an_event_is_emitted_although_the_store_is_away_for_a_while() {
    let outage = Duration::from_secs(20);
    let plan = Plan {
        outages: vec![(Duration::ZERO, outage)],
        ..Plan::new(3)
    };
    let world = Arc::new(World::new(
        Arc::new(plan),
        None,
        &|_| Arc::new(fleet::Direct),
        false,
    ));
    let _inline = Inline::begin();
    life::runtime().unwrap().block_on(async {
        let clock = Virtual::showing(world::epoch());
        let me = Member {
            address: "engine-0".to_owned(),
            name: "engine-0".to_owned(),
        };
        let seat = Seat::new(Arc::clone(&world), clock, 0, me, BTreeMap::new());
        let definitions = life::definitions(&world);
        let seat = Some(Arc::new(seat));
        let disk = Arc::new(Disk::new(
            Arc::clone(&world),
            clock,
            definitions,
            0,
            End::Done,
            seat,
        ));
        let shutdown = Shutdown::new();
        let events = Events::new(
            Arc::clone(&disk) as _,
            Arc::new(clock),
            config::Events::default(),
            Tasks::unsupervised(shutdown.clone()),
            shutdown,
        );
        let event = json!({"specversion": "1.0", "id": "1", "source": "/test", "type": "told"});
        let emit = request::Emit {
            event: CloudEvent::try_from(event).unwrap(),
        };
        let emitter = Emitter::new(Arc::new(events));
        emitter.call(&emit, &Progress::default()).await.unwrap();
        let waited = clock.now().duration_since(world::epoch());
        assert!(waited >= SignedDuration::try_from(outage).unwrap(), "{waited}");
        assert_eq!(disk.next_position().await.unwrap(), 2, "it is there, and once");
    });
}

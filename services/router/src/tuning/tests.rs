use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    least_share: 300,
    places: 2..=500,
};

/// So many answers, each of which took so many seconds, and so many failures.
fn period(answers: u64, each: f64, failed: u64) -> Period {
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let seconds = answers as f64 * each;
    Period {
        succeeded: answers,
        failed,
        timed: answers,
        seconds,
    }
}

fn to(steps: &[Option<Step>]) -> Vec<Option<u32>> {
    steps
        .iter()
        .map(|step| step.as_ref().map(|step| step.to))
        .collect()
}

#[test]
fn the_slow_and_the_failing_get_less_and_say_why() {
    let fast = (WHOLE, period(20, 0.1, 0));
    let slow = (WHOLE, period(20, 0.2, 0));
    let steps = shares(&[fast, slow, fast], &BOUNDS);
    assert_eq!(to(&steps), [None, Some(900), None]);
    assert_eq!(
        steps[1].as_ref().unwrap().evidence,
        "0.200 s in the mean of 20 answers, and 0.100 s of its siblings'; more than 1.5 times is slow"
    );
    // Of two, and of three of which two are slow.
    assert_eq!(to(&shares(&[slow, fast], &BOUNDS)), [Some(900), None]);
    assert_eq!(
        to(&shares(&[slow, fast, slow], &BOUNDS)),
        [Some(900), None, Some(900)]
    );
    let failing = (WHOLE, period(17, 0.1, 3));
    let steps = shares(&[fast, failing], &BOUNDS);
    assert_eq!(to(&steps), [None, Some(900)]);
    assert!(
        steps[1]
            .as_ref()
            .unwrap()
            .evidence
            .starts_with("15.0 % of its calls failed")
    );
    // Where all fail alike it is nobody's fault.
    assert_eq!(to(&shares(&[failing, failing], &BOUNDS)), [None, None]);
}

#[test]
fn what_is_between_changes_nothing_and_what_is_gone_goes_back() {
    let fast = (WHOLE, period(20, 0.1, 0));
    for (now, answers, each, expected) in [
        (500, 20, 0.13, None),
        (500, 20, 0.11, Some(600)),
        (500, 20, 0.1, Some(600)),
        (950, 20, 0.1, Some(1_000)),
        (WHOLE, 20, 0.1, None),
        // Few answers are no evidence, for nothing.
        (500, 9, 9.0, Some(600)),
        (350, 20, 9.0, Some(300)),
        (300, 20, 9.0, None),
    ] {
        let steps = shares(&[fast, (now, period(answers, each, 0))], &BOUNDS);
        assert_eq!(to(&steps)[1], expected, "{now} {answers} {each}");
    }
    // Who is alone has no siblings to be compared with; milliseconds are no difference.
    assert_eq!(to(&shares(&[(400, period(99, 9.0, 0))], &BOUNDS)), [Some(500)]);
    let short = |each| (WHOLE, period(20, each, 0));
    assert_eq!(to(&shares(&[short(0.001), short(0.005)], &BOUNDS)), [None, None]);
}

#[test]
fn an_agent_that_is_crowded_gets_fewer_at_once_and_all_of_them_back() {
    let crowd = |was_full, each| Crowd {
        declared: 100,
        alone: Some(0.1),
        was_full,
        period: period(50, each, 0),
    };
    let next = |now, crowd: &Crowd| places(now, crowd, &BOUNDS).map(|step| step.to);
    assert_eq!(next(100, &crowd(true, 0.3)), Some(90));
    assert_eq!(next(100, &crowd(false, 0.3)), None, "nobody waited");
    assert_eq!(next(90, &crowd(true, 0.18)), None, "between");
    assert_eq!(next(90, &crowd(true, 0.12)), Some(99));
    assert_eq!(next(99, &crowd(true, 0.12)), Some(100));
    assert_eq!(next(100, &crowd(true, 0.12)), None);
    assert_eq!(next(3, &crowd(true, 9.0)), Some(2));
    assert_eq!(next(2, &crowd(true, 9.0)), None, "the least");
    // A card that says less than the least, or more than the most.
    let declared = |declared, each| Crowd {
        declared,
        ..crowd(true, each)
    };
    assert_eq!(next(1, &declared(1, 9.0)), None);
    assert_eq!(next(900, &declared(900, 9.0)), Some(450));
    let unknown = Crowd {
        alone: None,
        ..crowd(true, 9.0)
    };
    assert_eq!(next(50, &unknown), Some(55), "without evidence it goes back");
}

fn periods() -> impl Strategy<Value = Period> {
    (0..40_u64, 0..40_u64, 0..40_u64, 0.0..50.0_f64).prop_map(|(succeeded, failed, timed, seconds)| Period {
        succeeded,
        failed,
        timed,
        seconds,
    })
}

proptest! {
    /// Whatever is measured, for however long.
    #[test]
    fn shares_stay_within_their_bounds_in_small_steps_and_come_back(
        rounds in prop::collection::vec(prop::collection::vec(periods(), 3), 0..40), least in 1..=WHOLE,
    ) {
        let bounds = Bounds { least_share: least, ..BOUNDS };
        let mut now = [WHOLE; 3];
        let mut play = |round: &[Period]| -> Result<(), TestCaseError> {
            let instances: Vec<(u32, Period)> = now.iter().copied().zip(round.iter().copied()).collect();
            let steps = shares(&instances, &bounds);
            for (now, step) in now.iter_mut().zip(&steps) {
                let Some(step) = step else { continue };
                prop_assert_eq!(step.from, *now);
                prop_assert!((least..=WHOLE).contains(&step.to) && step.to.abs_diff(step.from) <= STEP && step.to != step.from);
                prop_assert!(!step.evidence.is_empty());
                *now = step.to;
            }
            Ok(())
        };
        for round in &rounds {
            play(round)?;
        }
        for _ in 0..10 {
            play(&[Period::default(); 3])?;
        }
        prop_assert_eq!(now, [WHOLE; 3], "without evidence nothing is left of it");
    }

    #[test]
    fn the_same_evidence_never_goes_both_ways(round in prop::collection::vec(periods(), 3)) {
        // From the middle, so that both ways are open.
        let instances: Vec<(u32, Period)> = round.iter().map(|period| (650, *period)).collect();
        for (first, place) in shares(&instances, &BOUNDS).into_iter().zip(0..) {
            let Some(first) = first else { continue };
            let mut again = instances.clone();
            again[place].0 = first.to;
            let second = shares(&again, &BOUNDS).swap_remove(place);
            let is_less = first.to < 650;
            prop_assert!(second.is_none_or(|second| (second.to < second.from) == is_less));
        }
    }

    #[test]
    fn places_stay_within_their_bounds_in_small_steps_and_come_back(
        rounds in prop::collection::vec((periods(), any::<bool>(), prop::option::of(0.0..2.0_f64)), 0..60), declared in 1..1_000_u32,
    ) {
        let mut now = declared;
        let crowd = |period, was_full, alone| Crowd { declared, alone, was_full, period };
        for (period, was_full, alone) in rounds {
            let Some(step) = places(now, &crowd(period, was_full, alone), &BOUNDS) else { continue };
            let most = declared.min(*BOUNDS.places.end());
            prop_assert!(step.to <= declared && step.to >= 1);
            prop_assert!(step.to <= most || step.to > step.from, "lowered to within the bounds");
            prop_assert!(step.to >= (*BOUNDS.places.start()).min(declared));
            let from = if step.to < step.from { step.from.min(most) } else { step.from };
            prop_assert!(step.to.abs_diff(from) <= (from / 10).max(1));
            now = step.to;
        }
        for _ in 0..200 {
            if let Some(step) = places(now, &crowd(Period::default(), true, None), &BOUNDS) {
                now = step.to;
            }
        }
        prop_assert_eq!(now, declared);
    }
}

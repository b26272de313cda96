use std::collections::BTreeSet;

use super::super::plan::End;
use super::handling::handlings;
use super::lives::{Ground, Performance};
use super::mishap::{Mishap, STATUSES, Step, others};
use super::outcome::{Ended, Expected, Outcome};
use super::{Example, all};
use crate::run::RunId;

/// How much was done.
#[derive(Debug, Default)]
struct Figures {
    examples: usize,
    kills: usize,
    cuts: usize,
    mishaps: usize,
}

/// A performance without any kill that comes to what is expected.
fn whole<'g>(
    ground: &'g Ground,
    example: &Example,
    mishap: &Mishap,
    expected: &Expected,
) -> Result<(Performance<'g>, Outcome), String> {
    let performance = Performance::whole(ground, example, mishap);
    let outcome = performance.outcome()?;
    expected.met(example.workflow(), &outcome)?;
    Ok((performance, outcome))
}

/// Kills the engine right before and right after each of its commits, then like this, and compares with what comes of it
/// otherwise. How often.
fn kill_everywhere(
    ground: &Ground,
    example: &Example,
    mishap: &Mishap,
    then: &[End],
    whole: &Outcome,
) -> Result<usize, String> {
    let mut kills = 0;
    for number in 0.. {
        for end in [End::BeforeCommit(number), End::AfterCommit(number)] {
            let ends = [&[end], then].concat();
            let Some(performance) = Performance::killed(ground, example, mishap, &ends) else {
                return Ok(kills);
            };
            kills += 1;
            let outcome = performance.outcome().map_err(|why| format!("{ends:?}: {why}"))?;
            if outcome != *whole {
                return Err(format!("{ends:?}: {outcome:?}\nand without it {whole:?}"));
            }
        }
    }
    Ok(kills)
}

/// Does this with each example; what went wrong, with its name.
fn with_each(mut work: impl FnMut(&Example) -> Result<(), String>) {
    let mut wrong = Vec::new();
    for example in all() {
        if let Err(why) = work(&example) {
            wrong.push(format!("{}: {why}", example.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_kill_at_any_commit_changes_nothing_of_an_example() {
    let (ground, mut figures) = (Ground::new(), Figures::default());
    with_each(|example| {
        let expected = Expected::of(&example.fate);
        let (_, outcome) = whole(&ground, example, &Mishap::None, &expected)?;
        figures.examples += 1;
        // Once, and once more while it recovers.
        for then in [&[][..], &[End::AfterCommit(0)]] {
            figures.kills += kill_everywhere(&ground, example, &Mishap::None, then, &outcome)?;
        }
        Ok(())
    });
    assert!(figures.kills > 12 * figures.examples, "{figures:?}");
}

#[test]
fn a_kill_after_any_journal_entry_changes_nothing_of_an_example() {
    let (ground, mut figures) = (Ground::new(), Figures::default());
    with_each(|example| {
        let expected = Expected::of(&example.fate);
        let (mut performance, outcome) = whole(&ground, example, &Mishap::None, &expected)?;
        figures.examples += 1;
        let ids: Vec<RunId> = outcome.runs.keys().cloned().collect();
        for id in ids {
            let cuts = performance.cut(&id);
            figures.cuts += cuts.len();
            if !performance.live(End::Done) {
                return Err("it does not end".to_owned());
            }
            performance.outcome()?;
            for cut in cuts {
                let ended = |id: &RunId| performance.ended(id).map(Ended::without_ids);
                let (is, was) = (ended(&cut), ended(&id));
                if is != was {
                    return Err(format!("{cut}: {is:?}, and {was:?} as a whole"));
                }
            }
        }
        Ok(())
    });
    assert!(figures.cuts > 5 * figures.examples, "{figures:?}");
}

#[test]
fn a_call_that_fails_comes_to_what_is_said_of_it_at_whatever_commit_it_is_killed() {
    let (ground, mut figures) = (Ground::new(), Figures::default());
    with_each(|example| {
        let usual = Expected::of(&example.fate);
        let (performance, _) = whole(&ground, example, &Mishap::None, &usual)?;
        let steps = performance.asked();
        let handlings = handlings(&example.name);
        let called: BTreeSet<&str> = steps.keys().map(|step| step.name()).collect();
        let said: BTreeSet<&str> = handlings.iter().map(|(task, _)| *task).collect();
        if called != said {
            return Err(format!(
                "{called:?} call, and what becomes of it is said when {said:?} fail"
            ));
        }
        for (step, attempts) in &steps {
            let handling = handlings.iter().find(|(task, _)| *task == step.name());
            let (_, handling) = handling.unwrap();
            let usually = (usual.clone(), *attempts);
            for (status, always) in STATUSES
                .into_iter()
                .flat_map(|status| [(status, false), (status, true)])
            {
                let (expected, attempts) = handling.expected(step, status, always, &usually);
                let mishap = Mishap::CallFails {
                    step: step.clone(),
                    status,
                    always,
                };
                figures.mishaps += 1;
                figures.kills += fail(&ground, example, &mishap, &expected, Some((step, attempts)))
                    .map_err(|why| format!("{mishap:?}: {why}"))?;
            }
        }
        Ok(())
    });
    assert!(figures.kills > 4 * figures.mishaps, "{figures:?}");
}

#[test]
fn a_child_that_faults_and_people_who_refuse_come_to_what_is_said_of_them() {
    let (ground, mut figures) = (Ground::new(), Figures::default());
    with_each(|example| {
        for (mishap, expected) in others(example) {
            figures.mishaps += 1;
            figures.kills += fail(&ground, example, &mishap, &expected, None)
                .map_err(|why| format!("{mishap:?}: {why}"))?;
        }
        Ok(())
    });
    assert!(figures.mishaps > 3, "{figures:?}");
}

/// Performs an example with a mishap, without and with kills. How many.
fn fail(
    ground: &Ground,
    example: &Example,
    mishap: &Mishap,
    expected: &Expected,
    called: Option<(&Step, u32)>,
) -> Result<usize, String> {
    let (performance, outcome) = whole(ground, example, mishap, expected)?;
    if let Some((step, attempts)) = called {
        let made = performance.asked().get(step).copied().unwrap_or_default();
        if made != attempts {
            return Err(format!(
                "it is called {made} times, and {attempts} times was said"
            ));
        }
    }
    kill_everywhere(ground, example, mishap, &[], &outcome)
}

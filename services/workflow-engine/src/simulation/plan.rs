//! What is to happen in a simulation: all of it follows from the seed.

use std::time::Duration;

use serde_json::{Value, json};

use super::chance::Chance;
use super::document::{CHILDREN, Writer};
use crate::run::RunId;

/// Whole plan.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Documents of the catalogue.
    pub(crate) catalogue: Vec<String>,
    pub(crate) runs: Vec<Planned>,
    /// How each life ends; one more follows that ends when everything is done.
    pub(crate) lives: Vec<Life>,
    pub(crate) slots: usize,
    /// Slots that the namespace `b` may hold.
    pub(crate) share: usize,
}

/// A run, and what people do to it.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) id: RunId,
    pub(crate) document: String,
    pub(crate) input: Value,
    pub(crate) acts: Vec<(Duration, Act)>,
}

/// Something that people do, until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Start,
    /// An event of this type.
    Publish(String),
    Pause,
    Resume,
    Cancel,
}

/// How a life ends, and how long nobody lives after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) end: End,
    pub(crate) after: Duration,
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Killed at an instant.
    Killed(Duration),
    /// Killed right before the commit with this number becomes durable.
    BeforeCommit(u64),
    /// Killed right after it has, before anybody knows.
    AfterCommit(u64),
    /// Asked to stop at an instant.
    Stopped(Duration),
    /// From this commit on the store takes no more writes; killed a little later.
    Full(u64),
    /// With its work.
    Done,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed, "plan");
        let catalogue = (0..CHILDREN).map(|index| {
            let policy = if index == 0 { "concurrency: {limit: 1}" } else { "" };
            Writer::new(&mut chance, &format!("child-{index}"), false).document("a", policy)
        });
        let catalogue = catalogue.collect();
        let count = chance.within(2..=6);
        let runs = (0..count).map(|index| planned(&mut chance, index)).collect();
        let mut chance = Chance::new(seed, "faults");
        let lives = (0..chance.within(0..=6)).map(|_| life(&mut chance)).collect();
        let mut chance = Chance::new(seed, "limits");
        Self {
            seed,
            catalogue,
            runs,
            lives,
            slots: usize::try_from(chance.within(1..=4)).unwrap_or(1),
            share: usize::try_from(chance.within(1..=2)).unwrap_or(1),
        }
    }

    /// The same with one life, in which nobody interferes.
    pub(crate) fn without_faults(&self) -> Self {
        let mut calm = self.clone();
        calm.lives.clear();
        for run in &mut calm.runs {
            run.acts
                .retain(|(_, act)| matches!(act, Act::Start | Act::Publish(_)));
        }
        calm
    }
}

fn planned(chance: &mut Chance, index: u64) -> Planned {
    let namespace = *chance.pick(&["a", "a", "b"]);
    // Runs with one name and one key are in one group.
    let grouped = chance.percent(30);
    let name = if grouped {
        "grouped".to_owned()
    } else {
        format!("run-{index}")
    };
    let policy = if grouped { "concurrency: {limit: 1}" } else { "" };
    let mut writer = Writer::new(chance, &name, true);
    let document = writer.document(namespace, policy);
    let awaits = writer.awaits.take();
    let begin = chance.within(0..=20_000);
    let mut acts = vec![(begin, Act::Start)];
    if let Some(kind) = awaits {
        acts.push((begin + chance.within(0..=60_000), Act::Publish(kind)));
    }
    if chance.percent(30) {
        let pause = begin + chance.within(0..=40_000);
        acts.push((pause, Act::Pause));
        acts.push((pause + chance.within(1..=60_000), Act::Resume));
    }
    if chance.percent(12) {
        acts.push((begin + chance.within(0..=100_000), Act::Cancel));
    }
    acts.sort_by_key(|(at, _)| *at);
    Planned {
        // A UUID would do as well; this one is easier to read.
        id: format!("run-{index}").parse().unwrap_or_else(|_| RunId::fresh()),
        document,
        input: json!({"n": chance.within(0..=3)}),
        acts: acts
            .into_iter()
            .map(|(at, act)| (Duration::from_millis(at), act))
            .collect(),
    }
}

fn life(chance: &mut Chance) -> Life {
    let instant = |chance: &mut Chance| Duration::from_millis(chance.within(1..=90_000));
    let end = match chance.within(0..=9) {
        0..=2 => End::Killed(instant(chance)),
        3..=5 => End::BeforeCommit(chance.within(0..=25)),
        6 | 7 => End::AfterCommit(chance.within(0..=25)),
        8 => End::Stopped(instant(chance)),
        _ => End::Full(chance.within(0..=25)),
    };
    Life {
        end,
        after: Duration::from_millis(*chance.pick(&[1, 500, 20_000, 60_000])),
    }
}

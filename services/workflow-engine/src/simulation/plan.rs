//! What is to happen in a simulation: all of it follows from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::chance::Chance;
use super::document::{CHILDREN, Pace, Writer};
use super::world::epoch;
use crate::run::RunId;
use crate::timetable::Name;

/// Whole plan.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Documents of the catalogue.
    pub(crate) catalogue: Vec<String>,
    pub(crate) runs: Vec<Planned>,
    pub(crate) names: Vec<Named>,
    /// How each life ends; one more follows that ends when everything is done.
    pub(crate) lives: Vec<Life>,
    /// Engines that share the store; none: one is alone with it.
    pub(crate) engines: Vec<Career>,
    /// From when on, and for how long, nobody reaches a store that is shared.
    pub(crate) outages: Vec<(Duration, Duration)>,
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
    Retry,
}

/// A workflow of the catalogue that starts by itself, and what people do with it.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: Name,
    pub(crate) acts: Vec<(Duration, NamedAct)>,
}

/// Something that people do with such a workflow, until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedAct {
    /// A document whose schedule begins with it.
    Apply(String),
    /// An event of this type and with this id, which starts a run.
    Publish {
        kind: String,
        id: String,
    },
    Pause,
    Resume,
    /// A run besides those that its schedule starts.
    Trigger(RunId),
    /// A document that starts by itself no more. Before, people wait for what is due.
    End(String),
}

/// One of several engines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Career {
    /// How its lives end; one more follows.
    pub(crate) lives: Vec<Life>,
    /// From when on, and for how long, its process is frozen.
    pub(crate) freezes: Vec<(Duration, Duration)>,
    /// Before which call of a life, and for how long, it is frozen: the call is decided on and not sent.
    pub(crate) freezes_before_calls: BTreeMap<u64, Duration>,
    /// Whether each of its lives has a name of its own, as on a new machine.
    pub(crate) moves: bool,
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

/// How events are called that start runs.
pub(crate) const STARTS: &str = "start";

/// How runs are called that people start besides a schedule.
pub(crate) const TRIGGERED: &str = "triggered";

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        // Engines that share a store look at it all the time, so that there is less time for what they do.
        let is_shared = seed % 4 == 3;
        let pace = if is_shared { Pace::Brisk } else { Pace::Unhurried };
        let mut chance = Chance::new(seed, "plan");
        let catalogue = (0..CHILDREN).map(|index| {
            let policy = if index == 0 { "concurrency: {limit: 1}" } else { "" };
            Writer::new(&mut chance, &format!("child-{index}"), false, pace).document("a", policy)
        });
        let catalogue = catalogue.collect();
        let count = chance.within(2..=6);
        let runs = (0..count)
            .map(|index| planned(&mut chance, index, pace))
            .collect();
        let mut chance = Chance::new(seed, "names");
        let names = (0..chance.within(0..=2)).map(|index| named(&mut chance, index, pace));
        let names = names.collect();
        let mut chance = Chance::new(seed, "faults");
        let mut careers = Vec::new();
        if is_shared {
            careers = (0..chance.within(2..=3)).map(|_| career(&mut chance)).collect();
        }
        let lives = match is_shared {
            true => Vec::new(),
            false => (0..chance.within(0..=6)).map(|_| life(&mut chance)).collect(),
        };
        let outages = match is_shared {
            true => (0..chance.within(0..=2))
                .map(|_| stretch(&mut chance, 20_000))
                .collect(),
            false => Vec::new(),
        };
        let mut chance = Chance::new(seed, "limits");
        Self {
            seed,
            catalogue,
            runs,
            names,
            lives,
            engines: careers,
            outages,
            slots: usize::try_from(chance.within(1..=4)).unwrap_or(1),
            share: usize::try_from(chance.within(1..=2)).unwrap_or(1),
        }
    }

    /// The same with one life of one engine, in which nobody interferes.
    pub(crate) fn without_faults(&self) -> Self {
        let mut calm = self.clone();
        calm.lives.clear();
        calm.outages.clear();
        calm.engines.truncate(1);
        for engine in &mut calm.engines {
            *engine = Career::default();
        }
        for run in &mut calm.runs {
            run.acts
                .retain(|(_, act)| matches!(act, Act::Start | Act::Publish(_)));
        }
        calm
    }

    /// Until when nobody reaches the store at this time.
    pub(crate) fn outage(&self, now: Timestamp) -> Option<Timestamp> {
        let since = Duration::try_from(now.duration_since(epoch())).ok()?;
        let mut ends = self.outages.iter().map(|(from, time)| (*from, *from + *time));
        let (_, end) = ends.find(|(from, end)| (*from..*end).contains(&since))?;
        Some(epoch() + SignedDuration::try_from(end).ok()?)
    }
}

/// A stretch of the first minutes.
fn stretch(chance: &mut Chance, longest: u64) -> (Duration, Duration) {
    (
        Duration::from_millis(chance.within(0..=180_000)),
        Duration::from_millis(chance.within(100..=longest)),
    )
}

fn career(chance: &mut Chance) -> Career {
    Career {
        lives: (0..chance.within(0..=3))
            .map(|_| {
                let mut life = life(chance);
                // A server that is full is full for all.
                if matches!(life.end, End::Full(_)) {
                    life.end = End::Stopped(Duration::from_millis(chance.within(1..=90_000)));
                }
                life
            })
            .collect(),
        freezes: (0..chance.within(0..=2))
            .map(|_| stretch(chance, 30_000))
            .collect(),
        freezes_before_calls: (0..chance.within(0..=2))
            .map(|_| {
                let time = Duration::from_millis(chance.within(5_000..=30_000));
                (chance.within(1..=12), time)
            })
            .collect(),
        moves: chance.percent(30),
    }
}

fn named(chance: &mut Chance, index: u64, pace: Pace) -> Named {
    let name = format!("name-{index}");
    let begin = chance.within(0..=20_000);
    let end = begin + chance.within(60_000..=240_000);
    let middle = |chance: &mut Chance| chance.within(begin + 1_000..=end - 1_000);
    let mut acts = Vec::new();
    let kind = format!("{STARTS}-{index}");
    let schedule = match chance.within(0..=3) {
        0 => "every: PT20S".to_owned(),
        1 => "cron: '* * * * *'".to_owned(),
        2 => "after: PT15S".to_owned(),
        _ => {
            for number in 0..chance.within(1..=4) {
                let (kind, id) = (kind.clone(), format!("{kind}-{number}"));
                acts.push((middle(chance), NamedAct::Publish { kind, id }));
            }
            format!("on: {{one: {{with: {{type: {kind}}}}}}}")
        }
    };
    if acts.is_empty() {
        if chance.percent(25) {
            let pause = middle(chance);
            acts.push((pause, NamedAct::Pause));
            acts.push((chance.within(pause..=end - 1), NamedAct::Resume));
        }
        if chance.percent(25) {
            let id = format!("{TRIGGERED}-{index}").parse();
            acts.push((
                middle(chance),
                NamedAct::Trigger(id.unwrap_or_else(|_| RunId::fresh())),
            ));
        }
    }
    let document = Writer::new(chance, &name, false, pace).document("a", "");
    acts.push((
        begin,
        NamedAct::Apply(format!("{document}schedule: {{{schedule}}}\n")),
    ));
    let last = format!(
        "document: {{dsl: '1.0.0', namespace: a, name: {name}, version: '2.0.0'}}\ndo:\n  - rest: {{set: {{n: 1}}}}\n"
    );
    acts.push((end, NamedAct::End(last)));
    acts.sort_by_key(|(at, _)| *at);
    let acts = acts.into_iter().map(|(at, act)| (Duration::from_millis(at), act));
    Named {
        name: Name {
            namespace: "a".to_owned(),
            name,
        },
        acts: acts.collect(),
    }
}

fn planned(chance: &mut Chance, index: u64, pace: Pace) -> Planned {
    let namespace = *chance.pick(&["a", "a", "b"]);
    // Runs with one name and one key are in one group.
    let grouped = chance.percent(30);
    let name = if grouped {
        "grouped".to_owned()
    } else {
        format!("run-{index}")
    };
    let policy = if grouped { "concurrency: {limit: 1}" } else { "" };
    let mut writer = Writer::new(chance, &name, true, pace);
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
    if chance.percent(10) {
        acts.push((begin + chance.within(30_000..=200_000), Act::Retry));
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

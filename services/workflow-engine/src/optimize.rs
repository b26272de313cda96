//! What is slow, what fails, and what would help: found in what was measured ([`measured`]), by rules that anybody can check.
//!
//! [`analyse`] is a pure function. Everything that it says comes with its evidence: the numbers, and the bound that they are
//! beyond. It says nothing about what was measured less than [`FEWEST`] times.
//!
//! Of what would help an engine only ever does one thing by itself, and only where `telemetry.optimizer` is `apply`: more runs at the
//! same time, in small steps, never beyond the bound that is configured for it, and taken back in the same steps once the slots
//! are not needed any more ([`slots`]). Shares of instances and places of agents are the router's to change. The rest is an author's
//! to do.

pub mod measured;
pub(crate) mod monitor;

use measured::{Measured, Series};

/// What was measured less often is no evidence.
pub const FEWEST: f64 = 10.0;

/// What is bad about a step, or about whom it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Slower than all by more than a standard deviation.
    Slow,
    /// Now fast, now slow.
    Unsteady,
    /// Fails too often.
    Failing,
}

/// What would help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Do at the same time what takes long.
    Parallelise,
    /// Keep answers.
    Cache,
    /// Let more runs work at the same time.
    Resources,
    /// Try again, more often and with shorter waits.
    Retry,
    /// Prefer who is faster.
    Routing,
}

/// Where something is bad.
#[derive(Debug, Clone, PartialEq)]
pub struct Bottleneck {
    /// The step, or whom it calls.
    pub place: String,
    /// What is bad.
    pub sign: Sign,
    /// The numbers.
    pub evidence: String,
}

/// Something that would help.
#[derive(Debug, Clone, PartialEq)]
pub struct Improvement {
    /// What kind.
    pub kind: Kind,
    /// Where.
    pub place: String,
    /// The numbers.
    pub evidence: String,
    /// What to do.
    pub advice: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// From 0 to 100; 100 where nothing is bad, or nothing is known.
    pub score: u32,
    /// How much was measured: calls and runs.
    pub calls: u64,
    /// See `calls`.
    pub runs: u64,
    /// The worst first.
    pub bottlenecks: Vec<Bottleneck>,
    /// The most urgent first.
    pub improvements: Vec<Improvement>,
}

impl Sign {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Unsteady => "unsteady",
            Self::Failing => "failing",
        }
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Parallelise,
        Self::Cache,
        Self::Resources,
        Self::Retry,
        Self::Routing,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parallelise => "parallelise",
            Self::Cache => "cache",
            Self::Resources => "resources",
            Self::Retry => "retry",
            Self::Routing => "routing",
        }
    }

    /// How urgent it is, from 1 to 10.
    #[must_use]
    pub const fn priority(self) -> u32 {
        match self {
            Self::Parallelise => 9,
            Self::Cache => 8,
            Self::Resources => 7,
            Self::Retry => 6,
            Self::Routing => 5,
        }
    }

    /// How much less time is expected, in percent.
    #[must_use]
    pub const fn expected_gain_percent(self) -> u32 {
        match self {
            Self::Parallelise => 35,
            Self::Cache => 25,
            Self::Resources => 20,
            Self::Retry => 15,
            Self::Routing => 18,
        }
    }
}

/// Finds what is bad and what would help.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and shares are not negative, and far below 2^32"
)]
pub fn analyse(measured: &Measured) -> Findings {
    let steps: Vec<(String, &Series)> = measured
        .steps
        .iter()
        .map(|(step, series)| (format!("{} {}", step.workflow, step.task), series))
        .filter(|(_, series)| series.count >= FEWEST)
        .collect();
    let slow = slow_above(steps.iter().map(|(_, series)| series.mean));
    let mut findings = Findings::default();
    for (place, series) in &steps {
        bottlenecks(place, series, slow, &mut findings.bottlenecks);
        improvements(place, series, &mut findings.improvements);
    }
    for (target, series) in measured
        .targets
        .iter()
        .filter(|(_, series)| series.count >= FEWEST)
    {
        if series.variance() > 0.3 * series.mean {
            findings.improvements.push(Improvement {
                kind: Kind::Routing,
                place: target.clone(),
                evidence: unsteady(series, 0.3),
                advice: "look for the slow instance with 'muster agents get'; the router weighs instances by their latency, \
                         so a second one helps where there is only one"
                    .to_owned(),
            });
        }
    }
    let occupied = &measured.occupied;
    if occupied.count >= FEWEST && occupied.mean > 0.85 {
        findings.improvements.push(Improvement {
            kind: Kind::Resources,
            place: "engine".to_owned(),
            evidence: format!(
                "{:.0} % of the slots for runs are taken in the mean of {:.0} looks; more than 85 % make runs wait",
                occupied.mean * 100.0,
                occupied.count
            ),
            advice: "raise 'engine.max_concurrent_workflows', or add an engine".to_owned(),
        });
    }
    findings.improvements.sort_by(|one, other| {
        other
            .kind
            .priority()
            .cmp(&one.kind.priority())
            .then_with(|| one.place.cmp(&other.place))
    });
    let calls: f64 = measured.steps.values().map(|series| series.count).sum();
    let runs: f64 = measured.workflows.values().map(|series| series.count).sum();
    findings.calls = calls.round() as u64;
    findings.runs = runs.round() as u64;
    findings.score = score(measured, &findings, steps.len());
    findings
}

/// The mean of all, and a standard deviation more; nothing is slow among fewer than three.
fn slow_above(means: impl Iterator<Item = f64>) -> Option<f64> {
    let mut all = Series::default();
    for mean in means {
        all.add(mean, true);
    }
    (all.count >= 3.0).then(|| all.mean + all.variance().sqrt())
}

fn bottlenecks(place: &str, series: &Series, slow: Option<f64>, found: &mut Vec<Bottleneck>) {
    let mut add = |sign, evidence| {
        found.push(Bottleneck {
            place: place.to_owned(),
            sign,
            evidence,
        });
    };
    if series.success() < 0.95 {
        add(Sign::Failing, failing(series, 95));
    }
    if let Some(slow) = slow.filter(|slow| series.mean > *slow) {
        let evidence = format!(
            "{:.3} s in the mean of {:.0} calls; {slow:.3} s is the mean of all steps and a standard deviation",
            series.mean, series.count
        );
        add(Sign::Slow, evidence);
    }
    if series.variance() > 0.5 * series.mean {
        add(Sign::Unsteady, unsteady(series, 0.5));
    }
}

fn improvements(place: &str, series: &Series, found: &mut Vec<Improvement>) {
    let mut add = |kind, evidence, advice: &str| {
        found.push(Improvement {
            kind,
            place: place.to_owned(),
            evidence,
            advice: advice.to_owned(),
        });
    };
    let mean = format!("{:.3} s in the mean of {:.0} calls", series.mean, series.count);
    if series.mean > 30.0 {
        let advice = "put what does not depend on it beside it in a 'fork'";
        add(
            Kind::Parallelise,
            format!("{mean}; more than 30 s is long"),
            advice,
        );
    }
    if series.count > 10.0 && series.mean > 5.0 && series.variance() < 0.2 * series.mean {
        let evidence = format!(
            "{mean}, with a variance of {:.3}, less than 0.2 of the mean",
            series.variance()
        );
        let advice = "if the same question has the same answer, keep it for an hour: 'metadata.muster.cache' of the task";
        add(Kind::Cache, evidence, advice);
    }
    if series.success() < 0.9 {
        let advice = "surround it with 'try' and 'catch.retry': 5 attempts, with waits that grow by 1.5";
        add(Kind::Retry, failing(series, 90), advice);
    }
}

fn failing(series: &Series, percent: u32) -> String {
    format!(
        "{:.1} % of {:.0} calls went well; fewer than {percent} % are too few",
        series.success() * 100.0,
        series.count
    )
}

fn unsteady(series: &Series, share: f64) -> String {
    format!(
        "a variance of {:.3} with a mean of {:.3} s over {:.0} calls; more than {share} of the mean is unsteady",
        series.variance(),
        series.mean,
        series.count
    )
}

/// Half for what went well, half for how few places are bad.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "from 0 to 100"
)]
fn score(measured: &Measured, findings: &Findings, places: usize) -> u32 {
    let count: f64 = measured.steps.values().map(|series| series.count).sum();
    let well: f64 = measured.steps.values().map(|series| series.well).sum();
    let success = if count > 0.0 { well / count } else { 1.0 };
    let mut bad: Vec<&str> = findings
        .bottlenecks
        .iter()
        .map(|found| found.place.as_str())
        .collect();
    bad.dedup();
    let share = bad.len() as f64 / places.max(1) as f64;
    (50.0 * success.clamp(0.0, 1.0) + 50.0 * (1.0 - share.clamp(0.0, 1.0))).round() as u32
}

/// How many runs may work at the same time from now on: a tenth more where the slots are taken, a tenth less where they are not needed
/// any more; between what is configured and `most`.
#[must_use]
pub fn slots(now: usize, configured: usize, most: usize, occupied: &Series) -> usize {
    let step = (configured / 10).max(1);
    let wanted = if occupied.count < FEWEST || (0.5..=0.85).contains(&occupied.mean) {
        now
    } else if occupied.mean > 0.85 {
        now.saturating_add(step)
    } else {
        now.saturating_sub(step)
    };
    wanted.clamp(configured, most.max(configured))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn measured(steps: &[(&str, f64, f64, bool)]) -> Measured {
        let mut measured = Measured::default();
        for (task, one, other, well) in steps {
            for number in 0..20 {
                let seconds = if number % 2 == 0 { *one } else { *other };
                measured.step("orders", task, "agent://a", seconds, *well || number % 2 == 0);
            }
        }
        measured
    }

    #[test]
    fn each_rule_is_found_with_its_evidence_and_quiet_without() {
        let quiet = analyse(&measured(&[
            ("/do/0/a", 1.0, 1.0, true),
            ("/do/1/b", 1.0, 1.0, true),
        ]));
        assert_eq!(
            (quiet.score, quiet.bottlenecks.len(), quiet.improvements.len()),
            (100, 0, 0)
        );
        assert_eq!(quiet.calls, 40);
        let mut bad = measured(&[
            ("/do/0/a", 1.0, 1.0, true),
            ("/do/1/b", 1.0, 1.0, true),
            ("/do/2/c", 1.0, 1.0, true),
            ("/do/3/long", 40.0, 40.0, true),
            ("/do/4/unsteady", 0.5, 4.0, true),
            ("/do/5/failing", 1.0, 1.0, false),
        ]);
        for _ in 0..20 {
            bad.occupied(9, 10);
        }
        let bad = analyse(&bad);
        let signs: Vec<(&str, &str)> = bad
            .bottlenecks
            .iter()
            .map(|found| (found.place.as_str(), found.sign.name()))
            .collect();
        assert_eq!(
            signs,
            [
                ("orders /do/3/long", "slow"),
                ("orders /do/4/unsteady", "unsteady"),
                ("orders /do/5/failing", "failing"),
            ]
        );
        let kinds: Vec<(&str, &str)> = bad
            .improvements
            .iter()
            .map(|found| (found.place.as_str(), found.kind.name()))
            .collect();
        assert_eq!(
            kinds,
            [
                ("orders /do/3/long", "parallelise"),
                ("orders /do/3/long", "cache"),
                ("engine", "resources"),
                ("orders /do/5/failing", "retry"),
                ("agent://a", "routing"),
            ]
        );
        assert!(
            bad.improvements[0]
                .evidence
                .starts_with("40.000 s in the mean of 20 calls")
        );
        assert!(bad.score < quiet.score);
    }

    proptest! {
        #[test]
        fn whatever_was_measured_the_score_is_one_and_little_evidence_says_nothing(
            steps in prop::collection::vec((0..30_usize, 0.0..100.0_f64, any::<bool>()), 0..200),
        ) {
            let mut measured = Measured::default();
            for (task, seconds, well) in steps {
                measured.step("w", &task.to_string(), "agent://a", seconds, well);
            }
            let found = analyse(&measured);
            prop_assert!(found.score <= 100);
            for place in found.bottlenecks.iter().map(|found| &found.place) {
                let task = place.strip_prefix("w ").unwrap().to_owned();
                let series = &measured.steps[&measured::Step { workflow: "w".to_owned(), task }];
                prop_assert!(series.count >= FEWEST);
            }
            let urgent: Vec<u32> = found.improvements.iter().map(|found| found.kind.priority()).collect();
            prop_assert!(urgent.is_sorted_by(|one, other| one >= other));
        }

        #[test]
        fn slots_stay_within_their_bounds_and_come_back(
            looks in prop::collection::vec(0.0..1.0_f64, 1..40), configured in 1..200_usize, more in 0..200_usize,
        ) {
            let most = configured + more;
            let mut now = configured;
            for share in looks {
                let mut occupied = Series::default();
                for _ in 0..20 { occupied.add(share, true); }
                let next = slots(now, configured, most, &occupied);
                prop_assert!((configured..=most).contains(&next));
                prop_assert!(next.abs_diff(now) <= (configured / 10).max(1));
                now = next;
            }
            let mut idle = Series::default();
            for _ in 0..20 { idle.add(0.0, true); }
            for _ in 0..3_000 { now = slots(now, configured, most, &idle); }
            prop_assert_eq!(now, configured);
        }
    }
}

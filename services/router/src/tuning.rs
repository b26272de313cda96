//! What the router changes by itself about what it has found slow, within bounds: who of an agent's instances gets how much of the work,
//! and how many messages an agent's instances get at once.
//!
//! ```text
//! tuning.rs      the rules: pure
//!   ledger.rs    what was changed, and is taken back: plain data
//!   service.rs   looks at the links every ten minutes, and does what the rules say
//! ```
//!
//! The balancer weighs every choice by the last ten or so answers. What lasts longer is for here: an instance that is slower or fails
//! more than its siblings over a whole period gets a smaller *share*, and an agent that answers far slower with its places taken than
//! alone gets fewer *places* than its card says. Of agents whose cards say nothing the places are learned anyway
//! ([`flow::limit`](crate::flow::limit)).
//!
//! - **Bounds.** A share is from the least that is configured to one, and never more than what the operator gave; places are
//!   within the configured range, and never more than the card says.
//! - **Steps.** A tenth at a time, so that a mistake is small, and seen.
//! - **Hysteresis.** What is worse than [`WORSE`] counts against, what is no worse than [`ALIKE`] is evidence that is gone, and what
//!   is between changes nothing. Where fewer than [`FEWEST`] answers came, there is no evidence.
//! - **Decay.** Where the evidence is gone, a change goes back in the same steps, until nothing of it is left.
//! - **Afresh.** A router that starts again has changed nothing: what it measured is gone with it, and a change without its evidence
//!   would be a setting that nobody made. An instance that registers again begins anew as well.
//!
//! Rejected: more than the operator or the card has said (the evidence for that is a guess); a share for each router in Redis (each
//! measures its own way to an instance).

pub mod ledger;
pub mod service;

use std::ops::RangeInclusive;

/// The share of an instance that nothing was changed about, in thousandths.
pub const WHOLE: u32 = 1_000;

/// A step of a share.
pub const STEP: u32 = 100;

/// What was measured less often is no evidence.
pub const FEWEST: u64 = 10;

/// So many times as long as its siblings takes who is too slow, and who takes no more than so many is not.
const WORSE: f64 = 1.5;
const ALIKE: f64 = 1.2;

/// So many times as long as alone take answers that wait inside the agent, and no more than so many those that do not.
const CROWDED: f64 = 2.0;
const CALM: f64 = 1.5;

/// Seconds that are too few to be a difference.
const NEGLIGIBLE: f64 = 0.005;

/// The share of failures that is too much, and that is not, where siblings fail less than half as often.
const FAILING: f64 = 0.1;
const SOUND: f64 = 0.05;

/// What is measured of an instance in a period.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Period {
    /// Calls that went well.
    pub succeeded: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Answers whose time was measured.
    pub timed: u64,
    /// Seconds that these took together.
    pub seconds: f64,
}

impl Period {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            succeeded: self.succeeded.saturating_add(other.succeeded),
            failed: self.failed.saturating_add(other.failed),
            timed: self.timed.saturating_add(other.timed),
            seconds: self.seconds + other.seconds,
        }
    }

    /// What came since another one that ended earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            succeeded: self.succeeded.saturating_sub(earlier.succeeded),
            failed: self.failed.saturating_sub(earlier.failed),
            timed: self.timed.saturating_sub(earlier.timed),
            seconds: (self.seconds - earlier.seconds).max(0.0),
        }
    }

    /// Mean seconds of an answer, where enough came.
    #[must_use]
    pub fn mean(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "no router counts to 2^53")]
        let mean = || self.seconds / self.timed as f64;
        (self.timed >= FEWEST).then(mean)
    }

    /// The part that failed, where enough came.
    #[must_use]
    pub fn failing(self) -> Option<f64> {
        let all = self.succeeded.saturating_add(self.failed);
        #[expect(clippy::cast_precision_loss, reason = "no router counts to 2^53")]
        let part = || self.failed as f64 / all as f64;
        (all >= FEWEST).then(part)
    }
}

/// How far changes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The smallest share, in thousandths.
    pub least_share: u32,
    /// Places of an instance.
    pub places: RangeInclusive<u32>,
}

/// A change, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it was before.
    pub from: u32,
    /// What it is to be.
    pub to: u32,
    /// The numbers.
    pub evidence: String,
}

/// What a period says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sign {
    /// It is worse.
    Against(String),
    /// Neither.
    Unclear,
    /// It is not, or nobody knows.
    Gone(String),
}

/// What is to become of the shares of an agent's instances, in the order in which they and their periods are given; `None` where
/// one stays as it is.
#[must_use]
pub fn shares(instances: &[(u32, Period)], bounds: &Bounds) -> Vec<Option<Step>> {
    let least = bounds.least_share.min(WHOLE);
    let steps = instances.iter().enumerate().map(|(place, (now, period))| {
        let others = || {
            let all = instances.iter().enumerate();
            all.filter(move |(other, _)| *other != place)
                .map(|(_, (_, period))| *period)
        };
        let (to, evidence) = match beside(*period, others) {
            Sign::Against(evidence) => (now.saturating_sub(STEP).max(least), evidence),
            Sign::Unclear => return None,
            Sign::Gone(evidence) => (now.saturating_add(STEP).min(WHOLE), evidence),
        };
        // One that is below what is now the least comes back by steps as well.
        (to != *now).then_some(Step {
            from: *now,
            to,
            evidence,
        })
    });
    steps.collect()
}

/// An instance beside its siblings: the lower median of theirs, so that of two slow ones neither hides the other.
fn beside<I: Iterator<Item = Period>>(own: Period, others: impl Fn() -> I) -> Sign {
    let failing = own.failing();
    let their_failing = median(others().filter_map(Period::failing));
    if let (Some(failing), Some(theirs)) = (failing, their_failing)
        && failing > FAILING
        && failing > 2.0 * theirs
    {
        return Sign::Against(format!(
            "{:.1} % of its calls failed, and {:.1} % of its siblings'; more than {:.0} % is too much",
            failing * 100.0,
            theirs * 100.0,
            FAILING * 100.0
        ));
    }
    let (Some(mean), Some(theirs)) = (own.mean(), median(others().filter_map(Period::mean))) else {
        return Sign::Gone(format!("fewer than {FEWEST} answers to compare"));
    };
    if mean > theirs * WORSE && mean - theirs > NEGLIGIBLE {
        return Sign::Against(format!(
            "{mean:.3} s in the mean of {} answers, and {theirs:.3} s of its siblings'; more than {WORSE} times is slow",
            own.timed
        ));
    }
    let is_sound = failing.is_none_or(|failing| failing <= SOUND);
    if is_sound && (mean <= theirs * ALIKE || mean - theirs <= NEGLIGIBLE) {
        return Sign::Gone(format!(
            "{mean:.3} s in the mean of {} answers, and {theirs:.3} s of its siblings'; no more than {ALIKE} times is alike",
            own.timed
        ));
    }
    Sign::Unclear
}

/// How full an agent is whose card says how many messages it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crowd {
    /// Places of an instance, as the card says.
    pub declared: u32,
    /// Seconds of an answer without company, where they are known.
    pub alone: Option<f64>,
    /// Whether all places of an instance were taken at some time in the period.
    pub was_full: bool,
    /// What was measured of all its instances.
    pub period: Period,
}

/// What is to become of the places of an agent's instances; `None` where they stay as they are. As many as the card says are a change
/// that is gone.
#[must_use]
pub fn places(now: u32, crowd: &Crowd, bounds: &Bounds) -> Option<Step> {
    let (least, most) = (*bounds.places.start(), *bounds.places.end());
    let (to, evidence) = match within(crowd) {
        Sign::Against(evidence) => {
            let lowered = now.min(most);
            (lowered.saturating_sub((lowered / 10).max(1)).max(least), evidence)
        }
        Sign::Unclear => return None,
        Sign::Gone(_) if now >= crowd.declared => return None,
        Sign::Gone(evidence) => (
            now.saturating_add((now / 10).max(1)).min(crowd.declared),
            evidence,
        ),
    };
    let is_step = match to.cmp(&now) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Greater => now < crowd.declared,
        std::cmp::Ordering::Equal => false,
    };
    (is_step && to <= crowd.declared).then_some(Step {
        from: now,
        to,
        evidence,
    })
}

fn within(crowd: &Crowd) -> Sign {
    let (Some(mean), Some(alone)) = (crowd.period.mean(), crowd.alone) else {
        return Sign::Gone(format!("fewer than {FEWEST} answers to compare"));
    };
    let said = |bound: &str| {
        format!(
            "{mean:.3} s in the mean of {} answers, and {alone:.3} s without company; {bound}",
            crowd.period.timed
        )
    };
    if crowd.was_full && mean > alone * CROWDED && mean - alone > NEGLIGIBLE {
        let bound = format!("with all places taken, more than {CROWDED} times is too many at once");
        return Sign::Against(said(&bound));
    }
    if mean <= alone * CALM || mean - alone <= NEGLIGIBLE {
        return Sign::Gone(said(&format!("no more than {CALM} times is well")));
    }
    Sign::Unclear
}

/// The lower one in the middle.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests;

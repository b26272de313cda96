//! What was measured of runs, steps and whom they call: counts, means and variances, in bounded memory.
//!
//! Means and variances are kept by Welford's method, which needs no list of what was measured. What is old counts less: each
//! time that it is looked at, everything weighs half of what it did ([`Measured::age`]), so that what was slow last week says
//! nothing about today.

use std::collections::BTreeMap;

/// Steps, and those called, that are told apart at most; what comes later counts in the sums alone.
const MOST: usize = 500;

/// One series of durations, with how many of them went well.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Series {
    /// How much was measured, with what is old counting less.
    pub count: f64,
    /// Of that, what went well.
    pub well: f64,
    /// Mean, in seconds.
    pub mean: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
}

impl Series {
    /// One more.
    pub fn add(&mut self, seconds: f64, well: bool) {
        if !seconds.is_finite() || seconds < 0.0 {
            return;
        }
        self.count += 1.0;
        self.well += f64::from(u8::from(well));
        let distance = seconds - self.mean;
        self.mean += distance / self.count;
        self.squares += distance * (seconds - self.mean);
    }

    /// Variance, in seconds squared.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.count > 0.0 {
            (self.squares / self.count).max(0.0)
        } else {
            0.0
        }
    }

    /// Share of what went well, from 0 to 1.
    #[must_use]
    pub fn success(&self) -> f64 {
        if self.count > 0.0 {
            (self.well / self.count).clamp(0.0, 1.0)
        } else {
            1.0
        }
    }

    fn age(&mut self) {
        for part in [&mut self.count, &mut self.well, &mut self.squares] {
            *part /= 2.0;
        }
    }
}

/// A step of a workflow: its name, and the JSON pointer of the task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// The workflow's name.
    pub workflow: String,
    /// JSON pointer of the task.
    pub task: String,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Calls, by the step that makes them.
    pub steps: BTreeMap<Step, Series>,
    /// The same by whom they call.
    pub targets: BTreeMap<String, Series>,
    /// Runs, by workflow.
    pub workflows: BTreeMap<String, Series>,
    /// Share of the slots for runs that is taken, from 0 to 1, as a series of looks.
    pub occupied: Series,
}

impl Measured {
    /// A call of a step has ended.
    pub fn step(&mut self, workflow: &str, task: &str, target: &str, seconds: f64, well: bool) {
        let step = Step {
            workflow: workflow.to_owned(),
            task: task.to_owned(),
        };
        add(&mut self.steps, step, seconds, well);
        add(&mut self.targets, target.to_owned(), seconds, well);
    }

    /// A run has ended.
    pub fn run(&mut self, workflow: &str, seconds: f64, well: bool) {
        add(&mut self.workflows, workflow.to_owned(), seconds, well);
    }

    /// So many of so many slots are taken.
    #[expect(clippy::cast_precision_loss, reason = "no engine has 2^53 slots")]
    pub fn occupied(&mut self, taken: usize, slots: usize) {
        if slots > 0 {
            self.occupied.add(taken as f64 / slots as f64, true);
        }
    }

    /// Lets everything weigh half of what it did, and forgets what weighs next to nothing.
    pub fn age(&mut self) {
        age(&mut self.steps);
        age(&mut self.targets);
        age(&mut self.workflows);
        self.occupied.age();
    }
}

fn add<K: Ord>(all: &mut BTreeMap<K, Series>, key: K, seconds: f64, well: bool) {
    if all.len() < MOST || all.contains_key(&key) {
        all.entry(key).or_default().add(seconds, well);
    }
}

fn age<K: Ord>(all: &mut BTreeMap<K, Series>) {
    all.retain(|_, series| {
        series.age();
        series.count >= 0.5
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn means_and_variances_are_those_of_what_was_measured(seconds in prop::collection::vec(0.0..1_000.0_f64, 1..50)) {
            let mut series = Series::default();
            for (index, second) in seconds.iter().enumerate() {
                series.add(*second, index % 2 == 0);
            }
            #[expect(clippy::cast_precision_loss, reason = "at most fifty")]
            let count = seconds.len() as f64;
            let mean = seconds.iter().sum::<f64>() / count;
            let variance = seconds.iter().map(|second| (second - mean).powi(2)).sum::<f64>() / count;
            prop_assert!((series.mean - mean).abs() < 1e-6);
            prop_assert!((series.variance() - variance).abs() < 1e-3);
            let before = (series.mean, series.variance(), series.success());
            series.age();
            prop_assert!((series.mean - before.0).abs() < 1e-9);
            prop_assert!((series.variance() - before.1).abs() < 1e-6);
            prop_assert!((series.success() - before.2).abs() < 1e-9);
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_old_is_forgotten() {
        let mut measured = Measured::default();
        for step in 0..MOST * 2 {
            measured.step("orders", &format!("/do/{step}"), "agent://weather", 1.0, true);
        }
        assert_eq!((measured.steps.len(), measured.targets.len()), (MOST, 1));
        measured.age();
        measured.age();
        assert_eq!((measured.steps.len(), measured.targets.len()), (0, 1));
    }
}

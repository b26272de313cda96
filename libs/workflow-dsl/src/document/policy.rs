//! What this runtime adds to the language, under the key [`KEY`] of `metadata`.
//!
//! The language lets `metadata` hold anything, so that a document with these fields stays valid for every other
//! runtime, which runs it without them. Here the fields are checked as strictly as those of the language.

mod gate;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::TaskList;
use crate::expression::Expression;
use crate::usage::Limits;
pub use gate::{Escalation, Gate};

/// The key in `document.metadata` and in a task's `metadata`.
pub const KEY: &str = "muster";

/// `document.metadata.muster`: what holds for each run of the workflow.
#[derive(Debug, Clone, Default)]
pub struct WorkflowPolicy {
    /// `priority`: the class of its runs, unless whoever starts one says otherwise.
    pub priority: Priority,
    /// `concurrency`: how many of its runs may be under way, begun and not ended, at once.
    pub concurrency: Vec<Concurrency>,
    /// `maxIterations`: that of each task that names none.
    pub max_iterations: Option<u64>,
    /// `budget`: what a run may use before people are asked.
    pub budget: Option<Budget>,
}

/// What a run may use before people are asked.
#[derive(Debug, Clone)]
pub struct Budget {
    /// `tokens` and `cost`, at least one of them.
    pub limits: Limits,
    /// Who is asked, for how long.
    pub gate: Gate,
}

/// A class of runs: within a namespace a run of a higher class goes before all runs of lower ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// After everything else.
    Low,
    /// Where nothing is said.
    #[default]
    Normal,
    /// Before the normal ones.
    High,
    /// Before everything else.
    Urgent,
}

/// A bound on the runs of a workflow that are under way at once.
#[derive(Debug, Clone)]
pub struct Concurrency {
    /// How many, at least one.
    pub limit: u32,
    /// What tells groups of runs apart, evaluated on the run's input when it is accepted; without one, all runs of the
    /// workflow are one group.
    pub key: Option<Expression>,
}

impl Priority {
    /// All classes, the lowest first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Urgent];

    /// Its name in documents and requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

/// Text that names no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no priority '{0}'; there are low, normal, high and urgent")]
pub struct UnknownPriority(String);

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        let found = Self::ALL.into_iter().find(|priority| priority.name() == text);
        found.ok_or_else(|| UnknownPriority(text.to_owned()))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// `metadata.muster` of a task.
#[derive(Debug, Clone, Default)]
pub struct TaskPolicy {
    /// `approval`: people decide before the task begins what it is for.
    pub approval: Option<Box<Gate>>,
    /// `maxIterations`: of a `for`, how many iterations it may take; of any other task, how often it may run before the flow
    /// leaves its list.
    pub max_iterations: Option<u64>,
    /// `minSuccessRatio` of a `fork`: which part of the branches must end well.
    pub min_success: Option<Ratio>,
    /// `compensation`: the one task of this list takes back what the task did, once it has completed and the run fails or is
    /// cancelled.
    pub compensation: Option<Box<TaskList>>,
    /// `cache.ttl` of a `call` that is declared `idempotent`: how long its answer may stand for the next one.
    pub cache: Option<Duration>,
}

/// A part of a whole, above zero and at most one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    /// The ratio, if it is one.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        (value > 0.0 && value <= 1.0).then_some(Self(value))
    }

    /// How many of so many are at least this part of them.
    #[must_use]
    pub fn of(self, count: usize) -> usize {
        // A tenth of ten is one, whatever the last bit of the tenth.
        const TOLERANCE: f64 = 1e-9;
        let most = count as f64;
        let needed = (self.0 * most - TOLERANCE).ceil().clamp(0.0, most);
        (0..=count).find(|whole| *whole as f64 >= needed).unwrap_or(count)
    }
}

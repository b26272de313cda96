//! Which execution of a task is meant, apart from its pointer.
//!
//! A call's message id must be the same after a crash, although the event that started the call may not have become
//! durable, and although concurrent branches may then be decided in another order. Therefore it is made of what
//! only the flow determines: the indexes of the loops around the task, how often `then` has led back over it, and the
//! numbers of the attempts around it. Activation numbers would not do: they depend on the order of the branches.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::journal::Stage;

/// Namespace of the ids that are derived here.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f0d_5a52_3a0b_4c5e_9d5c_0f4b_7c1e_2a91);

/// Which execution of a task is meant.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Place {
    /// Indexes of the iterations around the task, outermost first.
    pub(super) iterations: Arc<[u64]>,
    /// Iterations and laps, as text.
    path: Arc<str>,
    /// The numbers of the attempts around the task, as text.
    attempts: Arc<str>,
    /// How many retries are around the task.
    retries: u32,
    /// How often the run was retried before.
    generation: u32,
}

impl Place {
    /// In this iteration of a loop.
    pub(super) fn in_iteration(&self, index: usize) -> Self {
        let index = index as u64;
        let iterations = self.iterations.iter().copied().chain([index]).collect();
        Self {
            iterations,
            path: format!("{}[{index}]", self.path).into(),
            ..self.clone()
        }
    }

    /// In the tasks of an extension around the task at `pointer`: they are written once, and run around many.
    pub(super) fn in_extension(&self, pointer: &str, stage: Stage, index: usize) -> Self {
        let stage = match stage {
            Stage::Before => "before",
            Stage::After => "after",
        };
        Self {
            path: format!("{}<{pointer} {stage} {index}>", self.path).into(),
            ..self.clone()
        }
    }

    /// In the task of a function that the task at `pointer` calls: it is written once, and called from many places.
    pub(super) fn in_function(&self, pointer: &str) -> Self {
        Self {
            path: format!("{}<{pointer} calls>", self.path).into(),
            ..self.clone()
        }
    }

    /// In the compensation of the execution with this number, which is recorded by then.
    pub(super) fn in_compensation(&self, activation: u64) -> Self {
        Self {
            path: format!("{}!{activation}", self.path).into(),
            ..self.clone()
        }
    }

    /// After the run has been retried so often.
    pub(super) fn in_generation(&self, generation: u32) -> Self {
        Self {
            generation,
            ..self.clone()
        }
    }

    /// In this attempt of a `try`.
    pub(super) fn in_attempt(&self, number: u32) -> Self {
        let attempts = format!("{}.{number}", self.attempts).into();
        Self {
            attempts,
            retries: self.retries.saturating_add(number.saturating_sub(1)),
            ..self.clone()
        }
    }

    /// After the flow has gone back so often in a list.
    pub(super) fn in_lap(&self, lap: u32) -> Self {
        if lap == 0 {
            return self.clone();
        }
        Self {
            path: format!("{}@{lap}", self.path).into(),
            ..self.clone()
        }
    }

    /// Number of the attempt, from 1, over all `try`s around the task.
    pub(super) fn attempt(&self) -> u32 {
        self.retries.saturating_add(1)
    }

    /// Id of the message of this attempt.
    pub(super) fn message_id(&self, run: &str, pointer: &str) -> Uuid {
        let Self { path, attempts, .. } = self;
        let mut text = format!("message\n{run}\n{pointer}\n{path}\n{attempts}");
        if self.generation > 0 {
            text.push_str(&format!("\n{}", self.generation));
        }
        Uuid::new_v5(&NAMESPACE, text.as_bytes())
    }

    /// Id of the step, the same for all attempts.
    pub(super) fn step_key(&self, run: &str, pointer: &str) -> Uuid {
        Uuid::new_v5(
            &NAMESPACE,
            format!("step\n{run}\n{pointer}\n{}", self.path).as_bytes(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_execution_has_its_own_message_and_each_step_one_key() {
        let base = Place::default();
        let places = [
            base.clone(),
            base.in_lap(1),
            base.in_iteration(0),
            base.in_iteration(1),
            base.in_iteration(1).in_iteration(0),
            base.in_iteration(1).in_lap(1),
            base.in_attempt(1),
            base.in_attempt(2),
            base.in_attempt(1).in_attempt(2),
            base.in_generation(1),
            base.in_generation(2),
            base.in_compensation(1),
        ];
        let messages: std::collections::BTreeSet<_> = places
            .iter()
            .map(|place| place.message_id("r", "/do/0/a"))
            .collect();
        assert_eq!(messages.len(), places.len());
        assert_eq!(
            base.in_attempt(1).step_key("r", "/a"),
            base.in_attempt(2).step_key("r", "/a")
        );
        assert_eq!(
            base.in_generation(1).step_key("r", "/a"),
            base.step_key("r", "/a")
        );
        assert_ne!(
            base.in_iteration(1).step_key("r", "/a"),
            base.in_iteration(2).step_key("r", "/a")
        );
        assert_ne!(base.message_id("r", "/a"), base.message_id("s", "/a"));
        assert_ne!(base.message_id("r", "/a"), base.step_key("r", "/a"));
        assert_eq!(base.in_attempt(3).in_attempt(2).attempt(), 4);
    }
}

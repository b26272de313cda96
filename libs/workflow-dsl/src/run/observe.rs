//! What an event brings with it besides what it says, for whoever tells the world of a run.
//!
//! A journal says nothing twice: tasks that end because one around them ends, or because another branch has won, have no
//! events of their own, and an output that the state holds already is left out. The state knows it at the moment at which the
//! event is folded, and no later.

use std::sync::Arc;

use serde_json::Value;

use super::control::CANCELLATION;
use super::fold::known_output;
use super::state::{Activation, Body};
use super::{Mismatch, Run};
use crate::hearing::Correlations;
use crate::journal::{Event, EventKind};

/// What one event brought with it.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// Index of the event.
    pub index: u64,
    /// The tasks that ended with it without an event of their own, the innermost first.
    pub ended: Vec<InProgress>,
    /// The tasks in progress, the outermost first, where the event holds the run or lets it go on.
    pub open: Vec<InProgress>,
    /// The output of the task that it completes, where the event leaves it out.
    pub output: Option<Arc<Value>>,
    /// Whether its task failed only because the run is being cancelled.
    pub cancelled: bool,
    /// Whether its task waits for events, or for a time, after it.
    pub waits: bool,
    /// The values of correlations that its task knows after it.
    pub correlations: Correlations,
}

/// A task in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InProgress {
    /// Its activation.
    pub activation: u64,
    /// Its JSON pointer.
    pub task: Arc<str>,
    /// Whether it waits for events, or for a time.
    pub waits: bool,
}

/// What a run notes while it is observed.
#[derive(Debug, Default)]
pub(super) struct Observer {
    /// Tasks that are gone since the last event.
    pub(super) gone: Vec<InProgress>,
    observations: Vec<Observation>,
}

impl InProgress {
    pub(super) fn new(id: u64, activation: &Activation) -> Self {
        Self {
            activation: id,
            task: Arc::clone(&activation.pointer),
            waits: activation.waits(),
        }
    }
}

impl Activation {
    /// Whether it waits for events, or for a time that it was told.
    fn waits(&self) -> bool {
        match &self.body {
            Body::Wait(_) => true,
            Body::Listen(listening) => listening.waits(),
            _ => false,
        }
    }
}

impl Run {
    /// As this run, noting what the events that it decides bring with them.
    #[must_use]
    pub fn observed(mut self) -> Self {
        self.observer = Some(Observer::default());
        self
    }

    /// What the events that were decided since the last question brought with them, in order.
    pub fn observations(&mut self) -> Vec<Observation> {
        let observer = self.observer.as_mut();
        observer.map_or_else(Vec::new, |observer| std::mem::take(&mut observer.observations))
    }

    /// Folds an event that was just decided, and notes what it brings with it.
    pub(super) fn observe(&mut self, event: &Event) -> Result<(), Mismatch> {
        let Some(observer) = &mut self.observer else {
            return self.apply(event);
        };
        observer.gone.clear();
        let mut seen = Observation {
            index: event.index,
            ..Observation::default()
        };
        match &event.kind {
            EventKind::TaskCompleted {
                activation,
                task,
                output: None,
                ..
            } => {
                let activation = self.activations.get(activation);
                let task = self.definition.workflow.task(task);
                seen.output = activation
                    .zip(task)
                    .and_then(|(activation, task)| known_output(activation, &task.kind));
            }
            EventKind::TaskFaulted {
                activation, error, ..
            } => {
                seen.cancelled = error.kind == CANCELLATION && self.is_interrupted(*activation);
            }
            _ => {}
        }
        self.apply(event)?;
        if let EventKind::RunPaused { .. } | EventKind::RunResumed { .. } = event.kind {
            let open = self.activations.iter();
            seen.open = open
                .map(|(id, activation)| InProgress::new(*id, activation))
                .collect();
        }
        if let Some(activation) = event.activation().and_then(|id| self.activations.get(&id)) {
            seen.waits = activation.waits();
            if let Body::Listen(listening) = &activation.body {
                seen.correlations = listening.hearing.correlations().clone();
            }
        }
        if let Some(observer) = &mut self.observer {
            seen.ended = std::mem::take(&mut observer.gone);
            seen.ended
                .retain(|gone| Some(gone.activation) != event.activation());
            seen.ended.sort_by_key(|gone| std::cmp::Reverse(gone.activation));
            observer.observations.push(seen);
        }
        Ok(())
    }

    /// Forgets all that is in progress.
    pub(super) fn forget_all(&mut self) {
        let gone = std::mem::take(&mut self.activations);
        if let Some(observer) = &mut self.observer {
            let gone = gone.iter();
            observer
                .gone
                .extend(gone.map(|(id, activation)| InProgress::new(*id, activation)));
        }
    }

    /// Forgets one activation.
    pub(super) fn forget(&mut self, id: u64) -> Option<Activation> {
        let gone = self.activations.remove(&id)?;
        if let Some(observer) = &mut self.observer {
            observer.gone.push(InProgress::new(id, &gone));
        }
        Some(gone)
    }
}

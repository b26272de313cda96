//! What must be in progress now: calls and the next timer.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::Run;
use super::state::{Activation, Body, Try};
use crate::document::Kind;
use crate::hearing::Interest;
use crate::request::Request;

/// Something that must be in progress outside the run.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A call is to be made and its answer to be handed in as [`super::Stimulus::CallReturned`]. When an effect like
    /// this is no longer there, nobody waits for the answer, and the call is to be cancelled.
    Call {
        /// Whose call it is.
        activation: u64,
        /// Number of the attempt, from 1, over all `try`s around the call.
        attempt: u32,
        /// Id of the message: the same after a crash, another one for each attempt.
        message_id: Uuid,
        /// Id of the step: the same for all attempts.
        step_key: Uuid,
        /// JSON pointer of the task.
        task: Arc<str>,
        /// What is called.
        request: Arc<Request>,
        /// When the run stops waiting for the answer.
        deadline: Option<Timestamp>,
    },
    /// Events are to be handed in as [`super::Stimulus::Event`], in the order of their log.
    Listen {
        /// Whose listening it is.
        activation: u64,
        /// Position of the first event to look at.
        from: u64,
        /// Whether it takes one event, and others only when it asks again.
        one_at_a_time: bool,
        /// Events that none of these admits need not be handed in.
        interests: Arc<[Interest]>,
    },
    /// [`super::Stimulus::Tick`] has something to do at this instant, and not before.
    Timer {
        /// The instant.
        due: Timestamp,
    },
}

/// Id of the run that a request for one starts: the same after a crash, another one for each attempt.
#[must_use]
pub fn child_id(message_id: Uuid) -> String {
    message_id.to_string()
}

/// The instant that is so much later, or the last one there is.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    let later = SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| time.checked_add(duration).ok());
    later.unwrap_or(Timestamp::MAX)
}

impl Run {
    /// What must be in progress now: calls, then what is listened for, then the timer. Empty once the run has ended.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        let calls = self.activations.iter().filter_map(|(id, activation)| {
            let Body::Call(request) = &activation.body else {
                return None;
            };
            Some(Effect::Call {
                activation: *id,
                attempt: activation.place.attempt(),
                message_id: activation.place.message_id(&self.id, &activation.pointer),
                step_key: activation.place.step_key(&self.id, &activation.pointer),
                task: Arc::clone(&activation.pointer),
                request: Arc::clone(request),
                deadline: self.deadline_of(activation).filter(|_| !self.is_paused()),
            })
        });
        // What comes while the run is held waits in the log.
        let paused = self.is_paused();
        let listens = self
            .activations
            .iter()
            .filter(|_| !paused)
            .filter_map(|(id, activation)| {
                let Body::Listen(listening) = &activation.body else {
                    return None;
                };
                let task = self.definition.workflow.task(&activation.pointer)?;
                listening.waits().then(|| Effect::Listen {
                    activation: *id,
                    from: listening.from,
                    one_at_a_time: matches!(&task.kind, Kind::Listen(listen) if listen.each.is_some()),
                    interests: Arc::clone(&listening.interests),
                })
            });
        let timer = self.due().map(|due| Effect::Timer { due });
        calls.chain(listens).chain(timer).collect()
    }

    /// Whether calls are to be in progress now, besides those of runs that it starts.
    #[must_use]
    pub fn has_calls(&self) -> bool {
        let mut bodies = self.activations.values().map(|activation| &activation.body);
        bodies.any(|body| matches!(body, Body::Call(request) if !request.is_delegated()))
    }

    /// The earliest instant at which a tick has something to do. What can be decided at once, after a crash between
    /// the events of one decision, is due since the last event.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        if self.is_paused() {
            return None;
        }
        let ready = (!self.ready.is_empty()).then_some(self.time);
        ready.or_else(|| self.timers.first().map(|timer| timer.due))
    }

    /// The earliest deadline of the activation and all that is around it.
    pub(super) fn deadline_of(&self, activation: &Activation) -> Option<Timestamp> {
        let mut earliest = self.deadline.into_iter().chain(activation.deadline).min();
        let mut parent = activation.parent;
        while let Some(activation) = parent.and_then(|id| self.activations.get(&id)) {
            let attempt = match &activation.body {
                Body::Try(Try { deadline, .. }) => *deadline,
                _ => None,
            };
            earliest = earliest
                .into_iter()
                .chain(activation.deadline)
                .chain(attempt)
                .min();
            parent = activation.parent;
        }
        earliest
    }

    /// Whether the run waits for something that neither a call nor time brings: whoever drives it keeps it, without a
    /// timer if there is none, until it is told.
    #[must_use]
    pub fn waits_outside(&self) -> bool {
        let mut bodies = self.activations.values().map(|activation| &activation.body);
        self.asking > 0
            || self.is_paused()
            || bodies.any(|body| match body {
                Body::Listen(listening) => listening.waits(),
                Body::Call(request) => request.is_delegated(),
                _ => false,
            })
    }
}

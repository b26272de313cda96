//! What must be in progress now: calls and the next timer.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::state::{Activation, Body, Try};
use super::{Run, Status};
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
    /// [`super::Stimulus::Tick`] has something to do at this instant, and not before.
    Timer {
        /// The instant.
        due: Timestamp,
    },
}

/// The instant that is so much later, or the last one there is.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    let later = SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| time.checked_add(duration).ok());
    later.unwrap_or(Timestamp::MAX)
}

impl Run {
    /// What must be in progress now, calls first. Empty once the run has ended.
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
                deadline: self.deadline_of(activation),
            })
        });
        let timer = self.due().map(|due| Effect::Timer { due });
        calls.chain(timer).collect()
    }

    /// The earliest instant at which a tick has something to do. What can be decided at once, after a crash between
    /// the events of one decision, is due since the last event.
    fn due(&self) -> Option<Timestamp> {
        let ready = (!self.ready.is_empty()).then_some(self.time);
        ready.or_else(|| self.timers.first().map(|timer| timer.due))
    }

    /// The earliest deadline of the activation and all that is around it.
    fn deadline_of(&self, activation: &Activation) -> Option<Timestamp> {
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
        false
    }

    /// One line for each thing that the run does or waits for, in the order in which they began.
    #[must_use]
    pub fn activity(&self, now: Timestamp) -> Vec<String> {
        if self.status != Status::Running {
            return Vec::new();
        }
        let lines = self.activations.values().filter_map(|activation| {
            let pointer = &activation.pointer;
            match &activation.body {
                Body::Call(request) => Some(self.call_line(activation, request, now)),
                Body::Wait(until) => Some(format!("{pointer} waits until {}", instant(*until, now))),
                Body::Try(Try {
                    resume: Some(due),
                    attempt,
                    ..
                }) => Some(format!(
                    "{pointer} waits until {} before attempt {attempt}",
                    instant(*due, now)
                )),
                _ => None,
            }
        });
        lines.collect()
    }

    fn call_line(&self, activation: &Activation, request: &Request, now: Timestamp) -> String {
        let mut line = format!(
            "{} waits for {} to answer {} since {}",
            activation.pointer,
            request.target(),
            request.operation(),
            instant(activation.started, now)
        );
        let attempt = activation.place.attempt();
        if attempt > 1 {
            line.push_str(&format!(", attempt {attempt}"));
        }
        if let Some(deadline) = self.deadline_of(activation) {
            line.push_str(&format!(", at most until {}", instant(deadline, now)));
        }
        line
    }
}

/// An instant, and how far it is.
fn instant(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.duration_since(now).as_secs();
    let distance = if seconds >= 0 {
        format!("in {seconds} s")
    } else {
        format!("{} s ago", -seconds)
    };
    format!("{} ({distance})", muster_api::time::rfc3339(time))
}

//! The interpreter: what a run does next, as a pure function of its definition and its journal.
//!
//! [`Run`] is the state that the events of a journal fold into. [`Run::decide`] answers a stimulus (the run starts, a
//! call returned, time has passed, someone cancels) with the events that follow from it; whoever asks makes them
//! durable. [`Run::effects`] says what must be in progress now: calls and the next timer. It is derived from the state
//! alone, so that after a crash the folded journal asks for the same calls under the same message ids, and nothing
//! that was recorded is done again.
//!
//! ```text
//! loop: stimulus → decide → append the events → effects → start the calls, sleep until the timer → stimulus
//! ```
//!
//! Invariants:
//! - Any prefix of a journal is a state to go on from: after each single event the state knows what is to be decided
//!   next (`ready`), so that a batch of which only the beginning became durable does no harm. A tick goes on.
//! - Folding evaluates nothing; deciding evaluates and never changes the state but by folding its own events.
//! - What has ended is forgotten. The cost of an event depends on what is active, not on the length of the history.
//! - Between two stimuli a run can decide [`MOST_TASKS_AT_ONCE`] tasks, record [`MOST_BYTES_AT_ONCE`] and evaluate
//!   [`MOST_STEPS_AT_ONCE`]; a `then` that goes in circles ends there. It never holds more than [`MOST_BYTES_HELD`].
//!
//! The state is a tree of activations, each a task that has started and not ended, with a cursor where it runs a list
//! of tasks. The rejected alternatives: replaying the document with recorded results (the cost grows with the
//! history, and a changed expression changes the past), and an async function per run (its state is not data).

pub mod approval;
mod call;
pub(crate) mod compensate;
mod control;
mod current;
mod decide;
mod destination;
mod effect;
mod evaluate;
mod fold;
mod launch;
mod listen;
mod measure;
mod observe;
mod place;
mod retry;
pub mod rewind;
pub mod snapshot;
pub mod spending;
mod standing;
mod state;
mod track;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cloud_event::CloudEvent;
use crate::document::Definition;
use crate::journal::{Event, EventKind, Problem, Verdict};
use crate::secret::Secrets;
use crate::usage::Usage;
pub use approval::Approval;
pub use compensate::{Compensation, MOST_COMPENSATION_BYTES, MOST_COMPENSATIONS};
pub use control::CANCELLATION;
use control::Control;
pub use effect::{Effect, child_id};
pub use fold::Mismatch;
use measure::Meter;
pub use measure::{MOST_BYTES_HELD, MOST_STEPS_AT_ONCE};
use observe::Observer;
pub use observe::{InProgress, Observation};
use spending::{Exhausted, Spending};
use state::{Activation, Cursor, Timer};
pub use waiting::{Blocker, BlockerKind};

/// At most so many tasks are started, or skipped, between two stimuli.
pub const MOST_TASKS_AT_ONCE: u64 = 10_000;

/// Bytes of events that are decided between two stimuli; a store writes them at once, and memory holds them until
/// then. One event more may be recorded, which is bounded by [`LARGEST_VALUE`].
pub const MOST_BYTES_AT_ONCE: usize = 16 << 20;

/// At most so many tasks start in one run.
pub const MOST_TASKS: u64 = 1_000_000;

/// At most so many events are consumed by one start of a task that listens.
pub const MOST_EVENTS: usize = 10_000;

/// Largest value of a run (an input, an output, the context, the arguments of a call), as JSON in bytes.
pub const LARGEST_VALUE: usize = 4 * 1024 * 1024;

/// Deepest nesting of such a value.
pub const DEEPEST_VALUE: usize = 100;

/// A run: the state that its journal folds into.
#[derive(Debug)]
pub struct Run {
    id: Arc<str>,
    definition: Arc<Definition>,
    status: Status,
    /// Whether its tasks have begun.
    began: bool,
    next_index: u64,
    /// Time of the last event.
    time: Timestamp,
    started: Timestamp,
    deadline: Option<Timestamp>,
    /// The raw input.
    input: Arc<Value>,
    context: Arc<Value>,
    /// Where the run is in the list of its tasks.
    root: Cursor,
    activations: BTreeMap<u64, Activation>,
    next_activation: u64,
    /// Position in the log of events from which on what begins next hears them.
    hears_from: u64,
    /// Who has something to decide; none is the run itself.
    ready: BTreeSet<Option<u64>>,
    timers: BTreeSet<Timer>,
    /// How many tasks wait for people.
    asking: usize,
    spending: Spending,
    exhausted: Option<Exhausted>,
    /// Since when the run waits for people and nothing else, so that its clock stands still.
    resting_since: Option<Timestamp>,
    /// Whether some clock stands still.
    stood: bool,
    output: Option<Arc<Value>>,
    error: Option<Problem>,
    control: Control,
    /// `$workflow`, made when it is first asked for.
    descriptor: OnceLock<Arc<Value>>,
    /// What it knows of its secrets.
    secrets: Secrets,
    /// Bytes recorded since what it holds was measured.
    unmeasured: usize,
    /// What it notes for those who tell of it.
    observer: Option<Observer>,
}

/// In which phase a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Nothing has been recorded yet.
    Pending,
    /// It has begun.
    Running,
    /// It ended well.
    Completed,
    /// It failed.
    Faulted,
    /// It was cancelled.
    Cancelled,
}

/// What a run has to react to.
#[derive(Debug, Clone)]
pub enum Stimulus {
    /// The run begins. Of no effect if it has begun before.
    Start {
        /// Its input.
        input: Value,
    },
    /// An event has come. Of no effect if the task does not listen any more, or if the event is nothing to it.
    Event {
        /// From [`Effect::Listen`].
        activation: u64,
        /// Position of the event in the log.
        position: u64,
        /// The event.
        event: Arc<CloudEvent>,
    },
    /// A call has been answered, or has failed. Of no effect if it is no longer waited for.
    CallReturned {
        /// From [`Effect::Call`].
        activation: u64,
        /// From [`Effect::Call`].
        attempt: u32,
        /// The answer, or why there is none.
        result: Result<Value, Problem>,
    },
    /// Time has passed, or the run has been loaded from its journal: whatever is due is decided.
    Tick,
    /// The answer of a call says what it cost. To be told before the answer itself.
    Used {
        /// From [`Effect::Call`].
        activation: u64,
        /// From [`Effect::Call`].
        attempt: u32,
        /// What it cost.
        usage: Usage,
    },
    /// The run was due and got its turn only now. Of no effect if it is held or has nothing to do with time.
    Queued {
        /// When it was due.
        since: Timestamp,
    },
    /// Somebody decides. Of no effect if the approval is not open.
    Decide {
        /// Its number in the run.
        approval: u64,
        /// What they say.
        verdict: Verdict,
    },
    /// Someone holds the run. Of no effect if it is held already.
    Pause {
        /// Who.
        by: String,
        /// Why, in their words.
        reason: String,
    },
    /// Someone lets a run go on that is held.
    Resume {
        /// Who.
        by: String,
        /// Why, in their words.
        reason: String,
    },
    /// Someone ends the run in good order: handlers and compensations run. Of no effect if it is ending already.
    Cancel {
        /// Who.
        by: String,
        /// Why, in their words.
        reason: String,
    },
    /// Someone ends the run at once.
    Terminate {
        /// Who.
        by: String,
        /// Why, in their words.
        reason: String,
    },
}

/// Why nothing was decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The run's input is out of bounds.
    #[error("the input of the run {0}")]
    Input(String),
    /// The interpreter decided what it does not accept: a defect.
    #[error("the interpreter contradicts itself: {0}")]
    Inconsistent(#[from] Mismatch),
}

impl Run {
    /// A run of which nothing is recorded yet.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>, definition: Arc<Definition>) -> Self {
        let nothing = Arc::new(Value::Null);
        Self {
            id: id.into(),
            definition,
            status: Status::Pending,
            began: false,
            next_index: 0,
            time: Timestamp::UNIX_EPOCH,
            started: Timestamp::UNIX_EPOCH,
            deadline: None,
            input: Arc::clone(&nothing),
            context: Arc::clone(&nothing),
            root: Cursor::Done(nothing),
            activations: BTreeMap::new(),
            next_activation: 0,
            hears_from: 0,
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            asking: 0,
            spending: Spending::default(),
            exhausted: None,
            resting_since: None,
            stood: false,
            output: None,
            error: None,
            control: Control::default(),
            descriptor: OnceLock::new(),
            secrets: Secrets::default(),
            unmeasured: 0,
            observer: None,
        }
    }

    /// With what it is to know of its secrets when it decides.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// As this run, hearing events from this position of their log on; of no effect once it has begun.
    #[must_use]
    pub fn hearing_from(mut self, position: u64) -> Self {
        if self.next_index == 0 {
            self.hears_from = position;
        }
        self
    }

    /// The run's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is a run of.
    #[must_use]
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// In which phase it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// What it resulted in, once it is completed.
    #[must_use]
    pub fn output(&self) -> Option<&Value> {
        self.output.as_deref()
    }

    /// Why it failed, once it is faulted.
    #[must_use]
    pub fn error(&self) -> Option<&Problem> {
        self.error.as_ref()
    }

    /// Index of the next event.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// The tasks that have started and not ended: the number of the start, the pointer, the start around it, and when it was.
    pub fn open_tasks(&self) -> impl Iterator<Item = (u64, &Arc<str>, Option<u64>, Timestamp)> {
        let open = self.activations.iter();
        open.map(|(number, task)| (*number, &task.pointer, task.parent, task.started))
    }

    /// How many tasks are in progress, those around others included.
    #[must_use]
    pub fn active_tasks(&self) -> usize {
        self.activations.len()
    }

    /// The events that follow from `stimulus`, already folded into the run; none if it changes nothing.
    ///
    /// # Errors
    /// [`Error::Input`] where the run cannot start with this input.
    pub fn decide(
        &mut self,
        stimulus: Stimulus,
        now: Timestamp,
        random: &mut dyn Rng,
    ) -> Result<Vec<Event>, Error> {
        // A journal's time does not go back, even if the host's clock does.
        let now = now.max(self.time);
        let mut events = Vec::new();
        if let Some(kind) = self.respond(stimulus, now)? {
            self.record(kind, now, &mut events)?;
        }
        let mut meter = Meter::new();
        while self.status == Status::Running && !self.is_paused() {
            let kind = if let Some(owner) = self.ready.first().copied() {
                self.next(owner, now, random)
            } else if let Some(timer) = self.timers.first().filter(|timer| timer.due <= now).copied() {
                self.fire(timer, now, random)
            } else {
                break;
            };
            let kind = kind.ok_or_else(|| self.mismatch("nothing is to be decided where something is"))?;
            let kind = match meter.admit(kind) {
                Ok(kind) => kind,
                Err(too_much) => {
                    meter.begin_again();
                    self.fail_run(too_much, now)
                }
            };
            self.record(kind, now, &mut events)?;
        }
        if let Some(too_much) = self.holds_too_much(meter.bytes) {
            let kind = self.fail_run(too_much, now);
            self.record(kind, now, &mut events)?;
        }
        Ok(events)
    }

    fn record(&mut self, kind: EventKind, time: Timestamp, events: &mut Vec<Event>) -> Result<(), Mismatch> {
        let event = Event {
            index: self.next_index,
            time,
            kind,
        };
        self.observe(&event)?;
        events.push(event);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! A run's state as bytes, so that whoever takes it up again reads these and what was recorded since, and not the whole
//! journal.
//!
//! A snapshot is no truth: the journal is, and folding it gives the same state. It says nothing about the definition and
//! the secrets, which the run is given as ever. Invariants:
//!
//! - **Canonical.** The same events give the same bytes, whether the run decided them or folded them, and whether it
//!   began at the first or at a snapshot. So a snapshot can be checked by folding once more and comparing.
//! - **As large as what the run holds.** A value that is held in several places is written once, and is one value again
//!   when it is read ([`shared`]).
//! - **Versioned.** One of another format is refused by name; whoever has the journal folds that.
//!
//! The format: two lines of JSON, a head with what is shared, and the state that refers to it by numbers. Rejected: a
//! binary format (a snapshot is mostly values, which are JSON already, and one can be read by people), and snapshots of
//! what the interpreter needs only to be quick (what may concern a task that listens is made again).

pub(super) mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use self::shared::{Reading, Writing};
use super::control::Control;
use super::spending::Spending;
use super::state::{Activation, Body, Cursor, Timer};
use super::{Run, Status};
use crate::document::{Definition, Kind};
use crate::journal::Problem;
use crate::secret::Secrets;

/// The format that is written; the only one that is read.
pub const FORMAT: u32 = 1;

/// Why bytes are no state of a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another release has written it.
    #[error("the snapshot has format {0}, and this release reads {FORMAT}")]
    Format(u32),
    /// It is not what was written, or belongs to another definition.
    #[error("the snapshot is damaged: {0}")]
    Damaged(String),
}

/// The state, as far as it is no consequence of anything else.
#[derive(Serialize, Deserialize)]
struct State<'r> {
    status: Status,
    began: bool,
    next_index: u64,
    time: Timestamp,
    started: Timestamp,
    deadline: Option<Timestamp>,
    #[serde(with = "shared::value")]
    input: Arc<Value>,
    #[serde(with = "shared::value")]
    context: Arc<Value>,
    root: Part<'r, Cursor>,
    activations: Part<'r, BTreeMap<u64, Activation>>,
    next_activation: u64,
    hears_from: u64,
    ready: Part<'r, BTreeSet<Option<u64>>>,
    timers: Part<'r, BTreeSet<Timer>>,
    asking: usize,
    spending: Part<'r, Spending>,
    resting_since: Option<Timestamp>,
    stood: bool,
    #[serde(with = "shared::maybe_value")]
    output: Option<Arc<Value>>,
    error: Part<'r, Option<Problem>>,
    control: Part<'r, Control>,
}

/// A part of a state: the run's own where it is written, a new one where it is read.
enum Part<'r, T> {
    Shown(&'r T),
    Read(T),
}

impl<T: Serialize> Serialize for Part<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Shown(part) => part.serialize(serializer),
            Self::Read(part) => part.serialize(serializer),
        }
    }
}

impl<T> Part<'_, T> {
    fn own(self) -> Result<T, Unreadable> {
        match self {
            Self::Read(part) => Ok(part),
            Self::Shown(_) => Err(Unreadable::Damaged("it was not read".to_owned())),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Part<'_, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::Read)
    }
}

impl Run {
    /// The state as bytes.
    ///
    /// # Panics
    /// Never: all of it can be written as JSON.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let shown = State {
            status: self.status,
            began: self.began,
            next_index: self.next_index,
            time: self.time,
            started: self.started,
            deadline: self.deadline,
            input: Arc::clone(&self.input),
            context: Arc::clone(&self.context),
            root: Part::Shown(&self.root),
            activations: Part::Shown(&self.activations),
            next_activation: self.next_activation,
            hears_from: self.hears_from,
            ready: Part::Shown(&self.ready),
            timers: Part::Shown(&self.timers),
            asking: self.asking,
            spending: Part::Shown(&self.spending),
            resting_since: self.resting_since,
            stood: self.stood,
            output: self.output.clone(),
            error: Part::Shown(&self.error),
            control: Part::Shown(&self.control),
        };
        let writing = Writing::begin();
        let state = serde_json::to_vec(&shown).expect("a state can be written as JSON");
        let mut bytes = writing.end(FORMAT);
        bytes.push(b'\n');
        bytes.extend(state);
        bytes
    }

    /// The run `id` of `definition` in the state that [`Self::snapshot`] has written.
    ///
    /// # Errors
    /// The bytes are no such state.
    pub fn restored(
        id: impl Into<Arc<str>>,
        definition: Arc<Definition>,
        bytes: &[u8],
    ) -> Result<Self, Unreadable> {
        let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let (head, state) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let Versioned { format } = serde_json::from_slice(head).map_err(damaged)?;
        if format != FORMAT {
            return Err(Unreadable::Format(format));
        }
        let reading = Reading::begin(head).map_err(damaged)?;
        let state: State<'static> = serde_json::from_slice(state).map_err(damaged)?;
        drop(reading);
        let mut run = Self {
            id: id.into(),
            definition,
            status: state.status,
            began: state.began,
            next_index: state.next_index,
            time: state.time,
            started: state.started,
            deadline: state.deadline,
            input: state.input,
            context: state.context,
            root: state.root.own()?,
            activations: state.activations.own()?,
            next_activation: state.next_activation,
            hears_from: state.hears_from,
            ready: state.ready.own()?,
            timers: state.timers.own()?,
            asking: state.asking,
            spending: state.spending.own()?,
            exhausted: None,
            resting_since: state.resting_since,
            stood: state.stood,
            output: state.output,
            error: state.error.own()?,
            control: state.control.own()?,
            descriptor: OnceLock::new(),
            secrets: Secrets::default(),
            unmeasured: 0,
            observer: None,
        };
        run.hear_again()?;
        Ok(run)
    }

    /// Makes what may concern the tasks that listen, and checks that each activation has a task.
    fn hear_again(&mut self) -> Result<(), Unreadable> {
        let workflow = Arc::clone(&self.definition.workflow);
        for activation in self.activations.values_mut() {
            let pointer = &activation.pointer;
            let task = workflow
                .task(pointer)
                .ok_or_else(|| Unreadable::Damaged(format!("the definition has no task {pointer}")))?;
            if let Body::Listen(listening) = &mut activation.body {
                let Kind::Listen(listen) = &task.kind else {
                    return Err(Unreadable::Damaged(format!("{pointer} does not listen")));
                };
                listening.interests = listening.hearing.interests(&listen.to).into();
            }
        }
        Ok(())
    }
}

/// What is read first.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

//! What is known about a call that has not ended: for people who ask, and for telling the agent to stop.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use muster_workflow_dsl::run::BlockerKind;
use muster_workflow_dsl::usage::Usage;
use parking_lot::Mutex;
use serde_json::{Map, Value};

/// What is known about a call that has not ended.
#[derive(Debug, Default)]
pub struct Progress {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    task_id: Option<String>,
    session: Option<String>,
    usage: Option<Usage>,
    /// Whether the other side may be at work.
    open: bool,
    note: Option<Told>,
}

/// A note, or what makes one for whoever asks, where it changes all the time.
enum Told {
    Note(Note),
    Anew(Box<dyn Fn() -> Note + Send + Sync>),
}

impl Told {
    fn note(&self) -> Note {
        match self {
            Self::Note(note) => note.clone(),
            Self::Anew(make) => make(),
        }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note().fmt(formatter)
    }
}

/// What holds a call up, or what the agent says it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What kind of thing holds the call up; none while nothing is known to.
    pub kind: Option<BlockerKind>,
    /// In words.
    pub text: String,
    /// Since when it has been so.
    pub since: Option<Timestamp>,
    /// After how long it is tried again.
    pub next: Option<Duration>,
    /// More for programs.
    pub details: Map<String, Value>,
}

impl From<String> for Note {
    fn from(text: String) -> Self {
        Self {
            kind: None,
            text,
            since: None,
            next: None,
            details: Map::new(),
        }
    }
}

impl Progress {
    /// The agent's task, once known.
    #[must_use]
    pub fn task_id(&self) -> Option<String> {
        self.known.lock().task_id.clone()
    }

    /// What holds the call up, or what the agent says it does.
    #[must_use]
    pub fn note(&self) -> Option<Note> {
        self.known.lock().note.as_ref().map(Told::note)
    }

    /// What the other side has said so far that it has used.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.known.lock().usage
    }

    pub(crate) fn learn_usage(&self, usage: Usage) {
        self.known.lock().usage = Some(usage);
    }

    /// The session with the other side, once known.
    #[must_use]
    pub fn session(&self) -> Option<String> {
        self.known.lock().session.clone()
    }

    /// Whether the other side may be at work although the call has ended: then it is to be told.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.known.lock().open
    }

    /// From now on the other side may be at work.
    pub(crate) fn begin(&self) {
        self.known.lock().open = true;
    }

    pub(crate) fn learn_session(&self, id: &str) {
        self.known.lock().session = Some(id.to_owned());
    }

    pub(crate) fn learn_task(&self, id: &str) {
        if !id.is_empty() {
            self.known.lock().task_id = Some(id.to_owned());
        }
    }

    pub(crate) fn set_note(&self, note: Option<String>) {
        self.known.lock().note = note.map(Note::from).map(Told::Note);
    }

    /// Says what holds the call up.
    pub(crate) fn set_obstacle(&self, note: Note) {
        self.known.lock().note = Some(Told::Note(note));
    }

    /// Says what holds the call up, anew to each who asks.
    pub(crate) fn set_changing_obstacle(&self, make: impl Fn() -> Note + Send + Sync + 'static) {
        self.known.lock().note = Some(Told::Anew(Box::new(make)));
    }
}

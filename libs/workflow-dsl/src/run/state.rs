//! The parts of a run's state.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::approval::Approval;
use super::place::Place;
use super::snapshot::shared;
use crate::hearing::{Hearing, Interest};
use crate::journal::{Problem, Stage};
use crate::request::Request;

/// Where the execution of a list of tasks is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Cursor {
    /// A task is to be started.
    Start {
        /// Its position in the list.
        position: usize,
        /// Its raw input.
        #[serde(with = "shared::value")]
        input: Arc<Value>,
        /// How often the flow has gone back in this list.
        lap: u32,
    },
    /// A task is running.
    Running {
        /// Its activation.
        child: u64,
        /// How often the flow has gone back in this list.
        lap: u32,
    },
    /// The list has ended with this output.
    Done(#[serde(with = "shared::value")] Arc<Value>),
    /// A task of the list has failed.
    Failed(Arc<Problem>),
}

impl Cursor {
    /// At the beginning of a list.
    pub(super) fn first(input: &Arc<Value>) -> Self {
        Self::Start {
            position: 0,
            input: Arc::clone(input),
            lap: 0,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    pub(super) fn child(&self) -> Option<u64> {
        match self {
            Self::Running { child, .. } => Some(*child),
            Self::Start { .. } | Self::Done(_) | Self::Failed(_) => None,
        }
    }
}

/// A task that has started and not ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Activation {
    /// The task around it.
    pub(super) parent: Option<u64>,
    /// Its position in the list it belongs to.
    pub(super) position: usize,
    pub(super) pointer: Arc<str>,
    /// What the task was given.
    #[serde(with = "shared::value")]
    pub(super) raw_input: Arc<Value>,
    /// What `input.from` made of it.
    #[serde(with = "shared::value")]
    pub(super) input: Arc<Value>,
    pub(super) started: Timestamp,
    pub(super) deadline: Option<Timestamp>,
    /// How long its clock has stood still.
    pub(super) idle: SignedDuration,
    #[serde(with = "shared::scope")]
    pub(super) scope: Option<Arc<Scope>>,
    pub(super) place: Place,
    /// Position in the log of events from which on what begins inside it hears them.
    pub(super) hears_from: u64,
    /// Indexes of the extensions that apply to it.
    pub(super) extensions: Arc<[usize]>,
    /// Since when it waits for people and nothing else, so that its clock stands still.
    pub(super) resting_since: Option<Timestamp>,
    /// Whether what its call cost is counted.
    pub(super) counted: bool,
    pub(super) body: Body,
}

/// A variable of a loop or a catch, and those outside of it.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) name: String,
    pub(super) value: Arc<Value>,
    pub(super) outer: Option<Arc<Scope>>,
}

/// How far a task is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Body {
    /// It has started; what its kind needs is to be evaluated.
    Ready,
    /// It could not be started, or may not go on.
    Failed(Arc<Problem>),
    /// People are to be asked before it begins what it is for.
    Asking,
    /// They have been asked.
    Asked(Box<Approval>),
    /// It is a call that is not made before it is decided about a budget.
    Held,
    /// It waits for the answer of a call.
    Call(Arc<Request>),
    /// It runs the task of a function.
    Function(Function),
    /// It waits for a time.
    Wait(Timestamp),
    /// It listens for events.
    Listen(Box<Listening>),
    /// It runs the tasks of an extension.
    Extended(Extended),
    /// It runs a list.
    Sequence(Cursor),
    /// It runs a list for each item.
    Loop(Loop),
    /// It runs branches.
    Fork(Fork),
    /// It runs a list and handles its errors.
    Try(Try),
}

/// A function of one's own that has been called.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Function {
    /// Its name.
    pub(super) name: String,
    /// Where its task is.
    pub(super) cursor: Cursor,
}

/// A task around which an extension runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Extended {
    /// Before or after the task.
    pub(super) stage: Stage,
    /// Index of the extension.
    pub(super) extension: usize,
    /// Where its tasks are.
    pub(super) cursor: Cursor,
    /// Whether `then: exit` has left them, so that the task itself is not to run.
    pub(super) left: bool,
    /// What the task yielded, once it has.
    #[serde(with = "shared::maybe_value")]
    pub(super) output: Option<Arc<Value>>,
    /// The same before `output.as`.
    #[serde(with = "shared::maybe_value")]
    pub(super) raw_output: Option<Arc<Value>>,
    /// The case that it has taken, if it is a switch.
    pub(super) case: Option<String>,
}

/// A `for` whose collection is known.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Loop {
    /// The items, an array.
    #[serde(with = "shared::value")]
    pub(super) items: Arc<Value>,
    /// Iterations that have ended; the index of the current one.
    pub(super) done: usize,
    /// Input of the next iteration: the output of the last one.
    #[serde(with = "shared::value")]
    pub(super) input: Arc<Value>,
    /// Where the current iteration is; none between two.
    pub(super) cursor: Option<Cursor>,
}

/// A `listen` that has begun.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listening {
    /// Position in the log of events of the next one to look at.
    pub(super) from: u64,
    /// How far its strategy has come.
    pub(super) hearing: Hearing,
    /// What may concern it now.
    /// Follows from the others; made again.
    #[serde(skip)]
    pub(super) interests: Arc<[Interest]>,
    /// How many events it has consumed, those that end it not counted.
    pub(super) count: usize,
    /// What it keeps of them.
    #[serde(with = "shared::values")]
    pub(super) items: Vec<Arc<Value>>,
    /// How large that is, roughly, as JSON.
    pub(super) bytes: usize,
    /// The events as they were read, where a condition is judged on them and a `foreach` keeps something else.
    #[serde(with = "shared::values")]
    pub(super) events: Vec<Arc<Value>>,
    /// How large those are, roughly, as JSON.
    pub(super) event_bytes: usize,
    /// The event that is being worked on.
    pub(super) current: Option<Item>,
    /// Whether it has heard enough.
    pub(super) done: bool,
}

/// An event for which the tasks of a `foreach` run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Item {
    /// What was read of it.
    #[serde(with = "shared::value")]
    pub(super) value: Arc<Value>,
    /// Where its tasks are.
    pub(super) cursor: Cursor,
}

impl Listening {
    /// Whether it waits for an event.
    pub(super) fn waits(&self) -> bool {
        self.current.is_none() && !self.done
    }

    /// What it keeps of the events, as one value.
    pub(super) fn output(&self) -> Value {
        self.items.iter().map(|item| item.as_ref().clone()).collect()
    }
}

/// A `fork`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Fork {
    /// Some branch has not ended.
    Running(Vec<Branch>),
    /// The output.
    Done(#[serde(with = "shared::value")] Arc<Value>),
    /// A branch has failed.
    Failed(Arc<Problem>),
}

/// A branch of a `fork`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Branch {
    /// To be started.
    Waiting,
    /// Its activation.
    Running(u64),
    /// Its output.
    Done(#[serde(with = "shared::value")] Arc<Value>),
    /// It has failed, and the others go on.
    Failed,
    /// The run was cancelled before it had an output.
    Stopped,
}

/// A `try`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Try {
    /// Number of the current attempt, from 1.
    pub(super) attempt: u32,
    /// The error that is being handled; none while the tasks are tried.
    pub(super) caught: Option<Arc<Problem>>,
    /// Where the tasks that are tried, or those of the catch, are.
    pub(super) cursor: Cursor,
    /// When the next attempt begins, between two attempts.
    pub(super) resume: Option<Timestamp>,
    /// When the current attempt times out.
    pub(super) deadline: Option<Timestamp>,
    /// Why the attempt before failed, and when; none in the first attempt. For those who ask what the run waits for.
    pub(super) failed: Option<(Arc<Problem>, Timestamp)>,
}

/// An instant at which something is to be decided. The earliest first; of those at one instant the outermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Timer {
    pub(super) due: Timestamp,
    /// Whose timer it is; none for the run itself.
    pub(super) owner: Option<u64>,
    pub(super) cause: Cause,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Cause {
    /// The task, or the run, times out.
    Deadline,
    /// A `wait` ends.
    Wait,
    /// The next attempt begins.
    Retry,
    /// The current attempt times out.
    Attempt,
    /// Nobody decides any more.
    ApprovalDeadline,
    /// More people are asked.
    Escalation,
    /// A new period of a budget begins.
    Renewal,
}

impl Body {
    /// Where the list that the task runs is, if it runs one.
    pub(super) fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        match self {
            Self::Sequence(cursor) => Some(cursor),
            Self::Extended(extended) => Some(&mut extended.cursor),
            Self::Function(function) => Some(&mut function.cursor),
            Self::Loop(each) => each.cursor.as_mut(),
            Self::Try(attempt) => Some(&mut attempt.cursor),
            Self::Listen(listening) => listening.current.as_mut().map(|item| &mut item.cursor),
            Self::Ready
            | Self::Failed(_)
            | Self::Asking
            | Self::Asked(_)
            | Self::Held
            | Self::Call(_)
            | Self::Wait(_)
            | Self::Fork(_) => None,
        }
    }

    /// Whether something is to be decided now.
    fn is_ready(&self) -> bool {
        match self {
            Self::Ready | Self::Failed(_) | Self::Asking => true,
            Self::Asked(_) | Self::Held | Self::Call(_) | Self::Wait(_) => false,
            Self::Listen(listening) => match &listening.current {
                Some(item) => !item.cursor.is_running(),
                None => listening.done,
            },
            Self::Sequence(cursor) => !cursor.is_running(),
            Self::Extended(extended) => !extended.cursor.is_running(),
            Self::Function(function) => !function.cursor.is_running(),
            Self::Loop(each) => !each.cursor.as_ref().is_some_and(Cursor::is_running),
            Self::Fork(Fork::Running(branches)) => {
                branches.iter().any(|branch| matches!(branch, Branch::Waiting))
            }
            Self::Fork(Fork::Done(_) | Fork::Failed(_)) => true,
            Self::Try(attempt) => attempt.resume.is_none() && !attempt.cursor.is_running(),
        }
    }
}

impl Extended {
    /// An extension at the beginning of its tasks.
    pub(super) fn new(extension: usize, stage: Stage, input: &Arc<Value>) -> Self {
        Self {
            stage,
            extension,
            cursor: Cursor::first(input),
            left: false,
            output: None,
            raw_output: None,
            case: None,
        }
    }
}

impl Activation {
    pub(super) fn is_ready(&self) -> bool {
        self.body.is_ready()
    }

    /// Whether people have been asked about it and have not decided.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.body, Body::Asked(_) | Body::Held)
    }

    /// The activations directly below.
    pub(super) fn children(&self) -> Vec<u64> {
        match &self.body {
            Body::Sequence(cursor) => cursor.child().into_iter().collect(),
            Body::Extended(extended) => extended.cursor.child().into_iter().collect(),
            Body::Function(function) => function.cursor.child().into_iter().collect(),
            Body::Loop(each) => each.cursor.as_ref().and_then(Cursor::child).into_iter().collect(),
            Body::Try(attempt) => attempt.cursor.child().into_iter().collect(),
            Body::Listen(listening) => {
                let item = listening.current.as_ref();
                item.and_then(|item| item.cursor.child()).into_iter().collect()
            }
            Body::Fork(Fork::Running(branches)) => {
                let running = branches.iter().filter_map(|branch| match branch {
                    Branch::Running(child) => Some(*child),
                    Branch::Waiting | Branch::Done(_) | Branch::Failed | Branch::Stopped => None,
                });
                running.collect()
            }
            Body::Fork(_)
            | Body::Ready
            | Body::Failed(_)
            | Body::Asking
            | Body::Asked(_)
            | Body::Held
            | Body::Call(_)
            | Body::Wait(_) => Vec::new(),
        }
    }

    /// The instants at which something about this activation is to be decided.
    pub(super) fn timers(&self, id: u64) -> impl Iterator<Item = Timer> + use<> {
        let runs = self.resting_since.is_none();
        let deadline = self.deadline.filter(|_| runs).map(|due| (due, Cause::Deadline));
        let own = match &self.body {
            Body::Wait(until) => [Some((*until, Cause::Wait)), None],
            Body::Asked(approval) => approval.timers(),
            Body::Try(Try {
                resume: Some(due), ..
            }) => [Some((*due, Cause::Retry)), None],
            Body::Try(Try {
                deadline: Some(due),
                cursor,
                ..
            }) if runs && cursor.is_running() => [Some((*due, Cause::Attempt)), None],
            _ => [None, None],
        };
        let timers = deadline.into_iter().chain(own.into_iter().flatten());
        timers.map(move |(due, cause)| Timer {
            due,
            owner: Some(id),
            cause,
        })
    }
}

impl Scope {
    /// The innermost variable with this name.
    pub(super) fn find<'a>(mut scope: Option<&'a Arc<Self>>, name: &str) -> Option<&'a Arc<Value>> {
        while let Some(current) = scope {
            if current.name == name {
                return Some(&current.value);
            }
            scope = current.outer.as_ref();
        }
        None
    }

    /// A scope inside another one.
    pub(super) fn inside(outer: Option<&Arc<Self>>, name: &str, value: Arc<Value>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            value,
            outer: outer.cloned(),
        })
    }
}

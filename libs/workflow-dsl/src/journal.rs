//! What happened in a run, in order: the one truth about it.
//!
//! A run's state is its events folded ([`crate::run::Run::apply`]), and folding evaluates nothing: every outcome that a
//! later reader could compute differently is written down. That is the transformed input, the arguments of a call,
//! the collection of a loop, the output, the exported context, the case of a switch, the delay of a retry with its
//! jitter, and each deadline as an instant. Therefore neither a new version of jq nor another clock changes a run
//! that has begun. What follows from the document and the events before it is not repeated: a value is left out
//! where it is one that the state already holds, such as the output of a `do`, which is that of its last task.
//!
//! An event about a task names the task's JSON pointer and its *activation*, a number that is given once for each
//! time a task starts. When an activation ends, in whatever way, all activations below it end with it, without
//! events of their own: the losing branches of a `fork`, or what a timeout interrupts.
//!
//! The JSON form is stable: `type` names the event, fields are only added. [`FORMAT`] counts the changes that an older
//! reader would misunderstand.

pub mod chain;
mod error;
mod question;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::request::Request;
use crate::usage::Usage;
pub use error::{Own, Problem, Standard};
pub use question::{Breach, Escalation, Question, Verdict};

/// Version of the format of events. A reader refuses a journal that begins with a higher one.
pub const FORMAT: u32 = 1;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the journal, from 0, without gaps.
    pub index: u64,
    /// When it was decided. Never goes back within a journal.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum EventKind {
    /// The run began.
    #[serde(rename = "run.started")]
    RunStarted {
        /// [`FORMAT`] of this journal.
        format: u32,
        /// The input as it was given.
        input: Arc<Value>,
        /// What `input.from` made of it, if there is one.
        #[serde(
            default,
            deserialize_with = "present",
            skip_serializing_if = "Option::is_none"
        )]
        transformed: Option<Arc<Value>>,
        /// When the run times out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
        /// Why the run cannot go on, if its input could not be transformed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Problem>,
        /// Position in the log of events from which on the run hears them.
        #[serde(default, skip_serializing_if = "is_zero")]
        hears_from: u64,
    },
    /// A task began.
    #[serde(rename = "task.started")]
    TaskStarted {
        /// JSON pointer of the task.
        task: Arc<str>,
        /// The number of this start.
        activation: u64,
        /// Activation of the task around it; none for the tasks of the workflow itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<u64>,
        /// Indexes of the iterations around it, outermost first. For readers; the fold knows them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        iterations: Vec<u64>,
        /// What `input.from` made of the raw input, if there is one.
        #[serde(
            default,
            deserialize_with = "present",
            skip_serializing_if = "Option::is_none"
        )]
        input: Option<Arc<Value>>,
        /// When the task times out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
        /// When its first attempt times out, where that is computed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt_deadline: Option<Timestamp>,
        /// Indexes of the extensions that apply to it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        extensions: Vec<usize>,
        /// Why the task cannot go on, if its condition or its input could not be evaluated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Problem>,
    },
    /// The tasks of an extension begin, before or after the task that it extends.
    #[serde(rename = "extension.started")]
    ExtensionStarted {
        /// JSON pointer of the extended task.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// Index of the extension among those of the document.
        extension: usize,
        /// Which of its tasks.
        stage: Stage,
        /// What the extended task yielded, transformed, when the first extension after it begins; left out where the state already
        /// holds it.
        #[serde(
            default,
            deserialize_with = "present",
            skip_serializing_if = "Option::is_none"
        )]
        output: Option<Arc<Value>>,
        /// The same before its transformation; left out where there is none, or where the state already holds it.
        #[serde(
            default,
            deserialize_with = "present",
            skip_serializing_if = "Option::is_none"
        )]
        raw: Option<Arc<Value>>,
        /// The new context, if the extended task exports one; with `output`.
        #[serde(
            default,
            deserialize_with = "present",
            skip_serializing_if = "Option::is_none"
        )]
        context: Option<Arc<Value>>,
        /// The case that an extended switch has taken; with `output`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        case: Option<String>,
    },
    /// The extensions before a task have ended: now it does what it is for.
    #[serde(rename = "extensions.ended")]
    ExtensionsEnded {
        /// JSON pointer of the extended task.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// When its first attempt times out, where that is computed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt_deadline: Option<Timestamp>,
    },
    /// A task was passed over because its `if` is not true; its output is its input.
    #[serde(rename = "task.skipped")]
    TaskSkipped {
        /// JSON pointer of the task.
        task: Arc<str>,
        /// Activation of the task around it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<u64>,
    },
    /// A task ended well.
    #[serde(rename = "task.completed")]
    TaskCompleted {
        /// JSON pointer of the task.
        task: Arc<str>,
        /// The start that ended.
        activation: u64,
        /// The transformed output; left out where the state already holds it.
        #[serde(
            default,
            deserialize_with = "present",
            skip_serializing_if = "Option::is_none"
        )]
        output: Option<Arc<Value>>,
        /// The new context, if the task exports one.
        #[serde(
            default,
            deserialize_with = "present",
            skip_serializing_if = "Option::is_none"
        )]
        context: Option<Arc<Value>>,
        /// Of a switch, the name of the case that was taken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        case: Option<String>,
    },
    /// A task failed.
    #[serde(rename = "task.faulted")]
    TaskFaulted {
        /// JSON pointer of the task.
        task: Arc<str>,
        /// The start that failed.
        activation: u64,
        /// Why.
        error: Problem,
    },
    /// The tasks of a `try` failed and will be tried again.
    #[serde(rename = "task.retried")]
    TaskRetried {
        /// JSON pointer of the `try`.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// The number of the attempt to come; the first one was 1.
        attempt: u32,
        /// When it begins, with backoff and jitter.
        due: Timestamp,
        /// When it times out, where that is computed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt_deadline: Option<Timestamp>,
        /// Why the last attempt failed.
        error: Problem,
    },
    /// The tasks of a `try` failed, and the error is handled.
    #[serde(rename = "task.caught")]
    TaskCaught {
        /// JSON pointer of the `try`.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// What is handled.
        error: Problem,
    },
    /// The arguments of a call are known, and it may be made.
    #[serde(rename = "call.started")]
    CallStarted {
        /// JSON pointer of the call.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// What is called; its fields stand beside these.
        #[serde(flatten)]
        request: Request,
    },
    /// People are asked before a task begins what it is for.
    #[serde(rename = "approval.opened")]
    ApprovalOpened {
        /// JSON pointer of the task.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// Number of the approval in the run: the index of this event.
        approval: u64,
        /// What they are asked; its fields stand beside these.
        #[serde(flatten)]
        question: Question,
        /// The budget that is used up, if that is what they are asked about: then the call that asks, and others, are held.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<Breach>,
    },
    /// Nothing was decided for a while, and more people are asked.
    #[serde(rename = "approval.escalated")]
    ApprovalEscalated {
        /// JSON pointer of the task.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// Which approval.
        approval: u64,
    },
    /// Somebody decided.
    #[serde(rename = "approval.decided")]
    ApprovalDecided {
        /// JSON pointer of the task.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// Which approval.
        approval: u64,
        /// What they say; its fields stand beside these.
        #[serde(flatten)]
        verdict: Verdict,
        /// When the first attempt of the task times out, where that is computed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt_deadline: Option<Timestamp>,
        /// Why the task cannot go on although it may.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Problem>,
    },
    /// Nobody decided in time.
    #[serde(rename = "approval.expired")]
    ApprovalExpired {
        /// JSON pointer of the task.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// Which approval.
        approval: u64,
    },
    /// A new period of the budget has begun that people were asked about: nobody has to decide any more.
    #[serde(rename = "budget.renewed")]
    BudgetRenewed {
        /// JSON pointer of the task whose call was the first to be held.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// The approval that is withdrawn.
        approval: u64,
    },
    /// The arguments of a function of one's own are known, and its task may begin.
    #[serde(rename = "function.started")]
    FunctionStarted {
        /// JSON pointer of the call.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// The name of the function.
        function: String,
        /// Its input.
        input: Arc<Value>,
    },
    /// A call is not made before it is decided about a budget.
    #[serde(rename = "call.held")]
    CallHeld {
        /// JSON pointer of the call.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
    },
    /// The answer of a call, or the run that a task has started, says what it cost.
    #[serde(rename = "usage.reported")]
    UsageReported {
        /// JSON pointer of the call.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// What it cost.
        usage: Usage,
        /// Whether it is what a run that the task has started used: that has counted for its namespace already.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        child: bool,
    },
    /// A pause began.
    #[serde(rename = "wait.started")]
    WaitStarted {
        /// JSON pointer of the wait.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// When it ends.
        until: Timestamp,
    },
    /// A task listens for events.
    #[serde(rename = "listen.started")]
    ListenStarted {
        /// JSON pointer of the task.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// Position in the log of events from which on it listens.
        from: u64,
        /// What correlations are expected to be, by name.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        expect: BTreeMap<String, Value>,
    },
    /// A task that listens has consumed an event.
    #[serde(rename = "event.consumed")]
    EventConsumed {
        /// JSON pointer of the task.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// Position of the event in the log.
        position: u64,
        /// Which event that is.
        event: EventName,
        /// Index of the filter that it matches.
        filter: usize,
        /// Whether that is a filter of the events that end the listening; then it is no part of the output.
        #[serde(default, skip_serializing_if = "is_false")]
        until: bool,
        /// What the task reads of it; left out where it ends the listening.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Arc<Value>>,
        /// Values of correlations that the event is the first to have.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        correlations: BTreeMap<String, Value>,
        /// Whether the task has heard enough.
        #[serde(default, skip_serializing_if = "is_false")]
        done: bool,
    },
    /// What is done for each event has been done for this one.
    #[serde(rename = "item.completed")]
    ItemCompleted {
        /// JSON pointer of the task that listens.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// Index of the event among those that it has consumed.
        item: u64,
        /// What it keeps of the event; left out where that is the output of the last task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Arc<Value>>,
        /// The new context, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<Arc<Value>>,
        /// Whether the task has heard enough.
        #[serde(default, skip_serializing_if = "is_false")]
        done: bool,
    },
    /// The collection of a loop is known.
    #[serde(rename = "loop.started")]
    LoopStarted {
        /// JSON pointer of the loop.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// The items, an array.
        items: Arc<Value>,
    },
    /// A loop took its next item.
    #[serde(rename = "iteration.started")]
    IterationStarted {
        /// JSON pointer of the loop.
        task: Arc<str>,
        /// Its activation.
        activation: u64,
        /// Index of the item.
        iteration: u64,
    },
    /// The run ended well.
    #[serde(rename = "run.completed")]
    RunCompleted {
        /// The transformed output; left out where it is that of the last task.
        #[serde(
            default,
            deserialize_with = "present",
            skip_serializing_if = "Option::is_none"
        )]
        output: Option<Arc<Value>>,
    },
    /// The run failed.
    #[serde(rename = "run.faulted")]
    RunFaulted {
        /// Why.
        error: Problem,
    },
    /// Nothing is decided from here on, and no time counts, until the run is told to go on or to end.
    #[serde(rename = "run.paused")]
    RunPaused {
        /// Who wants it.
        by: String,
        /// Why.
        reason: String,
    },
    /// A paused run goes on; what limits its time has moved by the length of the pause.
    #[serde(rename = "run.resumed")]
    RunResumed {
        /// Who wants it.
        by: String,
        /// Why.
        reason: String,
    },
    /// The run was due and waited for its turn; what limits its time has moved by that.
    #[serde(rename = "run.queued")]
    RunQueued {
        /// When it was due.
        since: Timestamp,
    },
    /// The run is to end in good order: everything in progress fails with an error that tells of it.
    #[serde(rename = "run.cancelling")]
    RunCancelling {
        /// Who wants it.
        by: String,
        /// Why.
        reason: String,
    },
    /// Nothing of the run is in progress any more, and it begins to take back what it did.
    #[serde(rename = "run.compensating")]
    RunCompensating {
        /// JSON pointers of the completed tasks that have a compensation, in the order in which they are taken back.
        tasks: Vec<Arc<str>>,
        /// When those that have not had their turn are given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
        /// Why, unless the run was cancelled.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Problem>,
    },
    /// The compensation of a completed task began.
    #[serde(rename = "compensation.started")]
    CompensationStarted {
        /// JSON pointer of the completed task.
        task: Arc<str>,
        /// The start that had completed.
        activation: u64,
    },
    /// A completed task was taken back.
    #[serde(rename = "compensation.completed")]
    CompensationCompleted {
        /// JSON pointer of the completed task.
        task: Arc<str>,
        /// The start that had completed.
        activation: u64,
    },
    /// A completed task could not be taken back; the others have their turn all the same.
    #[serde(rename = "compensation.faulted")]
    CompensationFaulted {
        /// JSON pointer of the completed task.
        task: Arc<str>,
        /// The start that had completed.
        activation: u64,
        /// Why.
        error: Problem,
    },
    /// A run that had ended goes on from an earlier state: the events from `to` up to this one do not count any more.
    #[serde(rename = "run.retried")]
    RunRetried {
        /// Index of the first event that does not count any more.
        to: u64,
        /// How often the run has been retried, this time included.
        generation: u32,
        /// The number that the next task to start gets, so that none is given twice.
        #[serde(rename = "nextActivation")]
        next_activation: u64,
        /// Who wants it.
        by: String,
        /// Why.
        reason: String,
        /// JSON pointer of the step from whose start the run goes on, if one was named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Arc<str>>,
        /// Activation of the task that asks its people anew, if a no or their silence is what failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asks: Option<u64>,
    },
    /// The events before this one are those of another run; from here on this run goes its own way.
    #[serde(rename = "run.forked")]
    RunForked {
        /// The other run.
        from: String,
        /// Who wants it.
        by: String,
        /// JSON pointer of the task that is about to begin; none at the beginning of the run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<Arc<str>>,
        /// Activation of the task around it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<u64>,
        /// The input that it gets in place of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Arc<Value>>,
    },
    /// The run was cancelled.
    #[serde(rename = "run.cancelled")]
    RunCancelled {
        /// Why, in the words of whoever cancelled it.
        reason: String,
    },
}

/// What tells an event from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventName {
    /// Its source.
    pub source: String,
    /// Its id, unique among those of its source.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Which tasks of an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Those before the extended task.
    Before,
    /// Those after it.
    After,
}

/// A value that is there, which `null` is, too.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Value>>, D::Error> {
    Arc::<Value>::deserialize(deserializer).map(Some)
}

impl Event {
    /// The event's type, as `type` in its JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.kind {
            EventKind::RunStarted { .. } => "run.started",
            EventKind::TaskStarted { .. } => "task.started",
            EventKind::TaskSkipped { .. } => "task.skipped",
            EventKind::ExtensionStarted { .. } => "extension.started",
            EventKind::ExtensionsEnded { .. } => "extensions.ended",
            EventKind::TaskCompleted { .. } => "task.completed",
            EventKind::TaskFaulted { .. } => "task.faulted",
            EventKind::TaskRetried { .. } => "task.retried",
            EventKind::TaskCaught { .. } => "task.caught",
            EventKind::CallStarted { .. } => "call.started",
            EventKind::ApprovalOpened { .. } => "approval.opened",
            EventKind::ApprovalEscalated { .. } => "approval.escalated",
            EventKind::ApprovalDecided { .. } => "approval.decided",
            EventKind::ApprovalExpired { .. } => "approval.expired",
            EventKind::BudgetRenewed { .. } => "budget.renewed",
            EventKind::FunctionStarted { .. } => "function.started",
            EventKind::CallHeld { .. } => "call.held",
            EventKind::UsageReported { .. } => "usage.reported",
            EventKind::WaitStarted { .. } => "wait.started",
            EventKind::ListenStarted { .. } => "listen.started",
            EventKind::EventConsumed { .. } => "event.consumed",
            EventKind::ItemCompleted { .. } => "item.completed",
            EventKind::LoopStarted { .. } => "loop.started",
            EventKind::IterationStarted { .. } => "iteration.started",
            EventKind::RunCompleted { .. } => "run.completed",
            EventKind::RunFaulted { .. } => "run.faulted",
            EventKind::RunCancelled { .. } => "run.cancelled",
            EventKind::RunPaused { .. } => "run.paused",
            EventKind::RunResumed { .. } => "run.resumed",
            EventKind::RunQueued { .. } => "run.queued",
            EventKind::RunCancelling { .. } => "run.cancelling",
            EventKind::RunCompensating { .. } => "run.compensating",
            EventKind::CompensationStarted { .. } => "compensation.started",
            EventKind::CompensationCompleted { .. } => "compensation.completed",
            EventKind::CompensationFaulted { .. } => "compensation.faulted",
            EventKind::RunRetried { .. } => "run.retried",
            EventKind::RunForked { .. } => "run.forked",
        }
    }

    /// JSON pointer of the task that the event is about; none for the run itself.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        match &self.kind {
            EventKind::TaskStarted { task, .. }
            | EventKind::TaskSkipped { task, .. }
            | EventKind::ExtensionStarted { task, .. }
            | EventKind::ExtensionsEnded { task, .. }
            | EventKind::TaskCompleted { task, .. }
            | EventKind::TaskFaulted { task, .. }
            | EventKind::TaskRetried { task, .. }
            | EventKind::TaskCaught { task, .. }
            | EventKind::CallStarted { task, .. }
            | EventKind::ApprovalOpened { task, .. }
            | EventKind::ApprovalEscalated { task, .. }
            | EventKind::ApprovalDecided { task, .. }
            | EventKind::ApprovalExpired { task, .. }
            | EventKind::BudgetRenewed { task, .. }
            | EventKind::FunctionStarted { task, .. }
            | EventKind::CallHeld { task, .. }
            | EventKind::UsageReported { task, .. }
            | EventKind::WaitStarted { task, .. }
            | EventKind::ListenStarted { task, .. }
            | EventKind::EventConsumed { task, .. }
            | EventKind::ItemCompleted { task, .. }
            | EventKind::LoopStarted { task, .. }
            | EventKind::IterationStarted { task, .. }
            | EventKind::CompensationStarted { task, .. }
            | EventKind::CompensationCompleted { task, .. }
            | EventKind::CompensationFaulted { task, .. } => Some(task),
            EventKind::RunForked { task, .. } => task.as_deref(),
            EventKind::RunStarted { .. }
            | EventKind::RunCompleted { .. }
            | EventKind::RunFaulted { .. }
            | EventKind::RunPaused { .. }
            | EventKind::RunResumed { .. }
            | EventKind::RunQueued { .. }
            | EventKind::RunCancelling { .. }
            | EventKind::RunCompensating { .. }
            | EventKind::RunRetried { .. }
            | EventKind::RunCancelled { .. } => None,
        }
    }

    /// Activation that the event is about, if it is about one.
    #[must_use]
    pub fn activation(&self) -> Option<u64> {
        match &self.kind {
            EventKind::TaskStarted { activation, .. }
            | EventKind::ExtensionStarted { activation, .. }
            | EventKind::ExtensionsEnded { activation, .. }
            | EventKind::TaskCompleted { activation, .. }
            | EventKind::TaskFaulted { activation, .. }
            | EventKind::TaskRetried { activation, .. }
            | EventKind::TaskCaught { activation, .. }
            | EventKind::CallStarted { activation, .. }
            | EventKind::ApprovalOpened { activation, .. }
            | EventKind::ApprovalEscalated { activation, .. }
            | EventKind::ApprovalDecided { activation, .. }
            | EventKind::ApprovalExpired { activation, .. }
            | EventKind::BudgetRenewed { activation, .. }
            | EventKind::FunctionStarted { activation, .. }
            | EventKind::CallHeld { activation, .. }
            | EventKind::UsageReported { activation, .. }
            | EventKind::WaitStarted { activation, .. }
            | EventKind::ListenStarted { activation, .. }
            | EventKind::EventConsumed { activation, .. }
            | EventKind::ItemCompleted { activation, .. }
            | EventKind::LoopStarted { activation, .. }
            | EventKind::IterationStarted { activation, .. }
            | EventKind::CompensationStarted { activation, .. }
            | EventKind::CompensationCompleted { activation, .. }
            | EventKind::CompensationFaulted { activation, .. } => Some(*activation),
            EventKind::TaskSkipped { .. }
            | EventKind::RunStarted { .. }
            | EventKind::RunCompleted { .. }
            | EventKind::RunFaulted { .. }
            | EventKind::RunPaused { .. }
            | EventKind::RunResumed { .. }
            | EventKind::RunQueued { .. }
            | EventKind::RunCancelling { .. }
            | EventKind::RunCompensating { .. }
            | EventKind::RunRetried { .. }
            | EventKind::RunForked { .. }
            | EventKind::RunCancelled { .. } => None,
        }
    }

    /// Whether the run is over after this event.
    #[must_use]
    pub fn ends_run(&self) -> bool {
        matches!(
            self.kind,
            EventKind::RunCompleted { .. } | EventKind::RunFaulted { .. } | EventKind::RunCancelled { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_json_form_is_stable() {
        let event = Event {
            index: 3,
            time: "2026-03-01T12:00:00Z".parse().unwrap(),
            kind: EventKind::TaskRetried {
                task: "/do/0/a".into(),
                activation: 2,
                attempt: 2,
                due: "2026-03-01T12:00:01.5Z".parse().unwrap(),
                attempt_deadline: None,
                error: Problem::standard(Standard::Timeout, "too slow"),
            },
        };
        let json = json!({
            "index": 3,
            "time": "2026-03-01T12:00:00Z",
            "type": "task.retried",
            "task": "/do/0/a",
            "activation": 2,
            "attempt": 2,
            "due": "2026-03-01T12:00:01.5Z",
            "error": {
                "type": "https://serverlessworkflow.io/spec/1.0.0/errors/timeout",
                "status": 408,
                "title": "Timeout Error",
                "detail": "too slow",
            },
        });
        assert_eq!(serde_json::to_value(&event).unwrap(), json);
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        assert_eq!(
            (event.name(), event.task(), event.activation()),
            ("task.retried", Some("/do/0/a"), Some(2))
        );
    }

    #[test]
    fn null_is_a_value_and_not_left_out() {
        let event = Event {
            index: 3,
            time: "2026-03-01T12:00:00Z".parse().unwrap(),
            kind: EventKind::TaskCompleted {
                task: "/do/0/a".into(),
                activation: 2,
                output: Some(Arc::new(Value::Null)),
                context: None,
                case: None,
            },
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
    }

    #[test]
    fn what_is_left_out_is_read_as_left_out() {
        let json = json!({"index": 1, "time": "2026-03-01T12:00:00Z", "type": "task.started", "task": "/do/0/a", "activation": 0});
        let event: Event = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap(), json);
    }
}

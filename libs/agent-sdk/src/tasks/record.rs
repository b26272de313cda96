//! What is kept of a task, in memory and on disk: the task itself, where its updates are pushed to, and what is needed to
//! take it up again.

use a2a_pb::proto::{self as pb, TaskState};
use muster_api::time;

/// One task with all that belongs to it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Record {
    /// The task as clients see it.
    #[prost(message, optional, tag = "1")]
    pub(crate) task: Option<pb::Task>,
    /// Where its updates are pushed to.
    #[prost(message, repeated, tag = "2")]
    pub(crate) pushes: Vec<Push>,
    /// What the present message is about beside its text.
    #[prost(message, optional, tag = "3")]
    pub(crate) errand: Option<Errand>,
    /// The messages that made it and that it took, as they are known when they come again.
    #[prost(message, repeated, tag = "5")]
    pub(crate) sent: Vec<Sent>,
    /// The key of the caller on whose behalf it was made; empty in what was made before tasks had one.
    #[prost(string, tag = "6")]
    pub(crate) caller: String,
}

/// A message that may come again: see [`sent`](crate::sent).
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Sent {
    /// Hash of its caller and its id.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    /// Hash of its content.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) fingerprint: Vec<u8>,
    /// When it came, in seconds of Unix time.
    #[prost(int64, tag = "3")]
    pub(crate) second: i64,
}

/// One address that a task's updates are pushed to.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Push {
    /// The address and how the agent proves itself there.
    #[prost(message, optional, tag = "1")]
    pub(crate) config: Option<pb::TaskPushNotificationConfig>,
    /// Whether something was to be delivered that has not been yet.
    #[prost(bool, tag = "2")]
    pub(crate) owed: bool,
}

/// What came around the message that is worked on, and how often that was begun.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Errand {
    /// The skill that the router named.
    #[prost(string, tag = "1")]
    pub(crate) skill: String,
    /// The key of the workflow's step.
    #[prost(string, tag = "2")]
    pub(crate) step_key: String,
    /// Metadata of the request.
    #[prost(message, optional, tag = "3")]
    pub(crate) metadata: Option<prost_types::Struct>,
    /// How often the work was begun.
    #[prost(uint32, tag = "4")]
    pub(crate) attempts: u32,
    /// The span that it was asked within, as in `traceparent`; empty for none.
    #[prost(string, tag = "5")]
    pub(crate) traceparent: String,
    /// By what the message is known when it comes again.
    #[prost(message, optional, tag = "6")]
    pub(crate) sent: Option<Sent>,
    /// What goes with `traceparent`; empty for nothing.
    #[prost(string, tag = "7")]
    pub(crate) tracestate: String,
}

impl Record {
    /// A record of a caller's task.
    pub(crate) fn new(task: pb::Task, errand: Errand, caller: &str) -> Self {
        Self {
            caller: caller.to_owned(),
            task: Some(task),
            pushes: Vec::new(),
            sent: errand.sent.clone().into_iter().collect(),
            errand: Some(errand),
        }
    }

    pub(crate) fn state(&self) -> TaskState {
        self.task.as_ref().map_or(TaskState::Unspecified, state)
    }

    /// The task's place among others: when its status was set, in microseconds.
    pub(crate) fn time(&self) -> i64 {
        let status = self.task.as_ref().and_then(|task| task.status.as_ref());
        status
            .and_then(|status| status.timestamp.as_ref())
            .and_then(time::from_proto)
            .map_or(0, jiff::Timestamp::as_microsecond)
    }

    pub(crate) fn context(&self) -> &str {
        self.task.as_ref().map_or("", |task| task.context_id.as_str())
    }

    /// Brings the task to where an event leaves it.
    pub(crate) fn apply(&mut self, event: &pb::StreamResponse) {
        use pb::stream_response::Payload;
        let Some(task) = &mut self.task else { return };
        match &event.payload {
            Some(Payload::StatusUpdate(update)) => task.status.clone_from(&update.status),
            Some(Payload::ArtifactUpdate(update)) => {
                let Some(artifact) = &update.artifact else { return };
                let known = task
                    .artifacts
                    .iter_mut()
                    .find(|known| known.artifact_id == artifact.artifact_id);
                match known {
                    Some(known) if update.append => known.parts.extend(artifact.parts.iter().cloned()),
                    Some(known) => known.clone_from(artifact),
                    None => task.artifacts.push(artifact.clone()),
                }
            }
            Some(Payload::Task(_) | Payload::Message(_)) | None => {}
        }
    }
}

/// A task's state.
pub(crate) fn state(task: &pb::Task) -> TaskState {
    task.status
        .as_ref()
        .map_or(TaskState::Unspecified, pb::TaskStatus::state)
}

/// Whether a task in this state has ended for good.
pub(crate) const fn is_terminal(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Completed | TaskState::Failed | TaskState::Canceled | TaskState::Rejected
    )
}

/// Whether nobody works on a task in this state: it has ended or waits for its caller.
pub(crate) const fn is_settled(state: TaskState) -> bool {
    is_terminal(state) || matches!(state, TaskState::InputRequired | TaskState::AuthRequired)
}

/// Cuts a history to its last messages; no number keeps all.
pub(crate) fn keep_last(task: &mut pb::Task, length: Option<i32>) {
    if let Some(length) = length {
        let keep = usize::try_from(length).unwrap_or(0);
        task.history.drain(..task.history.len().saturating_sub(keep));
    }
}

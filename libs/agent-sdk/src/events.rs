//! What followers and the store see of an execution: updates, and the events that settle the task.

use a2a::{Message, Part, Role};
use a2a_pb::pbconv;
use a2a_pb::proto::{self as pb, TaskState};
use muster_api::time;
use muster_runtime::clock::SharedClock;
use prost::Message as _;

use crate::metrics::Meters;
use crate::reply::{Kind, Outcome};
use crate::task::Update;
use crate::{Failure, Reply};

/// Most updates of one execution: more is a handler gone wild, and followers would fall behind.
const MAX_UPDATES: usize = 1_000;

/// Longest report of progress, in bytes: what is large is an artifact.
const MAX_PROGRESS: usize = 64 * 1024;

/// Makes the events of one execution, and keeps its answer within its bounds.
pub(crate) struct Events {
    task_id: String,
    context_id: String,
    clock: SharedClock,
    meters: Meters,
    limit: usize,
    sent_bytes: usize,
    updates: usize,
}

impl Events {
    pub(crate) fn new(
        task_id: &str,
        context_id: &str,
        limit: usize,
        clock: SharedClock,
        meters: Meters,
    ) -> Self {
        Self {
            task_id: task_id.to_owned(),
            context_id: context_id.to_owned(),
            clock,
            meters,
            limit,
            sent_bytes: 0,
            updates: 0,
        }
    }

    /// The task is at work.
    pub(crate) fn working(&self) -> pb::StreamResponse {
        self.status_update(TaskState::Working, None)
    }

    /// One update of the handler, or why it goes too far.
    pub(crate) fn update(&mut self, update: Update) -> Result<pb::StreamResponse, Failure> {
        self.updates += 1;
        if self.updates > MAX_UPDATES {
            return Err(Failure::failed(format!(
                "the agent sent more than {MAX_UPDATES} updates for one task"
            )));
        }
        match update {
            Update::Working(progress) => {
                let message = Message::new(Role::Agent, vec![Part::text(progress)]);
                let update = self.status_update(TaskState::Working, Some(message));
                let bytes = update.encoded_len();
                if bytes > MAX_PROGRESS {
                    return Err(Failure::failed(format!(
                        "the agent reported progress of {bytes} bytes; at most {MAX_PROGRESS} are allowed"
                    )));
                }
                Ok(update)
            }
            Update::Artifact(artifact) => self.artifact(&artifact.into_a2a()),
            Update::Piece {
                artifact,
                is_first,
                is_last,
            } => self.piece(&artifact, !is_first, is_last),
        }
    }

    /// The events that settle the task.
    pub(crate) fn closing(&mut self, result: Result<Reply, Failure>) -> Vec<pb::StreamResponse> {
        let artifacts = result.and_then(|reply| Ok((self.artifacts(&reply)?, reply)));
        let (mut events, state, message) = match artifacts {
            Ok((events, reply)) => {
                let state = match reply.outcome {
                    Outcome::Completed => TaskState::Completed,
                    Outcome::InputRequired => TaskState::InputRequired,
                    Outcome::AuthRequired => TaskState::AuthRequired,
                };
                (events, state, reply.status_message())
            }
            Err(failure) => {
                let state = match failure.kind {
                    Kind::Rejected => TaskState::Rejected,
                    Kind::Failed => TaskState::Failed,
                };
                (Vec::new(), state, failure.status_message())
            }
        };
        self.meters.task_ended(state);
        tracing::debug!(
            task_id = self.task_id,
            state = state.as_str_name(),
            "task settled"
        );
        events.push(self.status_update(state, Some(message)));
        events
    }

    /// The result first, then the reply's other artifacts; a question has no result yet.
    fn artifacts(&mut self, reply: &Reply) -> Result<Vec<pb::StreamResponse>, Failure> {
        let result = (reply.outcome == Outcome::Completed).then(|| reply.result_artifact());
        let others = reply.artifacts.iter().cloned().map(crate::Artifact::into_a2a);
        result
            .into_iter()
            .chain(others)
            .map(|artifact| self.artifact(&artifact))
            .collect()
    }

    fn artifact(&mut self, artifact: &a2a::Artifact) -> Result<pb::StreamResponse, Failure> {
        self.piece(artifact, false, true)
    }

    fn piece(
        &mut self,
        artifact: &a2a::Artifact,
        append: bool,
        last_chunk: bool,
    ) -> Result<pb::StreamResponse, Failure> {
        let artifact = pbconv::to_proto_artifact(artifact);
        self.spend(artifact.encoded_len())?;
        Ok(event(pb::stream_response::Payload::ArtifactUpdate(
            pb::TaskArtifactUpdateEvent {
                task_id: self.task_id.clone(),
                context_id: self.context_id.clone(),
                artifact: Some(artifact),
                append,
                last_chunk,
                metadata: None,
            },
        )))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Failure> {
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        if self.sent_bytes > self.limit {
            return Err(Failure::failed(format!(
                "the answer is larger than {} bytes (`server.max_message_bytes`); ask for less",
                self.limit
            )));
        }
        Ok(())
    }

    fn status_update(&self, state: TaskState, message: Option<Message>) -> pb::StreamResponse {
        status_update(&self.clock, state, message, &self.task_id, &self.context_id)
    }
}

/// A status of now as an event.
pub(crate) fn status_update(
    clock: &SharedClock,
    state: TaskState,
    message: Option<Message>,
    task_id: &str,
    context_id: &str,
) -> pb::StreamResponse {
    event(pb::stream_response::Payload::StatusUpdate(
        pb::TaskStatusUpdateEvent {
            task_id: task_id.to_owned(),
            context_id: context_id.to_owned(),
            status: Some(status(clock, state, message, task_id, context_id)),
            metadata: None,
        },
    ))
}

/// A task is cancelled now.
pub(crate) fn cancelled(clock: &SharedClock, task: &pb::Task) -> pb::StreamResponse {
    let message = Message::new(Role::Agent, vec![Part::text("cancelled by the caller")]);
    status_update(
        clock,
        TaskState::Canceled,
        Some(message),
        &task.id,
        &task.context_id,
    )
}

/// A status of now; its message belongs to the task.
pub(crate) fn status(
    clock: &SharedClock,
    state: TaskState,
    message: Option<Message>,
    task_id: &str,
    context_id: &str,
) -> pb::TaskStatus {
    let message = message.map(|message| pb::Message {
        task_id: task_id.to_owned(),
        context_id: context_id.to_owned(),
        ..pbconv::to_proto_message(&message)
    });
    pb::TaskStatus {
        state: state.into(),
        message,
        timestamp: Some(time::to_proto(clock.now())),
    }
}

fn event(payload: pb::stream_response::Payload) -> pb::StreamResponse {
    pb::StreamResponse {
        payload: Some(payload),
    }
}

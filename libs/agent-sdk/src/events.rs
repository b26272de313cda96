//! What subscribers and the task store see of an execution: the opening task, updates, and the events that settle it.

use a2a::{
    Message, Part, Role, StreamResponse, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus,
    TaskStatusUpdateEvent,
};
use a2a_server::ExecutorContext;
use muster_runtime::clock::SharedClock;

use crate::execution::Conversation;
use crate::metrics::Meters;
use crate::reply::{Kind, Outcome};
use crate::task::Update;
use crate::task_store::timestamp;
use crate::{Failure, Reply, size};

/// Most updates of one execution: more is a handler gone wild, and subscribers would fall behind.
const MAX_UPDATES: usize = 1_000;

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
    pub(crate) fn new(context: &ExecutorContext, limit: usize, clock: SharedClock, meters: Meters) -> Self {
        Self {
            task_id: context.task_id.clone(),
            context_id: context.context_id.clone(),
            clock,
            meters,
            limit,
            sent_bytes: 0,
            updates: 0,
        }
    }

    /// The task itself, as the first event has to be; a new one is SUBMITTED first.
    pub(crate) fn opening(
        &self,
        context: &ExecutorContext,
        conversation: &Conversation,
    ) -> Vec<StreamResponse> {
        let mut history = conversation.earlier.clone();
        history.push(conversation.present.clone());
        let (first, then) = if conversation.is_follow_up {
            (TaskState::Working, None)
        } else {
            (
                TaskState::Submitted,
                Some(self.status_update(TaskState::Working, None)),
            )
        };
        let stored = context.stored_task.as_ref();
        let task = Task {
            id: self.task_id.clone(),
            context_id: self.context_id.clone(),
            status: self.status(first, None),
            artifacts: stored.and_then(|task| task.artifacts.clone()),
            history: Some(history),
            metadata: stored.and_then(|task| task.metadata.clone()),
        };
        std::iter::once(StreamResponse::Task(task)).chain(then).collect()
    }

    /// One update of the handler, or why it goes too far.
    pub(crate) fn update(&mut self, update: Update) -> Result<StreamResponse, Failure> {
        self.updates += 1;
        if self.updates > MAX_UPDATES {
            return Err(Failure::failed(format!(
                "the agent sent more than {MAX_UPDATES} updates for one task"
            )));
        }
        match update {
            Update::Working(progress) => {
                let message = Message::new(Role::Agent, vec![Part::text(progress)]);
                Ok(self.status_update(TaskState::Working, Some(message)))
            }
            Update::Artifact(artifact) => self.artifact(artifact.into_a2a()),
        }
    }

    /// The events that settle the task.
    pub(crate) fn closing(&mut self, result: Result<Reply, Failure>) -> Vec<StreamResponse> {
        let artifacts = result.and_then(|reply| Ok((self.artifacts(&reply)?, reply)));
        let (mut events, state, message) = match artifacts {
            Ok((events, reply)) => {
                let state = match reply.outcome {
                    Outcome::Completed => TaskState::Completed,
                    Outcome::InputRequired => TaskState::InputRequired,
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
        self.meters.task_ended(&state);
        tracing::debug!(task_id = self.task_id, ?state, "task settled");
        events.push(self.status_update(state, Some(message)));
        events
    }

    /// The result first, then the reply's other artifacts; a question has no result yet.
    fn artifacts(&mut self, reply: &Reply) -> Result<Vec<StreamResponse>, Failure> {
        let result = (reply.outcome == Outcome::Completed).then(|| reply.result_artifact());
        let others = reply.artifacts.iter().cloned().map(crate::Artifact::into_a2a);
        result
            .into_iter()
            .chain(others)
            .map(|artifact| self.artifact(artifact))
            .collect()
    }

    fn artifact(&mut self, artifact: a2a::Artifact) -> Result<StreamResponse, Failure> {
        self.sent_bytes = self.sent_bytes.saturating_add(size::artifact(&artifact));
        if self.sent_bytes > self.limit {
            return Err(Failure::failed(format!(
                "the answer is larger than {} bytes (`server.max_message_bytes`); ask for less",
                self.limit
            )));
        }
        Ok(StreamResponse::ArtifactUpdate(TaskArtifactUpdateEvent {
            task_id: self.task_id.clone(),
            context_id: self.context_id.clone(),
            artifact,
            append: Some(false),
            last_chunk: Some(true),
            metadata: None,
        }))
    }

    fn status_update(&self, state: TaskState, message: Option<Message>) -> StreamResponse {
        StreamResponse::StatusUpdate(TaskStatusUpdateEvent {
            task_id: self.task_id.clone(),
            context_id: self.context_id.clone(),
            status: self.status(state, message),
            metadata: None,
        })
    }

    fn status(&self, state: TaskState, message: Option<Message>) -> TaskStatus {
        status(&self.clock, state, message, &self.task_id, &self.context_id)
    }
}

/// A status of now; its message belongs to the task.
pub(crate) fn status(
    clock: &SharedClock,
    state: TaskState,
    message: Option<Message>,
    task_id: &str,
    context_id: &str,
) -> TaskStatus {
    TaskStatus {
        state,
        message: message.map(|message| Message {
            task_id: Some(task_id.to_owned()),
            context_id: Some(context_id.to_owned()),
            ..message
        }),
        timestamp: timestamp(clock.now()),
    }
}

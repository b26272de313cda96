//! A streamed answer of an agent, put together event by event.
//!
//! The language wants all events, in order, as a list; the last state of the task is what most authors want. Either is
//! made here, and both are bounded.

use a2a_pb::pbconv::proto_value_to_json_value;
use a2a_pb::protojson;
use muster_api::a2a::{Message, StreamResponse, Task, TaskArtifactUpdateEvent, TaskState, stream_response};
use muster_api::json;
use muster_workflow_dsl::usage::{self, Usage};
use prost::Message as _;
use serde_json::Value;

use super::{Failure, Kind, Progress, answer};

/// See the module.
pub(super) struct Stream {
    task: Option<Task>,
    message: Option<Message>,
    /// All events, where they are asked for.
    events: Option<Vec<Value>>,
    /// Size of the events.
    bytes: usize,
    most_bytes: usize,
}

impl Stream {
    /// An answer that has not begun. With `events` all of them are the output, otherwise what they add up to.
    pub(super) fn new(events: bool, most_bytes: usize) -> Self {
        Self {
            task: None,
            message: None,
            events: events.then(Vec::new),
            bytes: 0,
            most_bytes,
        }
    }

    /// Takes the next event in.
    ///
    /// # Errors
    /// The answer is larger than it may be.
    pub(super) fn take(&mut self, event: StreamResponse, progress: &Progress) -> Result<(), Failure> {
        if let Some(events) = &mut self.events {
            let value = event_as_json(&event)?;
            self.bytes += json::length(&value) + 1;
            events.push(value);
        }
        if let Some(usage) = event.payload.as_ref().and_then(reported) {
            progress.learn_usage(usage);
        }
        match event.payload {
            Some(stream_response::Payload::Task(task)) => self.task = Some(task),
            Some(stream_response::Payload::Message(message)) => self.message = Some(message),
            Some(stream_response::Payload::StatusUpdate(update)) => {
                let task = self.task(update.task_id, update.context_id);
                task.status = update.status;
                if let Some(metadata) = update.metadata {
                    task.metadata
                        .get_or_insert_default()
                        .fields
                        .extend(metadata.fields);
                }
            }
            Some(stream_response::Payload::ArtifactUpdate(update)) => self.take_artifact(update),
            None => {}
        }
        if let Some(task) = &self.task {
            progress.learn_task(&task.id);
            progress.set_note(Some(answer::standing(task)));
        }
        self.bound()
    }

    /// Whether the task waits for its caller: whoever subscribes to it would wait with it, and a workflow that is to answer
    /// has to go on for that.
    pub(super) fn waits_for_caller(&self) -> bool {
        self.task.as_ref().is_some_and(|task| {
            matches!(
                answer::state(task),
                TaskState::InputRequired | TaskState::AuthRequired
            )
        })
    }

    /// The task so far. Agents begin with it; for one that does not, it is made of the updates.
    fn task(&mut self, id: String, context_id: String) -> &mut Task {
        self.task.get_or_insert_with(|| Task {
            id,
            context_id,
            ..Task::default()
        })
    }

    fn take_artifact(&mut self, update: TaskArtifactUpdateEvent) {
        let Some(artifact) = update.artifact else { return };
        let task = self.task(update.task_id, update.context_id);
        let known = task
            .artifacts
            .iter_mut()
            .find(|known| known.artifact_id == artifact.artifact_id);
        match known {
            Some(known) if update.append => known.parts.extend(artifact.parts),
            Some(known) => *known = artifact,
            None => task.artifacts.push(artifact),
        }
    }

    fn bound(&self) -> Result<(), Failure> {
        let task = self.task.as_ref().map_or(0, Task::encoded_len);
        let message = self.message.as_ref().map_or(0, Message::encoded_len);
        let bytes = self.bytes.max(task + message);
        let limit = self.most_bytes;
        if bytes <= limit {
            return Ok(());
        }
        let detail = format!(
            "the agent's answer of {bytes} bytes is over the limit of {limit}; \
             ask for less, or raise 'engine.max_payload_bytes'"
        );
        Err(Failure::new(Kind::Runtime, 413, detail))
    }

    /// The answer, once the stream has ended.
    ///
    /// # Errors
    /// It is none: the stream ended early, or the task ended badly.
    pub(super) fn end(self) -> Result<Value, Failure> {
        let early = |what: &str| Err(Failure::new(Kind::Communication, 502, what));
        let whole = match (&self.task, &self.message) {
            (Some(task), _) if matches!(answer::state(task), TaskState::Submitted | TaskState::Working) => {
                let standing = answer::standing(task);
                return early(&format!("the agent's answer ended while the {standing}"));
            }
            (Some(task), _) => answer::task(task)?,
            (None, Some(message)) => answer::message(message)?,
            (None, None) => return early("the agent's answer ended before it began"),
        };
        Ok(self.events.map_or(whole, Value::Array))
    }
}

/// What an event says that has been used: it counts also where the stream breaks off before there is an answer.
fn reported(payload: &stream_response::Payload) -> Option<Usage> {
    let (metadata, status) = match payload {
        stream_response::Payload::Task(task) => (&task.metadata, &task.status),
        stream_response::Payload::StatusUpdate(update) => (&update.metadata, &update.status),
        stream_response::Payload::Message(message) => (&message.metadata, &None),
        stream_response::Payload::ArtifactUpdate(_) => return None,
    };
    let said = status.as_ref().and_then(|status| status.message.as_ref());
    let said = said.and_then(|message| message.metadata.as_ref());
    let report = |metadata: &prost_types::Struct| metadata.fields.get(usage::KEY).cloned();
    let report = metadata
        .as_ref()
        .and_then(report)
        .or_else(|| said.and_then(report))?;
    Usage::of(&proto_value_to_json_value(&report))
}

fn event_as_json(event: &StreamResponse) -> Result<Value, Failure> {
    let mut value = answer::json::<protojson::StreamResponse>(event)?;
    for kind in ["task", "statusUpdate"] {
        if let Some(part) = value.get_mut(kind) {
            answer::normalize_time(part);
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{Artifact, Part, TaskStatus, TaskStatusUpdateEvent, part};
    use serde_json::json;

    use super::*;

    fn text(text: &str) -> Part {
        Part {
            content: Some(part::Content::Text(text.into())),
            ..Part::default()
        }
    }

    fn status(state: TaskState, said: &str) -> Option<TaskStatus> {
        Some(TaskStatus {
            state: state as i32,
            message: Some(Message {
                parts: vec![text(said)],
                ..Message::default()
            }),
            timestamp: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        })
    }

    fn event(payload: stream_response::Payload) -> StreamResponse {
        StreamResponse {
            payload: Some(payload),
        }
    }

    fn working() -> StreamResponse {
        event(stream_response::Payload::Task(Task {
            id: "t1".into(),
            status: status(TaskState::Working, "reading"),
            ..Task::default()
        }))
    }

    fn artifact(append: bool, content: &str) -> StreamResponse {
        event(stream_response::Payload::ArtifactUpdate(
            TaskArtifactUpdateEvent {
                task_id: "t1".into(),
                artifact: Some(Artifact {
                    artifact_id: "a".into(),
                    parts: vec![text(content)],
                    ..Artifact::default()
                }),
                append,
                ..TaskArtifactUpdateEvent::default()
            },
        ))
    }

    fn ended(state: TaskState) -> StreamResponse {
        event(stream_response::Payload::StatusUpdate(TaskStatusUpdateEvent {
            task_id: "t1".into(),
            status: status(state, "done"),
            ..TaskStatusUpdateEvent::default()
        }))
    }

    fn taken(events: bool, all: Vec<StreamResponse>) -> (Result<Value, Failure>, Progress) {
        let progress = Progress::default();
        let mut stream = Stream::new(events, 10_000);
        for event in all {
            stream.take(event, &progress).unwrap();
        }
        (stream.end(), progress)
    }

    #[test]
    fn a_stream_adds_up() {
        let events = || {
            vec![
                working(),
                artifact(false, "dropped"),
                artifact(false, "one"),
                artifact(true, "two"),
                ended(TaskState::Completed),
            ]
        };
        let (value, progress) = taken(false, events());
        let value = value.unwrap();
        assert_eq!(progress.task_id().as_deref(), Some("t1"));
        assert_eq!(progress.note().unwrap().text, "task t1 is completed: done");
        assert_eq!(
            value.pointer("/artifacts/0/parts"),
            Some(&json!([{"text": "one"}, {"text": "two"}]))
        );
        assert_eq!(
            value.pointer("/status/state"),
            Some(&json!("TASK_STATE_COMPLETED"))
        );

        let (all, _) = taken(true, events());
        let all = all.unwrap();
        assert_eq!(all.as_array().map(Vec::len), Some(5));
        assert_eq!(all[0]["task"]["status"]["timestamp"], "1970-01-01T00:00:01Z");
        assert_eq!(all[3]["artifactUpdate"]["append"], json!(true));
        assert_eq!(all[4]["statusUpdate"]["status"]["state"], "TASK_STATE_COMPLETED");
    }

    #[test]
    fn a_stream_that_ends_early_or_badly_is_a_failure() {
        assert!(taken(false, Vec::new()).0.is_err());
        let (early, _) = taken(true, vec![working()]);
        let early = early.unwrap_err();
        assert_eq!(early.status, 502);
        assert!(early.detail.contains("task t1 is working"), "{early}");
        let (bad, _) = taken(true, vec![working(), ended(TaskState::Failed)]);
        assert_eq!(bad.unwrap_err(), Failure::new(Kind::Runtime, 500, "done"));
        assert!(
            taken(false, vec![working(), ended(TaskState::InputRequired)])
                .0
                .is_ok()
        );
    }

    #[test]
    fn a_stream_is_bounded() {
        for events in [false, true] {
            let mut stream = Stream::new(events, 1000);
            let progress = Progress::default();
            let refused = (0..200).find_map(|_| stream.take(artifact(true, "0123456789"), &progress).err());
            assert_eq!(refused.map(|failure| failure.status), Some(413));
        }
    }
}

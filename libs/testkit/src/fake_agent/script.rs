//! What a fake agent is asked, and what it may answer.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use a2a_pb::pbconv;
use muster_api::{a2a, extension};
use serde_json::Value;
use tonic::metadata::MetadataMap;

/// One message as it arrived.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it arrived.
    pub received_at: SystemTime,
    /// The message's id.
    pub message_id: String,
    /// The step key that a workflow sends.
    pub step_key: Option<String>,
    /// The epoch under which an engine that shares its store calls.
    pub epoch: Option<u64>,
    /// The skill that the router names.
    pub skill: Option<String>,
    /// The tenant of the request.
    pub tenant: String,
    /// All text parts, joined by line breaks.
    pub text: String,
    /// The first data part.
    pub data: Option<Value>,
    /// Whether it came over the streaming method.
    pub streaming: bool,
    /// The ASCII metadata of the call.
    pub metadata: Vec<(String, String)>,
    /// The whole request.
    pub request: a2a::SendMessageRequest,
}

impl Call {
    pub(super) fn read(request: &tonic::Request<a2a::SendMessageRequest>, streaming: bool) -> Self {
        let message = request.get_ref().message.clone().unwrap_or_default();
        let contents = || message.parts.iter().filter_map(|part| part.content.as_ref());
        let texts: Vec<&str> = contents()
            .filter_map(|content| match content {
                a2a::part::Content::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        let data = contents().find_map(|content| match content {
            a2a::part::Content::Data(value) => Some(pbconv::proto_value_to_json_value(value)),
            _ => None,
        });
        let metadata = ascii(request.metadata());
        let header = |name: &str| {
            metadata
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        };
        Self {
            received_at: now(),
            step_key: header(extension::STEP_KEY_METADATA),
            epoch: header(extension::EPOCH_METADATA).and_then(|epoch| epoch.parse().ok()),
            skill: header(extension::SKILL_METADATA),
            tenant: request.get_ref().tenant.clone(),
            text: texts.join("\n"),
            data,
            streaming,
            request: request.get_ref().clone(),
            message_id: message.message_id,
            metadata,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a witness from outside has a clock of its own"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn ascii(metadata: &MetadataMap) -> Vec<(String, String)> {
    let pairs = metadata.iter().filter_map(|entry| match entry {
        tonic::metadata::KeyAndValueRef::Ascii(key, value) => {
            Some((key.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        }
        tonic::metadata::KeyAndValueRef::Binary(..) => None,
    });
    pairs.collect()
}

/// An answer to one message.
#[derive(Clone)]
pub enum Answer {
    /// A completed task whose result is `{"echo": TEXT, "data": DATA}`.
    Echo,
    /// A message of its own, without a task.
    Message(String),
    /// A completed task; the artifact `result` holds the data and the text, as Muster's agents answer.
    Completed(Value, String),
    /// A task in the given state, with the text as its status message.
    Task(a2a::TaskState, String),
    /// The call fails.
    Status(tonic::Status),
    /// These events, one after the other; a unary call gets the last task or message among them.
    Events(Vec<Result<a2a::StreamResponse, tonic::Status>>),
    /// As [`Self::Echo`], with an object as metadata of the task.
    Metadata(Value),
    /// Whatever the function says, given the call.
    Compute(Arc<dyn Fn(&Call) -> Answer + Send + Sync>),
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Echo => "Echo",
            Self::Message(_) => "Message",
            Self::Completed(..) => "Completed",
            Self::Task(..) => "Task",
            Self::Status(_) => "Status",
            Self::Events(_) => "Events",
            Self::Metadata(_) => "Metadata",
            Self::Compute(_) => "Compute",
        };
        formatter.write_str(name)
    }
}

impl Answer {
    /// Computes each answer from its call.
    pub fn compute(function: impl Fn(&Call) -> Self + Send + Sync + 'static) -> Self {
        Self::Compute(Arc::new(function))
    }
}

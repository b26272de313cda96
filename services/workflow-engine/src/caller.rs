//! Calling agents: what the engine asks for and what comes back, whatever carries it.
//!
//! The one adapter goes through the router ([`router`]). The executor sees a JSON answer or a [`Failure`] with an
//! HTTP-like status; retries that a document asks for are the interpreter's, not the caller's.

mod answer;
mod judgement;
mod progress;
pub mod router;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

pub use progress::Progress;

/// A method of A2A that workflows can call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Sends a message and waits for the answer.
    SendMessage,
    /// Sends a message and follows the answer while it grows; the last state counts.
    SendStreamingMessage,
    /// Reads a task.
    GetTask,
    /// Lists tasks.
    ListTasks,
    /// Cancels a task.
    CancelTask,
}

/// One call of an agent.
#[derive(Debug, Clone)]
pub struct Call {
    /// The agent: its id, or `skill:SKILL`.
    pub target: String,
    /// What is called.
    pub method: Method,
    /// The request as ProtoJSON of A2A 1.0.
    pub parameters: Arc<Value>,
    /// Id of the message: the same when the same attempt is sent again.
    pub message_id: Uuid,
    /// Key of the step: the same for all its attempts.
    pub step_key: Uuid,
    /// How long the call may take.
    pub timeout: Duration,
}

/// What kind of thing went wrong, after the DSL's standard error types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The agent could not be reached, or answered with an error.
    Communication,
    /// No answer in time.
    Timeout,
    /// The agent does not know who asks.
    Authentication,
    /// The agent knows and refuses.
    Authorization,
    /// The request is malformed.
    Validation,
    /// The agent worked on it and failed.
    Runtime,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// What kind of thing went wrong.
    pub kind: Kind,
    /// HTTP-like status.
    pub status: u16,
    /// What happened, in a sentence.
    pub detail: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, status: u16, detail: impl Into<String>) -> Self {
        Self {
            kind,
            status,
            detail: detail.into(),
        }
    }
}

/// Calls agents.
#[async_trait]
pub trait Caller: Send + Sync + 'static {
    /// Makes the call and returns the answer as ProtoJSON: the task, the message or the list. Tells `progress`
    /// what is known meanwhile. Dropping the future abandons the call.
    async fn call(&self, call: &Call, progress: &Progress) -> Result<Value, Failure>;

    /// Asks the agent to stop a task.
    async fn cancel_task(&self, target: &str, task_id: &str) -> Result<(), Failure>;
}

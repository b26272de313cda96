//! Calls: what the engine asks for and what comes back, whatever carries it.
//!
//! Each function of the language has an adapter that carries it out; [`Callers`] picks it by the request. The executor
//! sees a JSON answer or a [`Failure`] with an HTTP-like status; retries that a document asks for are the
//! interpreter's, not the caller's.

mod answer;
pub mod asyncapi;
mod body;
pub mod caching;
mod callers;
pub mod direct;
pub mod emit;
pub mod grpc;
mod http;
mod json_rpc;
mod judgement;
pub mod mcp;
pub mod openapi;
pub mod process;
mod progress;
pub mod router;
pub mod session;
mod sse;
mod stream;
pub mod web;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_workflow_dsl::request::Request;
use muster_workflow_dsl::usage::Usage;
use serde_json::Value;
use uuid::Uuid;

use crate::behalf::Behalf;
use crate::secrets::Grant;
pub use caching::Kept;
pub use callers::Callers;
pub use progress::{Note, Progress};

/// One call, with everything that whoever carries it out must know.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is called, with its arguments.
    pub request: Arc<Request>,
    /// JSON pointer of the task that calls.
    pub task: Arc<str>,
    /// Id of the message: the same when the same attempt is sent again.
    pub message_id: Uuid,
    /// Key of the step: the same for all its attempts.
    pub step_key: Uuid,
    /// Epoch of the lease under which it is made, where engines share a store.
    pub epoch: Option<u64>,
    /// How long the call may take.
    pub timeout: Duration,
    /// Whether it was sent in an earlier life of the engine, so that there may be more than one of it at the other side.
    pub resent: bool,
    /// Which secrets it may know.
    pub grant: Grant,
    /// Which kept answer may stand for its own.
    pub kept: Option<Kept>,
    /// On whose behalf, where callers are told apart.
    pub behalf: Option<Behalf>,
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
    /// The document or the operator's settings do not say what is needed.
    Configuration,
    /// The agent worked on it and failed.
    Runtime,
}

impl Kind {
    /// Its name in metrics and traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Communication => "communication",
            Self::Timeout => "timeout",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::Validation => "validation",
            Self::Configuration => "configuration",
            Self::Runtime => "runtime",
        }
    }
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
    /// What it cost all the same.
    pub usage: Option<Usage>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, status: u16, detail: impl Into<String>) -> Self {
        Self {
            kind,
            status,
            detail: detail.into(),
            usage: None,
        }
    }

    /// Whether the other side may be at work still: there was no answer in time, it broke off, or it became too large.
    pub(crate) fn leaves_open(&self) -> bool {
        self.kind == Kind::Timeout || matches!(self.status, 413 | 499 | 502)
    }
}

/// The id under which a message is sent to an agent: the author's own, or one that is the same when it is sent again.
fn message_id(parameters: &Value, call: &Call) -> String {
    let own = parameters.pointer("/message/messageId").and_then(Value::as_str);
    own.filter(|id| !id.is_empty())
        .map_or_else(|| call.message_id.to_string(), str::to_owned)
}

/// Carries calls out.
#[async_trait]
pub trait Caller: Send + Sync + 'static {
    /// Makes the call and returns the answer as JSON. Tells `progress` what is known meanwhile. Dropping the future
    /// abandons the call.
    async fn call(&self, call: &Call, progress: &Progress) -> Result<Value, Failure>;

    /// Tells the other side that nobody waits for an abandoned call any more, as far as `progress` knows how.
    async fn stop(&self, call: &Call, progress: &Progress) -> Result<(), Failure>;
}

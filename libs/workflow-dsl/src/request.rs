//! What a task asks of the world outside the run, with its arguments evaluated: what the journal records when a call
//! begins, and what an engine is to carry out.
//!
//! One variant for each function of the language, each in a file of its own. A request is complete: whoever carries it out needs
//! neither the document nor the state of the run, so that after a crash the folded journal alone asks for the same call again. The
//! one thing that it does not hold is what a secret is: where one stands there is its marker ([`crate::secret`]).

mod a2a;
mod asyncapi;
mod destination;
mod emit;
mod grpc;
mod http;
mod launch;
pub mod mcp;
mod openapi;

use serde::{Deserialize, Serialize};

pub use a2a::A2a;
pub use asyncapi::AsyncApi;
pub use destination::{Authentication, Destination, Properties, Resource, shown};
pub use emit::Emit;
pub use grpc::Grpc;
pub use http::Http;
pub use launch::{Child, Process, Program};
pub use mcp::Mcp;
pub use openapi::OpenApi;

/// A call with its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "lowercase")]
pub enum Request {
    /// A method of an agent.
    A2a(A2a),
    /// A message that an AsyncAPI document describes.
    AsyncApi(AsyncApi),
    /// A method of a gRPC service.
    Grpc(Grpc),
    /// A request over HTTP.
    Http(Http),
    /// A method of an MCP server.
    Mcp(Mcp),
    /// An operation that an OpenAPI document describes.
    OpenApi(OpenApi),
    /// An event for the log.
    Emit(Emit),
    /// A run of another workflow.
    Workflow(Child),
    /// A process of the operating system.
    Process(Process),
}

impl Request {
    /// Who or what is called, for people.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Self::A2a(call) => shown(&call.endpoint.to_string()),
            Self::AsyncApi(call) => shown(&call.document.endpoint.uri),
            Self::Grpc(call) => call.target(),
            Self::Http(call) => shown(&call.endpoint.uri),
            Self::Mcp(call) => call.target(),
            Self::OpenApi(call) => shown(&call.document.endpoint.uri),
            Self::Emit(_) => "the event log".to_owned(),
            Self::Workflow(child) => child.target(),
            Self::Process(process) => process.target(),
        }
    }

    /// What is asked of it, for people.
    #[must_use]
    pub fn operation(&self) -> String {
        match self {
            Self::A2a(call) => call.method.name().to_owned(),
            Self::AsyncApi(call) => {
                let target = call.operation.as_ref().or(call.channel.as_ref());
                format!("a message to {}", target.map_or("", String::as_str))
            }
            Self::Grpc(call) => format!("{}/{}", call.service, call.method),
            Self::Http(call) => call.method.clone(),
            Self::Mcp(call) => call.operation(),
            Self::OpenApi(call) => call.operation.clone(),
            Self::Emit(emit) => format!("the emission of {}", emit.event.kind()),
            Self::Workflow(_) => "run".to_owned(),
            Self::Process(process) => process.kind().to_owned(),
        }
    }

    /// Whether it goes on by itself once it is begun: nobody has to stay with it, and its end is told to the run, which
    /// may leave memory meanwhile.
    #[must_use]
    pub fn is_delegated(&self) -> bool {
        matches!(self, Self::Workflow(_))
    }
}

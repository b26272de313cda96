//! `call`: the functions a task can call. Each has a file of its own.

mod a2a;
mod asyncapi;
mod function;
mod grpc;
mod http;
mod mcp;
mod openapi;

pub(crate) use a2a::SCHEMES;
pub use a2a::{A2aCall, Endpoint, EndpointError, Method, Server};
pub use asyncapi::{AsyncApiCall, AsyncApiTarget};
pub use function::{External, Function, FunctionCall};
pub use grpc::GrpcCall;
pub use http::{HttpCall, ResponseFormat};
pub use mcp::{McpCall, McpTransport};
pub use openapi::OpenApiCall;

use super::Authentication;

/// A call of a function.
#[derive(Debug, Clone)]
pub enum Call {
    /// `call: a2a`: a method of an agent.
    A2a(Box<A2aCall>),
    /// `call: asyncapi`: a message that an AsyncAPI document describes.
    AsyncApi(AsyncApiCall),
    /// A function of one's own.
    Function(FunctionCall),
    /// `call: grpc`: a method of a gRPC service.
    Grpc(Box<GrpcCall>),
    /// `call: http`: a request over HTTP.
    Http(HttpCall),
    /// `call: mcp`: a method of an MCP server.
    Mcp(Box<McpCall>),
    /// `call: openapi`: an operation that an OpenAPI document describes.
    OpenApi(OpenApiCall),
}

impl Call {
    /// How the call authenticates itself where it ends up, if the document says so.
    #[must_use]
    pub fn authentication(&self) -> Option<&Authentication> {
        match self {
            Self::Function(_) => None,
            Self::A2a(call) => call.authentication.as_ref(),
            Self::AsyncApi(call) => call.authentication.as_ref(),
            Self::Grpc(call) => call.authentication.as_ref(),
            Self::Http(call) => call.endpoint.authentication.as_ref(),
            Self::Mcp(call) => match &call.transport {
                McpTransport::Http { endpoint, .. } => endpoint.authentication.as_ref(),
                McpTransport::Stdio { .. } => None,
            },
            Self::OpenApi(call) => call.authentication.as_ref(),
        }
    }
}

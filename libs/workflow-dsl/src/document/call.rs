//! `call`: the functions a task can call. Each has a file of its own.

mod a2a;
mod asyncapi;
mod function;
mod http;
mod openapi;

pub use a2a::{A2aCall, Endpoint, EndpointError, Method, Server};
pub use asyncapi::{AsyncApiCall, AsyncApiTarget};
pub use function::{External, Function, FunctionCall};
pub use http::{HttpCall, ResponseFormat};
pub use openapi::OpenApiCall;

use super::Authentication;

/// A call of a function.
#[derive(Debug, Clone)]
pub enum Call {
    /// `call: a2a`: a method of an agent.
    A2a(A2aCall),
    /// `call: asyncapi`: a message that an AsyncAPI document describes.
    AsyncApi(AsyncApiCall),
    /// A function of one's own.
    Function(FunctionCall),
    /// `call: http`: a request over HTTP.
    Http(HttpCall),
    /// `call: openapi`: an operation that an OpenAPI document describes.
    OpenApi(OpenApiCall),
}

impl Call {
    /// How the call authenticates itself where it ends up, if the document says so.
    #[must_use]
    pub fn authentication(&self) -> Option<&Authentication> {
        match self {
            Self::A2a(_) | Self::Function(_) => None,
            Self::AsyncApi(call) => call.authentication.as_ref(),
            Self::Http(call) => call.endpoint.authentication.as_ref(),
            Self::OpenApi(call) => call.authentication.as_ref(),
        }
    }
}

//! `call`: the functions a task can call. Each has a file of its own.

mod a2a;
mod function;
mod http;

pub use a2a::{A2aCall, Endpoint, EndpointError, Method, Server};
pub use function::{ExternalFunction, Function, FunctionCall};
pub use http::{HttpCall, ResponseFormat};

use super::Authentication;

/// A call of a function.
#[derive(Debug, Clone)]
pub enum Call {
    /// `call: a2a`: a method of an agent.
    A2a(A2aCall),
    /// A function of one's own.
    Function(FunctionCall),
    /// `call: http`: a request over HTTP.
    Http(HttpCall),
}

impl Call {
    /// How the call authenticates itself where it ends up, if the document says so.
    #[must_use]
    pub fn authentication(&self) -> Option<&Authentication> {
        match self {
            Self::A2a(_) | Self::Function(_) => None,
            Self::Http(call) => call.endpoint.authentication.as_ref(),
        }
    }
}

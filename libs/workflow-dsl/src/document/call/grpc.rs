//! `call: grpc`: a method of a gRPC service.

use crate::document::{Authentication, ExternalResource, Template};

/// A call of a method of a gRPC service.
#[derive(Debug, Clone)]
pub struct GrpcCall {
    /// The service's contract; without it the server is asked for it, by reflection.
    pub proto: Option<ExternalResource>,
    /// Full name of the service.
    pub service: String,
    /// Where it is: a name or an address, as text. With `grpc://` or `grpcs://` before it, whether TLS is spoken.
    pub host: Template,
    /// The port.
    pub port: Option<u16>,
    /// How the call authenticates itself.
    pub authentication: Option<Authentication>,
    /// Name of the method.
    pub method: String,
    /// The method's arguments: an object, or an expression that yields one.
    pub arguments: Option<Template>,
}

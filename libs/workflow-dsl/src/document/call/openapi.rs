//! `call: openapi`: operations that an OpenAPI document describes.

use super::ResponseFormat;
use crate::document::{Authentication, ExternalResource, Template};

/// A call of an operation of an OpenAPI document.
#[derive(Debug, Clone)]
pub struct OpenApiCall {
    /// The document.
    pub document: ExternalResource,
    /// `operationId` of the operation.
    pub operation: String,
    /// Its parameters by name, and its body under `body`: an object, or an expression that yields one.
    pub parameters: Option<Template>,
    /// How to authenticate where the operation is.
    pub authentication: Option<Authentication>,
    /// What of the answer is the call's output.
    pub output: ResponseFormat,
    /// Whether an answer of 300 to 399 is one.
    pub redirect: bool,
}

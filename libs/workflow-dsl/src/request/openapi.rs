//! What a call of an operation of an OpenAPI document asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Authentication, Resource};
use crate::document::ResponseFormat;

/// A call of an operation of an OpenAPI document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenApi {
    /// The document.
    pub document: Resource,
    /// `operationId` of the operation.
    pub operation: String,
    /// Its parameters by name, and its body under `body`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    /// How to authenticate where the operation is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// What of the answer is the call's output.
    #[serde(default, skip_serializing_if = "ResponseFormat::is_content")]
    pub output: ResponseFormat,
    /// Whether an answer of 300 to 399 is one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redirect: bool,
}

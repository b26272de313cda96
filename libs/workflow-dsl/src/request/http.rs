//! What a call over HTTP asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Destination;
use crate::document::ResponseFormat;

/// A request over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Http {
    /// The method, in upper case.
    pub method: String,
    /// Where it goes.
    pub endpoint: Destination,
    /// Headers by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Parameters of the query by name: values or lists of them, beside those in the address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Value>,
    /// The body, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Arc<Value>>,
    /// What of the answer is the call's output.
    #[serde(default, skip_serializing_if = "ResponseFormat::is_content")]
    pub output: ResponseFormat,
    /// Whether an answer of 300 to 399 is one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redirect: bool,
}

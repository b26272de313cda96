//! `call: http`: requests over HTTP.

use serde::{Deserialize, Serialize};

use crate::document::{Destination, Template};

/// A request over HTTP.
#[derive(Debug, Clone)]
pub struct HttpCall {
    /// The method, in upper case.
    pub method: String,
    /// Where it goes.
    pub endpoint: Destination,
    /// Headers: an object of texts, or an expression that yields one.
    pub headers: Option<Template>,
    /// Parameters of the query, beside those in the address: an object, or an expression that yields one.
    pub query: Option<Template>,
    /// The body.
    pub body: Option<Template>,
    /// What of the answer is the call's output.
    pub output: ResponseFormat,
    /// Whether an answer of 300 to 399 is one; else it is an error. Redirects are not followed.
    pub redirect: bool,
}

/// What of an answer is the output of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResponseFormat {
    /// The content in Base64.
    Raw,
    /// The content, decoded.
    #[default]
    Content,
    /// Status, headers and content.
    Response,
}

impl ResponseFormat {
    /// Each with its name.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("raw", Self::Raw),
        ("content", Self::Content),
        ("response", Self::Response),
    ];

    /// Whether it is what it is by default.
    #[must_use]
    pub fn is_content(&self) -> bool {
        *self == Self::Content
    }
}

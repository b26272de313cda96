//! `call: asyncapi`: messages on channels that an AsyncAPI document describes.

use crate::document::{Authentication, ExternalResource, Template};

/// A message that is published as an AsyncAPI document describes it.
#[derive(Debug, Clone)]
pub struct AsyncApiCall {
    /// The document.
    pub document: ExternalResource,
    /// What of the document is used.
    pub target: AsyncApiTarget,
    /// The server's name in the document; by default the first that fits.
    pub server: Option<String>,
    /// Values for the variables in the server's address: an object, or an expression that yields one.
    pub variables: Option<Template>,
    /// The protocol that the server must speak.
    pub protocol: Option<String>,
    /// The message's content.
    pub payload: Option<Template>,
    /// The message's headers: an object, or an expression that yields one.
    pub headers: Option<Template>,
    /// How to authenticate at the server.
    pub authentication: Option<Authentication>,
}

/// Where in an AsyncAPI document it is said how to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsyncApiTarget {
    /// An operation, in version 3.
    Operation(String),
    /// A channel, in version 2.
    Channel(String),
}

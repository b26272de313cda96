//! `call: mcp`: a method of a server of the Model Context Protocol.

use crate::document::{Destination, Period, Template};

/// A call of an MCP server.
#[derive(Debug, Clone)]
pub struct McpCall {
    /// The method, such as `tools/call`.
    pub method: String,
    /// The method's parameters: an object, or an expression that yields one.
    pub parameters: Option<Template>,
    /// The version of the protocol that is asked for.
    pub version: String,
    /// How long the call may take.
    pub timeout: Option<Period>,
    /// How the server is reached.
    pub transport: McpTransport,
    /// Name and version under which the client introduces itself.
    pub client: Option<(String, String)>,
}

/// How an MCP server is reached.
#[derive(Debug, Clone)]
pub enum McpTransport {
    /// Over streamable HTTP.
    Http {
        /// Where it is.
        endpoint: Destination,
        /// Headers: an object of texts, or an expression that yields one.
        headers: Option<Template>,
    },
    /// By starting a program and speaking with it over its standard input and output.
    Stdio {
        /// The program.
        command: Template,
        /// Its arguments: a list of texts, or an expression that yields one.
        arguments: Option<Template>,
        /// Its environment: an object of texts, or an expression that yields one.
        environment: Option<Template>,
    },
}

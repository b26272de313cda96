//! What a call of an MCP server asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Destination, shown};

/// Versions of the protocol that can be spoken.
pub const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// The version that is asked for where a document names none.
pub const DEFAULT_VERSION: &str = "2025-06-18";

/// The method that calls a tool.
pub const CALL_TOOL: &str = "tools/call";

/// The methods that a workflow can call, each with the parameters that it must have.
pub const METHODS: [(&str, &[&str]); 7] = [
    ("tools/list", &[]),
    (CALL_TOOL, &["name"]),
    ("prompts/list", &[]),
    ("prompts/get", &["name"]),
    ("resources/list", &[]),
    ("resources/read", &["uri"]),
    ("resources/templates/list", &[]),
];

/// A method of an MCP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mcp {
    /// The method.
    pub method: String,
    /// Its parameters, an object.
    pub parameters: Arc<Value>,
    /// The version of the protocol that is asked for.
    pub protocol_version: String,
    /// How long the call may take, where the document says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_milliseconds: Option<u64>,
    /// How the server is reached.
    pub transport: Transport,
    /// Who asks.
    pub client: Client,
}

impl Mcp {
    /// Who is called, for people.
    #[must_use]
    pub fn target(&self) -> String {
        match &self.transport {
            Transport::Http { endpoint, .. } => shown(&endpoint.uri),
            Transport::Stdio { command, .. } => command.clone(),
        }
    }

    /// What is asked, for people: the method, and the tool, the prompt or the resource.
    #[must_use]
    pub fn operation(&self) -> String {
        let about = ["name", "uri"].map(|field| self.parameters.get(field).and_then(Value::as_str));
        match about.into_iter().flatten().next() {
            Some(about) => format!("{} {}", self.method, about.chars().take(100).collect::<String>()),
            None => self.method.clone(),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Over streamable HTTP.
    Http {
        /// Where it is.
        endpoint: Destination,
        /// Headers by name.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
    },
    /// By starting a program.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        arguments: Vec<String>,
        /// Its environment.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        environment: BTreeMap<String, String>,
    },
}

/// What is wrong with the parameters of a method.
///
/// # Errors
/// Names the field that is missing.
pub fn check(method: &str, parameters: &Value) -> Result<(), String> {
    let Some(fields) = parameters.as_object() else {
        return Err("the parameters must be an object".to_owned());
    };
    let (_, required) = METHODS
        .into_iter()
        .find(|(known, _)| *known == method)
        .unwrap_or((CALL_TOOL, &[]));
    match required.iter().find(|name| !fields.contains_key(**name)) {
        Some(missing) => Err(format!("the parameters of '{method}' need '{missing}'")),
        None => Ok(()),
    }
}

//! `call: mcp`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::document::{McpCall, McpTransport, Template};
use crate::journal::{Problem, Standard};
use crate::request::{self, mcp};
use crate::run::current::{Current, Fault};

impl Current<'_> {
    pub(super) fn mcp(&self, call: &McpCall) -> Result<request::Mcp, Fault> {
        let input = &self.activation.input;
        let parameters = match &call.parameters {
            Some(parameters) => self.view.shared(parameters, input, "the parameters")?,
            None => Arc::new(json!({})),
        };
        mcp::check(&call.method, &parameters)
            .map_err(|detail| Problem::standard(Standard::Validation, detail))?;
        let timeout = call.timeout.as_ref();
        let timeout = timeout.map(|timeout| self.view.period(timeout, input, "the call's timeout"));
        let transport = match &call.transport {
            McpTransport::Http { endpoint, headers } => mcp::Transport::Http {
                endpoint: self.view.destination(endpoint, input)?,
                headers: self.headers(headers.as_ref())?,
            },
            McpTransport::Stdio {
                command,
                arguments,
                environment,
            } => mcp::Transport::Stdio {
                command: self.plain(&self.view.template(command, input)?, "the command")?,
                arguments: self.arguments(arguments.as_ref())?,
                environment: self.environment(environment.as_ref())?,
            },
        };
        let (name, version) = call
            .client
            .clone()
            .unwrap_or_else(|| ("muster".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
        Ok(request::Mcp {
            method: call.method.clone(),
            parameters,
            protocol_version: call.version.clone(),
            timeout_milliseconds: timeout
                .transpose()?
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            transport,
            client: mcp::Client { name, version },
        })
    }

    fn arguments(&self, template: Option<&Template>) -> Result<Vec<String>, Fault> {
        let Some(template) = template else {
            return Ok(Vec::new());
        };
        match self.view.template(template, &self.activation.input)? {
            Value::Array(items) => items.iter().map(|item| self.plain(item, "an argument")).collect(),
            _ => Err(wrong("the arguments of a program must be a list".to_owned())),
        }
    }

    fn environment(&self, template: Option<&Template>) -> Result<BTreeMap<String, String>, Fault> {
        let variables = self.mapping(template, "the environment")?;
        let variables = variables
            .iter()
            .map(|(name, value)| Ok((name.clone(), self.plain(value, "a variable of the environment")?)));
        variables.collect()
    }

    fn plain(&self, value: &Value, what: &str) -> Result<String, Fault> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
            _ => Err(wrong(format!("{what} must be text, a number or a boolean"))),
        }
    }
}

fn wrong(detail: String) -> Problem {
    Problem::standard(Standard::Expression, detail)
}

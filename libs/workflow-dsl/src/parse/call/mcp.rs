//! `call: mcp`.

use crate::document::{McpCall, McpTransport, Template};
use crate::node::Content;
use crate::parse::cursor::{Cursor, Fields};
use crate::parse::{Reader, catch::given, embedded};
use crate::problem::{listed, quoted};
use crate::request::mcp;

impl Reader {
    pub(super) fn mcp(&mut self, at: &Cursor<'_>) -> Option<McpCall> {
        const ALLOWED: &[&str] = &[
            "protocolVersion",
            "method",
            "parameters",
            "timeout",
            "transport",
            "client",
        ];
        let fields = self.fields(at, ALLOWED)?;
        let version = fields
            .get("protocolVersion")
            .map(|version| self.known(&version, "version of MCP", mcp::VERSIONS));
        let names = mcp::METHODS.map(|(name, _)| name);
        let method = self
            .require(&fields, "method")
            .and_then(|method| self.known(&method, "method of MCP", names));
        let parameters = fields
            .get("parameters")
            .map(|parameters| self.object_or_expression(&parameters));
        if let Some(method) = &method {
            self.check_mcp_parameters(&fields, method);
        }
        let timeout = fields
            .get("timeout")
            .map(|timeout| self.timeout_of_call(&timeout));
        let transport = self
            .require(&fields, "transport")
            .and_then(|transport| self.transport(&transport));
        let client = fields.get("client").map(|client| self.mcp_client(&client));
        Some(McpCall {
            version: given(version)?.unwrap_or_else(|| mcp::DEFAULT_VERSION.to_owned()),
            method: method?,
            parameters: given(parameters)?,
            timeout: given(timeout)?,
            transport: transport?,
            client: given(client)?,
        })
    }

    /// One of the names of something.
    fn known<const N: usize>(&mut self, at: &Cursor<'_>, what: &str, names: [&str; N]) -> Option<String> {
        let text = self.text(at)?;
        if names.contains(&text) {
            return Some(text.to_owned());
        }
        let nearest = muster_api::names::suggestion(text, names);
        let known = listed(names);
        self.wrong(
            at,
            format!("no such {what} {}; there are {known}{nearest}", quoted(text)),
        );
        None
    }

    /// What can be said of the parameters before their expressions are evaluated.
    fn check_mcp_parameters(&mut self, fields: &Fields<'_>, method: &str) {
        match fields.get("parameters") {
            Some(parameters) => {
                if matches!(parameters.node.content, Content::Object(_))
                    && let Err(message) = mcp::check(method, &parameters.node.to_value())
                {
                    self.wrong(&parameters, message);
                }
            }
            None => {
                if let Err(message) = mcp::check(method, &serde_json::json!({})) {
                    self.wrong_name(&fields.at, message);
                }
            }
        }
    }

    /// A duration, or a timeout by its name.
    fn timeout_of_call(&mut self, at: &Cursor<'_>) -> Option<crate::document::Period> {
        match &at.node.content {
            Content::Text(text) if embedded(text).is_none() && crate::duration::parse(text).is_err() => {
                self.reused_timeout(at, text)
            }
            _ => self.duration(at),
        }
    }

    fn mcp_client(&mut self, at: &Cursor<'_>) -> Option<(String, String)> {
        let fields = self.fields(at, &["name", "version"])?;
        let mut part = |name: &str| {
            let field = self.require(&fields, name)?;
            self.text(&field).map(str::to_owned)
        };
        let (name, version) = (part("name"), part("version"));
        Some((name?, version?))
    }

    fn transport(&mut self, at: &Cursor<'_>) -> Option<McpTransport> {
        let fields = self.fields(at, &["http", "stdio", "options"])?;
        if let Some(options) = fields.get("options") {
            for (name, option) in self.object(&options)?.iter() {
                let message = format!("no such option {}; neither transport has any", quoted(name));
                self.wrong_name(&option, message);
            }
        }
        match (fields.get("http"), fields.get("stdio")) {
            (Some(http), None) => self.transport_over_http(&http),
            (None, Some(stdio)) => self.transport_over_stdio(&stdio),
            _ => {
                self.wrong(at, "a transport is either 'http' or 'stdio'");
                None
            }
        }
    }

    fn transport_over_http(&mut self, at: &Cursor<'_>) -> Option<McpTransport> {
        let fields = self.fields(at, &["endpoint", "headers"])?;
        let endpoint = self
            .require(&fields, "endpoint")
            .and_then(|endpoint| self.destination(&endpoint, &["http", "https"]));
        let headers = fields
            .get("headers")
            .map(|headers| self.object_or_expression(&headers));
        Some(McpTransport::Http {
            endpoint: endpoint?,
            headers: given(headers)?,
        })
    }

    fn transport_over_stdio(&mut self, at: &Cursor<'_>) -> Option<McpTransport> {
        let fields = self.fields(at, &["command", "arguments", "environment"])?;
        let command = self.require(&fields, "command").and_then(|command| {
            self.text(&command)?;
            self.template(&command)
        });
        let arguments = fields
            .get("arguments")
            .map(|arguments| self.list_or_expression(&arguments));
        let environment = fields
            .get("environment")
            .map(|environment| self.object_or_expression(&environment));
        Some(McpTransport::Stdio {
            command: command?,
            arguments: given(arguments)?,
            environment: given(environment)?,
        })
    }

    fn list_or_expression(&mut self, at: &Cursor<'_>) -> Option<Template> {
        match &at.node.content {
            Content::Text(text) if embedded(text).is_some() => {}
            _ => {
                self.items(at)?;
            }
        }
        self.template(at)
    }
}

//! `call: a2a`.

use crate::document::{A2aCall, Endpoint, Method, Server};
use crate::node::Content;
use crate::parse::Reader;
use crate::parse::cursor::{Cursor, Fields};
use crate::problem::{listed, quoted};

impl Reader {
    pub(super) fn a2a(&mut self, at: &Cursor<'_>) -> Option<A2aCall> {
        let fields = self.fields(at, &["server", "agentCard", "method", "parameters"], &[])?;
        let server = self.server(&fields);
        let method = self
            .require(&fields, "method")
            .and_then(|method| self.method(&method));
        let parameters = self.require(&fields, "parameters").and_then(|parameters| {
            if let Some(method) = method {
                self.check_parameters(&parameters, method);
            }
            self.template(&parameters)
        });
        Some(A2aCall {
            server: server?,
            method: method?,
            parameters: parameters?,
        })
    }

    fn server(&mut self, fields: &Fields<'_>) -> Option<Server> {
        match (fields.get("server"), fields.get("agentCard")) {
            (Some(_), Some(card)) => {
                self.wrong_name(
                    &card,
                    "'server' and 'agentCard' both name the agent; give one of them",
                );
                None
            }
            (Some(server), None) => self.agent(&server),
            (None, Some(card)) => self.agent(&card),
            (None, None) => {
                let message =
                    "the call does not say whom it calls; add 'server', such as agent://ID or skill://SKILL";
                self.wrong_name(&fields.at, message);
                None
            }
        }
    }

    /// The address of an agent: as text, or as `{uri}` or `{endpoint}` around it.
    fn agent(&mut self, at: &Cursor<'_>) -> Option<Server> {
        if let Content::Text(text) = &at.node.content {
            if crate::parse::embedded(text).is_some() {
                return self.expression(at, text).map(Server::Computed);
            }
            let endpoint = text.parse::<Endpoint>();
            return endpoint
                .map(Server::Fixed)
                .map_err(|error| self.wrong(at, error.to_string()))
                .ok();
        }
        let fields = self.fields(at, &["uri", "endpoint", "name"], &["authentication"])?;
        if let Some(name) = fields.get("name") {
            self.text(&name);
        }
        match (fields.get("uri"), fields.get("endpoint")) {
            (Some(address), None) => {
                self.text(&address)?;
                self.agent(&address)
            }
            (None, Some(address)) => self.agent(&address),
            _ => {
                self.wrong(
                    at,
                    "an address is text, or an object with either 'uri' or 'endpoint'",
                );
                None
            }
        }
    }

    fn method(&mut self, at: &Cursor<'_>) -> Option<Method> {
        let name = self.text(at)?;
        let method = Method::by_name(name);
        if method.is_none() {
            let message = if Method::UNSUPPORTED.contains(&name) {
                format!("the method {} is not supported yet", quoted(name))
            } else {
                let nearest = muster_api::names::suggestion(name, Method::names());
                format!(
                    "no such method {}; there are {}{nearest}",
                    quoted(name),
                    listed(Method::names())
                )
            };
            self.wrong(at, message);
        }
        method
    }

    /// What can be said of the parameters before their expressions are evaluated.
    fn check_parameters(&mut self, at: &Cursor<'_>, method: Method) {
        if let Err(error) = crate::a2a::check(method, &at.node.to_value()) {
            let place = at.descend(&error.pointer);
            self.wrong(&place, error.message);
        }
    }
}

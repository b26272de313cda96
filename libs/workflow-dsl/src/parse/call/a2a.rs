//! `call: a2a`.

use crate::document::{
    A2aCall, Authentication, Endpoint, EndpointError, Method, SCHEMES, Server, Template, Uri,
};
use crate::node::Content;
use crate::parse::cursor::{Cursor, Fields};
use crate::parse::{Reader, catch::given, embedded};
use crate::problem::{listed, quoted};

/// Whom a call reaches, and how.
struct Agent {
    server: Server,
    authentication: Option<Authentication>,
}

impl Reader {
    pub(super) fn a2a(&mut self, at: &Cursor<'_>) -> Option<A2aCall> {
        let fields = self.fields(at, &["server", "agentCard", "method", "parameters"])?;
        let agent = self.called(&fields);
        let method = self.require(&fields, "method").and_then(|at| {
            let name = self.text(&at)?.to_owned();
            self.method(&at)
                .map(|method| (method, Method::asks_for_events(&name)))
        });
        let parameters = self.parameters(&fields, method.map(|(method, _)| method));
        let (agent, card) = agent?;
        let (method, events) = method?;
        Some(A2aCall {
            server: agent.server,
            card,
            authentication: agent.authentication,
            method,
            events,
            parameters: parameters?,
        })
    }

    fn parameters(&mut self, fields: &Fields<'_>, method: Option<Method>) -> Option<Template> {
        let Some(parameters) = fields.get("parameters") else {
            let none = serde_json::json!({});
            if let Some(Err(error)) = method.map(|method| crate::a2a::check(method, &none)) {
                self.wrong_name(&fields.at, format!("'parameters' is missing: {}", error.message));
                return None;
            }
            return Some(Template::Literal(none));
        };
        if let Some(method) = method {
            self.check_parameters(&parameters, method);
        }
        self.template(&parameters)
    }

    /// Whom the call reaches; whether by the address of a card.
    fn called(&mut self, fields: &Fields<'_>) -> Option<(Agent, bool)> {
        match (fields.get("server"), fields.get("agentCard")) {
            (server, Some(card)) => {
                if let Some(server) = server {
                    let message = "'server' is ignored where 'agentCard' is given, as the language says; the card names the server";
                    self.doubtful(&server, message);
                }
                let agent = self.agent_of_card(&card)?;
                let by_card = !matches!(
                    agent.server,
                    Server::Fixed(Endpoint::Agent(_) | Endpoint::Skill(_))
                );
                Some((agent, by_card))
            }
            (Some(server), None) => self.agent(&server).map(|agent| (agent, false)),
            (None, None) => {
                let message = "the call does not say whom it calls; add 'server', such as agent://ID, skill://SKILL or a URL";
                self.wrong_name(&fields.at, message);
                None
            }
        }
    }

    /// `agentCard`: a document outside of the workflow, `{name, endpoint}`, or its address alone.
    fn agent_of_card(&mut self, at: &Cursor<'_>) -> Option<Agent> {
        if at.child("endpoint").is_none() {
            return self.agent(at);
        }
        let fields = self.fields(at, &["name", "endpoint"])?;
        self.optional_text(&fields, "name");
        let endpoint = self.require(&fields, "endpoint")?;
        self.agent(&endpoint)
    }

    /// The address of an agent: as text, or as `{uri, authentication}`.
    fn agent(&mut self, at: &Cursor<'_>) -> Option<Agent> {
        if let Content::Text(text) = &at.node.content {
            return self.address(at, text).map(|server| Agent {
                server,
                authentication: None,
            });
        }
        let fields = self.fields(at, &["uri", "authentication"])?;
        let server = self.require(&fields, "uri").and_then(|uri| {
            let text = self.text(&uri)?;
            self.address(&uri, text)
        });
        let authentication = fields
            .get("authentication")
            .map(|authentication| self.authentication(&authentication));
        let server = server?;
        if let (Server::Fixed(Endpoint::Agent(_) | Endpoint::Skill(_)), Some(field)) =
            (&server, fields.get("authentication"))
        {
            let message = "agents of the fleet are called through the router, which knows who asks; 'authentication' is for \
                           agents by URL";
            self.wrong_name(&field, message);
            return None;
        }
        Some(Agent {
            server,
            authentication: given(authentication)?,
        })
    }

    fn address(&mut self, at: &Cursor<'_>, text: &str) -> Option<Server> {
        if embedded(text).is_some() {
            return self.expression(at, text).map(Server::Computed);
        }
        let by_url = text
            .split_once("://")
            .is_some_and(|(scheme, _)| SCHEMES.contains(&scheme));
        if by_url && text.contains(['{', '}', '$']) {
            return match self.uri(at, &SCHEMES)? {
                Uri::Template(template) => Some(Server::Template(template)),
                Uri::Computed(_) => None,
            };
        }
        text.parse()
            .map(Server::Fixed)
            .map_err(|error: EndpointError| self.wrong(at, error.to_string()))
            .ok()
    }

    fn method(&mut self, at: &Cursor<'_>) -> Option<Method> {
        let name = self.text(at)?;
        let method = Method::by_name(name);
        if method.is_none() {
            let nearest = muster_api::names::suggestion(name, Method::names());
            let message = format!(
                "no such method {}; there are {}{nearest}",
                quoted(name),
                listed(Method::names())
            );
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

//! `call: a2a`.

use serde_json::Value;

use crate::a2a;
use crate::document::{A2aCall, Endpoint, EndpointError, Server};
use crate::journal::{Problem, Standard};
use crate::request;
use crate::run::current::{Current, Fault};
use crate::run::evaluate::bounded;

impl Current<'_> {
    pub(super) fn a2a(&self, call: &A2aCall) -> Result<request::A2a, Fault> {
        let input = &self.activation.input;
        let endpoint = match &call.server {
            Server::Fixed(endpoint) => endpoint.clone(),
            Server::Template(template) => {
                let text = template
                    .expand(input)
                    .map_err(|detail| Problem::standard(Standard::Expression, detail))?;
                self.agent(&Value::String(text))?
            }
            Server::Computed(expression) => self.agent(&self.view.value(expression, input)?)?,
        };
        let given = self.view.template(&call.parameters, input)?;
        let parameters = a2a::translate(call.method, &given)
            .map_err(|error| Problem::standard(Standard::Validation, format!("the call's {error}")))?;
        let authentication = match (&call.authentication, &endpoint) {
            (Some(authentication), Endpoint::Url(_)) => {
                Some(self.view.authentication(authentication, input)?)
            }
            (Some(_), Endpoint::Agent(_) | Endpoint::Skill(_)) => {
                let detail = format!(
                    "'{endpoint}' is called through the router; 'authentication' is for agents by URL"
                );
                return Err(Problem::standard(Standard::Configuration, detail));
            }
            (None, _) => None,
        };
        Ok(request::A2a {
            card: call.card && matches!(endpoint, Endpoint::Url(_)),
            endpoint,
            authentication,
            events: call.events,
            method: call.method,
            parameters: bounded(parameters, "the call's parameters")?,
        })
    }

    fn agent(&self, computed: &Value) -> Result<Endpoint, Fault> {
        let invalid = |detail: String| Problem::standard(Standard::Validation, detail);
        let text = computed
            .as_str()
            .ok_or_else(|| invalid("the call's server must be text".to_owned()))?;
        text.parse()
            .map_err(|error: EndpointError| invalid(format!("the call's server: {error}")))
    }
}

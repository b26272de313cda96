//! Evaluating addresses and authentications.

use serde_json::{Value, json};

use super::evaluate::View;
use crate::document::{
    Authentication, AuthenticationProperties, Destination, ExternalResource, Kind, Scheme, Uri, UriTemplate,
};
use crate::journal::{Problem, Standard};
use crate::request;

fn wrong(detail: String) -> Problem {
    Problem::standard(Standard::Expression, detail)
}

impl View<'_> {
    /// An address with its authentication.
    pub(super) fn destination(
        &self,
        destination: &Destination,
        dot: &Value,
    ) -> Result<request::Destination, Problem> {
        let authentication = destination.authentication.as_ref();
        Ok(request::Destination {
            uri: self.uri(&destination.uri, dot)?,
            authentication: authentication
                .map(|authentication| self.authentication(authentication, dot))
                .transpose()?,
        })
    }

    /// A document outside of the workflow.
    pub(super) fn resource(
        &self,
        resource: &ExternalResource,
        dot: &Value,
    ) -> Result<request::Resource, Problem> {
        Ok(request::Resource {
            name: resource.name.clone(),
            endpoint: self.destination(&resource.endpoint, dot)?,
        })
    }

    /// An address.
    pub(super) fn uri(&self, uri: &Uri, dot: &Value) -> Result<String, Problem> {
        match uri {
            Uri::Template(template) => template.expand(dot).map_err(wrong),
            Uri::Computed(template) => match self.template(template, dot)? {
                Value::String(text) => Ok(text),
                other => Err(wrong(format!("the address must be text, and is {other}"))),
            },
        }
    }

    /// How to authenticate.
    pub(super) fn authentication(
        &self,
        authentication: &Authentication,
        dot: &Value,
    ) -> Result<request::Authentication, Problem> {
        let properties = match &authentication.properties {
            AuthenticationProperties::Secret(name) => request::Properties::Secret(name.clone()),
            AuthenticationProperties::Given(template) => {
                let mut properties = self.template(template, dot)?;
                // What the author wrote as an address may have variables in it, as any address.
                if matches!(authentication.scheme, Scheme::Oauth2 | Scheme::Oidc)
                    && let Some(Value::String(authority)) = properties.get_mut("authority")
                    && let Ok(template) = UriTemplate::parse(authority)
                {
                    *authority = template.expand(dot).map_err(wrong)?;
                }
                request::Properties::With(super::evaluate::bounded(properties, "the authentication")?)
            }
        };
        Ok(request::Authentication {
            scheme: authentication.scheme,
            properties,
        })
    }

    /// `$authorization`: what the task's call authenticates itself with, where it does. What is sent is known only to
    /// the call itself.
    pub(super) fn authorization(&self) -> Value {
        let call = match self.task.map(|task| &task.kind) {
            Some(Kind::Call(call)) => call.authentication(),
            _ => None,
        };
        call.map_or(Value::Null, |authentication| {
            json!({
                "scheme": authentication.scheme.in_header(),
                "parameter": self.run.secrets.authorization(),
            })
        })
    }
}

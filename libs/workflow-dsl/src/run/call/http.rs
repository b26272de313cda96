//! `call: http`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::document::{HttpCall, Template};
use crate::journal::{Problem, Standard};
use crate::request;
use crate::run::current::{Current, Fault};

impl Current<'_> {
    pub(super) fn http(&self, call: &HttpCall) -> Result<request::Http, Fault> {
        let input = &self.activation.input;
        let body = call
            .body
            .as_ref()
            .map(|body| self.view.shared(body, input, "the body"));
        Ok(request::Http {
            method: call.method.clone(),
            endpoint: self.view.destination(&call.endpoint, input)?,
            headers: self.headers(call.headers.as_ref())?,
            query: self
                .mapping(call.query.as_ref(), "the query")?
                .into_iter()
                .collect(),
            body: body.transpose()?,
            output: call.output,
            redirect: call.redirect,
        })
    }

    /// Headers as text. Those that come out as null are left away.
    pub(super) fn headers(&self, template: Option<&Template>) -> Result<BTreeMap<String, String>, Fault> {
        let mut headers = BTreeMap::new();
        for (name, value) in self.mapping(template, "the headers")? {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text,
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                Value::Array(_) | Value::Object(_) => {
                    let detail = format!("the header '{name}' must be text, a number or a boolean");
                    return Err(Problem::standard(Standard::Expression, detail));
                }
            };
            headers.insert(name, text);
        }
        Ok(headers)
    }

    /// What must be an object; nothing is one without fields.
    pub(super) fn mapping(
        &self,
        template: Option<&Template>,
        what: &str,
    ) -> Result<Map<String, Value>, Fault> {
        let Some(template) = template else {
            return Ok(Map::new());
        };
        match self.view.template(template, &self.activation.input)? {
            Value::Object(fields) => {
                crate::run::evaluate::within(&fields, what)?;
                Ok(fields)
            }
            Value::Null => Ok(Map::new()),
            _ => {
                let detail = format!("{what} must be an object");
                Err(Problem::standard(Standard::Expression, detail))
            }
        }
    }
}

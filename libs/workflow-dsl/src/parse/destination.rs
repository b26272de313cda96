//! Addresses with their authentication, and documents outside of the workflow.

use super::cursor::Cursor;
use super::{Reader, embedded};
use crate::document::{Destination, ExternalResource, Template, Uri, UriTemplate};
use crate::node::Content;
use crate::problem::quoted;

impl Reader {
    /// An endpoint: an address, or `{uri, authentication}`. `schemes` are those that the address may have.
    pub(super) fn destination(&mut self, at: &Cursor<'_>, schemes: &[&str]) -> Option<Destination> {
        if let Content::Text(_) = at.node.content {
            return Some(Destination {
                uri: self.uri(at, schemes)?,
                authentication: None,
            });
        }
        let fields = self.fields(at, &["uri", "authentication"])?;
        let uri = self
            .require(&fields, "uri")
            .and_then(|uri| self.uri(&uri, schemes));
        let authentication = fields
            .get("authentication")
            .map(|authentication| self.authentication(&authentication));
        Some(Destination {
            uri: uri?,
            authentication: super::catch::given(authentication)?,
        })
    }

    /// An address: text, perhaps with variables in braces, or an expression.
    pub(super) fn uri(&mut self, at: &Cursor<'_>, schemes: &[&str]) -> Option<Uri> {
        let text = self.text(at)?;
        if embedded(text).is_some() {
            return self
                .expression(at, text)
                .map(Template::Expression)
                .map(Uri::Computed);
        }
        if text.contains("${") {
            let message = "an address is text, perhaps with variables as in /pets/{petId}, or one expression from end to end, \
                           such as ${ \"https://example.com/\" + .path }";
            self.wrong(at, message);
            return None;
        }
        let template = match UriTemplate::parse(text) {
            Ok(template) => template,
            Err(message) => {
                self.wrong(at, message);
                return None;
            }
        };
        // An address that begins with a variable has a scheme that nobody knows yet.
        let known = text.split('{').next().unwrap_or_default();
        let scheme = known
            .split_once("://")
            .map(|(scheme, _)| scheme.to_ascii_lowercase());
        let fits = match &scheme {
            Some(scheme) => schemes.contains(&scheme.as_str()),
            None => known.len() < text.len() && !known.contains(['/', '.']),
        };
        if !fits {
            let allowed: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
            self.wrong(
                at,
                format!(
                    "the address {} must begin with {}",
                    quoted(text),
                    allowed.join(" or ")
                ),
            );
            return None;
        }
        Some(Uri::Template(template))
    }

    /// A document outside of the workflow: `{name, endpoint}`.
    pub(super) fn resource(&mut self, at: &Cursor<'_>) -> Option<ExternalResource> {
        const SCHEMES: &[&str] = &["http", "https", "file"];
        if let Content::Text(_) = at.node.content {
            return Some(ExternalResource {
                name: None,
                endpoint: self.destination(at, SCHEMES)?,
            });
        }
        let fields = self.fields(at, &["name", "endpoint"])?;
        let name = self.optional_text(&fields, "name");
        let endpoint = self
            .require(&fields, "endpoint")
            .and_then(|endpoint| self.destination(&endpoint, SCHEMES));
        Some(ExternalResource {
            name,
            endpoint: endpoint?,
        })
    }
}

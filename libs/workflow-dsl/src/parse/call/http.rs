//! `call: http`.

use crate::document::{HttpCall, ResponseFormat, Template};
use crate::node::Content;
use crate::parse::cursor::{Cursor, Fields};
use crate::parse::{Reader, catch::given, embedded};
use crate::problem::{listed, quoted};

/// What requests over HTTP may go to.
const SCHEMES: &[&str] = &["http", "https"];

/// Headers that the client sets, because they say how the request itself is carried.
const OURS: [&str; 6] = [
    "connection",
    "content-length",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

impl Reader {
    pub(super) fn http(&mut self, at: &Cursor<'_>) -> Option<HttpCall> {
        const ALLOWED: &[&str] = &[
            "method", "endpoint", "headers", "query", "body", "output", "redirect",
        ];
        let fields = self.fields(at, ALLOWED)?;
        let method = self
            .require(&fields, "method")
            .and_then(|method| self.http_method(&method));
        let endpoint = self
            .require(&fields, "endpoint")
            .and_then(|endpoint| self.destination(&endpoint, SCHEMES));
        let headers = fields.get("headers").map(|headers| self.headers(&headers));
        let query = fields.get("query").map(|query| self.mapping(&query));
        let body = fields.get("body").map(|body| self.template(&body));
        let (output, redirect) = self.response_format(&fields)?;
        Some(HttpCall {
            method: method?,
            endpoint: endpoint?,
            headers: given(headers)?,
            query: given(query)?,
            body: given(body)?,
            output,
            redirect,
        })
    }

    fn http_method(&mut self, at: &Cursor<'_>) -> Option<String> {
        const KNOWN: [&str; 8] = [
            "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
        ];
        let text = self.text(at)?;
        let name = text.to_ascii_uppercase();
        if KNOWN.contains(&name.as_str()) {
            return Some(name);
        }
        let nearest = muster_api::names::suggestion(&name, KNOWN);
        self.wrong(
            at,
            format!(
                "no such method {}; there are {}{nearest}",
                quoted(text),
                listed(KNOWN)
            ),
        );
        None
    }

    /// `headers`: an object of texts, or an expression that yields one.
    pub(super) fn headers(&mut self, at: &Cursor<'_>) -> Option<Template> {
        if let Content::Object(entries) = &at.node.content {
            let mut fits = true;
            for entry in entries {
                let field = at.field(entry);
                if !is_token(&entry.key) {
                    self.wrong_name(
                        &field,
                        format!("{} is not the name of a header", quoted(&entry.key)),
                    );
                    fits = false;
                } else if OURS.contains(&entry.key.to_ascii_lowercase().as_str()) {
                    let message = format!("the header {} is set by the client", quoted(&entry.key));
                    self.wrong_name(&field, message);
                    fits = false;
                }
            }
            if !fits {
                return None;
            }
        }
        self.mapping(at)
    }

    /// An object, or an expression that yields one.
    pub(super) fn mapping(&mut self, at: &Cursor<'_>) -> Option<Template> {
        match &at.node.content {
            Content::Object(_) => self.template(at),
            Content::Text(text) if embedded(text).is_some() => self.template(at),
            _ => {
                let found = at.node.kind();
                self.wrong(
                    at,
                    format!("must be an object, or an expression that yields one; found {found}"),
                );
                None
            }
        }
    }

    /// `output` and `redirect`.
    pub(super) fn response_format(&mut self, fields: &Fields<'_>) -> Option<(ResponseFormat, bool)> {
        let output = match fields.get("output") {
            None => ResponseFormat::default(),
            Some(output) => {
                let text = self.text(&output)?;
                let names = || ResponseFormat::NAMES.iter().map(|(name, _)| *name);
                let found = ResponseFormat::NAMES.iter().find(|(name, _)| *name == text);
                let Some((_, format)) = found else {
                    let nearest = muster_api::names::suggestion(text, names());
                    let message = format!(
                        "no such output {}; there are {}{nearest}",
                        quoted(text),
                        listed(names())
                    );
                    self.wrong(&output, message);
                    return None;
                };
                *format
            }
        };
        let redirect = match fields.get("redirect") {
            None => false,
            Some(redirect) => self.boolean(&redirect)?,
        };
        Some((output, redirect))
    }
}

/// Whether the text can be the name of a header.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

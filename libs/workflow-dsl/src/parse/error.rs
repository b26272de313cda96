//! Errors: raised by tasks, defined in `use.errors`, filtered by `catch`.

use super::Reader;
use super::cursor::{Cursor, Fields};
use crate::document::{ErrorFilter, ErrorTemplate, Kind, Template, Uri, UriTemplate};
use crate::node::Content;
use crate::problem::quoted;

/// Statuses that errors may have: those of HTTP.
const STATUSES: (u64, u64) = (100, 599);

impl Reader {
    /// `raise`.
    pub(super) fn raise(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let raise = self.require(fields, "raise")?;
        let fields = self.fields(&raise, &["error"])?;
        let error = self.require(&fields, "error")?;
        let template = match &error.node.content {
            Content::Text(name) => self.reused_error(&error, name),
            _ => self.inline_error(&error),
        };
        template.map(|template| Kind::Raise(Box::new(template)))
    }

    pub(super) fn inline_error(&mut self, at: &Cursor<'_>) -> Option<ErrorTemplate> {
        let fields = self.fields(at, &["type", "status", "instance", "title", "detail"])?;
        let kind = self
            .require(&fields, "type")
            .and_then(|kind| self.error_type(&kind));
        let status = self
            .require(&fields, "status")
            .and_then(|status| self.status(&status));
        let [instance, title, detail] = ["instance", "title", "detail"].map(|name| {
            let field = fields.get(name)?;
            self.text(&field)?;
            self.template(&field)
        });
        Some(ErrorTemplate {
            kind: kind?,
            status: status?,
            instance,
            title,
            detail,
        })
    }

    fn error_type(&mut self, at: &Cursor<'_>) -> Option<Uri> {
        let text = self.text(at)?;
        if super::embedded(text).is_none() && !is_uri_reference(text) {
            let example = "https://serverlessworkflow.io/spec/1.0.0/errors/validation";
            self.wrong(
                at,
                format!(
                    "the type of an error must be a URI, such as {example}; found {}",
                    quoted(text)
                ),
            );
            return None;
        }
        match self.template(at)? {
            Template::Literal(_) => UriTemplate::parse(text)
                .map(Uri::Template)
                .map_err(|message| self.wrong(at, message))
                .ok(),
            computed => Some(Uri::Computed(computed)),
        }
    }

    fn status(&mut self, at: &Cursor<'_>) -> Option<u16> {
        let (least, most) = STATUSES;
        self.integer(at, least, most)
            .and_then(|status| u16::try_from(status).ok())
    }

    /// `catch.errors`.
    pub(super) fn error_filter(&mut self, at: &Cursor<'_>) -> Option<ErrorFilter> {
        let fields = self.fields(at, &["with"])?;
        // Without a filter every error fits.
        let Some(with) = fields.get("with") else {
            return Some(ErrorFilter::default());
        };
        let fields = self.fields(
            &with,
            &["type", "status", "instance", "title", "detail", "details"],
        )?;
        if fields.entries.is_empty() {
            let message = "this names nothing, so that every error fits; name what errors must have, such as {status: 503}, or leave \
                           'errors' away";
            self.doubtful(&with, message);
        }
        let status = fields.get("status").map(|status| self.status(&status));
        let [kind, instance, title, detail, details] =
            ["type", "instance", "title", "detail", "details"].map(|name| self.constant(&fields, name));
        if let Some(kind) = &kind
            && kind.contains('{')
            && let Some(field) = fields.get("type")
        {
            let message = "a filter compares the type as it stands: what is in braces is replaced where an error is raised, and not \
                           here; for types that differ use 'when' of the catch";
            self.doubtful(&field, message);
        }
        if detail.is_some() && details.is_some() {
            self.wrong(&with, "'detail' and 'details' mean the same; give one of them");
        }
        let status = match status {
            Some(None) => return None,
            Some(status) => status,
            None => None,
        };
        Some(ErrorFilter {
            kind,
            status,
            instance,
            title,
            detail: detail.or(details),
        })
    }

    fn constant(&mut self, fields: &Fields<'_>, name: &str) -> Option<String> {
        let field = fields.get(name)?;
        let text = self.text(&field)?;
        if super::embedded(text).is_some() {
            self.wrong(
                &field,
                "expressions in an error filter are not supported yet; use 'when' of the catch",
            );
            return None;
        }
        Some(text.to_owned())
    }
}

fn is_uri_reference(text: &str) -> bool {
    !text.is_empty() && !text.contains(|character: char| character.is_whitespace() || character.is_control())
}

//! `input.schema`, `output.schema` and `export.schema`.

use super::Reader;
use super::cursor::{Cursor, Fields};
use super::function::Elsewhere;
use crate::document::Schemas;
use crate::node::Content;
use crate::problem::quoted;
use crate::schema::Schema;

/// Most schemas of one document: each is compiled when the document is read.
const MOST_SCHEMAS: usize = 200;

/// Most patterns in the schemas of one document together: each may compile to a quarter of a megabyte.
const MOST_PATTERNS: usize = 100;

impl Reader {
    /// The schemas of the sections among `fields`.
    pub(super) fn schemas(&mut self, fields: &Fields<'_>) -> Schemas {
        let mut read = |section: &str| {
            let schema = fields.get(section)?.child("schema")?;
            self.schema(&schema)
        };
        Schemas {
            input: read("input"),
            output: read("output"),
            export: read("export"),
        }
    }

    fn schema(&mut self, at: &Cursor<'_>) -> Option<Schema> {
        let fields = self.fields(at, &["format", "document", "resource"])?;
        if let Some(format) = fields.get("format") {
            let name = self.text(&format)?;
            if name != "json" && !name.starts_with("json:") {
                let message = format!(
                    "schemas of the format {} are not supported; there is 'json'",
                    quoted(name)
                );
                self.wrong(&format, message);
                return None;
            }
        }
        self.scope.schemas += 1;
        if self.scope.schemas > MOST_SCHEMAS {
            self.wrong(at, format!("the document has more than {MOST_SCHEMAS} schemas"));
            return None;
        }
        match (fields.get("resource"), fields.has("document")) {
            (Some(resource), false) => return self.schema_elsewhere(&resource),
            (Some(resource), true) => {
                self.wrong_name(
                    &resource,
                    "'document' and 'resource' both hold the schema; give one of them",
                );
                return None;
            }
            (None, _) => {}
        }
        let document = self.require(&fields, "document")?;
        // A schema may also be given as text, in JSON.
        let value = match &document.node.content {
            Content::Text(text) => match serde_json::from_str(text) {
                Ok(value) => value,
                Err(error) => {
                    self.wrong(&document, format!("the schema is text, and not JSON: {error}"));
                    return None;
                }
            },
            _ => document.node.to_value(),
        };
        self.compiled(&document, &value)
    }

    /// A schema at an address: it is obtained before a run begins, and until then everything fits.
    fn schema_elsewhere(&mut self, at: &Cursor<'_>) -> Option<Schema> {
        let name = self.elsewhere(at, Elsewhere::Schema)?;
        let text = self.resources.get(&name)?.clone();
        match crate::data::read(&text) {
            Ok(value) => self.compiled(at, &value),
            Err(why) => {
                self.wrong(at, format!("the schema cannot be read: {why}"));
                None
            }
        }
    }

    fn compiled(&mut self, document: &Cursor<'_>, value: &serde_json::Value) -> Option<Schema> {
        match Schema::compile(value) {
            Ok(schema) => {
                self.scope.patterns += schema.patterns();
                if self.scope.patterns > MOST_PATTERNS {
                    self.wrong(
                        document,
                        format!("the schemas of a document have at most {MOST_PATTERNS} patterns together"),
                    );
                    return None;
                }
                Some(schema)
            }
            Err(refusal) => {
                let place = document.descend(&refusal.pointer);
                self.wrong(&place, refusal.message);
                None
            }
        }
    }
}

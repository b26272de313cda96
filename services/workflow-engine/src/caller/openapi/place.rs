//! Where a parameter of an operation goes, and how it is written there.

use muster_workflow_dsl::secret::encoded;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::wrong;
use crate::caller::Failure;
use crate::caller::web::content::plain;

/// Everything but the unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where a parameter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Path,
    Query,
    Header,
    Cookie,
    /// Of version 2.
    Body,
    /// Of version 2.
    Form,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Body => "body",
            Self::Form => "form",
        }
    }
}

/// A parameter that an operation declares.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) place: Kind,
    pub(super) required: bool,
    pub(super) default: Option<Value>,
    /// Whether each item of a list comes under the name again.
    explode: bool,
    /// `name[field]=value`.
    deep: bool,
    /// What stands between the items of a list.
    separator: &'static str,
}

impl Parameter {
    /// Reads a declaration; none if it is none.
    pub(super) fn read(declared: &Value) -> Option<Self> {
        let text = |name: &str| declared.get(name).and_then(Value::as_str);
        let place = match text("in")? {
            "path" => Kind::Path,
            "query" => Kind::Query,
            "header" => Kind::Header,
            "cookie" => Kind::Cookie,
            "body" => Kind::Body,
            "formData" => Kind::Form,
            _ => return None,
        };
        let (style, collection) = (text("style"), text("collectionFormat"));
        let is_v2 = declared.get("schema").is_none() && declared.get("content").is_none();
        let explode = match declared.get("explode").and_then(Value::as_bool) {
            Some(explode) => explode,
            None if is_v2 => collection == Some("multi"),
            None => style.is_none_or(|style| style == "form"),
        };
        let default = declared
            .get("default")
            .or_else(|| declared.pointer("/schema/default"));
        Some(Self {
            name: text("name")?.to_owned(),
            place,
            required: declared.get("required") == Some(&Value::Bool(true)) || place == Kind::Path,
            default: default
                .filter(|_| declared.get("required") == Some(&Value::Bool(true)))
                .cloned(),
            explode,
            deep: style == Some("deepObject"),
            separator: match (style, collection) {
                (Some("spaceDelimited"), _) | (_, Some("ssv")) => " ",
                (Some("pipeDelimited"), _) | (_, Some("pipes")) => "|",
                (_, Some("tsv")) => "\t",
                _ => ",",
            },
        })
    }

    /// The value as one text.
    pub(super) fn joined(&self, value: &Value) -> Result<String, Failure> {
        match value {
            Value::Object(fields) => {
                let parts = fields.iter().map(|(name, value)| {
                    let equals = if self.explode { "=" } else { "," };
                    Ok(format!("{name}{equals}{}", plain(&self.name, value)?.join(",")))
                });
                Ok(parts.collect::<Result<Vec<_>, Failure>>()?.join(","))
            }
            _ => Ok(plain(&self.name, value)?.join(self.separator)),
        }
    }

    /// The value as a part of a path.
    pub(super) fn in_path(&self, value: &Value) -> Result<String, Failure> {
        let texts = match value {
            Value::Object(_) => vec![self.joined(value)?],
            _ => plain(&self.name, value)?,
        };
        if texts.iter().all(String::is_empty) {
            return Err(wrong(format!(
                "the parameter '{}' is a part of the path and must not be empty",
                self.name
            )));
        }
        let parts: Vec<String> = texts
            .iter()
            .map(|text| encoded(utf8_percent_encode(text, RESERVED).to_string()))
            .collect();
        Ok(parts.join(","))
    }

    /// The value as parameters of a query.
    pub(super) fn in_query(&self, value: Value) -> Result<Vec<(String, Value)>, Failure> {
        Ok(match value {
            Value::Object(fields) if self.deep => fields
                .into_iter()
                .map(|(field, value)| (format!("{}[{field}]", self.name), value))
                .collect(),
            Value::Object(fields) if self.explode => fields.into_iter().collect(),
            Value::Array(_) if self.explode => vec![(self.name.clone(), value)],
            other => vec![(self.name.clone(), Value::String(self.joined(&other)?))],
        })
    }
}

//! A document as a tree whose every value knows its place in the text.
//!
//! YAML and JSON are read the same way: JSON is a subset of YAML 1.2, and one reader means one set of bounds and
//! one kind of place. The tree holds what JSON can hold and nothing else, so that an expression sees exactly what
//! the author wrote: keys are text, numbers are finite, no tags, no merge keys.
//!
//! Everything that could cost more than the text is long is bounded while the tree grows: nesting, the number of
//! values, and what aliases expand to. Reading is iterative over the parser's events; the parser's own recursive
//! loader would overflow the stack on a deep document before any limit could speak.

mod read;
mod scalar;
mod surrogates;

#[cfg(test)]
pub(crate) use read::{DEEPEST, MOST_NODES};
pub(crate) use read::{MOST_BYTES, read};

use serde_json::{Map, Number, Value};

use crate::problem::Place;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Where the value begins.
    pub(crate) place: Place,
    /// The value.
    pub(crate) content: Content,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<Entry>),
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value: Node,
}

impl Node {
    /// What the value is, with its article, for "expected an object, found …".
    pub(crate) fn kind(&self) -> &'static str {
        match self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "a boolean",
            Content::Number(_) => "a number",
            Content::Text(_) => "text",
            Content::Array(_) => "a list",
            Content::Object(_) => "an object",
        }
    }

    /// The value without its places.
    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(value) => Value::Number(value.clone()),
            Content::Text(value) => Value::String(value.clone()),
            Content::Array(items) => items.iter().map(Self::to_value).collect(),
            Content::Object(entries) => Value::Object(to_map(entries)),
        }
    }
}

/// The fields of an object without their places.
pub(crate) fn to_map(entries: &[Entry]) -> Map<String, Value> {
    entries
        .iter()
        .map(|entry| (entry.key.clone(), entry.value.to_value()))
        .collect()
}

/// `pointer` extended by `token`, escaped after RFC 6901.
pub(crate) fn pointer_to(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}

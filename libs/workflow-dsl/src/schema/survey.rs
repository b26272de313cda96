//! What a schema consists of: its subschemas, how they refer to each other, and whether that is bounded.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{MOST_EXPANDED, MOST_PARTS, MOST_PATTERNS, Refusal};
use crate::node::pointer_to;
use crate::problem::quoted;

/// Longest chain of subschemas that look at the same place of a value.
const LONGEST_CHAIN: usize = 64;

/// A schema that nests no deeper than this is checked on the caller's stack.
const SHALLOW: usize = 24;

/// Keywords with one subschema for the same place of the value.
const SAME_PLACE: [&str; 6] = ["not", "if", "then", "else", "$ref", "dependencies"];

/// Keywords with a list of subschemas for the same place.
const SAME_PLACE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Keywords with one subschema, or a list of them, for places below.
const BELOW: [&str; 10] = [
    "items",
    "additionalItems",
    "prefixItems",
    "contains",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "propertyNames",
    "contentSchema",
    "extends",
];

/// Keywords with subschemas by name: for places below, for the same place, and for none.
const NAMED: [(&str, Option<Edge>); 6] = [
    ("properties", Some(Edge::Below)),
    ("patternProperties", Some(Edge::Below)),
    ("dependentSchemas", Some(Edge::Same)),
    ("dependencies", Some(Edge::Same)),
    ("$defs", None),
    ("definitions", None),
];

/// Which part of a value a subschema looks at, seen from the schema around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    Same,
    Below,
}

/// What is known of a schema that may be compiled.
pub(super) struct Survey {
    /// Pointers of the subschemas that are objects.
    parts: Vec<String>,
    /// Whether checking a value needs a stack of its own.
    pub(super) deep: bool,
    /// Subschemas with references expanded, each circle once.
    pub(super) expanded: u64,
    pub(super) patterns: usize,
}

impl Survey {
    /// The schema with `keyword` in front of the others in each of its subschemas.
    pub(super) fn metered(&self, schema: &Value, keyword: &str) -> Value {
        let mut metered = schema.clone();
        for part in &self.parts {
            if let Some(Value::Object(fields)) = metered.pointer_mut(part) {
                let others = std::mem::take(fields);
                fields.insert(keyword.to_owned(), Value::Bool(true));
                fields.extend(others);
            }
        }
        metered
    }
}

struct Part<'s> {
    pointer: String,
    schema: &'s Value,
    edges: Vec<(Edge, usize)>,
}

struct Surveyor<'s> {
    root: &'s Value,
    parts: Vec<Part<'s>>,
    known: BTreeMap<String, usize>,
    anchors: BTreeMap<&'s str, String>,
    patterns: usize,
}

/// Surveys a schema.
///
/// # Errors
/// What is not bounded, or not known here.
pub(super) fn survey(schema: &Value) -> Result<Survey, Refusal> {
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return refuse("", "a JSON Schema is an object, or true or false");
    }
    let mut surveyor = Surveyor {
        root: schema,
        parts: Vec::new(),
        known: BTreeMap::new(),
        anchors: BTreeMap::new(),
        patterns: 0,
    };
    surveyor.part(String::new(), schema)?;
    let mut next = 0;
    while next < surveyor.parts.len() {
        surveyor.contents(next)?;
        next += 1;
    }
    // Only now are all anchors known; what references lead to may contain further parts.
    let mut next = 0;
    while next < surveyor.parts.len() {
        surveyor.reference(next)?;
        next += 1;
    }
    let deep = surveyor.depth()?;
    let mut sizes = vec![None; surveyor.parts.len()];
    let expanded = surveyor.expanded(0, &mut sizes);
    if expanded > MOST_EXPANDED {
        let message =
            format!("with its references expanded, the schema has more than {MOST_EXPANDED} subschemas");
        return refuse("", message);
    }
    let patterns = surveyor.patterns;
    let objects = surveyor.parts.into_iter().filter(|part| part.schema.is_object());
    Ok(Survey {
        parts: objects.map(|part| part.pointer).collect(),
        deep,
        expanded,
        patterns,
    })
}

fn refuse<T>(pointer: &str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        pointer: pointer.to_owned(),
        message: message.into(),
    })
}

impl<'s> Surveyor<'s> {
    fn part(&mut self, pointer: String, schema: &'s Value) -> Result<usize, Refusal> {
        if let Some(known) = self.known.get(&pointer) {
            return Ok(*known);
        }
        if self.parts.len() >= MOST_PARTS {
            return refuse(&pointer, format!("a schema has at most {MOST_PARTS} subschemas"));
        }
        let index = self.parts.len();
        self.known.insert(pointer.clone(), index);
        self.parts.push(Part {
            pointer,
            schema,
            edges: Vec::new(),
        });
        Ok(index)
    }

    /// The subschemas directly in a part, and what is not bounded in it.
    fn contents(&mut self, index: usize) -> Result<(), Refusal> {
        let Some(Part { pointer, schema, .. }) = self.parts.get(index) else {
            return Ok(());
        };
        let (pointer, schema) = (pointer.clone(), *schema);
        let Value::Object(fields) = schema else {
            return Ok(());
        };
        for (name, value) in fields {
            let at = pointer_to(&pointer, name);
            self.refuse_keyword(name, value, &pointer, &at)?;
            if let (Some(edge), true) = (edge_of(name), value.is_object() || value.is_boolean())
                && !matches!(name.as_str(), "$ref" | "dependencies")
            {
                self.inside(index, Some(edge), at.clone(), value)?;
            }
            let listed = SAME_PLACE_LISTS.contains(&name.as_str()) || BELOW.contains(&name.as_str());
            if let (true, Value::Array(items)) = (listed, value) {
                for (position, item) in items.iter().enumerate() {
                    let edge = edge_of(name).unwrap_or(Edge::Same);
                    self.inside(index, Some(edge), pointer_to(&at, &position.to_string()), item)?;
                }
            }
            let named = NAMED.iter().find(|(known, _)| known == name);
            if let (Some((_, edge)), Value::Object(entries)) = (named, value) {
                for (key, entry) in entries {
                    if entry.is_object() || entry.is_boolean() {
                        self.inside(index, *edge, pointer_to(&at, key), entry)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn inside(
        &mut self,
        owner: usize,
        edge: Option<Edge>,
        pointer: String,
        schema: &'s Value,
    ) -> Result<(), Refusal> {
        let part = self.part(pointer, schema)?;
        if let (Some(edge), Some(owner)) = (edge, self.parts.get_mut(owner)) {
            owner.edges.push((edge, part));
        }
        Ok(())
    }

    fn refuse_keyword(
        &mut self,
        name: &str,
        value: &'s Value,
        pointer: &str,
        at: &str,
    ) -> Result<(), Refusal> {
        match name {
            "$dynamicRef" | "$recursiveRef" => {
                return refuse(at, format!("'{name}' is not supported; use '$ref'"));
            }
            "$id" | "id" if !pointer.is_empty() && value.is_string() => {
                return refuse(
                    at,
                    format!("'{name}' is only supported at the top of a schema; use '$defs' and '$ref'"),
                );
            }
            "$anchor" => {
                if let Value::String(anchor) = value {
                    self.anchors.insert(anchor, pointer.to_owned());
                }
            }
            "pattern" => self.patterns += 1,
            "patternProperties" => self.patterns += value.as_object().map_or(0, serde_json::Map::len),
            _ => {}
        }
        if self.patterns > MOST_PATTERNS {
            return refuse(at, format!("a schema has at most {MOST_PATTERNS} patterns"));
        }
        Ok(())
    }

    /// Follows the `$ref` of a part.
    fn reference(&mut self, index: usize) -> Result<(), Refusal> {
        let Some(Part { pointer, schema, .. }) = self.parts.get(index) else {
            return Ok(());
        };
        let at = pointer_to(pointer, "$ref");
        let Some(Value::String(reference)) = schema.get("$ref") else {
            return Ok(());
        };
        let target = match reference.strip_prefix('#') {
            Some("") => String::new(),
            Some(path) if path.starts_with('/') => unescaped(path),
            Some(anchor) => match self.anchors.get(anchor) {
                Some(pointer) => pointer.clone(),
                None => return refuse(&at, format!("there is no '$anchor' {}", quoted(anchor))),
            },
            None => {
                let message = format!(
                    "{} leads out of the schema, and nothing is fetched; write it under '$defs' and refer to '#/$defs/NAME'",
                    quoted(reference)
                );
                return refuse(&at, message);
            }
        };
        let Some(schema) = self.root.pointer(&target) else {
            return refuse(&at, format!("{} leads nowhere", quoted(reference)));
        };
        let before = self.parts.len();
        self.inside(index, Some(Edge::Same), target, schema)?;
        let mut next = before;
        while next < self.parts.len() {
            self.contents(next)?;
            next += 1;
        }
        Ok(())
    }

    /// Whether the schema needs a stack of its own. Refuses what looks at one place without an end.
    fn depth(&self) -> Result<bool, Refusal> {
        let mut chains = vec![Visit::Unseen; self.parts.len()];
        for part in 0..self.parts.len() {
            self.chain(part, 0, &mut chains)?;
        }
        let mut depths = vec![Visit::Unseen; self.parts.len()];
        let depth = self.nesting(0, &mut depths);
        Ok(depth.is_none_or(|depth| depth > SHALLOW))
    }

    /// Length of the longest chain from a part that stays at one place.
    fn chain(&self, index: usize, level: usize, seen: &mut [Visit]) -> Result<usize, Refusal> {
        let Some(part) = self.parts.get(index) else {
            return Ok(0);
        };
        match seen.get(index) {
            Some(Visit::Known(length)) => return Ok(*length),
            Some(Visit::Open) => {
                let message = "the schema refers to itself at the same place of the value, which never ends; let a \
                               property or an item come between";
                return refuse(&part.pointer, message);
            }
            _ => {}
        }
        if level >= LONGEST_CHAIN {
            let message = format!(
                "more than {LONGEST_CHAIN} subschemas look at one place of the value through each other"
            );
            return refuse(&part.pointer, message);
        }
        set(seen, index, Visit::Open);
        let mut longest = 0;
        for (edge, next) in &part.edges {
            if *edge == Edge::Same {
                longest = longest.max(self.chain(*next, level + 1, seen)?);
            }
        }
        if longest + 1 > LONGEST_CHAIN {
            let message = format!(
                "more than {LONGEST_CHAIN} subschemas look at one place of the value through each other"
            );
            return refuse(&part.pointer, message);
        }
        set(seen, index, Visit::Known(longest + 1));
        Ok(longest + 1)
    }

    /// How many subschemas there are from a part on. A part that is being counted counts as one.
    fn expanded(&self, index: usize, sizes: &mut [Option<u64>]) -> u64 {
        let Some(part) = self.parts.get(index) else {
            return 0;
        };
        if let Some(Some(size)) = sizes.get(index) {
            return *size;
        }
        let mut sum: u64 = 1;
        if let Some(slot) = sizes.get_mut(index) {
            *slot = Some(sum);
        }
        for (_, next) in &part.edges {
            sum = sum.saturating_add(self.expanded(*next, sizes));
        }
        if let Some(slot) = sizes.get_mut(index) {
            *slot = Some(sum);
        }
        sum
    }

    /// How deep checking nests; none if it depends on the value. Gives up beyond [`SHALLOW`], which bounds the recursion.
    fn nesting(&self, index: usize, seen: &mut [Visit]) -> Option<usize> {
        match seen.get(index) {
            Some(Visit::Known(depth)) => return Some(*depth),
            Some(Visit::Open) | None => return None,
            Some(Visit::Unseen) => {}
        }
        let open = seen.iter().filter(|visit| matches!(visit, Visit::Open)).count();
        if open > SHALLOW {
            return None;
        }
        set(seen, index, Visit::Open);
        let mut deepest = 0;
        for (_, next) in &self.parts.get(index)?.edges {
            deepest = deepest.max(self.nesting(*next, seen)?);
        }
        set(seen, index, Visit::Known(deepest + 1));
        Some(deepest + 1)
    }
}

/// How far a walk over the parts is.
#[derive(Clone, Copy)]
enum Visit {
    Unseen,
    Open,
    Known(usize),
}

fn set(seen: &mut [Visit], index: usize, visit: Visit) {
    if let Some(slot) = seen.get_mut(index) {
        *slot = visit;
    }
}

fn edge_of(name: &str) -> Option<Edge> {
    if SAME_PLACE.contains(&name) || SAME_PLACE_LISTS.contains(&name) {
        Some(Edge::Same)
    } else if BELOW.contains(&name) {
        Some(Edge::Below)
    } else {
        None
    }
}

/// A URI fragment without its percent signs.
fn unescaped(fragment: &str) -> String {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

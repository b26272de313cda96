//! Lays what was given over the defaults, key by key.

use std::path::Path;

use muster_api::names::suggestion;
use serde_json::{Map, Value};

use super::{Mistakes, file, related};

/// Keys that there were once, and what takes their place.
const GONE: [(&str, &str); 1] = [(
    "trust.services",
    "is gone, because one table says who is what: name workloads that are writers in trust.identities.writers, readers in \
     trust.identities.readers, admins in trust.identities.operators, and agents in trust.identities.agents",
)];

/// The defaults with what was laid over them so far.
pub(super) struct Overlay<'a> {
    defaults: &'a Value,
    merged: Value,
    secrets: &'a [&'static str],
    mistakes: &'a mut Mistakes,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(defaults: &'a Value, secrets: &'a [&'static str], mistakes: &'a mut Mistakes) -> Self {
        Self {
            defaults,
            merged: defaults.clone(),
            secrets,
            mistakes,
        }
    }

    pub(super) fn merged(self) -> Value {
        self.merged
    }

    /// Lays a file over; whether it could be read.
    pub(super) fn file(&mut self, path: &Path) -> bool {
        match file::read(path) {
            Ok(value) => {
                self.lay(value);
                true
            }
            Err(what) => {
                self.mistakes.add(format!("--config {}", path.display()), what);
                false
            }
        }
    }

    /// Lays one key over, given as text.
    pub(super) fn text(&mut self, key: &str, value: String) {
        let nested = key.rsplit('.').fold(Value::String(value), |inner, part| {
            Value::Object(Map::from_iter([(part.to_owned(), inner)]))
        });
        self.lay(nested);
    }

    fn lay(&mut self, given: Value) {
        let mut merged = std::mem::take(&mut self.merged);
        self.at("", Some(self.defaults), &mut merged, given);
        self.merged = merged;
    }

    /// Lays `given` over `slot`, whose default is `default`; it has none within a map or an absent option.
    fn at(&mut self, path: &str, default: Option<&Value>, slot: &mut Value, given: Value) {
        match (default, slot, given) {
            (Some(Value::Object(defaults)), Value::Object(slot), given) => match section(given) {
                Ok(given) => self.section(path, defaults, slot, given),
                Err(refused) => self.refuse(path, &refused, "a section"),
            },
            (None | Some(Value::Null), Value::Object(slot), Value::Object(given)) => {
                self.section(path, &Map::new(), slot, given);
            }
            // What may be here is known to the type alone.
            (None | Some(Value::Null), slot, given) => *slot = given,
            (Some(default), slot, given) => match same_kind(default, given) {
                Ok(value) => *slot = value,
                Err(refused) => self.refuse(path, &refused, kind(default)),
            },
        }
    }

    /// A section with no keys by default is a map: it takes any.
    fn section(
        &mut self,
        path: &str,
        defaults: &Map<String, Value>,
        slot: &mut Map<String, Value>,
        given: Map<String, Value>,
    ) {
        for (key, value) in given {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            let default = defaults.get(&key);
            if default.is_none() && !defaults.is_empty() {
                let gone = GONE.iter().find(|(gone, _)| *gone == path);
                let what = gone.map_or_else(|| unknown(&key, defaults), |(_, remedy)| (*remedy).to_owned());
                self.mistakes.add(path, what);
                continue;
            }
            let inner = slot
                .entry(key)
                .or_insert_with(|| default.cloned().unwrap_or_default());
            self.at(&path, default, inner, value);
        }
    }

    fn refuse(&mut self, path: &str, refused: &Value, wanted: &str) {
        let what = match refused {
            _ if self.secrets.iter().any(|secret| related(secret, path)) => format!("is not {wanted}"),
            Value::String(text) => format!("'{text}' is not {wanted}"),
            other => format!("{} where {wanted} is expected", kind(other)),
        };
        self.mistakes.add(path, what);
    }
}

fn unknown(key: &str, known: &Map<String, Value>) -> String {
    let known: Vec<&str> = known.keys().map(String::as_str).collect();
    let near = suggestion(key, known.iter().copied());
    if near.is_empty() {
        format!("unknown key; allowed here: {}", known.join(", "))
    } else {
        format!("unknown key{near}")
    }
}

/// A section, given as such or as JSON text; else what was given.
fn section(given: Value) -> Result<Map<String, Value>, Value> {
    match given {
        Value::Object(section) => Ok(section),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::Object(section)) => Ok(section),
            _ => Err(Value::String(text)),
        },
        other => Err(other),
    }
}

/// Reads `given` as what `default` is; text becomes a number, a truth value or a list. Else what was given.
fn same_kind(default: &Value, given: Value) -> Result<Value, Value> {
    match (default, given) {
        (Value::String(_), Value::Number(number)) => Ok(Value::String(number.to_string())),
        (Value::String(_), Value::Bool(truth)) => Ok(Value::String(truth.to_string())),
        (default, given) if kind(&given) == kind(default) => Ok(given),
        (default, Value::String(text)) => match serde_json::from_str::<Value>(&text) {
            Ok(parsed) if kind(&parsed) == kind(default) => Ok(parsed),
            _ => Err(Value::String(text)),
        },
        (_, given) => Err(given),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a section",
    }
}

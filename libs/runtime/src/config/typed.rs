//! Reads the typed configuration out of the merged values, past every value that its type refuses.
//!
//! What is refused is reported and put back to its default; where it has none (an element of a list, a key of a
//! map) it is taken out. The rest is read again, until all of it is taken.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::{Mistakes, related};

/// How many values are corrected; who has more mistakes than that reads the first ones.
const MOST: usize = 64;

/// The typed value, as far as it can be read; the mistakes say where it is not what was given.
pub(super) fn read<C: DeserializeOwned>(
    mut merged: Value,
    base: &Value,
    secrets: &[&str],
    mistakes: &mut Mistakes,
) -> Option<C> {
    let mut removed = Vec::new();
    for _ in 0..MOST {
        let error = match serde_path_to_error::deserialize::<_, C>(&merged) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let place = Place::of(error.path().iter(), &removed);
        if place.text_becomes_json(&mut merged, base) {
            continue;
        }
        // That a part is missing was caused here, when the part's own mistake was taken out.
        let caused = mistakes
            .iter()
            .any(|(key, _)| key != place.name && place.holds(key));
        if !caused {
            let what = if secrets.iter().any(|secret| related(secret, &place.name)) {
                "is refused by its type (the value is a secret and not shown)".to_owned()
            } else {
                error.into_inner().to_string()
            };
            mistakes.add(&*place.name, what);
        }
        if !place.repair(&mut merged, base, &mut removed) {
            return None;
        }
    }
    None
}

/// An element that was taken out of a list: the list's name and the element's index as given.
type Removed = (String, usize);

/// Where a value is refused.
struct Place {
    /// As people write it, with the indices that were given: `own.list[3]`.
    name: String,
    /// JSON pointer of what holds it, by the indices that are left.
    parent: String,
    /// Key or index in `parent`; nothing for the whole configuration.
    last: Option<Key>,
    /// Whether it lies in a list, where defaults do not correspond.
    listed: bool,
}

enum Key {
    Name(String),
    /// The index that is left, the list's name and the index that was given.
    Index(usize, String, usize),
}

impl Place {
    fn of<'a>(segments: impl Iterator<Item = &'a Segment>, removed: &[Removed]) -> Self {
        let mut place = Self {
            name: String::new(),
            parent: String::new(),
            last: None,
            listed: false,
        };
        for segment in segments {
            let key = match segment {
                Segment::Seq { index } => {
                    let given = given_index(*index, &place.name, removed);
                    Key::Index(*index, place.name.clone(), given)
                }
                Segment::Map { key } | Segment::Enum { variant: key } => Key::Name(key.clone()),
                Segment::Unknown => break,
            };
            place.descend(key);
        }
        place
    }

    fn descend(&mut self, key: Key) {
        self.parent = self.pointer();
        match &key {
            Key::Name(name) => {
                let dot = if self.name.is_empty() { "" } else { "." };
                self.name = format!("{}{dot}{name}", self.name);
            }
            Key::Index(_, _, given) => {
                self.name = format!("{}[{given}]", self.name);
                self.listed = true;
            }
        }
        self.last = Some(key);
    }

    fn pointer(&self) -> String {
        match &self.last {
            None => String::new(),
            Some(Key::Name(name)) => {
                format!("{}/{}", self.parent, name.replace('~', "~0").replace('/', "~1"))
            }
            Some(Key::Index(index, ..)) => format!("{}/{index}", self.parent),
        }
    }

    fn default<'a>(&self, base: &'a Value) -> Option<&'a Value> {
        if self.listed {
            None
        } else {
            base.pointer(&self.pointer())
        }
    }

    /// Whether `key` lies in this place.
    fn holds(&self, key: &str) -> bool {
        key.len() > self.name.len() && (self.name.is_empty() || related(key, &self.name))
    }

    /// Text where no default says what is wanted was refused as text: it may still be a number or a truth value.
    fn text_becomes_json(&self, merged: &mut Value, base: &Value) -> bool {
        if self.default(base).is_some_and(|default| !default.is_null()) {
            return false;
        }
        let Some(slot @ Value::String(_)) = merged.pointer_mut(&self.pointer()) else {
            return false;
        };
        let parsed = slot
            .as_str()
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        match parsed {
            Some(parsed) if !parsed.is_string() => {
                *slot = parsed;
                true
            }
            _ => false,
        }
    }

    /// Puts the default in, or takes the value out; whether that changed anything.
    fn repair(self, merged: &mut Value, base: &Value, removed: &mut Vec<Removed>) -> bool {
        if let Some(default) = self.default(base) {
            return match merged.pointer_mut(&self.pointer()) {
                Some(slot) if slot != default => {
                    *slot = default.clone();
                    true
                }
                _ => false,
            };
        }
        match (self.last, merged.pointer_mut(&self.parent)) {
            (Some(Key::Name(name)), Some(Value::Object(section))) => section.remove(&name).is_some(),
            (Some(Key::Index(index, list, given)), Some(Value::Array(elements)))
                if index < elements.len() =>
            {
                elements.remove(index);
                removed.push((list, given));
                removed.sort();
                true
            }
            _ => false,
        }
    }
}

/// The index before the elements in `removed` (ascending) were taken out of `list`.
fn given_index(index: usize, list: &str, removed: &[Removed]) -> usize {
    removed
        .iter()
        .filter(|(of, _)| of == list)
        .fold(index, |index, (_, gone)| index + usize::from(*gone <= index))
}

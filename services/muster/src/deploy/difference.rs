//! What differs between two objects, field by field, as a person reads it.
//!
//! Lists whose items have names (containers, ports, variables) are compared by name: one more in the middle is one line, and not a
//! change of everything behind it. What is in a Secret is never shown, only that it is another.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::plan::{Action, Change, essence};

const REDACTED: &str = "(redacted)";
/// Of a text, as much as fits on a line.
const MOST_LETTERS: usize = 160;

/// A field that differs; absent on one side where it is new or gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Such as `spec.template.spec.containers[service].image`.
    pub path: String,
    /// As it is.
    pub before: Option<Value>,
    /// As it would be.
    pub after: Option<Value>,
}

impl Field {
    fn line(&self) -> String {
        let side = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), short);
        format!("{}: {} → {}", self.path, side(&self.before), side(&self.after))
    }
}

/// The fields in which the object of a change differs; none where it comes or goes as a whole.
pub fn fields(change: &Change) -> Vec<Field> {
    let (Some(live), Some(next)) = (&change.live, &change.next) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    compare("", Some(&essence(live)), Some(&essence(next)), &mut found);
    if change.object.kind() == "Secret" {
        for field in &mut found {
            if field.path.starts_with("data") || field.path.starts_with("stringData") {
                field.before = field.before.as_ref().map(|_| REDACTED.into());
                field.after = field
                    .after
                    .as_ref()
                    .map(|_| format!("{REDACTED}, another").into());
            }
        }
    }
    found
}

/// The change for people: a line for the object, one for each field.
pub fn lines(change: &Change) -> Vec<String> {
    let sign = match change.action {
        Action::Create => '+',
        Action::Update => '~',
        Action::Replace => '±',
        Action::Prune => '-',
        Action::Keep => return Vec::new(),
    };
    let mut lines = vec![format!("{sign} {}", change.object.id())];
    lines.extend(fields(change).iter().map(|field| format!("    {}", field.line())));
    lines
}

/// The change for scripts.
pub fn told(change: &Change) -> Value {
    let id = change.object.id();
    let fields: Vec<Value> = fields(change)
        .into_iter()
        .map(|field| json!({"path": field.path, "before": field.before, "after": field.after}))
        .collect();
    json!({
        "group": id.group, "kind": id.kind, "namespace": id.namespace, "name": id.name,
        "action": change.action.name(), "fields": fields,
    })
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Field>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                compare(&path, before.get(key), after.get(key), found);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => compare_lists(path, before, after, found),
        _ => found.push(Field {
            path: path.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

fn compare_lists(path: &str, before: &[Value], after: &[Value], found: &mut Vec<Field>) {
    let named = by_name(before).zip(by_name(after));
    if let Some((before, after)) = named {
        let names: BTreeSet<&str> = before.iter().chain(&after).map(|(name, _)| *name).collect();
        for name in names {
            let find = |list: &[(&str, &Value)]| {
                list.iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| (*value).clone())
            };
            compare(
                &format!("{path}[{name}]"),
                find(&before).as_ref(),
                find(&after).as_ref(),
                found,
            );
        }
        return;
    }
    for index in 0..before.len().max(after.len()) {
        compare(
            &format!("{path}[{index}]"),
            before.get(index),
            after.get(index),
            found,
        );
    }
}

/// Items by their names, if each has one of its own.
fn by_name(items: &[Value]) -> Option<Vec<(&str, &Value)>> {
    let named: Option<Vec<_>> = items
        .iter()
        .map(|item| Some((item.as_object().and_then(name_of)?, item)))
        .collect();
    let named = named?;
    let distinct: BTreeSet<_> = named.iter().map(|(name, _)| *name).collect();
    (distinct.len() == named.len()).then_some(named)
}

fn name_of(item: &Map<String, Value>) -> Option<&str> {
    item.get("name")?.as_str()
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::String(text) if !text.is_empty() && !text.contains('\n') => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= MOST_LETTERS {
        return text;
    }
    text.chars().take(MOST_LETTERS).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::manifest::Object;

    fn changed(kind: &str, mut before: Value, mut after: Value) -> Vec<String> {
        for value in [&mut before, &mut after] {
            value["apiVersion"] = "v1".into();
            value["kind"] = kind.into();
            value["metadata"] = json!({"name": "x"});
        }
        let object = Object::new(after.clone()).unwrap();
        lines(&Change::of(object, Some(before), after))
    }

    #[test]
    fn fields_are_named_by_their_paths_and_items_by_their_names() {
        let lines = changed(
            "Deployment",
            json!({"spec": {"replicas": 3, "containers": [{"name": "b", "image": "b:1"}], "args": ["x"]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:2"}], "args": ["x", "y"]}}),
        );
        let expected = [
            "~ deployment/x",
            "    spec.args[1]: nothing → y",
            "    spec.containers[a]: nothing → {\"image\":\"a:1\",\"name\":\"a\"}",
            "    spec.containers[b].image: b:1 → b:2",
            "    spec.replicas: 3 → nothing",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_in_a_secret_is_not_shown() {
        let lines = changed(
            "Secret",
            json!({"data": {"password": "b2xk"}}),
            json!({"data": {"password": "bmV3", "more": "eA=="}}),
        );
        let text = lines.join("\n");
        assert!(
            text.contains("data.password: (redacted) → (redacted), another"),
            "{text}"
        );
        assert!(
            text.contains("data.more: nothing → (redacted), another"),
            "{text}"
        );
        for secret in ["b2xk", "bmV3", "eA=="] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

//! How a value differs from the one that was expected.

use serde_json::Value;

/// At most so many differences of one value are told.
const MOST: usize = 8;

/// Longest value that is told, in characters.
const LONGEST: usize = 120;

/// What of the actual value counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// What the expected value has; objects may have more fields.
    Part,
}

/// The differences, each with the pointer of its place; none if the values agree.
pub(super) fn differences(expected: &Value, actual: &Value, extent: Extent) -> Vec<String> {
    let mut found = Vec::new();
    compare(expected, actual, extent, "", &mut found);
    if found.len() > MOST {
        let more = found.len() - MOST;
        found.truncate(MOST);
        found.push(format!("and {more} more"));
    }
    found
}

/// A value for a message.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// Documents nest no deeper than the reader allows, and so does what they expect.
fn compare(expected: &Value, actual: &Value, extent: Extent, at: &str, found: &mut Vec<String>) {
    let place = if at.is_empty() {
        String::new()
    } else {
        format!("{at}: ")
    };
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(given)) => {
            for (name, value) in wanted {
                let at = crate::node::pointer_to(at, name);
                match given.get(name) {
                    Some(given) => compare(value, given, extent, &at, found),
                    None => found.push(format!("{at}: expected {}, but it is missing", shown(value))),
                }
            }
            if extent == Extent::Whole {
                for (name, value) in given.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
                    let at = crate::node::pointer_to(at, name);
                    found.push(format!("{at}: not expected, but it is {}", shown(value)));
                }
            }
        }
        (Value::Array(wanted), Value::Array(given)) => {
            for (index, (value, given)) in wanted.iter().zip(given).enumerate() {
                compare(value, given, extent, &format!("{at}/{index}"), found);
            }
            if wanted.len() != given.len() {
                found.push(format!(
                    "{place}expected {} items, but there are {}: {}",
                    wanted.len(),
                    given.len(),
                    shown(actual)
                ));
            }
        }
        _ if same(expected, actual) => {}
        _ => found.push(format!(
            "{place}expected {}, but it is {}",
            shown(expected),
            shown(actual)
        )),
    }
}

/// Numbers are the same if they are so in JSON, where 1 is 1.0.
fn same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Number(expected), Value::Number(actual)) => {
            expected == actual
                || expected
                    .as_f64()
                    .is_some_and(|number| Some(number) == actual.as_f64())
        }
        _ => expected == actual,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_name_their_place() {
        let expected = json!({"a": {"b": [1, 2]}, "c": 1.0, "d/e": true});
        let actual = json!({"a": {"b": [1, 3, 4]}, "c": 1, "x": null});
        assert_eq!(
            differences(&expected, &actual, Extent::Whole),
            [
                "/a/b/1: expected 2, but it is 3",
                "/a/b: expected 2 items, but there are 3: [1,3,4]",
                "/d~1e: expected true, but it is missing",
                "/x: not expected, but it is null",
            ]
        );
        assert_eq!(
            differences(&json!({"c": 1}), &actual, Extent::Part),
            Vec::<String>::new()
        );
        assert_eq!(
            differences(&json!(1), &json!("1"), Extent::Whole),
            ["expected 1, but it is \"1\""]
        );
        let many = json!((0..20).collect::<Vec<_>>());
        let other = json!((1..21).collect::<Vec<_>>());
        assert_eq!(
            differences(&many, &other, Extent::Whole).last().unwrap(),
            "and 12 more"
        );
    }
}

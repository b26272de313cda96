//! Names replaced in text, wherever they stand as a whole.

use serde_json::Value;

/// Replaces a name wherever it stands as a whole: `a-b` in `x.a-b.svc` and in `/ns/a-b/`, not in `a-bc`, `x-a-b` or `a-b-c`.
pub fn replace(value: &mut Value, old: &str, new: &str, found: &mut bool) {
    match value {
        Value::String(text) => {
            if let Some(replaced) = with_word_replaced(text, old, new) {
                *text = replaced;
                *found = true;
            }
        }
        Value::Array(items) => {
            for item in items {
                replace(item, old, new, found);
            }
        }
        Value::Object(map) => {
            for item in map.values_mut() {
                replace(item, old, new, found);
            }
        }
        _ => {}
    }
}

fn with_word_replaced(text: &str, old: &str, new: &str) -> Option<String> {
    let part_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let mut replaced = String::new();
    let mut copied = 0;
    for (start, _) in text.match_indices(old) {
        let end = start + old.len();
        let before = text[..start].chars().next_back();
        let after = text[end..].chars().next();
        if before.is_some_and(part_of_name) || after.is_some_and(part_of_name) {
            continue;
        }
        replaced.push_str(&text[copied..start]);
        replaced.push_str(new);
        copied = end;
    }
    (copied > 0).then(|| replaced + &text[copied..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_replaced_only_as_a_whole() {
        let replaced = |text: &str| with_word_replaced(text, "a-b", "c");
        assert_eq!(replaced("x.a-b.svc").as_deref(), Some("x.c.svc"));
        assert_eq!(replaced("/ns/a-b/sa/a-b").as_deref(), Some("/ns/c/sa/c"));
        for other in ["a-bc", "x-a-b", "a-b-c", "ab", ""] {
            assert_eq!(replaced(other), None, "{other}");
        }
    }
}

//! Data in YAML or JSON that are not a workflow, such as the documents that describe services: read under the same bounds.

use serde_json::Value;

use crate::node;
use crate::problem::Problems;

/// The value that the text holds.
///
/// # Errors
/// Why it is neither YAML nor JSON, or out of bounds: in words, with the line.
pub fn read(text: &str) -> Result<Value, String> {
    // JSON by its own reader: it is faster, and what describes a large service is larger than a workflow may be.
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    let mut problems = Problems::default();
    match node::read(text, "a value is needed", &mut problems) {
        Some(node) if !problems.has_errors() => Ok(node.to_value()),
        _ => {
            let first = (&problems).into_iter().next();
            Err(first.map_or_else(
                || "it is empty".to_owned(),
                |problem| format!("line {}: {}", problem.line, problem.message),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::read;

    #[test]
    fn yaml_and_json_are_read() {
        assert_eq!(read("a: [1, x]\n"), Ok(json!({"a": [1, "x"]})));
        assert_eq!(read(" {\"a\": null}"), Ok(json!({"a": null})));
        assert!(read("a: [1\nb: 2").unwrap_err().starts_with("line "));
    }
}

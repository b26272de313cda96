//! How many bytes messages, artifacts and tasks take: the measure of all bounds.
//!
//! It counts content as it is held, not as a binding encodes it (base64, JSON punctuation), so that the same message
//! is as large on every binding. Names and structure count a little, so that a million empty parts are not free.

use std::collections::HashMap;

use a2a::{Artifact, Message, Part, PartContent, Task};
use serde_json::Value;

/// What a value costs beside its content.
const STRUCTURE: usize = 16;

/// Size of a message.
pub(crate) fn message(message: &Message) -> usize {
    STRUCTURE + parts(&message.parts) + metadata(message.metadata.as_ref())
}

/// Size of an artifact.
pub(crate) fn artifact(artifact: &Artifact) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    STRUCTURE
        + text(&artifact.name)
        + text(&artifact.description)
        + parts(&artifact.parts)
        + metadata(artifact.metadata.as_ref())
}

/// Size of a task with its history and artifacts.
pub(crate) fn task(task: &Task) -> usize {
    STRUCTURE
        + task.id.len()
        + task.context_id.len()
        + task.status.message.as_ref().map_or(0, message)
        + task.history.iter().flatten().map(message).sum::<usize>()
        + task.artifacts.iter().flatten().map(artifact).sum::<usize>()
        + metadata(task.metadata.as_ref())
}

/// Size of metadata.
pub(crate) fn metadata(metadata: Option<&HashMap<String, Value>>) -> usize {
    metadata
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + json(value))
        .sum()
}

fn parts(parts: &[Part]) -> usize {
    parts.iter().map(part).sum()
}

fn part(part: &Part) -> usize {
    let content = match &part.content {
        PartContent::Text(text) | PartContent::Url(text) => text.len(),
        PartContent::Raw(bytes) => bytes.len(),
        PartContent::Data(data) => json(data),
    };
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    STRUCTURE + content + text(&part.filename) + text(&part.media_type) + metadata(part.metadata.as_ref())
}

/// Iterative, so that depth is no danger.
fn json(value: &Value) -> usize {
    let mut size = 0;
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        size += STRUCTURE;
        match value {
            Value::String(text) => size += text.len(),
            Value::Array(items) => pending.extend(items),
            Value::Object(fields) => {
                size += fields.keys().map(String::len).sum::<usize>();
                pending.extend(fields.values());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;
    use a2a::Role;
    use serde_json::json;

    #[test]
    fn content_counts_in_full_and_structure_a_little() {
        let of = |parts| message(&Message::new(Role::User, parts));
        assert!(of(vec![Part::raw(vec![0; 1000])]) >= 1000);
        assert!(of(vec![Part::data(json!({ "a": ["x".repeat(500), { "b": 1 }] }))]) >= 500);
        assert!(of(vec![Part::text(""); 100]) >= 1000);
    }
}

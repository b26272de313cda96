//! Reads a configuration file as JSON values, by its ending.

use std::path::Path;

use serde_json::Value;

/// The file's content: a section of sections.
pub(super) fn read(path: &Path) -> Result<Value, String> {
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    let value = match ending.to_ascii_lowercase().as_str() {
        "json" => json(path)?,
        "toml" | "yaml" | "yml" => toml_or_yaml(path)?,
        _ => return Err("the name must end in .toml, .yaml, .yml or .json".to_owned()),
    };
    if value.is_object() {
        Ok(value)
    } else {
        Err("must hold sections, such as server or telemetry".to_owned())
    }
}

fn json(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"))
}

fn toml_or_yaml(path: &Path) -> Result<Value, String> {
    config::Config::builder()
        .add_source(config::File::from(path))
        .build()
        .and_then(config::Config::try_deserialize::<Value>)
        .map_err(|error| without_excerpt(&error.to_string()))
}

/// A parser's message without the lines of the file that it quotes: they may hold a secret.
fn without_excerpt(message: &str) -> String {
    let lines: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains('|'))
        .collect();
    lines.join(": ")
}

//! Configuration: defaults < file < environment < flags, and every mistake reported at once.
//!
//! The defaults are a value of the typed configuration, so its serialized form knows every key. What is laid over
//! it is compared key by key with that form: an unknown key is reported with the nearest known one, a value of
//! another kind is reported and the default kept, so that the next mistake is found too. Only then is the typed
//! value read and its own rules asked ([`Settings::validate`]).
//!
//! Environment values are text; they are read as what the default at that key is. Rejected: deserializing at
//! once, which stops at the first mistake.

use std::fmt;
use std::path::Path;

use muster_api::names::suggestion;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{server, telemetry};

/// Prefix of the environment variables: `MUSTER__SECTION__KEY`.
const PREFIX: &str = "MUSTER__";

/// A typed configuration.
pub trait Settings: Serialize + DeserializeOwned + Default {
    /// The section `server`.
    fn server(&self) -> &server::Config;

    /// The section `telemetry`.
    fn telemetry(&self) -> &telemetry::Config;

    /// Adds what is wrong beyond types: ranges, forms, what does not go together.
    fn validate(&self, mistakes: &mut Mistakes);

    /// Paths of keys that are never printed.
    #[must_use]
    fn secrets() -> &'static [&'static str] {
        &[]
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    list: Vec<(String, String)>,
}

impl Mistakes {
    /// Adds a mistake at `key` (dotted path); `what` says what is wrong and what is allowed.
    pub fn add(&mut self, key: impl Into<String>, what: impl Into<String>) {
        self.list.push((key.into(), what.into()));
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Key and what is wrong, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|(key, what)| (key.as_str(), what.as_str()))
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("configuration: ")?;
        for (index, (key, what)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{key}: {what}")?;
        }
        Ok(())
    }
}

/// Reads a configuration: `defaults`, then `file` (TOML, YAML or JSON by its ending), then `environment`, then
/// `overrides` (`section.key`, value).
///
/// # Errors
///
/// All mistakes found.
pub fn load<C: Settings>(
    defaults: C,
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &[(String, String)],
) -> Result<C, Mistakes> {
    let config = read(defaults, file, environment, overrides)?;
    let mut mistakes = Mistakes::default();
    config.validate(&mut mistakes);
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(mistakes)
    }
}

/// Like [`load`] for any typed value, without rules of its own.
///
/// # Errors
///
/// All mistakes found.
pub fn read<C: Serialize + DeserializeOwned>(
    defaults: C,
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &[(String, String)],
) -> Result<C, Mistakes> {
    let mut mistakes = Mistakes::default();
    let base = match serde_json::to_value(&defaults) {
        Ok(base) => base,
        Err(error) => {
            mistakes.add("defaults", error.to_string());
            return Err(mistakes);
        }
    };
    let mut merged = base.clone();
    if let Some(overlay) = file.and_then(|path| read_file(path, &mut mistakes)) {
        lay_over(&mut merged, overlay, "", &mut mistakes);
    }
    for (name, value) in environment {
        if let Some(path) = name.strip_prefix(PREFIX) {
            let key = path.to_lowercase().replace("__", ".");
            lay_over(&mut merged, nested(&key, value), "", &mut mistakes);
        }
    }
    for (key, value) in overrides {
        lay_over(&mut merged, nested(key, value.clone()), "", &mut mistakes);
    }
    let typed = typed(merged, &base, &mut mistakes);
    match typed {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(mistakes),
    }
}

/// The configuration as JSON with secrets replaced.
#[must_use]
pub fn redacted<C: Settings>(config: &C) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or(Value::Null);
    for path in C::secrets() {
        let pointer = format!("/{}", path.replace('.', "/"));
        if let Some(secret) = value.pointer_mut(&pointer).filter(|secret| !secret.is_null()) {
            *secret = Value::String("(redacted)".to_owned());
        }
    }
    value
}

/// Splits `section.key=value`.
///
/// # Errors
///
/// Says what form is expected.
pub fn parse_override(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}': expected section.key=value")),
    }
}

fn read_file(path: &Path, mistakes: &mut Mistakes) -> Option<Value> {
    let source = config::File::from(path);
    let read = config::Config::builder()
        .add_source(source)
        .build()
        .and_then(config::Config::try_deserialize::<Value>);
    match read {
        Ok(value) => Some(value),
        Err(error) => {
            mistakes.add(
                format!("--config {}", path.display()),
                error.to_string().replace('\n', " "),
            );
            None
        }
    }
}

fn nested(key: &str, value: String) -> Value {
    key.rsplit('.').fold(Value::String(value), |inner, part| {
        let mut object = Map::new();
        object.insert(part.to_owned(), inner);
        Value::Object(object)
    })
}

fn lay_over(base: &mut Value, overlay: Value, path: &str, mistakes: &mut Mistakes) {
    match (base, overlay) {
        (Value::Object(base), Value::Object(overlay)) => {
            for (key, value) in overlay {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                if let Some(slot) = base.get_mut(&key) {
                    lay_over(slot, value, &path, mistakes);
                } else {
                    let known: Vec<&str> = base.keys().map(String::as_str).collect();
                    let near = suggestion(&key, known.iter().copied());
                    let near = if near.is_empty() {
                        format!("; allowed here: {}", known.join(", "))
                    } else {
                        near
                    };
                    mistakes.add(path, format!("unknown key{near}"));
                }
            }
        }
        (slot, value) => match same_kind(slot, value) {
            Ok(value) => *slot = value,
            Err(what) => mistakes.add(path, what),
        },
    }
}

/// Reads `given` as what `default` is; text from the environment or a flag becomes a number or a truth value.
fn same_kind(default: &Value, given: Value) -> Result<Value, String> {
    let wanted = kind(default);
    match (default, given) {
        (Value::Null, given) => Ok(given), // an absent option: its type is checked when the whole is read
        (Value::String(_), Value::Number(number)) => Ok(Value::String(number.to_string())),
        (Value::String(_), Value::Bool(truth)) => Ok(Value::String(truth.to_string())),
        (Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_), Value::String(text)) => {
            match serde_json::from_str::<Value>(&text) {
                Ok(parsed) if kind(&parsed) == wanted => Ok(parsed),
                _ => Err(format!("'{text}' is not {wanted}")),
            }
        }
        (default, given) if kind(&given) == kind(default) => Ok(given),
        (_, given) => Err(format!("{} where {wanted} is expected", kind(&given))),
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

/// Reads the typed value; a leaf that its type refuses is reported, put back to its default, and the rest read on.
fn typed<C: DeserializeOwned>(mut merged: Value, base: &Value, mistakes: &mut Mistakes) -> Option<C> {
    const MOST: usize = 64;
    for _ in 0..MOST {
        let error = match serde_path_to_error::deserialize::<_, C>(&merged) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let path = error.path().to_string();
        mistakes.add(path.clone(), error.into_inner().to_string());
        let pointer = format!("/{}", path.replace('.', "/"));
        let default = base.pointer(&pointer).cloned();
        match (merged.pointer_mut(&pointer), default) {
            (Some(slot), Some(default)) if *slot != default => *slot = default,
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        server: server::Config,
        telemetry: telemetry::Config,
        own: Own,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Own {
        name: String,
        size: u16,
        token: Option<String>,
    }

    impl Default for Own {
        fn default() -> Self {
            Self {
                name: "n".into(),
                size: 1,
                token: None,
            }
        }
    }

    impl Default for Example {
        fn default() -> Self {
            Self {
                server: server::Config::default(),
                telemetry: telemetry::Config::default(),
                own: Own::default(),
            }
        }
    }

    impl Settings for Example {
        fn server(&self) -> &server::Config {
            &self.server
        }
        fn telemetry(&self) -> &telemetry::Config {
            &self.telemetry
        }
        fn validate(&self, mistakes: &mut Mistakes) {
            self.server.validate(mistakes);
            if self.own.size == 0 {
                mistakes.add("own.size", "must be at least 1");
            }
        }
        fn secrets() -> &'static [&'static str] {
            &["own.token"]
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("muster.toml");
        std::fs::write(&file, "[own]\nname = 'file'\nsize = 2\n[server]\ndata_port = 1\n").unwrap();
        let environment = pairs(&[
            ("MUSTER__OWN__NAME", "environment"),
            ("MUSTER__SERVER__DATA_PORT", "2"),
            ("PATH", "x"),
        ]);
        let flags = pairs(&[("server.data_port", "3")]);
        let config: Example = load(Example::default(), Some(&file), environment.into_iter(), &flags).unwrap();
        assert_eq!(
            (config.own.name.as_str(), config.own.size, config.server.data_port),
            ("environment", 2, 3)
        );
    }

    #[test]
    fn all_mistakes_come_at_once_with_key_and_nearest_key() {
        let environment = pairs(&[
            ("MUSTER__OWN__SIZ", "1"),
            ("MUSTER__SERVER__HOST", "not an address"),
        ]);
        let flags = pairs(&[
            ("own.size", "many"),
            ("server.metrics_port", "70000"),
            ("elsewhere", "1"),
        ]);
        let mistakes =
            load::<Example>(Example::default(), None, environment.into_iter(), &flags).unwrap_err();
        let text = mistakes.to_string();
        for expected in [
            "own.siz: unknown key; did you mean 'size'?",
            "own.size: 'many' is not a number",
            "server.host:",
            "server.metrics_port:",
            "elsewhere: unknown key",
        ] {
            assert!(text.contains(expected), "{expected} is missing in: {text}");
        }
        assert!(!text.contains('\n'));
    }

    #[test]
    fn secrets_are_not_printed() {
        let flags = pairs(&[("own.token", "canary")]);
        let config: Example = load(Example::default(), None, std::iter::empty(), &flags).unwrap();
        assert_eq!(config.own.token.as_deref(), Some("canary"));
        assert!(!redacted(&config).to_string().contains("canary"));
    }

    #[test]
    fn a_missing_or_broken_file_is_named() {
        let missing = load::<Example>(
            Example::default(),
            Some(Path::new("/nowhere/x.toml")),
            std::iter::empty(),
            &[],
        );
        assert!(missing.unwrap_err().to_string().contains("/nowhere/x.toml"));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_without_a_panic(key in "[a-z_.]{0,20}", value in ".{0,20}") {
            let _outcome = load::<Example>(Example::default(), None, std::iter::empty(), &[(key, value)]);
        }
    }
}

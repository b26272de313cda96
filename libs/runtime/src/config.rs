//! Configuration: defaults < file < environment < flags, and every mistake reported at once.
//!
//! The defaults are a value of the typed configuration, so its serialized form knows every key. What is laid over
//! it is compared key by key with that form ([`overlay`]); then the typed value is read ([`typed`]); then its own
//! rules are asked ([`Settings::validate`]), with those of the sections that every service has. A mistake is
//! reported, the default put in its place and the reading goes on, so that the next one is found too. Rules are
//! silent about keys that have a mistake already: they would judge the default.
//!
//! Environment values and flags are text; they are read as what the default at that key is. Where the default does
//! not say it (an option that is absent, a key of a map), they are text first and JSON if the type refuses text.
//! Names in the environment are upper case, so they reach only keys in lower case.
//!
//! No mistake shows the value of a key in [`Settings::secrets`]. Rejected: deserializing at once, which stops at
//! the first mistake; the types' own error texts for secrets, which quote the value.

mod file;
mod overlay;
#[cfg(test)]
mod tests;
mod typed;

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{server, telemetry, trust};
use overlay::Overlay;

/// Keys that are secrets in every service.
const ALWAYS_SECRET: [&str; 1] = ["telemetry.otlp.headers"];

/// The keys of a configuration that are never printed.
fn secrets<C: Settings>() -> Vec<&'static str> {
    let own = C::secrets().iter().copied();
    own.chain(ALWAYS_SECRET).chain(trust::SECRETS).collect()
}

/// Prefix of the environment variables: `MUSTER__SECTION__KEY`.
pub(crate) const PREFIX: &str = "MUSTER__";

/// A typed configuration.
pub trait Settings: Serialize + DeserializeOwned + Default {
    /// The section `server`.
    fn server(&self) -> &server::Config;

    /// The section `telemetry`.
    fn telemetry(&self) -> &telemetry::Config;

    /// The section `trust`, where there is one.
    fn trust(&self) -> Option<&trust::Config> {
        None
    }

    /// Adds what is wrong beyond types: ranges, forms, what does not go together. [`load`] asks the sections
    /// above itself; to ask them here too does no harm, because the same mistake is listed once.
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
    /// Adds a mistake at `key` (dotted path); `what` says what is wrong and what is allowed. The same mistake is
    /// kept once, and on one line.
    pub fn add(&mut self, key: impl Into<String>, what: impl Into<String>) {
        let mistake = (key.into(), what.into().replace('\n', " "));
        if !self.list.contains(&mistake) {
            self.list.push(mistake);
        }
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
    load_beside(Mistakes::default(), defaults, file, environment, overrides)
}

/// [`load`], with the mistakes that were found before.
pub(crate) fn load_beside<C: Settings>(
    mut mistakes: Mistakes,
    defaults: C,
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &[(String, String)],
) -> Result<C, Mistakes> {
    let base = match serde_json::to_value(&defaults) {
        Ok(base) => base,
        Err(error) => {
            mistakes.add("defaults", error.to_string());
            return Err(mistakes);
        }
    };
    let secrets = secrets::<C>();
    let mut overlay = Overlay::new(&base, &secrets, &mut mistakes);
    let readable = file.is_none_or(|path| overlay.file(path));
    for (name, value) in environment {
        if let Some(path) = name.strip_prefix(PREFIX) {
            overlay.text(&path.to_lowercase().replace("__", "."), value);
        }
    }
    for (key, value) in overrides {
        overlay.text(key, value.clone());
    }
    let merged = overlay.merged();
    if let Some(config) = typed::read::<C>(merged, &base, &secrets, &mut mistakes) {
        // Without its file the rules would complain of what the file says.
        if readable {
            ask_rules(&config, &mut mistakes);
        }
        if mistakes.is_empty() {
            return Ok(config);
        }
    }
    Err(mistakes)
}

/// Adds what the rules refuse, at keys that have no mistake yet.
fn ask_rules<C: Settings>(config: &C, mistakes: &mut Mistakes) {
    let mut refused = Mistakes::default();
    config.server().validate(&mut refused);
    config.telemetry().validate(&mut refused);
    if let Some(trust) = config.trust() {
        trust.validate(config.server(), &mut refused);
    }
    config.validate(&mut refused);
    let known: Vec<String> = mistakes.iter().map(|(key, _)| key.to_owned()).collect();
    let secrets = secret_texts(config);
    for (key, what) in refused.iter() {
        if !known.iter().any(|known| related(known, key)) {
            mistakes.add(key, without_secrets(key, what, &secrets));
        }
    }
}

/// Path and text of every secret that is set.
fn secret_texts<C: Settings>(config: &C) -> Vec<(&'static str, String)> {
    let value = serde_json::to_value(config).unwrap_or(Value::Null);
    let text = |path: &'static str| match value.pointer(&pointer(path))? {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some((path, text.clone())),
        Value::Object(map) if map.is_empty() => None,
        other => Some((path, other.to_string())),
    };
    self::secrets::<C>().into_iter().filter_map(text).collect()
}

fn without_secrets(key: &str, what: &str, secrets: &[(&'static str, String)]) -> String {
    /// Shorter texts are parts of ordinary words; elsewhere than at their own key they say nothing.
    const TELLING: usize = 4;
    secrets
        .iter()
        .filter(|(path, text)| text.len() >= TELLING || related(path, key))
        .fold(what.to_owned(), |what, (_, text)| {
            what.replace(text, "(redacted)")
        })
}

/// Whether two paths are the same, or one lies within the other.
fn related(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    within(one, other) || within(other, one)
}

/// The JSON pointer of a dotted path.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

/// The configuration as JSON with secrets replaced.
#[must_use]
pub fn redacted<C: Settings>(config: &C) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or(Value::Null);
    for path in secrets::<C>() {
        let is_set = |secret: &Value| match secret {
            Value::Object(map) => !map.is_empty(),
            other => !other.is_null(),
        };
        if let Some(secret) = value.pointer_mut(&pointer(path)).filter(|secret| is_set(secret)) {
            *secret = Value::String("(redacted)".to_owned());
        }
    }
    value
}

/// Splits `section.key=value`.
///
/// # Errors
///
/// Says what form is expected. Only what can be a key is quoted: the rest may be a secret.
pub fn parse_override(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => {
            let not_key = |letter: char| !letter.is_ascii_alphanumeric() && !"._-".contains(letter);
            let key = text.split(not_key).next().unwrap_or_default();
            let more = if key.len() < text.len() { "…" } else { "" };
            Err(format!("'{key}{more}': expected section.key=value"))
        }
    }
}

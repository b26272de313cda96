//! What every service's section `redis` has: how a Redis is used. Where it is, says `redis_cluster_endpoint` beside the section.

use std::path::PathBuf;
use std::time::Duration;

use muster_runtime::Error;
use muster_runtime::config::Mistakes;
use serde::{Deserialize, Serialize};

use super::{Address, Connection, Options};

/// Longest prefix of keys: it is part of every key.
const LONGEST_PREFIX: usize = 64;

/// How a Redis is used. Sections that have more settings than these hold them beside their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A file of certificate authorities in PEM that certify Redis, in place of Mozilla's.
    pub certificate_authorities: Option<PathBuf>,
    /// What all keys start with; stores with different ones share a Redis.
    pub key_prefix: String,
    /// How long a command may take to be answered, in seconds; then the connection counts as broken.
    pub answer_within_seconds: u64,
    /// How long a command is tried again before what needs it is refused, in seconds. Callers wait meanwhile.
    pub patience_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let options = Options::default();
        Self {
            certificate_authorities: None,
            key_prefix: "muster".to_owned(),
            answer_within_seconds: options.answer_within.as_secs(),
            patience_seconds: options.patience.as_secs(),
        }
    }
}

impl Settings {
    /// Limits of time of the connection.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            answer_within: Duration::from_secs(self.answer_within_seconds),
            patience: Duration::from_secs(self.patience_seconds),
            ..Options::default()
        }
    }

    /// Adds what is wrong with the settings below `section`, such as `registry`, and with its `redis_cluster_endpoint`.
    pub fn validate(&self, section: &str, endpoint: Option<&str>, mistakes: &mut Mistakes) {
        match endpoint.map(str::parse::<Address>) {
            Some(Err(error)) => mistakes.add(endpoint_key(section), error.to_string()),
            Some(Ok(address)) if self.certificate_authorities.is_some() && !address.is_tls() => {
                mistakes.add(
                    format!("{section}.redis.certificate_authorities"),
                    format!(
                        "is of no use without TLS: write rediss in place of redis in {}",
                        endpoint_key(section)
                    ),
                );
            }
            Some(Ok(_)) | None => {}
        }
        // Braces would be hash tags, and take keys out of their slots.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        let prefix = &self.key_prefix;
        if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(plain) {
            mistakes.add(
                format!("{section}.redis.key_prefix"),
                format!("must be 1 to {LONGEST_PREFIX} letters, digits, '-', '_', '.' or ':'"),
            );
        }
        within(
            section,
            "answer_within_seconds",
            self.answer_within_seconds,
            1..=60,
            mistakes,
        );
        within(
            section,
            "patience_seconds",
            self.patience_seconds,
            1..=600,
            mistakes,
        );
    }

    /// A connection to the Redis that the section's `redis_cluster_endpoint` names. Nothing is sent yet.
    ///
    /// # Errors
    /// The endpoint is no URL, or the file of authorities cannot be read; by the settings' keys.
    pub async fn connect(&self, section: &str, endpoint: &str) -> Result<Connection, Error> {
        let mut address: Address = endpoint
            .parse()
            .map_err(|error| Error::Other(format!("{}: {error}", endpoint_key(section))))?;
        if let Some(path) = self.certificate_authorities.clone() {
            let wrong = |what: &dyn std::fmt::Display| {
                let path = path.display();
                Error::Other(format!("{section}.redis.certificate_authorities: {path}: {what}"))
            };
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || std::fs::read(file));
            let authorities = read.await.map_err(|error| wrong(&error))?;
            address = address.with_authorities(authorities.map_err(|error| wrong(&error))?);
        }
        Ok(Connection::new(address, self.options()))
    }
}

/// The key of the setting that says where Redis is, such as `registry.redis_cluster_endpoint`.
#[must_use]
pub fn endpoint_key(section: &str) -> String {
    format!("{section}.redis_cluster_endpoint")
}

/// Adds a mistake where a number of a section `redis` is not in its range.
pub fn within(
    section: &str,
    key: &str,
    value: u64,
    range: std::ops::RangeInclusive<u64>,
    mistakes: &mut Mistakes,
) {
    if !range.contains(&value) {
        let (least, most) = range.into_inner();
        mistakes.add(
            format!("{section}.redis.{key}"),
            format!("is {value}, must be from {least} to {most}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let bad = Settings {
            certificate_authorities: Some("ca.pem".into()),
            key_prefix: "a{b}".into(),
            answer_within_seconds: 0,
            patience_seconds: 601,
        };
        let keys = |settings: &Settings, endpoint: Option<&str>| {
            let mut mistakes = Mistakes::default();
            settings.validate("some", endpoint, &mut mistakes);
            mistakes.iter().map(|(key, _)| key.to_owned()).collect::<Vec<_>>()
        };
        let rest = [
            "some.redis.key_prefix",
            "some.redis.answer_within_seconds",
            "some.redis.patience_seconds",
        ];
        let told = keys(&bad, Some("redis://localhost"));
        assert_eq!(
            (told[0].as_str(), told.len()),
            ("some.redis.certificate_authorities", 4)
        );
        assert_eq!(told[1..], rest);
        let told = keys(&bad, Some("localhost:6379"));
        assert_eq!(
            (told[0].as_str(), &told[1..]),
            ("some.redis_cluster_endpoint", &rest.map(str::to_owned)[..])
        );
        let none: [&str; 0] = [];
        assert_eq!(keys(&Settings::default(), Some("redis+cluster://a,b")), none);
    }
}

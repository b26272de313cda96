//! The section `telemetry`: structured logs, for people on a terminal and as JSON otherwise.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::config::Mistakes;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people when standard error is a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The section `telemetry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `TRACE`, `DEBUG`, `INFO`, `WARN` or `ERROR`, or a filter such as `info,muster_router=debug`.
    pub log_level: String,
    /// How logs are written.
    pub log_format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_level: "INFO".to_owned(),
            log_format: Format::Auto,
        }
    }
}

impl Config {
    /// Adds what is wrong.
    pub fn validate(&self, mistakes: &mut Mistakes) {
        if let Err(error) = EnvFilter::try_new(&self.log_level) {
            mistakes.add(
                "telemetry.log_level",
                format!(
                    "'{}': {error}; allowed: TRACE, DEBUG, INFO, WARN, ERROR, or a filter",
                    self.log_level
                ),
            );
        }
    }
}

/// Starts the logs of this process, on standard error. The first call wins: several services share one process.
pub fn init(config: &Config) {
    // An invalid filter was refused by `validate`; a caller that skipped it gets INFO.
    let filter = EnvFilter::try_new(&config.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let human = match config.log_format {
        Format::Human => true,
        Format::Json => false,
        Format::Auto => std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let outcome = if human {
        builder.with_target(false).try_init()
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .try_init()
    };
    if outcome.is_err() {
        tracing::debug!("logs were started before");
    }
}

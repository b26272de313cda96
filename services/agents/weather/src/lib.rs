//! The weather agent: what the weather was, is usually like, and what to make of it, for the cities of its sources.
//!
//! The only source today is an archive that ships inside the binary ([`archive`]). Days that it covers are answered
//! from observations, others from the climate of the same days ([`climate`]); every answer says which, who measured,
//! and how old the data is. Nothing is invented: a city that no source knows is refused with those that are known.
//!
//! Decisions are pure functions of days ([`alert`], [`advice`], [`statistics`]); [`question`] reads what is asked,
//! [`agent`] brings both together.

pub mod advice;
pub mod agent;
pub mod alert;
mod answer;
pub mod archive;
mod city;
pub mod climate;
pub mod day;
pub mod period;
pub mod question;
pub mod source;
pub mod statistics;

use std::sync::Arc;

use muster_agent_sdk::Section;
use muster_runtime::clock::SystemClock;
use muster_runtime::config::Mistakes;
use muster_runtime::{Error, Listeners, Shutdown};
use serde::{Deserialize, Serialize};

use crate::agent::Weather;
use crate::alert::Thresholds;
use crate::archive::Archive;

/// Configuration of the agent's process.
pub type Config = muster_agent_sdk::Config<WeatherSettings>;

/// The agent's own section.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeatherSettings {
    /// From where on a value is worth an alert; the precipitation also makes a day rainy.
    pub thresholds: Thresholds,
}

impl Section for WeatherSettings {
    fn validate(&self, mistakes: &mut Mistakes) {
        if let Err(failure) = self.thresholds.check("settings.thresholds") {
            let field = failure.field().unwrap_or("settings.thresholds").to_owned();
            mistakes.add(field, failure.to_string());
        }
    }
}

/// The defaults on one machine.
#[must_use]
pub fn config() -> Config {
    Config::on_ports(7411, 7511, 7611)
}

/// Serves the agent until shutdown is requested.
pub async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
    muster_agent_sdk::run(config, listeners, shutdown, |settings| {
        Ok(Weather::new(
            Archive,
            settings.thresholds,
            Arc::new(SystemClock::default()),
        ))
    })
    .await
}

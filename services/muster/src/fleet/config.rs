//! The configuration of the whole fleet: each service's own section, side by side.

use std::path::Path;
use std::sync::LazyLock;

use muster_runtime::config::{self, Mistakes, Settings};
use muster_runtime::{server, telemetry, trust};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Sections as the single services name them; ports and addresses between them are the fleet's own business.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Logs.
    pub telemetry: telemetry::Config,
    /// Who is let in: tokens and the audit log. Agents let in whoever reaches the loopback, because nothing but the router is to
    /// call them.
    pub trust: trust::Config,
    /// Bounds of every service's data port; the ports in it are not used.
    pub server: server::Config,
    /// The registry.
    pub registry: muster_registry::Settings,
    /// The router.
    pub router: muster_router::config::Router,
    /// The workflow engine.
    pub engine: muster_workflow_engine::config::Engine,
    /// What every agent is told.
    pub agent: muster_agent_sdk::AgentConfig,
    /// Where the agents find their knowledge and rules.
    pub agents: Agents,
}

/// What single agents are told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agents {
    /// The weather agent.
    pub weather: muster_agent_weather::WeatherSettings,
    /// The planning agent.
    pub planning: muster_agent_planning::Settings,
    /// The customer service agent.
    pub customer_service: muster_agent_customer_service::Settings,
    /// The security monitor.
    pub security_monitor: muster_agent_security_monitor::Settings,
}

impl Settings for Config {
    fn server(&self) -> &server::Config {
        &self.server
    }

    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }

    fn trust(&self) -> Option<&trust::Config> {
        Some(&self.trust)
    }

    fn secrets() -> &'static [&'static str] {
        static ALL: LazyLock<Vec<&str>> = LazyLock::new(|| {
            [
                muster_registry::Config::secrets(),
                muster_router::Config::secrets(),
                muster_workflow_engine::Config::secrets(),
                &["agent.redis_cluster_endpoint"],
            ]
            .concat()
        });
        &ALL
    }

    // Each service asks its own rules when it starts; here only what they share.
    fn validate(&self, mistakes: &mut Mistakes) {
        self.telemetry.validate(mistakes);
        self.server.validate(mistakes);
        self.trust.validate(&self.server, mistakes);
        let tokens = &self.trust.tokens;
        if tokens.required && !tokens.has_identity() {
            mistakes.add(
                "trust.tokens.service_token_file",
                "is needed where tokens are required, for the services to call each other: `muster token issue --role service`, \
                 or set trust.tokens.jwt_secret_key_file",
            );
        }
        if !self.server.host.is_loopback() {
            mistakes.add(
                "server.host",
                "one process on one machine listens on loopback; run the services apart for more",
            );
        }
    }
}

impl Config {
    /// Defaults < file < environment < `overrides` (`section.key=value`).
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Self, Failure> {
        let pairs: Result<Vec<_>, _> = overrides
            .iter()
            .map(|text| config::parse_override(text))
            .collect();
        let pairs = pairs.map_err(|what| Failure::usage(format!("--set: {what}")))?;
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        config::load(Self::on_a_laptop(), file, environment, &pairs)
            .map_err(|mistakes| Failure::usage(mistakes.to_string()))
    }

    /// The defaults, with this machine itself within reach of workflows: what they call is developed here.
    fn on_a_laptop() -> Self {
        let mut config = Self::default();
        let here = ["localhost", "127.0.0.0/8", "::1"].map(str::to_owned);
        config.agent.outbound.allow.extend(here.clone());
        config.registry.outbound.allow.extend(here.clone());
        config.router.outbound.allow.extend(here.clone());
        config.engine.outbound.allow.extend(here);
        config
    }

    /// The configuration for people to read, secrets replaced.
    pub fn printed(&self) -> Result<String, Failure> {
        serde_json::to_string_pretty(&config::redacted(self))
            .map_err(|error| Failure::failed(error.to_string()))
    }

    /// Starts the process's logs.
    pub fn start_telemetry(&self) {
        telemetry::init(&self.telemetry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secrets_of_each_service_are_secrets_here() {
        let own = Config::secrets();
        let agents = muster_agent_sdk::Config::<muster_agent_sdk::NoSettings>::secrets();
        for secret in muster_workflow_engine::Config::secrets().iter().chain(agents) {
            assert!(own.contains(secret), "{secret}");
        }
    }
}

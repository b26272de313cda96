//! The members of the fleet: names, ports, and how each is run.

use std::path::PathBuf;
use std::pin::Pin;

use muster_agent_sdk::{Config as AgentConfig, Section};
use muster_runtime::config::Mistakes;
use muster_runtime::{Error, Listeners, Shutdown, server, trust};

use super::Config;
use crate::cli::Ports;
use crate::connect::{self, Endpoints};
use crate::trust::certs;

type Run = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// What the members are built from.
pub struct Settings {
    /// The fleet's configuration.
    pub config: Config,
    /// Where each stateful service has a directory of its own.
    pub directory: PathBuf,
    /// Where they find each other.
    pub endpoints: Endpoints,
    /// Where their certificates are, if they have any.
    pub certificates: Option<PathBuf>,
}

impl Settings {
    /// How one of them is to trust the others.
    fn trust(&self, name: &str) -> trust::Config {
        let configured = self.config.trust.clone();
        let Some(directory) = &self.certificates else {
            return configured;
        };
        let certified = connect::trust_of(directory, name, certs::TRUST_DOMAIN, certs::NAMESPACE);
        trust::Config {
            identities: configured.identities,
            tokens: configured.tokens,
            audit: configured.audit,
            ..certified
        }
    }
}

/// One service of the fleet.
pub struct Member {
    /// Its name, as in the documentation's table of ports.
    pub name: &'static str,
    /// Whether it is an agent.
    pub is_agent: bool,
    /// Data, health and metrics port.
    ports: [u16; 3],
    /// Starts it.
    pub run: fn(&Settings, Listeners, Shutdown) -> Run,
}

/// All of them, in the order in which they come up.
pub const MEMBERS: &[Member] = &[
    Member {
        name: "registry",
        is_agent: false,
        ports: [7401, 7501, 7601],
        run: registry,
    },
    Member {
        name: "router",
        is_agent: false,
        ports: [7402, 7502, 7602],
        run: router,
    },
    Member {
        name: "workflow-engine",
        is_agent: false,
        ports: [7403, 7503, 7603],
        run: engine,
    },
    Member {
        name: "weather",
        is_agent: true,
        ports: [7411, 7511, 7611],
        run: weather,
    },
    Member {
        name: "planning",
        is_agent: true,
        ports: [7412, 7512, 7612],
        run: planning,
    },
    Member {
        name: "customer-service",
        is_agent: true,
        ports: [7413, 7513, 7613],
        run: customer_service,
    },
    Member {
        name: "data-analysis",
        is_agent: true,
        ports: [7414, 7514, 7614],
        run: data_analysis,
    },
    Member {
        name: "security-monitor",
        is_agent: true,
        ports: [7415, 7515, 7615],
        run: security_monitor,
    },
];

impl Member {
    /// Binds its ports.
    pub fn bind(&self, ports: Ports) -> Result<Listeners, Error> {
        match ports {
            Ports::Any => Listeners::ephemeral(),
            Ports::Default => {
                let [data, health, metrics] = self.ports;
                Listeners::bind(&server::Config::on_ports(data, health, metrics))
            }
        }
    }
}

/// A service's configuration with the shared bounds of the fleet, refused when its own rules refuse it.
fn checked<C: muster_runtime::config::Settings>(config: C) -> Result<C, Error> {
    let mut mistakes = Mistakes::default();
    config.validate(&mut mistakes);
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(Error::Config(mistakes))
    }
}

fn registry(settings: &Settings, listeners: Listeners, shutdown: Shutdown) -> Run {
    let mut config = muster_registry::Config {
        server: settings.config.server.clone(),
        telemetry: settings.config.telemetry.clone(),
        trust: settings.trust("registry"),
        registry: settings.config.registry.clone(),
    };
    config.registry.data_directory = settings.directory.join("registry");
    Box::pin(async move { muster_registry::run(checked(config)?, listeners, shutdown).await })
}

fn router(settings: &Settings, listeners: Listeners, shutdown: Shutdown) -> Run {
    let mut config = muster_router::Config {
        server: settings.config.server.clone(),
        telemetry: settings.config.telemetry.clone(),
        trust: settings.trust("router"),
        router: settings.config.router.clone(),
    };
    config
        .router
        .registry_url
        .clone_from(&settings.endpoints.registry);
    config.router.data_directory = settings.directory.join("router");
    Box::pin(async move { muster_router::run(checked(config)?, listeners, shutdown).await })
}

fn engine(settings: &Settings, listeners: Listeners, shutdown: Shutdown) -> Run {
    let mut config = muster_workflow_engine::Config {
        server: settings.config.server.clone(),
        telemetry: settings.config.telemetry.clone(),
        trust: settings.trust("workflow-engine"),
        engine: settings.config.engine.clone(),
    };
    config.engine.router_url.clone_from(&settings.endpoints.router);
    config.engine.data_directory = settings.directory.join("workflow-engine");
    Box::pin(async move { muster_workflow_engine::run(checked(config)?, listeners, shutdown).await })
}

fn agent<S: Section + Clone>(settings: &Settings, name: &str, own: &S) -> Result<AgentConfig<S>, Error> {
    let mut agent = settings.config.agent.clone();
    agent.registry_url.clone_from(&settings.endpoints.registry);
    agent.data_directory = settings.directory.join("agents");
    let mut trust = settings.trust(name);
    trust.tokens.required = false;
    checked(AgentConfig {
        server: settings.config.server.clone(),
        telemetry: settings.config.telemetry.clone(),
        trust,
        agent,
        settings: own.clone(),
    })
}

fn weather(settings: &Settings, listeners: Listeners, shutdown: Shutdown) -> Run {
    let config = agent(settings, "weather", &settings.config.agents.weather);
    Box::pin(async move { muster_agent_weather::run(config?, listeners, shutdown).await })
}

fn planning(settings: &Settings, listeners: Listeners, shutdown: Shutdown) -> Run {
    let config = agent(settings, "planning", &settings.config.agents.planning);
    Box::pin(async move { muster_agent_planning::run(config?, listeners, shutdown).await })
}

fn customer_service(settings: &Settings, listeners: Listeners, shutdown: Shutdown) -> Run {
    let config = agent(
        settings,
        "customer-service",
        &settings.config.agents.customer_service,
    );
    Box::pin(async move { muster_agent_customer_service::run(config?, listeners, shutdown).await })
}

fn data_analysis(settings: &Settings, listeners: Listeners, shutdown: Shutdown) -> Run {
    let config = agent(
        settings,
        "data-analysis",
        &muster_agent_sdk::NoSettings::default(),
    );
    Box::pin(async move { muster_agent_data_analysis::run(config?, listeners, shutdown).await })
}

fn security_monitor(settings: &Settings, listeners: Listeners, shutdown: Shutdown) -> Run {
    let config = agent(
        settings,
        "security-monitor",
        &settings.config.agents.security_monitor,
    );
    Box::pin(async move { muster_agent_security_monitor::run(config?, listeners, shutdown).await })
}

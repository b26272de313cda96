//! What is tested: agents of the SDK, called directly or through a router in front of them. All of it runs in this process
//! and is reached over sockets only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use muster_agent_sdk::{Config, NoSettings};
use muster_api::registry::RegisterByCardRequest;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_runtime::{Error, Listeners, Shutdown, server, trust};
use muster_testkit::wait_for;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use crate::driver::{Binding, Driver, PATIENCE, Response, get};
use crate::guarded::Guarded;
use crate::puppet::{Persona, Puppet, Signals};
use crate::stranger::{STRANGER, Stranger};

/// Where a card is, below an agent's place.
pub const CARD: &str = "/.well-known/agent-card.json";

/// Who has to keep to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// An agent of the SDK.
    Agent,
    /// The router in front of it, which calls it over this binding.
    Router(Binding),
}

/// A running subject, and how to reach it over one binding.
pub struct Bench {
    pub subject: Subject,
    pub binding: Binding,
    pub signals: Arc<Signals>,
    agents: BTreeMap<Persona, SocketAddr>,
    router: Option<SocketAddr>,
    stranger: Option<Stranger>,
    guarded: OnceCell<Guarded>,
    _running: Running,
}

/// What runs in this process. Dropping it stops it.
pub type Running = JoinSet<Result<(), Error>>;

impl Bench {
    /// Starts everything and waits until it answers.
    pub async fn start(subject: Subject, binding: Binding) -> Self {
        let mut running = Running::new();
        let signals = Arc::new(Signals::default());
        let registry = matches!(subject, Subject::Router(_)).then(|| registry(&mut running));
        let agents: BTreeMap<Persona, SocketAddr> = Persona::ALL
            .into_iter()
            .map(|persona| (persona, agent(persona, &signals, &mut running, |_| ())))
            .collect();
        let mut bench = Self {
            subject,
            binding,
            signals,
            agents,
            router: registry.map(|registry| router(registry, &mut running, |_| ())),
            stranger: None,
            guarded: OnceCell::new(),
            _running: running,
        };
        if let (Subject::Router(upstream), Some(registry)) = (subject, registry) {
            for (persona, address) in &bench.agents {
                join(registry, persona.id(), *address, upstream).await;
            }
            let stranger = Stranger::start(upstream).await;
            join(registry, STRANGER, stranger.card_address, upstream).await;
            bench.stranger = Some(stranger);
        }
        for place in Persona::ALL.map(Persona::id).into_iter().chain(bench.stranger()) {
            let (address, path) = bench.card_place(place);
            served(address, &path).await;
        }
        bench
    }

    /// A client of the agent with every capability.
    pub async fn driver(&self) -> Driver {
        self.driver_of(Persona::Whole).await
    }

    /// A client of one of the agents.
    pub async fn driver_of(&self, persona: Persona) -> Driver {
        self.driver_to(persona.id(), self.binding).await
    }

    /// A client of the same agent over another binding.
    pub async fn driver_over(&self, binding: Binding) -> Driver {
        self.driver_to(Persona::Whole.id(), binding).await
    }

    /// The same where callers are told apart; started when it is asked for.
    pub async fn guarded(&self) -> &Guarded {
        self.guarded
            .get_or_init(|| Guarded::start(self.subject, self.binding))
            .await
    }

    /// A client of the agent that is none of ours; there is one behind a router only.
    pub async fn stranger_driver(&self) -> Option<Driver> {
        self.stranger.as_ref()?;
        Some(self.driver_to(STRANGER, self.binding).await)
    }

    async fn driver_to(&self, id: &str, binding: Binding) -> Driver {
        let (address, path) = self.card_place(id);
        let card = get(address, &path, &[]).await.json();
        let base = match self.subject {
            Subject::Agent => String::new(),
            Subject::Router(_) => format!("/{id}"),
        };
        Driver::of_card(binding, &card, address, &base)
    }

    /// What an agent's card is below.
    pub fn url(&self, persona: Persona) -> String {
        match self.router {
            Some(router) => format!("http://{router}/{}", persona.id()),
            None => format!("http://{}", self.agents[&persona]),
        }
    }

    /// An agent's card as it is served.
    pub async fn card(&self, persona: Persona, headers: &[(&str, &str)]) -> Response {
        let (address, path) = self.card_place(persona.id());
        get(address, &path, headers).await
    }

    /// An agent's card.
    pub async fn card_json(&self, persona: Persona) -> Value {
        self.card(persona, &[]).await.json()
    }

    fn stranger(&self) -> Option<&'static str> {
        self.stranger.as_ref().map(|_| STRANGER)
    }

    fn card_place(&self, id: &str) -> (SocketAddr, String) {
        match self.router {
            Some(router) => (router, format!("/{id}{CARD}")),
            None => {
                let found = self.agents.iter().find(|(persona, _)| persona.id() == id);
                (*found.expect("one of ours").1, CARD.to_owned())
            }
        }
    }
}

/// Starts a registry; where.
pub fn registry(running: &mut Running) -> SocketAddr {
    let mut config = muster_registry::Config {
        server: server::Config::on_ports(0, 0, 0),
        ..Default::default()
    };
    config.registry.outbound.allow = vec!["127.0.0.0/8".to_owned()];
    let listeners = Listeners::ephemeral().expect("free ports");
    let address = listeners.data_address();
    running.spawn(muster_registry::run(config, listeners, Shutdown::new()));
    address
}

/// Starts an agent; where.
pub fn agent(
    persona: Persona,
    signals: &Arc<Signals>,
    running: &mut Running,
    configure: impl FnOnce(&mut trust::Config),
) -> SocketAddr {
    let mut config = Config::<NoSettings>::on_ports(0, 0, 0);
    // It is registered by its card, so that the binding can be chosen; the SDK serves without a registry.
    config.agent.registry_url = "http://127.0.0.1:1".to_owned();
    // All cases run at once, and each holds some.
    config.agent.max_concurrent_tasks = 1_000;
    config.agent.data_directory = PathBuf::new();
    config.agent.outbound.allow = match persona {
        Persona::Whole | Persona::Strict => vec!["127.0.0.0/8".to_owned()],
        Persona::Plain => Vec::new(),
    };
    configure(&mut config.trust);
    let puppet = Puppet {
        persona,
        signals: Arc::clone(signals),
    };
    let listeners = Listeners::ephemeral().expect("free ports");
    let address = listeners.data_address();
    running.spawn(muster_agent_sdk::run(
        config,
        listeners,
        Shutdown::new(),
        |_: &NoSettings| Ok(puppet),
    ));
    address
}

/// Starts a router; where.
pub fn router(
    registry: SocketAddr,
    running: &mut Running,
    configure: impl FnOnce(&mut trust::Config),
) -> SocketAddr {
    let mut config = muster_router::Config::default();
    config.router.data_directory = PathBuf::new();
    config.router.registry_url = format!("http://{registry}");
    config.router.outbound.allow = vec!["127.0.0.0/8".to_owned()];
    configure(&mut config.trust);
    let listeners = Listeners::ephemeral().expect("free ports");
    let address = listeners.data_address();
    running.spawn(muster_router::run(config, listeners, Shutdown::new()));
    address
}

/// Registers the agent whose card is at an address, to be called over a binding.
pub async fn join(registry: SocketAddr, id: &str, address: SocketAddr, binding: Binding) {
    let request = RegisterByCardRequest {
        card_url: format!("http://{address}"),
        agent_id: id.to_owned(),
        binding: binding.name().to_owned(),
        ..Default::default()
    };
    wait_for(&format!("{id} to be registered"), PATIENCE, async || {
        let mut client = RegistryServiceClient::connect(format!("http://{registry}"))
            .await
            .map_err(|error| error.to_string())?;
        let registered = client.register_by_card(request.clone()).await;
        registered.map_err(|status| status.message().to_owned())
    })
    .await;
}

/// Waits until a card is there.
pub async fn served(address: SocketAddr, path: &str) {
    wait_for(&format!("{path} to be there"), PATIENCE, async || {
        let answer = muster_testkit::http::get(address, path).await;
        answer.is_ok_and(|answer| answer.status.is_success())
    })
    .await;
}

//! What `why` says of calls through a real router, over a registry with agents that are spelt otherwise, or broken.

use std::net::SocketAddr;
use std::path::PathBuf;

use muster_api::registry::RegisterRequest;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_runtime::{Listeners, Shutdown, server};
use muster_testkit::{FakeAgent, wait_for};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use crate::harness::{Engine, PATIENCE, document, send};
use crate::why::details;

/// A registry, a router that may know it, and an engine that calls through the router.
struct Fleet {
    engine: Engine,
    registry: SocketAddr,
    _services: JoinSet<Result<(), muster_runtime::Error>>,
}

impl Fleet {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut muster_router::Config)) -> Self {
        let mut services = JoinSet::new();
        let listeners = Listeners::ephemeral().unwrap();
        let registry = listeners.data_address();
        let mut config = muster_registry::Config {
            server: server::Config::on_ports(0, 0, 0),
            ..Default::default()
        };
        // An agent at whose address nobody answers is what one of the tests is about.
        config.registry.probe_endpoints = false;
        services.spawn(muster_registry::run(config, listeners, Shutdown::new()));

        let listeners = Listeners::ephemeral().unwrap();
        let router = listeners.data_address();
        let mut config = muster_router::Config::default();
        config.router.data_directory = PathBuf::new();
        config.router.registry_url = format!("http://{registry}");
        change(&mut config);
        services.spawn(muster_router::run(config, listeners, Shutdown::new()));
        Self {
            engine: Engine::start_with(|settings| settings.router_url = format!("http://{router}")).await,
            registry,
            _services: services,
        }
    }

    async fn register(&self, instance: muster_api::registry::Instance) {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.registry)).unwrap();
        wait_for("the registry to take the agent", PATIENCE, async || {
            let request = RegisterRequest {
                instance: Some(instance.clone()),
            };
            let mut client = RegistryServiceClient::new(endpoint.connect_lazy());
            client
                .register(request)
                .await
                .map(drop)
                .map_err(|status| status.to_string())
        })
        .await;
    }
}

#[tokio::test]
async fn a_call_of_skills_that_nobody_has_names_them_and_the_nearest() {
    let fleet = Fleet::start().await;
    let agent = FakeAgent::start("weather").await;
    fleet.register(agent.instance(&["forecasting", "current"])).await;
    let other = FakeAgent::start("planning").await;
    fleet.register(other.instance(&["scheduling"])).await;
    // A call that is answered: the router knows the agents.
    for name in ["weather", "planning"] {
        fleet.engine.output(&document(&send(name, "x")), "").await;
    }

    let misspelt = document(&send("weather", "x")).replace("agent://weather", "skill://forcasting");
    fleet.engine.start_run(&misspelt, "misspelt", "").await.unwrap();
    let blocker = fleet.engine.until_blocked("misspelt", "no-agent").await;
    assert!(
        blocker
            .message
            .contains("no registered agent has the skill 'forcasting'; did you mean 'forecasting'?"),
        "{blocker:?}"
    );
    let facts = details(&blocker);
    assert_eq!(
        (&facts["target"], &facts["skills"], &facts["nearest"]),
        (
            &json!("skill://forcasting"),
            &json!("forcasting"),
            &json!("forecasting")
        )
    );

    let both = document(&send("weather", "x"))
        .replace("agent://weather", "skill://forecasting")
        .replace(
            "parameters: {message",
            "parameters: {metadata: {'urn:muster:a2a:routing:v1': {skills: [scheduling, current]}}, message",
        );
    fleet.engine.start_run(&both, "both", "").await.unwrap();
    let blocker = fleet.engine.until_blocked("both", "no-agent").await;
    assert!(
        blocker.message.contains("'weather' lacks scheduling"),
        "{blocker:?}"
    );
    let facts = details(&blocker);
    assert_eq!(
        (&facts["skills"], &facts["nearest"], &facts["lacking"]),
        (
            &json!("scheduling,current,forecasting"),
            &json!("weather"),
            &json!("scheduling")
        )
    );
}

#[tokio::test]
async fn a_call_of_an_agent_whose_breaker_is_open_says_so() {
    let fleet = Fleet::start().await;
    let agent = FakeAgent::start("weather").await;
    let gone = muster_api::registry::Instance {
        endpoint: "http://127.0.0.1:1".into(),
        ..agent.instance(&["forecasting"])
    };
    fleet.register(gone).await;
    fleet
        .engine
        .start_run(&document(&send("weather", "x")), "r", "")
        .await
        .unwrap();
    let blocker = fleet.engine.until_blocked("r", "breaker-open").await;
    assert!(
        blocker.message.contains(
            "no instance of 'weather' takes work now: 1 failed too often and is left alone for a while"
        ),
        "{blocker:?}"
    );
    let facts = details(&blocker);
    assert_eq!(
        (&facts["cause"], &facts["target"]),
        (&json!("breaker"), &json!("agent://weather"))
    );
    assert!(facts["triesAgainAfterSeconds"].is_number(), "{facts}");
}

#[tokio::test]
async fn a_router_that_knows_no_registry_says_so() {
    let fleet = Fleet::with(|config| config.router.registry_url = "http://127.0.0.1:1".into()).await;
    fleet
        .engine
        .start_run(&document(&send("weather", "x")), "r", "")
        .await
        .unwrap();
    wait_for("the router to name the registry", PATIENCE, async || {
        let blocker = fleet.engine.until_blocked("r", "router-unreachable").await;
        let names = details(&blocker)["service"] == "registry";
        if names && blocker.message.contains("the registry has not answered") {
            Ok(())
        } else {
            Err(blocker.message)
        }
    })
    .await;
}

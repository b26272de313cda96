//! Several engines over one Redis, with a registry, a router and a counting agent.

use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{HeartbeatRequest, InstanceStatus, RegisterRequest};
use muster_api::router::GetStatusRequest;
use muster_api::router::router_service_client::RouterServiceClient;
use muster_api::workflow::event_service_client::EventServiceClient;
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_testkit::{FakeAgent, Process, Program, wait_for};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::{Finished, PATIENCE};

/// Short, so that tests need not wait for long.
const SETTINGS: [(&str, &str); 3] = [
    ("LEASE_SECONDS", "5"),
    ("PATIENCE_SECONDS", "5"),
    ("ANSWER_WITHIN_SECONDS", "2"),
];

/// See the module.
pub struct Replicas {
    registry: Program,
    router: Program,
    engines: Vec<Engine>,
    /// The agent that all runs call.
    pub agent: FakeAgent,
    _heart: JoinSet<()>,
    _running: Vec<Process>,
    directory: TempDir,
}

struct Engine {
    program: Program,
    process: Option<Process>,
}

impl Replicas {
    /// Starts everything, with so many engines on the Redis at this URL.
    ///
    /// # Panics
    /// When something does not come up.
    pub async fn start(count: usize, redis: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let registry = Program::named("muster-registry");
        let router = Program::named("muster-router")
            .env("MUSTER__ROUTER__REGISTRY_URL", registry.url())
            .env("MUSTER__ROUTER__DATA_DIRECTORY", path("router"));
        let engines = (0..count).map(|number| {
            let mut program = Program::named("muster-workflow-engine")
                .env("MUSTER__ENGINE__ROUTER_URL", router.url())
                .env("MUSTER__ENGINE__REDIS_CLUSTER_ENDPOINT", redis)
                .env(
                    "MUSTER__ENGINE__DATA_DIRECTORY",
                    path(&format!("engine-{number}")),
                );
            for (name, value) in SETTINGS {
                program = program.env(format!("MUSTER__ENGINE__REDIS__{name}"), value);
            }
            Engine {
                program,
                process: None,
            }
        });
        let mut engines: Vec<Engine> = engines.collect();
        let running = vec![registry.start_ready().await, router.start_ready().await];
        for engine in &mut engines {
            engine.process = Some(engine.program.start());
        }
        for engine in &mut engines {
            if let Some(process) = &mut engine.process {
                process.ready().await;
            }
        }
        let agent = FakeAgent::start("counter").await;
        let instance = Some(agent.instance(&["count"]));
        let mut client = RegistryServiceClient::connect(registry.url())
            .await
            .expect("the registry answers");
        let registered = client
            .register(RegisterRequest { instance })
            .await
            .expect("the agent is registered");
        let lease_id = registered.into_inner().lease.unwrap_or_default().lease_id;
        let mut heart = JoinSet::new();
        heart.spawn(beat(client, lease_id));
        let replicas = Self {
            registry,
            router,
            engines,
            agent,
            _heart: heart,
            _running: running,
            directory,
        };
        replicas.knows_the_agent().await;
        replicas
    }

    async fn knows_the_agent(&self) {
        wait_for("the router's view of the fleet", PATIENCE, async || {
            let mut router = RouterServiceClient::connect(self.router.url())
                .await
                .map_err(|error| error.to_string())?;
            let status = router.get_status(GetStatusRequest {}).await;
            let status = status.map_err(|error| error.to_string())?.into_inner();
            (status.instances.len() == 1)
                .then_some(())
                .ok_or_else(|| format!("{status:?}"))
        })
        .await;
    }

    /// How many engines there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.engines.len()
    }

    /// A place for files.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// A client of an engine, which need not be there.
    ///
    /// # Panics
    /// Never: an address is one.
    #[must_use]
    pub fn engine(&self, number: usize) -> WorkflowServiceClient<Channel> {
        WorkflowServiceClient::new(self.channel(number))
    }

    /// A client of an engine's log of events.
    #[must_use]
    pub fn events(&self, number: usize) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel(number))
    }

    fn channel(&self, number: usize) -> Channel {
        let url = self.engines[number].program.url();
        Endpoint::from_shared(url)
            .expect("an address")
            .connect_timeout(std::time::Duration::from_secs(2))
            .timeout(std::time::Duration::from_secs(4))
            .connect_lazy()
    }

    /// The process of an engine.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&mut self, number: usize) -> &mut Process {
        self.engines[number].process.as_mut().expect("the engine runs")
    }

    /// What an engine's metrics say.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self, number: usize) -> Result<String, String> {
        let address = ([127, 0, 0, 1], self.engines[number].program.ports().metrics).into();
        let answer = muster_testkit::http::get(address, "/metrics").await?;
        Ok(answer.text())
    }

    /// `kill -9` for an engine.
    pub async fn kill(&mut self, number: usize) {
        if let Some(process) = self.engines[number].process.take() {
            process.kill().await;
        }
    }

    /// Asks an engine to stop, and waits until it has.
    pub async fn stop(&mut self, number: usize) {
        self.process(number).signal("TERM").await;
        self.stopped(number).await;
    }

    /// Waits until an engine has stopped that was asked to.
    ///
    /// # Panics
    /// When it ends otherwise than in order.
    pub async fn stopped(&mut self, number: usize) {
        if let Some(mut process) = self.engines[number].process.take() {
            let status = process.exit().await;
            assert!(status.success(), "{status}: {}", process.stderr());
        }
    }

    /// Starts an engine again, without waiting; under another name if its directory is to be gone, as with a new pod.
    pub fn start_again(&mut self, number: usize, afresh: bool) {
        if afresh {
            let place = self.directory.path().join(format!("engine-{number}"));
            std::fs::remove_dir_all(&place).expect("the engine's directory");
        }
        let engine = &mut self.engines[number];
        engine.process = Some(engine.program.start());
    }

    /// Runs the command line against one of the engines.
    pub async fn muster(&self, number: usize, arguments: &[&str]) -> Finished {
        let environment = [
            ("MUSTER_REGISTRY_URL".to_owned(), self.registry.url()),
            ("MUSTER_ROUTER_URL".to_owned(), self.router.url()),
            ("MUSTER_ENGINE_URL".to_owned(), self.engines[number].program.url()),
        ];
        crate::muster(&environment, arguments).await
    }
}

/// Keeps the agent's lease.
async fn beat(mut client: RegistryServiceClient<Channel>, lease_id: String) {
    let mut ticks = tokio::time::interval(std::time::Duration::from_secs(10));
    loop {
        ticks.tick().await;
        let heartbeat = HeartbeatRequest {
            lease_id: lease_id.clone(),
            status: InstanceStatus::Active.into(),
            ..HeartbeatRequest::default()
        };
        // One that fails is followed by others.
        let _answer = client.heartbeat(heartbeat).await;
    }
}

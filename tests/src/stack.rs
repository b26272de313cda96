//! The whole system: as eight processes, or as one `muster dev`.

use std::net::SocketAddr;
use std::path::Path;

use muster_a2a::grpc::Client;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::router::router_service_client::RouterServiceClient;
use muster_api::router::{GetStatusRequest, GetStatusResponse};
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_testkit::{Process, Program, wait_for};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{Finished, PATIENCE};

const AGENTS: [&str; 5] = [
    "weather",
    "planning",
    "customer-service",
    "data-analysis",
    "security-monitor",
];

fn agent_number(name: &str) -> usize {
    let found = AGENTS.iter().position(|agent| *agent == name);
    found.unwrap_or_else(|| panic!("there is no '{name}'"))
}

/// Registry, router, engine and five agents, each a process of its own.
pub struct Stack {
    registry: Program,
    router: Program,
    engine: Program,
    agents: [Program; 5],
    running_engine: Option<Process>,
    running_registry: Option<Process>,
    running: Vec<Process>,
    _directory: TempDir,
}

impl Stack {
    /// Starts all eight and waits until the router knows every agent.
    ///
    /// # Panics
    /// When one does not come up.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with this in the environment of all eight.
    ///
    /// # Panics
    /// When one does not come up.
    pub async fn start_with(environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let named = |name: &str| {
            environment
                .iter()
                .fold(Program::named(name), |program, (key, value)| {
                    program.env(*key, *value)
                })
        };
        let registry = named("muster-registry");
        let router = named("muster-router")
            .env("MUSTER__ROUTER__REGISTRY_URL", registry.url())
            .env("MUSTER__ROUTER__DATA_DIRECTORY", path("router"));
        let engine = named("muster-workflow-engine")
            .env("MUSTER__ENGINE__ROUTER_URL", router.url())
            .env("MUSTER__ENGINE__DATA_DIRECTORY", path("engine"));
        let agents = AGENTS.map(|name| {
            named(&format!("muster-agent-{name}"))
                .env("MUSTER__AGENT__REGISTRY_URL", registry.url())
                .env("MUSTER__AGENT__DATA_DIRECTORY", path("agents"))
        });
        // In any order: agents and router first, so that they find no registry.
        let mut running: Vec<Process> = agents.iter().map(Program::start).collect();
        running.push(router.start());
        let mut running_engine = engine.start();
        let running_registry = Some(registry.start_ready().await);
        for process in running.iter_mut().chain(std::iter::once(&mut running_engine)) {
            process.ready().await;
        }
        let stack = Self {
            registry,
            router,
            engine,
            agents,
            running_engine: Some(running_engine),
            running_registry,
            running,
            _directory: directory,
        };
        stack.knows_instances(AGENTS.len()).await;
        stack
    }

    /// Waits until the router routes to this many instances.
    pub async fn knows_instances(&self, count: usize) {
        wait_for("the router's view of the fleet", PATIENCE, async || {
            let status = self.router_status().await?;
            if status.instances.len() == count {
                Ok(())
            } else {
                Err(format!("{} instances", status.instances.len()))
            }
        })
        .await;
    }

    /// Where the router answers.
    #[must_use]
    pub fn router_url(&self) -> String {
        self.router.url()
    }

    /// A client of the registry.
    pub async fn registry(&self) -> RegistryServiceClient<Channel> {
        RegistryServiceClient::connect(self.registry.url())
            .await
            .expect("the registry answers")
    }

    /// A client of the agents, through the router.
    pub async fn agents(&self) -> Client {
        let endpoint = Endpoint::from_shared(self.router.url()).expect("a URL");
        muster_a2a::grpc::client(endpoint.connect().await.expect("the router answers"))
    }

    /// A client of the engine.
    pub async fn engine(&self) -> WorkflowServiceClient<Channel> {
        WorkflowServiceClient::connect(self.engine.url())
            .await
            .expect("the engine answers")
    }

    /// `kill -9` for the engine.
    pub async fn kill_engine(&mut self) {
        if let Some(process) = self.running_engine.take() {
            process.kill().await;
        }
    }

    /// Starts the engine again, on the same port and directory.
    pub async fn start_engine(&mut self) {
        self.running_engine = Some(self.engine.start_ready().await);
    }

    /// Where its parts listen, as `muster dev` writes it.
    #[must_use]
    pub fn places(&self) -> Value {
        let places = [
            ("registry", &self.registry),
            ("router", &self.router),
            ("workflow-engine", &self.engine),
        ]
        .map(|(name, program)| {
            let ports = program.ports();
            let place = serde_json::json!({
                "url": program.url(),
                "health": format!("http://127.0.0.1:{}", ports.health),
                "metrics": format!("http://127.0.0.1:{}/metrics", ports.metrics),
            });
            (name.to_owned(), place)
        });
        places.into_iter().collect::<serde_json::Map<_, _>>().into()
    }

    /// The system's number of the registry.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn registry_id(&self) -> u32 {
        let registry = self.running_registry.as_ref().and_then(Process::id);
        registry.expect("the registry runs")
    }

    /// Whether every process runs that was started.
    pub fn is_whole(&mut self) -> bool {
        let (Some(engine), Some(registry)) = (&mut self.running_engine, &mut self.running_registry) else {
            return false;
        };
        let mut all = self.running.iter_mut().chain([engine, registry]);
        all.all(|process| !process.has_ended())
    }

    /// `kill -9` for the registry.
    pub async fn kill_registry(&mut self) {
        if let Some(process) = self.running_registry.take() {
            process.kill().await;
        }
    }

    /// Starts the registry again, on the same port, with nobody in it.
    pub async fn start_registry(&mut self) {
        self.running_registry = Some(self.registry.start_ready().await);
    }

    /// What the router says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn router_status(&self) -> Result<GetStatusResponse, String> {
        let mut router = RouterServiceClient::connect(self.router.url())
            .await
            .map_err(|e| e.to_string())?;
        let status = router.get_status(GetStatusRequest {}).await;
        status.map(tonic::Response::into_inner).map_err(|e| e.to_string())
    }

    /// Runs the command line against this stack.
    pub async fn muster(&self, arguments: &[&str]) -> Finished {
        let environment = [
            ("MUSTER_REGISTRY_URL".to_owned(), self.registry.url()),
            ("MUSTER_ROUTER_URL".to_owned(), self.router.url()),
            ("MUSTER_ENGINE_URL".to_owned(), self.engine.url()),
        ];
        crate::muster(&environment, arguments).await
    }

    /// Where a service or an agent answers.
    ///
    /// # Panics
    /// There is none of that name.
    #[must_use]
    pub fn url(&self, service: &str) -> String {
        match service {
            "registry" => self.registry.url(),
            "router" => self.router.url(),
            "workflow-engine" => self.engine.url(),
            agent => self.agents[agent_number(agent)].url(),
        }
    }

    /// The lines that a service or an agent has logged so far; none where it does not run.
    ///
    /// # Panics
    /// There is none of that name, or a line is no JSON.
    #[must_use]
    pub fn log(&self, service: &str) -> Vec<Value> {
        let process = match service {
            "registry" => self.running_registry.as_ref(),
            "router" => self.running.get(AGENTS.len()),
            "workflow-engine" => self.running_engine.as_ref(),
            agent => self.running.get(agent_number(agent)),
        };
        let said = process.map(Process::stderr).unwrap_or_default();
        // The last line may be under way.
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{service}: {line}: {error}"))
            })
            .collect()
    }

    /// Every service's URL.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        vec![self.registry.url(), self.router.url(), self.engine.url()]
    }
}

/// One `muster dev` on free ports.
pub struct Dev {
    /// The process.
    pub process: Process,
    environment: Vec<(String, String)>,
    places: Value,
    ready_in_seconds: f64,
}

impl Dev {
    /// Starts it on this data directory and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[]).await
    }

    /// Waits until the run has completed; the run.
    ///
    /// # Panics
    /// When it does not complete.
    pub async fn completed(&self, run_id: &str) -> Value {
        wait_for(&format!("{run_id} to complete"), PATIENCE, async || {
            let run = self
                .muster(&["workflow", "show", run_id, "-o", "json"])
                .await
                .json();
            if run["status"] == "completed" {
                Ok(run)
            } else {
                Err(run.to_string())
            }
        })
        .await
    }

    /// Starts it with further arguments.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_with(directory: &Path, arguments: &[&str]) -> Self {
        let mut program = Program::named("muster")
            .arg("dev")
            .arg("--ports")
            .arg("any")
            .arg("--data-dir")
            .arg(directory.display().to_string())
            .arg("-o")
            .arg("json");
        for argument in arguments {
            program = program.arg(*argument);
        }
        let mut process = program.start();
        let ready = wait_for("muster dev to be ready", PATIENCE, async || {
            if process.has_ended() {
                return Err(format!("it ended: {}", process.stderr()));
            }
            let said = process.stdout();
            let line = said.lines().find(|line| line.contains("\"ready\""));
            let line = line.ok_or_else(|| "nothing said".to_owned())?;
            serde_json::from_str::<Value>(line).map_err(|error| error.to_string())
        })
        .await;
        let places = ready["services"].clone();
        let ready_in_seconds = ready["readyInSeconds"]
            .as_f64()
            .expect("it says how long it took");
        let environment = [
            ("MUSTER_REGISTRY_URL", "registry"),
            ("MUSTER_ROUTER_URL", "router"),
            ("MUSTER_ENGINE_URL", "workflow-engine"),
        ]
        .map(|(variable, service)| (variable.to_owned(), text(&places[service]["url"])))
        .to_vec();
        Self {
            process,
            environment,
            places,
            ready_in_seconds,
        }
    }

    /// Where a service answers.
    #[must_use]
    pub fn url(&self, service: &str) -> String {
        text(&self.places[service]["url"])
    }

    /// Where the metrics of a service are.
    ///
    /// # Panics
    /// When there is no such service.
    #[must_use]
    pub fn metrics_address(&self, service: &str) -> SocketAddr {
        let url = text(&self.places[service]["metrics"]);
        let address = url.trim_start_matches("http://").trim_end_matches("/metrics");
        address.parse().expect("an address")
    }

    /// From the start of the process until everything was ready, as it says itself.
    #[must_use]
    pub fn ready_in_seconds(&self) -> f64 {
        self.ready_in_seconds
    }

    /// Resident memory now.
    ///
    /// # Panics
    /// When the process is gone, or the system has no `/proc`.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id().expect("it runs"));
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS is there");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes * 1024
    }

    /// Runs the command line against it.
    pub async fn muster(&self, arguments: &[&str]) -> Finished {
        crate::muster(&self.environment, arguments).await
    }

    /// Runs a line of shell against it, with `muster` on the path.
    pub async fn shell(&self, directory: &Path, line: &str) -> Finished {
        crate::shell(&self.environment, directory, line).await
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a text: {value}"))
        .to_owned()
}

//! The processes that are measured: registry, router and agents, and what forwards to an agent beside the router.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use muster_api::router::GetStatusRequest;
use muster_api::router::router_service_client::RouterServiceClient;
use tonic::Request;

use super::client::Metadata;
use super::proxy::Proxy;
use crate::bench::part::Part;
use crate::bench::process::{ASK_AGAIN, End, Process, within};
use crate::connect;
use crate::failure::Failure;

/// How an agent's capacity is limited.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Calls at once.
    pub concurrency: u32,
    /// Milliseconds that each takes.
    pub service_time: u64,
    /// Whether its card says how many calls it takes at once.
    pub is_declared: bool,
}

/// How much a router measures and tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Telemetry {
    /// Nothing.
    Off,
    /// Metrics, as by default.
    Metrics,
    /// Metrics, and traces as by default: spans of the share of calls that is sampled, to a collector that drops them.
    Traces,
    /// Metrics, and a span of everything, to the same.
    AllTraces,
}

impl Telemetry {
    /// The name of the way.
    pub const fn way(self) -> &'static str {
        match self {
            Self::Off => UNTOLD,
            Self::Metrics => "router-metrics",
            Self::Traces => "router-traces",
            Self::AllTraces => "router-all-traces",
        }
    }
}

/// The router that tells nothing of itself.
pub const UNTOLD: &str = "router-telemetry-off";

/// The collector that drops what it gets.
pub const SINK: &str = "collector";

/// Registry, router and agents. They end with this value.
pub struct Fleet {
    /// The router.
    pub router: Process,
    /// The agents.
    pub agents: Vec<Process>,
    registry: Process,
    /// What the router wants to see of who asks it how it is.
    shown: Vec<Metadata>,
}

impl Fleet {
    /// Starts them and waits until the router knows all agents. `directory` is for what they keep, and `shown` what the router wants
    /// to see of its callers.
    pub async fn start(
        directory: &Path,
        agents: u32,
        limit: Option<Limit>,
        router_settings: &[(String, String)],
        shown: &[Metadata],
    ) -> Result<Self, Failure> {
        let mut registry = Process::service(Part::Registry, &[]).await?;
        let mut settings = vec![
            ("router.registry_url", registry.url()),
            (
                "router.data_directory",
                directory.join("router").display().to_string(),
            ),
        ];
        settings.extend(
            router_settings
                .iter()
                .map(|(key, value)| (key.as_str(), value.clone())),
        );
        let mut router = Process::service(Part::Router, &settings).await?;
        registry.ready().await?;
        let mut started = Vec::new();
        for _ in 0..agents {
            started.push(agent(&registry.url(), limit).await?);
        }
        router.ready().await?;
        let mut fleet = Self {
            router,
            agents: started,
            registry,
            shown: shown.to_vec(),
        };
        within(fleet.known(), "the agents' registration").await??;
        Ok(fleet)
    }

    /// A further router that tells so much of itself, with the collector that it tells it to.
    pub async fn router_with(
        &self,
        telemetry: Telemetry,
        directory: &Path,
        router_settings: &[(String, String)],
    ) -> Result<Vec<Process>, Failure> {
        let way = telemetry.way();
        let mut started = Vec::new();
        let mut settings = vec![
            ("router.registry_url", self.registry.url()),
            ("router.data_directory", directory.join(way).display().to_string()),
            ("telemetry.metrics", (telemetry != Telemetry::Off).to_string()),
        ];
        if telemetry == Telemetry::AllTraces {
            settings.push(("telemetry.otlp.sample_ratio", "1".to_owned()));
        }
        if matches!(telemetry, Telemetry::Traces | Telemetry::AllTraces) {
            let sink = ["route-part", "sink"].map(str::to_owned);
            let sink = Process::start(SINK, &sink, End::Killed).await?;
            settings.push(("telemetry.otlp.endpoint", sink.url()));
            started.push(sink);
        }
        settings.extend(
            router_settings
                .iter()
                .map(|(key, value)| (key.as_str(), value.clone())),
        );
        let mut router = Process::service_called(way, Part::Router, &settings).await?;
        router.ready().await?;
        let known = knows(router.url(), self.agents.len(), &self.shown);
        within(known, "the agents' registration").await??;
        started.push(router);
        Ok(started)
    }

    async fn known(&mut self) -> Result<(), Failure> {
        let all = knows(self.router.url(), self.agents.len(), &self.shown);
        tokio::pin!(all);
        loop {
            if let Ok(known) = tokio::time::timeout(ASK_AGAIN, &mut all).await {
                return known;
            }
            for process in self
                .agents
                .iter_mut()
                .chain([&mut self.router, &mut self.registry])
            {
                process.is_running()?;
            }
        }
    }

    /// Where the agents answer.
    fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        let address = |agent: &Process| {
            let url = agent.url();
            let parsed = url.trim_start_matches("http://").parse();
            parsed.map_err(|_| Failure::failed(format!("the agent says that it is at {url}")))
        };
        self.agents.iter().map(address).collect()
    }

    /// Ends all, without waiting for what they are at.
    pub async fn stop(self) {
        for process in self.agents.into_iter().chain([self.router, self.registry]) {
            process.stop().await;
        }
    }
}

/// Waits until a router knows so many agents.
async fn knows(router: String, agents: usize, shown: &[Metadata]) -> Result<(), Failure> {
    let mut client = RouterServiceClient::new(connect::channel(&router)?);
    loop {
        let mut request = Request::new(GetStatusRequest {});
        for (key, value) in shown {
            request.metadata_mut().insert(key.clone(), value.clone());
        }
        let status = client.get_status(request).await;
        if status.is_ok_and(|status| status.get_ref().instances.len() >= agents) {
            return Ok(());
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn agent(registry: &str, limit: Option<Limit>) -> Result<Process, Failure> {
    let mut arguments = ["route-part", "echo", "--registry", registry]
        .map(str::to_owned)
        .to_vec();
    if let Some(limit) = limit {
        arguments.extend([
            "--concurrency".to_owned(),
            limit.concurrency.to_string(),
            "--service-time".to_owned(),
            limit.service_time.to_string(),
        ]);
        if limit.is_declared {
            arguments.push("--declared".to_owned());
        }
    }
    Process::start("agent", &arguments, End::Killed).await
}

/// What forwards to the agents beside the router.
pub struct Beside {
    /// The do-nothing forwarder, which knows the first of them alone.
    pub forwarder: Process,
    /// The proxies that were asked for.
    pub proxies: Vec<Process>,
}

impl Beside {
    /// Starts them.
    pub async fn start(
        fleet: &Fleet,
        proxies: &[(Proxy, PathBuf)],
        directory: &Path,
    ) -> Result<Self, Failure> {
        let addresses = fleet.addresses()?;
        let first = fleet.agents.first().map(Process::url).unwrap_or_default();
        let arguments = ["route-part", "forwarder", "--agent", &first].map(str::to_owned);
        let mut beside = Self {
            forwarder: Process::start("forwarder", &arguments, End::Killed).await?,
            proxies: Vec::new(),
        };
        for (proxy, program) in proxies {
            beside
                .proxies
                .push(proxy.start(program, &addresses, directory).await?);
        }
        Ok(beside)
    }

    /// Ends them.
    pub async fn stop(self) {
        self.forwarder.stop().await;
        for process in self.proxies {
            process.stop().await;
        }
    }
}

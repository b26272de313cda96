//! All services in one process: started together, watched, stopped in order.
//!
//! Each runs by the same `run(config, listeners, shutdown)` as its own binary. All ports are bound before anything
//! starts, so that a port in use is told at once and nothing is half up. Rejected: calling the services directly
//! in process; the laptop would then run a system that production does not have.

mod config;
mod member;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::trust::{Identity, Role, Trust, Workload};
use muster_runtime::{Error, Listeners, Shutdown};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::agents;
use crate::cli::Ports;
use crate::connect::{self, Endpoints, Token};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::trust::certs;

pub use config::Config;
use member::{MEMBERS, Member, Settings};

/// How long the whole fleet may take to come up.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How often a component that is not ready is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Where a service listens.
#[derive(Debug, Clone)]
struct Place {
    name: &'static str,
    data: SocketAddr,
    health: SocketAddr,
    metrics: SocketAddr,
}

/// The services of one process.
pub struct Fleet {
    places: Vec<Place>,
    services: JoinSet<(&'static str, Result<(), Error>)>,
    shutdowns: Vec<(&'static Member, Shutdown)>,
    clock: SystemClock,
    token: Token,
    ready_in: Option<Duration>,
    /// Where the certificates are by which the services know each other, and who we are to them.
    tls: Option<(PathBuf, Trust)>,
}

impl Fleet {
    /// Binds every port and starts every service, with mutual TLS between them where it is wanted; `directory` keeps what must
    /// survive.
    pub fn start(config: Config, directory: &Path, ports: Ports, tls: bool) -> Result<Self, Failure> {
        let clock = SystemClock::default();
        let tls = tls.then(|| certificates(directory, &clock)).transpose()?;
        let identity =
            Identity::new(&config.trust.tokens, "muster-dev", Role::Service).map_err(Failure::usage)?;
        let mut places = Vec::new();
        let mut bound = Vec::new();
        for member in MEMBERS {
            let listeners = member
                .bind(ports)
                .map_err(|error| start_failure(member.name, &error))?;
            places.push(Place {
                name: member.name,
                data: listeners.data_address(),
                health: listeners.health_address(),
                metrics: listeners.metrics_address(),
            });
            bound.push((member, listeners));
        }
        let mut fleet = Self {
            places,
            services: JoinSet::new(),
            shutdowns: Vec::new(),
            clock,
            token: Token::own(identity),
            ready_in: None,
            tls,
        };
        let settings = Settings {
            config,
            directory: directory.to_owned(),
            certificates: fleet.certificates().map(Path::to_owned),
            endpoints: fleet.endpoints(),
        };
        for (member, listeners) in bound {
            fleet.spawn(member, &settings, listeners);
        }
        Ok(fleet)
    }

    fn spawn(&mut self, member: &'static Member, settings: &Settings, listeners: Listeners) {
        let shutdown = Shutdown::new();
        let service = (member.run)(settings, listeners, shutdown.clone());
        self.shutdowns.push((member, shutdown));
        self.services.spawn(async move { (member.name, service.await) });
    }

    /// Where clients find the services.
    pub fn endpoints(&self) -> Endpoints {
        let url = |name| {
            self.place(name)
                .map(|place| format!("{}://{}", self.scheme(), place.data))
                .unwrap_or_default()
        };
        Endpoints {
            registry: url("registry"),
            router: url("router"),
            engine: url("workflow-engine"),
            trust: self.trust(),
            token: self.token.clone(),
        }
    }

    /// Where the certificates are, if there are any.
    pub fn certificates(&self) -> Option<&Path> {
        self.tls.as_ref().map(|(directory, _)| directory.as_path())
    }

    fn trust(&self) -> Trust {
        self.tls
            .as_ref()
            .map_or_else(Trust::loopback, |(_, trust)| trust.clone())
    }

    fn scheme(&self) -> &'static str {
        self.trust().scheme()
    }

    /// How the addresses of this fleet's own agents end. In Redis there may be others, left by a process that was killed.
    fn agent_ports(&self) -> Vec<String> {
        let is_agent = |name: &str| {
            MEMBERS
                .iter()
                .any(|member| member.is_agent && member.name == name)
        };
        let agents = self.places.iter().filter(|place| is_agent(place.name));
        agents.map(|place| format!(":{}", place.data.port())).collect()
    }

    fn place(&self, name: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.name == name)
    }

    /// The services, in the order in which they come up.
    pub fn names(&self) -> Vec<&'static str> {
        self.places.iter().map(|place| place.name).collect()
    }

    /// Waits until one service says that it serves.
    pub async fn component_ready(&mut self, name: &'static str) -> Result<(), Failure> {
        let address = self
            .place(name)
            .ok_or_else(|| Failure::failed(format!("no service is called {name}")))?
            .data;
        let serving = serving(format!("{}://{address}", self.scheme()), self.trust(), name);
        tokio::select! {
            ready = within(name, serving) => ready,
            failure = self.ended() => Err(failure),
        }
    }

    /// Waits until every service serves and the router knows every agent.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        for name in self.names() {
            self.component_ready(name).await?;
        }
        let endpoints = self.endpoints();
        let agents = self.agent_ports();
        tokio::select! {
            known = within("the agents' registration", all_agents_known(&endpoints, &agents)) => known?,
            failure = self.ended() => return Err(failure),
        }
        self.ready_in.get_or_insert(self.clock.monotonic());
        Ok(())
    }

    /// How long it took from the start until everything was ready.
    pub fn ready_in(&self) -> Duration {
        self.ready_in.unwrap_or_else(|| self.clock.monotonic())
    }

    /// Resolves when a service ended although nobody asked it to.
    pub async fn ended(&mut self) -> Failure {
        match self.services.join_next().await {
            Some(Ok((name, Err(error)))) => start_failure(name, &error),
            Some(Ok((name, Ok(())))) => {
                Failure::failed(format!("{name} ended although nobody asked it to stop"))
            }
            Some(Err(error)) => Failure::failed(format!("a service panicked: {error}")),
            None => Failure::failed("no service is left"),
        }
    }

    /// Stops everything, who depends on others first: agents say goodbye to a registry that still listens, and
    /// runs in flight reach a router that still forwards. Waits for the drains.
    pub async fn stop(mut self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        let (agents, services): (Vec<_>, Vec<_>) = std::mem::take(&mut self.shutdowns)
            .into_iter()
            .partition(|(member, _)| member.is_agent);
        let rounds = std::iter::once(agents).chain(services.into_iter().rev().map(|service| vec![service]));
        let mut left = self.services.len();
        for round in rounds {
            left = left.saturating_sub(round.len());
            for (_, shutdown) in &round {
                shutdown.trigger();
            }
            while self.services.len() > left {
                match self.services.join_next().await {
                    Some(Ok((_, Ok(())))) => {}
                    Some(Ok((name, Err(error)))) => outcome = Err(start_failure(name, &error)),
                    Some(Err(error)) => {
                        outcome = Err(Failure::failed(format!("a service panicked: {error}")))
                    }
                    None => break,
                }
            }
        }
        outcome
    }

    /// Writes where the services listen to `endpoints.json` in the data directory.
    pub fn write_endpoints(&self, directory: &Path) -> Result<(), Failure> {
        let path = directory.join("endpoints.json");
        std::fs::write(&path, format!("{:#}\n", self.places_json())).map_err(|error| {
            Failure::usage(format!("{}: {error}", path.display()))
                .with_remedy("choose another --data-dir or correct its permissions")
        })
    }

    /// Where the services listen, as JSON.
    pub fn places_json(&self) -> Value {
        self.places
            .iter()
            .map(|place| {
                let addresses = json!({
                    "url": format!("{}://{}", self.scheme(), place.data),
                    "health": format!("http://{}", place.health),
                    "metrics": format!("http://{}/metrics", place.metrics),
                });
                (place.name.to_owned(), addresses)
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// Where the services listen, for people.
    pub fn print_places(&self, output: &Output) {
        let rows = self
            .places
            .iter()
            .map(|place| {
                [
                    place.name.to_owned(),
                    format!("{}://{}", self.scheme(), place.data),
                    format!("http://{}/ready", place.health),
                    format!("http://{}/metrics", place.metrics),
                ]
            })
            .collect();
        output.table(["SERVICE", "gRPC AND HTTP", "HEALTH", "METRICS"], rows);
    }

    /// What to type next.
    pub fn next_steps(&self) -> Vec<String> {
        let endpoints = self.endpoints();
        let mut lines = Vec::new();
        if let Some(certificates) = self.certificates() {
            lines.push("in the other terminal, first:".to_owned());
            lines.push(format!(
                "  export MUSTER_REGISTRY_URL={} MUSTER_ROUTER_URL={} MUSTER_ENGINE_URL={} MUSTER_CERTIFICATES={}",
                endpoints.registry,
                endpoints.router,
                endpoints.engine,
                certificates.display()
            ));
        } else if endpoints.router != "http://127.0.0.1:7402" {
            lines.push("in the other terminal, first:".to_owned());
            lines.push(format!(
                "  export MUSTER_REGISTRY_URL={} MUSTER_ROUTER_URL={} MUSTER_ENGINE_URL={}",
                endpoints.registry, endpoints.router, endpoints.engine
            ));
        }
        lines.push("try in another terminal: muster status".to_owned());
        lines.push(
            "  muster send --skill weather_forecasting \"Seattle 2014-03-01 to 2014-03-05\"".to_owned(),
        );
        lines
    }
}

fn start_failure(name: &str, error: &Error) -> Failure {
    if let Error::Bind { address, source, .. } = error {
        return Failure::usage(format!("{name}: cannot listen on {address}: {source}"))
            .with_remedy("another `muster dev` may be running; `--ports any` takes free ports");
    }
    let mut failure = Failure::failed(format!("{name}: {error}"));
    if error.exit_code() == 2 {
        failure.exit = Exit::Usage;
    }
    failure
}

async fn within(what: &str, wait: impl Future<Output = ()>) -> Result<(), Failure> {
    tokio::time::timeout(START_PATIENCE, wait).await.map_err(|_| {
        Failure::unavailable(format!(
            "{what} did not come up within {} s",
            START_PATIENCE.as_secs()
        ))
    })
}

async fn serving(url: String, trust: Trust, name: &str) {
    let Ok(endpoint) = muster_rpc::endpoint::parse(&url) else {
        return std::future::pending().await;
    };
    let security = trust.to(Workload::of_service(name));
    let mut interval = tokio::time::interval(ASK_AGAIN);
    // Each time anew: a channel that could not connect waits before it tries again.
    while !connect::says_serving(connect::unnamed(&endpoint, &security)).await {
        interval.tick().await;
    }
}

/// The directory of the certificates, made where it is not there, and the command line's own identity out of it.
fn certificates(directory: &Path, clock: &SystemClock) -> Result<(PathBuf, Trust), Failure> {
    let directory = directory.join("certificates");
    if certs::Directory::is_one(&directory) {
        // Those of a laptop that was away for long have ended.
        certs::renew(&directory, clock.now())?;
    } else {
        certs::init(&certs::InitArguments::in_directory(&directory), clock.now())?;
    }
    let trust = connect::identity(&directory)?;
    Ok((directory, trust))
}

/// Until the registry lists as many agents as there are ports, and the router has the instance at each.
async fn all_agents_known(endpoints: &Endpoints, ports: &[String]) {
    let mut interval = tokio::time::interval(ASK_AGAIN);
    loop {
        interval.tick().await;
        let registered = agents::all(endpoints, &[], "")
            .await
            .map_or(0, |agents| agents.len());
        let Ok(mut router) = endpoints.router() else {
            continue;
        };
        let status = router.get_status(muster_api::router::GetStatusRequest {}).await;
        let routed = status.map_or_else(|_| Vec::new(), |status| status.into_inner().instances);
        let is_routed = |port: &String| routed.iter().any(|instance| instance.endpoint.ends_with(port));
        if registered >= ports.len() && ports.iter().all(is_routed) {
            return;
        }
    }
}

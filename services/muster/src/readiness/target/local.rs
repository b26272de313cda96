//! A stack of one's own: every service as a process, as in production, for checks that may do with it what they like.
//!
//! The services speak mutual TLS, want tokens of whoever has no certificate, write audit logs and send traces. Where
//! `redis-server` is installed, what is durable is in a Redis, and there are two routers and two engines; else everything is
//! embedded and there is one of each, and what needs more says so. All ports are chosen before anything starts, so that the parts
//! can start in any order, and start again where they were.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_api::router::GetStatusRequest;
use muster_jose::Private;
use muster_jose::token::Signer;
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::trust::{Trust, Workload};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tempfile::TempDir;

use super::collector::Collector;
use super::hands::Deed;
use super::network;
use super::probe::{PROBE, Probe};
use super::process::{Process, Program};
use super::{Issuer, Place};
use crate::agents;
use crate::bench::part::{Addresses, Part};
use crate::bench::process::{End, Process as Kept};
use crate::connect::{self, Endpoints, Token};
use crate::failure::Failure;
use crate::readiness::check::Need;
use crate::trust::certs::{self, BUNDLE, InitArguments, IssueArguments, Names};

/// How long the whole stack may take to come up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often what is not there yet is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Who issues tokens for it.
pub const ISSUER: &str = "readiness";

/// The agents that come with Muster.
pub const AGENTS: [Part; 5] = [
    Part::Weather,
    Part::Planning,
    Part::CustomerService,
    Part::DataAnalysis,
    Part::SecurityMonitor,
];

/// In which order the parts start.
pub enum Order {
    /// One after the other, each once the one before is ready: who is needed first.
    Stated,
    /// All at once, in an order of chance, out of this seed.
    Chance(u64),
}

/// How large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// As large as it can be here.
    Whole,
    /// One of each, embedded.
    Single,
}

/// One part of it.
pub struct Member {
    /// What is started.
    pub program: Program,
    /// Where it listens.
    pub addresses: Addresses,
    /// Its process, while it runs.
    pub process: Option<Process>,
}

/// See the module. Everything ends with it.
pub struct Stack {
    members: Vec<Member>,
    ready_in: Vec<(String, Duration)>,
    probe: Option<Probe>,
    collector: Collector,
    issuer: Issuer,
    trust: Trust,
    redis: Option<Redis>,
    directory: TempDir,
}

impl Member {
    /// Where its data port is.
    pub fn url(&self) -> String {
        format!("https://{}", self.addresses.data)
    }

    /// Starts it where it was.
    pub async fn start(&mut self) -> Result<(), Failure> {
        self.process = Some(self.program.start(Some(&self.addresses)).await?);
        Ok(())
    }

    fn place(&self) -> Place {
        Place {
            name: self.program.name.clone(),
            health: Some(format!("http://{}", self.addresses.health)),
            metrics: Some(format!("http://{}/metrics", self.addresses.metrics)),
        }
    }
}

impl Stack {
    /// Its parts are this program, which must have the services in it.
    #[cfg(not(feature = "fleet"))]
    pub async fn start(_size: Size, _order: Order) -> Result<Self, Failure> {
        Err(Failure::usage("this program was built without the services").with_remedy(
            "look at something that runs (`--target running`), or take the program that is built with the feature `fleet`",
        ))
    }

    /// Starts it, and waits until everything is ready and knows the others.
    #[cfg(feature = "fleet")]
    pub async fn start(size: Size, order: Order) -> Result<Self, Failure> {
        let mut stack = Self::prepared(size).await?;
        let started = stack.come_up(order);
        tokio::time::timeout(PATIENCE, started).await.map_err(|_| {
            Failure::unavailable(format!(
                "the stack did not come up within {} s",
                PATIENCE.as_secs()
            ))
        })??;
        Ok(stack)
    }

    async fn prepared(size: Size) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new()
            .prefix("muster-readiness-")
            .tempdir()
            .map_err(|error| Failure::usage(format!("no temporary directory can be made: {error}")))?;
        let path = directory.path();
        let certificates = path.join("certificates");
        let now = SystemClock::default().now();
        certs::init(&InitArguments::in_directory(&certificates), now)?;
        let probe = IssueArguments {
            directory: certificates.clone(),
            service: PROBE.to_owned(),
            namespace: None,
            names: Names::here(),
        };
        certs::add(&probe, now)?;
        let issuer = issuer(path)?;
        let collector = Collector::start().await?;
        let server = if size == Size::Whole { redis_server() } else { None };
        let redis = match server {
            Some(server) => Some(Redis::start(server, path).await?),
            None => None,
        };
        let url = redis.as_ref().map(|redis| format!("redis://{}", redis.address));
        let trust = connect::identity(&certificates)?;
        let replicas = if url.is_some() { 2 } else { 1 };
        let members = members(path, &collector, url.as_deref(), replicas)?;
        Ok(Self {
            members,
            ready_in: Vec::new(),
            probe: None,
            collector,
            issuer,
            trust,
            redis,
            directory,
        })
    }

    async fn come_up(&mut self, order: Order) -> Result<(), Failure> {
        let clock = SystemClock::default();
        match order {
            Order::Stated => {
                for number in 0..self.members.len() {
                    let before = clock.monotonic();
                    if let Some(member) = self.members.get_mut(number) {
                        member.start().await?;
                        let name = member.program.name.clone();
                        self.ready(&name).await?;
                        let took = clock.monotonic().saturating_sub(before);
                        self.ready_in.push((name, took));
                    }
                }
            }
            Order::Chance(seed) => {
                let mut random = StdRng::seed_from_u64(seed);
                let mut order: Vec<usize> = (0..self.members.len()).collect();
                order.shuffle(&mut random);
                let before = clock.monotonic();
                for number in order {
                    if let Some(member) = self.members.get_mut(number) {
                        member.start().await?;
                        self.ready_in.push((member.program.name.clone(), Duration::ZERO));
                    }
                }
                let names: Vec<String> = self.ready_in.iter().map(|(name, _)| name.clone()).collect();
                for (number, name) in names.iter().enumerate() {
                    self.ready(name).await?;
                    let took = clock.monotonic().saturating_sub(before);
                    if let Some(entry) = self.ready_in.get_mut(number) {
                        entry.1 = took;
                    }
                }
            }
        }
        let settings = settings(self.directory.path(), PROBE, PROBE, &self.collector);
        let registry = self.member("registry")?.url();
        let settings = [settings, vec![("agent.registry_url".to_owned(), registry)]].concat();
        self.probe = Some(Probe::start(&settings, self.directory.path())?);
        self.all_known().await
    }

    /// Waits until a part says that it can do its work.
    pub async fn ready(&mut self, name: &str) -> Result<(), Failure> {
        let trust = self.trust.clone();
        let member = self.member_mut(name)?;
        let endpoint =
            muster_rpc::endpoint::parse(&member.url()).map_err(|error| Failure::failed(error.to_string()))?;
        let security = trust.to(Workload::of_service(service(member.program.part)));
        // Each time anew: a channel that could not connect waits before it tries again.
        while !connect::says_serving(connect::unnamed(&endpoint, &security)).await {
            match &mut member.process {
                Some(process) => process.is_running()?,
                None => return Err(Failure::failed(format!("{name} is not started"))),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Waits until every router knows every agent.
    async fn all_known(&self) -> Result<(), Failure> {
        let wanted = AGENTS.len() + 1;
        for router in self
            .members
            .iter()
            .filter(|member| member.program.part == Part::Router)
        {
            let endpoints = Endpoints {
                router: router.url(),
                ..self.endpoints()?
            };
            let mut client = endpoints.router()?;
            loop {
                let status = client.get_status(GetStatusRequest {}).await;
                if status.is_ok_and(|status| status.into_inner().instances.len() >= wanted) {
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        while agents::all(&self.endpoints()?, &[], "").await?.len() < wanted {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Where the first of each answers, for the operator.
    pub fn endpoints(&self) -> Result<Endpoints, Failure> {
        Ok(Endpoints {
            registry: self.member("registry")?.url(),
            router: self.member("router-1")?.url(),
            engine: self.member("engine-1")?.url(),
            trust: self.trust.clone(),
            token: Token::default(),
        })
    }

    /// A part by its name.
    pub fn member(&self, name: &str) -> Result<&Member, Failure> {
        let found = self.members.iter().find(|member| member.program.name == name);
        found.ok_or_else(|| Failure::failed(format!("no part is called {name}")))
    }

    /// The same, to start and end it.
    pub fn member_mut(&mut self, name: &str) -> Result<&mut Member, Failure> {
        let found = self.members.iter_mut().find(|member| member.program.name == name);
        found.ok_or_else(|| Failure::failed(format!("no part is called {name}")))
    }

    /// How long each part took until it was ready, in the order of their starts.
    pub fn ready_in(&self) -> &[(String, Duration)] {
        &self.ready_in
    }

    /// Where its parts say how they are.
    pub fn places(&self) -> Vec<Place> {
        self.members.iter().map(Member::place).collect()
    }

    /// The agent of this process.
    pub fn probe(&self) -> Result<&Probe, Failure> {
        let probe = self.probe.as_ref();
        probe.ok_or_else(|| Failure::failed("the probe has not started"))
    }

    /// Where its traces go.
    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Who signs tokens for it.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whether there are replicas of what can have some.
    pub fn has_redis(&self) -> bool {
        self.redis.is_some()
    }

    /// Does something to a part.
    pub async fn act(&mut self, deed: Deed, name: &str) -> Result<(), Failure> {
        if let Some(redis) = self.redis.as_mut().filter(|_| name == REDIS) {
            return redis.act(deed).await;
        }
        let away = || Failure::failed(format!("{name} does not run"));
        match deed {
            Deed::Kill => {
                let process = self.member_mut(name)?.process.take().ok_or_else(away)?;
                process.kill().await;
                Ok(())
            }
            Deed::Start => {
                self.member_mut(name)?.start().await?;
                self.ready(name).await
            }
            Deed::Freeze => self.member(name)?.process.as_ref().ok_or_else(away)?.freeze(),
            Deed::Thaw => self.member(name)?.process.as_ref().ok_or_else(away)?.thaw(),
            Deed::Cut => network::cut(self.group(name)?).await,
            Deed::Join => network::join(self.group(name)?).await,
        }
    }

    /// The group by which a part can be cut off.
    fn group(&self, name: &str) -> Result<u32, Failure> {
        let group = self.member(name)?.program.group;
        group.ok_or_else(|| Failure::failed(format!("{name} needs {}", Need::Network.describe())))
    }

    /// Stops a part in good order, and waits until it has ended.
    pub async fn stop(&mut self, name: &str) -> Result<(), Failure> {
        let process = self.member_mut(name)?.process.take();
        let process = process.ok_or_else(|| Failure::failed(format!("{name} does not run")))?;
        process.ask_to_stop()?;
        let (status, _) = process.ended().await?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::failed(format!("{name} ended with {status}")))
    }

    /// One more engine, or instance of an agent, that shares the work of those that are there; ready when this returns.
    pub async fn add(&mut self, name: &str, part: Part) -> Result<(), Failure> {
        let directory = self.directory.path().join(name).display().to_string();
        let (section, more) = if part == Part::Engine {
            let router = ("engine.router_url", self.member("router-1")?.url());
            ("engine", [router, ("engine.data_directory", directory)])
        } else {
            let registry = ("agent.registry_url", self.member("registry")?.url());
            ("agent", [registry, ("agent.data_directory", directory)])
        };
        let mut member = self.spare(name, part, &more)?;
        if let Some(redis) = &self.redis {
            let setting = (
                format!("{section}.redis_cluster_endpoint"),
                format!("redis://{}", redis.address),
            );
            member.program.settings.push(setting);
        }
        member.start().await?;
        self.members.push(member);
        self.ready(name).await
    }

    /// Takes such an instance away again, in good order.
    pub async fn remove(&mut self, name: &str) -> Result<(), Failure> {
        let stopped = self.stop(name).await;
        self.members.retain(|member| member.program.name != name);
        stopped
    }

    /// The directory with the certificates.
    pub fn certificates(&self) -> PathBuf {
        self.directory.path().join("certificates")
    }

    /// Where a part writes its audit log.
    pub fn audit(&self, name: &str) -> PathBuf {
        self.directory.path().join("audit").join(name)
    }

    /// One more part under this name, beside the others and not started.
    pub fn spare(&self, name: &str, part: Part, more: &[(&str, String)]) -> Result<Member, Failure> {
        let path = self.directory.path();
        let mut settings = settings(path, name, service(part), &self.collector);
        settings.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let (addresses, _) = free()?;
        Ok(Member {
            program: Program {
                name: name.to_owned(),
                part,
                settings,
                log: path.join(format!("{name}.log")),
                group: network::group(),
            },
            addresses,
            process: None,
        })
    }

    /// A directory in it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The name of the Redis among the parts.
const REDIS: &str = "redis";

/// A Redis that writes before it answers.
struct Redis {
    server: PathBuf,
    address: String,
    path: PathBuf,
    process: Option<Kept>,
}

impl Redis {
    async fn start(server: PathBuf, path: &Path) -> Result<Self, Failure> {
        let (addresses, listeners) = free()?;
        drop(listeners);
        let mut redis = Self {
            server,
            address: addresses.data,
            path: path.to_owned(),
            process: None,
        };
        redis.begin().await?;
        Ok(redis)
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        self.process = Some(redis(&self.server, &self.address, &self.path).await?);
        Ok(())
    }

    async fn act(&mut self, deed: Deed) -> Result<(), Failure> {
        match deed {
            Deed::Kill => {
                // What keeps it kills it.
                if let Some(process) = self.process.take() {
                    process.stop().await;
                }
                Ok(())
            }
            Deed::Start => self.begin().await,
            Deed::Freeze | Deed::Thaw | Deed::Cut | Deed::Join => {
                Err(Failure::failed("a Redis of its own is killed only"))
            }
        }
    }
}

/// The key that tokens are signed with, its public half where the services read it.
fn issuer(path: &Path) -> Result<Issuer, Failure> {
    let (key, _) = Private::generate().map_err(Failure::failed)?;
    let public = key.key_set("").to_string();
    std::fs::write(path.join("jwks.json"), &public).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(Issuer {
        signer: Signer::Key(key, String::new()),
        name: ISSUER.to_owned(),
        public,
    })
}

/// The name by which certificates and settings know a part.
fn service(part: Part) -> &'static str {
    match part {
        Part::Engine => "workflow-engine",
        other => other.name(),
    }
}

/// What every part is told.
fn settings(path: &Path, name: &str, service: &str, collector: &Collector) -> Vec<(String, String)> {
    let file = |name: &str| path.join(name).display().to_string();
    let certificates = path.join("certificates");
    let certificate = |name: String| certificates.join(name).display().to_string();
    [
        ("telemetry.log_level", "WARN".to_owned()),
        ("telemetry.otlp.endpoint", collector.url().to_owned()),
        // Only what its caller wants to be recorded.
        ("telemetry.otlp.sample_ratio", "0".to_owned()),
        ("telemetry.otlp.batch_interval_milliseconds", "100".to_owned()),
        ("trust.mode", "native".to_owned()),
        (
            "trust.native.certificate",
            certificate(certs::certificate_file(service)),
        ),
        ("trust.native.key", certificate(certs::key_file(service))),
        ("trust.native.authorities", certificate(BUNDLE.to_owned())),
        ("trust.tokens.jwks_file", file("jwks.json")),
        ("trust.tokens.issuers", format!("[\"{ISSUER}\"]")),
        ("trust.audit.directory", file(&format!("audit/{name}"))),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

/// The parts, in the order in which they are needed.
fn members(
    path: &Path,
    collector: &Collector,
    redis: Option<&str>,
    replicas: usize,
) -> Result<Vec<Member>, Failure> {
    let numbered = |name: &str| {
        (1..=replicas)
            .map(|number| format!("{name}-{number}"))
            .collect::<Vec<_>>()
    };
    let mut parts = vec![("registry".to_owned(), Part::Registry)];
    parts.extend(numbered("router").into_iter().map(|name| (name, Part::Router)));
    parts.extend(AGENTS.map(|part| (part.name().to_owned(), part)));
    parts.extend(numbered("engine").into_iter().map(|name| (name, Part::Engine)));
    let mut members = Vec::with_capacity(parts.len());
    let mut kept = Vec::new();
    for (name, part) in parts {
        let (addresses, listeners) = free()?;
        // Until all are chosen, so that no port is chosen twice.
        kept.push(listeners);
        members.push(Member {
            program: Program {
                settings: settings(path, &name, service(part), collector),
                log: path.join(format!("{name}.log")),
                group: network::group(),
                name,
                part,
            },
            addresses,
            process: None,
        });
    }
    let urls: Vec<(String, String)> = members
        .iter()
        .map(|member| (member.program.name.clone(), member.url()))
        .collect();
    let url = |name: &str| {
        let found = urls.iter().find(|(known, _)| known == name);
        found.map(|(_, url)| url.clone()).unwrap_or_default()
    };
    for member in &mut members {
        let name = member.program.name.clone();
        let directory = |what: &str| path.join(what).display().to_string();
        let (section, more) = match member.program.part {
            Part::Registry => (
                "registry",
                vec![
                    ("registry.health_check_interval", "1".to_owned()),
                    ("registry.lease_duration", "5".to_owned()),
                ],
            ),
            Part::Router => (
                "router",
                vec![
                    ("router.registry_url", url("registry")),
                    ("router.data_directory", directory(&name)),
                ],
            ),
            Part::Engine => (
                "engine",
                vec![
                    ("engine.router_url", url(&name.replace("engine", "router"))),
                    ("engine.data_directory", directory(&name)),
                ],
            ),
            _ => (
                "agent",
                vec![
                    ("agent.registry_url", url("registry")),
                    ("agent.data_directory", directory("agents")),
                ],
            ),
        };
        let settings = &mut member.program.settings;
        settings.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        if let Some(redis) = redis {
            settings.push((format!("{section}.redis_cluster_endpoint"), redis.to_owned()));
        }
    }
    Ok(members)
}

/// Free ports, and what keeps them so for now.
fn free() -> Result<(Addresses, [TcpListener; 3]), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("a free port: {error}"));
    let bind = || TcpListener::bind("127.0.0.1:0").map_err(failed);
    let listeners = [bind()?, bind()?, bind()?];
    let mut addresses = Vec::with_capacity(listeners.len());
    for listener in &listeners {
        addresses.push(listener.local_addr().map_err(failed)?.to_string());
    }
    let [data, health, metrics] = <[String; 3]>::try_from(addresses)
        .map_err(|_| Failure::failed("three listeners have three addresses"))?;
    let addresses = Addresses {
        data,
        health,
        metrics,
    };
    Ok((addresses, listeners))
}

/// Where `redis-server` is, if it is installed.
fn redis_server() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join("redis-server"))
        .find(|program| program.is_file())
}

/// Starts it; it is killed with what is returned.
async fn redis(server: &Path, address: &str, path: &Path) -> Result<Kept, Failure> {
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    let data = path.join("redis");
    std::fs::create_dir_all(&data).map_err(|error| Failure::failed(error.to_string()))?;
    let log = path.join("redis.log");
    let own = [
        server.display().to_string(),
        "--port".to_owned(),
        port.to_owned(),
        "--bind".to_owned(),
        "127.0.0.1".to_owned(),
        "--dir".to_owned(),
        data.display().to_string(),
        "--save".to_owned(),
        String::new(),
        "--appendonly".to_owned(),
        "yes".to_owned(),
        "--appendfsync".to_owned(),
        "always".to_owned(),
        "--maxmemory-policy".to_owned(),
        "noeviction".to_owned(),
    ];
    let keeper = [
        "route-part".to_owned(),
        "keeper".to_owned(),
        "--address".to_owned(),
        address.to_owned(),
        "--log".to_owned(),
        log.display().to_string(),
        "--".to_owned(),
    ];
    let arguments = [&keeper[..], &own].concat();
    Kept::start("Redis", &arguments, End::WithInput).await
}

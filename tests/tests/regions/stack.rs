//! What runs in a region: registry, router, engine and agent, a Redis of its own for leases, tasks and inboxes, and its part of the
//! store of all runs: a Redis and a Sentinel, started by the very scripts of `deploy/kubernetes/components/redis-regions`.
//!
//! All speak mutual TLS with each other, as what listens beyond loopback does.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use muster_testkit::{Process, Program, http, wait_for};
use muster_tests::repository_file;
use serde_json::json;

use crate::world::Network;
use crate::{PATIENCE, agent};

/// The primary region first, and each in the order in which the others turn to it.
pub const REGIONS: [&str; 3] = ["us-east-1", "us-west-2", "eu-west-1"];

/// The ports of what is no program of ours; addresses tell regions apart.
const OWN_REDIS: u16 = 6379;
const RUNS: u16 = 6380;
const SENTINEL: u16 = 26379;

const PASSWORD: &str = "of-the-test";

/// The files that all regions have.
pub struct Place {
    root: PathBuf,
}

impl Place {
    /// With the certificates of everybody, and the password of the store.
    pub async fn make(root: &Path) -> Self {
        let place = Self {
            root: root.to_owned(),
        };
        let certificates = place.certificates().display().to_string();
        for arguments in [
            ["certs", "init", &certificates].as_slice(),
            &["certs", "issue", &certificates, agent::ID],
        ] {
            let _done = muster_tests::muster(&[], arguments).await.success();
        }
        std::fs::create_dir(place.path("secrets")).unwrap();
        std::fs::write(place.path("secrets/password"), PASSWORD).unwrap();
        let conf = format!("requirepass {PASSWORD}\nmasterauth {PASSWORD}\n");
        std::fs::write(place.path("secrets/auth.conf"), conf).unwrap();
        place
    }

    /// Where everybody's certificates are.
    pub fn certificates(&self) -> PathBuf {
        self.path("certificates")
    }

    /// What the agents were sent.
    pub fn ledgers(&self) -> Vec<PathBuf> {
        REGIONS
            .iter()
            .map(|region| self.path(&format!("{region}.sent")))
            .collect()
    }

    /// A file with this text.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// See the module.
pub struct Region {
    pub name: &'static str,
    pub network: Network,
    pub registry: Program,
    pub router: Program,
    pub engine: Program,
    agent: Program,
    own_redis: Program,
    runs: Program,
    sentinel: Program,
    environment: Vec<(String, String)>,
    running: Vec<Process>,
}

impl Region {
    /// The three, each ready, and the store of the runs settled.
    pub async fn start_all(place: &Place) -> Vec<Self> {
        let mut programs = Vec::new();
        for (number, name) in (1..).zip(REGIONS) {
            programs.push((Network::make(name, number).await, name));
        }
        // Registries name each other, so the ports are chosen before.
        let registries: Vec<Program> = programs
            .iter()
            .map(|(network, _)| network.program(&Program::path_of("muster-registry")))
            .collect();
        let urls: Vec<String> = programs
            .iter()
            .zip(&registries)
            .map(|((network, _), registry)| format!("https://{}", network.at(registry.ports().data)))
            .collect();
        let mut regions = Vec::new();
        for ((network, name), registry) in programs.into_iter().zip(registries) {
            let region = Self::describe(place, network, name, registry, &urls);
            region.make_directories(place);
            regions.push(region);
        }
        join_all(regions.iter_mut().map(Self::start)).await;
        for region in &regions {
            region.sees_all().await;
        }
        regions
    }

    fn describe(
        place: &Place,
        network: Network,
        name: &'static str,
        registry: Program,
        registries: &[String],
    ) -> Self {
        let address = network.address();
        let data = |what: &str| place.path(&format!("{name}/{what}")).display().to_string();
        let own_redis_url = format!("redis://{address}:{OWN_REDIS}");
        let at = |port: u16| (1..=3).map(move |number| format!("{}:{port}", Network::address_of(number)));
        let sentinels: Vec<String> = at(SENTINEL).collect();
        let store = format!("redis+sentinel://:{PASSWORD}@{}/runs", sentinels.join(","));
        let others = REGIONS.iter().filter(|other| **other != name);
        let peers = REGIONS
            .iter()
            .zip(registries)
            .filter(|(other, _)| **other != name);
        let peers: Vec<_> = peers
            .map(|(region, url)| json!({"region": region, "url": url}))
            .collect();

        let registry = secured(registry, place, address, "registry")
            .env("MUSTER__REGISTRY__REDIS_CLUSTER_ENDPOINT", &own_redis_url)
            .env("MUSTER__REGISTRY__HEALTH_CHECK_INTERVAL", "2")
            .env("MUSTER__REGISTRY__LEASE_DURATION", "10")
            .env("MUSTER__REGISTRY__FEDERATION__REGION", name)
            .env("MUSTER__REGISTRY__FEDERATION__PEERS", json!(peers).to_string());
        let registry_url = format!("https://{}", network.at(registry.ports().data));
        let service = |binary: &str, identity: &str| {
            let program = network.program(&Program::path_of(binary));
            secured(program, place, address, identity)
        };
        let router = service("muster-router", "router")
            .env("MUSTER__ROUTER__REGISTRY_URL", &registry_url)
            .env("MUSTER__ROUTER__REDIS_CLUSTER_ENDPOINT", &own_redis_url)
            .env("MUSTER__ROUTER__DATA_DIRECTORY", "")
            .env("MUSTER__ROUTER__SLOW_START_SECONDS", "0")
            .env("MUSTER__ROUTER__REGION", name)
            .env(
                "MUSTER__ROUTER__REGION_ORDER",
                json!(others.collect::<Vec<_>>()).to_string(),
            );
        let engine = service("muster-workflow-engine", "workflow-engine")
            .env(
                "MUSTER__ENGINE__ROUTER_URL",
                format!("https://{}", network.at(router.ports().data)),
            )
            .env("MUSTER__ENGINE__REDIS_CLUSTER_ENDPOINT", store)
            .env("MUSTER__ENGINE__DATA_DIRECTORY", data("engine"));
        let test = std::env::current_exe().unwrap();
        let agent = network
            .program(&test)
            .arg(agent::TEST)
            .arg("--exact")
            .arg("--nocapture");
        let agent = secured(agent, place, address, agent::ID)
            .env(
                agent::ROLE,
                place.path(&format!("{name}.sent")).display().to_string(),
            )
            .env("MUSTER__AGENT__REGISTRY_URL", &registry_url)
            .env("MUSTER__AGENT__REGION", name)
            .env("MUSTER__AGENT__REDIS_CLUSTER_ENDPOINT", &own_redis_url)
            .env("MUSTER__AGENT__DATA_DIRECTORY", "");

        let environment: Vec<(String, String)> = [
            ("SECRETS", place.path("secrets").display().to_string()),
            ("FIRST_PRIMARY", format!("{}:{RUNS}", Network::address_of(1))),
            ("SENTINELS", sentinels.join(" ")),
            ("SELF", format!("{address}:{RUNS}")),
            ("DATA", data("runs")),
            ("REDISCLI_AUTH", PASSWORD.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let script = |name: &str| {
            let program = network.program(Path::new("sh")).arg(component(name));
            environment
                .iter()
                .fold(program, |program, (name, value)| program.env(name, value))
        };
        let runs = script("start-redis.sh");
        let sentinel = script("start-sentinel.sh")
            .env("SELF", format!("{address}:{SENTINEL}"))
            .env("DATA", data("sentinel"));
        let own_redis = network
            .program(Path::new("redis-server"))
            .arg("--port")
            .arg(OWN_REDIS.to_string())
            .arg("--protected-mode")
            .arg("no")
            .arg("--dir")
            .arg(data("own"))
            .arg("--appendonly")
            .arg("yes")
            .arg("--appendfsync")
            .arg("always");
        Self {
            name,
            network,
            registry,
            router,
            engine,
            agent,
            own_redis,
            runs,
            sentinel,
            environment,
            running: Vec::new(),
        }
    }

    fn make_directories(&self, place: &Place) {
        for what in ["engine", "own", "runs", "sentinel"] {
            std::fs::create_dir_all(place.path(&format!("{}/{what}", self.name))).unwrap();
        }
    }

    /// Starts everything of it, and waits until it is ready.
    pub async fn start(&mut self) {
        for program in [&self.own_redis, &self.runs, &self.sentinel] {
            self.running.push(program.start());
        }
        wait_for("the region's Redis to answer", PATIENCE, async || {
            self.ask(OWN_REDIS, &["ping"]).await == "PONG\n" && self.ask(RUNS, &["ping"]).await == "PONG\n"
        })
        .await;
        let ours = [&self.registry, &self.router, &self.engine, &self.agent];
        for program in ours {
            self.running.push(program.start());
        }
        for program in ours {
            let health = self.network.at(program.ports().health);
            wait_for("a service of the region to be ready", PATIENCE, async || {
                let ready = http::get(health, "/ready").await.map_err(|error| {
                    let said = self.running.iter().map(Process::stderr);
                    format!("{error}; {}", said.collect::<String>())
                })?;
                if ready.status == 200 {
                    Ok(())
                } else {
                    Err(ready.text())
                }
            })
            .await;
        }
    }

    /// What its processes warned of.
    pub fn warnings(&self) -> String {
        let said = self.running.iter().map(|one| one.stdout() + &one.stderr());
        let lines = said.collect::<String>();
        let warnings = lines.lines().filter(|line| {
            ["WARN", "ERROR", "partition", "store"]
                .iter()
                .any(|word| line.contains(word))
        });
        warnings.map(|line| format!("{}: {line}\n", self.name)).collect()
    }

    /// Kills everything of it at once, as a power cut would.
    pub async fn kill(&mut self) {
        join_all(std::mem::take(&mut self.running).into_iter().map(Process::kill)).await;
    }

    /// Waits until its Sentinel knows the others, and both replicas.
    async fn sees_all(&self) {
        wait_for("the Sentinels to know each other", PATIENCE, async || {
            let known = self.ask(SENTINEL, &["sentinel", "master", "runs"]).await;
            let has = |name: &str, value: &str| known.contains(&format!("{name}\n{value}\n"));
            if has("num-other-sentinels", "2") && has("num-slaves", "2") && has("flags", "master") {
                Ok(())
            } else {
                Err(known)
            }
        })
        .await;
    }

    /// Who its Sentinel says is the primary.
    pub async fn primary(&self) -> Option<Ipv4Addr> {
        let command = ["sentinel", "get-master-addr-by-name", "runs"];
        let told = self.ask(SENTINEL, &command).await;
        told.lines().next().and_then(|line| line.parse().ok())
    }

    /// How far its Redis of the runs has come, and whether it takes part: leads, or follows who leads.
    pub async fn offset(&self) -> (u64, bool) {
        let told = self.ask(RUNS, &["info", "replication"]).await;
        let field = |name: &str| {
            let found = told.lines().find_map(|line| line.strip_prefix(name));
            found.map(|value| value.trim().to_owned()).unwrap_or_default()
        };
        let leads = field("role:") == "master";
        let offset = if leads {
            field("master_repl_offset:")
        } else {
            field("slave_repl_offset:")
        };
        (
            offset.parse().unwrap_or_default(),
            leads || field("master_link_status:") == "up",
        )
    }

    /// Makes its Redis the primary of the runs, by the script for that.
    pub async fn lead(&self) {
        self.sees_all().await;
        let script = component("lead.sh");
        let (led, said, complained) = self.network.run(&self.environment, &["sh", &script]).await;
        assert!(led, "{said}{complained}");
    }

    /// Runs the command line in its network.
    pub async fn muster(&self, place: &Place, arguments: &[&str]) -> (bool, String, String) {
        let url = |program: &Program| format!("https://{}", self.network.at(program.ports().data));
        let environment = [
            ("MUSTER_REGISTRY_URL", url(&self.registry)),
            ("MUSTER_ROUTER_URL", url(&self.router)),
            ("MUSTER_ENGINE_URL", url(&self.engine)),
            ("MUSTER_CERTIFICATES", place.certificates().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let program = Program::path_of("muster").display().to_string();
        let command: Vec<&str> = std::iter::once(program.as_str())
            .chain(arguments.iter().copied())
            .collect();
        self.network.run(&environment, &command).await
    }

    /// Asks one of its Redis, from inside, so that it also answers while it is cut off.
    async fn ask(&self, port: u16, command: &[&str]) -> String {
        let (address, port) = (self.network.address().to_string(), port.to_string());
        let mut all = vec!["redis-cli", "--no-auth-warning", "-h", &address, "-p", &port];
        all.extend(command);
        self.network.run(&self.environment, &all).await.1
    }
}

fn secured(program: Program, place: &Place, address: Ipv4Addr, identity: &str) -> Program {
    let file = |name: String| place.certificates().join(name).display().to_string();
    program
        .env("MUSTER__SERVER__HOST", address.to_string())
        .env("MUSTER__TRUST__MODE", "native")
        .env(
            "MUSTER__TRUST__NATIVE__CERTIFICATE",
            file(format!("{identity}.pem")),
        )
        .env("MUSTER__TRUST__NATIVE__KEY", file(format!("{identity}-key.pem")))
        .env(
            "MUSTER__TRUST__NATIVE__AUTHORITIES",
            file("bundle.pem".to_owned()),
        )
}

fn component(script: &str) -> String {
    let folder = repository_file("deploy/kubernetes/components/redis-regions");
    folder.join(script).display().to_string()
}

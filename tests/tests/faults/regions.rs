//! Three regions, each with a registry, a router and agents: calls stay at home while home can take them, go elsewhere when
//! it cannot, and come back. A registry that is away takes nobody's routing down.

use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{GetStatisticsRequest, ListAgentsRequest};
use muster_api::router::GetStatusResponse;
use muster_testkit::{Process, Program, wait_for};
use muster_tests::PATIENCE;
use serde_json::json;
use tempfile::TempDir;

use crate::system::{Running, channel, configured, message, router_status, said};
use crate::worker;

const REGIONS: [&str; 3] = ["eu", "us", "ap"];

/// Leases short enough to wait for, and long enough for a machine under load.
const REGISTRY: [(&str, &str); 2] = [
    ("REGISTRY__HEALTH_CHECK_INTERVAL", "1"),
    ("REGISTRY__LEASE_DURATION", "10"),
];

/// Routers that return at once when the own region is back, and know whom to ask when it is away. How calls return little by
/// little is a property of the balancer.
const ROUTER: [(&str, &str); 2] = [
    ("ROUTER__SLOW_START_SECONDS", "0"),
    ("ROUTER__REGION_ORDER", r#"["us","ap"]"#),
];

struct Region {
    name: &'static str,
    registry: Program,
    running: Option<Process>,
    router: Running,
}

struct Regions {
    all: Vec<Region>,
    directory: TempDir,
}

impl Regions {
    /// Every registry follows both others, and shows the agents of one that is away for so long.
    async fn start(grace_seconds: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let registries = REGIONS.map(|_| configured(Program::named("muster-registry"), &REGISTRY));
        let urls = registries.each_ref().map(Program::url);
        let mut all = Vec::new();
        for (index, (name, registry)) in REGIONS.into_iter().zip(registries).enumerate() {
            let others = REGIONS.iter().zip(&urls).filter(|(other, _)| **other != name);
            let peers: Vec<_> = others
                .map(|(region, url)| json!({"region": region, "url": url}))
                .collect();
            let registry = registry
                .env("MUSTER__REGISTRY__FEDERATION__REGION", name)
                .env("MUSTER__REGISTRY__FEDERATION__PEERS", json!(peers).to_string())
                .env("MUSTER__REGISTRY__FEDERATION__GRACE_SECONDS", grace_seconds);
            let running = Some(registry.start_ready().await);
            let own = directory.path().join(format!("router-{index}"));
            let router = configured(Program::named("muster-router"), &ROUTER)
                .env("MUSTER__ROUTER__REGISTRY_URL", registry.url())
                .env("MUSTER__ROUTER__REGION", name)
                .env("MUSTER__ROUTER__DATA_DIRECTORY", own.display().to_string());
            let router = Running::of(router).await;
            all.push(Region {
                name,
                registry,
                running,
                router,
            });
        }
        Self { all, directory }
    }

    fn region(&self, name: &str) -> &Region {
        self.all
            .iter()
            .find(|region| region.name == name)
            .expect("one of them")
    }

    /// Starts an agent in a region.
    async fn worker(&self, region: &str) -> Running {
        let program = Program::at(std::env::current_exe().expect("a running test has a path"));
        let own = self.directory.path().join(program.ports().data.to_string());
        let program = program
            .arg(worker::TEST)
            .arg("--exact")
            .arg("--nocapture")
            .env(worker::ROLE, "worker")
            .env("MUSTER__AGENT__REGISTRY_URL", self.region(region).registry.url())
            .env("MUSTER__AGENT__DATA_DIRECTORY", own.display().to_string());
        Running::of(program).await
    }

    async fn status(&self, region: &str) -> Result<GetStatusResponse, String> {
        router_status(&self.region(region).router.program).await
    }

    /// The regions of the instances that a router knows, in order.
    async fn known(&self, region: &str) -> Result<Vec<String>, String> {
        let instances = self.status(region).await?.instances;
        let mut regions: Vec<String> = instances.into_iter().map(|it| it.region).collect();
        regions.sort();
        Ok(regions)
    }

    /// Waits until the routers of these regions know instances of exactly these.
    async fn know(&self, routers: &[&str], expected: &[&str]) {
        for router in routers {
            wait_for(&format!("{router} to know {expected:?}"), PATIENCE, async || {
                let known = self.known(router).await?;
                if known == expected {
                    Ok(())
                } else {
                    Err(format!("{known:?}"))
                }
            })
            .await;
        }
    }

    /// The region in which a call through a region's router is answered.
    async fn answers(&self, region: &str) -> Result<String, String> {
        let mut client = muster_a2a::grpc::client(channel(&self.region(region).router.program));
        let answer = client.send_message(message("worker", "echo hello")).await;
        let answer = answer.map_err(|status| format!("{status:?}"))?;
        let instance = answer.metadata().get("muster-instance").cloned();
        assert_eq!(said(answer.into_inner()), "hello");
        let instance = instance
            .and_then(|id| id.to_str().ok().map(str::to_owned))
            .unwrap_or_default();
        let instances = self.status(region).await?.instances;
        let by = instances.into_iter().find(|it| it.instance_id == instance);
        by.map(|it| it.region)
            .ok_or_else(|| format!("{instance} is gone"))
    }

    /// Waits until calls through a region's router are answered there.
    async fn go_to(&self, router: &str, region: &str) {
        wait_for(
            &format!("calls from {router} to go to {region}"),
            PATIENCE,
            async || {
                let answered = self.answers(router).await?;
                if answered == region {
                    Ok(())
                } else {
                    Err(format!("answered in {answered}"))
                }
            },
        )
        .await;
    }

    async fn peer(&self, of: &str, region: &str) -> Result<(bool, u64), String> {
        let mut client = RegistryServiceClient::connect(self.region(of).registry.url())
            .await
            .map_err(|error| error.to_string())?;
        let counted = client.get_statistics(GetStatisticsRequest::default()).await;
        let peers = counted.map_err(|status| status.to_string())?.into_inner().peers;
        let peer = peers.into_iter().find(|peer| peer.region == region);
        let peer = peer.ok_or("no such peer")?;
        Ok((peer.connected, peer.statistics.unwrap_or_default().instances))
    }

    /// Waits until a registry follows a peer, or does not, with so many instances.
    async fn follows(&self, of: &str, region: &str, expected: (bool, u64)) {
        wait_for(
            &format!("{of} to see {region} as {expected:?}"),
            PATIENCE,
            async || {
                let peer = self.peer(of, region).await?;
                if peer == expected {
                    Ok(())
                } else {
                    Err(format!("{peer:?}"))
                }
            },
        )
        .await;
    }
}

#[tokio::test]
async fn calls_stay_in_their_region_spill_over_when_it_is_gone_and_come_back() {
    let regions = Regions::start("300").await;
    let mut workers = Vec::new();
    for region in REGIONS {
        workers.push(regions.worker(region).await);
    }
    regions.know(&REGIONS, &["ap", "eu", "us"]).await;
    for region in REGIONS {
        for _ in 0..5 {
            assert_eq!(regions.answers(region).await.unwrap(), region);
        }
    }

    // Whom to ask first when home is gone, says the order.
    workers.remove(0).process.kill().await;
    for round in 0..10 {
        // The dead one is in the view until its lease ends, and nobody notices.
        let answered = regions.answers("eu").await;
        assert_eq!(answered.as_deref(), Ok("us"), "round {round}");
    }
    regions.know(&REGIONS, &["ap", "us"]).await;
    let status = regions.status("eu").await.unwrap();
    assert_eq!(status.region, "eu");
    let abroad = status.regions.iter().find(|row| row.region == "us").unwrap();
    assert!(abroad.sent_total >= 10, "{status:?}");

    let _back = regions.worker("eu").await;
    regions.know(&REGIONS, &["ap", "eu", "us"]).await;
    regions.go_to("eu", "eu").await;
    wait_for("all calls to stay at home again", PATIENCE, async || {
        for _ in 0..10 {
            let answered = regions.answers("eu").await?;
            if answered != "eu" {
                return Err(answered);
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_is_gone_keeps_its_agents_elsewhere_for_the_grace() {
    let mut regions = Regions::start("10").await;
    let worker = regions.worker("us").await;
    regions.know(&REGIONS, &["us"]).await;
    let us = regions.all.iter_mut().find(|region| region.name == "us").unwrap();
    us.running.take().unwrap().kill().await;
    // Still reachable from everywhere: at home by the last view, elsewhere for the grace.
    for region in REGIONS {
        assert_eq!(regions.answers(region).await.as_deref(), Ok("us"));
    }
    regions.follows("eu", "us", (false, 0)).await;
    regions.know(&["eu", "ap"], &[]).await;
    assert_eq!(
        regions.known("us").await.unwrap(),
        ["us"],
        "its own router has its last view"
    );
    assert_eq!(regions.answers("us").await.as_deref(), Ok("us"));

    // The agent registers again by itself, and is found everywhere.
    let us = regions.all.iter_mut().find(|region| region.name == "us").unwrap();
    us.running = Some(us.registry.start_ready().await);
    regions.know(&REGIONS, &["us"]).await;
    regions.follows("eu", "us", (true, 1)).await;
    regions.go_to("ap", "us").await;
    drop(worker);
}

#[tokio::test]
async fn a_registry_that_hangs_is_noticed_and_followed_again_when_it_is_well() {
    let regions = Regions::start("300").await;
    let _worker = regions.worker("us").await;
    regions.know(&["eu"], &["us"]).await;
    let us = regions.region("us").running.as_ref().unwrap();
    us.signal("STOP").await;
    // Nothing ends the connection; its pings are not answered.
    regions.follows("eu", "us", (false, 1)).await;
    let mut client = RegistryServiceClient::connect(regions.region("eu").registry.url())
        .await
        .unwrap();
    let listed = client
        .list_agents(ListAgentsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let origin = listed.agents[0].instances[0].origin.clone().unwrap();
    assert!(
        origin.region == "us" && origin.stale_since.is_some(),
        "{origin:?}"
    );
    assert_eq!(
        regions.answers("eu").await.as_deref(),
        Ok("us"),
        "it is only the registry"
    );
    us.signal("CONT").await;
    regions.follows("eu", "us", (true, 1)).await;
    regions.go_to("eu", "us").await;
}

/// The addresses of what runs, for the command line.
fn environment(region: &Region) -> Vec<(String, String)> {
    vec![
        ("MUSTER_REGISTRY_URL".to_owned(), region.registry.url()),
        ("MUSTER_ROUTER_URL".to_owned(), region.router.program.url()),
    ]
}

#[tokio::test]
async fn the_command_line_shows_regions_and_where_agents_are_from() {
    let regions = Regions::start("300").await;
    let _workers = [regions.worker("eu").await, regions.worker("us").await];
    regions.know(&["eu"], &["eu", "us"]).await;
    let environment = environment(regions.region("eu"));
    let list = async |arguments: &[&str]| muster_tests::muster(&environment, arguments).await.success();
    let all = list(&["agents", "list"]).await.stdout;
    assert!(all.contains("ORIGIN") && all.contains("here (eu)"), "{all}");
    assert!(
        all.contains("of other regions (us, ap): 1 agents, 1 instances"),
        "{all}"
    );
    let json = list(&["agents", "list", "--region", "us", "-o", "json"])
        .await
        .json();
    let instances = json["agents"][0]["instances"].as_array().unwrap();
    assert_eq!(instances.len(), 1, "{json}");
    assert_eq!(instances[0]["origin"]["region"], "us");
    assert_eq!(json["statistics"]["peers"][0]["connected"], true);
    // There is no engine, which is not what is looked for here.
    let status = muster_tests::muster(&environment, &["status", "-o", "json"]).await;
    let status: serde_json::Value = serde_json::from_str(status.stdout.trim()).unwrap();
    assert_eq!(status["router"]["region"], "eu", "{status}");
    assert_eq!(status["registry"]["statistics"]["foreign"]["instances"], 1);
}

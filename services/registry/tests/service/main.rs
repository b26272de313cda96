//! The registry as its clients see it: a real server on free ports, the generated client.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod federation;
mod following;
mod managed;
mod reach;

use std::net::SocketAddr;
use std::time::Duration;

use muster_api::error::{Error, Reason};
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::watch_agents_response::Change;
use muster_api::{a2a, registry as proto};
use muster_registry::{Config, Settings};
use muster_runtime::{Listeners, Shutdown};
use muster_testkit::{FakeAgent, http, wait_for};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const SOON: Duration = Duration::from_secs(30);

struct Server {
    data: SocketAddr,
    client: RegistryServiceClient<Channel>,
    health: SocketAddr,
    metrics: SocketAddr,
    shutdown: Shutdown,
    run: JoinSet<Result<(), muster_runtime::Error>>,
}

impl Server {
    async fn start(settings: Settings) -> Self {
        Self::start_on(Listeners::ephemeral().expect("free ports"), settings).await
    }

    /// The same on ports that are known before.
    async fn start_on(listeners: Listeners, settings: Settings) -> Self {
        let config = Config {
            registry: settings,
            ..Config::default()
        };
        Self::start_with(listeners, config).await
    }

    async fn start_with(listeners: Listeners, config: Config) -> Self {
        let (data, health, metrics) = (
            listeners.data_address(),
            listeners.health_address(),
            listeners.metrics_address(),
        );
        let shutdown = Shutdown::new();
        let mut run = JoinSet::new();
        run.spawn(muster_registry::run(config, listeners, shutdown.clone()));
        let channel = Channel::from_shared(format!("http://{data}")).expect("a URL");
        let channel = channel.connect().await.expect("the registry listens");
        Self {
            data,
            client: RegistryServiceClient::new(channel),
            health,
            metrics,
            shutdown,
            run,
        }
    }

    /// Settings under which nobody needs to listen at an endpoint.
    async fn start_without_probe() -> Self {
        Self::start(Settings {
            probe_endpoints: false,
            ..Settings::default()
        })
        .await
    }

    /// Waits until it takes calls.
    async fn ready(&self) {
        wait_for("readiness", SOON, async || {
            http::get(self.health, "/ready")
                .await
                .is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// Ends it as its operator does.
    async fn stop(mut self) {
        self.shutdown.trigger();
        drop(self.client);
        let ended = tokio::time::timeout(SOON, self.run.join_next());
        let ended = ended.await.expect("it ends").expect("it runs");
        ended.expect("no panic").expect("a clean end");
    }

    async fn register(&mut self, instance: proto::Instance) -> Result<proto::RegisterResponse, Status> {
        let request = proto::RegisterRequest {
            instance: Some(instance),
        };
        self.client
            .register(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Watches all, from the beginning.
    async fn watch(&mut self) -> Streaming<proto::WatchAgentsResponse> {
        let stream = self.client.watch_agents(proto::WatchAgentsRequest::default());
        stream.await.expect("watched").into_inner()
    }

    async fn granted(&mut self, instance: proto::Instance) -> proto::Lease {
        self.register(instance)
            .await
            .expect("granted")
            .lease
            .expect("every grant has a lease")
    }

    async fn beat(&mut self, lease: &proto::Lease, load: f64) -> Result<proto::HeartbeatResponse, Status> {
        let request = proto::HeartbeatRequest {
            lease_id: lease.lease_id.clone(),
            load,
            ..Default::default()
        };
        self.client
            .heartbeat(request)
            .await
            .map(tonic::Response::into_inner)
    }

    async fn discover(&mut self, skills: &[&str]) -> proto::DiscoverResponse {
        let skills = skills.iter().map(|&skill| skill.to_owned()).collect();
        let request = proto::DiscoverRequest {
            skills,
            ..Default::default()
        };
        self.client
            .discover(request)
            .await
            .expect("an answer")
            .into_inner()
    }

    async fn statistics(&mut self) -> proto::GetStatisticsResponse {
        let asked = proto::GetStatisticsRequest::default();
        let counted = self.client.get_statistics(asked).await;
        counted.expect("an answer").into_inner()
    }

    async fn metric(&self, line: &str) {
        wait_for(line, SOON, async || {
            let text = http::get(self.metrics, "/metrics").await?.text();
            if text.lines().any(|known| known == line) {
                Ok(())
            } else {
                Err(text)
            }
        })
        .await;
    }
}

fn instance(agent_id: &str, skills: &[&str]) -> proto::Instance {
    let skill = |id: &&str| a2a::AgentSkill {
        id: (*id).to_owned(),
        ..Default::default()
    };
    proto::Instance {
        agent_id: agent_id.to_owned(),
        card: Some(a2a::AgentCard {
            name: agent_id.to_owned(),
            skills: skills.iter().map(skill).collect(),
            ..Default::default()
        }),
        endpoint: "http://127.0.0.1:9".to_owned(),
        ..Default::default()
    }
}

fn told(status: &Status) -> Error {
    Error::from_status(status).unwrap_or_else(|| panic!("not one of our errors: {status:?}"))
}

#[tokio::test]
async fn an_agent_lives_from_registration_to_farewell() {
    let mut server = Server::start(Settings::default()).await;
    let agent = FakeAgent::start("weather").await;
    let granted = server
        .register(agent.instance(&["forecast", "alerts"]))
        .await
        .unwrap();
    let (lease, known) = (granted.lease.unwrap(), granted.instance.unwrap());
    assert_eq!(lease.time_to_live.unwrap().seconds, 90);
    assert_eq!(lease.heartbeat_interval.unwrap().seconds, 30);
    assert_eq!((lease.epoch, known.namespace.as_str()), (known.epoch, "default"));
    assert!(known.registered_at.is_some() && !known.instance_id.is_empty());

    server.beat(&lease, 0.25).await.unwrap();
    let found = server.discover(&["forecast", "alerts"]).await.instances;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].load, &found[0].endpoint), (0.25, &agent.endpoint()));
    assert_eq!(
        server.discover(&[]).await.instances.len(),
        1,
        "no skill is no filter"
    );

    let get = proto::GetAgentRequest {
        agent_id: "weather".to_owned(),
        ..Default::default()
    };
    let got = server
        .client
        .get_agent(get.clone())
        .await
        .unwrap()
        .into_inner()
        .agent
        .unwrap();
    assert_eq!(got.card, known.card);

    let drain = proto::DrainRequest {
        agent_id: "weather".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        server.client.drain(drain).await.unwrap().into_inner().instances,
        1
    );
    assert!(server.beat(&lease, 0.0).await.unwrap().drain_requested);
    assert!(server.discover(&[]).await.instances.is_empty());

    let farewell = proto::DeregisterRequest {
        lease_id: lease.lease_id.clone(),
    };
    server.client.deregister(farewell.clone()).await.unwrap();
    server
        .client
        .deregister(farewell)
        .await
        .expect("a second farewell is no error");
    assert_eq!(
        told(&server.beat(&lease, 0.0).await.unwrap_err()).reason,
        Reason::LeaseNotFound
    );
    assert_eq!(
        server.client.get_agent(get).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn every_bad_field_is_refused_by_name() {
    type Bad = fn(&mut proto::Instance);
    let bad: [(&str, Bad); 6] = [
        ("instance.agent_id", |i| i.agent_id = "Weather!".to_owned()),
        ("instance.card.skills", |i| {
            i.card.as_mut().unwrap().skills.clear()
        }),
        ("instance.endpoint", |i| i.endpoint = "weather:7411".to_owned()),
        ("instance.load", |i| i.load = -0.1),
        ("instance.instance_id", |i| i.instance_id = "first".to_owned()),
        ("instance.status", |i| i.status = 99),
    ];
    let mut server = Server::start_without_probe().await;
    let mut refusals = Vec::new();
    for (field, change) in bad {
        let mut instance = instance("weather", &["s"]);
        change(&mut instance);
        refusals.push((field, server.register(instance).await.unwrap_err()));
    }
    refusals.push((
        "instance",
        server
            .client
            .register(proto::RegisterRequest::default())
            .await
            .unwrap_err(),
    ));

    let lease = server.granted(instance("weather", &["s"])).await;
    for load in [-0.01, 1.01, f64::NAN, f64::INFINITY] {
        refusals.push(("load", server.beat(&lease, load).await.unwrap_err()));
    }
    let nonsense = proto::Lease {
        lease_id: "x".to_owned(),
        ..Default::default()
    };
    refusals.push(("lease_id", server.beat(&nonsense, 0.0).await.unwrap_err()));
    let deregister = proto::DeregisterRequest::default();
    refusals.push((
        "lease_id",
        server.client.deregister(deregister).await.unwrap_err(),
    ));
    let discover = proto::DiscoverRequest {
        max_load: Some(2.0),
        ..Default::default()
    };
    refusals.push(("max_load", server.client.discover(discover).await.unwrap_err()));
    let drain = proto::DrainRequest {
        instance_id: "x".to_owned(),
        agent_id: "a".to_owned(),
        ..Default::default()
    };
    refusals.push(("instance_id", server.client.drain(drain).await.unwrap_err()));
    let get = proto::GetAgentRequest::default();
    refusals.push(("agent_id", server.client.get_agent(get).await.unwrap_err()));

    for (field, status) in refusals {
        let error = told(&status);
        assert_eq!(
            (error.reason, error.field.as_deref()),
            (Reason::InvalidField, Some(field)),
            "{status:?}"
        );
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let list = proto::ListAgentsRequest {
        page_token: "x".to_owned(),
        ..Default::default()
    };
    let refused = server.client.list_agents(list).await.unwrap_err();
    assert_eq!(told(&refused).reason, Reason::InvalidPageToken);
}

#[tokio::test]
async fn an_endpoint_at_which_nobody_listens_is_refused() {
    let mut server = Server::start(Settings::default()).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = proto::Instance {
        endpoint: format!("http://{closed}"),
        ..instance("weather", &["s"])
    };
    let refused = told(&server.register(nobody).await.unwrap_err());
    assert_eq!(
        (refused.reason, refused.field.as_deref()),
        (Reason::InvalidField, Some("instance.endpoint"))
    );
    assert!(
        refused.message.contains("listen before registering"),
        "{}",
        refused.message
    );
}

#[tokio::test]
async fn a_miss_names_what_was_probably_meant() {
    let mut server = Server::start_without_probe().await;
    server
        .granted(instance("weather", &["weather_forecasting"]))
        .await;
    let missed = server.discover(&["weather_forcasting"]).await;
    assert_eq!(missed.nearest_skills, ["weather_forecasting"]);
    let get = proto::GetAgentRequest {
        agent_id: "wether".to_owned(),
        ..Default::default()
    };
    let refused = told(&server.client.get_agent(get).await.unwrap_err());
    assert_eq!(
        (refused.reason, refused.metadata["nearest"].as_str()),
        (Reason::AgentNotFound, "weather")
    );
    server
        .metric(r#"agent_discovery_requests_total{capability="other",status="empty"} 1"#)
        .await;
    server.discover(&["weather_forecasting"]).await;
    server
        .metric(r#"agent_discovery_requests_total{capability="weather_forecasting",status="found"} 1"#)
        .await;
    server
        .metric(r#"muster_registry_instances{status="active"} 1"#)
        .await;
}

#[tokio::test]
async fn a_full_node_takes_no_more() {
    let mut server = Server::start_without_probe().await;
    let on_node = || proto::Instance {
        node: "n1".to_owned(),
        ..instance("weather", &["s"])
    };
    for _ in 0..10 {
        server.granted(on_node()).await;
    }
    let refused = server.register(on_node()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(told(&refused).reason, Reason::NodeFull);
    server.granted(instance("weather", &["s"])).await;
}

#[tokio::test]
async fn pages_go_through_all_agents_once() {
    let mut server = Server::start_without_probe().await;
    for number in 0..25 {
        server
            .granted(instance(&format!("agent-{number:02}"), &["s"]))
            .await;
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = proto::ListAgentsRequest {
            page_size: 10,
            page_token,
            ..Default::default()
        };
        let page = server.client.list_agents(request).await.unwrap().into_inner();
        seen.extend(page.agents.into_iter().map(|agent| agent.agent_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let all: Vec<String> = (0..25).map(|number| format!("agent-{number:02}")).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn watchers_hear_of_arrivals_changes_and_farewells() {
    let mut server = Server::start_without_probe().await;
    let first = server.granted(instance("first", &["s"])).await;
    let mut stream = server.watch().await;
    let snapshot = stream.message().await.unwrap().unwrap();
    let mut revision = snapshot.revision;
    assert!(matches!(snapshot.change, Some(Change::Snapshot(snapshot)) if snapshot.instances.len() == 1));

    server.beat(&first, 0.5).await.unwrap();
    server.beat(&first, 0.5).await.unwrap();
    let second = server.granted(instance("second", &["s"])).await;
    server
        .client
        .deregister(proto::DeregisterRequest {
            lease_id: second.lease_id,
        })
        .await
        .unwrap();
    let mut changes = Vec::new();
    for _ in 0..3 {
        let message = stream.message().await.unwrap().unwrap();
        assert!(message.revision > revision);
        revision = message.revision;
        changes.push(match message.change.unwrap() {
            Change::Upserted(instance) => format!("{} at {}", instance.agent_id, instance.load),
            Change::Removed(removal) => format!("{} left: {:?}", removal.agent_id, removal.reason()),
            Change::Snapshot(_) | Change::Reported(_) | Change::Resumed(_) => panic!("not asked for"),
        });
    }
    assert_eq!(
        changes,
        ["first at 0.5", "second at 0", "second left: Deregistered"]
    );
    server.metric("muster_registry_watchers 1").await;
    drop(stream);
    server.metric("muster_registry_watchers 0").await;
}

#[tokio::test]
async fn an_agent_that_falls_silent_is_forgotten_and_watchers_are_told() {
    let quick = Settings {
        health_check_interval: 1,
        lease_duration: 2,
        probe_endpoints: false,
        ..Settings::default()
    };
    let mut server = Server::start(quick).await;
    let mut stream = server.watch().await;
    stream.message().await.unwrap().unwrap();
    let lease = server.granted(instance("silent", &["s"])).await;
    assert!(matches!(
        stream.message().await.unwrap().unwrap().change,
        Some(Change::Upserted(_))
    ));
    let end = tokio::time::timeout(SOON, stream.message())
        .await
        .expect("the lease ends")
        .unwrap()
        .unwrap();
    assert!(
        matches!(end.change, Some(Change::Removed(removal)) if removal.reason() == proto::RemovalReason::Expired)
    );
    assert_eq!(
        told(&server.beat(&lease, 0.0).await.unwrap_err()).reason,
        Reason::LeaseNotFound
    );
    server.metric("muster_registry_expirations_total 1").await;
    let counted = server.statistics().await;
    let total = counted.total.unwrap();
    assert_eq!((total.instances, total.offline, counted.expired_total), (0, 1, 1));
}

#[tokio::test]
async fn a_watcher_who_does_not_read_is_cut_off_and_starts_over() {
    let settings = Settings {
        probe_endpoints: false,
        watch_queue: 8,
        ..Settings::default()
    };
    let mut server = Server::start(settings).await;
    let mut large = instance("weather", &["s"]);
    large.card.as_mut().unwrap().description = "x".repeat(60_000);
    let lease = server.granted(large).await;
    let mut stream = server.watch().await;
    // Far more bytes than the connection's windows hold, so that the queue of 8 overflows.
    for step in 0..400_u32 {
        server.beat(&lease, f64::from(step % 100) / 100.0).await.unwrap();
    }
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(told(&ended).reason, Reason::WatchOverrun);
    let mut again = server.watch().await;
    assert!(matches!(
        again.message().await.unwrap().unwrap().change,
        Some(Change::Snapshot(_))
    ));
}

#[tokio::test]
async fn a_shutdown_ends_streams_with_the_reason_and_the_service_with_success() {
    let mut server = Server::start_without_probe().await;
    server.ready().await;
    let mut stream = server.watch().await;
    stream.message().await.unwrap().unwrap();
    server.shutdown.trigger();
    let ended = stream.message().await.unwrap_err();
    assert_eq!(told(&ended).reason, Reason::ShuttingDown);
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn agents_are_read_and_drained_over_plain_http() {
    let mut server = Server::start_without_probe().await;
    let lease = server.granted(instance("weather", &["forecast"])).await;
    let agents = http::get(server.data, "/v1/agents")
        .await
        .expect("an answer")
        .json();
    assert_eq!(agents["agents"][0]["agentId"], "weather", "{agents}");
    let found = http::get(server.data, "/v1/instances?skills=forecast&maxLoad=0.5")
        .await
        .expect("an answer")
        .json();
    assert_eq!(found["instances"][0]["agentId"], "weather", "{found}");
    let beaten = http::post(
        server.data,
        &format!("/v1/leases/{}:heartbeat", lease.lease_id),
        &serde_json::json!({"load": 0.25}),
    )
    .await
    .expect("an answer");
    assert_eq!(
        beaten.json()["lease"]["leaseId"],
        lease.lease_id.as_str(),
        "{}",
        beaten.text()
    );
    let drained = http::post(server.data, "/v1/agents/weather:drain", &serde_json::json!({}))
        .await
        .expect("an answer");
    assert_eq!(drained.json(), serde_json::json!({"instances": 1}));
    let path = format!("/v1/leases/{}", lease.lease_id);
    let gone = http::send(server.data, http::Method::DELETE, &path, &[], "".into());
    assert_eq!(gone.await.expect("an answer").status, 200);
    let missing = http::get(server.data, "/v1/agents/weather")
        .await
        .expect("an answer");
    assert_eq!(
        (missing.status.as_u16(), &missing.json()["error"]["status"]),
        (404, &serde_json::json!("NOT_FOUND"))
    );
}

#[tokio::test]
async fn a_watcher_takes_its_stream_up_again_and_gets_small_changes() {
    let mut server = Server::start_without_probe().await;
    let lease = server.granted(instance("first", &["s"])).await;
    server.granted(instance("second", &["s"])).await;
    let ask = proto::WatchAgentsRequest {
        incremental: true,
        ..Default::default()
    };
    let mut stream = server.client.watch_agents(ask).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let Some(Change::Snapshot(snapshot)) = first.change else {
        panic!("no snapshot");
    };
    assert_eq!((snapshot.instances.len(), snapshot.cards.len()), (2, 2));
    assert!(snapshot.instances.iter().all(|instance| instance.card.is_none()));
    assert!(!snapshot.continues && !snapshot.more);
    drop(stream);

    server.beat(&lease, 0.5).await.unwrap();
    let again = proto::WatchAgentsRequest {
        since_revision: first.revision,
        incarnation: first.incarnation.clone(),
        incremental: true,
        own_only: false,
    };
    let mut stream = server
        .client
        .watch_agents(again.clone())
        .await
        .unwrap()
        .into_inner();
    let resumed = stream.message().await.unwrap().unwrap();
    assert!(matches!(resumed.change, Some(Change::Resumed(_))));
    assert_eq!(
        (resumed.revision, &resumed.incarnation),
        (first.revision, &first.incarnation)
    );
    let missed = stream.message().await.unwrap().unwrap();
    assert_eq!(missed.revision, first.revision + 1);
    assert!(
        matches!(missed.change, Some(Change::Reported(report)) if (report.load - 0.5).abs() < f64::EPSILON)
    );

    let elsewhere = proto::WatchAgentsRequest {
        incarnation: "another life".to_owned(),
        ..again
    };
    let mut stream = server.client.watch_agents(elsewhere).await.unwrap().into_inner();
    let anew = stream.message().await.unwrap().unwrap();
    assert!(matches!(anew.change, Some(Change::Snapshot(_))));
}

#[tokio::test]
async fn instances_are_found_in_pages_and_counted() {
    let mut server = Server::start_without_probe().await;
    let mut leases = Vec::new();
    for number in 0..5_u32 {
        let mut instance = instance(&format!("agent-{number}"), &["s"]);
        instance.weight = Some(number);
        leases.push(server.granted(instance).await);
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = proto::DiscoverRequest {
            page_size: 2,
            text: "AGENT".to_owned(),
            page_token,
            ..Default::default()
        };
        let page = server.client.discover(request).await.unwrap().into_inner();
        seen.extend(
            page.instances
                .into_iter()
                .map(|it| (it.agent_id, it.weight, it.binding)),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let all: Vec<_> = (0..5)
        .map(|number| (format!("agent-{number}"), Some(number), "GRPC".to_owned()))
        .collect();
    seen.sort();
    assert_eq!(seen, all);
    let refused = server.client.discover(proto::DiscoverRequest {
        page_token: "x".to_owned(),
        ..Default::default()
    });
    assert_eq!(told(&refused.await.unwrap_err()).reason, Reason::InvalidPageToken);
    let total = server.statistics().await.total.unwrap();
    assert_eq!((total.agents, total.instances, total.active), (5, 5, 5));

    // One in each status, and found in that alone.
    let others = [
        proto::InstanceStatus::Busy,
        proto::InstanceStatus::Draining,
        proto::InstanceStatus::Maintenance,
    ];
    for (lease, status) in leases.iter().zip(others) {
        let says = proto::HeartbeatRequest {
            lease_id: lease.lease_id.clone(),
            status: status.into(),
            load: 0.5,
            ..Default::default()
        };
        server.client.heartbeat(says).await.unwrap();
        let asked = proto::DiscoverRequest {
            statuses: vec![status.into()],
            ..Default::default()
        };
        let found = server
            .client
            .discover(asked)
            .await
            .unwrap()
            .into_inner()
            .instances;
        assert_eq!((found.len(), found[0].status()), (1, status));
    }
    let counted = server.statistics().await;
    let total = counted.total.unwrap();
    assert_eq!(
        (total.active, total.busy, total.draining, total.maintenance),
        (2, 1, 1, 1)
    );
    assert_eq!((total.instances, total.offline), (5, 0));
    assert!((total.mean_load - 0.3).abs() < 1e-6, "{total:?}");
    assert_eq!(counted.namespaces[0].namespace, "default");
    assert_eq!(
        (counted.skills[0].skill.as_str(), counted.skills[0].instances),
        ("s", 5)
    );
}

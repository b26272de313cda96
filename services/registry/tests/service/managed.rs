//! Agents that know nothing of the registry and are kept by their cards: a real registry, agents that only serve a card.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ::http::{HeaderMap, StatusCode, header};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use muster_a2a::card::sign::{self, Signer};
use muster_a2a::card::trust::{self, Policy};
use muster_rpc::outbound;
use muster_testkit::{RedisServer, write_signing_key};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

/// What an agent serves, and how often it was held already.
#[derive(Default)]
struct Shown {
    /// Version and skill; `None` while it serves nothing.
    card: Option<(u32, &'static str)>,
    unchanged: usize,
}

/// An agent that serves a card, and nothing else.
struct CardServer {
    address: SocketAddr,
    shown: Arc<Mutex<Shown>>,
    _server: JoinSet<()>,
}

type Shared = (SocketAddr, Arc<Mutex<Shown>>);

async fn card(State((address, shown)): State<Shared>, headers: HeaderMap) -> Response {
    let mut shown = shown.lock().expect("no test panicked here");
    let Some((version, skill)) = shown.card else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let tag = format!("\"{version}\"");
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|held| held.as_bytes() == tag.as_bytes())
    {
        shown.unchanged += 1;
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let card = json!({
        "name": "A Stranger",
        "description": "Serves its card",
        "version": version.to_string(),
        "supportedInterfaces": [
            { "url": format!("http://{address}/rpc"), "protocolBinding": "JSONRPC", "protocolVersion": "1.0" },
        ],
        "capabilities": {},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{ "id": skill, "name": skill, "description": skill, "tags": [] }],
    });
    ([(header::ETAG, tag)], axum::Json(card)).into_response()
}

impl CardServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shown = Arc::new(Mutex::new(Shown {
            card: Some((1, "first")),
            unchanged: 0,
        }));
        let router = axum::Router::new()
            .route("/.well-known/agent-card.json", axum::routing::get(card))
            .with_state((address, Arc::clone(&shown)));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let _ended = axum::serve(listener, router).await;
        });
        Self {
            address,
            shown,
            _server: server,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn show(&self, card: Option<(u32, &'static str)>) {
        self.shown.lock().expect("no test panicked here").card = card;
    }

    fn unchanged(&self) -> usize {
        self.shown.lock().expect("no test panicked here").unchanged
    }
}

/// Leases as short as they can be, within reach of this machine.
fn settings(directory: &Path) -> Settings {
    Settings {
        health_check_interval: 1,
        lease_duration: 2,
        data_directory: directory.to_owned(),
        outbound: outbound::Config {
            allow: vec!["127.0.0.0/8".to_owned()],
            ..outbound::Config::default()
        },
        ..Settings::default()
    }
}

impl Server {
    async fn keep(&self, request: proto::RegisterByCardRequest) -> Result<proto::ManagedAgent, Status> {
        let answer = self.client.clone().register_by_card(request).await?;
        Ok(answer.into_inner().agent.expect("every answer has an agent"))
    }

    async fn kept(&self) -> Vec<proto::ManagedAgent> {
        let request = proto::ListManagedAgentsRequest::default();
        let listed = self.client.clone().list_managed_agents(request).await;
        listed.expect("a list").into_inner().agents
    }

    /// The skills and the status of the agent's instances, and their version.
    async fn instances(&self) -> Vec<proto::Instance> {
        let request = proto::GetAgentRequest {
            agent_id: "a-stranger".to_owned(),
            ..Default::default()
        };
        match self.client.clone().get_agent(request).await {
            Ok(answer) => answer.into_inner().agent.expect("an agent").instances,
            Err(status) if status.code() == Code::NotFound => Vec::new(),
            Err(status) => panic!("{status}"),
        }
    }

    async fn wait_for_skill(&self, skill: Option<&str>) {
        wait_for(&format!("the skill {skill:?}"), SOON, async || {
            let instances = self.instances().await;
            let first = instances.first().and_then(|instance| instance.card.clone());
            let found = first.map(|card| card.skills[0].id.clone());
            if found.as_deref() == skill {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
    }
}

fn by(card: &CardServer) -> proto::RegisterByCardRequest {
    proto::RegisterByCardRequest {
        card_url: card.url(),
        ..Default::default()
    }
}

fn forgets(card: &CardServer) -> proto::ForgetManagedAgentRequest {
    proto::ForgetManagedAgentRequest {
        card_url: card.url(),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_agent_is_kept_through_changes_absence_and_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let agent = CardServer::start().await;
    let server = Server::start(settings(directory.path())).await;
    let kept = server.keep(by(&agent)).await.unwrap();
    assert_eq!(
        (kept.agent_id.as_str(), kept.binding.as_str(), kept.state()),
        ("a-stranger", "JSONRPC", proto::ManagedAgentState::Present)
    );
    assert_eq!(kept.endpoint, format!("{}/rpc", agent.url()));
    let instances = server.instances().await;
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0].instance_id, kept.instance_id);

    // Asked with the tag of the card that is held, and registered anew when it is another.
    wait_for("a look at the unchanged card", SOON, async || {
        (agent.unchanged() > 0).then_some(()).ok_or("none yet")
    })
    .await;
    agent.show(Some((2, "second")));
    server.wait_for_skill(Some("second")).await;
    assert_eq!(server.instances().await[0].version, "2");

    // Gone and back.
    agent.show(None);
    server.wait_for_skill(None).await;
    let kept = server.kept().await.remove(0);
    assert_eq!(kept.state(), proto::ManagedAgentState::Absent);
    assert!(kept.problem.contains("503"), "{}", kept.problem);
    let offline = proto::ListAgentsRequest {
        statuses: vec![proto::InstanceStatus::Offline.into()],
        ..Default::default()
    };
    let offline = server.client.clone().list_agents(offline).await.unwrap();
    assert_eq!(offline.into_inner().agents.len(), 1);
    agent.show(Some((3, "third")));
    server.wait_for_skill(Some("third")).await;

    // The registry is started anew.
    server.stop().await;
    let server = Server::start(settings(directory.path())).await;
    server.wait_for_skill(Some("third")).await;

    // Forgotten, also over a restart.
    let forgotten = server.client.clone().forget_managed_agent(forgets(&agent)).await;
    assert_eq!(forgotten.unwrap().into_inner().agents.len(), 1);
    assert_eq!(server.instances().await, []);
    let refused = server.client.clone().forget_managed_agent(forgets(&agent)).await;
    assert_eq!(told(&refused.unwrap_err()).reason, Reason::AgentNotFound);
    server.stop().await;
    let server = Server::start(settings(directory.path())).await;
    assert_eq!(server.kept().await, []);
}

#[tokio::test]
async fn agents_kept_from_disk_are_taken_over_once_by_a_redis() {
    let directory = tempfile::tempdir().unwrap();
    let redis = RedisServer::start().await;
    let (one, other) = (CardServer::start().await, CardServer::start().await);
    let server = Server::start(settings(directory.path())).await;
    let asked = |card, agent_id: &str| proto::RegisterByCardRequest {
        agent_id: agent_id.to_owned(),
        ..by(card)
    };
    server.keep(asked(&one, "a-stranger")).await.unwrap();
    server.keep(asked(&other, "another")).await.unwrap();
    let before = server.kept().await;
    server.stop().await;

    let over_redis = || Settings {
        redis_cluster_endpoint: Some(redis.url()),
        ..settings(directory.path())
    };
    let server = Server::start(over_redis()).await;
    server.ready().await;
    server.wait_for_skill(Some("first")).await;
    let asked_for = |agents: &[proto::ManagedAgent]| -> Vec<_> {
        let agents = agents.iter();
        agents
            .map(|agent| (agent.agent_id.clone(), agent.card_url.clone(), agent.kept_since))
            .collect()
    };
    assert_eq!(asked_for(&server.kept().await), asked_for(&before));

    // Whoever is forgotten there is not brought back by a start anew from the same directory.
    let forgotten = server.client.clone().forget_managed_agent(forgets(&one)).await;
    forgotten.unwrap();
    server.stop().await;
    let server = Server::start(over_redis()).await;
    server.ready().await;
    wait_for("the other agent alone", SOON, async || {
        match &server.kept().await[..] {
            [agent] if agent.agent_id == "another" => Ok(()),
            others => Err(format!("{others:?}")),
        }
    })
    .await;
    server.stop().await;

    // Without Redis it keeps those of then.
    let server = Server::start(settings(directory.path())).await;
    assert_eq!(asked_for(&server.kept().await), asked_for(&before));
}

#[tokio::test]
async fn a_drain_outlives_a_changed_card_and_ends_when_the_agent_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let agent = CardServer::start().await;
    let server = Server::start(settings(directory.path())).await;
    server.keep(by(&agent)).await.unwrap();
    let drain = proto::DrainRequest {
        agent_id: "a-stranger".to_owned(),
        ..Default::default()
    };
    server.client.clone().drain(drain).await.unwrap();
    let before = agent.unchanged();
    wait_for("two looks after the drain", SOON, async || {
        (agent.unchanged() > before + 1).then_some(()).ok_or("not yet")
    })
    .await;
    agent.show(Some((2, "second")));
    server.wait_for_skill(Some("second")).await;
    let status = async || server.instances().await[0].status();
    assert_eq!(status().await, proto::InstanceStatus::Draining);
    server.keep(by(&agent)).await.unwrap();
    assert_eq!(status().await, proto::InstanceStatus::Draining);
    let forgotten = server.client.clone().forget_managed_agent(forgets(&agent)).await;
    forgotten.unwrap();
    server.keep(by(&agent)).await.unwrap();
    assert_eq!(status().await, proto::InstanceStatus::Active);
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let agent = CardServer::start().await;
    let server = Server::start(Settings {
        max_managed_agents: 1,
        ..settings(directory.path())
    })
    .await;
    let refused = async |change: fn(&mut proto::RegisterByCardRequest)| {
        let mut request = by(&agent);
        change(&mut request);
        told(&server.keep(request).await.expect_err("refused"))
    };
    let field = async |change| refused(change).await.field.unwrap_or_default();
    assert_eq!(field(|it| it.card_url = "ftp://a".to_owned()).await, "card_url");
    assert_eq!(
        field(|it| it.card_url = "http://u:p@a".to_owned()).await,
        "card_url"
    );
    assert_eq!(field(|it| it.namespace = "A".to_owned()).await, "namespace");
    assert_eq!(field(|it| it.agent_id = "A B".to_owned()).await, "agent_id");
    assert_eq!(field(|it| it.binding = "grpc".to_owned()).await, "binding");
    assert_eq!(field(|it| it.weight = Some(1_001)).await, "weight");
    assert_eq!(
        field(|it| it.binding = "GRPC".to_owned()).await,
        "card.supported_interfaces"
    );
    agent.show(Some((1, "a b")));
    assert_eq!(field(|_| ()).await, "card.skills[0].id");
    agent.show(None);
    let gone = refused(|_| ()).await;
    assert_eq!(gone.reason, Reason::CardUnavailable);

    // What nobody may reach is told from what is not there.
    let metadata = refused(|it| it.card_url = "http://169.254.169.254/".to_owned()).await;
    assert_eq!(metadata.reason, Reason::CardUnavailable);
    assert!(metadata.message.contains("whatever is configured"), "{metadata}");
    let public = refused(|it| it.card_url = "http://192.0.2.1/".to_owned()).await;
    assert!(public.message.contains("registry.outbound.allow"), "{public}");

    // Nothing of all that is kept; one is, and a second has no place.
    assert_eq!(server.kept().await, []);
    agent.show(Some((1, "first")));
    server.keep(by(&agent)).await.unwrap();
    server.keep(by(&agent)).await.expect("the same again");
    let full = refused(|it| it.agent_id = "other".to_owned()).await;
    assert_eq!(full.reason, Reason::RegistryFull);
}

#[tokio::test]
async fn it_is_served_over_plain_http_page_by_page() {
    let directory = tempfile::tempdir().unwrap();
    let agent = CardServer::start().await;
    let server = Server::start(settings(directory.path())).await;
    for id in ["a", "b", "c"] {
        let body = json!({ "cardUrl": agent.url(), "agentId": id });
        let answer = http::post(server.data, "/v1/managedAgents", &body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let mut path = "/v1/managedAgents?pageSize=2".to_owned();
    let mut found = Vec::new();
    loop {
        let page: Value = http::get(server.data, &path).await.unwrap().json();
        found.extend(
            page["agents"]
                .as_array()
                .expect("agents")
                .iter()
                .map(|it| it["agentId"].clone()),
        );
        match page["nextPageToken"].as_str() {
            None | Some("") => break,
            Some(token) => path = format!("/v1/managedAgents?pageSize=2&pageToken={token}"),
        }
    }
    assert_eq!(found, ["a", "b", "c"]);
    let body = json!({ "cardUrl": agent.url() });
    let answer = http::post(server.data, "/v1/managedAgents:forget", &body)
        .await
        .unwrap();
    assert_eq!(answer.json()["agents"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn cards_that_nobody_trusted_has_signed_are_refused_by_name_or_taken_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let (key, jwks) = (
        directory.path().join("key.pem"),
        directory.path().join("jwks.json"),
    );
    write_signing_key(&key);
    let config = sign::Config {
        key_file: Some(key),
        ..sign::Config::default()
    };
    let signer = Signer::load(&config, "").unwrap().expect("a key");
    std::fs::write(&jwks, signer.key_set().to_string()).unwrap();
    let trusting = |policy, data: &str| {
        let mut settings = settings(&directory.path().join(data));
        settings.card_trust = trust::Config {
            jwks_file: Some(jwks.clone()),
            policy,
        };
        settings
    };
    let server = Server::start(trusting(Policy::Require, "require")).await;
    let agent = FakeAgent::start("signed").await;
    let register = async |instance: proto::Instance| {
        let request = proto::RegisterRequest {
            instance: Some(instance),
        };
        server.client.clone().register(request).await
    };
    let unsigned = register(agent.instance(&["s"])).await.expect_err("refused");
    assert_eq!(told(&unsigned).field.as_deref(), Some("instance.card.signatures"));
    let mut instance = agent.instance(&["s"]);
    signer.sign(instance.card.as_mut().expect("a card")).unwrap();
    register(instance.clone()).await.expect("granted");
    instance.card.as_mut().expect("a card").description.push('!');
    let changed = register(instance).await.expect_err("refused");
    assert_eq!(
        told(&changed).field.as_deref(),
        Some("instance.card.signatures[0]")
    );

    // So with those that the registry fetches itself.
    let stranger = CardServer::start().await;
    let refused = server.keep(by(&stranger)).await.expect_err("refused");
    assert_eq!(told(&refused).field.as_deref(), Some("card.signatures"));
    let lenient = Server::start(trusting(Policy::Warn, "warn")).await;
    lenient.keep(by(&stranger)).await.expect("kept");
}

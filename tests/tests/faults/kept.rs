//! An agent that knows nothing of the registry, kept by its card by two registries over one Redis. The one that keeps it is killed.

use axum::Json;
use axum::routing::get;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{
    DrainRequest, ForgetManagedAgentRequest, GetAgentRequest, Instance, InstanceStatus,
    ListManagedAgentsRequest, ManagedAgent, RegisterByCardRequest,
};
use muster_testkit::{Program, RedisServer, http, wait_for};
use muster_tests::PATIENCE;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Code;

use crate::system::{System, channel};

const SHORT: [(&str, &str); 3] = [
    ("REGISTRY__HEALTH_CHECK_INTERVAL", "2"),
    ("REGISTRY__LEASE_DURATION", "8"),
    ("REGISTRY__OUTBOUND__ALLOW", r#"["127.0.0.0/8"]"#),
];

/// Serves a card; where.
async fn serve_card(server: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let card = json!({
        "name": "stranger",
        "description": "Serves its card",
        "version": "1",
        "supportedInterfaces": [{ "url": url, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0" }],
        "capabilities": {},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{ "id": "s", "name": "S", "description": "does s", "tags": [] }],
    });
    let routes = axum::Router::new().route("/.well-known/agent-card.json", get(async || Json(card)));
    server.spawn(async move {
        let _ended = axum::serve(listener, routes).await;
    });
    url
}

/// The agent's only instance; nothing where there is none.
async fn instance(registry: &Program) -> Option<Instance> {
    let request = GetAgentRequest {
        agent_id: "stranger".to_owned(),
        ..GetAgentRequest::default()
    };
    match RegistryServiceClient::new(channel(registry))
        .get_agent(request)
        .await
    {
        Ok(answer) => answer.into_inner().agent.unwrap().instances.pop(),
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => panic!("{status:?}"),
    }
}

/// Whether it is the one that keeps, and has found the agent.
async fn keeps(registry: &Program) -> bool {
    let metrics = (std::net::Ipv4Addr::LOCALHOST, registry.ports().metrics);
    let answer = http::get(metrics.into(), "/metrics").await;
    answer.is_ok_and(|answer| answer.text().contains("managed_agents{state=\"present\"} 1"))
}

async fn list(registry: &Program) -> Vec<ManagedAgent> {
    let request = ListManagedAgentsRequest::default();
    let listed = RegistryServiceClient::new(channel(registry))
        .list_managed_agents(request)
        .await;
    listed.unwrap().into_inner().agents
}

#[tokio::test]
async fn an_agent_that_a_killed_registry_kept_stays_and_is_kept_by_the_other() {
    let redis = RedisServer::start().await;
    let mut system = System::over_redis(&redis.url(), &SHORT).await;
    let mut server = JoinSet::new();
    let card_url = serve_card(&mut server).await;
    let other = system.other_registry.take().unwrap();
    let mut both = vec![
        (system.registry, system.running_registry.take().unwrap()),
        (other.program, other.process),
    ];
    let request = RegisterByCardRequest {
        card_url: card_url.clone(),
        ..RegisterByCardRequest::default()
    };
    let mut client = RegistryServiceClient::new(channel(&both[1].0));
    client.register_by_card(request).await.unwrap();
    let keeper = wait_for("one of them to keep it", PATIENCE, async || {
        let (first, second) = (keeps(&both[0].0).await, keeps(&both[1].0).await);
        match (first, second) {
            (true, false) => Ok(0),
            (false, true) => Ok(1),
            neither => Err(format!("{neither:?}")),
        }
    })
    .await;
    // Both know it, and what the keeper has found.
    for (registry, _) in &both {
        let listed = wait_for("it to be known", PATIENCE, async || {
            let listed = list(registry).await;
            if listed.len() == 1 {
                Ok(listed)
            } else {
                Err("nothing")
            }
        })
        .await;
        assert!(
            listed[0].problem.is_empty() && listed[0].last_seen_at.is_some(),
            "{listed:?}"
        );
    }
    let drain = DrainRequest {
        agent_id: "stranger".to_owned(),
        ..DrainRequest::default()
    };
    client.drain(drain).await.unwrap();
    let is_draining = |found: &Option<Instance>| {
        found
            .as_ref()
            .is_some_and(|it| it.status() == InstanceStatus::Draining)
    };
    wait_for("the keeper to hear that it was taken out", PATIENCE, async || {
        let found = redis.ask(&["HVALS", "muster:managed:{p00}:found"]).await;
        if found.contains("\"is_draining\":true") {
            Ok(())
        } else {
            Err(found)
        }
    })
    .await;

    let (_, killed) = both.remove(keeper);
    killed.kill().await;
    let left = &both[0].0;
    wait_for("the other to keep it", PATIENCE, async || {
        let found = instance(left).await;
        assert!(is_draining(&found), "it stays, and stays taken out: {found:?}");
        if keeps(left).await {
            Ok(())
        } else {
            Err("it does not")
        }
    })
    .await;
    let forget = ForgetManagedAgentRequest {
        card_url,
        ..ForgetManagedAgentRequest::default()
    };
    let mut client = RegistryServiceClient::new(channel(left));
    client.forget_managed_agent(forget).await.unwrap();
    assert_eq!(list(left).await, []);
    // A look that is under way ends what it has registered.
    wait_for("it to be gone", PATIENCE, async || match instance(left).await {
        None => Ok(()),
        Some(there) => Err(format!("{there:?}")),
    })
    .await;
    server.shutdown().await;
}

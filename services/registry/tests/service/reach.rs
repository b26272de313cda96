//! What a caller has of the registry is what its token grants: an attacker learns nothing of the rest and changes nothing there, and
//! each try to is in the audit log.

use muster_api::registry as proto;
use muster_runtime::Listeners;
use muster_runtime::trust::audit::chain;
use muster_testkit::Issuer;
use serde_json::{Value, json};
use tonic::{Code, Request};

use super::*;

/// A registry that wants tokens, with who issues them.
struct Guarded {
    server: Server,
    issuer: Issuer,
}

impl Guarded {
    async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let issuer = Issuer::new();
        let mut config = Config::default();
        config.registry.probe_endpoints = false;
        config.trust.tokens.required = true;
        config.trust.tokens.jwks_file = Some(issuer.key_set());
        config.trust.tokens.issuers = vec![Issuer::NAME.to_owned()];
        config.trust.audit.directory = Some(issuer.audit());
        change(&mut config);
        Self {
            server: Server::start_with(Listeners::ephemeral().unwrap(), config).await,
            issuer,
        }
    }

    /// A request of somebody with a role who is granted this.
    fn of<T>(&self, role: &str, grants: &Value, message: T) -> Request<T> {
        let token = self.issuer.token(role, &[role], grants);
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }

    async fn register(
        &mut self,
        grants: &Value,
        namespace: &str,
        agent: &str,
        skill: &str,
    ) -> Result<proto::Lease, Status> {
        let instance = proto::Instance {
            namespace: namespace.to_owned(),
            ..instance(agent, &[skill])
        };
        let request = proto::RegisterRequest {
            instance: Some(instance),
        };
        let request = self.of("service", grants, request);
        let granted = self.server.client.register(request).await?;
        Ok(granted.into_inner().lease.unwrap())
    }

    /// Stops the registry; every line of its audit log that says a refusal.
    async fn refusals(self) -> Vec<Value> {
        self.server.stop().await;
        let log = self.issuer.audit().join("registry");
        chain::verify(&log).expect("the chain is whole");
        let lines = chain::lines(&log).unwrap().into_iter();
        lines.filter(|line| line["outcome"] == "refused").collect()
    }
}

#[tokio::test]
async fn a_caller_sees_what_it_is_granted_and_nothing_else() {
    let mut guarded = Guarded::start().await;
    let all = json!({});
    for (namespace, agent, skill) in [
        ("", "weather", "forecasting"),
        ("", "wether", "forecastings"),
        ("other", "weather", "forecasting"),
    ] {
        guarded.register(&all, namespace, agent, skill).await.unwrap();
    }
    let weather =
        json!({ "muster_targets": ["weather", "skill:forecastings"], "muster_namespaces": ["default"] });
    let of = |message| guarded.of("agent-reader", &weather, message);
    let mut client = guarded.server.client.clone();

    let found = client
        .discover(of(proto::DiscoverRequest::default()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.instances.len(), 1);
    assert_eq!(found.instances[0].agent_id, "weather");
    let of = |message| guarded.of("agent-reader", &weather, message);
    let secret = proto::DiscoverRequest {
        skills: vec!["forecastings".to_owned()],
        ..Default::default()
    };
    let found = client.discover(of(secret)).await.unwrap().into_inner();
    assert!(found.instances.is_empty());
    assert_eq!(found.nearest_skills, ["forecasting"], "as if nobody had it");
    let other = proto::DiscoverRequest {
        namespace: "other".to_owned(),
        ..Default::default()
    };
    assert!(
        client
            .discover(of(other))
            .await
            .unwrap()
            .into_inner()
            .instances
            .is_empty()
    );

    let of = |namespace: &str, agent: &str| {
        let message = proto::GetAgentRequest {
            namespace: namespace.to_owned(),
            agent_id: agent.to_owned(),
        };
        guarded.of("agent-reader", &weather, message)
    };
    assert!(client.get_agent(of("", "weather")).await.is_ok());
    let told = |refused: Status, agent: &str| {
        assert_eq!(refused.code(), Code::NotFound);
        refused.message().replace(agent, "AGENT")
    };
    let hidden = told(client.get_agent(of("", "wether")).await.unwrap_err(), "wether");
    let missing = told(client.get_agent(of("", "weathr")).await.unwrap_err(), "weathr");
    assert_eq!(hidden, missing, "nothing tells it from none");
    told(
        client.get_agent(of("other", "weather")).await.unwrap_err(),
        "weather",
    );

    let listed =
        client.list_agents(guarded.of("agent-reader", &weather, proto::ListAgentsRequest::default()));
    let ids: Vec<String> = listed
        .await
        .unwrap()
        .into_inner()
        .agents
        .into_iter()
        .map(|agent| agent.agent_id)
        .collect();
    assert_eq!(ids, ["weather"]);
    let asked = guarded.of("agent-reader", &weather, proto::GetStatisticsRequest::default());
    let counted = client.get_statistics(asked).await.unwrap().into_inner();
    assert_eq!(counted.total.unwrap().instances, 1);
    assert_eq!((counted.namespaces_total, counted.skills_total), (1, 1));

    for incremental in [false, true] {
        let asked = proto::WatchAgentsRequest {
            incremental,
            ..Default::default()
        };
        let asked = guarded.of("agent-reader", &weather, asked);
        let mut stream = client.watch_agents(asked).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        let Some(Change::Snapshot(snapshot)) = first.change else {
            panic!("{first:?}")
        };
        assert_eq!(snapshot.instances.len(), 1);
        assert!(snapshot.cards.len() <= 1);
    }

    // The one who has no such grants, and an admin whatever its grants, have all.
    for (role, grants) in [("agent-reader", &all), ("service", &all), ("admin", &weather)] {
        let asked = guarded.of(role, grants, proto::GetStatisticsRequest::default());
        let counted = client.get_statistics(asked).await.unwrap().into_inner();
        assert_eq!(counted.total.unwrap().instances, 3, "{role}");
    }
    drop(client);
    guarded.server.stop().await;
}

#[tokio::test]
async fn a_watcher_hears_of_what_it_is_granted() {
    let mut guarded = Guarded::start().await;
    let weather = json!({ "muster_targets": ["weather"] });
    let asked = guarded.of("agent-reader", &weather, proto::WatchAgentsRequest::default());
    let mut stream = guarded
        .server
        .client
        .watch_agents(asked)
        .await
        .unwrap()
        .into_inner();
    stream.message().await.unwrap().unwrap();
    guarded
        .register(&json!({}), "", "planning", "plan")
        .await
        .unwrap();
    guarded
        .register(&json!({}), "", "weather", "forecasting")
        .await
        .unwrap();
    let next = stream.message().await.unwrap().unwrap();
    let Some(Change::Upserted(instance)) = next.change else {
        panic!("{next:?}")
    };
    assert_eq!(instance.agent_id, "weather");
    drop(stream);
    guarded.server.stop().await;
}

#[tokio::test]
async fn what_a_caller_is_not_granted_it_does_not_change_and_each_try_is_written_down() {
    let mut guarded = Guarded::start().await;
    let weather = json!({ "muster_targets": ["weather"], "muster_namespaces": ["default"] });
    let lease = guarded
        .register(&weather, "", "weather", "forecasting")
        .await
        .unwrap();
    let planning = guarded
        .register(&json!({}), "", "planning", "plan")
        .await
        .unwrap();
    for (namespace, agent) in [("", "planning"), ("other", "weather")] {
        let refused = guarded
            .register(&weather, namespace, agent, "plan")
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    let mut client = guarded.server.client.clone();
    let beat = |lease: &proto::Lease| proto::HeartbeatRequest {
        lease_id: lease.lease_id.clone(),
        ..Default::default()
    };
    let end = |lease: &proto::Lease| proto::DeregisterRequest {
        lease_id: lease.lease_id.clone(),
    };
    let refused = client
        .heartbeat(guarded.of("service", &weather, beat(&planning)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = client
        .deregister(guarded.of("service", &weather, end(&planning)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let drain = proto::DrainRequest {
        agent_id: "planning".to_owned(),
        ..Default::default()
    };
    let refused = client
        .drain(guarded.of("service", &weather, drain))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // It is as it was.
    client
        .heartbeat(guarded.of("service", &json!({}), beat(&planning)))
        .await
        .unwrap();

    client
        .heartbeat(guarded.of("service", &weather, beat(&lease)))
        .await
        .unwrap();
    client
        .deregister(guarded.of("service", &weather, end(&lease)))
        .await
        .unwrap();
    let refused = client
        .heartbeat(guarded.of("service", &weather, beat(&lease)))
        .await
        .unwrap_err();
    assert_eq!(told(&refused).reason, Reason::LeaseNotFound);
    drop(client);
    let refusals = guarded.refusals().await;
    let actions: Vec<&str> = refusals
        .iter()
        .map(|line| line["action"].as_str().unwrap())
        .collect();
    let count = |method: &str| actions.iter().filter(|action| action.ends_with(method)).count();
    let counts = ["Register", "Heartbeat", "Deregister", "Drain"].map(count);
    assert_eq!(counts, [2, 1, 1, 1], "{actions:?}");
}

#[tokio::test]
async fn who_may_look_cannot_take_the_streams_that_routers_live_by() {
    let guarded = Guarded::start_with(|config| config.registry.max_watchers = 4).await;
    let mut client = guarded.server.client.clone();
    let watch = |role| guarded.of(role, &json!({}), proto::WatchAgentsRequest::default());
    let one = client.watch_agents(watch("agent-reader")).await.unwrap();
    let refused = client.watch_agents(watch("agent-reader")).await.unwrap_err();
    assert_eq!(told(&refused).reason, Reason::WatchOverrun);
    // One more caller has a stream, and no third.
    let other = client.watch_agents(watch("agent-writer")).await.unwrap();
    let refused = client.watch_agents(watch("agent")).await.unwrap_err();
    assert_eq!(told(&refused).reason, Reason::WatchOverrun);
    let routers = [
        client.watch_agents(watch("service")).await.unwrap(),
        client.watch_agents(watch("service")).await.unwrap(),
    ];
    // Who leaves makes room.
    drop((one, routers));
    wait_for("room", SOON, async || {
        client
            .clone()
            .watch_agents(watch("agent-reader"))
            .await
            .map(drop)
            .map_err(|status| status.to_string())
    })
    .await;
    drop(other);
    let lines = guarded.refusals().await;
    let mut limited = lines.iter().filter(|line| line["event"] == "rate_limited");
    assert!(limited.any(|line| line["user"] == "agent-reader"), "{lines:#?}");
}

//! Registry, router, engine and agent that start while their Redis is away: they say why they are not ready, and become it.

use std::net::Ipv4Addr;

use muster_api::error::Reason;
use muster_api::registry::ListAgentsRequest;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_testkit::{Process, Program, RedisServer, http, wait_for};
use muster_tests::PATIENCE;
use serde_json::Value;

use crate::system::{channel, error_in};
use crate::worker;

async fn report(program: &Program, path: &str) -> Result<(u16, Value), String> {
    let health = (Ipv4Addr::LOCALHOST, program.ports().health);
    let answer = http::get(health.into(), path).await?;
    Ok((answer.status.as_u16(), answer.json()))
}

/// Waits until it is not ready for a reason that has this in it, and healthy all the same.
async fn says(program: &Program, why: &str) {
    wait_for(why, PATIENCE, async || {
        let (status, ready) = report(program, "/ready").await?;
        let reason = ready["checks"]["opening"]["error"].as_str();
        if status != 503 || !reason.is_some_and(|reason| reason.contains(why)) {
            return Err(format!("{status}: {ready}"));
        }
        Ok(())
    })
    .await;
    let (status, health) = report(program, "/health").await.unwrap();
    assert_eq!(
        (status, &health["status"]),
        (200, &Value::from("healthy")),
        "{health}"
    );
    assert!(health["checks"]["opening"]["error"].is_string(), "{health}");
}

#[tokio::test]
async fn what_starts_before_its_redis_says_why_and_becomes_ready_when_it_is_there() {
    let mut redis = RedisServer::to_be_started(&[]);
    let url = redis.url().replace("redis://", "redis://:secret@");
    let directory = tempfile::tempdir().unwrap();
    let own = |name: &str| directory.path().join(name).display().to_string();
    let over = |program: Program, section: &str| {
        program
            .env(format!("MUSTER__{section}__REDIS_CLUSTER_ENDPOINT"), &url)
            .env(format!("MUSTER__{section}__REDIS__PATIENCE_SECONDS"), "1")
    };
    let registry = over(Program::named("muster-registry"), "REGISTRY");
    let router = over(Program::named("muster-router"), "ROUTER")
        .env("MUSTER__ROUTER__REGISTRY_URL", registry.url())
        .env("MUSTER__ROUTER__DATA_DIRECTORY", own("router"));
    let engine = over(Program::named("muster-workflow-engine"), "ENGINE")
        .env("MUSTER__ENGINE__ROUTER_URL", router.url())
        .env("MUSTER__ENGINE__DATA_DIRECTORY", own("engine"));
    let agent = over(Program::at(std::env::current_exe().unwrap()), "AGENT")
        .arg(worker::TEST)
        .arg("--exact")
        .arg("--nocapture")
        .env(worker::ROLE, "worker")
        .env("MUSTER__AGENT__REGISTRY_URL", registry.url());
    let programs = [&registry, &router, &engine, &agent];
    let mut running: Vec<Process> = programs.iter().map(|program| program.start()).collect();
    for program in programs {
        says(program, "cannot be reached").await;
    }
    let mut client = RegistryServiceClient::new(channel(&registry));
    let refused = client
        .list_agents(ListAgentsRequest::default())
        .await
        .unwrap_err();
    let error = error_in(&refused);
    assert_eq!(error.reason, Reason::StoreUnavailable);
    assert!(error.retry_after.is_some(), "{error:?}");
    // One that is asked to stop does so.
    let ended = running[1].terminate().await;
    assert!(ended.success(), "{ended}");
    running[1] = router.start();

    redis.restart().await;
    for program in programs {
        says(program, "does not accept the user or the password").await;
    }
    assert_eq!(
        redis
            .ask(&["CONFIG", "SET", "requirepass", "secret"])
            .await
            .trim(),
        "OK"
    );
    for process in &mut running {
        process.ready().await;
    }
    wait_for("the agent to be registered", PATIENCE, async || {
        let listed = client.list_agents(ListAgentsRequest::default()).await;
        let agents = listed.map_err(|status| status.to_string())?.into_inner().agents;
        if agents.len() == 1 {
            Ok(())
        } else {
            Err(format!("{agents:?}"))
        }
    })
    .await;
    let (status, ready) = report(&registry, "/ready").await.unwrap();
    assert_eq!(status, 200, "{ready}");
}

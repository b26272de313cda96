//! Agents of the official SDKs that join by their cards, before clients of the official SDKs, all through the router: each client
//! with each agent, over each binding before the router and each behind it.
//!
//! What the agents' SDKs of 1.3.0 do otherwise than the protocol has it: the Python one pushes as `application/json`.

use std::net::SocketAddr;

use muster_testkit::{http, wait_for};
use muster_tests::{Dev, PATIENCE, Sdk, Stranger};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{address, serves_every_operation};

const BINDINGS: [&str; 3] = ["GRPC", "JSONRPC", "HTTP+JSON"];
const ID: &str = "kept";

/// A fleet that keeps an agent.
struct Keeping {
    dev: Dev,
    agent: Stranger,
    _directory: TempDir,
}

impl Keeping {
    /// Has one kept that is called over a binding; over the agent's first, where none is named.
    async fn start(sdk: Sdk, binding: Option<&str>, settings: &[&str]) -> Self {
        let agent = Stranger::start(sdk).await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let dev = Dev::start_with(directory.path(), settings).await;
        let card = agent.url();
        let mut arguments = vec!["agents", "register", "--card", &card, "--id", ID, "-o", "json"];
        arguments.extend(binding.into_iter().flat_map(|binding| ["--binding", binding]));
        let kept = dev.muster(&arguments).await.success().json();
        assert_eq!(
            (&kept["binding"], &kept["state"]),
            (&json!(binding.unwrap_or("GRPC")), &json!("present"))
        );
        let keeping = Self {
            dev,
            agent,
            _directory: directory,
        };
        let router = keeping.router();
        wait_for("the router to know it", PATIENCE, async || {
            let card = http::get(router, &format!("/{ID}/.well-known/agent-card.json")).await;
            card.is_ok_and(|card| card.status == 200)
        })
        .await;
        keeping
    }

    fn router(&self) -> SocketAddr {
        address(&self.dev.url("router"))
    }

    /// The only agent that is kept.
    async fn kept(&self) -> Value {
        let listed = self.dev.muster(&["agents", "kept", "-o", "json"]).await;
        listed.success().json()["agents"][0].clone()
    }

    /// Waits until the registry finds it so.
    async fn is(&self, state: &str) -> Value {
        wait_for(state, PATIENCE, async || {
            let kept = self.kept().await;
            if kept["state"] == state {
                Ok(kept)
            } else {
                Err(kept.to_string())
            }
        })
        .await
    }

    /// Waits until the router has nobody to send to.
    async fn is_sent_nothing(&self) {
        wait_for("the router to send it nothing", PATIENCE, async || {
            let sent = self.dev.muster(&["send", "--agent", ID, "hello"]).await;
            if sent.code == 5 {
                Ok(())
            } else {
                Err(format!("{sent:?}"))
            }
        })
        .await;
    }
}

/// All that either client can do, over each of its bindings.
async fn both_clients_converse(agent: Sdk, binding: &str) {
    let keeping = Keeping::start(agent, Some(binding), &[]).await;
    let url = format!("{}/{ID}", keeping.dev.url("router"));
    let pushed_as = match agent {
        Sdk::Python => "application/json",
        Sdk::JavaScript => "application/a2a+json",
    };
    for client in Sdk::ALL {
        for before in BINDINGS {
            let said = client.run("a2a_conversation", &[&url, before]).await;
            assert_eq!(
                said,
                json!({ "binding": before, "pushedAs": pushed_as }),
                "{client} over {before}"
            );
        }
    }
}

#[tokio::test]
async fn official_clients_converse_with_an_official_python_agent_over_grpc() {
    both_clients_converse(Sdk::Python, "GRPC").await;
}

#[tokio::test]
async fn official_clients_converse_with_an_official_python_agent_over_json_rpc() {
    both_clients_converse(Sdk::Python, "JSONRPC").await;
}

#[tokio::test]
async fn official_clients_converse_with_an_official_python_agent_over_http_json() {
    both_clients_converse(Sdk::Python, "HTTP+JSON").await;
}

#[tokio::test]
async fn official_clients_converse_with_an_official_javascript_agent_over_grpc() {
    both_clients_converse(Sdk::JavaScript, "GRPC").await;
}

#[tokio::test]
async fn official_clients_converse_with_an_official_javascript_agent_over_json_rpc() {
    both_clients_converse(Sdk::JavaScript, "JSONRPC").await;
}

#[tokio::test]
async fn official_clients_converse_with_an_official_javascript_agent_over_http_json() {
    both_clients_converse(Sdk::JavaScript, "HTTP+JSON").await;
}

/// It is kept, forgotten, and nothing more is sent to it.
async fn is_kept_by_the_registry(sdk: Sdk) {
    let keeping = Keeping::start(sdk, None, &[]).await;
    serves_every_operation(&keeping.dev, keeping.router(), ID).await;
    let kept = keeping.is("present").await;
    let card = format!("{}/.well-known/agent-card.json", keeping.agent.url());
    assert_eq!(
        (&kept["agent"], &kept["card"], &kept["problem"]),
        (&json!(ID), &json!(card), &json!(""))
    );
    let card = keeping.agent.url();
    let forgotten = keeping.dev.muster(&["agents", "forget", "--card", &card]).await;
    assert_eq!(forgotten.code, 0, "{forgotten:?}");
    keeping.is_sent_nothing().await;
}

#[tokio::test]
async fn an_agent_of_the_official_python_sdk_is_kept_by_the_registry() {
    is_kept_by_the_registry(Sdk::Python).await;
}

#[tokio::test]
async fn an_agent_of_the_official_javascript_sdk_is_kept_by_the_registry() {
    is_kept_by_the_registry(Sdk::JavaScript).await;
}

/// It is killed, found missing, sent nothing, and back again once it answers.
async fn is_back_after_a_kill(sdk: Sdk) {
    let settings = [
        "--set",
        "registry.health_check_interval=2",
        "--set",
        "registry.lease_duration=8",
    ];
    let mut keeping = Keeping::start(sdk, None, &settings).await;
    serves_every_operation(&keeping.dev, keeping.router(), ID).await;
    keeping.agent.kill().await;
    let kept = keeping.is("absent").await;
    assert!(
        kept["problem"].as_str().is_some_and(|why| !why.is_empty()),
        "it says why: {kept}"
    );
    keeping.is_sent_nothing().await;

    keeping.agent.start_again().await;
    keeping.is("present").await;
    wait_for("the router to send to it", PATIENCE, async || {
        let sent = keeping.dev.muster(&["send", "--agent", ID, "echo hello"]).await;
        if sent.code == 0 {
            Ok(())
        } else {
            Err(format!("{sent:?}"))
        }
    })
    .await;
    serves_every_operation(&keeping.dev, keeping.router(), ID).await;
}

#[tokio::test]
async fn an_agent_of_the_official_python_sdk_is_back_after_a_kill() {
    is_back_after_a_kill(Sdk::Python).await;
}

#[tokio::test]
async fn an_agent_of_the_official_javascript_sdk_is_back_after_a_kill() {
    is_back_after_a_kill(Sdk::JavaScript).await;
}

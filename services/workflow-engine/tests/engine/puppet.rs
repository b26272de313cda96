//! An agent of the SDK that does as it is told, and a place for cards that lead to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use muster_agent_sdk::{Agent, Card, Config, Failure, NoSettings, Reply, Request, Skill, Task, run};
use muster_runtime::{Listeners, Shutdown};
use muster_testkit::wait_for;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::PATIENCE;

/// What the agent counts.
#[derive(Default)]
pub struct Counts {
    /// Messages that it has begun to work on.
    pub begun: AtomicUsize,
    /// Those of them that were cancelled.
    pub cancelled: AtomicUsize,
}

struct Puppet(Arc<Counts>);

impl Agent for Puppet {
    fn card(&self) -> Card {
        Card::new("puppet", "Puppet", "Does what it is told", "1.0.0").skill(Skill::new("act", "Act", "Acts"))
    }

    async fn handle(&self, request: Request, task: Task) -> Result<Reply, Failure> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        let heard: Vec<&str> = task
            .history()
            .iter()
            .filter_map(|message| message.text())
            .collect();
        match request.text() {
            _ if !heard.is_empty() => {
                Ok(Reply::completed("thank you").data(json!({"heard": heard, "now": request.text()})))
            }
            "ask" => Ok(Reply::input_required("which city?")),
            "wait" => {
                task.working("waiting").await;
                task.cancelled().await;
                self.0.cancelled.fetch_add(1, Ordering::SeqCst);
                Ok(Reply::completed("stopped"))
            }
            "fail" => Err(Failure::failed("the instrument broke")),
            text => {
                task.working("thinking").await;
                Ok(Reply::completed(format!("echo {text}")).data(json!({"data": request.data()})))
            }
        }
    }
}

/// The agent, serving.
pub struct Stage {
    pub address: SocketAddr,
    pub counts: Arc<Counts>,
    _served: JoinSet<Result<(), muster_runtime::Error>>,
}

impl Stage {
    pub async fn open() -> Self {
        let mut config = Config::<NoSettings>::on_ports(0, 0, 0);
        config.agent.registry_url = "http://127.0.0.1:1".to_owned();
        config.agent.data_directory = std::path::PathBuf::new();
        let listeners = Listeners::ephemeral().unwrap();
        let (address, health) = (listeners.data_address(), listeners.health_address());
        let counts = Arc::new(Counts::default());
        let puppet = Arc::clone(&counts);
        let mut served = JoinSet::new();
        served.spawn(run(config, listeners, Shutdown::new(), move |_: &NoSettings| {
            Ok(Puppet(puppet))
        }));
        wait_for("the agent to be ready", PATIENCE, async || {
            let answer = muster_testkit::http::get(health, "/ready").await;
            answer.is_ok_and(|answer| answer.status.is_success())
        })
        .await;
        Self {
            address,
            counts,
            _served: served,
        }
    }

    /// Waits until it has begun so many, and so many of them were cancelled.
    pub async fn until(&self, begun: usize, cancelled: usize) {
        wait_for("the agent to get there", PATIENCE, async || {
            let now = [&self.counts.begun, &self.counts.cancelled].map(|count| count.load(Ordering::SeqCst));
            if now == [begun, cancelled] {
                Ok(())
            } else {
                Err(format!("begun and cancelled are {now:?}"))
            }
        })
        .await;
    }
}

/// Serves one card, and counts how often it is read.
pub struct Cards {
    pub address: SocketAddr,
    shown: Arc<Shown>,
    _server: JoinSet<()>,
}

struct Shown {
    card: Value,
    /// Who may see it, by the header `Authorization`.
    only: Option<&'static str>,
    reads: AtomicUsize,
}

impl Cards {
    /// A card with these interfaces, as `(binding, url)`.
    pub async fn with(interfaces: &[(&str, String)], only: Option<&'static str>) -> Self {
        let interfaces: Vec<Value> = interfaces
            .iter()
            .map(|(binding, url)| json!({"url": url, "protocolBinding": binding, "protocolVersion": "1.0"}))
            .collect();
        let shown = Arc::new(Shown {
            card: json!({"name": "puppet", "version": "1", "supportedInterfaces": interfaces}),
            only,
            reads: AtomicUsize::new(0),
        });
        let routes = Router::new()
            .route("/cards/puppet.json", get(show))
            .route("/team/puppet/.well-known/agent-card.json", get(show))
            .with_state(Arc::clone(&shown));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            address,
            shown,
            _server: server,
        }
    }

    /// Where the card is.
    pub fn url(&self) -> String {
        format!("http://{}/cards/puppet.json", self.address)
    }

    pub fn reads(&self) -> usize {
        self.shown.reads.load(Ordering::SeqCst)
    }
}

async fn show(State(shown): State<Arc<Shown>>, headers: HeaderMap) -> Response {
    shown.reads.fetch_add(1, Ordering::SeqCst);
    let who = headers.get("authorization").and_then(|value| value.to_str().ok());
    if shown.only.is_some() && shown.only != who {
        return (StatusCode::UNAUTHORIZED, "who are you?").into_response();
    }
    axum::Json(shown.card.clone()).into_response()
}

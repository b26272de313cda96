//! Where push notifications go to: a web server that keeps what it is sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_testkit::wait_for;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::driver::PATIENCE;

/// One notification.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Value,
    /// Whether the server said that it has it.
    pub taken: bool,
    /// When it came, counted from when the server was started.
    pub at: Duration,
}

impl Delivery {
    /// A header as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// The state that it tells of, if any.
    pub fn state(&self) -> Option<&str> {
        let status = [&self.body["statusUpdate"]["status"], &self.body["task"]["status"]];
        status.into_iter().find_map(|status| status["state"].as_str())
    }
}

/// A running server. Dropping it closes its port.
pub struct Webhook {
    address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Inside {
    clock: SystemClock,
    deliveries: Vec<Delivery>,
    /// What the next ones are answered.
    answers: VecDeque<StatusCode>,
    /// What artifacts are answered.
    artifacts: Option<StatusCode>,
}

impl Webhook {
    /// Starts one that answers the first notifications with these statuses, and takes the others.
    pub async fn answering(statuses: &[u16]) -> Self {
        let answers = statuses.iter().map(|status| code(*status)).collect();
        Self::with(Inside {
            answers,
            ..Default::default()
        })
        .await
    }

    /// Starts one that answers artifacts with this status, and takes everything else.
    pub async fn refusing_artifacts(status: u16) -> Self {
        Self::with(Inside {
            artifacts: Some(code(status)),
            ..Default::default()
        })
        .await
    }

    async fn with(inside: Inside) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let inside = Arc::new(Mutex::new(inside));
        let routes = Router::new().fallback(take).with_state(Arc::clone(&inside));
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, routes).await.expect("it serves");
        });
        Self {
            address,
            inside,
            _server: server,
        }
    }

    /// Starts one that takes everything.
    pub async fn start() -> Self {
        Self::answering(&[]).await
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/notify", self.address)
    }

    /// What it has been sent.
    pub fn deliveries(&self) -> Vec<Delivery> {
        locked(&self.inside).deliveries.clone()
    }

    /// Waits until it has taken a notification of this state.
    pub async fn told(&self, state: &str) -> Delivery {
        wait_for(&format!("a notification of {state}"), PATIENCE, async || {
            let deliveries = self.deliveries();
            let found = deliveries
                .iter()
                .find(|delivery| delivery.taken && delivery.state() == Some(state));
            found
                .cloned()
                .ok_or_else(|| format!("it was sent {deliveries:?}"))
        })
        .await
    }
}

async fn take(
    State(inside): State<Arc<Mutex<Inside>>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut inside = locked(&inside);
    let refused = inside.artifacts.filter(|_| body.get("artifactUpdate").is_some());
    let next = inside.answers.pop_front();
    let answer = refused.or(next).unwrap_or(StatusCode::NO_CONTENT);
    let at = inside.clock.monotonic();
    inside.deliveries.push(Delivery {
        method,
        headers,
        body,
        taken: answer.is_success(),
        at,
    });
    answer
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status")
}

fn locked(inside: &Mutex<Inside>) -> MutexGuard<'_, Inside> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

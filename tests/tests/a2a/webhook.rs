//! Where push notifications go to: a web server that keeps what it is sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
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
    deliveries: Vec<Delivery>,
    failures: usize,
}

impl Webhook {
    /// Starts one that answers the first notifications with 500.
    pub async fn failing(failures: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let inside = Arc::new(Mutex::new(Inside {
            failures,
            ..Default::default()
        }));
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
        Self::failing(0).await
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
    let mut inside = locked(&inside);
    let taken = inside.failures == 0;
    inside.failures = inside.failures.saturating_sub(1);
    inside.deliveries.push(Delivery {
        method,
        headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
        taken,
    });
    if taken {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

fn locked(inside: &Mutex<Inside>) -> MutexGuard<'_, Inside> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A stranger's service over HTTP: answers as it is told, and remembers what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use muster_testkit::wait_for;
use serde_json::Value;
use std::sync::Mutex;
use tokio::task::JoinSet;

use crate::harness::PATIENCE;

/// A request as the service saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A field of a body that is a form.
    pub fn field(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.body.as_bytes())
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// What the service answers.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Never, in fact.
    pub silent: bool,
}

impl Reply {
    pub fn json(value: &Value) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "application/json".into())],
            body: value.to_string().into_bytes(),
            silent: false,
        }
    }

    pub fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            headers: vec![("content-type", "text/plain".into())],
            body: text.into(),
            silent: false,
        }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn silence() -> Self {
        Self {
            silent: true,
            ..Self::text(200, "")
        }
    }
}

pub struct Service {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    gone: Arc<Mutex<usize>>,
    _task: JoinSet<()>,
}

/// Counts requests whose client has hung up.
struct HangUp(Arc<Mutex<usize>>);

impl Drop for HangUp {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

impl Service {
    pub async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let gone: Arc<Mutex<usize>> = Arc::default();
        let answer = Arc::new(answer);
        let (remembered, hung_up) = (Arc::clone(&seen), Arc::clone(&gone));
        let handler = move |request: Request| {
            let (answer, seen, gone) = (Arc::clone(&answer), Arc::clone(&remembered), Arc::clone(&hung_up));
            async move {
                let request = read(request).await;
                seen.lock().unwrap().push(request.clone());
                let reply = answer(&request);
                if reply.silent {
                    let _guard = HangUp(gone);
                    std::future::pending::<()>().await;
                }
                let mut response = Response::builder().status(reply.status);
                for (name, value) in reply.headers {
                    response = response.header(name, value);
                }
                response.body(Body::from(reply.body)).unwrap()
            }
        };
        let mut task = JoinSet::new();
        task.spawn(async move {
            axum::serve(listener, Router::new().fallback(handler))
                .await
                .unwrap();
        });
        Self {
            address,
            seen,
            gone,
            _task: task,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until it was asked that often.
    pub async fn until_seen(&self, count: usize) {
        wait_for("requests to arrive", PATIENCE, async || {
            let seen = self.seen().len();
            if seen >= count {
                Ok(())
            } else {
                Err(format!("{seen} have"))
            }
        })
        .await;
    }

    /// Waits until so many clients have hung up that waited for an answer.
    pub async fn until_gone(&self, count: usize) {
        wait_for("clients to hang up", PATIENCE, async || {
            let gone = *self.gone.lock().unwrap();
            if gone >= count {
                Ok(())
            } else {
                Err(format!("{gone} have"))
            }
        })
        .await;
    }
}

async fn read(request: Request) -> Seen {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let headers = parts.headers.iter();
    let headers = headers.map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    Seen {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

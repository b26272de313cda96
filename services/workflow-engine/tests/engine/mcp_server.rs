//! A small MCP server over streamable HTTP that writes down what it is told.
//!
//! Written against the specification and with nothing of the engine's own, so that both sides must agree with it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    heard: Arc<Heard>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Heard {
    /// Methods with the session they came in, in order.
    messages: Mutex<Vec<(String, Option<String>, Value)>>,
}

impl Server {
    pub async fn start() -> Self {
        let heard = Arc::new(Heard::default());
        let routes = Router::new()
            .route("/mcp", post(message).delete(ended))
            .with_state(Arc::clone(&heard));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            address,
            heard,
            _server: server,
        }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// The methods that it has heard, in order; `DELETE` for the end of a session.
    pub fn methods(&self) -> Vec<String> {
        let messages = self.heard.messages.lock().unwrap();
        messages.iter().map(|(method, ..)| method.clone()).collect()
    }

    /// The last message of this method.
    pub fn last(&self, method: &str) -> Option<Value> {
        let messages = self.heard.messages.lock().unwrap();
        let found = messages.iter().rev().find(|(heard, ..)| heard == method);
        found.map(|(_, _, message)| message.clone())
    }
}

fn session(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("mcp-session-id")?.to_str().ok()?.to_owned())
}

async fn ended(State(heard): State<Arc<Heard>>, headers: HeaderMap) -> StatusCode {
    let message = ("DELETE".to_owned(), session(&headers), Value::Null);
    heard.messages.lock().unwrap().push(message);
    StatusCode::NO_CONTENT
}

async fn message(State(heard): State<Arc<Heard>>, headers: HeaderMap, body: String) -> Response {
    let message: Value = serde_json::from_str(&body).unwrap();
    let method = message["method"].as_str().unwrap_or("answer").to_owned();
    let session = session(&headers);
    heard
        .messages
        .lock()
        .unwrap()
        .push((method.clone(), session.clone(), message.clone()));
    let id = message["id"].clone();
    let result = |result: Value| axum::Json(json!({"jsonrpc": "2.0", "id": id, "result": result}));
    let error = |code: i64, said: &str| {
        axum::Json(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": said}}))
    };
    if method != "initialize" && session.as_deref() != Some("session-of-the-test") {
        return (StatusCode::BAD_REQUEST, "no session").into_response();
    }
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    match method.as_str() {
        "initialize" => {
            let asked = message["params"]["protocolVersion"].clone();
            let agreed = if asked == "2025-11-25" {
                json!("2099-01-01")
            } else {
                asked
            };
            let answer = result(json!({
                "protocolVersion": agreed,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "small", "version": "1"},
            }));
            ([("mcp-session-id", "session-of-the-test")], answer).into_response()
        }
        "tools/list" => {
            result(json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})).into_response()
        }
        "tools/call" => match message["params"]["name"].as_str().unwrap() {
            "echo" => {
                let said = json!({"content": [{"type": "text", "text": message["params"]["arguments"].to_string()}]});
                streamed(
                    &id,
                    vec![json!({"jsonrpc": "2.0", "id": "s1", "method": "ping"})],
                    Some(said),
                )
            }
            "whoami" if bearer == Some("Bearer t0ken-of-the-test") => {
                result(json!({"content": [{"type": "text", "text": "you said t0ken-of-the-test"}]}))
                    .into_response()
            }
            "whoami" => (StatusCode::UNAUTHORIZED, "who are you?").into_response(),
            "slow" => {
                let token = message["params"]["_meta"]["progressToken"].clone();
                let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": 1, "total": 3, "message": "first of three"}});
                streamed(&id, vec![progress], None)
            }
            "cut" => streamed(
                &id,
                vec![json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}})],
                Some(Value::Null),
            ),
            "large" => result(json!({"content": "x".repeat(20_000)})).into_response(),
            "wrong" => {
                result(json!({"isError": true, "content": [{"type": "text", "text": "no such city"}]}))
                    .into_response()
            }
            name => error(-32602, &format!("unknown tool '{name}'")).into_response(),
        },
        method if method.starts_with("notifications/") || method == "answer" => {
            StatusCode::ACCEPTED.into_response()
        }
        method => error(-32601, &format!("no method '{method}'")).into_response(),
    }
}

/// An answer as events: some messages, then the result; without one the stream stays open. A null result ends it early.
fn streamed(id: &Value, before: Vec<Value>, result: Option<Value>) -> Response {
    let waits = result.is_none();
    let last = result
        .filter(|result| !result.is_null())
        .map(|result| json!({"jsonrpc": "2.0", "id": id, "result": result}));
    let events = before
        .into_iter()
        .chain(last)
        .map(|message| Ok::<_, Infallible>(Event::default().data(message.to_string())));
    let events = stream::iter(events.collect::<Vec<_>>());
    if waits {
        return Sse::new(events.chain(stream::pending())).into_response();
    }
    Sse::new(events).into_response()
}

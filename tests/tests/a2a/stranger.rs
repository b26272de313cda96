//! An agent that is none of ours: it answers with a message alone, or with nonsense where that is asked of it, over the binding that the
//! router calls it by.
//!
//! | text | what it does |
//! |---|---|
//! | `nonsense` | answers with what is neither task nor message; as a stream, at once |
//! | `late nonsense` | streams a task at work, then nonsense |
//! | anything else | answers with a message |

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use muster_api::a2a::{self, StreamResponse};
use muster_testkit::{Answer, Call, FakeAgent};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::driver::Binding;

/// Its id.
pub const STRANGER: &str = "stranger";

/// A running one. Dropping it stops it.
pub struct Stranger {
    /// Where its card is.
    pub card_address: SocketAddr,
    _fake: FakeAgent,
    _server: JoinSet<()>,
}

impl Stranger {
    /// Starts one that is to be called over this binding.
    pub async fn start(binding: Binding) -> Self {
        let fake = FakeAgent::start(STRANGER).await;
        fake.fall_back_to(Answer::compute(answer));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let card_address = listener.local_addr().expect("its address");
        let url = match binding {
            Binding::Grpc => fake.address().to_string(),
            Binding::JsonRpc => format!("http://{card_address}/rpc"),
            Binding::HttpJson => format!("http://{card_address}"),
        };
        let card = json!({
            "name": STRANGER, "description": "Answers with a message", "version": "1.0.0",
            "supportedInterfaces": [
                { "url": url, "protocolBinding": binding.name(), "protocolVersion": "1.0" },
            ],
            "capabilities": { "streaming": true },
            "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
            "skills": [{ "id": "anything", "name": "Anything", "description": "Any", "tags": ["test"] }],
        });
        let routes = Router::new()
            .route(
                "/.well-known/agent-card.json",
                get(async |State(card)| Json::<Value>(card)),
            )
            .route("/rpc", post(rpc))
            .route("/message:send", post(send))
            .route("/message:stream", post(stream))
            .with_state(card);
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, routes).await.expect("it serves");
        });
        Self {
            card_address,
            _fake: fake,
            _server: server,
        }
    }
}

/// Over gRPC.
fn answer(call: &Call) -> Answer {
    match call.text.as_str() {
        "nonsense" => Answer::Events(vec![Ok(StreamResponse { payload: None })]),
        "late nonsense" => {
            let task = a2a::Task {
                id: "t".to_owned(),
                context_id: "c".to_owned(),
                status: Some(a2a::TaskStatus {
                    state: a2a::TaskState::Working.into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            Answer::Events(vec![
                Ok(StreamResponse {
                    payload: Some(a2a::stream_response::Payload::Task(task)),
                }),
                Ok(StreamResponse { payload: None }),
            ])
        }
        _ => Answer::Message("a message alone".to_owned()),
    }
}

/// The events of a stream, the last of which is the answer where there is none.
fn events(request: &Value) -> Vec<Value> {
    let task =
        json!({ "task": { "id": "t", "contextId": "c", "status": { "state": "TASK_STATE_WORKING" } } });
    match request["message"]["parts"][0]["text"].as_str() {
        Some("nonsense") => vec![json!({})],
        Some("late nonsense") => vec![task, json!({})],
        _ => vec![json!({ "message": {
            "messageId": "m", "contextId": "c", "role": "ROLE_AGENT", "parts": [{ "text": "a message alone" }],
        } })],
    }
}

async fn rpc(Json(call): Json<Value>) -> Response {
    let events = events(&call["params"]).into_iter();
    let mut envelopes = events.map(|event| json!({ "jsonrpc": "2.0", "id": call["id"], "result": event }));
    if call["method"] == "SendStreamingMessage" {
        return streamed(envelopes);
    }
    Json(envelopes.next_back()).into_response()
}

async fn send(Json(request): Json<Value>) -> Response {
    Json(events(&request).pop()).into_response()
}

async fn stream(Json(request): Json<Value>) -> Response {
    streamed(events(&request).into_iter())
}

fn streamed(events: impl Iterator<Item = Value>) -> Response {
    let lines: String = events.map(|event| format!("data: {event}\n\n")).collect();
    ([(CONTENT_TYPE, "text/event-stream")], lines).into_response()
}

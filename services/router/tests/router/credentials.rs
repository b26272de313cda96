//! Agents that ask for credentials: the router brings them, on every binding, and says what is missing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use muster_api::a2a::{
    AgentCard, ApiKeySecurityScheme, ClientCredentialsOAuthFlow, HttpAuthSecurityScheme,
    OAuth2SecurityScheme, OAuthFlows, OpenIdConnectSecurityScheme, SecurityRequirement, SecurityScheme,
    StringList, o_auth_flows, security_scheme::Scheme,
};
use muster_api::error::Reason;
use muster_api::registry::Instance;
use muster_testkit::{FakeAgent, wait_for};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::{PATIENCE, Stack, carrying, error_in, message};

/// What an agent on HTTP wants to see.
pub type Wanted = fn(&HeaderMap, Option<&str>) -> bool;

struct Shared {
    wanted: Mutex<Wanted>,
    /// What it was called with.
    seen: Mutex<Vec<(HeaderMap, Option<String>)>>,
    issued: AtomicUsize,
}

/// An agent of JSON-RPC and of HTTP+JSON that asks for something, and an authority that issues tokens `token-1`, `token-2` …
pub struct Guarded {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

impl Guarded {
    pub async fn start(wanted: Wanted) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            wanted: Mutex::new(wanted),
            seen: Mutex::default(),
            issued: AtomicUsize::new(0),
        });
        let router = axum::Router::new()
            .route("/rpc", axum::routing::post(rpc))
            .route("/rest/message:send", axum::routing::post(rest))
            .route("/token", axum::routing::post(token))
            .route("/.well-known/openid-configuration", axum::routing::get(openid))
            .with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let _ended = axum::serve(listener, router).await;
        });
        Self {
            address,
            shared,
            _server: server,
        }
    }

    pub fn instance(&self, binding: &str, card: AgentCard) -> Instance {
        let path = if binding == "JSONRPC" { "rpc" } else { "rest" };
        Instance {
            agent_id: "guarded".to_owned(),
            binding: binding.to_owned(),
            endpoint: format!("http://{}/{path}", self.address),
            card: Some(card),
            ..Instance::default()
        }
    }

    fn want(&self, wanted: Wanted) {
        *self.shared.wanted.lock().expect("no panic") = wanted;
    }

    pub fn seen(&self) -> Vec<(HeaderMap, Option<String>)> {
        self.shared.seen.lock().expect("no panic").clone()
    }

    fn issued(&self) -> usize {
        self.shared.issued.load(Ordering::SeqCst)
    }
}

fn admitted(shared: &Shared, request: &Request) -> bool {
    let query = request.uri().query().map(str::to_owned);
    let headers = request.headers().clone();
    let is_good = shared.wanted.lock().expect("no panic")(&headers, query.as_deref());
    shared.seen.lock().expect("no panic").push((headers, query));
    is_good
}

fn said() -> Value {
    json!({ "message": { "messageId": "a", "role": "ROLE_AGENT", "parts": [{ "text": "welcome" }] } })
}

async fn rpc(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if !admitted(&shared, &request) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    axum::Json(json!({ "jsonrpc": "2.0", "id": 1, "result": said() })).into_response()
}

async fn rest(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if !admitted(&shared, &request) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    axum::Json(said()).into_response()
}

async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    // `id` and `secret`, as RFC 6749 has it.
    let is_client = headers
        .get("authorization")
        .is_some_and(|value| value == "Basic aWQ6c2VjcmV0");
    if !is_client || body != "grant_type=client_credentials&scope=read+write" {
        let problem = json!({ "error": "invalid_client", "error_description": "who is this with secret" });
        return (StatusCode::UNAUTHORIZED, axum::Json(problem)).into_response();
    }
    let number = shared.issued.fetch_add(1, Ordering::SeqCst) + 1;
    let issued =
        json!({ "access_token": format!("token-{number}"), "token_type": "Bearer", "expires_in": 3600 });
    axum::Json(issued).into_response()
}

/// Where tokens are issued, on the host that is asked.
async fn openid(headers: HeaderMap) -> Response {
    let host = headers["host"].to_str().expect("ASCII").to_owned();
    axum::Json(json!({ "token_endpoint": format!("http://{host}/token") })).into_response()
}

pub fn asking(mut card: AgentCard, name: &str, scheme: Scheme, scopes: &[&str]) -> AgentCard {
    let scheme = SecurityScheme { scheme: Some(scheme) };
    card.security_schemes = [(name.to_owned(), scheme)].into();
    let list = StringList {
        list: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    };
    card.security_requirements = vec![SecurityRequirement {
        schemes: [(name.to_owned(), list)].into(),
    }];
    card
}

fn key_in(location: &str, name: &str) -> Scheme {
    Scheme::ApiKeySecurityScheme(ApiKeySecurityScheme {
        location: location.to_owned(),
        name: name.to_owned(),
        ..ApiKeySecurityScheme::default()
    })
}

fn http_scheme(scheme: &str) -> Scheme {
    Scheme::HttpAuthSecurityScheme(HttpAuthSecurityScheme {
        scheme: scheme.to_owned(),
        ..HttpAuthSecurityScheme::default()
    })
}

fn client_credentials(authority: SocketAddr) -> Scheme {
    Scheme::Oauth2SecurityScheme(OAuth2SecurityScheme {
        flows: Some(OAuthFlows {
            flow: Some(o_auth_flows::Flow::ClientCredentials(
                ClientCredentialsOAuthFlow {
                    token_url: format!("http://{authority}/token"),
                    ..ClientCredentialsOAuthFlow::default()
                },
            )),
        }),
        ..OAuth2SecurityScheme::default()
    })
}

pub fn give(directory: &Path, agent: &str, files: &[(&str, &str)]) {
    let folder = directory.join(agent);
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, content) in files {
        std::fs::write(folder.join(name), content).expect("a file");
    }
}

pub async fn stack(directory: &Path) -> Stack {
    Stack::with(|router| {
        router.credentials.directory = Some(directory.to_owned());
        router.outbound.allow = vec!["127.0.0.0/8".to_owned()];
    })
    .await
}

pub async fn card() -> AgentCard {
    FakeAgent::start("guarded").await.card(&["s"])
}

#[tokio::test]
async fn each_kind_of_credentials_reaches_an_agent_on_http() {
    let directory = tempfile::tempdir().unwrap();
    give(
        directory.path(),
        "guarded",
        &[
            ("hosts", "127.0.0.1\n"),
            ("scheme", "open-sesame"),
            ("login", "ada:pw"),
        ],
    );
    let cases: [(&str, &str, Scheme, Wanted); 6] = [
        ("JSONRPC", "scheme", key_in("header", "X-Key"), |headers, _| {
            headers.get("x-key").is_some_and(|key| key == "open-sesame")
        }),
        ("HTTP+JSON", "scheme", key_in("query", "key"), |_, query| {
            query == Some("key=open-sesame")
        }),
        ("JSONRPC", "scheme", key_in("query", "key"), |_, query| {
            query == Some("key=open-sesame")
        }),
        ("HTTP+JSON", "scheme", key_in("cookie", "sid"), |headers, _| {
            headers
                .get("cookie")
                .is_some_and(|cookie| cookie == "sid=open-sesame")
        }),
        ("JSONRPC", "scheme", http_scheme("bearer"), |headers, _| {
            headers
                .get("authorization")
                .is_some_and(|it| it == "Bearer open-sesame")
        }),
        ("HTTP+JSON", "login", http_scheme("basic"), |headers, _| {
            headers
                .get("authorization")
                .is_some_and(|it| it == "Basic YWRhOnB3")
        }),
    ];
    for (binding, name, scheme, wanted) in cases {
        let stack = stack(directory.path()).await;
        let agent = Guarded::start(wanted).await;
        let shown = format!("{binding} {scheme:?}");
        let card = asking(card().await, name, scheme, &[]);
        stack.register(agent.instance(binding, card)).await;
        // The caller's own is for the router.
        let request = carrying(
            message("guarded", "hello"),
            [("authorization", "Bearer callers-own")],
        );
        let outcome = stack.send(request).await;
        assert!(outcome.is_ok(), "{shown}: {outcome:?} {:?}", agent.seen());
        let (headers, _) = agent.seen().remove(0);
        assert!(!format!("{headers:?}").contains("callers-own"), "{shown}");
    }
}

#[tokio::test]
async fn credentials_reach_an_agent_on_grpc_and_the_card_asks_callers_for_none() {
    let directory = tempfile::tempdir().unwrap();
    give(
        directory.path(),
        "secretive",
        &[("hosts", "127.0.0.1"), ("b", "open-sesame")],
    );
    let stack = stack(directory.path()).await;
    let agent = FakeAgent::start("secretive").await;
    let mut instance = agent.instance(&["s"]);
    instance.card = instance
        .card
        .map(|card| asking(card, "b", http_scheme("bearer"), &[]));
    stack.register(instance).await;
    stack
        .send(message("secretive", "hello"))
        .await
        .expect("an answer");
    let metadata = agent.calls().remove(0).metadata;
    assert!(
        metadata.contains(&("authorization".to_owned(), "Bearer open-sesame".to_owned())),
        "{metadata:?}"
    );
    let card = muster_testkit::http::get(stack.router.address, "/secretive/.well-known/agent-card.json")
        .await
        .unwrap()
        .json();
    assert_eq!(
        (&card["securitySchemes"], &card["securityRequirements"]),
        (&Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn a_token_is_obtained_once_for_all_and_again_where_it_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    give(
        directory.path(),
        "guarded",
        &[("hosts", "127.0.0.1"), ("o", "id\nsecret\n")],
    );
    let stack = stack(directory.path()).await;
    let agent = Guarded::start(|headers, _| {
        headers
            .get("authorization")
            .is_some_and(|it| it == "Bearer token-1")
    })
    .await;
    let scheme = client_credentials(agent.address);
    let card = asking(card().await, "o", scheme, &["write", "read"]);
    stack.register(agent.instance("JSONRPC", card)).await;
    let sends = (0..8).map(|_| stack.send(message("guarded", "hello")));
    for outcome in futures::future::join_all(sends).await {
        outcome.expect("an answer");
    }
    assert_eq!(agent.issued(), 1);

    // The token has ended before its time: it is replaced, and the call is made again, once.
    agent.want(|headers, _| {
        headers
            .get("authorization")
            .is_some_and(|it| it == "Bearer token-2")
    });
    stack.send(message("guarded", "hello")).await.expect("an answer");
    assert_eq!(agent.issued(), 2);
    agent.want(|_, _| false);
    let before = agent.seen().len();
    let refused = stack
        .send(message("guarded", "hello"))
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused:?}");
    assert_eq!(agent.seen().len() - before, 2);

    // No token: told without the secret, and the agent is not called.
    give(directory.path(), "guarded", &[("o", "id\nwrong-secret\n")]);
    let error = wait_for("the new secret to be read", PATIENCE, async || {
        let refused = stack
            .send(message("guarded", "hello"))
            .await
            .expect_err("refused");
        let error = muster_api::error::Error::from_status(&refused);
        error
            .filter(|error| error.reason == Reason::DependencyUnavailable)
            .ok_or(format!("{refused:?}"))
    })
    .await;
    assert!(error.message.contains("invalid_client"), "{error}");
    assert!(!error.message.contains("wrong-secret"), "{error}");
}

#[tokio::test]
async fn openid_connect_says_where_tokens_are_issued() {
    let directory = tempfile::tempdir().unwrap();
    give(
        directory.path(),
        "guarded",
        &[("hosts", "127.0.0.1"), ("o", "id\nsecret")],
    );
    let stack = stack(directory.path()).await;
    let agent = Guarded::start(|headers, _| {
        headers
            .get("authorization")
            .is_some_and(|it| it == "Bearer token-1")
    })
    .await;
    let scheme = Scheme::OpenIdConnectSecurityScheme(OpenIdConnectSecurityScheme {
        open_id_connect_url: format!("http://{}/.well-known/openid-configuration", agent.address),
        ..OpenIdConnectSecurityScheme::default()
    });
    let card = asking(card().await, "o", scheme, &["read", "write"]);
    stack.register(agent.instance("HTTP+JSON", card)).await;
    stack.send(message("guarded", "hello")).await.expect("an answer");
    assert_eq!(agent.issued(), 1);
}

#[tokio::test]
async fn what_nobody_has_given_is_named_and_given_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let stack = stack(directory.path()).await;
    let agent = Guarded::start(|headers, _| headers.contains_key("x-key")).await;
    let card = asking(card().await, "key", key_in("header", "X-Key"), &[]);
    stack.register(agent.instance("JSONRPC", card)).await;
    let refused = stack
        .send(message("guarded", "hello"))
        .await
        .expect_err("refused");
    let error = error_in(&refused);
    assert_eq!(error.reason, Reason::CredentialsMissing);
    assert!(
        error.message.contains("'guarded'") && error.message.contains("'key'"),
        "{error}"
    );
    assert!(agent.seen().is_empty(), "it was not called");
    give(
        directory.path(),
        "guarded",
        &[("key", "k"), ("hosts", "127.0.0.1")],
    );
    wait_for("the key to be read", PATIENCE, async || {
        stack.send(message("guarded", "hello")).await
    })
    .await;
}

//! A Kubernetes API server on a local port, with what the documentation of its API promises and `muster deploy` relies on.
//!
//! ```text
//! api_server/world.rs        what it holds; paths, verbs, permissions
//! api_server/apply.rs        server-side apply: owners of fields, conflicts, defaults
//! api_server/controllers.rs  what makes pods of workloads, a step at each look
//! ```
//!
//! Time passes when somebody looks: each request for a workload moves the controllers by one step. A test says which images break, which
//! workloads are held, what may not be done, and how often the server is away.

mod apply;
mod controllers;
mod world;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::task::JoinSet;

use world::Refusal;
pub use world::World;

/// The token that it lets in.
pub const TOKEN: &str = "a-token-of-the-operator";

/// The running server.
pub struct ApiServer {
    world: Arc<Mutex<World>>,
    address: SocketAddr,
    directory: tempfile::TempDir,
    _serving: JoinSet<()>,
}

impl ApiServer {
    /// A cluster with one large node, a default class of volumes, and the secrets that the overlays name.
    pub async fn start() -> Self {
        let mut world = World {
            minor: 32,
            ..World::default()
        };
        world.put(
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"},
            "status": {"allocatable": {"cpu": "128", "memory": "512Gi"}}}),
        );
        world.put(
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}),
        );
        world.put(
            json!({"apiVersion": "external-secrets.io/v1", "kind": "SecretStore",
            "metadata": {"name": "agent-system", "namespace": "agent-system"}}),
        );
        let world = Arc::new(Mutex::new(world));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(world.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, app).await.unwrap();
        });
        let server = Self {
            world,
            address,
            directory: tempfile::tempdir().unwrap(),
            _serving: serving,
        };
        server.kubeconfig_with(TOKEN);
        server
    }

    /// What it holds.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A directory for the test's own files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Writes the kubeconfig with a token.
    pub fn kubeconfig_with(&self, token: &str) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        });
        std::fs::write(self.kubeconfig(), config.to_string()).unwrap();
    }
}

async fn answer(
    State(world): State<Arc<Mutex<World>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if token != Some(&format!("Bearer {TOKEN}")) {
        return Refusal::new(401, "Unauthorized", "Unauthorized").answer();
    }
    let changes = method != Method::GET && !uri.path().contains("selfsubjectaccessreviews");
    if changes && let Some(code) = world.hiccups.pop() {
        return Refusal::new(code, "ServiceUnavailable", "the server is away for a moment").answer();
    }
    match world.answer(&method, &uri, &headers, &body) {
        Ok(value) => axum::Json(value).into_response(),
        Err(refusal) => refusal.answer(),
    }
}

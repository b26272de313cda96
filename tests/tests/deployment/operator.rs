//! Somebody with a kubeconfig who gives commands.

use std::path::PathBuf;

use muster_testkit::Program;
use muster_tests::{Finished, muster, repository_file, tool};
use serde_json::Value;

use crate::api_server::ApiServer;

/// Replaces what stands for an operator's own hosts.
pub const HOSTS: &str = "
deploy:
  hosts:
    agents.example.com: agents.acme.test
    login.example.com: login.acme.test
    hooks.example.com: hooks.acme.test
";

/// A digest that no image of the overlays has.
pub const DIGEST: &str = "sha256:bad0bad0bad0bad0bad0bad0bad0bad0bad0bad0bad0bad0bad0bad0bad0bad0";

/// The operator, in front of a cluster.
pub struct Operator {
    /// The cluster.
    pub server: ApiServer,
}

impl Operator {
    /// In front of an empty cluster.
    pub async fn new() -> Self {
        Self {
            server: ApiServer::start().await,
        }
    }

    /// In front of a cluster with the overlay `local`.
    pub async fn with_local() -> Self {
        let operator = Self::new().await;
        let _applied = operator.deploy(&["apply", &overlay("local")]).await.success();
        operator
    }

    /// What is in the environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let kubectl = tool("../manifests/bin/kubectl");
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", kubectl.parent().unwrap().display());
        [
            ("PATH", path),
            ("KUBECONFIG", self.server.kubeconfig().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Gives a command of `muster deploy`.
    pub async fn deploy(&self, arguments: &[&str]) -> Finished {
        let all: Vec<&str> = ["deploy"].iter().chain(arguments).copied().collect();
        muster(&self.environment(), &all).await
    }

    /// Gives a command, and takes its answer as JSON.
    pub async fn asked(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        self.deploy(&all).await.success().json()
    }

    /// A command that the test starts and ends itself.
    pub fn program(&self, arguments: &[&str]) -> Program {
        let program = self
            .environment()
            .into_iter()
            .fold(Program::named("muster"), |program, (name, value)| {
                program.env(name, value)
            });
        arguments
            .iter()
            .fold(program.arg("deploy"), |program, argument| program.arg(*argument))
    }

    /// Writes a file of the operator's own; its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.server.directory().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// What was changed in the cluster since a length of the list, but for leases and revisions.
    pub fn changes_since(&self, length: usize) -> Vec<String> {
        let world = self.server.world();
        let changes = world.changes[length..].iter();
        changes
            .filter(|change| !change.contains("secret/muster-revision"))
            .cloned()
            .collect()
    }

    /// How many changes there were.
    pub fn changes(&self) -> usize {
        self.server.world().changes.len()
    }

    /// The image of the first container of a workload.
    pub fn image(&self, kind: &str, name: &str) -> String {
        let world = self.server.world();
        let image = world
            .get(kind, name)
            .unwrap()
            .pointer("/spec/template/spec/containers/0/image");
        image.unwrap().as_str().unwrap().to_owned()
    }
}

/// The path of an overlay.
pub fn overlay(name: &str) -> String {
    let path: PathBuf = repository_file("deploy/kubernetes/overlays").join(name);
    path.display().to_string()
}

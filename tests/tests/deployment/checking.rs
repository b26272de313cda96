//! Render, and preflight.

use std::collections::BTreeMap;

use muster_tests::{Finished, repository_file, shell};
use serde_json::{Value, json};

use crate::operator::{HOSTS, Operator, overlay};

/// Objects by what tells them apart.
fn by_name(list: &Value) -> BTreeMap<String, Value> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| {
            (
                format!("{}/{}", item["kind"], item["metadata"]["name"]),
                item.clone(),
            )
        })
        .collect()
}

#[tokio::test]
async fn every_overlay_is_rendered_as_kustomize_renders_it() {
    let operator = Operator::new().await;
    let environment = operator.environment();
    let overlays = std::fs::read_dir(repository_file("deploy/kubernetes/overlays")).unwrap();
    let mut count = 0;
    for entry in overlays {
        let path = entry.unwrap().path().display().to_string();
        let ours = operator.asked(&["render", &path]).await;
        let text = operator.deploy(&["render", &path]).await.success().stdout;
        let again = operator.file("rendered.yaml", &text);
        assert_eq!(operator.asked(&["render", &again]).await, ours, "{path}");
        let line = format!("kubectl kustomize {path} > kustomize.yaml");
        let _rendered = shell(&environment, operator.server.directory(), &line)
            .await
            .success();
        let file = operator
            .server
            .directory()
            .join("kustomize.yaml")
            .display()
            .to_string();
        let theirs = operator.asked(&["render", &file]).await;
        assert_eq!(by_name(&ours), by_name(&theirs), "{path}");
        count += 1;
    }
    assert_eq!(count, 6);
}

#[tokio::test]
async fn without_kustomize_a_rendered_file_will_do() {
    let operator = Operator::new().await;
    let rendered = operator
        .deploy(&["render", &overlay("local")])
        .await
        .success()
        .stdout;
    let file = operator.file("local.yaml", &rendered);
    let mut environment = operator.environment();
    environment[0].1 = operator.server.directory().display().to_string();
    let none = muster_tests::muster(&environment, &["deploy", "render", &overlay("local")]).await;
    assert_eq!(none.code, 1, "{none:?}");
    assert!(none.stderr.contains("install kubectl"), "{none:?}");
    let done = muster_tests::muster(&environment, &["deploy", "render", &file])
        .await
        .success();
    assert_eq!(done.stdout, rendered);
    let unknown = operator.deploy(&["render", "nowhere"]).await;
    assert_eq!(unknown.code, 3, "{unknown:?}");
}

#[tokio::test]
async fn mistakes_of_the_configuration_are_found_before_a_cluster_is_asked() {
    let operator = Operator::new().await;
    let config = operator.file(
        "muster.yaml",
        "deploy: {replicas: {nobody: 2}}\nrouter: {nonsense: 1}\nengine: {max_concurrent_workflows: many}\n",
    );
    let refused = operator
        .deploy(&["apply", &overlay("local"), "--config", &config])
        .await;
    assert_eq!(refused.code, 2, "{refused:?}");
    for key in [
        "deploy.replicas.nobody",
        "router.nonsense",
        "engine.max_concurrent_workflows",
    ] {
        assert!(refused.stderr.contains(key), "{key} in {refused:?}");
    }
    assert_eq!(operator.changes(), 0);
}

/// Runs `preflight` of production and `apply`, which refuses for the same reason; what the former says.
async fn refused(operator: &Operator) -> Finished {
    let hosts = operator.file("hosts.yaml", HOSTS);
    let arguments = [&overlay("production"), "--config", &hosts];
    let length = operator.changes();
    let checked = operator.deploy(&[&["preflight"], &arguments[..]].concat()).await;
    assert_eq!(checked.code, 1, "{checked:?}");
    let applied = operator.deploy(&[&["apply"], &arguments[..]].concat()).await;
    assert_eq!(applied.code, 1, "{applied:?}");
    assert_eq!(
        operator.changes_since(length),
        Vec::<String>::new(),
        "nothing is changed"
    );
    checked
}

fn says(checked: &Finished, all: &[&str]) {
    for said in all {
        assert!(checked.stderr.contains(said), "{said} in {checked:?}");
    }
}

#[tokio::test]
async fn a_cluster_that_has_everything_passes() {
    let operator = Operator::new().await;
    let hosts = operator.file("hosts.yaml", HOSTS);
    let checks = operator
        .asked(&["preflight", &overlay("production"), "--config", &hosts])
        .await;
    let outcomes: Vec<&Value> = checks["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| &check["outcome"])
        .collect();
    assert_eq!(outcomes, [&json!("passed"); 7], "{checks}");
    assert_eq!(operator.changes(), 0);
}

#[tokio::test]
async fn each_thing_that_is_missing_is_named_with_what_to_do() {
    let operator = Operator::new().await;
    operator.server.world().minor = 29;
    says(
        &refused(&operator).await,
        &["version: v1.29.4", "upgrade the cluster to 1.30"],
    );
    operator.server.world().minor = 32;

    operator.server.world().absent = ["argoproj.io", "security.istio.io"].map(str::to_owned).into();
    let checked = refused(&operator).await;
    says(
        &checked,
        &[
            "Rollout of argoproj.io/v1alpha1",
            "install Argo Rollouts",
            "PeerAuthentication",
            "istioctl install",
        ],
    );
    operator.server.world().absent.clear();

    operator.server.world().denied = ["patch roles", "create roles"].map(str::to_owned).into();
    let checked = refused(&operator).await;
    says(
        &checked,
        &[
            "we may not create, patch roles.rbac.authorization.k8s.io",
            "no role allows it",
            "kubectl create role",
        ],
    );
    operator.server.world().denied.clear();

    let node = |cpu: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}, "status": {"allocatable": {"cpu": cpu, "memory": "512Gi"}}});
    operator.server.world().put(node("4"));
    says(
        &refused(&operator).await,
        &["capacity: ", "of processors", "add nodes"],
    );
    operator.server.world().put(node("100m"));
    says(
        &refused(&operator).await,
        &["no node is large enough for a pod of", "add a larger node"],
    );
    operator.server.world().put(node("128"));

    operator.server.world().put(
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}}),
    );
    says(
        &refused(&operator).await,
        &["no StorageClass is the default", "kubectl annotate storageclass"],
    );
}

#[tokio::test]
async fn secrets_and_hosts_of_the_operators_own_are_asked_for() {
    let operator = Operator::new().await;
    let store = (
        "SecretStore".to_owned(),
        "agent-system".to_owned(),
        "agent-system".to_owned(),
    );
    let _gone = operator.server.world().objects.remove(&store);
    says(
        &refused(&operator).await,
        &["there is no SecretStore agent-system", "make the SecretStore"],
    );
    let examples = operator.deploy(&["preflight", &overlay("production")]).await;
    says(
        &examples,
        &[
            "hosts: examples stand where",
            "router.agents.example.com",
            "deploy.hosts",
        ],
    );
    // Without the operator that would make it, the Secret has to be there.
    let mut list = operator.asked(&["render", &overlay("production")]).await;
    list["items"]
        .as_array_mut()
        .unwrap()
        .retain(|item| item["kind"] != "ExternalSecret");
    let file = operator.file("without.json", &list.to_string());
    let without = operator.deploy(&["preflight", &file]).await;
    says(
        &without,
        &[
            "there is no Secret muster-redis in agent-system",
            "create secret generic muster-redis",
        ],
    );
}

#[tokio::test]
async fn a_check_can_be_ignored_and_what_cannot_be_seen_is_not_held_against_it() {
    let operator = Operator::new().await;
    operator.server.world().denied = ["list nodes", "list storageclasses"].map(str::to_owned).into();
    let checks = operator.asked(&["preflight", &overlay("local")]).await;
    let unchecked: Vec<&str> = checks["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["outcome"] == "unchecked")
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    assert!(unchecked.contains(&"capacity"), "{checks}");
    operator.server.world().denied.clear();
    operator.server.world().put(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"},
        "status": {"allocatable": {"cpu": "10m", "memory": "512Gi"}}}),
    );
    let refused = operator.deploy(&["apply", &overlay("local")]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    let _applied = operator
        .asked(&["apply", &overlay("local"), "--ignore", "capacity"])
        .await;
}

//! What an overlay needs that it does not bring itself: pure functions over its objects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Check, Object, Subject};

/// Who serves the kinds of a group.
pub fn who_brings(api_version: &str) -> String {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    match group {
        group if group.ends_with("istio.io") => {
            "install Istio 1.24 or newer: istioctl install --filename deploy/istio/mesh.yaml".to_owned()
        }
        "argoproj.io" => "install Argo Rollouts, or take the component `canary` out of the overlay".to_owned(),
        "monitoring.coreos.com" => {
            "install the Prometheus Operator, or take the component `monitoring` out of the overlay".to_owned()
        }
        "external-secrets.io" => {
            "install the External Secrets operator, or take the ExternalSecret out and make its Secret another way; \
             `deploy/kubernetes/redis-secret` prints that of Redis"
                .to_owned()
        }
        _ => format!("install what serves {api_version}, or upgrade the cluster; `kubectl api-versions` lists what is there"),
    }
}

/// Secrets that pods cannot start without and that no object brings, with one of those that need them.
pub fn secrets(objects: &[Object]) -> BTreeMap<String, String> {
    let brought: BTreeSet<&str> = objects
        .iter()
        .filter_map(|object| match object.kind() {
            "Secret" => Some(object.name()),
            "ExternalSecret" => object
                .value()
                .pointer("/spec/target/name")
                .and_then(Value::as_str)
                .or(Some(object.name())),
            _ => None,
        })
        .collect();
    let mut wanted = BTreeMap::new();
    for object in objects {
        let Some(pod) = object.pod() else { continue };
        for volume in list(pod.get("volumes")) {
            if volume.pointer("/secret/optional") == Some(&Value::Bool(true)) {
                continue;
            }
            if let Some(name) = volume.pointer("/secret/secretName").and_then(Value::as_str) {
                wanted.entry(name).or_insert_with(|| object.id().to_string());
            }
        }
        let containers = ["containers", "initContainers"];
        for container in containers.iter().flat_map(|key| list(pod.get(*key))) {
            let sources = list(container.get("envFrom")).filter_map(|source| source.get("secretRef"));
            let keys = list(container.get("env")).filter_map(|one| one.pointer("/valueFrom/secretKeyRef"));
            for reference in sources.chain(keys) {
                if reference["optional"] == true {
                    continue;
                }
                if let Some(name) = reference["name"].as_str() {
                    wanted.entry(name).or_insert_with(|| object.id().to_string());
                }
            }
        }
    }
    wanted
        .into_iter()
        .filter(|(name, _)| !brought.contains(name))
        .map(|(name, needed_by)| (name.to_owned(), needed_by))
        .collect()
}

/// Kind and name of what an ExternalSecret takes its values from, unless it is brought along.
pub fn secret_stores(objects: &[Object]) -> Vec<(String, String, &Object)> {
    objects
        .iter()
        .filter(|object| object.kind() == "ExternalSecret")
        .filter_map(|object| {
            let reference = object.value().pointer("/spec/secretStoreRef")?;
            let kind = reference["kind"].as_str().unwrap_or("SecretStore");
            let name = reference["name"].as_str()?;
            let brought = objects
                .iter()
                .any(|other| other.kind() == kind && other.name() == name);
            (!brought).then(|| (kind.to_owned(), name.to_owned(), object))
        })
        .collect()
}

/// Classes of the volumes that are claimed, with one of those that claim them; none: the cluster's default.
pub fn storage_classes(objects: &[Object]) -> BTreeMap<Option<String>, String> {
    let mut wanted = BTreeMap::new();
    for object in objects {
        let claims = match object.kind() {
            "PersistentVolumeClaim" => vec![object.value()],
            _ => list(object.value().pointer("/spec/volumeClaimTemplates")).collect(),
        };
        for claim in claims {
            let class = claim.pointer("/spec/storageClassName").and_then(Value::as_str);
            wanted
                .entry(class.map(str::to_owned))
                .or_insert_with(|| object.id().to_string());
        }
    }
    // An empty class asks for a volume that is there already.
    wanted.remove(&Some(String::new()));
    wanted
}

/// Whether the classes are there.
pub fn judge_storage(wanted: &BTreeMap<Option<String>, String>, found: &[Value]) -> Vec<Check> {
    let name = |class: &Value| {
        class
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let is_default = |class: &Value| {
        class.pointer("/metadata/annotations/storageclass.kubernetes.io~1is-default-class")
            == Some(&"true".into())
    };
    let names: Vec<String> = found.iter().filter_map(name).collect();
    let mut checks: Vec<Check> = wanted
        .iter()
        .filter_map(|(class, needed_by)| match class {
            Some(class) if names.contains(class) => None,
            Some(class) => Some(Check::failed(
                Subject::Storage,
                format!("there is no StorageClass {class}, which {needed_by} claims volumes of"),
                format!("make it, or name one of these in the overlay: {}", names.join(", ")),
            )),
            None if found.iter().any(is_default) => None,
            None => Some(Check::failed(
                Subject::Storage,
                format!("no StorageClass is the default, and {needed_by} claims volumes of it"),
                "kubectl annotate storageclass NAME storageclass.kubernetes.io/is-default-class=true, or name one in the overlay",
            )),
        })
        .collect();
    if checks.is_empty() {
        checks.push(Check::passed(Subject::Storage, format!("all {}", wanted.len())));
    }
    checks
}

/// The hosts in a value that are below a domain.
pub fn hosts_below(value: &Value, domain: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let of_host = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
            let hosts = text.split(|letter| !of_host(letter));
            found.extend(
                hosts
                    .filter(|host| host.ends_with(domain))
                    .filter(|host| {
                        let before = &host[..host.len() - domain.len()];
                        before.is_empty() || before.ends_with('.')
                    })
                    .map(str::to_owned),
            );
        }
        Value::Array(items) => items.iter().for_each(|item| hosts_below(item, domain, found)),
        Value::Object(map) => map.values().for_each(|item| hosts_below(item, domain, found)),
        _ => {}
    }
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::manifest;
    use crate::deploy::preflight::Outcome;

    #[test]
    fn a_secret_that_nobody_brings_is_wanted() {
        let objects = manifest::parse(
            r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: router}
spec:
  template:
    spec:
      volumes: [{secret: {secretName: mounted}}, {secret: {secretName: brought}}, {secret: {secretName: no-matter, optional: true}}]
      containers:
        - env: [{name: A, valueFrom: {secretKeyRef: {name: of-a-key, key: k}}}]
          envFrom: [{secretRef: {name: of-all}}]
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: other}
spec: {target: {name: brought}, secretStoreRef: {name: store}}
",
        )
        .unwrap();
        let wanted: Vec<String> = secrets(&objects).into_keys().collect();
        assert_eq!(wanted, ["mounted", "of-a-key", "of-all"]);
        let stores = secret_stores(&objects);
        assert_eq!(
            (stores[0].0.as_str(), stores[0].1.as_str()),
            ("SecretStore", "store")
        );
    }

    #[test]
    fn a_volume_needs_its_class_or_a_default() {
        let wanted = BTreeMap::from([(None, "statefulset/redis".to_owned())]);
        let class = |default: &str| {
            serde_json::json!({"metadata": {"name": "fast",
                "annotations": {"storageclass.kubernetes.io/is-default-class": default}}})
        };
        let failed = |wanted: &BTreeMap<_, _>, class: Value| {
            matches!(judge_storage(wanted, &[class])[0].outcome, Outcome::Failed { .. })
        };
        assert!(failed(&wanted, class("false")));
        assert!(!failed(&wanted, class("true")));
        let named = BTreeMap::from([(Some("fast".to_owned()), String::new())]);
        assert!(!failed(&named, class("false")));
        assert!(failed(
            &BTreeMap::from([(Some("slow".to_owned()), String::new())]),
            class("true")
        ));
    }

    #[test]
    fn hosts_are_found_in_urls_and_lists() {
        let mut found = BTreeSet::new();
        let value = serde_json::json!([
            "https://router.agents.example.com:443/x",
            "myexample.com",
            "[\"a.example.com\"]"
        ]);
        hosts_below(&value, "example.com", &mut found);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            ["a.example.com", "router.agents.example.com"]
        );
    }
}

//! What has to be there before anything is applied; for each thing that is not, what to do about it.
//!
//! All checks are made and all failures reported at once. What cannot be looked at, because nobody may list nodes or pods of others,
//! is said to be unchecked, and refuses nothing.

mod capacity;
mod needs;

use std::collections::BTreeSet;

use clap::ValueEnum;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::apply::AT_ONCE;
use super::cluster::{Cluster, Error, Resource};
use super::manifest::Object;
use crate::failure::Failure;
use crate::output::Output;

/// The oldest version that has `preStop.sleep` without a gate.
const OLDEST: (u32, u32) = (1, 30);
/// What stands for an operator's own domain in the overlays.
const PLACEHOLDER: &str = "example.com";

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// The cluster's version.
    Version,
    /// The kinds of objects.
    Kinds,
    /// What we may do.
    Permissions,
    /// Secrets that pods mount.
    Secrets,
    /// Classes of volumes.
    Storage,
    /// Room for the pods.
    Capacity,
    /// Hosts that stand for others.
    Hosts,
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Passed(String),
    /// It is not; what to do.
    Failed {
        /// What was found.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// It could not be looked at.
    Unchecked(String),
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub subject: Subject,
    /// How it ended.
    pub outcome: Outcome,
}

impl Check {
    fn passed(subject: Subject, what: impl Into<String>) -> Self {
        let outcome = Outcome::Passed(what.into());
        Self { subject, outcome }
    }

    fn failed(subject: Subject, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let outcome = Outcome::Failed {
            found: found.into(),
            remedy: remedy.into(),
        };
        Self { subject, outcome }
    }

    fn unchecked(subject: Subject, why: impl Into<String>) -> Self {
        let outcome = Outcome::Unchecked(why.into());
        Self { subject, outcome }
    }
}

fn name(subject: Subject) -> String {
    format!("{subject:?}").to_lowercase()
}

/// Makes all checks.
pub async fn check(cluster: &Cluster, objects: &[Object]) -> Result<Vec<Check>, Failure> {
    let namespace = super::namespace_of(objects)?;
    // Whoever does not get this far gets nowhere: the address, the certificate or the token is wrong.
    let mut checks = vec![version(cluster).await?];
    let (found, resources) = kinds(cluster, objects).await?;
    checks.extend(found);
    checks.extend(permissions(cluster, &resources, &namespace).await?);
    checks.extend(secrets(cluster, objects, &namespace).await?);
    checks.extend(storage(cluster, objects).await?);
    checks.push(room(cluster, objects, &namespace).await?);
    checks.push(hosts(objects));
    Ok(checks)
}

/// Fails with everything that is not there.
pub fn refuse(checks: &[Check], ignored: &[Subject]) -> Result<(), Failure> {
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| !ignored.contains(&check.subject))
        .filter_map(|check| match &check.outcome {
            Outcome::Failed { found, remedy } => {
                Some(format!("{}: {found}\n  → {remedy}", name(check.subject)))
            }
            _ => None,
        })
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "the cluster is not ready for this:\n{}",
        failed.join("\n")
    ))
    .with_remedy("nothing was changed; --ignore CHECK of `apply` goes on in spite of one"))
}

/// Says how all of them ended.
pub fn print(checks: &[Check], output: &Output) {
    let parts = |check: &Check| match &check.outcome {
        Outcome::Passed(what) => ("passed", what.clone(), String::new()),
        Outcome::Failed { found, remedy } => ("failed", found.clone(), remedy.clone()),
        Outcome::Unchecked(why) => ("unchecked", why.clone(), String::new()),
    };
    if output.is_json() {
        let checks: Vec<Value> = checks
            .iter()
            .map(|check| {
                let (outcome, found, remedy) = parts(check);
                json!({"check": name(check.subject), "outcome": outcome, "found": found, "remedy": remedy})
            })
            .collect();
        output.json(&json!({"checks": checks}));
        return;
    }
    let rows = checks
        .iter()
        .map(|check| {
            let (outcome, found, _) = parts(check);
            [name(check.subject), outcome.to_owned(), found]
        })
        .collect();
    output.table(["check", "outcome", "found"], rows);
}

async fn version(cluster: &Cluster) -> Result<Check, Failure> {
    let (major, minor, said) = cluster.version().await?;
    if (major, minor) >= OLDEST {
        return Ok(Check::passed(Subject::Version, said));
    }
    Ok(Check::failed(
        Subject::Version,
        format!("{said} at {}", cluster.server()),
        format!(
            "upgrade the cluster to {}.{} or newer: pods wait by `preStop.sleep` before they stop",
            OLDEST.0, OLDEST.1
        ),
    ))
}

/// Which kinds are missing, and how the others are reached.
async fn kinds(cluster: &Cluster, objects: &[Object]) -> Result<(Vec<Check>, Vec<Resource>), Failure> {
    let wanted: BTreeSet<(&str, &str)> = objects
        .iter()
        .map(|object| (object.api_version(), object.kind()))
        .collect();
    let mut resources = Vec::new();
    let mut checks = Vec::new();
    for (api_version, kind) in &wanted {
        match cluster.resource(api_version, kind).await? {
            Some(resource) => resources.push(resource),
            None => checks.push(Check::failed(
                Subject::Kinds,
                format!("the cluster does not know {kind} of {api_version}"),
                needs::who_brings(api_version),
            )),
        }
    }
    if checks.is_empty() {
        checks.push(Check::passed(Subject::Kinds, format!("all {}", wanted.len())));
    }
    Ok((checks, resources))
}

async fn permissions(
    cluster: &Cluster,
    resources: &[Resource],
    namespace: &str,
) -> Result<Vec<Check>, Failure> {
    let own = [
        Resource::namespaced::<Secret>(),
        Resource::namespaced::<Lease>(),
        Resource::namespaced::<Pod>(),
    ];
    let mut asked: Vec<(&Resource, &str)> = Vec::new();
    for resource in resources.iter().chain(&own[..1]) {
        asked.extend(["get", "patch"].map(|verb| (resource, verb)));
        // A namespace is often made by an administrator.
        let is_namespace = resource.api.kind == "Namespace";
        if !is_namespace {
            asked.extend(["create", "delete"].map(|verb| (resource, verb)));
        } else if cluster.get(resource, None, namespace).await?.is_none() {
            asked.push((resource, "create"));
        }
    }
    asked.push((&own[0], "list"));
    asked.extend(["get", "create", "update"].map(|verb| (&own[1], verb)));
    asked.extend(["list", "delete"].map(|verb| (&own[2], verb)));
    asked.sort_by_key(|(resource, verb)| (&resource.api.group, &resource.api.plural, *verb));
    asked.dedup_by_key(|(resource, verb)| (resource.api.group.clone(), resource.api.plural.clone(), *verb));
    let count = asked.len();
    let answers: Vec<(&Resource, &str, Result<(), String>)> = stream::iter(asked)
        .map(|(resource, verb)| async move {
            let answer = cluster.may(verb, resource, Some(namespace)).await?;
            Ok::<_, Error>((resource, verb, answer))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let mut missing: Vec<(&Resource, Vec<&str>, String)> = Vec::new();
    for (resource, verb, answer) in answers {
        let Err(why) = answer else { continue };
        match missing.iter_mut().find(|(known, ..)| *known == resource) {
            Some((_, verbs, _)) => verbs.push(verb),
            None => missing.push((resource, vec![verb], why)),
        }
    }
    if missing.is_empty() {
        return Ok(vec![Check::passed(Subject::Permissions, format!("all {count}"))]);
    }
    let checks = missing.into_iter().map(|(resource, verbs, why)| {
        let group = &resource.api.group;
        let separator = if group.is_empty() { "" } else { "." };
        let kind = format!("{}{separator}{group}", resource.api.plural);
        let why = if why.is_empty() { why } else { format!(" ({why})") };
        let (place, role) = match resource.is_namespaced() {
            true => (format!(" in {namespace}"), format!("role muster-deploy -n {namespace}")),
            false => (String::new(), "clusterrole muster-deploy".to_owned()),
        };
        Check::failed(
            Subject::Permissions,
            format!("we may not {} {kind}{place}{why}", verbs.join(", ")),
            format!(
                "let an administrator grant it: kubectl create {role} --verb={} --resource={kind}, and bind it to whoever deploys",
                verbs.join(",")
            ),
        )
    });
    Ok(checks.collect())
}

async fn secrets(cluster: &Cluster, objects: &[Object], namespace: &str) -> Result<Vec<Check>, Failure> {
    let mut checks = Vec::new();
    let secret = Resource::namespaced::<Secret>();
    let wanted = needs::secrets(objects);
    for (name, needed_by) in &wanted {
        match cluster.get(&secret, Some(namespace), name).await {
            Ok(Some(_)) => {}
            Ok(None) => checks.push(Check::failed(
                Subject::Secrets,
                format!("there is no Secret {name} in {namespace}, which {needed_by} mounts"),
                format!("make it: kubectl -n {namespace} create secret generic {name} --from-file=…, or by an ExternalSecret"),
            )),
            Err(error) if error.code() == Some(403) => {
                checks.push(Check::unchecked(Subject::Secrets, error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    for (kind, name, needed_by) in needs::secret_stores(objects) {
        let api_version = needed_by.api_version();
        let Some(resource) = cluster.resource(api_version, &kind).await? else {
            continue; // its kind is among those that are missing
        };
        if cluster.get(&resource, Some(namespace), &name).await?.is_none() {
            checks.push(Check::failed(
                Subject::Secrets,
                format!(
                    "there is no {kind} {name}, which {} takes its values from",
                    needed_by.id()
                ),
                format!("make the {kind} {name} in {namespace}, for whoever keeps your secrets"),
            ));
        }
    }
    if checks.is_empty() {
        checks.push(Check::passed(Subject::Secrets, format!("all {}", wanted.len())));
    }
    Ok(checks)
}

async fn storage(cluster: &Cluster, objects: &[Object]) -> Result<Vec<Check>, Failure> {
    let wanted = needs::storage_classes(objects);
    if wanted.is_empty() {
        return Ok(vec![Check::passed(Subject::Storage, "no volume is claimed")]);
    }
    let classes = Resource::of_cluster::<StorageClass>();
    let found = match cluster.list(&classes, None, "").await {
        Ok(found) => found,
        Err(error) if error.code() == Some(403) => {
            return Ok(vec![Check::unchecked(Subject::Storage, error.to_string())]);
        }
        Err(error) => return Err(error.into()),
    };
    Ok(needs::judge_storage(&wanted, &found))
}

async fn room(cluster: &Cluster, objects: &[Object], namespace: &str) -> Result<Check, Failure> {
    let nodes = Resource::of_cluster::<Node>();
    let pods = Resource::namespaced::<Pod>();
    let listed = async {
        let nodes = cluster.list(&nodes, None, "").await?;
        let pods = cluster.list(&pods, None, "").await?;
        Ok::<_, Error>((nodes, pods))
    };
    match listed.await {
        Ok((nodes, pods)) => Ok(capacity::judge(objects, namespace, &nodes, &pods)),
        Err(error) if error.code() == Some(403) => Ok(Check::unchecked(Subject::Capacity, error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Whether hosts of an operator's own stand where the overlay has examples.
fn hosts(objects: &[Object]) -> Check {
    let mut found = BTreeSet::new();
    for object in objects {
        needs::hosts_below(object.value(), PLACEHOLDER, &mut found);
    }
    if found.is_empty() {
        return Check::passed(Subject::Hosts, "no example is left");
    }
    let found: Vec<String> = found.into_iter().collect();
    Check::failed(
        Subject::Hosts,
        format!("examples stand where your own hosts belong: {}", found.join(", ")),
        "name yours in `deploy.hosts` of the system configuration (`agents.example.com: agents.your.domain`), or in the overlay",
    )
}

/// The objects of a manifest that pods come of, with how many at least.
fn pods_wanted(objects: &[Object]) -> Vec<(&Object, u64)> {
    objects
        .iter()
        .filter(|object| object.is_workload() && object.pod().is_some())
        .map(|object| {
            let said = object.value().pointer("/spec/replicas").and_then(Value::as_u64);
            let scaled = objects
                .iter()
                .filter(|scaler| scaler.kind() == "HorizontalPodAutoscaler")
                .find(|scaler| {
                    let target = scaler.value().pointer("/spec/scaleTargetRef/name");
                    target.and_then(Value::as_str) == Some(object.name())
                })
                .and_then(|scaler| scaler.value().pointer("/spec/minReplicas")?.as_u64());
            (object, scaled.or(said).unwrap_or(1))
        })
        .collect()
}

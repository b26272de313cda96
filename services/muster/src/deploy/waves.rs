//! Changes brought about wave by wave, each awaited until it is well.
//!
//! A StatefulSet replaces a broken pod of an older template only when that pod has become ready, which it never will; it is deleted
//! here, as the documentation of StatefulSets asks for ("forced rollback").

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::Value;

use super::cluster::{Cluster, Error, Manner, Resource};
use super::manifest::{Object, Wave};
use super::plan::{Action, Change};
use super::rollout::{self, Progress};
use crate::failure::Failure;
use crate::output::Output;

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// Brings changes about.
#[derive(Clone, Copy)]
pub struct Roller<'a> {
    /// Where.
    pub cluster: &'a Cluster,
    /// Where in it.
    pub namespace: &'a str,
    /// How long a wave may take.
    pub patience: Duration,
    /// Whether fields of others are taken over.
    pub force: bool,
    /// Where progress is told.
    pub output: &'a Output,
}

impl Roller<'_> {
    /// Wave by wave; then what is no longer wanted.
    pub async fn roll_out(&self, changes: &[Change], pruned: &[Change]) -> Result<(), Failure> {
        let mut waves: BTreeMap<Wave, Vec<&Change>> = BTreeMap::new();
        for change in changes {
            waves.entry(Wave::of(&change.object)).or_default().push(change);
        }
        for wave in waves.values() {
            for change in wave {
                self.bring_about(change).await?;
            }
            let workloads: Vec<&Object> = wave
                .iter()
                .map(|change| &change.object)
                .filter(|object| object.is_workload())
                .collect();
            self.wait(&workloads).await?;
        }
        for change in pruned {
            self.delete(&change.object).await?;
            self.output.aside(&format!("{} is removed", change.object.id()));
        }
        Ok(())
    }

    async fn bring_about(&self, change: &Change) -> Result<(), Failure> {
        let id = change.object.id();
        let manner = Manner {
            dry: false,
            force: self.force,
        };
        match change.action {
            Action::Keep | Action::Prune => return Ok(()),
            Action::Replace => {
                self.delete(&change.object).await?;
                self.gone(&[&change.object]).await?;
            }
            Action::Create | Action::Update => {}
        }
        let _applied = self.cluster.apply(&change.object, manner).await?;
        let done = match change.action {
            Action::Create => "created",
            Action::Replace => "replaced",
            _ => "changed",
        };
        self.output.aside(&format!("{id} is {done}"));
        Ok(())
    }

    /// Deletes an object; one that is not there is deleted already.
    pub async fn delete(&self, object: &Object) -> Result<(), Failure> {
        let Some(resource) = self.cluster.resource(object.api_version(), object.kind()).await? else {
            return Ok(());
        };
        let _was_there = self
            .cluster
            .delete(&resource, object.namespace(), object.name())
            .await?;
        Ok(())
    }

    /// Waits until objects are gone.
    pub async fn gone(&self, objects: &[&Object]) -> Result<(), Failure> {
        let clock = SystemClock::default();
        let mut pending: Vec<&Object> = objects.to_vec();
        loop {
            let mut left = Vec::new();
            for object in pending {
                let there = match self.cluster.resource(object.api_version(), object.kind()).await? {
                    None => false,
                    Some(resource) => self
                        .cluster
                        .get(&resource, object.namespace(), object.name())
                        .await?
                        .is_some(),
                };
                if there {
                    left.push(object);
                }
            }
            let Some(first) = left.first() else {
                return Ok(());
            };
            if clock.monotonic() >= self.patience {
                return Err(Failure::failed(format!(
                    "{} is not gone after {} s",
                    first.id(),
                    self.patience.as_secs()
                ))
                .with_remedy(format!(
                    "see what holds it: kubectl -n {} get {} -o jsonpath='{{.metadata.finalizers}}'",
                    self.namespace,
                    first.id()
                )));
            }
            pending = left;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until workloads are what was asked for.
    pub async fn wait(&self, workloads: &[&Object]) -> Result<(), Failure> {
        let clock = SystemClock::default();
        let mut pending: Vec<(&Object, String)> = workloads
            .iter()
            .filter(|object| !is_template(object, workloads))
            .map(|object| (*object, String::new()))
            .collect();
        loop {
            let mut left = Vec::new();
            for (object, told) in pending {
                let id = object.id();
                let (progress, complaint) = match self.look(object).await {
                    Ok(look) => look,
                    // An API server that restarts says nothing about the workload.
                    Err(error @ Error::Unreachable { .. }) => (Progress::Going(error.to_string()), None),
                    Err(error) if error.code().is_some_and(|code| code == 429 || code >= 500) => {
                        (Progress::Going(error.to_string()), None)
                    }
                    Err(error) => return Err(error.into()),
                };
                let with_complaint = |why: String| match &complaint {
                    Some(complaint) => format!("{why} ({complaint})"),
                    None => why,
                };
                match progress {
                    Progress::Done if told.is_empty() => {}
                    Progress::Done => self.output.aside(&format!("{id} is well")),
                    Progress::Failed(why) => {
                        return Err(self.ill(object, &with_complaint(why)));
                    }
                    Progress::Going(why) => {
                        let now = with_complaint(why);
                        if clock.monotonic() >= self.patience {
                            let why = format!("not well after {} s: {now}", self.patience.as_secs());
                            return Err(self.ill(object, &why));
                        }
                        if now != told {
                            self.output.aside(&format!("{id}: {now}"));
                        }
                        left.push((object, now));
                    }
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            pending = left;
            tokio::time::sleep(LOOK).await;
        }
    }

    fn ill(&self, object: &Object, why: &str) -> Failure {
        Failure::failed(format!("{}: {why}", object.id())).with_remedy(format!(
            "what its pods say: kubectl -n {} describe {}; kubectl -n {0} logs {1} --previous",
            self.namespace,
            object.id()
        ))
    }

    /// How far a workload is, and what a pod of it complains of; pods that are in its way are deleted.
    async fn look(&self, object: &Object) -> Result<(Progress, Option<String>), Error> {
        let Some((live, progress, pods)) = self.seen(object).await? else {
            return Ok((Progress::Going("it is not there".to_owned()), None));
        };
        if object.kind() == "StatefulSet" && Wave::of(object) != Wave::Store {
            for pod in rollout::stuck(&live, &pods) {
                self.output.aside(&format!(
                    "pod/{pod} is broken and of an older version; it is deleted"
                ));
                let _was_there = self.cluster.delete(&pods_of(), object.namespace(), pod).await?;
            }
        }
        Ok((progress, rollout::complaint(&pods)))
    }

    /// The same, and nothing is changed: the workload as it is, how far it is, what a pod complains of.
    pub async fn observe(&self, object: &Object) -> Result<(Option<Value>, Progress, Option<String>), Error> {
        Ok(match self.seen(object).await? {
            None => (None, Progress::Going("it is not there".to_owned()), None),
            Some((live, progress, pods)) => (Some(live), progress, rollout::complaint(&pods)),
        })
    }

    /// A workload as it is, how far it is, and its pods, unless it is done.
    async fn seen(&self, object: &Object) -> Result<Option<(Value, Progress, Vec<Value>)>, Error> {
        let Some(live) = self.cluster.live(object).await? else {
            return Ok(None);
        };
        let template = match object.value().pointer("/spec/workloadRef/name") {
            Some(Value::String(name)) => {
                let deployments = Resource::namespaced::<Deployment>();
                self.cluster.get(&deployments, object.namespace(), name).await?
            }
            _ => None,
        };
        let progress = rollout::progress(&live, template.as_ref());
        let pods = match progress {
            Progress::Done => Vec::new(),
            Progress::Going(_) | Progress::Failed(_) => self.pods(template.as_ref().unwrap_or(&live)).await?,
        };
        Ok(Some((live, progress, pods)))
    }

    async fn pods(&self, workload: &Value) -> Result<Vec<Value>, Error> {
        let labels = workload
            .pointer("/spec/selector/matchLabels")
            .and_then(Value::as_object);
        let Some(labels) = labels else {
            return Ok(Vec::new());
        };
        let selector: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        self.cluster
            .list(&pods_of(), Some(self.namespace), &selector.join(","))
            .await
    }
}

fn pods_of() -> Resource {
    Resource::namespaced::<Pod>()
}

/// Whether a Deployment is only what a Rollout takes its pods from.
pub fn is_template(object: &Object, workloads: &[&Object]) -> bool {
    object.kind() == "Deployment"
        && workloads.iter().any(|other| {
            let template = other.value().pointer("/spec/workloadRef/name");
            other.kind() == "Rollout" && template.and_then(Value::as_str) == Some(object.name())
        })
}

//! The controllers of workloads, a step at a time.
//!
//! A Deployment replaces one pod at each step, whatever the pods are like. A StatefulSet replaces one pod, from the last to the first, and
//! only while all others are ready: a broken pod stops it, even if the template has been mended since (the documented "forced
//! rollback"). A Job ends at once. A Rollout is under way for a few steps, and degraded when its template's image breaks.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::world::{Key, World};

impl World {
    /// Moves everything by one step.
    pub(super) fn step(&mut self) {
        self.collect_garbage();
        let keys: Vec<Key> = self.objects.keys().cloned().collect();
        for key in keys {
            if self.held.contains(&key.2) {
                continue;
            }
            match key.0.as_str() {
                "Deployment" | "StatefulSet" => self.pods(&key),
                "Job" => {
                    self.status(
                        &key,
                        json!({"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}),
                    );
                }
                "Rollout" => self.rollout(&key),
                _ => {}
            }
        }
    }

    /// Pods whose workload is gone go too.
    fn collect_garbage(&mut self) {
        let owners: BTreeSet<(String, String)> = self
            .objects
            .keys()
            .filter(|(kind, ..)| kind == "Deployment" || kind == "StatefulSet")
            .map(|(_, namespace, name)| (namespace.clone(), name.clone()))
            .collect();
        self.objects.retain(|(kind, namespace, _), stored| {
            let of = stored.value["metadata"]["labels"]["of"].as_str();
            kind != "Pod" || of.is_none_or(|of| owners.contains(&(namespace.clone(), of.to_owned())))
        });
    }

    fn status(&mut self, key: &Key, status: Value) {
        if let Some(stored) = self.objects.get_mut(key) {
            stored.value["status"] = status;
        }
    }

    fn pods(&mut self, key: &Key) {
        let (kind, namespace, name) = key.clone();
        let set = self.objects[key].value.clone();
        let template = &set["spec"]["template"];
        let revision = revision(&name, template);
        let count = set["spec"]["replicas"].as_u64().unwrap_or(1);
        let pod = |index: u64| ("Pod".to_owned(), namespace.clone(), format!("{name}-{index}"));
        let ready = |world: &Self, index: u64| {
            let found = world.objects.get(&pod(index));
            found.is_some_and(|pod| pod.value["status"]["conditions"][0]["status"] == "True")
        };
        let of = |world: &Self, index: u64| {
            let found = world.objects.get(&pod(index));
            found.map(|pod| pod.value["metadata"]["labels"]["controller-revision-hash"].clone())
        };
        let missing = (0..count).find(|index| of(self, *index).is_none());
        let old = (0..count)
            .rev()
            .find(|index| of(self, *index) != Some(revision.as_str().into()));
        let waits =
            kind == "StatefulSet" && (0..count).any(|index| of(self, index).is_some() && !ready(self, index));
        let next = match missing {
            Some(index) => Some(index),
            None if waits => None,
            None => old,
        };
        if let Some(index) = next {
            let made = self.pod(&set, &revision, index);
            self.put(made);
        }
        for index in count..count + 32 {
            self.objects.remove(&pod(index));
        }
        let there = (0..count).filter(|index| of(self, *index).is_some()).count();
        let updated = (0..count)
            .filter(|index| of(self, *index) == Some(revision.as_str().into()))
            .count();
        let well = (0..count).filter(|index| ready(self, *index)).count();
        let well_and_new = (0..count)
            .filter(|index| ready(self, *index) && of(self, *index) == Some(revision.as_str().into()))
            .count();
        let finished = well_and_new as u64 == count;
        let current = if finished {
            revision.clone()
        } else {
            set["status"]["currentRevision"]
                .as_str()
                .unwrap_or(&revision)
                .to_owned()
        };
        self.status(
            key,
            json!({
                "observedGeneration": set["metadata"]["generation"], "replicas": there, "updatedReplicas": updated,
                "readyReplicas": well, "availableReplicas": well_and_new, "currentRevision": current,
                "updateRevision": revision,
            }),
        );
    }

    fn pod(&self, set: &Value, revision: &str, index: u64) -> Value {
        let name = set["metadata"]["name"].as_str().unwrap_or_default();
        let mut labels = set["spec"]["template"]["metadata"]["labels"].clone();
        labels["controller-revision-hash"] = revision.into();
        labels["of"] = name.into();
        let broken = self.breaks(&set["spec"]["template"]);
        let state = match &broken {
            Some(image) => {
                json!({"waiting": {"reason": "ImagePullBackOff", "message": format!("Back-off pulling image {image}")}})
            }
            None => json!({"running": {}}),
        };
        let ready = if broken.is_none() { "True" } else { "False" };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{name}-{index}"), "namespace": set["metadata"]["namespace"], "labels": labels},
            "spec": set["spec"]["template"]["spec"],
            "status": {
                "phase": "Running", "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": "service", "state": state}],
            },
        })
    }

    fn breaks(&self, template: &Value) -> Option<String> {
        let containers = template["spec"]["containers"].as_array()?;
        let mut images = containers
            .iter()
            .filter_map(|container| container["image"].as_str());
        let broken = self.broken.as_deref()?;
        images.find(|image| image.contains(broken)).map(str::to_owned)
    }

    fn rollout(&mut self, key: &Key) {
        let rollout = self.objects[key].value.clone();
        let of = rollout["spec"]["workloadRef"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let deployment = ("Deployment".to_owned(), key.1.clone(), of);
        let Some(template) = self.objects.get(&deployment).map(|stored| stored.value.clone()) else {
            return;
        };
        let generation = template["metadata"]["generation"].to_string();
        let seen = rollout["status"]["workloadObservedGeneration"] == generation.as_str();
        let step = if seen {
            rollout["status"]["currentStepIndex"].as_i64().unwrap_or(0) + 1
        } else {
            0
        };
        let (phase, message) = match self.breaks(&template["spec"]["template"]) {
            Some(_) => ("Degraded", "the analysis run failed"),
            None if step < 2 => ("Progressing", "more replicas need to be updated"),
            None => ("Healthy", ""),
        };
        self.status(
            key,
            json!({
                "observedGeneration": rollout["metadata"]["generation"].to_string(), "workloadObservedGeneration": generation,
                "phase": phase, "message": message, "currentStepIndex": step,
            }),
        );
    }
}

/// The same for the same template, another for another.
fn revision(name: &str, template: &Value) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    template.to_string().hash(&mut hasher);
    format!("{name}-{:x}", hasher.finish())
}

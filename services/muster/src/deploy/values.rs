//! The system configuration, laid over an overlay.
//!
//! One file says how a system differs from its overlay. Section `deploy` says what Kubernetes needs to know: the namespace, images,
//! how many of what, hosts. The other sections are those of the services' own configuration, under the same names, and become
//! environment variables of the containers that have them: `router` of the router, `agent` of every agent, `telemetry` of all.
//!
//! Then every service's environment is read as the service itself will read it, by its own typed configuration ([`services`]): a key
//! that it does not know or a value that it would refuse is a mistake here, before anything is applied, and not a pod that does not
//! start. A secret that comes out of a manifest is a mistake as well. All mistakes are reported at once.
//!
//! Settings become variables of the containers and not entries of the ConfigMap that all services share: an entry changes no pod, so
//! that nothing would be rolled out, and its name has a hash of its content that Kustomize alone knows how to make.

mod services;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::manifest::{self, Object};
use crate::failure::Failure;
use words::replace;

type Section = Map<String, Value>;

/// The system configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct System {
    /// What Kubernetes is told.
    deploy: Deployment,
    /// Logs and traces of all services.
    telemetry: Section,
    /// Whom all services trust.
    trust: Section,
    /// Ports and bounds of all services.
    server: Section,
    /// The registry.
    registry: Section,
    /// The router.
    router: Section,
    /// The workflow engine.
    engine: Section,
    /// Every agent.
    agent: Section,
    /// Single agents, by their names.
    agents: BTreeMap<String, Section>,
}

/// Section `deploy`.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Deployment {
    /// The namespace; the overlay's where none is given.
    namespace: Option<String>,
    /// Which images run.
    images: Images,
    /// How many of each workload.
    replicas: BTreeMap<String, Replicas>,
    /// Hosts that stand in the overlay, and those that are meant.
    hosts: BTreeMap<String, String>,
}

/// Which images run. What is not said is the overlay's.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Images {
    /// Where they are, without their names: `ghcr.io/acme`.
    registry: Option<String>,
    /// The version of all of them.
    tag: Option<String>,
    /// Digests by names of images (`muster-router`); they go before the version.
    digests: BTreeMap<String, String>,
}

/// How many pods a workload has.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
enum Replicas {
    /// Always as many.
    Fixed(u32),
    /// The autoscaler says, within these bounds.
    Scaled(Bounds),
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Bounds {
    min: u32,
    max: u32,
}

/// What is wrong, by the key where it is.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<String>);

impl Mistakes {
    fn add(&mut self, key: &str, what: impl AsRef<str>) {
        let mistake = format!("{key}: {}", what.as_ref());
        if !self.0.contains(&mistake) {
            self.0.push(mistake);
        }
    }

    fn refuse(self) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Failure::usage(self.0.join("\n"))
            .with_remedy("nothing was changed; mend what is named, and run it again"))
    }
}

impl System {
    /// Reads a file in YAML or JSON; without one everything is as the overlay says.
    pub fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(file) = file else {
            return Ok(Self::default());
        };
        let wrong = |what: String| Failure::usage(format!("{}: {what}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        yaml_serde::from_str(&text).map_err(|error| wrong(error.to_string()))
    }

    /// The objects as this configuration wants them.
    pub fn lay_over(&self, mut objects: Vec<Object>) -> Result<Vec<Object>, Failure> {
        let mut mistakes = Mistakes::default();
        self.rename_hosts(&mut objects, &mut mistakes);
        self.set_images(&mut objects, &mut mistakes);
        self.set_replicas(&mut objects, &mut mistakes);
        self.set_settings(&mut objects, &mut mistakes);
        self.move_to_namespace(&mut objects, &mut mistakes);
        services::judge(&objects, &mut mistakes);
        mistakes.refuse()?;
        manifest::order(&mut objects);
        Ok(objects)
    }

    fn rename_hosts(&self, objects: &mut [Object], mistakes: &mut Mistakes) {
        for (old, new) in &self.deploy.hosts {
            let key = format!("deploy.hosts.{old}");
            let is_host = |host: &str| !host.is_empty() && host.split('.').all(is_label) && host.len() <= 253;
            if !is_host(new) {
                mistakes.add(&key, format!("'{new}' is no host"));
                continue;
            }
            let mut found = false;
            for object in objects.iter_mut() {
                replace(object.value_mut(), old, new, &mut found);
            }
            if !found {
                mistakes.add(&key, "this host is nowhere in the overlay");
            }
        }
    }

    fn set_images(&self, objects: &mut [Object], mistakes: &mut Mistakes) {
        let Images {
            registry,
            tag,
            digests,
        } = &self.deploy.images;
        if let Some(tag) = tag.as_deref().filter(|tag| !is_tag(tag)) {
            mistakes.add("deploy.images.tag", format!("'{tag}' is no tag"));
        }
        let mut unused: Vec<&String> = digests.keys().collect();
        for container in objects.iter_mut().flat_map(containers_mut) {
            let Some(image) = container.get_mut("image") else {
                continue;
            };
            let Some((place, name, version)) = image.as_str().and_then(our_image) else {
                continue;
            };
            unused.retain(|known| known.as_str() != name);
            let place = registry
                .as_deref()
                .map_or(place, |registry| registry.trim_end_matches('/'));
            let version = match (digests.get(name), tag) {
                (Some(digest), _) => format!("@{digest}"),
                (None, Some(tag)) => format!(":{tag}"),
                (None, None) => version.to_owned(),
            };
            *image = format!("{place}/{name}{version}").into();
        }
        for name in unused {
            mistakes.add(
                &format!("deploy.images.digests.{name}"),
                "no container of the overlay runs this image",
            );
        }
        for (name, digest) in digests {
            let is_digest = digest.strip_prefix("sha256:").is_some_and(|hex| {
                hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            });
            if !is_digest {
                mistakes.add(
                    &format!("deploy.images.digests.{name}"),
                    "is not sha256: and 64 hexadecimal digits",
                );
            }
        }
    }

    fn set_replicas(&self, objects: &mut [Object], mistakes: &mut Mistakes) {
        for (name, replicas) in &self.deploy.replicas {
            let key = format!("deploy.replicas.{name}");
            let (min, max) = match *replicas {
                Replicas::Fixed(count) => (count, count),
                Replicas::Scaled(Bounds { min, max }) => (min, max),
            };
            if min == 0 || max < min {
                mistakes.add(&key, "is at least 1, and the most not below the least");
                continue;
            }
            let scaler = objects.iter_mut().find(|object| {
                let target = object.value().pointer("/spec/scaleTargetRef/name");
                object.kind() == "HorizontalPodAutoscaler" && target.and_then(Value::as_str) == Some(name)
            });
            if let Some(scaler) = scaler {
                scaler.value_mut()["spec"]["minReplicas"] = min.into();
                scaler.value_mut()["spec"]["maxReplicas"] = max.into();
                continue;
            }
            if min != max {
                mistakes.add(&key, "nothing scales it in this overlay: give one number");
                continue;
            }
            let workload = objects.iter_mut().find(|object| {
                matches!(object.kind(), "Deployment" | "StatefulSet") && object.name() == name
            });
            match workload {
                Some(workload) => workload.value_mut()["spec"]["replicas"] = min.into(),
                None => mistakes.add(&key, "there is no such workload in the overlay"),
            }
        }
    }

    fn set_settings(&self, objects: &mut [Object], mistakes: &mut Mistakes) {
        for name in self.agents.keys() {
            if !services::AGENTS.contains(&name.as_str()) {
                mistakes.add(
                    &format!("agents.{name}"),
                    format!("is none of the agents: {}", services::AGENTS.join(", ")),
                );
            }
        }
        for object in objects.iter_mut() {
            let name = object.name().to_owned();
            let Some(container) = services::container_mut(object) else {
                continue;
            };
            let mut sections = vec![
                ("telemetry", &self.telemetry),
                ("trust", &self.trust),
                ("server", &self.server),
            ];
            match name.as_str() {
                "registry" => sections.push(("registry", &self.registry)),
                "router" => sections.push(("router", &self.router)),
                "workflow-engine" => sections.push(("engine", &self.engine)),
                _ => sections.push(("agent", &self.agent)),
            }
            if let Some(own) = self.agents.get(&name) {
                sections.push(("settings", own));
            }
            for (section, keys) in sections {
                for (key, value) in variables(section, keys, mistakes) {
                    set_variable(container, &key, &value);
                }
            }
        }
    }

    /// Last, because workloads and settings are found by what they are called before.
    fn move_to_namespace(&self, objects: &mut [Object], mistakes: &mut Mistakes) {
        let Some(new) = &self.deploy.namespace else {
            return;
        };
        if !is_label(new) || new.len() > 63 {
            mistakes.add("deploy.namespace", format!("'{new}' is no DNS label"));
            return;
        }
        let Some(old) = manifest::namespace(objects).filter(|old| old != new) else {
            return;
        };
        for object in objects.iter_mut() {
            // Hosts of Services, identities, queries: whatever names it.
            replace(object.value_mut(), &old, new, &mut false);
            if let Some(container) = services::container_mut(object) {
                set_variable(container, "MUSTER__TRUST__NAMESPACE", new);
            }
        }
    }
}

fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_tag(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(allowed) && !text.starts_with(['.', '-'])
}

/// Place, name and version (with its `:` or `@`) of an image, if it is one of ours.
fn our_image(image: &str) -> Option<(&str, &str, &str)> {
    let (place, rest) = image.rsplit_once('/')?;
    let end = rest.find([':', '@']).unwrap_or(rest.len());
    let (name, version) = rest.split_at(end);
    name.starts_with("muster-").then_some((place, name, version))
}

fn containers_mut(object: &mut Object) -> impl Iterator<Item = &mut Map<String, Value>> {
    let pod = object.pod_mut().into_iter();
    pod.flat_map(|pod| {
        pod.iter_mut()
            .filter(|(key, _)| matches!(key.as_str(), "containers" | "initContainers"))
            .filter_map(|(_, list)| list.as_array_mut())
            .flatten()
            .filter_map(Value::as_object_mut)
    })
}

/// The variables that say what a section says.
fn variables(section: &str, keys: &Section, mistakes: &mut Mistakes) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut pending: Vec<(String, &Value)> = keys
        .iter()
        .map(|(key, value)| (format!("{section}.{key}"), value))
        .collect();
    while let Some((path, value)) = pending.pop() {
        let nameable = |letter: char| matches!(letter, 'a'..='z' | '0'..='9' | '_' | '.');
        if !path.chars().all(nameable) {
            mistakes.add(
                &path,
                "no variable can be named so; say it in a file that the overlay mounts",
            );
            continue;
        }
        let text = match value {
            Value::Object(map) => {
                pending.extend(map.iter().map(|(key, value)| (format!("{path}.{key}"), value)));
                continue;
            }
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        found.push((
            format!("MUSTER__{}", path.to_uppercase().replace('.', "__")),
            text,
        ));
    }
    found.sort();
    found
}

/// Sets a variable in the place of one of the same name.
fn set_variable(container: &mut Map<String, Value>, name: &str, value: &str) {
    let variables = container.entry("env").or_insert_with(|| json!([]));
    let Some(variables) = variables.as_array_mut() else {
        return;
    };
    let entry = json!({"name": name, "value": value});
    match variables.iter_mut().find(|known| known["name"] == name) {
        Some(known) => *known = entry,
        None => variables.push(entry),
    }
}

#[cfg(test)]
mod tests;

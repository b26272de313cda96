//! Each service's environment, read as the service will read it.
//!
//! What is in a Secret is not there: rules that ask for it are not broken by that, because a service takes the defaults of one machine
//! where nothing is said. What a pod says of itself (`fieldRef`) is stood in for by its name.

use std::collections::BTreeMap;

use muster_runtime::config::{self, Settings};
use serde_json::{Map, Value};

use super::Mistakes;
use crate::deploy::manifest::Object;

/// The agents that come with the system.
pub const AGENTS: [&str; 5] = [
    "weather",
    "planning",
    "customer-service",
    "data-analysis",
    "security-monitor",
];

/// The name of the container of a service, in every overlay.
const CONTAINER: &str = "service";

/// The container of a service, if the object is the workload of one.
pub fn container_mut(object: &mut Object) -> Option<&mut Map<String, Value>> {
    let name = object.name();
    if !AGENTS.contains(&name) && !["registry", "router", "workflow-engine"].contains(&name) {
        return None;
    }
    let containers = object.pod_mut()?.get_mut("containers")?.as_array_mut()?;
    containers
        .iter_mut()
        .filter_map(Value::as_object_mut)
        .find(|container| container.get("name").is_some_and(|name| name == CONTAINER))
}

/// Adds what the services would refuse.
pub fn judge(objects: &[Object], mistakes: &mut Mistakes) {
    for object in objects.iter().filter(|object| object.is_workload()) {
        let mut object = object.clone();
        let name = object.name().to_owned();
        let Some(container) = container_mut(&mut object) else {
            continue;
        };
        let environment = environment(container, &name, objects);
        let found = match name.as_str() {
            "registry" => read(muster_registry::Config::default(), environment),
            "router" => read(muster_router::Config::default(), environment),
            "workflow-engine" => read(muster_workflow_engine::Config::default(), environment),
            "weather" => read(muster_agent_weather::config(), environment),
            "planning" => read(muster_agent_planning::defaults(), environment),
            "customer-service" => read(muster_agent_customer_service::defaults(), environment),
            "data-analysis" => read(muster_agent_data_analysis::defaults(), environment),
            _ => read(muster_agent_security_monitor::defaults(), environment),
        };
        for (key, what) in found {
            mistakes.add(&format!("{name}: {key}"), what);
        }
    }
}

/// The mistakes that a service finds in an environment.
fn read<C: Settings>(defaults: C, environment: BTreeMap<String, String>) -> Vec<(String, String)> {
    let config = match config::load(defaults, None, environment.into_iter(), &[]) {
        Ok(config) => config,
        Err(mistakes) => {
            let own = |(key, what): (&str, &str)| (key.to_owned(), what.to_owned());
            return mistakes.iter().map(own).collect();
        }
    };
    let plain = serde_json::to_value(&config).unwrap_or_default();
    let mut secrets = Vec::new();
    differing("", &plain, &config::redacted(&config), &mut secrets);
    let what =
        "is a secret, which no manifest holds: put it into a Secret, in a file that the overlay mounts";
    secrets.into_iter().map(|key| (key, what.to_owned())).collect()
}

/// The keys at which two configurations differ.
fn differing(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for (key, value) in one {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                differing(&path, value, other.get(key).unwrap_or(&Value::Null), found);
            }
        }
        _ if one != other => found.push(path.to_owned()),
        _ => {}
    }
}

/// What the container finds in its environment, as far as the manifests say it.
fn environment(container: &Map<String, Value>, name: &str, objects: &[Object]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let list = |key: &str| container.get(key).and_then(Value::as_array).into_iter().flatten();
    for source in list("envFrom") {
        let Some(map) = source.pointer("/configMapRef/name").and_then(Value::as_str) else {
            continue;
        };
        let data = objects
            .iter()
            .find(|object| object.kind() == "ConfigMap" && object.name() == map)
            .and_then(|object| object.value().get("data")?.as_object());
        for (key, value) in data.into_iter().flatten() {
            found.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
        }
    }
    for variable in list("env") {
        let Some(key) = variable["name"].as_str() else {
            continue;
        };
        let value = match variable.get("value").and_then(Value::as_str) {
            Some(value) => expanded(value, &found),
            None if variable.pointer("/valueFrom/fieldRef").is_some() => format!("{name}-0"),
            None => continue,
        };
        found.insert(key.to_owned(), value);
    }
    found
}

/// `$(NAME)` as a kubelet expands it: what is not known stays.
fn expanded(text: &str, known: &BTreeMap<String, String>) -> String {
    known.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("$({name})"), value)
    })
}

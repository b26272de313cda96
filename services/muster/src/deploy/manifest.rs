//! Objects of Kubernetes as manifests say them, and the order in which they come into a cluster.
//!
//! An object stays the JSON that it is: what is deployed has kinds of Istio, Argo Rollouts and operators, and a type for each would
//! say nothing that the cluster does not check itself. [`Object`] holds only what is needed to name it: `apiVersion`, `kind`,
//! `metadata.name`.
//!
//! [`Wave`] is the order. A wave begins when the one before is well: whatever a workload needs is there before it starts, and what
//! fails, fails before what depends on it is touched. The objects of the mesh come before workloads, because a Rollout looks for its
//! VirtualService; autoscalers come after them, because they look for what they scale.

use std::fmt;

use serde::Deserialize as _;
use serde_json::{Map, Value};

/// What tells one object from all others in a cluster. Not its version: an object of `v1beta1` is the same in `v1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The group of its kind; empty for the core.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Where it is, unless it belongs to the whole cluster.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.kind.to_lowercase(), self.name)
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object(Value);

impl Object {
    /// The object that this JSON is.
    pub fn new(value: Value) -> Result<Self, String> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        for (field, content) in [
            ("apiVersion", text("/apiVersion")),
            ("kind", kind),
            ("metadata.name", name),
        ] {
            if content.is_empty() {
                let which = [kind, name].join(" ");
                return Err(format!("'{}' has no {field}", which.trim()));
            }
        }
        Ok(Self(value))
    }

    fn text(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Group and version of its kind.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Where it is.
    pub fn namespace(&self) -> Option<&str> {
        self.0.pointer("/metadata/namespace").and_then(Value::as_str)
    }

    /// What tells it from others.
    pub fn id(&self) -> Id {
        let group = self.api_version().rsplit_once('/').map_or("", |(group, _)| group);
        Id {
            group: group.to_owned(),
            kind: self.kind().to_owned(),
            namespace: self.namespace().map(str::to_owned),
            name: self.name().to_owned(),
        }
    }

    /// All of it.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// All of it, to change; its names stay what they are.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    /// Whether pods come of it.
    pub fn is_workload(&self) -> bool {
        matches!(
            self.kind(),
            "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "Rollout"
        )
    }

    /// The template of its pods.
    pub fn pod(&self) -> Option<&Map<String, Value>> {
        self.0.pointer("/spec/template/spec")?.as_object()
    }

    /// The same, to change.
    pub fn pod_mut(&mut self) -> Option<&mut Map<String, Value>> {
        self.0.pointer_mut("/spec/template/spec")?.as_object_mut()
    }
}

/// Which objects come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wave {
    /// Where all of it is.
    Namespace,
    /// Kinds of objects.
    Definitions,
    /// Who may do what.
    Accounts,
    /// What services read when they start.
    Configuration,
    /// How they find each other, and who may call whom.
    Network,
    /// Redis, and the work that makes it one cluster.
    Store,
    /// The registry.
    Registry,
    /// The router, with its canary.
    Router,
    /// The workflow engine.
    Engine,
    /// Everything else that runs.
    Agents,
    /// Autoscalers and budgets of disruption.
    Scaling,
    /// Who looks on.
    Monitoring,
}

impl Wave {
    /// The wave of an object.
    pub fn of(object: &Object) -> Self {
        match object.kind() {
            "Namespace" => Self::Namespace,
            "CustomResourceDefinition" => Self::Definitions,
            "ServiceAccount" | "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => {
                Self::Accounts
            }
            "ConfigMap" | "Secret" | "SecretStore" | "ExternalSecret" | "PersistentVolumeClaim" => {
                Self::Configuration
            }
            "HorizontalPodAutoscaler" | "PodDisruptionBudget" => Self::Scaling,
            "PodMonitor" | "ServiceMonitor" | "PrometheusRule" => Self::Monitoring,
            _ if object.is_workload() => match object.name() {
                name if name.starts_with("redis") => Self::Store,
                "registry" => Self::Registry,
                "router" => Self::Router,
                "workflow-engine" => Self::Engine,
                _ => Self::Agents,
            },
            _ => Self::Network,
        }
    }
}

/// Reads manifests: YAML or JSON, any number of documents, and puts them into order.
pub fn parse(text: &str) -> Result<Vec<Object>, String> {
    let mut objects = Vec::new();
    for (index, document) in yaml_serde::Deserializer::from_str(text).enumerate() {
        let value =
            Value::deserialize(document).map_err(|error| format!("document {}: {error}", index + 1))?;
        match value {
            Value::Null => {}
            Value::Object(mut map) if map.get("kind").is_some_and(|kind| kind == "List") => {
                let items = map.remove("items").unwrap_or_default();
                let items: Vec<Value> = serde_json::from_value(items).unwrap_or_default();
                for item in items {
                    objects.push(Object::new(item)?);
                }
            }
            other => {
                objects.push(Object::new(other).map_err(|what| format!("document {}: {what}", index + 1))?)
            }
        }
    }
    order(&mut objects);
    let twice = objects.windows(2).find(|pair| pair[0].id() == pair[1].id());
    match twice {
        Some(pair) => Err(format!("{} is there twice", pair[0].id())),
        None => Ok(objects),
    }
}

/// Puts objects into the order in which they are applied.
pub fn order(objects: &mut [Object]) {
    objects.sort_by_cached_key(|object| (Wave::of(object), object.id()));
}

/// Manifests as text.
pub fn print(objects: &[Object]) -> Result<String, String> {
    let documents: Result<Vec<_>, _> = objects
        .iter()
        .map(|object| yaml_serde::to_string(object.value()))
        .collect();
    documents
        .map(|documents| documents.join("---\n"))
        .map_err(|error| error.to_string())
}

/// The namespace that the objects are in: that of the one Namespace among them, or else that in which most of them are.
pub fn namespace(objects: &[Object]) -> Option<String> {
    let named = objects.iter().find(|object| object.kind() == "Namespace");
    if let Some(named) = named {
        return Some(named.name().to_owned());
    }
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for namespace in objects.iter().filter_map(Object::namespace) {
        match counted.iter_mut().find(|(known, _)| *known == namespace) {
            Some((_, count)) => *count += 1,
            None => counted.push((namespace, 1)),
        }
    }
    counted
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map(|(namespace, _)| namespace.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<String> {
        let objects = parse(text).unwrap();
        objects.iter().map(|object| object.id().to_string()).collect()
    }

    #[test]
    fn what_others_need_comes_first() {
        let all = [
            "autoscaling/v2 HorizontalPodAutoscaler router",
            "apps/v1 StatefulSet weather",
            "apps/v1 StatefulSet workflow-engine",
            "argoproj.io/v1alpha1 Rollout router",
            "apps/v1 Deployment router",
            "monitoring.coreos.com/v1 PodMonitor muster",
            "apps/v1 Deployment registry",
            "batch/v1 Job redis-cluster-create",
            "apps/v1 StatefulSet redis-cluster",
            "networking.istio.io/v1 VirtualService router",
            "v1 Service router",
            "v1 ConfigMap muster",
            "rbac.authorization.k8s.io/v1 RoleBinding agent",
            "rbac.authorization.k8s.io/v1 Role agent",
            "v1 ServiceAccount router",
            "apiextensions.k8s.io/v1 CustomResourceDefinition x",
            "v1 Namespace agent-system",
        ];
        let text: Vec<String> = all
            .iter()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                format!(
                    "apiVersion: {}\nkind: {}\nmetadata: {{name: {}}}\n",
                    words[0], words[1], words[2]
                )
            })
            .collect();
        let ordered = kinds(&text.join("---\n"));
        let expected = [
            "namespace/agent-system",
            "customresourcedefinition/x",
            "serviceaccount/router",
            "role/agent",
            "rolebinding/agent",
            "configmap/muster",
            "service/router",
            "virtualservice/router",
            "statefulset/redis-cluster",
            "job/redis-cluster-create",
            "deployment/registry",
            "deployment/router",
            "rollout/router",
            "statefulset/workflow-engine",
            "statefulset/weather",
            "horizontalpodautoscaler/router",
            "podmonitor/muster",
        ];
        assert_eq!(ordered, expected);
    }

    #[test]
    fn what_is_no_object_is_named_with_its_place() {
        let wrong = parse("kind: Service\nmetadata: {name: x}\n").unwrap_err();
        assert_eq!(wrong, "document 1: 'Service x' has no apiVersion");
        let one = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n";
        assert_eq!(
            parse(&format!("{one}---\n{one}")).unwrap_err(),
            "service/x is there twice"
        );
        assert_eq!(parse("---\n---\n").unwrap(), []);
    }

    #[test]
    fn manifests_survive_being_printed() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: 'yes', b: '0440', c: \"1\\n2\", d: '~', e: '1e3'}\n";
        let objects = parse(text).unwrap();
        assert_eq!(parse(&print(&objects).unwrap()).unwrap(), objects);
    }
}

//! What the server holds, and what it says to whom: paths, verbs, permissions.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::apply::Stored;

/// Group and version, kind, plural, whether in namespaces.
const KINDS: &[(&str, &str, &str, bool)] = &[
    ("v1", "Namespace", "namespaces", false),
    ("v1", "Node", "nodes", false),
    ("v1", "Pod", "pods", true),
    ("v1", "Secret", "secrets", true),
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "Service", "services", true),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "StatefulSet", "statefulsets", true),
    ("batch/v1", "Job", "jobs", true),
    (
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        true,
    ),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
    ("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    (
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        "rolebindings",
        true,
    ),
    ("coordination.k8s.io/v1", "Lease", "leases", true),
    ("storage.k8s.io/v1", "StorageClass", "storageclasses", false),
    ("argoproj.io/v1alpha1", "Rollout", "rollouts", true),
    (
        "argoproj.io/v1alpha1",
        "AnalysisTemplate",
        "analysistemplates",
        true,
    ),
    (
        "external-secrets.io/v1",
        "ExternalSecret",
        "externalsecrets",
        true,
    ),
    ("external-secrets.io/v1", "SecretStore", "secretstores", true),
    ("monitoring.coreos.com/v1", "PodMonitor", "podmonitors", true),
    (
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        "prometheusrules",
        true,
    ),
    (
        "networking.istio.io/v1",
        "DestinationRule",
        "destinationrules",
        true,
    ),
    ("networking.istio.io/v1", "Gateway", "gateways", true),
    ("networking.istio.io/v1", "ServiceEntry", "serviceentries", true),
    ("networking.istio.io/v1", "Sidecar", "sidecars", true),
    (
        "networking.istio.io/v1",
        "VirtualService",
        "virtualservices",
        true,
    ),
    (
        "security.istio.io/v1",
        "AuthorizationPolicy",
        "authorizationpolicies",
        true,
    ),
    (
        "security.istio.io/v1",
        "PeerAuthentication",
        "peerauthentications",
        true,
    ),
];

/// Kind, namespace (empty: none), name.
pub type Key = (String, String, String);

/// What the server holds, and how it behaves.
#[derive(Default)]
pub struct World {
    /// All objects.
    pub objects: BTreeMap<Key, Stored>,
    /// The last `resourceVersion`.
    pub version: u64,
    /// What was changed, in order: `apply deployment/router`, `delete …`, `create …`.
    pub changes: Vec<String>,
    /// Groups that are not served.
    pub absent: BTreeSet<String>,
    /// `verb plural` that may not be done.
    pub denied: BTreeSet<String>,
    /// Images that have this in their name cannot be pulled.
    pub broken: Option<String>,
    /// Workloads whose pods are not made.
    pub held: BTreeSet<String>,
    /// Status codes of the next answers to changes.
    pub hiccups: Vec<u16>,
    /// Minor version.
    pub minor: u32,
}

impl World {
    /// An object.
    pub fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        let found = self.objects.iter().find(|((k, _, n), _)| k == kind && n == name);
        found.map(|(_, stored)| &stored.value)
    }

    /// Puts an object there as somebody else would.
    pub fn put(&mut self, value: Value) {
        let text = |pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let key = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        let version = self.next_version();
        let mut stored = Stored::new(value);
        stored.value["metadata"]["resourceVersion"] = version.into();
        self.objects.insert(key, stored);
    }

    /// Sets a field as another manager does who takes it over.
    pub fn set_as(&mut self, manager: &str, kind: &str, name: &str, pointer: &str, to: &str) {
        let found = self
            .objects
            .iter_mut()
            .find(|((k, _, n), _)| k == kind && n == name);
        found.unwrap().1.set_as(manager, pointer, to);
    }

    /// The next `resourceVersion`.
    pub fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Names of the objects of a kind.
    pub fn names(&self, kind: &str) -> Vec<String> {
        let of_kind = self.objects.keys().filter(|(k, ..)| k == kind);
        of_kind.map(|(_, _, name)| name.clone()).collect()
    }

    /// All that somebody wants, without what the server and its controllers write.
    pub fn wanted(&self) -> BTreeMap<Key, Value> {
        let written = ["Lease", "Secret", "Pod"];
        self.objects
            .iter()
            .filter(|((kind, ..), _)| !written.contains(&kind.as_str()))
            .map(|(key, stored)| (key.clone(), stored.essence()))
            .collect()
    }
}

/// A refusal as the API says it.
pub struct Refusal {
    code: u16,
    reason: &'static str,
    message: String,
    /// Fields that it is about.
    pub causes: Vec<Value>,
}

impl Refusal {
    /// With a code, a reason and words.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            causes: Vec::new(),
        }
    }

    /// As it is sent.
    pub fn answer(self) -> Response {
        let body = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": self.code, "reason": self.reason,
            "message": self.message, "details": {"causes": self.causes},
        });
        let code = StatusCode::from_u16(self.code).unwrap();
        (code, axum::Json(body)).into_response()
    }
}

/// What a path and a query ask for.
pub struct Asked {
    /// The kind.
    pub kind: &'static str,
    plural: &'static str,
    /// Empty: none.
    pub namespace: String,
    name: Option<String>,
    /// What stands behind the question mark.
    pub query: BTreeMap<String, String>,
}

impl Asked {
    /// Which object.
    pub fn key(&self) -> Key {
        let name = self.name.clone().unwrap_or_default();
        (self.kind.to_owned(), self.namespace.clone(), name)
    }
}

impl World {
    /// Does what is asked.
    pub fn answer(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Value, Refusal> {
        let path = uri.path().trim_matches('/');
        if path == "version" {
            return Ok(
                json!({"major": "1", "minor": format!("{}+", self.minor), "gitVersion": format!("v1.{}.4", self.minor)}),
            );
        }
        let (api_version, rest) = self.split(path)?;
        if rest.is_empty() {
            return Ok(Self::served(&api_version));
        }
        let content: Value = serde_json::from_slice(body).unwrap_or_default();
        if rest == ["selfsubjectaccessreviews"] {
            return Ok(self.review(content));
        }
        let asked = Self::asked(&api_version, &rest, uri.query().unwrap_or_default())?;
        let dry = asked.query.get("dryRun").is_some_and(|value| value == "All");
        let verb = match (method.as_str(), &asked.name) {
            ("GET", Some(_)) => "get",
            ("GET", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            _ => "delete",
        };
        if self.denied.contains(&format!("{verb} {}", asked.plural)) {
            return Err(Refusal::new(
                403,
                "Forbidden",
                format!("{} is forbidden: operator cannot {verb} them", asked.plural),
            ));
        }
        match verb {
            "get" => {
                self.step();
                self.read(&asked)
            }
            "list" => Ok(self.list(&asked)),
            "create" => {
                self.in_a_namespace(&asked)?;
                let name = content
                    .pointer("/metadata/name")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                let key = (asked.kind.to_owned(), asked.namespace.clone(), name.to_owned());
                if self.objects.contains_key(&key) {
                    return Err(Refusal::new(
                        409,
                        "AlreadyExists",
                        format!("{} \"{name}\" already exists", asked.plural),
                    ));
                }
                self.put(content);
                Ok(self.objects[&key].value.clone())
            }
            "update" => {
                let found = self.read(&asked)?;
                if content.pointer("/metadata/resourceVersion") != found.pointer("/metadata/resourceVersion")
                {
                    return Err(Refusal::new(409, "Conflict", "the object has been modified"));
                }
                self.put(content);
                self.read(&asked)
            }
            "patch" => {
                let kind = headers
                    .get(header::CONTENT_TYPE)
                    .and_then(|value| value.to_str().ok());
                if kind != Some("application/apply-patch+yaml") {
                    return Err(Refusal::new(
                        415,
                        "UnsupportedMediaType",
                        "only server-side apply is understood",
                    ));
                }
                self.in_a_namespace(&asked)?;
                self.apply(&asked, content, dry)
            }
            _ => self.delete(&asked, &content),
        }
    }

    /// Group and version, and what is behind it.
    fn split<'a>(&self, path: &'a str) -> Result<(String, Vec<&'a str>), Refusal> {
        let parts: Vec<&str> = path.split('/').collect();
        let (api_version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest.to_vec()),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest.to_vec()),
            _ => return Err(Refusal::new(404, "NotFound", "404 page not found")),
        };
        let group = api_version.split('/').next().unwrap_or_default();
        let known = KINDS.iter().any(|(known, ..)| *known == api_version) || group == "authorization.k8s.io";
        if !known || self.absent.contains(group) {
            return Err(Refusal::new(
                404,
                "NotFound",
                "the server could not find the requested resource",
            ));
        }
        Ok((api_version, rest))
    }

    fn served(api_version: &str) -> Value {
        let resources: Vec<Value> = KINDS
            .iter()
            .filter(|(known, ..)| *known == api_version)
            .flat_map(|(_, kind, plural, namespaced)| {
                [
                    json!({"name": plural, "kind": kind, "namespaced": namespaced, "verbs": ["get"]}),
                    json!({"name": format!("{plural}/status"), "kind": kind, "namespaced": namespaced, "verbs": ["get"]}),
                ]
            })
            .collect();
        json!({"kind": "APIResourceList", "groupVersion": api_version, "resources": resources})
    }

    fn asked(api_version: &str, rest: &[&str], query: &str) -> Result<Asked, Refusal> {
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => ((*namespace).to_owned(), rest),
            other => (String::new(), other),
        };
        let plural = rest.first().copied().unwrap_or_default();
        let known = KINDS
            .iter()
            .find(|(version, _, known, _)| *version == api_version && *known == plural);
        let Some((_, kind, plural, _)) = known else {
            return Err(Refusal::new(
                404,
                "NotFound",
                "the server could not find the requested resource",
            ));
        };
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), decoded(value)))
            .collect();
        Ok(Asked {
            kind,
            plural,
            namespace,
            name: rest.get(1).map(|name| decoded(name)),
            query,
        })
    }

    fn in_a_namespace(&self, asked: &Asked) -> Result<(), Refusal> {
        let there = asked.namespace.is_empty()
            || self
                .objects
                .contains_key(&("Namespace".to_owned(), String::new(), asked.namespace.clone()));
        if there {
            return Ok(());
        }
        Err(Refusal::new(
            404,
            "NotFound",
            format!("namespaces \"{}\" not found", asked.namespace),
        ))
    }

    fn read(&self, asked: &Asked) -> Result<Value, Refusal> {
        let key = asked.key();
        let found = self.objects.get(&key).map(|stored| stored.value.clone());
        found.ok_or_else(|| {
            Refusal::new(
                404,
                "NotFound",
                format!("{} \"{}\" not found", asked.plural, key.2),
            )
        })
    }

    fn list(&self, asked: &Asked) -> Value {
        let selector = asked.query.get("labelSelector").cloned().unwrap_or_default();
        let fits = |value: &Value| {
            selector
                .split(',')
                .filter(|part| !part.is_empty())
                .all(|part| match part.split_once('=') {
                    Some((key, wanted)) => value["metadata"]["labels"][key] == wanted,
                    None => value["metadata"]["labels"].get(part).is_some(),
                })
        };
        let of_kind = self.objects.iter().filter(|((kind, namespace, _), _)| {
            kind == asked.kind && (asked.namespace.is_empty() || *namespace == asked.namespace)
        });
        let all: Vec<&Value> = of_kind
            .map(|(_, stored)| &stored.value)
            .filter(|value| fits(value))
            .collect();
        // Small pages, so that somebody has to ask for the next one.
        let start: usize = asked
            .query
            .get("continue")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let end = (start + 4).min(all.len());
        let next = if end < all.len() {
            end.to_string()
        } else {
            String::new()
        };
        json!({"kind": "List", "metadata": {"continue": next}, "items": all[start..end]})
    }

    fn review(&self, mut review: Value) -> Value {
        let of = |key: &str| {
            review["spec"]["resourceAttributes"][key]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let allowed = !self
            .denied
            .contains(&format!("{} {}", of("verb"), of("resource")));
        review["status"] =
            json!({"allowed": allowed, "reason": if allowed { "" } else { "no role allows it" }});
        review
    }

    /// In the foreground the pods of a workload go first; otherwise its controllers see to them later.
    fn delete(&mut self, asked: &Asked, options: &Value) -> Result<Value, Refusal> {
        let found = self.read(asked)?;
        let (kind, namespace, name) = asked.key();
        self.changes
            .push(format!("delete {}/{name}", kind.to_lowercase()));
        self.objects
            .remove(&(kind.clone(), namespace.clone(), name.clone()));
        if kind == "Namespace" {
            self.objects.retain(|(_, of, _), _| *of != name);
        }
        if options["propagationPolicy"] == "Foreground" {
            self.objects.retain(|(other, of, _), stored| {
                !(other == "Pod"
                    && *of == namespace
                    && stored.value["metadata"]["labels"]["of"] == name.as_str())
            });
        }
        Ok(found)
    }
}

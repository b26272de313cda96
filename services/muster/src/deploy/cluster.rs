//! A cluster's API, as far as it is needed here: what is served, objects as they are, server-side apply, deletion, access reviews.
//!
//! Objects are JSON, and the paths of their kinds come from what the cluster says that it serves, so that a kind which is missing is
//! known before anything is applied. How it is reached is in [`kubeconfig`] and [`credentials`], requests are in [`connection`].

mod connection;
mod credentials;
mod error;
mod kubeconfig;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};

use super::manifest::Object;
use connection::Connection;
pub use error::Error;

/// Who we are in `metadata.managedFields`.
pub const MANAGER: &str = "muster";

/// How a kind is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Group and version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name in paths and permissions.
    pub plural: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// A kind of the core or of an extension, without asking.
    pub fn known(api_version: &str, kind: &str, plural: &str, namespaced: bool) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespaced,
        }
    }

    /// The group; empty for the core.
    pub fn group(&self) -> &str {
        self.api_version.rsplit_once('/').map_or("", |(group, _)| group)
    }

    fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = if self.api_version.contains('/') {
            "apis"
        } else {
            "api"
        };
        let mut path = format!("/{root}/{}", self.api_version);
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path.push_str(&format!("/namespaces/{}", encoded(namespace)));
        }
        path.push_str(&format!("/{}", self.plural));
        if let Some(name) = name {
            path.push_str(&format!("/{}", encoded(name)));
        }
        path
    }
}

/// How an object is applied.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// The cluster only says what would come of it.
    pub dry: bool,
    /// Fields that others own are taken over.
    pub force: bool,
}

/// A cluster.
#[derive(Clone)]
pub struct Cluster {
    connection: Arc<Connection>,
    /// What each group and version serves, as far as it was asked for.
    served: Arc<Mutex<BTreeMap<String, Arc<Vec<Resource>>>>>,
}

impl Cluster {
    /// Reads the kubeconfig, and prepares the connection.
    pub async fn connect(file: Option<&Path>, context: Option<&str>) -> Result<Self, Error> {
        let access = kubeconfig::read(file, context)?;
        Ok(Self {
            connection: Arc::new(Connection::new(access).await?),
            served: Arc::default(),
        })
    }

    /// Where it is.
    pub fn server(&self) -> &str {
        self.connection.server()
    }

    async fn call(
        &self,
        what: &str,
        method: Method,
        path: &str,
        content: Option<(&str, &Value)>,
    ) -> Result<Value, Error> {
        self.connection.call(what, method, path, content).await
    }

    /// Its version: major, minor, and as it says it.
    pub async fn version(&self) -> Result<(u32, u32, String), Error> {
        let answer = self.call("the version", Method::GET, "/version", None).await?;
        let number = |key: &str| {
            let text = answer[key].as_str().unwrap_or_default();
            // Some say `30+`.
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        let said = answer["gitVersion"].as_str().unwrap_or("unknown").to_owned();
        Ok((number("major"), number("minor"), said))
    }

    /// How the kind of an object is reached; none where the cluster does not serve it.
    pub async fn resource(&self, api_version: &str, kind: &str) -> Result<Option<Resource>, Error> {
        let known = self.served.lock().get(api_version).cloned();
        let served = match known {
            Some(served) => served,
            None => {
                let served = Arc::new(self.serves(api_version).await?);
                self.served.lock().insert(api_version.to_owned(), served.clone());
                served
            }
        };
        Ok(served.iter().find(|resource| resource.kind == kind).cloned())
    }

    async fn serves(&self, api_version: &str) -> Result<Vec<Resource>, Error> {
        let root = if api_version.contains('/') { "apis" } else { "api" };
        let path = format!("/{root}/{api_version}");
        let answer = match self.call(api_version, Method::GET, &path, None).await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some(404) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let listed = answer["resources"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(listed
            .iter()
            .map(|one| {
                Resource::known(
                    api_version,
                    &text(&one["kind"]),
                    &text(&one["name"]),
                    one["namespaced"] == true,
                )
            })
            // Others are parts of objects, such as `deployments/scale`.
            .filter(|resource| !resource.plural.contains('/'))
            .collect())
    }

    /// How an object is reached.
    pub async fn resource_of(&self, object: &Object) -> Result<Resource, Error> {
        let found = self.resource(object.api_version(), object.kind()).await?;
        found.ok_or_else(|| Error::UnknownKind {
            id: object.id().to_string(),
            kind: object.kind().to_owned(),
            api_version: object.api_version().to_owned(),
        })
    }

    /// An object as it is.
    pub async fn get(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, Error> {
        let what = format!("{}/{name}", resource.kind.to_lowercase());
        let path = resource.path(namespace, Some(name));
        match self.call(&what, Method::GET, &path, None).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The object that a manifest speaks of, as it is.
    pub async fn live(&self, object: &Object) -> Result<Option<Value>, Error> {
        let resource = self.resource_of(object).await?;
        self.get(&resource, object.namespace(), object.name()).await
    }

    /// Objects of a kind, in one namespace or in all, by labels (`a=b,c=d`).
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Value>, Error> {
        /// Asked for at once.
        const PAGE: usize = 500;
        let path = resource.path(namespace, None);
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let query = format!(
                "{path}?limit={PAGE}&labelSelector={}&continue={}",
                encoded(labels),
                encoded(&next)
            );
            let mut page = self.call(&resource.plural, Method::GET, &query, None).await?;
            if let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) {
                items.extend(found);
            }
            next = page
                .pointer("/metadata/continue")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            if next.is_empty() {
                return Ok(items);
            }
        }
    }

    /// Server-side apply: the object as it is afterwards.
    pub async fn apply(&self, object: &Object, manner: Manner) -> Result<Value, Error> {
        let resource = self.resource_of(object).await?;
        let mut path = resource.path(object.namespace(), Some(object.name()));
        path.push_str(&format!("?fieldManager={MANAGER}&fieldValidation=Strict"));
        if manner.dry {
            path.push_str("&dryRun=All");
        }
        if manner.force {
            path.push_str("&force=true");
        }
        let content = ("application/apply-patch+yaml", object.value());
        self.call(&object.id().to_string(), Method::PATCH, &path, Some(content))
            .await
    }

    /// Creates an object that is not there.
    pub async fn create(&self, resource: &Resource, object: &Value) -> Result<Value, Error> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let what = format!(
            "{}/{}",
            resource.kind.to_lowercase(),
            text("/metadata/name").unwrap_or_default()
        );
        let path = resource.path(text("/metadata/namespace"), None);
        let content = ("application/json", object);
        self.call(&what, Method::POST, &path, Some(content)).await
    }

    /// Puts an object in the place of what it was, if it still is what its `resourceVersion` says.
    pub async fn replace(&self, resource: &Resource, object: &Value) -> Result<Value, Error> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let name = text("/metadata/name").unwrap_or_default();
        let what = format!("{}/{name}", resource.kind.to_lowercase());
        let path = resource.path(text("/metadata/namespace"), Some(name));
        let content = ("application/json", object);
        self.call(&what, Method::PUT, &path, Some(content)).await
    }

    /// Deletes an object with all that comes of it; whether it was there. A workload goes after its pods, so that it is gone when they are.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<bool, Error> {
        let what = format!("{}/{name}", resource.kind.to_lowercase());
        let path = resource.path(namespace, Some(name));
        let has_pods = matches!(
            resource.kind.as_str(),
            "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "Rollout"
        );
        let policy = if has_pods { "Foreground" } else { "Background" };
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        let content = Some(("application/json", &options));
        match self.call(&what, Method::DELETE, &path, content).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether we may do something; why not, where the cluster says it.
    pub async fn may(
        &self,
        verb: &str,
        resource: &Resource,
        namespace: Option<&str>,
    ) -> Result<Result<(), String>, Error> {
        let asked = Resource::known(
            "authorization.k8s.io/v1",
            "SelfSubjectAccessReview",
            "selfsubjectaccessreviews",
            false,
        );
        let review = json!({
            "apiVersion": asked.api_version,
            "kind": asked.kind,
            "spec": {"resourceAttributes": {
                "verb": verb,
                "group": resource.group(),
                "resource": resource.plural,
                "namespace": namespace.filter(|_| resource.namespaced).unwrap_or_default(),
            }},
        });
        let answer = self.create(&asked, &review).await?;
        if answer.pointer("/status/allowed") == Some(&Value::Bool(true)) {
            return Ok(Ok(()));
        }
        let why = answer.pointer("/status/reason").and_then(Value::as_str);
        Ok(Err(why.unwrap_or_default().to_owned()))
    }
}

/// A name or a selector in a path or a query, with what has a meaning there escaped.
fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

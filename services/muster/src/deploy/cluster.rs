//! A cluster's API, as far as it is needed here: what is served, objects as they are, server-side apply, deletion, access reviews.
//!
//! It is spoken by the crate `kube`. Objects are dynamic there and JSON here, and the paths of their kinds come from what the cluster says
//! that it serves, so that kinds which no crate knows are deployed like the others, and one that is missing is known before anything is
//! applied. Only what the code itself names (secrets, leases, pods) is typed, by `k8s-openapi`.
//!
//! How it is reached is in [`access`] and [`program`]; requests are in [`connection`].

mod access;
mod connection;
mod error;
mod program;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ClusterResourceScope, GroupVersion, NamespaceResourceScope};
use kube::discovery::{self, ApiResource, Scope};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::Value;

use super::manifest::Object;
use connection::Connection;
pub use error::Error;

/// Who we are in `metadata.managedFields`.
pub const MANAGER: &str = "muster";

/// How a kind is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its names.
    pub api: ApiResource,
    scope: Scope,
}

impl Resource {
    /// A kind whose objects are in namespaces, without asking.
    pub fn namespaced<K>() -> Self
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self {
            api: ApiResource::erase::<K>(&()),
            scope: Scope::Namespaced,
        }
    }

    /// A kind whose objects are in none, without asking.
    pub fn of_cluster<K>() -> Self
    where
        K: kube::Resource<DynamicType = (), Scope = ClusterResourceScope>,
    {
        Self {
            api: ApiResource::erase::<K>(&()),
            scope: Scope::Cluster,
        }
    }

    /// Whether its objects are in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// An object of it, for people.
    fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.api.kind.to_lowercase())
    }

    /// Requests for its objects, in one namespace or in all.
    fn requests(&self, client: Client, namespace: Option<&str>) -> Api<DynamicObject> {
        let api = Api::dynamic(client, &self.api, &self.scope);
        match namespace {
            Some(namespace) => api.constrain(&encoded(namespace)),
            None => api,
        }
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
    /// Reads the kubeconfig; nothing is sent yet.
    pub fn connect(file: Option<&Path>, context: Option<&str>) -> Result<Self, Error> {
        let access = access::read(file, context)?;
        Ok(Self {
            connection: Arc::new(Connection::new(access)),
            served: Arc::default(),
        })
    }

    /// Where it is.
    pub fn server(&self) -> &str {
        self.connection.server()
    }

    /// Its version: major, minor, and as it says it.
    pub async fn version(&self) -> Result<(u32, u32, String), Error> {
        let question = |client: Client| async move { client.apiserver_version().await };
        let version = self.connection.ask("the version", question).await?;
        let number = |text: &str| {
            // Some say `30+`.
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        let (major, minor) = (number(&version.major), number(&version.minor));
        Ok((major, minor, version.git_version))
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
        Ok(served.iter().find(|resource| resource.api.kind == kind).cloned())
    }

    async fn serves(&self, api_version: &str) -> Result<Vec<Resource>, Error> {
        let Ok(version) = api_version.parse::<GroupVersion>() else {
            return Ok(Vec::new()); // nobody serves what is no version
        };
        let version = &version;
        let question = |client: Client| async move { discovery::pinned_group(&client, version).await };
        let group = match self.connection.ask(api_version, question).await {
            Ok(group) => group,
            Err(error) if error.code() == Some(404) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let resources = group.versioned_resources(&version.version).into_iter();
        Ok(resources
            .map(|(api, capabilities)| Resource {
                api,
                scope: capabilities.scope,
            })
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
        let path = encoded(name);
        let path = path.as_str();
        let question = |client| async move { json(resource.requests(client, namespace).get(path).await) };
        match self.connection.ask(&resource.named(name), question).await {
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
        const PAGE: u32 = 500;
        let mut wanted = ListParams::default().labels(labels).limit(PAGE);
        let mut items = Vec::new();
        loop {
            let asked = &wanted;
            let question = |client| async move {
                let page = resource.requests(client, namespace).list(asked).await?;
                let items: Result<Vec<Value>, _> =
                    page.items.into_iter().map(|item| json(Ok(item))).collect();
                Ok((items?, page.metadata.continue_.unwrap_or_default()))
            };
            let (found, next) = self.connection.ask(&resource.api.plural, question).await?;
            items.extend(found);
            if next.is_empty() {
                return Ok(items);
            }
            wanted = wanted.continue_token(&next);
        }
    }

    /// Server-side apply: the object as it is afterwards.
    pub async fn apply(&self, object: &Object, manner: Manner) -> Result<Value, Error> {
        let resource = self.resource_of(object).await?;
        let wanted = PatchParams {
            dry_run: manner.dry,
            force: manner.force,
            ..PatchParams::apply(MANAGER).validation_strict()
        };
        let (resource, wanted, path) = (&resource, &wanted, encoded(object.name()));
        let path = path.as_str();
        let question = |client| async move {
            let requests = resource.requests(client, object.namespace());
            json(requests.patch(path, wanted, &Patch::Apply(object.value())).await)
        };
        self.connection.ask(&object.id().to_string(), question).await
    }

    /// Creates an object that is not there.
    pub async fn create(&self, resource: &Resource, object: &Value) -> Result<Value, Error> {
        let (namespace, name) = place_of(object);
        let question = |client| async move {
            let requests = resource.requests(client, namespace);
            json(requests.create(&PostParams::default(), &dynamic(object)?).await)
        };
        self.connection.ask(&resource.named(name), question).await
    }

    /// Puts an object in the place of what it was, if it still is what its `resourceVersion` says.
    pub async fn replace(&self, resource: &Resource, object: &Value) -> Result<Value, Error> {
        let (namespace, name) = place_of(object);
        let path = encoded(name);
        let path = path.as_str();
        let question = |client| async move {
            let requests = resource.requests(client, namespace);
            json(
                requests
                    .replace(path, &PostParams::default(), &dynamic(object)?)
                    .await,
            )
        };
        self.connection.ask(&resource.named(name), question).await
    }

    /// Deletes an object with all that comes of it; whether it was there. A workload goes after its pods, so that it is gone when they are.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<bool, Error> {
        let has_pods = matches!(
            resource.api.kind.as_str(),
            "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "Rollout"
        );
        let wanted = if has_pods {
            DeleteParams::foreground()
        } else {
            DeleteParams::background()
        };
        let (wanted, path) = (&wanted, encoded(name));
        let path = path.as_str();
        let question =
            |client| async move { resource.requests(client, namespace).delete(path, wanted).await };
        match self.connection.ask(&resource.named(name), question).await {
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
        let namespace = namespace.filter(|_| resource.is_namespaced());
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    group: Some(resource.api.group.clone()),
                    resource: Some(resource.api.plural.clone()),
                    namespace: namespace.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let review = &review;
        let question = |client| async move { Api::all(client).create(&PostParams::default(), review).await };
        let answer = self.connection.ask("selfsubjectaccessreview", question).await?;
        let status = answer.status.unwrap_or_default();
        Ok(if status.allowed {
            Ok(())
        } else {
            Err(status.reason.unwrap_or_default())
        })
    }
}

fn json(object: kube::Result<DynamicObject>) -> kube::Result<Value> {
    serde_json::to_value(object?).map_err(kube::Error::SerdeError)
}

fn dynamic(object: &Value) -> kube::Result<DynamicObject> {
    serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)
}

/// Its namespace and its name.
fn place_of(object: &Value) -> (Option<&str>, &str) {
    let metadata = &object["metadata"];
    (
        metadata["namespace"].as_str(),
        metadata["name"].as_str().unwrap_or_default(),
    )
}

/// A name in a path, with what has a meaning there escaped; the library takes it as it is.
fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

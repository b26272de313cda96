//! Which paths of the data port speak gRPC.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use prost::Message as _;

use super::requests::Route;
use crate::trust::policy::{self, Rule};

/// The services that are served, and every method of the contract. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Contract {
    services: Arc<HashSet<&'static str>>,
    /// `/package.Service/Method`: the bound of the `endpoint` label.
    methods: Arc<HashMap<String, Method>>,
}

/// What is known of a method before anybody calls it.
pub(crate) struct Method {
    /// What it needs.
    pub(super) rule: Rule,
    /// Whether its service is served here.
    pub(super) is_served: bool,
    /// What counts its calls, once there was one.
    route: OnceLock<Arc<Route>>,
}

impl Method {
    /// What counts its calls.
    pub(super) fn posted(&self, find: impl FnOnce() -> Arc<Route>) -> Arc<Route> {
        Arc::clone(self.route.get_or_init(find))
    }
}

impl Contract {
    pub(crate) fn new(services: impl Iterator<Item = &'static str>, descriptor_sets: &[&[u8]]) -> Self {
        let services: HashSet<&'static str> = services.collect();
        let mut methods = HashMap::new();
        for set in descriptor_sets {
            // Reflection refuses a set that cannot be read, and with it the start.
            let Ok(set) = prost_types::FileDescriptorSet::decode(*set) else {
                continue;
            };
            for file in &set.file {
                for service in &file.service {
                    let name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let path = format!("/{name}/{}", method.name());
                        let known = Method {
                            rule: policy::of_method(&path).unwrap_or(policy::DEFAULT),
                            is_served: services.contains(name.as_str()),
                            route: OnceLock::new(),
                        };
                        methods.insert(path, known);
                    }
                }
            }
        }
        Self {
            services: Arc::new(services),
            methods: Arc::new(methods),
        }
    }

    /// Whether the path lies in a gRPC service that is served.
    pub(super) fn serves(&self, path: &str) -> bool {
        path.strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .is_some_and(|(service, _)| self.services.contains(service))
    }

    /// The methods of the services that are served.
    pub(crate) fn served(&self) -> impl Iterator<Item = &str> {
        self.methods
            .iter()
            .filter(|(_, method)| method.is_served)
            .map(|(path, _)| path.as_str())
    }

    /// The method of the contract at that path.
    pub(super) fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }
}

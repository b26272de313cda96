//! Which paths of the data port speak gRPC.

use std::collections::HashSet;
use std::sync::Arc;

use prost::Message as _;

/// The services that are served, and every method of the contract. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Contract {
    services: Arc<HashSet<&'static str>>,
    /// `/package.Service/Method`: the bound of the `endpoint` label.
    methods: Arc<HashSet<String>>,
}

impl Contract {
    pub(crate) fn new(services: impl Iterator<Item = &'static str>, descriptor_sets: &[&[u8]]) -> Self {
        let mut methods = HashSet::new();
        for set in descriptor_sets {
            // Reflection refuses a set that cannot be read, and with it the start.
            let Ok(set) = prost_types::FileDescriptorSet::decode(*set) else {
                continue;
            };
            for file in &set.file {
                for service in &file.service {
                    for method in &service.method {
                        methods.insert(format!(
                            "/{}.{}/{}",
                            file.package(),
                            service.name(),
                            method.name()
                        ));
                    }
                }
            }
        }
        Self {
            services: Arc::new(services.collect()),
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
            .map(String::as_str)
            .filter(|path| self.serves(path))
    }

    /// Whether the path is a method of the contract.
    pub(super) fn has_method(&self, path: &str) -> bool {
        self.methods.contains(path)
    }
}

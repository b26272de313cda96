//! The certificates that agents are shown which ask for mutual TLS.
//!
//! They belong to a connection, which is made before there is a call on it, and serves many. So the connections to such an agent are its
//! own, and each handshake looks at the operator's files as calls do: a certificate that is replaced is shown from the next connection
//! on, and a host that is not in `hosts` is shown none.
//!
//! A card may name several schemes of mutual TLS; of one connection there is one certificate, the first for which there is a file.

use std::sync::Arc;

use muster_rpc::outbound::{Certificate, Present};
use muster_runtime::clock::SharedClock;

use super::demand;
use super::folder::{Folder, Secret};
use crate::fleet::Instance;

/// See the module. Clones share the files.
#[derive(Clone)]
pub struct Certificates {
    folder: Option<Arc<Folder>>,
    clock: SharedClock,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Certificates")
    }
}

impl Certificates {
    pub(super) const fn new(folder: Option<Arc<Folder>>, clock: SharedClock) -> Self {
        Self { folder, clock }
    }

    /// What an instance is shown; `None` where its card asks for none, and for those who have proven to be workloads of ours.
    #[must_use]
    pub fn for_instance(&self, instance: &Instance) -> Option<Arc<dyn Present>> {
        let folder = self.folder.clone()?;
        let schemes = demand::certificates(&instance.card);
        if instance.identity.is_some() || !instance.endpoint.is_tls() || schemes.is_empty() {
            return None;
        }
        Some(Arc::new(Shown {
            folder,
            clock: Arc::clone(&self.clock),
            agent: instance.id.agent.clone(),
            schemes: schemes.into_iter().map(str::to_owned).collect(),
            host: instance.endpoint.host().to_owned(),
            port: instance.endpoint.port(),
        }))
    }
}

/// What one instance is shown.
struct Shown {
    folder: Arc<Folder>,
    clock: SharedClock,
    agent: String,
    schemes: Vec<String>,
    host: String,
    port: u16,
}

impl Present for Shown {
    fn certificate(&self) -> Option<Certificate> {
        let now = self.clock.monotonic();
        self.folder.admits(&self.agent, &self.host, self.port, now).ok()?;
        self.schemes.iter().find_map(|scheme| {
            let secret = self.folder.secret(&self.agent, scheme, now).ok()?;
            match &*secret {
                Secret::Certificate(certificate) => Some(certificate.clone()),
                Secret::Text(_) | Secret::Client { .. } => None,
            }
        })
    }
}

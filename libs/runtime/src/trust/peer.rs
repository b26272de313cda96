//! Who holds the other end of a connection.
//!
//! The accept path puts one into the extensions of every request on the data port: out of the certificate in native mode, out of
//! what the local proxy says in mesh mode, and nobody's name elsewhere. It says who *connected*, which is a service; on whose
//! behalf a request is made is another question.

use std::net::SocketAddr;

use super::spiffe::SpiffeId;

/// Who holds the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Nobody said (loopback development, plaintext, TLS without a client's certificate).
    Anonymous {
        /// Where the connection comes from.
        address: SocketAddr,
    },
    /// Proven by mutual TLS, or by a trusted proxy's `x-forwarded-client-cert` in mesh mode.
    Workload {
        /// Its name.
        id: SpiffeId,
        /// Where the connection comes from.
        address: SocketAddr,
    },
}

impl Peer {
    /// Where the connection comes from; in mesh mode that is the proxy.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        match self {
            Self::Anonymous { address } | Self::Workload { address, .. } => *address,
        }
    }

    /// Its name, where it is known.
    #[must_use]
    pub const fn id(&self) -> Option<&SpiffeId> {
        match self {
            Self::Anonymous { .. } => None,
            Self::Workload { id, .. } => Some(id),
        }
    }
}

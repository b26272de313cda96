//! The section `trust`: who may talk to whom.
//!
//! Only `loopback` is built: everything on one machine, no ceremony. `native` (mutual TLS between services) and
//! `mesh` (identity from a sidecar) are named here so that a configuration that asks for them is refused and not
//! run without protection.

use serde::{Deserialize, Serialize};

use crate::config::Mistakes;
use crate::server;

/// How peers are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everybody who reaches the loopback interface.
    #[default]
    Loopback,
    /// Mutual TLS between all services.
    Native,
    /// A sidecar's word.
    Mesh,
}

/// The section `trust`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How peers are trusted.
    pub mode: Mode,
    /// Whether a service may listen beyond loopback without protection; for isolated networks only.
    pub allow_plaintext: bool,
}

impl Config {
    /// Adds what is wrong.
    pub fn validate(&self, server: &server::Config, mistakes: &mut Mistakes) {
        match self.mode {
            Mode::Loopback if !server.host.is_loopback() && !self.allow_plaintext => mistakes.add(
                "server.host",
                format!(
                    "{} is not a loopback address and nothing protects it; listen on 127.0.0.1, or set \
                     trust.allow_plaintext=true on an isolated network",
                    server.host
                ),
            ),
            Mode::Loopback => {}
            Mode::Native | Mode::Mesh => {
                mistakes.add(
                    "trust.mode",
                    "'native' and 'mesh' are not there yet; allowed now: 'loopback'",
                );
            }
        }
    }
}

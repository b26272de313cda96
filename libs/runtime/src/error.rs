//! Why a service could not start or ended: one line that says what, where and what to do.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Mistakes;

/// Why a service could not start or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(Mistakes),
    /// A port cannot be bound.
    #[error(
        "server.{key}: cannot listen on {address}: {source}; free the port or choose another with `--set server.{key}=PORT`"
    )]
    Bind {
        /// The configuration key of the port.
        key: &'static str,
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A data directory cannot be used.
    #[error("data directory {}: {what}", path.display())]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// An essential task ended.
    #[error("{name} ended: {reason}")]
    Task {
        /// The task.
        name: String,
        /// Why.
        reason: String,
    },
    /// Serving failed.
    #[error("cannot serve: {0}")]
    Serve(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// The process's exit code: 2 for what the operator must correct before the start, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Bind { .. } | Self::DataDirectory { .. } => 2,
            Self::Task { .. } | Self::Serve(_) | Self::Other(_) => 1,
        }
    }
}

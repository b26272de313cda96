//! Why something could not be done in a cluster, and what to do about it.

use std::time::Duration;

use http::StatusCode;
use kube::core::Status;

use crate::failure::{Exit, Failure};

/// The innermost cause says the most.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Why something could not be done in the cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig is of no use.
    #[error("the kubeconfig: {0}")]
    Kubeconfig(String),
    /// Nobody answers.
    #[error("the cluster at {server} does not answer: {cause}")]
    Unreachable {
        /// Where it should be.
        server: String,
        /// What happened instead.
        cause: String,
    },
    /// It answers, and refuses.
    #[error("{what}: {}", status.message)]
    Refused {
        /// What was to be done.
        what: String,
        /// What it says.
        status: Box<Status>,
    },
    /// It does not know the kind.
    #[error("{id}: the cluster does not serve {kind} of {api_version}")]
    UnknownKind {
        /// Of what.
        id: String,
        /// The kind.
        kind: String,
        /// Group and version.
        api_version: String,
    },
    /// It says what no API server says.
    #[error("{what}: the answer is not understood: {cause}")]
    Nonsense {
        /// What was to be done.
        what: String,
        /// Why not.
        cause: String,
    },
}

impl Error {
    /// Out of what the library says.
    pub fn of(what: &str, server: &str, error: kube::Error) -> Self {
        /// What is quoted of what no API server says.
        const MOST_LETTERS: usize = 400;
        let what = what.to_owned();
        match error {
            kube::Error::Api(status) if status.code == 0 => Self::Nonsense {
                what,
                cause: format!("it refuses, and does not say why {}", status.message)
                    .trim()
                    .to_owned(),
            },
            kube::Error::Api(mut status) => {
                // What stands between may refuse too, and says it in other words; the library puts them where those of the API would be.
                if status.details.is_none() && status.reason == "Failed to parse error data" {
                    let code = StatusCode::from_u16(status.code).unwrap_or_default();
                    let said: String = status.message.chars().take(MOST_LETTERS).collect();
                    status.message = format!("{code}: {said}");
                }
                Self::Refused { what, status }
            }
            kube::Error::SerdeError(error) => Self::Nonsense {
                what,
                cause: error.to_string(),
            },
            error @ (kube::Error::FromUtf8(_) | kube::Error::Discovery(_)) => Self::Nonsense {
                what,
                cause: innermost(&error),
            },
            error @ (kube::Error::Service(_) | kube::Error::HyperError(_)) => Self::Unreachable {
                server: server.to_owned(),
                cause: innermost(&error),
            },
            // The others are about how it is reached.
            error => Self::Kubeconfig(error.to_string()),
        }
    }

    /// The status code of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.code),
            _ => None,
        }
    }

    /// After how long it may be tried again, where it says so.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Refused { status, .. } => {
                let details = status.details.as_ref();
                Duration::from_secs(details.map_or(0, |details| details.retry_after_seconds).into())
            }
            _ => Duration::ZERO,
        }
    }

    /// Who owns the fields that we may not change: a line for each.
    pub fn conflicts(&self) -> Vec<String> {
        let Self::Refused { what, status } = self else {
            return Vec::new();
        };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes
            .filter(|cause| cause.reason == "FieldManagerConflict")
            .map(|cause| {
                format!(
                    "{what}: {} ({})",
                    cause.field.trim_start_matches('.'),
                    cause.message
                )
            })
            .collect()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (exit, remedy) = match &error {
            Error::Kubeconfig(_) => (
                Exit::Usage,
                "KUBECONFIG or --kubeconfig names the file, --context the cluster in it; `kubectl config get-contexts` lists them",
            ),
            Error::Unreachable { .. } => (
                Exit::Unavailable,
                "is it the right context (`kubectl config current-context`), and is the cluster within reach from here?",
            ),
            Error::UnknownKind { .. } => (
                Exit::Failed,
                "`muster deploy preflight` says what has to be installed first",
            ),
            Error::Nonsense { .. } => (Exit::Failed, "is this the address of a Kubernetes API server?"),
            Error::Refused { status, .. } => match status.code {
                401 => (Exit::Refused, "log in again: the cluster does not know who asks"),
                403 => (
                    Exit::Refused,
                    "`muster deploy preflight` lists every permission that is missing",
                ),
                404 => (
                    Exit::NotFound,
                    "is it the right namespace, and the right cluster?",
                ),
                409 if !error.conflicts().is_empty() => (
                    Exit::Failed,
                    "take it out of the overlay if the other is to keep it, or take it over with --force-conflicts",
                ),
                429 | 500..=599 => (
                    Exit::Unavailable,
                    "the API server is overloaded or restarting; the command may be given again",
                ),
                _ => (
                    Exit::Failed,
                    "mend the manifest; nothing of this object was changed",
                ),
            },
        };
        let mut failure = Self::failed(message).with_remedy(remedy);
        failure.exit = exit;
        failure
    }
}

//! Why something could not be done in a cluster, and what to do about it.

use std::time::Duration;

use serde::Deserialize;

use crate::failure::{Exit, Failure};

/// What the API says when it refuses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The HTTP status.
    #[serde(skip)]
    pub code: u16,
    /// For people.
    pub message: String,
    /// More of it.
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    causes: Vec<Cause>,
    retry_after_seconds: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
    field: String,
}

/// The innermost cause says the most.
pub fn innermost(error: &dyn std::error::Error) -> String {
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
            Self::Refused { status, .. } => Duration::from_secs(status.details.retry_after_seconds.into()),
            _ => Duration::ZERO,
        }
    }

    /// Who owns the fields that we may not change: a line for each.
    pub fn conflicts(&self) -> Vec<String> {
        let Self::Refused { what, status } = self else {
            return Vec::new();
        };
        status
            .details
            .causes
            .iter()
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

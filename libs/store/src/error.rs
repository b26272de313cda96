//! What can go wrong, always with the file or directory it went wrong in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opening or reading failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The directory was written by a newer version of the software.
    #[error(
        "{}: holds {name} data of format {found}, this version reads up to {supported}; run the newer version or use another directory",
        path.display()
    )]
    NewerFormat {
        /// The `format` file.
        path: PathBuf,
        /// What the directory holds.
        name: String,
        /// The format found.
        found: u32,
        /// The newest format that is understood.
        supported: u32,
    },
    /// The directory was written by an older version, and there is no way up.
    #[error(
        "{}: holds {name} data of format {found}, which this version ({supported}) cannot bring up to date; use another directory",
        path.display()
    )]
    OlderFormat {
        /// The `format` file.
        path: PathBuf,
        /// What the directory holds.
        name: String,
        /// The format found.
        found: u32,
        /// The format that is understood.
        supported: u32,
    },
    /// The directory belongs to another service.
    #[error("{}: holds {found} data, not {expected}; give each service its own directory", path.display())]
    ForeignFormat {
        /// The `format` file.
        path: PathBuf,
        /// What the directory holds.
        found: String,
        /// What was to be opened.
        expected: String,
    },
    /// What the directory holds is encrypted, and the key for it is missing.
    #[error(
        "{}: is encrypted and needs key '{id}'; name a file with that key, and keep it there after the first one once another \
         writes",
        path.display()
    )]
    Sealed {
        /// The directory.
        path: PathBuf,
        /// The key's id.
        id: String,
    },
    /// What the directory holds is encrypted with another key of that id.
    #[error("{}: is encrypted with another key '{id}' than the one that is given; name the file with the right one", path.display())]
    WrongKey {
        /// The directory.
        path: PathBuf,
        /// The key's id.
        id: String,
    },
    /// A file holds what cannot be.
    #[error("{}: damaged: {what}; restore it from a backup or move the directory away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: Arc<std::io::Error>,
    },
    /// What an older version had written could not be brought up to date.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            action,
            source: Arc::new(source),
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    /// From the embedded engine: an I/O error stays one, anything else means that a file is damaged.
    pub(crate) fn engine(path: &Path, action: &'static str, error: fjall::Error) -> Self {
        match error {
            fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
                Self::io(path, action, source)
            }
            other => Self::damaged(path, format!("cannot {action}: {other}")),
        }
    }
}

/// A batch was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// An expectation of the batch does not hold; nothing of it was written.
    #[error("key {key} of '{keyspace}' is not as expected: somebody else wrote it")]
    Conflict {
        /// Name of the keyspace.
        keyspace: String,
        /// The key, for people.
        key: String,
    },
    /// The batch is larger than the store takes.
    #[error("a batch of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Size of its keys and values.
        bytes: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// A write failed, this one or an earlier one; the store takes no more until the process starts again.
    #[error("the store has stopped: {}: {what}; free space or repair the disk, then restart", path.display())]
    Stopped {
        /// The file that was written.
        path: PathBuf,
        /// What happened.
        what: String,
    },
}

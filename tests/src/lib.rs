//! What the system tests share: the whole system as separate processes, the `muster` command line, and the official SDKs of A2A.
//!
//! Every program is a real binary with ports of its own; nothing is called in process. The tests themselves are in
//! `tests/`.

mod command;
mod official;
mod replicas;
mod stack;

pub use command::{Finished, muster, muster_within, shell};
pub use official::{Sdk, Stranger};
pub use replicas::Replicas;
pub use stack::{Dev, Stack};

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long anything may take before a test gives up; generous, because it is no measurement.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A file of the repository, by its path from the root.
#[must_use]
pub fn repository_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A program of the interop tools, which `tests/run` installs.
///
/// # Panics
/// When it is not there: a test whose program is missing fails.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    installed(&tools().join(name))
}

/// The folder of the interop tools' JavaScript packages, for `NODE_PATH`.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn javascript_packages() -> PathBuf {
    installed(&tools().join("../node_modules"))
}

fn tools() -> PathBuf {
    std::env::var_os("MUSTER_TEST_TOOLS")
        .map_or_else(|| repository_file("target/test-tools/bin"), PathBuf::from)
}

fn installed(path: &Path) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing; `tests/run` installs it",
        path.display()
    );
    path.to_owned()
}

//! Runs the `muster` command line to its end, as a user would type it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use muster_testkit::Program;
use serde_json::Value;
use tokio::process::Command;

use crate::PATIENCE;

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as one JSON value.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// Standard output as one JSON value a line.
    ///
    /// # Panics
    /// When a line is not JSON.
    #[must_use]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// This, once it has ended well.
    ///
    /// # Panics
    /// When it has not.
    #[must_use]
    pub fn success(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// Runs `muster ARGUMENTS` with this environment.
///
/// # Panics
/// When it cannot be started or does not end.
pub async fn muster(environment: &[(String, String)], arguments: &[&str]) -> Finished {
    muster_within(PATIENCE, environment, arguments).await
}

/// The same for a command that takes its time.
///
/// # Panics
/// When it cannot be started or does not end within this time.
pub async fn muster_within(
    patience: Duration,
    environment: &[(String, String)],
    arguments: &[&str],
) -> Finished {
    let mut command = Command::new(Program::path_of("muster"));
    command.args(arguments);
    finish(command, environment, &format!("muster {arguments:?}"), patience).await
}

/// Runs a line of shell in a directory, with `muster` on the path.
///
/// # Panics
/// When it cannot be started or does not end.
pub async fn shell(environment: &[(String, String)], directory: &Path, line: &str) -> Finished {
    let programs = Program::path_of("muster");
    let programs = programs.parent().expect("a program is in a directory");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", line])
        .current_dir(directory)
        .env("PATH", format!("{}:{path}", programs.display()));
    finish(command, environment, line, PATIENCE).await
}

async fn finish(
    mut command: Command,
    environment: &[(String, String)],
    what: &str,
    patience: Duration,
) -> Finished {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MUSTER") {
            command.env_remove(name);
        }
    }
    command
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(patience, command.output())
        .await
        .unwrap_or_else(|_| panic!("{what} does not end"))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

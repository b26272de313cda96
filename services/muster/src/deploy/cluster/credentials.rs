//! Who we are to a cluster: a token, a file with one, a password, or what a program says (`ExecCredential`, as the clouds do it).
//!
//! A file is read for each request, because a pod's token is replaced while it runs. A program is asked once, and again when what it
//! said has ended or is refused.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use jiff::Timestamp;
use muster_runtime::clock::{Clock as _, SystemClock};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use super::Error;

/// How long before its end a token is no longer used, in seconds.
const MARGIN: i64 = 30;

/// Who we are.
#[derive(Debug)]
pub enum Credentials {
    /// Nobody, or whom a certificate names.
    None,
    /// A bearer token.
    Token(String),
    /// A file with one.
    TokenFile(PathBuf),
    /// Name and password, as the header wants them.
    Password(String),
    /// A program that says it.
    Program(Program),
}

/// A program that says who we are.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    api_version: String,
    command: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    #[serde(default)]
    install_hint: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

/// What it says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Said {
    /// A bearer token.
    pub token: Option<String>,
    /// When that ends.
    expiration_timestamp: Option<Timestamp>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Said {
    /// Certificate and key, in PEM.
    pub fn identity(&self) -> Option<Vec<u8>> {
        let (certificate, key) = (
            self.client_certificate_data.as_ref()?,
            self.client_key_data.as_ref()?,
        );
        Some(format!("{certificate}\n{key}").into_bytes())
    }

    /// Whether it can still be used.
    pub fn is_fresh(&self) -> bool {
        let now = SystemClock::default().now();
        self.expiration_timestamp
            .is_none_or(|end| end.as_second() - now.as_second() > MARGIN)
    }
}

impl Program {
    /// The same, for a kubeconfig in a directory: a command with a path is relative to that.
    pub fn beside(mut self, directory: &Path) -> Self {
        let path = Path::new(&self.command);
        if path.is_relative() && path.components().count() > 1 {
            self.command = directory.join(path).display().to_string();
        }
        self
    }

    /// Asks it.
    pub async fn ask(&self) -> Result<Said, Error> {
        let wrong = |what: String| {
            let hint = self.install_hint.as_deref().unwrap_or_default();
            Error::Kubeconfig(format!("{}: {what} {hint}", self.command).trim().to_owned())
        };
        let information = json!({
            "apiVersion": self.api_version, "kind": "ExecCredential",
            "spec": {"interactive": std::io::stdin().is_terminal()},
        });
        let variables = self.env.iter().flatten().map(|one| (&one.name, &one.value));
        let done = Command::new(&self.command)
            .args(self.args.iter().flatten())
            .envs(variables)
            .env("KUBERNETES_EXEC_INFO", information.to_string())
            .stdin(Stdio::inherit())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| wrong(error.to_string()))?;
        if !done.status.success() {
            return Err(wrong(format!("it ended with {}", done.status)));
        }
        #[derive(Deserialize)]
        struct Answer {
            status: Said,
        }
        // Its text is not quoted: it has secrets in it.
        let answer: Answer = serde_json::from_slice(&done.stdout)
            .map_err(|error| wrong(format!("it says no ExecCredential: line {}", error.line())))?;
        Ok(answer.status)
    }
}

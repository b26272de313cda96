//! Real Redis servers, each on a port and in a directory of its own: standalone, as a Cluster, and watched by Sentinels.

mod cluster;
mod failover;
mod sentinels;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{Process, Program};
use crate::wait_for;

pub use cluster::RedisCluster;
pub use sentinels::RedisSentinels;

/// How long a server may take to answer, and a Cluster or Sentinels to agree.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis server. It writes every command to disk before it answers, unless told otherwise. Dropping it kills it.
#[derive(Debug)]
pub struct RedisServer {
    program: Program,
    process: Option<Process>,
    _directory: TempDir,
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Panics
    /// When the program is missing, or does not answer.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with settings, as in `redis.conf`; they may be repeated there.
    ///
    /// # Panics
    /// When the program is missing, or does not answer.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::to_be_started(settings);
        server.restart().await;
        server
    }

    /// One that does not run yet: [`restart`](Self::restart) starts it.
    ///
    /// # Panics
    /// When the program is missing.
    #[must_use]
    pub fn to_be_started(settings: &[(&str, &str)]) -> Self {
        let directory = directory();
        let mut program = Program::at(installed("redis-server"));
        let path = directory.path().display().to_string();
        let (port, bus) = (
            program.ports().data.to_string(),
            program.ports().health.to_string(),
        );
        let all = [
            ("port", port.as_str()),
            ("bind", "127.0.0.1"),
            ("cluster-port", bus.as_str()),
            ("dir", path.as_str()),
            ("save", ""),
            ("appendonly", "yes"),
            ("appendfsync", "always"),
        ];
        for (name, value) in all.iter().chain(settings) {
            program = program.arg(format!("--{name}")).arg(*value);
        }
        Self {
            program,
            process: None,
            _directory: directory,
        }
    }

    /// Starts one that speaks TLS only, with a certificate for 127.0.0.1 of an authority of its own; and where the
    /// authority's certificate is.
    ///
    /// # Panics
    /// When a program is missing, or does not answer.
    pub async fn start_tls() -> (Self, PathBuf) {
        let directory = directory();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let (authority, certificate, key) = (at("ca.pem"), at("server.pem"), at("server.key"));
        let script = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test \
               -addext keyUsage=keyCertSign -keyout {ca_key} -out {authority} && \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=redis -keyout {key} -out {request} && \
             printf 'subjectAltName=IP:127.0.0.1' > {extensions} && \
             openssl x509 -req -in {request} -CA {authority} -CAkey {ca_key} -CAcreateserial -days 2 \
               -extfile {extensions} -out {certificate}",
            ca_key = at("ca.key"),
            request = at("request.pem"),
            extensions = at("extensions"),
        );
        let made = Command::new("sh").arg("-c").arg(script).output().await;
        let made = made.unwrap_or_else(|error| panic!("sh: {error}"));
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(
            made.status.success(),
            "openssl (Debian: apt-get install openssl): {said}"
        );
        let program = Program::at(installed("redis-server"));
        let port = program.ports().data.to_string();
        let settings = [
            ("port", "0"),
            ("tls-port", port.as_str()),
            ("bind", "127.0.0.1"),
            ("dir", &directory.path().display().to_string()),
            ("save", ""),
            ("appendonly", "yes"),
            ("tls-cert-file", &certificate),
            ("tls-key-file", &key),
            ("tls-ca-cert-file", &authority),
            ("tls-auth-clients", "no"),
        ];
        let program = settings.iter().fold(program, |program, (name, value)| {
            program.arg(format!("--{name}")).arg(*value)
        });
        let process = program.start();
        let server = Self {
            program,
            process: Some(process),
            _directory: directory,
        };
        (server, authority.into())
    }

    async fn of(program: Program, directory: TempDir) -> Self {
        let mut server = Self {
            program,
            process: None,
            _directory: directory,
        };
        server.restart().await;
        server
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.program.ports().data
    }

    /// Where it is, as clients want it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Kills it as a power cut would.
    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Starts it again, on the same port and directory, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn restart(&mut self) {
        self.kill().await;
        let mut process = self.program.start();
        let port = self.port();
        wait_for("Redis to answer", PATIENCE, async || {
            if process.has_ended() {
                panic!("redis-server ended: {}{}", process.stdout(), process.stderr());
            }
            match ask(port, &["PING"]).await {
                answer if answer.trim() == "PONG" => Ok(()),
                answer => Err(answer),
            }
        })
        .await;
        self.process = Some(process);
    }

    /// Sends it a signal, such as `STOP` and `CONT`.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("the server runs");
        process.signal(signal).await;
    }

    /// What it answers to a command, in the words of `redis-cli`.
    ///
    /// # Panics
    /// When the program is missing.
    pub async fn ask(&self, command: &[&str]) -> String {
        ask(self.port(), command).await
    }

    async fn leads(&self) -> bool {
        self.ask(&["ROLE"]).await.starts_with("master")
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap_or_else(|error| panic!("a temporary directory: {error}"))
}

async fn ask(port: u16, command: &[&str]) -> String {
    let output = Command::new(installed("redis-cli"))
        .arg("-p")
        .arg(port.to_string())
        .args(command)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("redis-cli: {error}"));
    let status: ExitStatus = output.status;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if status.success() {
        text
    } else {
        format!("{text}{}", String::from_utf8_lossy(&output.stderr))
    }
}

/// Where a program of Redis is.
fn installed(program: &str) -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{program} is not installed, and the tests of the Redis store need it: \
             apt-get install redis-server redis-sentinel redis-tools"
        )
    })
}

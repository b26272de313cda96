//! A part of the stack as a process of its own: started, signalled, killed, and started again where it was.
//!
//! It is this program itself (`muster bench part`), so that nothing else needs to be built or found, and it ends with its standard
//! input, so that nothing outlives a command that is killed. Of the environment it sees nothing: what is found out about a stack
//! of one's own must not depend on where one stands.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use muster_runtime::clock::{Clock as _, SystemClock};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::network;
use crate::bench::part::{Addresses, Part};
use crate::failure::Failure;

/// How long a process may take until it says where it listens, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much is told of what it said last.
const TOLD_BYTES: usize = 1_000;

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its name in the stack.
    pub name: String,
    /// Which service it is.
    pub part: Part,
    /// How it is configured.
    pub settings: Vec<(String, String)>,
    /// Where it writes what it logs.
    pub log: PathBuf,
    /// The group that it runs under, where it can be cut off by that.
    pub group: Option<u32>,
}

/// A process that runs. It is killed with this value.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it, at these addresses or at free ones, and waits until it says where it listens.
    pub async fn start(&self, addresses: Option<&Addresses>) -> Result<Process, Failure> {
        let failed = |what: &str| {
            Failure::failed(format!(
                "{} does not start: {what}{}",
                self.name,
                last_words(&self.log)
            ))
        };
        let program = std::env::current_exe().map_err(|error| failed(&error.to_string()))?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|error| failed(&error.to_string()))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MUSTER") {
                command.env_remove(name);
            }
        }
        command.args(["bench", "part", self.part.name()]);
        if let Some(addresses) = addresses {
            command.arg("--ports").args(ports(addresses));
        }
        for (key, value) in &self.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        if let Some(group) = self.group {
            network::mark(group).await?;
            command.gid(group);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error.to_string()))?;
        let output = child.stdout.take().ok_or_else(|| failed("it has no output"))?;
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, BufReader::new(output).read_line(&mut line)).await;
        read.map_err(|_| failed("it says nothing"))?
            .map_err(|error| failed(&error.to_string()))?;
        // Where it listens is known; that it says so is what is waited for.
        let _said: Addresses = serde_json::from_str(&line).map_err(|_| failed("it has ended"))?;
        Ok(Process {
            name: self.name.clone(),
            child,
            log: self.log.clone(),
        })
    }
}

impl Process {
    /// Fails where it has ended.
    pub fn is_running(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Failure::failed(format!(
                "{} has ended: {status}{}",
                self.name,
                last_words(&self.log)
            ))),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Asks it to stop in good order.
    pub fn ask_to_stop(&self) -> Result<(), Failure> {
        self.signal(Signal::TERM)
    }

    /// Takes its processor away, so that it answers nobody and does not know it.
    pub fn freeze(&self) -> Result<(), Failure> {
        self.signal(Signal::STOP)
    }

    /// Gives it back.
    pub fn thaw(&self) -> Result<(), Failure> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let id = id.ok_or_else(|| Failure::failed(format!("{} has ended already", self.name)))?;
        kill_process(id, signal).map_err(|error| Failure::failed(format!("{}: {error}", self.name)))
    }

    /// Waits until it has ended, and says how and after how long.
    pub async fn ended(mut self) -> Result<(ExitStatus, Duration), Failure> {
        let clock = SystemClock::default();
        let before = clock.monotonic();
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .map_err(|_| Failure::failed(format!("{} does not end", self.name)))?
            .map_err(|error| Failure::failed(format!("{}: {error}", self.name)))?;
        Ok((status, clock.monotonic().saturating_sub(before)))
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(mut self) {
        // One that has ended already is what is wanted.
        let _ended = self.child.kill().await;
    }
}

/// The ports of these addresses, for the command line.
fn ports(addresses: &Addresses) -> impl Iterator<Item = &str> {
    let all = [&addresses.data, &addresses.health, &addresses.metrics];
    all.into_iter()
        .filter_map(|address| address.rsplit_once(':').map(|(_, port)| port))
}

/// What it logged last.
fn last_words(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = bytes.len().saturating_sub(TOLD_BYTES);
    let last = String::from_utf8_lossy(bytes.get(from..).unwrap_or_default());
    match last.trim() {
        "" => String::new(),
        last => format!("; it logged last:\n{last}"),
    }
}

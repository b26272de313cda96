//! A real binary of this workspace as a child process: started, awaited, signalled, killed, started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::{Ports, http, wait_for};

/// How long a process may take to become ready, or to end after a signal, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of each output stream is kept; of more, the beginning.
const MAX_OUTPUT: usize = 4 * 1024 * 1024;

/// What to start, and how. Starting it again starts it with the same ports.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    ports: Ports,
}

impl Program {
    /// The binary `name` of this workspace, from the target directory that the running test lies in, with ports of
    /// its own in `MUSTER__SERVER__*_PORT`.
    ///
    /// # Panics
    /// When it has not been built: cargo builds no binaries of other packages for a test.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::at(Self::path_of(name))
    }

    /// Where the binary `name` of this workspace is.
    ///
    /// # Panics
    /// When it has not been built.
    #[must_use]
    pub fn path_of(name: &str) -> PathBuf {
        let path = target_directory().join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        assert!(
            path.is_file(),
            "{} does not exist; build it first: cargo build -p {name}",
            path.display()
        );
        path
    }

    /// Any program, told its ports in the same way.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let ports = Ports::reserve();
        let environment = [
            ("DATA", ports.data),
            ("HEALTH", ports.health),
            ("METRICS", ports.metrics),
        ]
        .map(|(name, port)| (format!("MUSTER__SERVER__{name}_PORT"), port.to_string()));
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: environment.into(),
            ports,
        }
    }

    /// Adds a command-line argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable. Variables `MUSTER…` of the test's own environment are not passed on.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The ports that it is told.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Where its data port is.
    #[must_use]
    pub fn data_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.data).into()
    }

    /// Its data port as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.data_address())
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self) -> Process {
        let mut command = Command::new(&self.path);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MUSTER") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", self.path.display()));
        let mut readers = JoinSet::new();
        let stdout = capture(child.stdout.take(), &mut readers);
        let stderr = capture(child.stderr.take(), &mut readers);
        Process {
            name: self.path.display().to_string(),
            health: (Ipv4Addr::LOCALHOST, self.ports.health).into(),
            child,
            stdout,
            stderr,
            readers,
        }
    }

    /// Starts it and waits until `/ready` on its health port says yes.
    pub async fn start_ready(&self) -> Process {
        let mut process = self.start();
        process.ready().await;
        process
    }
}

/// A started process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    health: SocketAddr,
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: JoinSet<()>,
}

impl Process {
    /// Waits until `/ready` answers 200.
    ///
    /// # Panics
    /// When the process ends before, or is not ready in time; with its stderr.
    pub async fn ready(&mut self) {
        let health = self.health;
        let mut exited = None;
        let child = &mut self.child;
        wait_for("readiness", PATIENCE, async || {
            exited = child.try_wait().ok().flatten();
            exited.is_some()
                || http::get(health, "/ready")
                    .await
                    .is_ok_and(|answer| answer.status == 200)
        })
        .await;
        if let Some(status) = exited {
            self.drain_output().await;
            panic!(
                "{} ended before it was ready: {status}\n{}",
                self.name,
                self.stderr()
            );
        }
    }

    /// Kills the process at once, as a power cut would (`kill -9`), and waits until it is gone.
    pub async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            panic!("kill {}: {error}", self.name);
        }
    }

    /// Asks the process to end (SIGTERM) and waits for its exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        self.exit().await
    }

    /// Sends the named signal (`TERM`, `INT`, `STOP`, `CONT`). The shell's own `kill` does it: a direct call
    /// would need unsafe code, and a separate `kill` program may be missing.
    pub async fn signal(&self, signal: &str) {
        let Some(id) = self.child.id() else {
            panic!("{} has ended already", self.name);
        };
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{signal} {id}"))
            .status()
            .await;
        assert!(
            sent.as_ref().is_ok_and(ExitStatus::success),
            "kill -{signal} {}: {sent:?}",
            self.name
        );
    }

    /// Waits for the end of the process and of its output.
    ///
    /// # Panics
    /// When it does not end in time; with its stderr.
    pub async fn exit(&mut self) -> ExitStatus {
        let Ok(status) = tokio::time::timeout(PATIENCE, self.child.wait()).await else {
            panic!(
                "{} does not end within {PATIENCE:?}\n{}",
                self.name,
                self.stderr()
            );
        };
        self.drain_output().await;
        status.unwrap_or_else(|error| panic!("wait for {}: {error}", self.name))
    }

    /// Whether it has ended already.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The operating system's id, until the end has been seen.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it has written to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    async fn drain_output(&mut self) {
        // A grandchild may keep the pipe open; what came until then is enough.
        let all = async { while self.readers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
    }
}

fn text(output: &Mutex<String>) -> String {
    output.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn capture(
    stream: Option<impl AsyncRead + Unpin + Send + 'static>,
    readers: &mut JoinSet<()>,
) -> Arc<Mutex<String>> {
    let output = Arc::new(Mutex::new(String::new()));
    let target = Arc::clone(&output);
    readers.spawn(async move {
        let Some(stream) = stream else { return };
        let mut lines = BufReader::new(stream).split(b'\n');
        // Reading goes on when enough is kept: a full pipe would stop the process.
        while let Ok(Some(line)) = lines.next_segment().await {
            let mut kept = target.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() + line.len() < MAX_OUTPUT {
                kept.push_str(&String::from_utf8_lossy(&line));
                kept.push('\n');
            }
        }
    });
    output
}

/// `target/debug` for a test that lies in `target/debug/deps`.
fn target_directory() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("path of the running test: {error}"));
    let directory = test.parent().unwrap_or(Path::new("."));
    if directory.ends_with("deps") {
        directory.parent().unwrap_or(directory).to_owned()
    } else {
        directory.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::at("/bin/sh").arg("-c").arg(script)
    }

    #[tokio::test]
    async fn a_process_is_told_its_ports_and_ends_by_signal() {
        let program = shell("echo port $MUSTER__SERVER__DATA_PORT >&2; exec sleep 600");
        let mut process = program.start();
        let expected = format!("port {}\n", program.ports().data);
        wait_for("its words", PATIENCE, async || process.stderr() == expected).await;
        let status = process.terminate().await;
        assert!(!status.success(), "{status}");
        program.start().kill().await;
    }

    #[tokio::test]
    #[should_panic(expected = "no such luck")]
    async fn an_early_end_is_told_with_its_stderr() {
        shell("echo no such luck >&2; exit 2").start_ready().await;
    }

    #[test]
    #[should_panic(expected = "cargo build -p not-there")]
    fn a_binary_that_is_not_built_is_named_with_the_remedy() {
        let _ = Program::named("not-there");
    }
}

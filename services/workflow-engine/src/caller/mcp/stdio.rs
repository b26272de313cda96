//! MCP with a program that the engine starts: a message a line, over its standard input and output.
//!
//! Only programs that the operator has named are started, without a shell, in a process group of their own and with
//! nothing of the engine's environment but the search path and the home directory. The group is killed when the
//! conversation is dropped, however that comes about.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

use super::conversation::Link;
use crate::caller::{Failure, Kind};

/// What of the engine's environment a program sees.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// How long a program may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// How long the complaints of a program that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Most of what a program complains about that is kept.
const COMPLAINT: usize = 2_000;

/// A conversation with a program.
pub(super) struct Program {
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    group: Group,
    complaints: Arc<Mutex<Vec<u8>>>,
    /// Keeps the complaints.
    reader: JoinSet<()>,
    most_bytes: usize,
    target: String,
}

/// A process group, killed when it is dropped.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // Fails when all of it has ended.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Program {
    /// Starts the program, if it is among those `allowed`.
    pub(super) fn start(
        command: &str,
        arguments: &[String],
        environment: &BTreeMap<String, String>,
        allowed: &[String],
        most_bytes: usize,
    ) -> Result<Self, Failure> {
        if !allowed.iter().any(|allowed| allowed == command) {
            let detail = format!(
                "'{command}' may not be started here; the operator can allow it in 'engine.mcp_stdio_commands'"
            );
            return Err(Failure::new(Kind::Authorization, 403, detail));
        }
        let failed = |error: std::io::Error| {
            Failure::new(
                Kind::Communication,
                503,
                format!("'{command}' cannot be started: {error}"),
            )
        };
        let mut starting = Command::new(Path::new(command));
        starting
            .args(arguments)
            .env_clear()
            .envs(
                INHERITED
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = starting.spawn().map_err(failed)?;
        let (Some(input), Some(output), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed(std::io::Error::other(
                "it has no standard input or output",
            )));
        };
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let mut reader = JoinSet::new();
        reader.spawn(listen(stderr, Arc::clone(&complaints)));
        Ok(Self {
            input: Some(input),
            output: BufReader::new(output),
            group: Group { child, id },
            complaints,
            reader,
            most_bytes,
            target: command.to_owned(),
        })
    }

    /// Lets the program end by itself: its input is closed. What is left of it is killed.
    pub(super) async fn end(mut self) {
        drop(self.input.take());
        if tokio::time::timeout(GRACE, self.group.child.wait())
            .await
            .is_err()
        {
            tracing::debug!(program = self.target, "a program of MCP did not end by itself");
        }
    }

    async fn send(&mut self, message: &Value) -> Result<(), Failure> {
        let mut line = message.to_string();
        line.push('\n');
        let sent = match &mut self.input {
            Some(input) => match input.write_all(line.as_bytes()).await {
                Ok(()) => input.flush().await,
                Err(error) => Err(error),
            },
            None => Ok(()),
        };
        match sent {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                Err(self.over("has ended and does not hear what it is asked").await)
            }
            Err(error) => Err(self.broken(&error.to_string())),
        }
    }

    /// The program has ended. What it complained about is on its way, unless something that it has left behind holds the pipe.
    async fn over(&mut self, what: &str) -> Failure {
        let _ = tokio::time::timeout(LAST_WORDS, self.reader.join_next()).await;
        self.broken(what)
    }

    fn broken(&self, what: &str) -> Failure {
        let said = String::from_utf8_lossy(&self.complaints.lock()).trim().to_owned();
        let said = if said.is_empty() {
            said
        } else {
            format!("; it said: {said}")
        };
        Failure::new(
            Kind::Communication,
            502,
            format!("'{}' {what}{said}", self.target),
        )
    }
}

/// Keeps the beginning of what the program complains about and drops the rest, so that it is never held up.
async fn listen(mut stderr: ChildStderr, complaints: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0; 1024];
    while let Ok(count) = stderr.read(&mut piece).await {
        if count == 0 {
            break;
        }
        let mut kept = complaints.lock();
        let room = COMPLAINT.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&piece[..room]);
    }
}

#[async_trait]
impl Link for Program {
    async fn tell(&mut self, message: &Value) -> Result<(), Failure> {
        self.send(message).await
    }

    async fn ask(&mut self, message: &Value) -> Result<(), Failure> {
        self.send(message).await
    }

    async fn hear(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            let mut line = Vec::new();
            let most = u64::try_from(self.most_bytes).unwrap_or(u64::MAX);
            let read = (&mut self.output).take(most).read_until(b'\n', &mut line).await;
            match read {
                Err(error) => return Err(self.broken(&error.to_string())),
                Ok(0) => return Err(self.over("ended without an answer").await),
                Ok(_) if !line.ends_with(b"\n") && line.len() >= self.most_bytes => {
                    let detail = format!(
                        "the answer of '{}' is over the limit of {} bytes; ask for less, or raise \
                         'engine.max_payload_bytes'",
                        self.target, self.most_bytes
                    );
                    return Err(Failure::new(Kind::Runtime, 413, detail));
                }
                Ok(_) => {}
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            return match serde_json::from_slice(&line) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(self.broken("wrote what is no JSON to its standard output")),
            };
        }
    }

    fn agree(&mut self, _version: &str) {}
}

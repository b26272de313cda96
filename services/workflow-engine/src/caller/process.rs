//! Processes of the operating system: shell commands, scripts, containers.
//!
//! Each kind is off unless the operator allows it ([`Config`]). A process sees nothing of the engine's environment, works
//! in a fresh directory, and is killed with everything that it has started when its time is up, when nobody waits for
//! it any more, or when the engine stops; what it writes is bounded, and so is how many there are. Like every step it
//! is executed at least once: after a crash of the engine it is executed again, with the same `MUSTER_MESSAGE_ID`.
//!
//! A container is not a child of the client that starts it. It carries the message's id as a label, is removed by that
//! label where a process would be killed, and before it is started again.

mod command;
mod config;
mod group;
mod places;

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use muster_runtime::clock::SharedClock;
use muster_runtime::{Shutdown, Tasks};
use muster_workflow_dsl::document::Return;
use muster_workflow_dsl::request::{Process, Program};
use muster_workflow_dsl::run::BlockerKind;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use self::command::{MESSAGE_LABEL, REMOVE_LABEL, prepare};
use self::group::{Ended, Group};
use self::places::Places;
use super::session::Session;
use super::{Call, Failure, Kind, Note, Progress};
use crate::secrets::Secrets;
pub use config::Config;

/// How much of what a failed process wrote to standard error is told.
const TOLD: usize = 1_000;

/// How long the client of containers may take to remove one.
const REMOVAL: Duration = Duration::from_secs(30);

/// How often containers are looked for that are to be removed.
const EVERY: Duration = Duration::from_secs(30);

/// Exit code with which Docker and Podman say that they could not run the container at all.
const CLIENT_FAILED: i32 = 125;

/// Carries processes out.
#[derive(Clone)]
pub struct Processes {
    config: Arc<Config>,
    secrets: Arc<Secrets>,
    clock: SharedClock,
    places: Arc<Places>,
    /// Processes that nobody waits for.
    tasks: Tasks,
}

impl Processes {
    /// Nothing runs yet. Where containers are allowed, those are removed from now on whose time has come.
    #[must_use]
    pub fn new(
        config: Config,
        secrets: Arc<Secrets>,
        clock: SharedClock,
        tasks: Tasks,
        shutdown: Shutdown,
    ) -> Self {
        let processes = Self {
            places: Arc::new(Places::new(config.max_processes)),
            config: Arc::new(config),
            secrets,
            clock,
            tasks,
        };
        if processes.config.container {
            let sweeper = processes.clone();
            processes.tasks.spawn("remove containers", async move {
                sweeper.keep_sweeping(shutdown).await
            });
        }
        processes
    }

    pub(super) async fn call(
        &self,
        process: &Process,
        call: &Call,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        self.allow(process)?;
        let place = self.place(progress).await?;
        if matches!(process.program, Program::Container { .. }) {
            // What an engine that crashed has left.
            self.remove(call.message_id).await?;
        }
        let session = Session::open(&self.secrets, &call.grant).await?;
        let revealed = revealed(process, &session)?;
        let prepared = prepare(&self.config, &revealed, call, self.clock.now())?;
        let (mut command, directory) = (prepared.command, prepared.directory);
        let child = command.spawn().map_err(|error| {
            let program = command.as_std().get_program().display();
            Failure::new(
                Kind::Runtime,
                500,
                format!("'{program}' cannot be executed: {error}"),
            )
        })?;
        let group = Group::new(child);
        let (owner, asked, message) = (self.clone(), process.clone(), call.message_id);
        let timeout = call.timeout;
        let work = async move {
            let finished = group.finish(revealed.stdin, owner.config.max_output_bytes);
            let outcome = tokio::time::timeout(timeout, finished).await;
            drop((directory, place));
            if !matches!(outcome, Ok(Ok(_))) && matches!(asked.program, Program::Container { .. }) {
                owner.remove(message).await?;
            }
            let ended = outcome.map_err(|_| late(&asked, timeout))?;
            let answer = answer(&asked, ended.map_err(|failure| of(&asked, failure))?);
            let redaction = session.redaction();
            match answer {
                Ok(value) => Ok(redaction.value(value)),
                Err(failure) => Err(redaction.failure(failure)),
            }
        };
        if process.awaited {
            return work.await;
        }
        self.tasks.spawn("a process that nobody waits for", async move {
            if let Err(failure) = work.await {
                tracing::warn!(message = %message, %failure, "a process that nobody waits for has failed");
            }
        });
        Ok(Value::Null)
    }

    /// Nobody waits for it any more. A process has ended with the call; a container has not.
    pub(super) async fn stop(&self, process: &Process, call: &Call) -> Result<(), Failure> {
        match process.program {
            Program::Container { .. } if self.config.container => self.remove(call.message_id).await,
            _ => Ok(()),
        }
    }

    fn allow(&self, process: &Process) -> Result<(), Failure> {
        let (allowed, key) = match process.program {
            Program::Shell { .. } => (self.config.shell, "shell"),
            Program::Script { .. } => (self.config.script, "script"),
            Program::Container { .. } => (self.config.container, "container"),
        };
        if allowed {
            return Ok(());
        }
        let detail = format!(
            "processes of the kind '{key}' are off; the operator allows them with 'engine.run.{key}'"
        );
        Err(Failure::new(Kind::Authorization, 403, detail))
    }

    /// A place among the processes that may run at once.
    async fn place(&self, progress: &Progress) -> Result<OwnedSemaphorePermit, Failure> {
        if let Some(place) = self.places.take() {
            return Ok(place);
        }
        let turn = self.places.line_up();
        let (most, ahead) = (self.config.max_processes, turn.ahead());
        progress.set_changing_obstacle(move || in_line(most, ahead()));
        let place = turn.come().await;
        progress.set_note(None);
        place.ok_or_else(|| Failure::new(Kind::Runtime, 503, "the engine takes no more processes"))
    }

    /// Removes the containers of a message.
    async fn remove(&self, message: Uuid) -> Result<(), Failure> {
        let listed = self
            .client(&[
                "ps",
                "--all",
                "--quiet",
                &format!("--filter=label={MESSAGE_LABEL}={message}"),
            ])
            .await?;
        self.remove_all(listed.split_whitespace()).await
    }

    async fn remove_all<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
        let mut arguments = vec!["rm", "--force"];
        arguments.extend(ids);
        if arguments.len() > 2 {
            self.client(&arguments).await?;
        }
        Ok(())
    }

    /// What the client of containers answers.
    async fn client(&self, arguments: &[&str]) -> Result<String, Failure> {
        let program = &self.config.container_program;
        let failed = |what: String| Failure::new(Kind::Communication, 503, format!("'{program}' {what}"));
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(REMOVAL, command.output()).await;
        let output = output
            .map_err(|_| failed(format!("did not answer within {} s", REMOVAL.as_secs())))?
            .map_err(|error| failed(format!("cannot be executed: {error}")))?;
        if !output.status.success() {
            return Err(failed(format!("failed: {}", end_of(&output.stderr))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn keep_sweeping(&self, shutdown: Shutdown) {
        while !shutdown.is_requested() {
            if let Err(failure) = self.sweep().await {
                tracing::warn!(%failure, "cannot look for containers that are to be removed");
            }
            tokio::select! {
                () = shutdown.requested() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Removes the containers that have ended and whose time has come.
    async fn sweep(&self) -> Result<(), Failure> {
        let format = format!("--format={{{{.ID}}}} {{{{.Label \"{REMOVE_LABEL}\"}}}}");
        let filter = format!("--filter=label={REMOVE_LABEL}");
        let listed = self
            .client(&["ps", "--all", &filter, "--filter=status=exited", &format])
            .await?;
        let now = self.clock.now().as_second();
        let due = listed.lines().filter_map(|line| {
            let (id, due) = line.split_once(' ')?;
            (due.trim().parse::<i64>().ok()? <= now).then_some(id)
        });
        self.remove_all(due).await
    }
}

/// What is said of a process that waits for its place.
fn in_line(most: usize, ahead: usize) -> Note {
    let details = [
        ("limit", "engine.run.max_processes".into()),
        ("used", most.into()),
        ("most", most.into()),
        ("ahead", ahead.into()),
    ];
    Note {
        kind: Some(BlockerKind::Queued),
        details: details
            .map(|(key, value): (&str, Value)| (key.to_owned(), value))
            .into_iter()
            .collect(),
        ..Note::from(format!(
            "{most} processes run, and no more may ('engine.run.max_processes'), {ahead} are ahead"
        ))
    }
}

/// The process with secrets in the place of their markers.
fn revealed(process: &Process, session: &Session) -> Result<Process, Failure> {
    let value = serde_json::to_value(process).map(|value| session.value(&value));
    let revealed = value.and_then(serde_json::from_value);
    // The error would repeat the secret.
    revealed.map_err(|_| {
        let detail = "a secret stands where text is needed, and is none; name one of its fields, such as $secrets.NAME.token";
        Failure::new(Kind::Validation, 400, detail)
    })
}

/// What the task gets of a process that has ended.
fn answer(process: &Process, ended: Ended) -> Result<Value, Failure> {
    let Ended {
        status,
        stdout,
        stderr,
    } = ended;
    let code = code(status);
    let is_container = matches!(process.program, Program::Container { .. });
    if is_container && code == CLIENT_FAILED {
        let detail = format!("the {} could not be run: {}", process.target(), end_of(&stderr));
        return Err(Failure::new(Kind::Communication, 503, detail));
    }
    if code != 0 && !process.returns.sees_code() {
        let how = match status.signal() {
            Some(signal) => format!("was ended by signal {signal}"),
            None => format!("exited with code {code}"),
        };
        let said = end_of(&stderr);
        let said = if said.is_empty() {
            said
        } else {
            format!(": {said}")
        };
        return Err(Failure::new(
            Kind::Runtime,
            500,
            format!("the {} {how}{said}", process.target()),
        ));
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(match process.returns {
        Return::Stdout => text(stdout).into(),
        Return::Stderr => text(stderr).into(),
        Return::Code => code.into(),
        Return::All => json!({"code": code, "stdout": text(stdout), "stderr": text(stderr)}),
        Return::None => Value::Null,
    })
}

/// The exit code, as shells have it.
fn code(status: ExitStatus) -> i32 {
    const SIGNALLED: i32 = 128;
    status
        .code()
        .or_else(|| status.signal().map(|signal| SIGNALLED + signal))
        .unwrap_or(-1)
}

fn late(process: &Process, timeout: Duration) -> Failure {
    let detail = format!(
        "the {} did not end within {} s",
        process.target(),
        timeout.as_secs()
    );
    Failure::new(Kind::Timeout, 408, detail)
}

fn of(process: &Process, failure: Failure) -> Failure {
    let detail = format!("the {}: {}", process.target(), failure.detail);
    Failure { detail, ..failure }
}

/// The end of a text, where programs say what went wrong.
fn end_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    text.get(text.ceil_char_boundary(text.len().saturating_sub(TOLD))..)
        .unwrap_or_default()
        .to_owned()
}

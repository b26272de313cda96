//! From a request to the command line that carries it out.
//!
//! The process gets an environment of its own: of the engine's only `PATH`, so that nothing of the operator's leaks into
//! a document's program. Its working directory and home is a fresh directory that goes when it has ended.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path};
use std::process::Stdio;

use muster_workflow_dsl::document::{Arguments, Cleanup, Language, Pull};
use muster_workflow_dsl::request::{Process, Program};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

use super::Config;
use crate::caller::{Call, Failure, Kind};

/// Label of a container: the message that it is for.
pub(super) const MESSAGE_LABEL: &str = "muster.message";

/// Label of a container that is to be removed after a while: when, in seconds since 1970.
pub(super) const REMOVE_LABEL: &str = "muster.remove-at";

/// A process that is about to begin.
pub(super) struct Prepared {
    pub(super) command: Command,
    /// Its working directory.
    pub(super) directory: TempDir,
}

/// The command line for a process.
pub(super) fn prepare(
    config: &Config,
    process: &Process,
    call: &Call,
    now: jiff::Timestamp,
) -> Result<Prepared, Failure> {
    let directory = tempfile::Builder::new().prefix("muster-run-").tempdir();
    let directory =
        directory.map_err(|error| broken(format!("no working directory can be made: {error}")))?;
    let mut command = match &process.program {
        Program::Shell { command } => {
            let mut shell = Command::new(&config.shell_program);
            shell.arg("-c").arg(command).arg(&config.shell_program);
            shell.args(words(process.arguments.as_ref()));
            shell
        }
        Program::Script { language, code } => script(config, *language, code, process, directory.path())?,
        Program::Container { .. } => container(config, process, call, now, directory.path())?,
    };
    command
        .current_dir(directory.path())
        .stdin(if process.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    // The client of containers is the operator's and finds its settings in the engine's environment; what it runs does not.
    if !matches!(process.program, Program::Container { .. }) {
        command
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")),
            )
            .env("LANG", "C.UTF-8")
            .env("HOME", directory.path())
            .env("TMPDIR", directory.path())
            .envs(environment(process, call)?);
    }
    Ok(Prepared { command, directory })
}

/// What the document's program finds in its environment.
fn environment(process: &Process, call: &Call) -> Result<BTreeMap<String, String>, Failure> {
    let mut environment = process.environment.clone();
    if let Some(name) = environment
        .keys()
        .find(|name| name.is_empty() || name.contains(['=', '\0']))
    {
        return Err(invalid(format!(
            "'{name}' cannot be the name of an environment variable"
        )));
    }
    if let Some((name, _)) = environment.iter().find(|(_, value)| value.contains('\0')) {
        return Err(invalid(format!(
            "the value of the environment variable '{name}' contains NUL"
        )));
    }
    environment.insert("MUSTER_MESSAGE_ID".to_owned(), call.message_id.to_string());
    environment.insert("MUSTER_STEP_KEY".to_owned(), call.step_key.to_string());
    Ok(environment)
}

fn script(
    config: &Config,
    language: Language,
    code: &str,
    process: &Process,
    directory: &Path,
) -> Result<Command, Failure> {
    let (program, file) = match language {
        Language::Js => (&config.javascript_program, "script.mjs"),
        Language::Python => (&config.python_program, "script.py"),
    };
    let named = match &process.arguments {
        Some(Arguments::Named(values)) => definitions(language, values)?,
        Some(Arguments::Listed(_)) | None => String::new(),
    };
    let file = directory.join(file);
    std::fs::write(&file, format!("{named}{code}"))
        .map_err(|error| broken(format!("the script cannot be written: {error}")))?;
    let mut command = Command::new(program);
    command.arg(&file);
    if let Some(Arguments::Listed(arguments)) = &process.arguments {
        command.args(arguments);
    }
    Ok(command)
}

/// A line that defines a variable for each of a script's named arguments.
fn definitions(language: Language, values: &BTreeMap<String, Value>) -> Result<String, Failure> {
    let mut line = String::new();
    for (name, value) in values {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let fits = name.bytes().all(letter) && !name.starts_with(|first: char| first.is_ascii_digit());
        if name.is_empty() || !fits {
            return Err(invalid(format!(
                "the argument '{name}' cannot be the name of a variable of the script"
            )));
        }
        // JSON is a literal of JavaScript, and JSON in a JSON text is one of Python.
        match language {
            Language::Js => line.push_str(&format!("const {name} = {value}; ")),
            Language::Python => {
                let text = Value::String(value.to_string());
                line.push_str(&format!("{name} = __import__('json').loads({text}); "));
            }
        }
    }
    if !line.is_empty() {
        line.push('\n');
    }
    Ok(line)
}

fn container(
    config: &Config,
    process: &Process,
    call: &Call,
    now: jiff::Timestamp,
    directory: &Path,
) -> Result<Command, Failure> {
    let Program::Container {
        image,
        name,
        command: text,
        ports,
        volumes,
        pull,
        cleanup,
    } = &process.program
    else {
        return Err(broken("it is no container".to_owned()));
    };
    if image.is_empty() || image.starts_with('-') {
        return Err(invalid(format!("'{image}' is no image")));
    }
    let mut command = Command::new(&config.container_program);
    command.arg("run").args(&config.container_arguments);
    command.arg(format!("--label={MESSAGE_LABEL}={}", call.message_id));
    let own = container_name(call.message_id);
    command.arg(format!("--name={}", name.as_ref().unwrap_or(&own)));
    let pull = match pull {
        Pull::IfNotPresent => "missing",
        Pull::Always => "always",
        Pull::Never => "never",
    };
    command.arg(format!("--pull={pull}"));
    match cleanup {
        Cleanup::Always => {
            command.arg("--rm");
        }
        Cleanup::Never => {}
        Cleanup::Eventually(after) => {
            let due = now
                .as_second()
                .saturating_add(i64::try_from(after.as_secs()).unwrap_or(i64::MAX));
            command.arg(format!("--label={REMOVE_LABEL}={due}"));
        }
    }
    for (host, inside) in ports {
        let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
        if !is_port(host) || !is_port(inside) {
            return Err(invalid(format!(
                "'{host}: {inside}' is no pair of ports from 1 to 65535"
            )));
        }
        command.arg(format!("--publish=127.0.0.1:{host}:{inside}"));
    }
    for (host, inside) in volumes {
        admit(config, host)?;
        command.arg(format!("--volume={host}:{inside}"));
    }
    command.arg(container_environment(&environment(process, call)?, directory)?);
    if process.stdin.is_some() {
        command.arg("--interactive");
    }
    if text.is_some() {
        command.arg("--entrypoint=sh");
    }
    command.arg(image);
    if let Some(text) = text {
        command.arg("-c").arg(text).arg("sh");
    }
    command.args(words(process.arguments.as_ref()));
    Ok(command)
}

/// The option that gives a container its environment: a file, because everyone on the machine sees the command line, and a value
/// may be a secret. The format of the file has no way to write a value of several lines.
fn container_environment(
    environment: &BTreeMap<String, String>,
    directory: &Path,
) -> Result<String, Failure> {
    let mut text = String::new();
    for (name, value) in environment {
        let fits = |byte: u8| byte.is_ascii_graphic();
        if !name.bytes().all(fits) || name.starts_with('#') {
            return Err(invalid(format!(
                "'{name}' cannot be the name of an environment variable of a container"
            )));
        }
        if value.contains(['\n', '\r']) {
            return Err(invalid(format!(
                "the environment variable '{name}' of a container has several lines, which its client does not take; encode the \
                 value, for example as Base64, or pass it as 'stdin'"
            )));
        }
        text.push_str(&format!("{name}={value}\n"));
    }
    let file = directory.join("environment");
    std::fs::write(&file, text)
        .map_err(|error| broken(format!("the environment cannot be written: {error}")))?;
    Ok(format!("--env-file={}", file.display()))
}

/// Whether this path of this machine may be given to a container.
fn admit(config: &Config, host: &str) -> Result<(), Failure> {
    let path = Path::new(host);
    let plain = path.is_absolute()
        && !host.contains(':')
        && path
            .components()
            .all(|part| !matches!(part, Component::ParentDir));
    if plain
        && config
            .container_volumes
            .iter()
            .any(|allowed| path.starts_with(allowed))
    {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Authorization,
        403,
        format!("the volume '{host}' is not allowed; nothing in 'engine.run.container_volumes' holds it"),
    ))
}

/// Name of the container for a message.
fn container_name(message: Uuid) -> String {
    format!("muster-{message}")
}

/// Arguments as words of a command line.
fn words(arguments: Option<&Arguments>) -> Vec<String> {
    match arguments {
        None => Vec::new(),
        Some(Arguments::Listed(words)) => words.clone(),
        Some(Arguments::Named(values)) => values
            .iter()
            .map(|(name, value)| match value {
                Value::Null => name.clone(),
                Value::String(text) => format!("{name}={text}"),
                other => format!("{name}={other}"),
            })
            .collect(),
    }
}

fn broken(detail: String) -> Failure {
    Failure::new(Kind::Runtime, 500, detail)
}

fn invalid(detail: String) -> Failure {
    Failure::new(Kind::Validation, 400, detail)
}

//! `muster send`: one message to an agent, by id or by skill, and its answer.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_api::a2a::{
    Artifact, Message, Part, Role, SendMessageRequest, SendMessageResponse, StreamResponse, Task, TaskState,
    part, send_message_response, stream_response,
};
use muster_api::extension::SKILL_TARGET_PREFIX;
use serde_json::Value;

use crate::cli::SendArguments;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;
use crate::read;

/// Largest file that is attached; a whole message may have 4 MiB by default.
const MAX_FILE_BYTES: u64 = 3 << 20;

/// Largest JSON that is read from a file.
const MAX_JSON_BYTES: u64 = 16 << 20;

/// Runs `muster send`.
pub async fn run(arguments: SendArguments, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut request = tonic::Request::new(message(&arguments)?);
    request.set_timeout(Duration::from_secs(arguments.timeout));
    let save = arguments.save.as_deref();
    if arguments.stream {
        streamed(request, save, endpoints, output).await
    } else {
        unary(request, save, endpoints, output).await
    }
}

fn message(arguments: &SendArguments) -> Result<SendMessageRequest, Failure> {
    let tenant = match (&arguments.agent, &arguments.skill) {
        (Some(agent), _) => agent.clone(),
        (None, Some(skill)) => format!("{SKILL_TARGET_PREFIX}{skill}"),
        (None, None) if arguments.task.is_some() => String::new(),
        (None, None) => return Err(Failure::usage("name a target with --agent ID or --skill SKILL")),
    };
    let mut parts = Vec::new();
    if let Some(text) = &arguments.text {
        parts.push(plain(part::Content::Text(text.clone())));
    }
    if let Some(data) = &arguments.data {
        let value = json_argument("--data", data)?;
        parts.push(plain(part::Content::Data(
            a2a_pb::pbconv::json_value_to_proto_value(&value),
        )));
    }
    for path in &arguments.file {
        parts.push(file(path)?);
    }
    Ok(SendMessageRequest {
        tenant,
        message: Some(Message {
            message_id: uuid::Uuid::now_v7().to_string(),
            task_id: arguments.task.clone().unwrap_or_default(),
            role: Role::User.into(),
            parts,
            ..Message::default()
        }),
        ..SendMessageRequest::default()
    })
}

fn plain(content: part::Content) -> Part {
    Part {
        content: Some(content),
        ..Part::default()
    }
}

fn file(path: &Path) -> Result<Part, Failure> {
    let bytes = read::bounded(&format!("--file {}", path.display()), path, MAX_FILE_BYTES)?;
    let filename = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let media_type = match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => "text/csv",
        Some("json") => "application/json",
        Some("jsonl" | "ndjson") => "application/x-ndjson",
        Some("log" | "txt" | "md") => "text/plain",
        _ => "application/octet-stream",
    };
    Ok(Part {
        filename,
        media_type: media_type.to_owned(),
        ..plain(part::Content::Raw(bytes))
    })
}

/// A JSON argument: the value itself, or `@FILE`.
pub fn json_argument(flag: &str, text: &str) -> Result<Value, Failure> {
    let read;
    let (text, place) = match text.strip_prefix('@') {
        Some(path) => {
            read = read::bounded_text(&format!("{flag} @{path}"), Path::new(path), MAX_JSON_BYTES)?;
            (read.as_str(), format!("{flag} @{path}"))
        }
        None => (text, flag.to_owned()),
    };
    serde_json::from_str(text).map_err(|error| Failure::usage(format!("{place}: not JSON: {error}")))
}

async fn unary(
    request: tonic::Request<SendMessageRequest>,
    save: Option<&Path>,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let answer = endpoints
        .agents()?
        .send_message(request)
        .await
        .map_err(|status| endpoints.failure(Service::Router, &status))?
        .into_inner();
    if output.is_json() {
        output.json(&answer_json(&answer)?);
    }
    match answer.payload {
        Some(send_message_response::Payload::Task(task)) => finish(&task, save, output),
        Some(send_message_response::Payload::Message(message)) => {
            if !output.is_json() {
                output.line(&text_of(&message.parts));
            }
            Ok(())
        }
        None => Err(Failure::failed(
            "the agent answered with neither a task nor a message",
        )),
    }
}

fn answer_json(answer: &SendMessageResponse) -> Result<Value, Failure> {
    let native = a2a_pb::pbconv::from_proto_send_message_response(answer)
        .ok_or_else(|| Failure::failed("the agent answered with neither a task nor a message"))?;
    protojson(a2a_pb::protojson_conv::to_value(&native))
}

/// ProtoJSON with whole numbers as integers again.
pub fn protojson<E: std::fmt::Display>(value: Result<Value, E>) -> Result<Value, Failure> {
    let mut value = value.map_err(|error| Failure::failed(format!("the answer is not A2A: {error}")))?;
    muster_api::json::restore_integers(&mut value);
    Ok(value)
}

async fn streamed(
    request: tonic::Request<SendMessageRequest>,
    save: Option<&Path>,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let stream = endpoints
        .agents()?
        .send_streaming_message(request)
        .await
        .map_err(|status| endpoints.failure(Service::Router, &status))?
        .into_inner();
    follow(stream, save, endpoints, output).await
}

/// Prints the updates of a stream as they come; the outcome is the task's.
pub async fn follow(
    mut stream: tonic::Streaming<StreamResponse>,
    save: Option<&Path>,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let mut last = TaskState::Unspecified;
    let mut reason = String::new();
    while let Some(update) = stream
        .message()
        .await
        .map_err(|status| endpoints.failure(Service::Router, &status))?
    {
        if output.is_json()
            && let Some(native) = a2a_pb::pbconv::from_proto_stream_response(&update)
        {
            output.json_line(&protojson(a2a_pb::protojson_conv::to_value(&native))?);
        }
        match update.payload {
            Some(stream_response::Payload::Task(task)) => {
                last = state(&task);
                reason = status_text(&task);
                if !output.is_json() {
                    output.line(&format!("task {}: {}", task.id, state_name(last)));
                }
            }
            Some(stream_response::Payload::StatusUpdate(event)) => {
                let Some(status) = event.status else { continue };
                last = status.state();
                reason = status
                    .message
                    .map(|message| text_of(&message.parts))
                    .unwrap_or_default();
                if !output.is_json() {
                    let reason = if reason.is_empty() {
                        String::new()
                    } else {
                        format!(": {reason}")
                    };
                    output.line(&format!("{}{reason}", state_name(last)));
                }
            }
            Some(stream_response::Payload::ArtifactUpdate(event)) => {
                if let Some(artifact) = event.artifact {
                    artifact_for_people(&artifact, save, output)?;
                }
            }
            Some(stream_response::Payload::Message(message)) => {
                last = TaskState::Completed;
                if !output.is_json() {
                    output.line(&text_of(&message.parts));
                }
            }
            None => {}
        }
    }
    outcome(last, &reason)
}

fn state(task: &Task) -> TaskState {
    task.status
        .as_ref()
        .map_or(TaskState::Unspecified, muster_api::a2a::TaskStatus::state)
}

fn status_text(task: &Task) -> String {
    task.status
        .as_ref()
        .and_then(|status| status.message.as_ref())
        .map(|m| text_of(&m.parts))
        .unwrap_or_default()
}

/// Prints a task for people and fails when it failed.
pub fn finish(task: &Task, save: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let state = state(task);
    let text = status_text(task);
    if !output.is_json() {
        if !text.is_empty() && matches!(state, TaskState::Completed | TaskState::InputRequired) {
            output.line(&text);
        }
        output.line(&format!("task {}: {}", task.id, state_name(state)));
        if state == TaskState::InputRequired {
            output.line(&format!("  → answer with: muster send --task {} …", task.id));
        }
    }
    for artifact in &task.artifacts {
        artifact_for_people(artifact, save, output)?;
    }
    outcome(state, &text)
}

fn outcome(state: TaskState, reason: &str) -> Result<(), Failure> {
    match state {
        TaskState::Failed | TaskState::Canceled | TaskState::Rejected | TaskState::AuthRequired => Err(
            Failure::failed(format!("the task ended {}: {reason}", state_name(state))),
        ),
        TaskState::Unspecified => Err(Failure::failed("the answer ended before the task had a state")),
        TaskState::Submitted | TaskState::Working | TaskState::Completed | TaskState::InputRequired => Ok(()),
    }
}

/// A task's state as people say it.
pub fn state_name(state: TaskState) -> String {
    state
        .as_str_name()
        .trim_start_matches("TASK_STATE_")
        .to_lowercase()
        .replace('_', " ")
}

fn text_of(parts: &[Part]) -> String {
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| match &part.content {
            Some(part::Content::Text(text)) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    texts.join("\n")
}

fn artifact_for_people(artifact: &Artifact, save: Option<&Path>, output: &Output) -> Result<(), Failure> {
    // Beside data, an artifact's text is the summary that was printed as the task's message.
    let has_data = artifact
        .parts
        .iter()
        .any(|part| matches!(part.content, Some(part::Content::Data(_))));
    for part in &artifact.parts {
        match &part.content {
            Some(part::Content::Data(data)) if !output.is_json() => {
                let mut value = a2a_pb::pbconv::proto_value_to_json_value(data);
                muster_api::json::restore_integers(&mut value);
                output.json(&value);
            }
            Some(part::Content::Text(text)) if !output.is_json() && !has_data => output.line(text),
            Some(part::Content::Raw(bytes)) => file_for_people(part, bytes, save, output)?,
            Some(part::Content::Url(url)) if !output.is_json() => output.line(&format!("  at {url}")),
            _ => {}
        }
    }
    Ok(())
}

fn file_for_people(part: &Part, bytes: &[u8], save: Option<&Path>, output: &Output) -> Result<(), Failure> {
    // Only the last component: an agent must not choose where on this machine a file lands.
    let name = Path::new(&part.filename)
        .file_name()
        .map_or_else(|| PathBuf::from("artifact.bin"), PathBuf::from);
    let Some(directory) = save else {
        if !output.is_json() {
            output.line(&format!(
                "file {} ({}, {} bytes); --save DIR keeps it",
                name.display(),
                part.media_type,
                bytes.len()
            ));
        }
        return Ok(());
    };
    let path = keep(directory, &name, bytes).map_err(|error| {
        Failure::failed(format!(
            "--save {}: {}: {error}",
            directory.display(),
            name.display()
        ))
    })?;
    if !output.is_json() {
        output.line(&format!("saved {} ({} bytes)", path.display(), bytes.len()));
    }
    Ok(())
}

/// Writes a new file; where the name is taken, `name-2` and so on: nothing that is there is lost.
fn keep(directory: &Path, name: &Path, bytes: &[u8]) -> std::io::Result<PathBuf> {
    const MOST: u32 = 1_000;
    std::fs::create_dir_all(directory)?;
    let stem = name.file_stem().unwrap_or_default().to_string_lossy();
    let ending = name
        .extension()
        .map(|ending| format!(".{}", ending.to_string_lossy()))
        .unwrap_or_default();
    for number in 1..=MOST {
        let path = match number {
            1 => directory.join(name),
            _ => directory.join(format!("{stem}-{number}{ending}")),
        };
        match std::fs::File::create_new(&path).and_then(|mut file| file.write_all(bytes)) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::other(format!(
        "{MOST} files of that name are there already"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_name_are_all_kept() {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> = [b"1", b"2", b"3"]
            .map(|content| keep(directory.path(), Path::new("chart.svg"), content).unwrap())
            .to_vec();
        let expected = ["chart.svg", "chart-2.svg", "chart-3.svg"].map(|name| directory.path().join(name));
        assert_eq!(names, expected);
        assert_eq!(std::fs::read(&names[2]).unwrap(), b"3");
    }
}

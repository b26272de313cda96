//! From A2A messages to JSON and back, and what an agent's answer means to a workflow.
//!
//! JSON goes through the official crate's ProtoJSON types, which have the same encoding as the plain ones. Its
//! three habits are put right here: whole numbers come back as doubles, timestamps end in `+00:00`, and
//! unknown fields are ignored (the documents' parser has refused them by then).

use muster_api::a2a::{ListTasksResponse, Message, Part, Task, TaskState, part, send_message_response};
use muster_workflow_dsl::usage::Usage;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Failure, Kind};

/// Most pages of tasks that are looked through for one task.
pub(super) const MOST_PAGES: usize = 5;

/// Longest text of an agent that is repeated in an error.
const LONGEST_TEXT: usize = 2_000;

/// The request that `parameters` stand for; `Json` is the ProtoJSON twin of `Proto`.
pub(super) fn request<Json, Proto>(parameters: &Value) -> Result<Proto, Failure>
where
    Json: DeserializeOwned + prost::Message,
    Proto: prost::Message + Default,
{
    let invalid = |what: String| {
        Failure::new(
            Kind::Validation,
            400,
            format!("the parameters are not A2A 1.0: {what}"),
        )
    };
    let json = Json::deserialize(parameters).map_err(|error| invalid(error.to_string()))?;
    Proto::decode(json.encode_to_vec().as_slice()).map_err(|error| invalid(error.to_string()))
}

/// What an agent's JSON says; `Json` is the ProtoJSON twin of `Proto`.
pub(super) fn read<Json, Proto>(answer: &Value) -> Result<Proto, Failure>
where
    Json: DeserializeOwned + prost::Message,
    Proto: prost::Message + Default,
{
    let unreadable = |what: String| {
        Failure::new(
            Kind::Communication,
            502,
            format!("the answer is not A2A 1.0: {what}"),
        )
    };
    let json = Json::deserialize(answer).map_err(|error| unreadable(error.to_string()))?;
    Proto::decode(json.encode_to_vec().as_slice()).map_err(|error| unreadable(error.to_string()))
}

/// The message as JSON; `Json` is the ProtoJSON twin of its type.
pub(super) fn json<Json>(message: &impl prost::Message) -> Result<Value, Failure>
where
    Json: Serialize + prost::Message + Default,
{
    let unreadable = |what: String| {
        Failure::new(
            Kind::Communication,
            502,
            format!("the answer is not A2A 1.0: {what}"),
        )
    };
    let twin =
        Json::decode(message.encode_to_vec().as_slice()).map_err(|error| unreadable(error.to_string()))?;
    let mut value = serde_json::to_value(twin).map_err(|error| unreadable(error.to_string()))?;
    muster_api::json::restore_integers(&mut value);
    Ok(value)
}

/// The task as JSON if it stands well; the failure it means if not.
pub(super) fn task(task: &Task) -> Result<Value, Failure> {
    refuse_bad_end(task)?;
    let mut value = json::<a2a_pb::protojson::Task>(task)?;
    normalize_time(&mut value);
    Ok(value)
}

/// What a read of a task returns: the task as it stands, also when it has failed. Its state is what was asked for.
pub(super) fn any_task(task: &Task) -> Result<Value, Failure> {
    let mut value = json::<a2a_pb::protojson::Task>(task)?;
    normalize_time(&mut value);
    Ok(value)
}

/// What the answer to a message means: the task or the message.
pub(super) fn response(payload: Option<send_message_response::Payload>) -> Result<Value, Failure> {
    match payload {
        Some(send_message_response::Payload::Task(task)) => self::task(&task),
        Some(send_message_response::Payload::Message(message)) => self::message(&message),
        None => Err(Failure::new(
            Kind::Communication,
            502,
            "the agent's answer is empty",
        )),
    }
}

/// A list of tasks as JSON.
pub(super) fn list(list: &ListTasksResponse) -> Result<Value, Failure> {
    let mut value = json::<a2a_pb::protojson::ListTasksResponse>(list)?;
    if let Some(tasks) = value.get_mut("tasks").and_then(Value::as_array_mut) {
        tasks.iter_mut().for_each(normalize_time);
    }
    Ok(value)
}

/// The ids of the tasks among `tasks` that grew out of this message and are not over.
pub(super) fn grown_from(tasks: &[Task], message: &str) -> Vec<String> {
    let begins = |task: &&Task| task.history.iter().any(|said| said.message_id == message);
    let open = tasks.iter().filter(begins).filter(|task| !is_over(task));
    open.map(|task| task.id.clone()).collect()
}

fn is_over(task: &Task) -> bool {
    matches!(
        state(task),
        TaskState::Completed | TaskState::Failed | TaskState::Canceled | TaskState::Rejected
    )
}

/// The message as JSON.
pub(super) fn message(message: &Message) -> Result<Value, Failure> {
    json::<a2a_pb::protojson::Message>(message)
}

pub(super) fn normalize_time(task: &mut Value) {
    if let Some(Value::String(time)) = task.pointer_mut("/status/timestamp")
        && let Some(plain) = time.strip_suffix("+00:00")
    {
        *time = format!("{plain}Z");
    }
}

fn refuse_bad_end(task: &Task) -> Result<(), Failure> {
    let (kind, status, what) = match state(task) {
        TaskState::Failed => (Kind::Runtime, 500, "failed"),
        TaskState::Rejected => (Kind::Runtime, 400, "was rejected"),
        TaskState::Canceled => (Kind::Runtime, 500, "was canceled"),
        TaskState::AuthRequired => (Kind::Authentication, 401, "needs authentication"),
        TaskState::Unspecified
        | TaskState::Submitted
        | TaskState::Working
        | TaskState::Completed
        | TaskState::InputRequired => return Ok(()),
    };
    let detail = status_text(task).unwrap_or_else(|| format!("the agent's task {} {what}", task.id));
    let answer = json::<a2a_pb::protojson::Task>(task).ok();
    Err(Failure {
        usage: answer.as_ref().and_then(Usage::reported),
        ..Failure::new(kind, status, detail)
    })
}

pub(super) fn state(task: &Task) -> TaskState {
    task.status
        .as_ref()
        .map_or(TaskState::Unspecified, |status| status.state())
}

/// What the agent says about the state of its task.
fn status_text(task: &Task) -> Option<String> {
    let message = task.status.as_ref()?.message.as_ref()?;
    let texts = message.parts.iter().filter_map(|part| match part {
        Part {
            content: Some(part::Content::Text(text)),
            ..
        } => Some(text.as_str()),
        Part { .. } => None,
    });
    let text: String = texts
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(LONGEST_TEXT)
        .collect();
    (!text.trim().is_empty()).then_some(text)
}

/// Where a task stands, in a line for people.
pub(super) fn standing(task: &Task) -> String {
    let state = state(task)
        .as_str_name()
        .trim_start_matches("TASK_STATE_")
        .to_lowercase();
    let said = status_text(task)
        .map(|text| format!(": {text}"))
        .unwrap_or_default();
    format!("task {} is {state}{said}", task.id)
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{SendMessageRequest, TaskStatus};
    use serde_json::json;

    use super::*;

    fn text(text: &str) -> Part {
        Part {
            content: Some(part::Content::Text(text.into())),
            ..Part::default()
        }
    }

    fn status(state: TaskState, said: &str) -> Option<TaskStatus> {
        let message = Message {
            parts: vec![text(said)],
            ..Message::default()
        };
        let timestamp = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        Some(TaskStatus {
            state: state as i32,
            message: Some(message),
            timestamp,
        })
    }

    fn answered(state: TaskState, said: &str) -> Task {
        Task {
            id: "t1".into(),
            status: status(state, said),
            ..Task::default()
        }
    }

    #[test]
    fn parameters_become_a_request_and_nonsense_does_not() {
        let parameters = json!({
            "message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": {"n": 5, "x": [1.5]}}]},
            "configuration": {"returnImmediately": true}
        });
        let request: SendMessageRequest =
            request::<a2a_pb::protojson::SendMessageRequest, _>(&parameters).unwrap();
        assert!(request.configuration.unwrap().return_immediately);
        let back = message(&request.message.unwrap()).unwrap();
        assert_eq!(back.pointer("/parts/0/data"), Some(&json!({"n": 5, "x": [1.5]})));

        let wrong = json!({"message": {"role": "ROLE_NOBODY"}});
        let failure =
            super::request::<a2a_pb::protojson::SendMessageRequest, SendMessageRequest>(&wrong).unwrap_err();
        assert_eq!((failure.kind, failure.status), (Kind::Validation, 400));
    }

    #[test]
    fn a_good_task_is_its_json() {
        let value = task(&answered(TaskState::Completed, "done")).unwrap();
        assert_eq!(
            value.pointer("/status/state"),
            Some(&json!("TASK_STATE_COMPLETED"))
        );
        assert_eq!(
            value.pointer("/status/timestamp"),
            Some(&json!("1970-01-01T00:00:01Z"))
        );
        assert!(task(&answered(TaskState::InputRequired, "which?")).is_ok());
        assert!(task(&answered(TaskState::Working, "on it")).is_ok());
    }

    #[test]
    fn a_bad_end_is_a_failure_in_the_agents_words() {
        for (state, kind, status) in [
            (TaskState::Failed, Kind::Runtime, 500),
            (TaskState::Rejected, Kind::Runtime, 400),
            (TaskState::Canceled, Kind::Runtime, 500),
            (TaskState::AuthRequired, Kind::Authentication, 401),
        ] {
            let failure = task(&answered(state, "no such city")).unwrap_err();
            assert_eq!(failure, Failure::new(kind, status, "no such city"));
            assert!(any_task(&answered(state, "")).is_ok(), "reading it is no failure");
        }
        let silent = task(&answered(TaskState::Failed, " ")).unwrap_err();
        assert_eq!(silent.detail, "the agent's task t1 failed");
    }
}

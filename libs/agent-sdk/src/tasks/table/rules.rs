//! What the state of a task allows, wherever the task is; and what is said where it does not.

use std::time::Duration;

use a2a_pb::proto::TaskState;
use muster_a2a::ProtocolError;
use muster_api::error::{Error, Reason};
use tonic::Status;

use super::MOST_PUSHES;
use crate::tasks::record::{Push, is_terminal};

/// When what waits for a person may be whole again.
const REPAIR_RETRY: Duration = Duration::from_secs(60);

pub(crate) fn unknown(id: &str) -> Box<Status> {
    let shown: String = id.chars().take(64).collect();
    Box::new(ProtocolError::TaskNotFound.status(format!("this agent knows no task '{shown}'")))
}

/// Whether a message to a task is taken.
pub(crate) fn check_message(
    id: &str,
    said: &str,
    context: &str,
    state: TaskState,
    is_at_work: bool,
) -> Result<(), Box<Status>> {
    if !said.is_empty() && said != context {
        let message = format!(
            "is '{said}', but the task belongs to '{context}'; leave it out, or send what the task says"
        );
        return Err(Box::new(
            Error::invalid_field("message.context_id", message).into(),
        ));
    }
    if is_terminal(state) {
        Err(unsupported(format!(
            "task '{id}' has ended as {}; start a new one",
            state.as_str_name()
        )))
    } else if is_at_work {
        Err(at_work(id))
    } else {
        Ok(())
    }
}

/// A task takes no message now.
pub(crate) fn at_work(id: &str) -> Box<Status> {
    unsupported(format!(
        "task '{id}' is at work and takes no message before it asks for one"
    ))
}

/// Whether a task in this state can be followed.
pub(crate) fn check_follow(id: &str, state: TaskState) -> Result<(), Box<Status>> {
    if is_terminal(state) {
        return Err(unsupported(format!(
            "task '{id}' has ended as {}; read it with GetTask",
            state.as_str_name()
        )));
    }
    Ok(())
}

/// What cancelling a task in this state comes to: whether it is cancelled already.
pub(crate) fn check_cancel(id: &str, state: TaskState) -> Result<bool, Box<Status>> {
    match state {
        TaskState::Canceled => Ok(true),
        ended if is_terminal(ended) => Err(Box::new(
            ProtocolError::TaskNotCancelable
                .status(format!("task '{id}' has ended as {}", ended.as_str_name())),
        )),
        _ => Ok(false),
    }
}

/// Whether an address of this id can be added to these.
pub(crate) fn check_pushes(pushes: &[Push], id: &str) -> Result<(), Box<Status>> {
    let is_known = pushes
        .iter()
        .any(|push| push.config.as_ref().is_some_and(|known| known.id == id));
    if !is_known && pushes.len() >= MOST_PUSHES {
        return Err(too_many_pushes());
    }
    Ok(())
}

pub(super) fn too_many_pushes() -> Box<Status> {
    let message = format!("the task has {MOST_PUSHES} of them, as many as it may; delete one");
    Box::new(Error::invalid_field("id", message).into())
}

pub(super) fn unsupported(message: String) -> Box<Status> {
    Box::new(ProtocolError::UnsupportedOperation.status(message))
}

pub(super) fn damaged(id: &str, error: &prost::DecodeError) -> Box<Status> {
    let error = Error::new(
        Reason::StoreUnavailable,
        format!("what is stored of task '{id}' is damaged: {error}"),
    );
    Box::new(error.with_retry_after(REPAIR_RETRY).into())
}

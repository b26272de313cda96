//! What of a request is refused before anything is done: what is out of bounds, by its field, and what the card excludes.

use a2a_pb::proto as pb;
use muster_a2a::{Head, ProtocolError, Request};
use muster_api::error::{Error, Reason};
use prost::Message as _;
use tonic::Status;

use super::Desk;
use crate::Agent;

/// Most parts of a message.
const MAX_PARTS: usize = 64;
/// Longest identifier in a message.
const MAX_ID: usize = 256;
/// How many of the largest messages a task may hold that takes another one. With what is answered to that, it still fits into an
/// answer as routers take them, which is four times as large.
const MESSAGES_OF_A_TASK: usize = 3;
/// Bytes that each part costs beside its content, so that many empty ones are not free.
const PART_BYTES: usize = 16;

impl<A: Agent> Desk<A> {
    /// Refuses what is out of bounds, naming the field, and what the card excludes.
    pub(super) fn check(&self, request: &pb::SendMessageRequest) -> Result<(), Box<Status>> {
        let Some(message) = &request.message else {
            return Err(invalid("message", "is missing"));
        };
        let id = message.message_id.len();
        if id == 0 || id > MAX_ID {
            let message = format!("is {id} bytes long; 1 to {MAX_ID} are allowed");
            return Err(invalid("message.message_id", message));
        }
        if message.role() != pb::Role::User {
            let said = message.role().as_str_name();
            return Err(invalid(
                "message.role",
                format!("is {said}; a caller sends ROLE_USER"),
            ));
        }
        let parts = message.parts.len();
        if parts == 0 || parts > MAX_PARTS {
            let message = format!("has {parts} parts; 1 to {MAX_PARTS} are allowed");
            return Err(invalid("message.parts", message));
        }
        if let Some(empty) = message.parts.iter().position(|part| part.content.is_none()) {
            let message = "has no content; one of text, raw, url and data is needed";
            return Err(invalid(&format!("message.parts[{empty}]"), message));
        }
        for (field, id) in [
            ("message.task_id", &message.task_id),
            ("message.context_id", &message.context_id),
        ] {
            if id.len() > MAX_ID {
                let message = format!("is {} bytes long; at most {MAX_ID} are allowed", id.len());
                return Err(invalid(field, message));
            }
        }
        let length = request
            .configuration
            .as_ref()
            .and_then(|configuration| configuration.history_length);
        check_length("configuration.history_length", length)?;
        let bytes = request.encoded_len() + parts * PART_BYTES;
        if bytes > self.max_message_bytes {
            let error = Error::new(
                Reason::MessageTooLarge,
                format!(
                    "the message has {bytes} bytes; this agent takes {} (`server.max_message_bytes`)",
                    self.max_message_bytes
                ),
            );
            return Err(Box::new(error.with_field("message").into()));
        }
        self.check_media_types(message)
    }

    /// Refuses a message by which its task would become too large: all that is said is kept with the task, and read with it.
    pub(super) fn check_growth(&self, message: &pb::Message, bytes: usize) -> Result<(), Box<Status>> {
        let most = self.max_message_bytes.saturating_mul(MESSAGES_OF_A_TASK);
        let grown = bytes.saturating_add(message.encoded_len());
        if grown <= most {
            return Ok(());
        }
        let error = Error::new(
            Reason::MessageTooLarge,
            format!(
                "task '{}' would have {grown} bytes with this message, and takes messages up to {most} \
                 ({MESSAGES_OF_A_TASK} times `server.max_message_bytes`); begin another task with what matters of it",
                message.task_id
            ),
        );
        Err(Box::new(error.with_field("message").into()))
    }

    pub(super) fn check_extensions(&self, head: &Head) -> Result<(), Box<Status>> {
        let used = head.extensions();
        let missing = self
            .executor
            .card
            .extensions
            .iter()
            .find(|extension| extension.required && !used.contains(&extension.uri.as_str()));
        match missing {
            None => Ok(()),
            Some(extension) => Err(Box::new(
                ProtocolError::ExtensionSupportRequired
                    .status(format!("this agent needs the extension '{}'", extension.uri)),
            )),
        }
    }

    /// Refuses streams where the card says that there are none.
    pub(super) fn check_streaming(&self, request: &Request) -> Result<(), Box<Status>> {
        let wants_stream = matches!(
            request,
            Request::SendStreamingMessage(_) | Request::SubscribeToTask(_)
        );
        if wants_stream && !self.executor.card.streams {
            return Err(Box::new(ProtocolError::UnsupportedOperation.status(
                "this agent does not stream; send the message without streaming, and read its task with GetTask",
            )));
        }
        Ok(())
    }

    pub(super) fn check_media_types(&self, message: &pb::Message) -> Result<(), Box<Status>> {
        let card = &self.executor.card;
        for (index, part) in message.parts.iter().enumerate() {
            if !part.media_type.is_empty() && !card.takes(&part.media_type) {
                let shown: String = part.media_type.chars().take(64).collect();
                return Err(Box::new(ProtocolError::ContentTypeNotSupported.status(format!(
                    "message.parts[{index}].media_type: '{shown}' is not taken; this agent takes {}",
                    card.input_modes.join(", ")
                ))));
            }
        }
        Ok(())
    }
}

pub(super) fn check_task_id(field: &str, id: &str) -> Result<(), Box<Status>> {
    match id.len() {
        1..=MAX_ID => Ok(()),
        0 => Err(invalid(field, "is empty; name the task")),
        bytes => Err(invalid(
            field,
            format!("is {bytes} bytes long; at most {MAX_ID} are allowed"),
        )),
    }
}

pub(super) fn check_length(field: &str, length: Option<i32>) -> Result<(), Box<Status>> {
    match length {
        Some(length) if length < 0 => Err(invalid(field, format!("is {length}; 0 or more are allowed"))),
        _ => Ok(()),
    }
}

pub(super) fn invalid(field: &str, message: impl Into<String>) -> Box<Status> {
    Box::new(Error::invalid_field(field, message).into())
}

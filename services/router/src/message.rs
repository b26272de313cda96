//! What a message must have before anybody is bothered with it.

use muster_api::a2a::{Message, Role, SendMessageRequest};
use prost::Message as _;

use crate::error::Error;

/// Longest message id, context id or task id.
const MAX_ID: usize = 256;

/// Checks a request to send a message, and returns its message.
///
/// # Errors
/// Names the first field that is missing or malformed, or the size where it is over `limit` bytes.
pub fn check(request: &SendMessageRequest, limit: usize) -> Result<&Message, Error> {
    let bytes = request.encoded_len();
    if bytes > limit {
        return Err(Error::TooLarge { bytes, limit });
    }
    let Some(message) = &request.message else {
        return Err(invalid("message", "is missing; a request carries one message"));
    };
    if message.message_id.is_empty() {
        return Err(invalid(
            "message.messageId",
            "is empty; make a new one, such as a UUID, for each message",
        ));
    }
    for (field, id) in [
        ("message.messageId", &message.message_id),
        ("message.taskId", &message.task_id),
        ("message.contextId", &message.context_id),
    ] {
        if id.len() > MAX_ID {
            return Err(invalid(field, &format!("is longer than {MAX_ID} bytes")));
        }
    }
    if message.role() != Role::User {
        return Err(invalid(
            "message.role",
            "must be ROLE_USER: messages to an agent are its user's",
        ));
    }
    if message.parts.is_empty() {
        return Err(invalid(
            "message.parts",
            "is empty; a message has at least one part",
        ));
    }
    match message.parts.iter().position(|part| part.content.is_none()) {
        Some(index) => Err(invalid(
            &format!("message.parts[{index}]"),
            "has no content; expected one of text, raw, url, data",
        )),
        None => Ok(message),
    }
}

/// Checks the id of a task in a request about one.
///
/// # Errors
/// When it is empty or too long.
pub fn check_task_id(field: &str, id: &str) -> Result<(), Error> {
    if id.is_empty() {
        return Err(invalid(field, "is empty; name the task"));
    }
    if id.len() > MAX_ID {
        return Err(invalid(field, &format!("is longer than {MAX_ID} bytes")));
    }
    Ok(())
}

fn invalid(field: &str, message: &str) -> Error {
    Error::InvalidField {
        field: field.to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{Part, part};

    use super::*;

    fn good() -> SendMessageRequest {
        SendMessageRequest {
            message: Some(Message {
                message_id: "m".to_owned(),
                role: Role::User.into(),
                parts: vec![Part {
                    content: Some(part::Content::Text("hello".to_owned())),
                    ..Part::default()
                }],
                ..Message::default()
            }),
            ..SendMessageRequest::default()
        }
    }

    fn with(change: impl FnOnce(&mut Message)) -> SendMessageRequest {
        let mut request = good();
        change(request.message.as_mut().unwrap());
        request
    }

    #[test]
    fn a_complete_message_passes() {
        assert_eq!(check(&good(), 1000).unwrap().message_id, "m");
    }

    #[test]
    fn each_defect_names_its_field() {
        let cases = [
            (SendMessageRequest::default(), "message"),
            (with(|message| message.message_id.clear()), "message.messageId"),
            (
                with(|message| message.task_id = "t".repeat(257)),
                "message.taskId",
            ),
            (with(|message| message.role = 0), "message.role"),
            (with(|message| message.role = Role::Agent.into()), "message.role"),
            (with(|message| message.role = 77), "message.role"),
            (with(|message| message.parts.clear()), "message.parts"),
            (
                with(|message| message.parts[0].content = None),
                "message.parts[0]",
            ),
        ];
        for (request, expected) in cases {
            let Err(Error::InvalidField { field, .. }) = check(&request, 10_000) else {
                panic!("accepted a defect of {expected}");
            };
            assert_eq!(field, expected);
        }
    }

    #[test]
    fn size_is_limited() {
        let size = good().encoded_len();
        assert!(check(&good(), size).is_ok());
        assert!(matches!(check(&good(), size - 1), Err(Error::TooLarge { .. })));
    }
}

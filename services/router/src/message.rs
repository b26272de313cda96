//! What a message must have before anybody is bothered with it.

use muster_api::a2a::Role;

use crate::error::Error;
use crate::peek::{Message, Sent};
use crate::wire::Defect;

/// Longest message id, context id or task id.
const MAX_ID: usize = 256;

/// Checks a request to send a message, and returns its message.
///
/// # Errors
/// Names the first field that is missing or malformed, or the size where it is over `limit` bytes.
pub fn check(sent: &Sent, limit: usize) -> Result<&Message, Error> {
    let bytes = sent.encoded.len();
    if bytes > limit {
        return Err(Error::TooLarge { bytes, limit });
    }
    let Some(message) = &sent.message else {
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
    if message.role != i32::from(Role::User) {
        return Err(invalid(
            "message.role",
            "must be ROLE_USER: messages to an agent are its user's",
        ));
    }
    if message.parts == 0 {
        return Err(invalid(
            "message.parts",
            "is empty; a message has at least one part",
        ));
    }
    match message.empty_part {
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

impl From<Box<Defect>> for Error {
    fn from(defect: Box<Defect>) -> Self {
        let Defect { mut field, what } = *defect;
        if field.is_empty() {
            "request".clone_into(&mut field);
        }
        invalid(&field, what)
    }
}

fn invalid(field: &str, message: &str) -> Error {
    Error::InvalidField {
        field: field.to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{self, Part, SendMessageRequest, part};
    use prost::Message as _;

    use super::*;

    fn good() -> SendMessageRequest {
        SendMessageRequest {
            message: Some(a2a::Message {
                message_id: "m".to_owned(),
                role: Role::User.into(),
                parts: vec![Part {
                    content: Some(part::Content::Text("hello".to_owned())),
                    ..Part::default()
                }],
                ..a2a::Message::default()
            }),
            ..SendMessageRequest::default()
        }
    }

    fn with(change: impl FnOnce(&mut a2a::Message)) -> SendMessageRequest {
        let mut request = good();
        change(request.message.as_mut().unwrap());
        request
    }

    fn checked(request: &SendMessageRequest, limit: usize) -> Result<String, Error> {
        let sent = Sent::read(request.encode_to_vec().into())?;
        check(&sent, limit).map(|message| message.message_id.clone())
    }

    #[test]
    fn a_complete_message_passes() {
        assert_eq!(checked(&good(), 1000).unwrap(), "m");
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
            let Err(Error::InvalidField { field, .. }) = checked(&request, 10_000) else {
                panic!("accepted a defect of {expected}");
            };
            assert_eq!(field, expected);
        }
    }

    #[test]
    fn what_is_no_message_is_refused_by_name() {
        let defect = Sent::read(bytes::Bytes::from_static(b"\x12")).unwrap_err();
        assert!(matches!(Error::from(defect), Error::InvalidField { field, .. } if field == "request"));
    }

    #[test]
    fn a_task_is_named() {
        for id in [String::new(), "t".repeat(257)] {
            let refused = check_task_id("id", &id);
            assert!(matches!(refused, Err(Error::InvalidField { field, .. }) if field == "id"));
        }
    }

    #[test]
    fn size_is_limited() {
        let size = good().encoded_len();
        assert!(checked(&good(), size).is_ok());
        assert!(matches!(checked(&good(), size - 1), Err(Error::TooLarge { .. })));
    }
}

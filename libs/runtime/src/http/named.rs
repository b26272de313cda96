//! What a request is about, for the audit log: the names in the first message of a gRPC call that changes something, else the path.
//!
//! The beginning of the body is read and put back, as far as the message is short; of others the log says the method alone. Names are
//! short texts that find things again, such as ids, and never content.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use futures::{StreamExt as _, stream};
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage as _, Value};

/// Longest message that is looked at.
const LONGEST: usize = 64 << 10;

/// Before each message of gRPC: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Fields that name something.
const NAMES: [&str; 16] = [
    "action",
    "agent_id",
    "approval_id",
    "card_url",
    "entry_id",
    "id",
    "instance_id",
    "lease_id",
    "name",
    "namespace",
    "new_run_id",
    "run_id",
    "skill",
    "target",
    "task_id",
    "tenant",
];

/// The names in the first message of a gRPC request, and the request as it was.
pub(super) async fn read(request: Request, input: &MessageDescriptor) -> (Request, String) {
    let (head, body) = request.into_parts();
    let mut rest = body.into_data_stream();
    let (mut pieces, mut beginning) = (Vec::new(), Vec::new());
    let mut is_broken = false;
    while !is_broken && !is_whole(&beginning) {
        match rest.next().await {
            None => break,
            Some(piece) => {
                if let Ok(bytes) = &piece {
                    beginning.extend_from_slice(bytes);
                }
                is_broken = piece.is_err();
                pieces.push(piece);
            }
        }
    }
    let named = message(&beginning)
        .and_then(|bytes| DynamicMessage::decode(input.clone(), bytes).ok())
        .map(|message| names(&message, 1).join(" "));
    let body = Body::from_stream(stream::iter(pieces).chain(rest));
    (Request::from_parts(head, body), named.unwrap_or_default())
}

/// The length that the head says.
fn length(beginning: &[u8]) -> Option<usize> {
    let length: [u8; 4] = beginning.get(1..HEAD)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()
}

/// Whether there is as much as is looked at.
fn is_whole(beginning: &[u8]) -> bool {
    length(beginning).is_some_and(|length| length > LONGEST || beginning.len() >= HEAD + length)
}

/// The message, where it is short and not compressed.
fn message(beginning: &[u8]) -> Option<Bytes> {
    let length = length(beginning).filter(|length| *length <= LONGEST)?;
    if beginning.first() != Some(&0) {
        return None;
    }
    beginning.get(HEAD..HEAD + length).map(Bytes::copy_from_slice)
}

/// `field=name` of a message, and of the messages in it.
fn names(message: &DynamicMessage, deeper: usize) -> Vec<String> {
    let mut found = Vec::new();
    for field in message.descriptor().fields() {
        if !message.has_field(&field) || field.is_list() || field.is_map() {
            continue;
        }
        match message.get_field(&field).as_ref() {
            Value::String(name) if NAMES.contains(&field.name()) => {
                found.push(format!("{}={name}", field.name()));
            }
            Value::EnumNumber(number) if NAMES.contains(&field.name()) => {
                found.push(format!("{}={number}", field.name()));
            }
            Value::Message(inner) if deeper > 0 => found.extend(names(inner, deeper - 1)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use muster_api::workflow::CancelRunRequest;
    use prost::Message as _;
    use prost_reflect::DescriptorPool;

    use super::*;

    #[tokio::test]
    async fn names_are_read_and_the_body_is_as_it_was() {
        let pool = DescriptorPool::decode(muster_api::FILE_DESCRIPTOR_SET).unwrap();
        let input = pool
            .get_message_by_name("muster.workflow.v1.CancelRunRequest")
            .unwrap();
        let asked = CancelRunRequest {
            run_id: "adas".to_owned(),
            reason: "no name".to_owned(),
            ..CancelRunRequest::default()
        }
        .encode_to_vec();
        let mut framed = vec![0];
        framed.extend(u32::try_from(asked.len()).unwrap().to_be_bytes());
        framed.extend(&asked);
        for size in [1, 3, 1_000] {
            for (bytes, said) in [
                (framed.clone(), "run_id=adas"),
                (framed[..4].to_vec(), ""),
                (Vec::new(), ""),
            ] {
                let pieces: Vec<Result<Bytes, std::io::Error>> = bytes
                    .chunks(size)
                    .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                    .collect();
                let request = Request::new(Body::from_stream(stream::iter(pieces)));
                let (request, named) = read(request, &input).await;
                assert_eq!(named, said);
                let again = axum::body::to_bytes(request.into_body(), usize::MAX)
                    .await
                    .unwrap();
                assert_eq!(again, bytes);
            }
        }
    }
}

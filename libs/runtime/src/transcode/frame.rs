//! gRPC's framing: a flag, a length of four bytes, a message.

use axum::body::Bytes;
use muster_api::error::{Error, Reason};
use prost::Message as _;
use prost_reflect::DynamicMessage;

use super::refusal::Refusal;

/// Bytes before each message.
const PREFIX: usize = 5;

/// The message as one frame; refused over `limit` bytes.
pub(super) fn write(message: &DynamicMessage, limit: usize) -> Result<Bytes, Refusal> {
    let length = message.encoded_len();
    let framed = u32::try_from(length).ok().filter(|_| length <= limit);
    let Some(prefix) = framed else {
        let text =
            format!("the message has {length} bytes, {limit} are allowed; see `server.max_message_bytes`");
        return Err(Refusal::from(Error::new(Reason::MessageTooLarge, text)));
    };
    let mut bytes = Vec::with_capacity(PREFIX + length);
    bytes.push(0);
    bytes.extend_from_slice(&prefix.to_be_bytes());
    message.encode_raw(&mut bytes);
    Ok(bytes.into())
}

/// Takes the first whole message off the buffer; nothing when it is not there yet.
pub(super) fn take(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length: [u8; 4] = buffer.get(1..PREFIX)?.try_into().ok()?;
    let end = PREFIX.checked_add(usize::try_from(u32::from_be_bytes(length)).ok()?)?;
    if buffer.len() < end {
        return None;
    }
    let rest = buffer.split_off(end);
    let mut message = std::mem::replace(buffer, rest);
    message.drain(..PREFIX);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_off_whole_and_in_order() {
        let mut buffer = vec![0, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(take(&mut buffer), Some(b"ab".to_vec()));
        assert_eq!(take(&mut buffer), Some(Vec::new()));
        assert_eq!(take(&mut buffer), None);
        assert_eq!(buffer, [0, 0]);
    }
}

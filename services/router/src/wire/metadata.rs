//! The one thing that is written into a message: texts in its metadata, for agents whose card asks for them.
//!
//! Everything else stays as it came, byte for byte, unknown fields too; the metadata lose the entries that have the same
//! names, and get the new ones at their end. The request is copied for it, which only those agents cost who ask. Rejected: to append
//! a second `metadata` field, which every decoder of protobuf would merge with the first; a router behind this one refuses it, as this
//! one does ([`Schema::read`](super::Schema::read)).

use super::{Checked, Fields, Value, put_text};

/// Number of the message in a `SendMessageRequest`.
const MESSAGE: u32 = 2;
/// Number of the metadata in a `Message`.
const METADATA: u32 = 6;
/// Number of the entries in a `Struct`, and of their keys and values.
const ENTRY: u32 = 1;
const KEY: u32 = 1;
const VALUE: u32 = 2;
/// Number of a text in a `Value`.
const TEXT: u32 = 3;

/// A request to send a message, with these texts in the metadata of its message.
///
/// # Errors
/// When the bytes are no such request.
pub fn with_texts(request: &[u8], texts: &[(&str, &str)]) -> Checked<Vec<u8>> {
    let mut written = Vec::with_capacity(request.len() + 256);
    let mut fields = Fields::of(request);
    while let Some(field) = fields.next(0)? {
        match field.value {
            Value::Bytes(message) if field.number == MESSAGE => {
                put_bytes(MESSAGE, &message_with(message, texts)?, &mut written);
            }
            _ => written.extend_from_slice(&request[field.start..field.end]),
        }
    }
    Ok(written)
}

fn message_with(message: &[u8], texts: &[(&str, &str)]) -> Checked<Vec<u8>> {
    let mut written = Vec::with_capacity(message.len() + 256);
    let mut metadata = Vec::new();
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next(1)? {
        match field.value {
            Value::Bytes(known) if field.number == METADATA => keep_others(known, texts, &mut metadata)?,
            _ => written.extend_from_slice(&message[field.start..field.end]),
        }
    }
    for (name, text) in texts {
        let (mut value, mut entry) = (Vec::new(), Vec::new());
        put_text(TEXT, text, &mut value);
        put_text(KEY, name, &mut entry);
        put_bytes(VALUE, &value, &mut entry);
        put_bytes(ENTRY, &entry, &mut metadata);
    }
    put_bytes(METADATA, &metadata, &mut written);
    Ok(written)
}

/// Keeps the entries that have other names.
fn keep_others(metadata: &[u8], texts: &[(&str, &str)], kept: &mut Vec<u8>) -> Checked<()> {
    let mut fields = Fields::of(metadata);
    while let Some(field) = fields.next(2)? {
        let is_replaced = match field.value {
            Value::Bytes(entry) if field.number == ENTRY => {
                let key = key(entry)?;
                texts.iter().any(|(name, _)| key == name.as_bytes())
            }
            _ => false,
        };
        if !is_replaced {
            kept.extend_from_slice(&metadata[field.start..field.end]);
        }
    }
    Ok(())
}

/// The key of an entry; of several the last, as decoders have it.
fn key(entry: &[u8]) -> Checked<&[u8]> {
    let (mut key, mut fields) = (&[][..], Fields::of(entry));
    while let Some(field) = fields.next(3)? {
        if let Value::Bytes(bytes) = field.value
            && field.number == KEY
        {
            key = bytes;
        }
    }
    Ok(key)
}

fn put_bytes(number: u32, bytes: &[u8], buffer: &mut Vec<u8>) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, buffer);
    prost::encoding::encode_varint(bytes.len() as u64, buffer);
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{Message, SendMessageRequest};
    use proptest::prelude::*;
    use prost::Message as _;
    use prost_types::value::Kind;
    use prost_types::{Struct, Value as Data};

    use super::*;

    fn text(text: &str) -> Data {
        Data {
            kind: Some(Kind::StringValue(text.to_owned())),
        }
    }

    fn request(metadata: Option<Struct>) -> SendMessageRequest {
        SendMessageRequest {
            tenant: "weather".to_owned(),
            message: Some(Message {
                message_id: "m".to_owned(),
                metadata,
                extensions: vec!["urn:x".to_owned()],
                ..Message::default()
            }),
            metadata: Some(Struct {
                fields: [("traceparent".to_owned(), text("of the request"))].into(),
            }),
            ..SendMessageRequest::default()
        }
    }

    proptest! {
        /// The official decoder finds what was there, and the texts.
        #[test]
        fn the_texts_are_in_the_metadata_and_nothing_else_has_changed(
            known in proptest::option::of(proptest::collection::btree_map("[a-d]{0,2}", ".{0,8}", 0..5)),
            texts in proptest::collection::btree_map("[a-d]{0,2}", ".{0,8}", 1..4),
        ) {
            let metadata = known.map(|known| Struct {
                fields: known.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            });
            let mut expected = request(metadata);
            let bytes = expected.encode_to_vec();
            let pairs: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            let written = with_texts(&bytes, &pairs).unwrap();
            let into = expected.message.as_mut().unwrap().metadata.get_or_insert_default();
            for (name, value) in pairs {
                into.fields.insert(name.to_owned(), text(value));
            }
            prop_assert_eq!(SendMessageRequest::decode(written.as_slice()).unwrap(), expected);
            let again = crate::peek::Sent::read(written.into());
            prop_assert!(again.is_ok(), "a router behind this one takes it: {again:?}");
        }

        #[test]
        fn whatever_comes_nothing_panics(bytes in any::<Vec<u8>>()) {
            if let Ok(written) = with_texts(&bytes, &[("traceparent", "x")]) {
                prop_assert!(Fields::of(&written).next(0).is_ok());
            }
        }
    }

    #[test]
    fn unknown_fields_stay() {
        let mut bytes = Vec::new();
        let mut message = request(None).message.unwrap().encode_to_vec();
        message.extend([0xf8, 0x01, 7]); // field 31: 7
        put_bytes(MESSAGE, &message, &mut bytes);
        bytes.extend([0xf8, 0x01, 9]);
        let written = with_texts(&bytes, &[("a", "b")]).unwrap();
        assert!(written.ends_with(&[0xf8, 0x01, 9]));
        assert!(written.windows(3).any(|window| window == [0xf8, 0x01, 7]));
    }
}

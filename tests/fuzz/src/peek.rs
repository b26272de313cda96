//! What the router reads in encoded requests and answers: it never panics, and lets nothing through that the official decoder
//! would refuse.

use bytes::Bytes;
use muster_api::a2a;
use muster_router::operation::METHODS;
use muster_router::peek::{Asked, Held, Sent};
use muster_router::wire::metadata::with_texts;
use prost::Message as _;

/// See the module.
pub fn run(bytes: &[u8]) {
    let whole = Bytes::copy_from_slice(bytes);
    if let Ok(sent) = Sent::read(whole.clone()) {
        let decoded = a2a::SendMessageRequest::decode(bytes);
        let decoded = decoded.expect("what is let through can be decoded");
        assert_eq!(sent.encoded.tenant(), decoded.tenant);
        assert_eq!(
            sent.message.map(|message| message.message_id),
            decoded.message.map(|message| message.message_id)
        );
        // With another tenant it is the same message.
        let pieces = sent.encoded.with_tenant("other").0.concat();
        let other = a2a::SendMessageRequest::decode(pieces.as_slice()).expect("it stays a message");
        assert_eq!(other.tenant, "other");
        // With a trace in its metadata, too, for a router behind this one as well.
        let traced = with_texts(&pieces, &[("traceparent", "x")]).expect("it was read before");
        assert!(Sent::read(traced.into()).is_ok());
    }
    for method in METHODS {
        if let Ok(asked) = Asked::read(method, whole.clone()) {
            assert!(asked.encoded.len() == bytes.len());
        }
        // Whatever it says; it says something.
        let _held = Held::read(method, bytes);
    }
}

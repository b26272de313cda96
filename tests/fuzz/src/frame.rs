//! Frames of gRPC: a message is taken out of its frame only where the frame is one, whole and plain; else the body is put back as it was,
//! however it was cut into pieces.
//!
//! The first byte of the input says how long the pieces are.

use bytes::Bytes;
use futures::executor::block_on;
use http::HeaderMap;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use muster_router::frame;
use tonic::Status;

/// Most bytes of a message.
const LIMIT: usize = 1_000;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else {
        return;
    };
    let length = match usize::from(*length) {
        0 => rest.len().max(1),
        length => length,
    };
    let pieces: Vec<Result<Frame<Bytes>, Status>> = rest
        .chunks(length)
        .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    let body = tonic::body::Body::new(StreamBody::new(futures::stream::iter(pieces)));
    match block_on(frame::take(&HeaderMap::new(), body, LIMIT)) {
        Ok((message, trailers)) => {
            assert!(message.len() <= LIMIT && trailers.is_none());
            let length = u32::try_from(message.len()).expect("it is below the limit");
            assert_eq!([&[0], &length.to_be_bytes()[..], &message].concat(), rest);
        }
        Err(body) => {
            let whole = block_on(body.collect()).expect("nothing has failed");
            assert_eq!(whole.to_bytes(), rest);
        }
    }
}

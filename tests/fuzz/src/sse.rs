//! Server-sent events: however the bytes are cut into pieces, the same events come out, and none is longer than allowed.

use std::collections::VecDeque;

use muster_rpc::sse::Parser;

const MOST: usize = 1_000;

/// The events, and whether all was taken.
fn events<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> (VecDeque<String>, bool) {
    let mut parser = Parser::new(MOST);
    let mut ready = VecDeque::new();
    for piece in pieces {
        if parser.take(piece, &mut ready).is_err() {
            return (ready, false);
        }
    }
    (ready, true)
}

/// See the module.
pub fn run(bytes: &[u8]) {
    let whole = events(std::iter::once(bytes));
    let length = usize::from(bytes.first().copied().unwrap_or(1)).max(1);
    assert_eq!(whole, events(bytes.chunks(length)));
    // Bytes that are no UTF-8 are replaced by three each.
    assert!(whole.0.iter().all(|event| event.len() <= 3 * MOST));
}

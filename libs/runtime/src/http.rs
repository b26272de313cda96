//! The data port: one listener for HTTP/1.1 and HTTP/2, bounded, drained with a deadline.

mod accept;
mod layers;

pub(crate) use accept::serve;
pub(crate) use layers::{Layers, fallback};

//! The data port: one listener for HTTP/1.1 and HTTP/2, bounded, drained with a deadline.

mod accept;
mod answers;
mod arrival;
mod beginning;
mod body;
mod contract;
mod express;
mod idle;
mod layers;
mod named;
mod requests;

pub(crate) use accept::serve;
pub(crate) use answers::{GRPC_STATUS, fallback, not_yet};
pub(crate) use body::http_status;
pub(crate) use contract::Contract;
pub(crate) use express::Answers;
pub(crate) use layers::Layers;
pub(crate) use requests::{Requests, error_type};

//! A2A's three bindings, gRPC, JSON-RPC and HTTP+JSON, over one [`Service`].
//!
//! The router and every agent of the SDK serve the same protocol, so what a binding does exists once: it reads a
//! [`Request`], hands it over with its [`Head`], and writes the [`Reply`] or the status that comes back. A service
//! knows no binding, which is how all of them behave alike.
//!
//! ```text
//! grpc.rs  jsonrpc.rs  rest.rs     a request of one binding and its answer
//!    codec.rs  error.rs  sse.rs    ProtoJSON, the map of errors, event streams
//!          service.rs              what all of them speak
//! ```
//!
//! The one currency for what goes wrong is [`tonic::Status`] with `google.rpc` details; [`error`] is the only map from it
//! to JSON-RPC numbers and HTTP statuses, and names A2A's own errors.
//!
//! Envelope, method names and ProtoJSON are the official crates'. The dispatchers are our own and not those of
//! `a2a-server-lf`: those rename every error's reason and domain to one of A2A's, so that QUEUE_FULL or MESSAGE_EXPIRED
//! would arrive as INTERNAL_ERROR; check the version on one binding and not on the next; and cannot answer with a header.

pub mod card;
pub mod client;
mod codec;
pub mod error;
pub mod grpc;
mod http_face;
pub mod join;
mod jsonrpc;
mod rest;
pub mod service;
mod sse;

pub use codec::event as event_json;
pub use error::ProtocolError;
pub use grpc::Grpc;
pub use http_face::{Face, routes};
pub use service::{Answer, Binding, Events, Head, Reply, Request, Service};

/// The version of A2A that is spoken.
pub const SUPPORTED_VERSION: &str = "1.0";

//! Muster's contract in Rust: the generated services, and the catalogue of errors that all of them speak.
//!
//! The A2A package (`lf.a2a.v1`) is the official crate's ([`a2a_pb`]), re-exported as [`a2a`]; ours are generated
//! from `proto/` at build time. The alternative, generating A2A here as well, would give two type families for
//! one wire format and cut us off from the official server and client crates.

pub mod error;
pub mod extension;
pub mod json;
pub mod names;
pub mod time;

/// The A2A 1.0 wire types and its tonic client and server.
pub use a2a_pb::proto as a2a;

/// What an operator changes in a service while it runs.
#[allow(
    missing_docs,
    reason = "generated; documented in proto/muster/admin/v1/admin.proto"
)]
pub mod admin {
    tonic::include_proto!("muster.admin.v1");
}

/// The registry's contract.
#[allow(
    missing_docs,
    clippy::large_enum_variant,
    reason = "generated; documented in proto/muster/registry/v1/registry.proto"
)]
pub mod registry {
    tonic::include_proto!("muster.registry.v1");
}

/// The router's own contract.
#[allow(
    missing_docs,
    clippy::large_enum_variant,
    reason = "generated; documented in proto/muster/router/v1/"
)]
pub mod router {
    tonic::include_proto!("muster.router.v1");
}

/// The workflow engine's contract.
#[allow(
    missing_docs,
    clippy::large_enum_variant,
    reason = "generated; documented in proto/muster/workflow/v1/workflow.proto"
)]
pub mod workflow {
    tonic::include_proto!("muster.workflow.v1");
}

/// Encoded `FileDescriptorSet` of the whole contract, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

//! Compiles `proto/` without a protoc binary: protox parses, tonic-prost-build generates.
//!
//! The A2A messages come from the official crate `a2a-pb`; of our copy of that contract only the descriptors
//! are kept, for reflection.

use std::path::PathBuf;

use prost::Message as _;

const A2A: &str = "a2a/v1/a2a.proto";
const OURS: [&str; 3] = [
    "muster/registry/v1/registry.proto",
    "muster/router/v1/router.proto",
    "muster/workflow/v1/workflow.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", root.display());

    let all = protox::compile(std::iter::once(A2A).chain(OURS), [&root])?;
    std::fs::write(out.join("descriptors.bin"), all.encode_to_vec())?;

    // The A2A descriptors stay in the set, because ours refer to them; `extern_path` maps them to the official
    // crate, so that there is one type family.
    tonic_prost_build::configure()
        .extern_path(".lf.a2a.v1", "::a2a_pb::proto")
        .compile_fds(all)?;
    Ok(())
}

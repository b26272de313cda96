//! Compiles `proto/` without a protoc binary: protox parses, tonic-prost-build generates.
//!
//! The A2A messages come from the official crate `a2a-pb`; of our copy of that contract only the descriptors
//! are kept, for reflection.
//!
//! The descriptors are written as protox encodes them: the options that give an RPC its HTTP path are extensions, which
//! prost's own descriptor types drop.

use std::path::PathBuf;

const A2A: &str = "a2a/v1/a2a.proto";
const OURS: &[&str] = &[
    "muster/admin/v1/admin.proto",
    "muster/registry/v1/registry.proto",
    "muster/router/v1/inbox.proto",
    "muster/router/v1/router.proto",
    "muster/workflow/v1/backup.proto",
    "muster/workflow/v1/schedule.proto",
    "muster/workflow/v1/event.proto",
    "muster/workflow/v1/optimization.proto",
    "muster/workflow/v1/workflow.proto",
    "muster/workflow/v1/approval.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", root.display());

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(std::iter::once(A2A).chain(OURS.iter().copied()))?;
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let all = compiler.file_descriptor_set();

    // The A2A descriptors stay in the set, because ours refer to them; `extern_path` maps them to the official
    // crate, so that there is one type family.
    tonic_prost_build::configure()
        .extern_path(".lf.a2a.v1", "::a2a_pb::proto")
        .compile_fds(all)?;
    Ok(())
}

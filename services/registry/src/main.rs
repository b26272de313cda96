//! The registry as a process of its own.

use std::process::ExitCode;

use muster_registry::Config;

fn main() -> ExitCode {
    muster_runtime::main("muster-registry", Config::default(), muster_registry::run)
}

//! The router as a process of its own.

use std::process::ExitCode;

use muster_router::Config;

fn main() -> ExitCode {
    muster_runtime::main("muster-router", Config::default(), muster_router::run)
}

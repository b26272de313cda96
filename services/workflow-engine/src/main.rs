//! The workflow engine as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_runtime::main(
        "workflow-engine",
        muster_workflow_engine::Config::default(),
        muster_workflow_engine::run,
    )
}

//! The data-analysis agent as a process of its own.

use std::process::ExitCode;

use muster_agent_data_analysis::{defaults, run};

fn main() -> ExitCode {
    muster_runtime::main("muster-agent-data-analysis", defaults(), run)
}

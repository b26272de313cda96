//! The planning agent as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_runtime::main(
        "muster-agent-planning",
        muster_agent_planning::defaults(),
        muster_agent_planning::run,
    )
}

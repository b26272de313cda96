//! The security-monitor agent as a process of its own.

use std::process::ExitCode;

use muster_agent_security_monitor::{defaults, run};

fn main() -> ExitCode {
    muster_runtime::main("muster-agent-security-monitor", defaults(), run)
}

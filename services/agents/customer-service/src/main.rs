//! The customer-service agent as a process of its own.

use std::process::ExitCode;

use muster_agent_customer_service::{defaults, run};

fn main() -> ExitCode {
    muster_runtime::main("muster-agent-customer-service", defaults(), run)
}

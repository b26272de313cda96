//! The weather agent's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_runtime::main(
        "muster-agent-weather",
        muster_agent_weather::config(),
        muster_agent_weather::run,
    )
}

//! The planning agent: tasks with durations, dependencies and a start date become a schedule.
//!
//! ```text
//! agent.rs      the SDK's side: message in, reply out
//! skill.rs      the seven skills, pure: request in, answer out
//! outline.rs    a list as people type it     plan/request.rs    JSON, every field checked
//! plan.rs  calendar.rs  schedule.rs          tasks on working time, critical path
//! timeline.rs  milestone.rs  risk.rs  resource.rs  dependency.rs  progress.rs  optimization.rs
//! ```
//!
//! Nothing here asks the clock or a random number: the same request has the same answer, which is why every
//! skill is idempotent. Estimating durations or inventing tasks from prose was left out; a schedule is only as
//! good as its durations, and those must come from somebody who knows.

mod agent;
pub mod calendar;
pub mod dependency;
pub mod milestone;
pub mod optimization;
pub mod outline;
pub mod plan;
pub mod progress;
pub mod resource;
pub mod risk;
pub mod schedule;
pub mod skill;
pub mod timeline;

use muster_runtime::{Error, Listeners, Shutdown};

pub use agent::{Planning, Settings};

/// Configuration of the agent's process.
pub type Config = muster_agent_sdk::Config<Settings>;

/// The defaults: the agent's ports on one machine.
#[must_use]
pub fn defaults() -> Config {
    Config::on_ports(7412, 7512, 7612)
}

/// Serves until the shutdown is requested.
pub async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
    muster_agent_sdk::run(config, listeners, shutdown, |settings| {
        Ok(Planning::new(*settings))
    })
    .await
}

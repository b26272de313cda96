//! The security-monitor agent: threats in log lines, by Sigma rules and unusual rates, and a plan for what to do.
//!
//! ```text
//! agent          A2A in and out; evaluates off the async threads, as many at once as there are processors
//!  ├ log             bounded lines, in order of time
//!  │   └ event           JSON lines and syslog as fields
//!  │       └ authentication  what sshd, sudo, su and the account tools say
//!  ├ rules           Sigma rules, built in and from a folder, checked at the start
//!  ├ detection       a log against the rules
//!  │   ├ anomaly         sources that are much louder than usual
//!  │   └ finding         severity, evidence, risk
//!  ├ statistics      a log by type, source and user
//!  └ response        from findings to an ordered plan
//! ```
//!
//! Nothing is kept between requests: each log is evaluated by itself, so that no caller's events count towards
//! another's findings. Everything but `agent` is plain data and functions.

use std::sync::Arc;

use muster_agent_sdk::Config;
use muster_runtime::clock::SystemClock;
use muster_runtime::{Error, Listeners, Shutdown};

pub mod agent;
pub mod anomaly;
pub mod authentication;
pub mod detection;
pub mod event;
pub mod finding;
pub mod log;
pub mod response;
pub mod rules;
pub mod statistics;

pub use agent::{SecurityMonitor, Settings};

/// The defaults on one machine.
#[must_use]
pub fn defaults() -> Config<Settings> {
    Config::on_ports(7415, 7515, 7615)
}

/// Serves the agent until shutdown is requested.
///
/// # Errors
/// When a detection rule cannot be used, or serving fails.
pub async fn run(config: Config<Settings>, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
    let build = |settings: &Settings| SecurityMonitor::new(settings, Arc::new(SystemClock::default()));
    muster_agent_sdk::run(config, listeners, shutdown, build).await
}

//! The data-analysis agent: statistics, grouping, SQL and charts over a table that comes with the request.
//!
//! ```text
//! agent      A2A in and out; computes off the async threads, as many at once as there are processors
//!  └ job         the request: one table and what to do
//!     ├ table        typed columns from CSV and JSON, bounded
//!     └ analysis     runs the operations into one answer
//!         ├ statistics, group     pure figures
//!         ├ sql                   one SELECT in a caged SQLite
//!         └ chart                 SVG
//! ```
//!
//! Nothing outlives a request: no table, no connection, no file. Everything but `agent` is plain data and functions.

use std::sync::Arc;

use muster_agent_sdk::{Config, NoSettings};
use muster_runtime::clock::SystemClock;
use muster_runtime::{Error, Listeners, Shutdown};

pub mod agent;
pub mod analysis;
pub mod chart;
pub mod group;
pub mod job;
pub mod operation;
pub mod sql;
pub mod statistics;
pub mod table;

pub use agent::DataAnalysis;

/// The defaults on one machine.
#[must_use]
pub fn defaults() -> Config<NoSettings> {
    Config::on_ports(7414, 7514, 7614)
}

/// Serves the agent until shutdown is requested.
///
/// # Errors
/// When serving fails.
pub async fn run(config: Config<NoSettings>, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
    let build = |_: &NoSettings| Ok(DataAnalysis::new(Arc::new(SystemClock::default())));
    muster_agent_sdk::run(config, listeners, shutdown, build).await
}

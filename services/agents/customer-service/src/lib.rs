//! The customer-service agent: answers from a folder of Markdown, asks back, escalates, and writes to customers.
//!
//! ```text
//! agent          A2A in and out; follow-ups are judged with what was said before
//!  ├ inquiry         answer, ask back, or hand over
//!  │   ├ search          full text with a confidence from 0 to 1
//!  │   └ escalation      when a person takes over, how soon, who
//!  ├ knowledge       the documents: a folder, or Muster's own
//!  │   └ passage         Markdown split by heading
//!  └ notification    facts rendered as a message
//! ```
//!
//! Every answer is a quotation with its source: the agent says nothing that no document says. Rejected: generated
//! wording, which reads better and cannot be checked.

use muster_agent_sdk::Config;
use muster_runtime::{Error, Listeners, Shutdown};

pub mod agent;
pub mod escalation;
pub mod inquiry;
pub mod knowledge;
pub mod metrics;
pub mod notification;
pub mod passage;
pub mod search;

pub use agent::{CustomerService, Settings};

/// The defaults on one machine.
#[must_use]
pub fn defaults() -> Config<Settings> {
    Config::on_ports(7413, 7513, 7613)
}

/// Serves the agent until shutdown is requested.
///
/// # Errors
/// When the documents cannot be read, or serving fails.
pub async fn run(config: Config<Settings>, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
    muster_agent_sdk::run(config, listeners, shutdown, CustomerService::new).await
}

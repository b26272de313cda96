//! The scripted attacker: a list of attacks, each with what is sent, what is answered, and what remains of it in the audit log and the
//! metrics.
//!
//! ```text
//! attacker.rs      what is common to all: whether a line is written
//!   table.rs         the rows of the README's table
//!   requests.rs      what is asked of a fleet that wants tokens
//!   connections.rs   what does not get as far as a request
//! ```

mod connections;
mod requests;
mod table;

use std::path::Path;

use muster_runtime::trust::audit::chain;
use muster_testkit::wait_for;
use muster_tests::PATIENCE;
use serde_json::Value;

/// Waits until there is such a line in an audit log.
async fn is_written(log: &Path, what: &str, is_it: impl Fn(&Value) -> bool) {
    wait_for(what, PATIENCE, async || {
        let lines = chain::lines(log).map_err(|error| error.to_string())?;
        if lines.iter().any(&is_it) {
            Ok(())
        } else {
            let last: Vec<String> = lines.iter().rev().take(20).map(Value::to_string).collect();
            Err(last.join("\n"))
        }
    })
    .await;
}

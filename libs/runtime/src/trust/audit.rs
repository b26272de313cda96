//! The audit log: who wanted what, and whether it was allowed, in a chain that shows whether anything was changed afterwards.
//!
//! ```text
//! audit.rs     what a line says, and the configuration
//!   chain.rs     lines with their hashes, and the verification of a directory: pure but for reading
//!   log.rs       the files: appended, rotated, recovered
//!   own.rs       what a service changes by itself
//!   counted.rs   lines of which there could be a flood
//!   turned_away.rs   who does not get as far as a request
//!   limited.rs   who makes more requests than he may
//! ```
//!
//! One JSON object per line, in its canonical form (RFC 8785). Each has the hash of the line before it (`previous`) and its own
//! (`hash`, SHA-256 over the line without it), across files and restarts: whoever changes, removes or inserts a line breaks
//! the chain there. Who can write the files can write a whole new chain; so keep the last hash (`muster audit verify` prints it)
//! where that person cannot write.
//!
//! - **A change is in the log before it is made**: written to the operating system, and refused where that fails (disk full).
//! - Work for agents (messages) is allowed once its line has a place in a bounded buffer, which is written every 200 ms; a process
//!   that is killed loses that much. While the log cannot be written, no more work is taken.
//! - Refusals are written as work is; what they had to leave out while the log could not be written is counted in a line of its own.
//! - The machine's sudden end may lose the last second: the files are synchronized once a second.
//!
//! Lines are events as the security monitor reads them (`event`, `source_ip`, `user`), and name no secret: tokens are never in
//! them, and texts of strangers are cut.

pub mod chain;
mod counted;
pub(crate) mod limited;
pub(crate) mod log;
mod own;
pub(crate) mod turned_away;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Mistakes;

pub(crate) use limited::Limited;
pub(crate) use log::{Log, Urgency};
pub use own::Auditor;
pub(crate) use turned_away::{TurnedAway, Why};

/// Longest text of a stranger's in a line, in characters.
const LONGEST: usize = 256;

/// The section `trust.audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the log is: in a folder of the service's name, which one process uses at a time. None: there is no audit log, and
    /// refusals are in the service's log alone.
    pub directory: Option<PathBuf>,
    /// Bytes of one file; then the next one begins.
    pub rotate_bytes: u64,
    /// Whether what only reads is in the log, too, where it is allowed.
    pub reads: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            directory: None,
            rotate_bytes: 64 << 20,
            reads: false,
        }
    }
}

impl Config {
    /// Adds what is wrong.
    pub(super) fn validate(&self, mistakes: &mut Mistakes) {
        if !(64 << 10..=1 << 40).contains(&self.rotate_bytes) {
            mistakes.add(
                "trust.audit.rotate_bytes",
                "must be from 65536 (64 KiB) to 1099511627776 (1 TiB)",
            );
        }
        if self
            .directory
            .as_ref()
            .is_some_and(|path| path.as_os_str().is_empty())
        {
            mistakes.add(
                "trust.audit.directory",
                "is empty; name a directory, or leave it out",
            );
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A call was allowed.
    Allowed,
    /// A caller may not do that.
    AccessRefused,
    /// Somebody could not say who he is.
    LoginRefused,
    /// Too many of those came from one address.
    LoginLimited,
    /// A caller has made as many requests as it may.
    RateLimited,
    /// Somebody spoke for another without being one of our services.
    ImpersonationRefused,
    /// A service has changed a setting by itself.
    SettingChanged,
    /// Somebody was turned away before there was a request.
    ConnectionRefused,
}

impl Event {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "access_allowed",
            Self::AccessRefused => "access_refused",
            Self::LoginRefused => "login_refused",
            Self::LoginLimited => "login_limited",
            Self::RateLimited => "rate_limited",
            Self::ImpersonationRefused => "impersonation_refused",
            Self::SettingChanged => "setting_changed",
            Self::ConnectionRefused => "connection_refused",
        }
    }

    /// Whether it was allowed.
    #[must_use]
    pub const fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed | Self::SettingChanged)
    }
}

/// One line, without what the log adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    fields: Map<String, Value>,
}

impl Entry {
    pub(crate) fn new(event: Event) -> Self {
        let outcome = if event.is_allowed() { "allowed" } else { "refused" };
        Self::named(event.name()).with("outcome", outcome)
    }

    /// A line of the log's own.
    pub(super) fn named(event: &str) -> Self {
        Self::default().with("event", event)
    }

    /// Adds a field; an empty text is left out, a long one is cut.
    pub(crate) fn with(mut self, name: &str, text: &str) -> Self {
        if !text.is_empty() {
            let cut: String = text.chars().take(LONGEST).collect();
            self.fields.insert(name.to_owned(), Value::from(cut));
        }
        self
    }

    fn into_fields(self) -> Map<String, Value> {
        self.fields
    }
}

//! What a service changes by itself, without anybody having asked: in the log before it is made, as every change.

use std::sync::Arc;

use super::{Entry, Event, Log, Urgency};

/// Writes such lines. Clones write to the same log.
#[derive(Clone, Default)]
pub struct Auditor {
    service: &'static str,
    log: Option<Arc<Log>>,
}

impl std::fmt::Debug for Auditor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Auditor");
        shown.field("service", &self.service).finish_non_exhaustive()
    }
}

impl Auditor {
    /// Of a service with this log, if it has one.
    pub(crate) const fn new(service: &'static str, log: Option<Arc<Log>>) -> Self {
        Self { service, log }
    }

    /// The service is about to change something, because of this. It writes to the disk: to be called where blocking is allowed.
    ///
    /// # Errors
    /// The log cannot be written; then nothing may be changed.
    pub fn changes(&self, action: &str, object: &str, because: &str) -> Result<(), String> {
        let Some(log) = &self.log else { return Ok(()) };
        let entry = Entry::new(Event::SettingChanged)
            .with("user", self.service)
            .with("action", action)
            .with("object", object)
            .with("reason", because);
        log.append(entry, Urgency::Now)
    }
}

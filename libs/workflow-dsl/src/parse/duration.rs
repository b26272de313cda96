//! Durations and timeouts.

use std::time::Duration;

use super::Reader;
use super::cursor::Cursor;
use crate::duration::{self, UNITS};
use crate::node::Content;

impl Reader {
    /// A duration: ISO 8601 text or an object of units.
    pub(super) fn duration(&mut self, at: &Cursor<'_>) -> Option<Duration> {
        let result = match &at.node.content {
            Content::Text(text) if super::embedded(text).is_some() => {
                self.wrong(at, "runtime expressions in durations are not supported yet");
                return None;
            }
            Content::Text(text) => duration::parse(text),
            Content::Object(_) => return self.duration_of_units(at),
            _ => Err(duration::Error::Form),
        };
        result.map_err(|error| self.wrong(at, error.to_string())).ok()
    }

    fn duration_of_units(&mut self, at: &Cursor<'_>) -> Option<Duration> {
        let fields = self.fields(at, &UNITS.map(|(name, _)| name), &[])?;
        if fields.entries.is_empty() {
            self.wrong(at, "a duration needs at least one unit, such as {seconds: 30}");
            return None;
        }
        let mut sum = Duration::ZERO;
        for (name, milliseconds) in UNITS {
            let Some(field) = fields.get(name) else { continue };
            let amount = self.integer(&field, 0, u64::MAX)?;
            sum = match duration::add(sum, amount, milliseconds) {
                Ok(sum) => sum,
                Err(error) => {
                    self.wrong(&field, error.to_string());
                    return None;
                }
            };
        }
        Some(sum)
    }

    /// `timeout`: written here, or the name of one in `use.timeouts`.
    pub(super) fn timeout(&mut self, at: &Cursor<'_>) -> Option<Duration> {
        if let Content::Text(name) = &at.node.content {
            return self.reused_timeout(at, name);
        }
        self.inline_timeout(at)
    }

    pub(super) fn inline_timeout(&mut self, at: &Cursor<'_>) -> Option<Duration> {
        let fields = self.fields(at, &["after"], &[])?;
        let after = self.require(&fields, "after")?;
        let timeout = self.duration(&after)?;
        if timeout.is_zero() {
            self.wrong(
                &after,
                "a timeout must be above zero, or nothing could ever finish in it",
            );
            return None;
        }
        Some(timeout)
    }
}

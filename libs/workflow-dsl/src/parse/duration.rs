//! Durations and timeouts.

use std::time::Duration;

use super::Reader;
use super::cursor::Cursor;
use crate::document::{Period, Template};
use crate::duration::{self, UNITS};
use crate::node::Content;

impl Reader {
    /// A duration: ISO 8601 text, an object of units, or an expression that yields one of them.
    pub(super) fn duration(&mut self, at: &Cursor<'_>) -> Option<Period> {
        let result = match &at.node.content {
            Content::Text(text) if super::embedded(text).is_some() => {
                let expression = self.expression(at, text)?;
                return Some(Period::Computed(Template::Expression(expression)));
            }
            Content::Text(text) => duration::parse(text),
            Content::Object(entries) => {
                let computed =
                    |value: &Content| matches!(value, Content::Text(text) if super::embedded(text).is_some());
                if entries.iter().any(|entry| computed(&entry.value.content)) {
                    self.fields(at, &UNITS.map(|(name, _)| name))?;
                    return self.template(at).map(Period::Computed);
                }
                return self.duration_of_units(at).map(Period::Fixed);
            }
            _ => Err(duration::Error::Form),
        };
        if let (Err(_), Content::Text(text), true) = (&result, &at.node.content, self.loose)
            && let Some(expression) = self.tentative(at, text)
        {
            return Some(Period::Computed(Template::Expression(expression)));
        }
        let duration = result.map_err(|error| self.wrong(at, error.to_string())).ok()?;
        Some(Period::Fixed(duration))
    }

    fn duration_of_units(&mut self, at: &Cursor<'_>) -> Option<Duration> {
        let fields = self.fields(at, &UNITS.map(|(name, _)| name))?;
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
    pub(super) fn timeout(&mut self, at: &Cursor<'_>) -> Option<Period> {
        if let Content::Text(name) = &at.node.content {
            return self.reused_timeout(at, name);
        }
        self.inline_timeout(at)
    }

    pub(super) fn inline_timeout(&mut self, at: &Cursor<'_>) -> Option<Period> {
        let fields = self.fields(at, &["after"])?;
        let after = self.require(&fields, "after")?;
        let timeout = self.duration(&after)?;
        if timeout.fixed().is_some_and(|timeout| timeout.is_zero()) {
            self.wrong(
                &after,
                "a timeout must be above zero, or nothing could ever finish in it",
            );
            return None;
        }
        Some(timeout)
    }
}

//! A log: bounded lines, in order of time.
//!
//! At most [`MAX_BYTES`] and [`MAX_LINES`] are accepted; more is refused, since findings about half a log would look
//! like findings about it. A line longer than [`MAX_LINE_BYTES`] is cut, and counted. A malformed line is counted, and
//! the first few are shown; it never spoils the rest.
//!
//! Lines are read twice, once for their time and once for their fields: a parsed log takes many times the memory of
//! its text, and reading it again takes a fraction of a second.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::event::{Calendar, Event, Format, parse};

/// Most bytes of a log.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most lines of a log.
pub const MAX_LINES: usize = 100_000;
/// Longest line, in bytes; the rest is cut.
pub const MAX_LINE_BYTES: usize = 8 * 1024;
/// Malformed lines that are shown.
const SHOWN_MALFORMED: usize = 5;
/// Characters of a line that are quoted.
const MAX_QUOTED: usize = 300;

/// Why a log is not read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Too large.
    #[error("the log has {actual} {what}, and at most {limit} are read; send it in parts")]
    TooLarge {
        /// Bytes or lines.
        what: &'static str,
        /// How many there are.
        actual: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Nothing in it.
    #[error("the log is empty")]
    Empty,
    /// Nothing that is understood.
    #[error(
        "none of the {lines} lines is an event: line {first} {why}; JSON lines and syslog are understood"
    )]
    NoEvents {
        /// How many lines.
        lines: usize,
        /// The first malformed one.
        first: usize,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A log.
#[derive(Debug, Clone)]
pub struct Log<'a> {
    lines: Vec<&'a str>,
    /// The lines that are events, in order of time; those without a time at their place in the log.
    order: Vec<(Option<Timestamp>, u32)>,
    malformed: Vec<(usize, &'static str)>,
    malformed_count: usize,
    cut: usize,
    without_time: usize,
    format: Format,
    calendar: Calendar,
}

impl<'a> Log<'a> {
    /// Reads a log.
    ///
    /// # Errors
    /// When it is too large, or none of its lines is an event.
    pub fn new(text: &'a str, format: Format, calendar: Calendar) -> Result<Self, Error> {
        bounded("bytes", text.len(), MAX_BYTES)?;
        let mut lines = Vec::new();
        let mut cut = 0;
        for line in text.lines() {
            bounded("lines", lines.len() + 1, MAX_LINES)?;
            let end = line.floor_char_boundary(MAX_LINE_BYTES);
            cut += usize::from(end < line.len());
            lines.push(line.get(..end).unwrap_or(line));
        }
        let mut log = Self {
            lines,
            order: Vec::new(),
            malformed: Vec::new(),
            malformed_count: 0,
            cut,
            without_time: 0,
            format,
            calendar,
        };
        log.put_in_order()?;
        Ok(log)
    }

    fn put_in_order(&mut self) -> Result<(), Error> {
        let mut latest = None;
        let mut keys = Vec::new();
        for (number, line) in (0_u32..).zip(&self.lines) {
            if line.trim().is_empty() {
                continue;
            }
            match parse(line, self.format, self.calendar) {
                Ok(event) => {
                    self.without_time += usize::from(event.time.is_none());
                    latest = event.time.or(latest);
                    keys.push((latest, event.time, number));
                }
                Err(why) => {
                    self.malformed_count += 1;
                    if self.malformed.len() < SHOWN_MALFORMED {
                        self.malformed.push((number as usize + 1, why));
                    }
                }
            }
        }
        if keys.is_empty() {
            return Err(match self.malformed.first() {
                None => Error::Empty,
                Some(&(first, why)) => Error::NoEvents {
                    lines: self.malformed_count,
                    first,
                    why,
                },
            });
        }
        keys.sort_by_key(|(latest, _, number)| (*latest, *number));
        self.order = keys.into_iter().map(|(_, time, number)| (time, number)).collect();
        Ok(())
    }

    /// The events in order of time, each with the number of its line, counted from 1.
    pub fn events(&self) -> impl Iterator<Item = (usize, Event)> {
        self.order.iter().filter_map(|&(_, number)| {
            let line = self.lines.get(number as usize)?;
            Some((number as usize + 1, parse(line, self.format, self.calendar).ok()?))
        })
    }

    /// A line as it can be shown: shortened, and without control characters.
    #[must_use]
    pub fn quote(&self, number: usize) -> String {
        let line = number
            .checked_sub(1)
            .and_then(|index| self.lines.get(index))
            .copied()
            .unwrap_or_default();
        quoted(line)
    }

    /// The first and the last time.
    #[must_use]
    pub fn period(&self) -> Option<(Timestamp, Timestamp)> {
        let mut times = self.order.iter().filter_map(|(time, _)| *time);
        let first = times.next()?;
        Some((first, times.next_back().unwrap_or(first)))
    }

    /// What was read, as the answer shows it.
    #[must_use]
    pub fn describe(&self) -> Value {
        let examples: Vec<Value> = self
            .malformed
            .iter()
            .map(|&(number, why)| json!({"line": number, "text": self.quote(number), "why": why}))
            .collect();
        let period = self.period().map(|(from, to)| {
            json!({"from": muster_api::time::rfc3339(from), "to": muster_api::time::rfc3339(to)})
        });
        json!({"lines": self.lines.len(), "events": self.order.len(), "malformed": self.malformed_count,
            "malformed_examples": examples, "cut_lines": self.cut, "without_time": self.without_time, "period": period})
    }
}

fn bounded(what: &'static str, actual: usize, limit: usize) -> Result<(), Error> {
    if actual > limit {
        Err(Error::TooLarge { what, actual, limit })
    } else {
        Ok(())
    }
}

fn quoted(line: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut text: String = line.trim().chars().take(MAX_QUOTED).map(clean).collect();
    if line.trim().chars().nth(MAX_QUOTED).is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Log<'_>, Error> {
        let calendar = Calendar {
            now: "2025-03-20T00:00:00Z".parse().unwrap(),
            year: None,
        };
        Log::new(text, Format::Auto, calendar)
    }

    #[test]
    fn events_come_in_order_of_time_and_malformed_lines_are_counted() {
        let text = "Mar 14 08:00:02 h a[1]: second\nnonsense\n{\"x\": 1}\nMar 14 08:00:01 h a[1]: first\n\n";
        let log = read(text).unwrap();
        let numbers: Vec<usize> = log.events().map(|(number, _)| number).collect();
        assert_eq!(numbers, [4, 1, 3]);
        let described = log.describe();
        assert_eq!(
            (&described["events"], &described["malformed"]),
            (&json!(3), &json!(1))
        );
        assert_eq!(described["malformed_examples"][0]["line"], 2);
        assert_eq!(described["without_time"], 1);
        assert_eq!(described["period"]["from"], "2025-03-14T08:00:01.000Z");
    }

    #[test]
    fn long_lines_are_cut_and_quotations_are_clean() {
        let long = format!(
            "Mar 14 08:00:02 h a[1]: \u{1b}[31m{}\n",
            "é".repeat(MAX_LINE_BYTES)
        );
        let log = read(&long).unwrap();
        assert_eq!(log.describe()["cut_lines"], 1);
        let quote = log.quote(1);
        assert!(quote.chars().count() == MAX_QUOTED + 1 && !quote.contains('\u{1b}'));
        assert_eq!(log.quote(99), "");
    }

    #[test]
    fn logs_that_cannot_be_read_are_refused() {
        assert_eq!(read("\n \n").unwrap_err(), Error::Empty);
        assert!(matches!(
            read("hello\nworld\n"),
            Err(Error::NoEvents {
                lines: 2,
                first: 1,
                ..
            })
        ));
        assert!(matches!(
            read(&"\n".repeat(MAX_LINES + 1)),
            Err(Error::TooLarge { what: "lines", .. })
        ));
        assert!(matches!(
            read(&"x".repeat(MAX_BYTES + 1)),
            Err(Error::TooLarge { what: "bytes", .. })
        ));
    }

    proptest! {
        #[test]
        fn every_line_is_an_event_malformed_or_blank(lines in proptest::collection::vec("(Mar 1 10:00:0[0-9] h a\\[1\\]: x|\\{\\}|bad| )", 1..40)) {
            let text = lines.join("\n");
            let blank = lines.iter().filter(|line| line.trim().is_empty()).count();
            if let Ok(log) = read(&text) {
                let described = log.describe();
                let count = |key: &str| usize::try_from(described[key].as_u64().unwrap()).unwrap();
                prop_assert_eq!(count("events") + count("malformed") + blank, lines.len());
                prop_assert_eq!(log.events().count(), count("events"));
                let times: Vec<_> = log.events().filter_map(|(_, event)| event.time).collect();
                prop_assert!(times.is_sorted());
            }
        }
    }
}

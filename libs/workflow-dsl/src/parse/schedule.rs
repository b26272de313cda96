//! `schedule`.

use std::time::Duration;

use super::Reader;
use super::cursor::Cursor;
use crate::document::{Cron, Period, Schedule};

/// The shortest interval.
const SHORTEST: Duration = Duration::from_millis(100);

/// What a schedule may say.
const WAYS: [&str; 3] = ["after", "cron", "every"];

impl Reader {
    /// `schedule` without `on`: one of `every`, `cron` and `after`.
    pub(super) fn schedule(&mut self, at: &Cursor<'_>) -> Option<Schedule> {
        let fields = self.fields(at, &["after", "cron", "every", "on"])?;
        let mut ways = WAYS.iter().filter(|way| fields.has(way));
        let (Some(way), None) = (ways.next(), ways.next()) else {
            self.wrong(at, "a schedule says one of 'every', 'cron', 'after' and 'on'");
            return None;
        };
        let field = self.require(&fields, way)?;
        match *way {
            "cron" => {
                let text = self.text(&field)?;
                let cron = text.parse::<Cron>();
                cron.map(Schedule::Cron)
                    .map_err(|mistake| self.wrong(&field, mistake.to_string()))
                    .ok()
            }
            "every" => self.interval(&field).map(Schedule::Every),
            _ => self.interval(&field).map(Schedule::After),
        }
    }

    fn interval(&mut self, at: &Cursor<'_>) -> Option<Duration> {
        match self.duration(at)? {
            Period::Fixed(duration) if duration >= SHORTEST => Some(duration),
            Period::Fixed(_) => {
                self.wrong(at, format!("must be at least {} ms", SHORTEST.as_millis()));
                None
            }
            Period::Computed(_) => {
                self.wrong(at, "cannot be computed: nothing is known before a run begins");
                None
            }
        }
    }
}

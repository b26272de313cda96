//! `schedule`: when runs of a workflow begin by themselves.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::time::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// When runs begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// `every`: at this interval, whatever the runs before do.
    Every(Duration),
    /// `cron`: at these times, in UTC.
    Cron(Cron),
    /// `after`: so long after the end of the run before.
    After(Duration),
}

impl Schedule {
    /// The first instant after `time` that the schedule itself knows, counted from `anchor`. None, if it depends on the
    /// end of a run, or if there is none any more.
    #[must_use]
    pub fn next(&self, anchor: Timestamp, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(interval) => next_multiple(*interval, anchor, time),
            Self::Cron(cron) => cron.next(time),
            Self::After(_) => None,
        }
    }
}

/// The first `anchor + n * interval`, n from 1, after `time`.
fn next_multiple(interval: Duration, anchor: Timestamp, time: Timestamp) -> Option<Timestamp> {
    let interval = i128::try_from(interval.as_nanos()).ok()?;
    let passed = time.as_nanosecond() - anchor.as_nanosecond();
    let steps = passed.checked_div_euclid(interval)?.max(0) + 1;
    Timestamp::from_nanosecond(anchor.as_nanosecond().checked_add(steps.checked_mul(interval)?)?).ok()
}

/// Times in the notation of cron: five fields, or six with seconds before them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    pattern: Box<croner::Cron>,
}

/// Why text is no times in the notation of cron.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronMistake {
    /// It has another form.
    #[error(
        "is not a cron expression: {0}; five fields are minute, hour, day of month, month and day of week, such as '0 8 * * MON-FRI', and six have the second first"
    )]
    Form(String),
    /// The day it names does not exist.
    #[error("names a time that never comes")]
    Never,
}

impl Cron {
    /// The first such time after `time`.
    #[must_use]
    pub fn next(&self, time: Timestamp) -> Option<Timestamp> {
        let found = self.pattern.find_next_occurrence(&Utc::from(time), false).ok()?;
        Offset::UTC.to_timestamp(found.0).ok()
    }

    /// As the author wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Cron {
    type Err = CronMistake;

    fn from_str(text: &str) -> Result<Self, CronMistake> {
        const LONGEST: usize = 256;
        if text.len() > LONGEST {
            return Err(CronMistake::Form(format!("it has more than {LONGEST} bytes")));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let pattern = parser.parse(text);
        let cron = Self {
            text: text.to_owned(),
            pattern: Box::new(pattern.map_err(|error| CronMistake::Form(error.to_string()))?),
        };
        cron.next(Timestamp::UNIX_EPOCH).ok_or(CronMistake::Never)?;
        Ok(cron)
    }
}

impl TryFrom<String> for Cron {
    type Error = CronMistake;

    fn try_from(text: String) -> Result<Self, CronMistake> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Cron").field(&self.text).finish()
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

/// A time of the calendar in UTC, for croner: it knows another version of jiff.
#[derive(Debug, Clone, Copy)]
struct Utc(DateTime);

impl From<Timestamp> for Utc {
    fn from(time: Timestamp) -> Self {
        Self(Offset::UTC.to_datetime(time))
    }
}

impl CronDateTime for Utc {
    fn to_civil(&self) -> CivilDateTime {
        let (date, time) = (self.0.date(), self.0.time());
        let part = |number: i8| u32::try_from(number).unwrap_or_default();
        // The parts of a date and of a time of jiff are within their ranges.
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(date.year().into(), part(date.month()), part(date.day())),
            CivilTime::from_parts_unchecked(part(time.hour()), part(time.minute()), part(time.second())),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        match self.0.date().weekday() {
            jiff::civil::Weekday::Monday => Weekday::Monday,
            jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
            jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
            jiff::civil::Weekday::Thursday => Weekday::Thursday,
            jiff::civil::Weekday::Friday => Weekday::Friday,
            jiff::civil::Weekday::Saturday => Weekday::Saturday,
            jiff::civil::Weekday::Sunday => Weekday::Sunday,
        }
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let part = |number: u32| i8::try_from(number).map_err(|_| CronError::InvalidTime);
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let time = DateTime::new(
            year,
            part(civil.month())?,
            part(civil.day())?,
            part(civil.hour())?,
            part(civil.minute())?,
            part(civil.second())?,
            0,
        );
        time.map(|time| Resolution::Single(Self(time)))
            .map_err(|_| CronError::InvalidDate)
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0
            .checked_add(SignedDuration::from_secs(seconds))
            .ok()
            .map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn after(cron: &str, time: &str) -> String {
        let cron: Cron = cron.parse().unwrap_or_else(|error| panic!("{cron} {error}"));
        cron.next(at(time)).unwrap().to_string()
    }

    #[test]
    fn times_of_cron_are_those_of_utc() {
        assert_eq!(after("0 0 * * *", "2026-03-01T12:00:00Z"), "2026-03-02T00:00:00Z");
        assert_eq!(after("0 0 * * *", "2026-03-01T00:00:00Z"), "2026-03-02T00:00:00Z");
        assert_eq!(
            after("*/15 * * * *", "2026-03-01T12:00:00.5Z"),
            "2026-03-01T12:15:00Z"
        );
        assert_eq!(
            after("30 8 * * MON-FRI", "2026-02-27T09:00:00Z"),
            "2026-03-02T08:30:00Z"
        );
        assert_eq!(
            after("*/10 * * * * *", "2026-03-01T12:00:01Z"),
            "2026-03-01T12:00:10Z"
        );
        assert_eq!(
            after("0 0 29 2 *", "2026-03-01T12:00:00Z"),
            "2028-02-29T00:00:00Z"
        );
        assert_eq!(after("@daily", "2026-03-01T12:00:00Z"), "2026-03-02T00:00:00Z");
    }

    #[test]
    fn what_is_no_cron_expression_says_so() {
        for text in [
            "",
            "often",
            "* * * *",
            "61 * * * *",
            "* * * * * * 2030",
            "0 0 0/0 * *",
        ] {
            assert!(
                matches!(text.parse::<Cron>(), Err(CronMistake::Form(_))),
                "{text}"
            );
        }
        assert_eq!("0 0 31 2 *".parse::<Cron>().unwrap_err(), CronMistake::Never);
    }

    #[test]
    fn intervals_keep_their_phase() {
        let every = Schedule::Every(Duration::from_secs(10));
        let anchor = at("2026-03-01T12:00:03Z");
        let next = |time| every.next(anchor, at(time)).unwrap().to_string();
        assert_eq!(next("2026-03-01T12:00:03Z"), "2026-03-01T12:00:13Z");
        assert_eq!(next("2026-03-01T12:00:12.9Z"), "2026-03-01T12:00:13Z");
        assert_eq!(next("2026-03-01T12:00:13Z"), "2026-03-01T12:00:23Z");
        assert_eq!(next("2026-03-01T13:00:00Z"), "2026-03-01T13:00:03Z");
        assert_eq!(next("2026-01-01T00:00:00Z"), "2026-03-01T12:00:13Z");
    }

    #[test]
    fn a_schedule_is_written_and_read() {
        for schedule in [
            Schedule::Every(Duration::from_millis(1500)),
            Schedule::Cron("0 0 * * *".parse().unwrap()),
            Schedule::After(Duration::from_secs(1)),
        ] {
            let text = serde_json::to_string(&schedule).unwrap();
            assert_eq!(
                serde_json::from_str::<Schedule>(&text).unwrap(),
                schedule,
                "{text}"
            );
        }
    }
}

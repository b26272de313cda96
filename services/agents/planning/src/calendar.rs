//! Working time: minutes of work since the plan's start, and the dates they fall on.
//!
//! All scheduling happens on one axis of working minutes, on which every day that is worked is equally long and
//! nights, and weekends where they are free, do not exist. Days that only weather-sensitive tasks must avoid stay on
//! the axis; those tasks step over them. A finish at the end of a day is the same moment as the start of the next.

use std::collections::BTreeSet;

use jiff::ToSpan as _;
use jiff::civil::Date;

/// Working minutes, as a moment since the start or as a length.
pub type Minutes = u64;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    start: Date,
    minutes_per_day: Minutes,
    working_days_only: bool,
    avoided_days: BTreeSet<u64>,
}

/// From when until when a task is worked on, both on the axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first minute.
    pub start: Minutes,
    /// The end: the first minute after it.
    pub finish: Minutes,
}

impl Calendar {
    /// The calendar of a plan that starts on a date, or on the next working day. `minutes_per_day` is at least 1.
    #[must_use]
    pub fn new(
        start: Date,
        minutes_per_day: Minutes,
        working_days_only: bool,
        avoid: &BTreeSet<Date>,
    ) -> Self {
        let mut calendar = Self {
            start: if working_days_only {
                next_weekday(start)
            } else {
                start
            },
            minutes_per_day: minutes_per_day.max(1),
            working_days_only,
            avoided_days: BTreeSet::new(),
        };
        calendar.avoided_days = avoid
            .iter()
            .filter(|date| **date >= calendar.start)
            .map(|date| (calendar.day_of(*date), *date))
            // A free Saturday that is to be avoided must not cost the Monday.
            .filter(|(day, date)| calendar.date_of(*day) == *date)
            .map(|(day, _)| day)
            .collect();
        calendar
    }

    /// The first working day.
    #[must_use]
    pub fn start(&self) -> Date {
        self.start
    }

    /// Length of a day.
    #[must_use]
    pub fn minutes_per_day(&self) -> Minutes {
        self.minutes_per_day
    }

    /// The date of the day with that number, counted from 0.
    #[must_use]
    pub fn date_of(&self, day: u64) -> Date {
        let day = i64::try_from(day).unwrap_or(i64::MAX / 7);
        let days = if self.working_days_only {
            let weekday = i64::from(self.start.weekday().to_monday_zero_offset());
            let weeks = (weekday + day) / 5;
            weeks * 7 + (weekday + day) % 5 - weekday
        } else {
            day
        };
        self.start.saturating_add(days.min(3_000_000).days())
    }

    /// The number of the first day that is not before a date.
    #[must_use]
    pub fn day_of(&self, date: Date) -> u64 {
        let days = i64::from((date - self.start).get_days());
        let Ok(days) = u64::try_from(days) else {
            return 0;
        };
        if !self.working_days_only {
            return days;
        }
        let weekday = u64::try_from(self.start.weekday().to_monday_zero_offset()).unwrap_or(0);
        let since_monday = weekday + days;
        since_monday / 7 * 5 + (since_monday % 7).min(5) - weekday
    }

    /// The morning of a date.
    #[must_use]
    pub fn morning(&self, date: Date) -> Minutes {
        self.day_of(date).saturating_mul(self.minutes_per_day)
    }

    /// The evening of a date: everything that is worked until then lies before it.
    #[must_use]
    pub fn evening(&self, date: Date) -> Minutes {
        self.morning(date.saturating_add(1.day()))
    }

    /// The date on which work that starts at a moment starts.
    #[must_use]
    pub fn start_date(&self, moment: Minutes) -> Date {
        self.date_of(moment / self.minutes_per_day)
    }

    /// The date on which work that finishes at a moment finishes.
    #[must_use]
    pub fn finish_date(&self, moment: Minutes) -> Date {
        self.date_of(moment.saturating_sub(1) / self.minutes_per_day)
    }

    /// The length in days.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn days(&self, length: Minutes) -> f64 {
        (length as f64 / self.minutes_per_day as f64 * 100.0).round() / 100.0
    }

    /// The earliest stretch of that length, not before a moment.
    #[must_use]
    pub fn earliest(&self, not_before: Minutes, length: Minutes, avoiding: bool) -> Stretch {
        let parts = self.parts(not_before, length, avoiding);
        Stretch {
            start: parts.first().map_or(not_before, |part| part.start),
            finish: parts.last().map_or(not_before, |part| part.finish),
        }
    }

    /// The latest start of work of that length which ends at a moment or before.
    #[must_use]
    pub fn latest_start(&self, until: Minutes, length: Minutes, avoiding: bool) -> Minutes {
        if !avoiding {
            return until.saturating_sub(length);
        }
        let (mut moment, mut left) = (until, length);
        while left > 0 && moment > 0 {
            let day = (moment - 1) / self.minutes_per_day;
            let morning = day * self.minutes_per_day;
            if self.avoided_days.contains(&day) {
                moment = morning;
            } else {
                let worked = left.min(moment - morning);
                moment -= worked;
                left -= worked;
            }
        }
        moment
    }

    /// The pieces of work of that length, not before a moment: one, or several with avoided days between.
    #[must_use]
    pub fn parts(&self, not_before: Minutes, length: Minutes, avoiding: bool) -> Vec<Stretch> {
        if length == 0 {
            return Vec::new();
        }
        if !avoiding {
            return vec![Stretch {
                start: not_before,
                finish: not_before + length,
            }];
        }
        let mut parts: Vec<Stretch> = Vec::new();
        let (mut moment, mut left) = (not_before, length);
        while left > 0 {
            let day = moment / self.minutes_per_day;
            let evening = (day + 1) * self.minutes_per_day;
            if !self.avoided_days.contains(&day) {
                let finish = moment + left.min(evening - moment);
                left -= finish - moment;
                match parts.last_mut() {
                    Some(part) if part.finish == moment => part.finish = finish,
                    _ => parts.push(Stretch {
                        start: moment,
                        finish,
                    }),
                }
            }
            moment = evening;
        }
        parts
    }

    /// The dates that are avoided between two moments.
    #[must_use]
    pub fn avoided_between(&self, start: Minutes, finish: Minutes) -> Vec<Date> {
        let first = start / self.minutes_per_day;
        let end = finish.div_ceil(self.minutes_per_day).max(first);
        self.avoided_days
            .range(first..end)
            .map(|day| self.date_of(*day))
            .collect()
    }
}

fn next_weekday(date: Date) -> Date {
    match date.weekday().to_monday_zero_offset() {
        5 => date.saturating_add(2.days()),
        6 => date.saturating_add(1.day()),
        _ => date,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    /// 2014-03-03 is a Monday.
    fn calendar(working_days_only: bool, avoid: &[Date]) -> Calendar {
        Calendar::new(
            date(2014, 3, 3),
            480,
            working_days_only,
            &avoid.iter().copied().collect(),
        )
    }

    #[test]
    fn weekends_do_not_exist_where_they_are_free() {
        let free = calendar(true, &[]);
        assert_eq!(free.date_of(4), date(2014, 3, 7));
        assert_eq!(free.date_of(5), date(2014, 3, 10));
        assert_eq!(
            free.day_of(date(2014, 3, 8)),
            5,
            "a Saturday means the Monday after"
        );
        assert_eq!(calendar(false, &[]).date_of(5), date(2014, 3, 8));
        let from_saturday = Calendar::new(date(2014, 3, 8), 480, true, &BTreeSet::new());
        assert_eq!(from_saturday.start(), date(2014, 3, 10));
    }

    #[test]
    fn an_avoided_saturday_costs_no_monday() {
        let free = calendar(true, &[date(2014, 3, 8)]);
        assert_eq!(
            free.earliest(5 * 480, 480, true),
            Stretch {
                start: 2400,
                finish: 2880
            }
        );
    }

    #[test]
    fn work_steps_over_avoided_days_in_both_directions() {
        let rainy = calendar(false, &[date(2014, 3, 4), date(2014, 3, 5)]);
        let stretch = rainy.earliest(240, 480, true);
        assert_eq!(
            stretch,
            Stretch {
                start: 240,
                finish: 3 * 480 + 240
            }
        );
        assert_eq!(rainy.finish_date(stretch.finish), date(2014, 3, 6));
        assert_eq!(rainy.parts(240, 480, true).len(), 2);
        assert_eq!(rainy.latest_start(stretch.finish, 480, true), 240);
        assert_eq!(
            rainy.avoided_between(240, stretch.finish),
            [date(2014, 3, 4), date(2014, 3, 5)]
        );
    }

    #[test]
    fn a_finish_at_the_end_of_a_day_is_that_day() {
        let plain = calendar(false, &[]);
        assert_eq!(plain.finish_date(480), date(2014, 3, 3));
        assert_eq!(plain.start_date(480), date(2014, 3, 4));
        assert_eq!(plain.evening(date(2014, 3, 3)), 480);
    }

    proptest! {
        #[test]
        fn days_and_dates_are_inverse(offset in 0..7_i32, day in 0..5_000_u64, free in any::<bool>()) {
            let start = date(2014, 3, 3).saturating_add(offset.days());
            let calendar = Calendar::new(start, 480, free, &BTreeSet::new());
            prop_assert_eq!(calendar.day_of(calendar.date_of(day)), day);
            prop_assert!(calendar.date_of(day + 1) > calendar.date_of(day));
        }

        #[test]
        fn the_latest_start_is_feasible_and_no_later_one_is(
            avoided in prop::collection::btree_set(0..12_i32, 0..6), until in 8_000..9_000_u64, length in 1..2_000_u64,
        ) {
            let dates: Vec<Date> =
                avoided.iter().map(|day| date(2014, 3, 3).saturating_add((*day).days())).collect();
            let calendar = calendar(false, &dates);
            let latest = calendar.latest_start(until, length, true);
            prop_assert!(calendar.earliest(latest, length, true).finish <= until);
            prop_assert!(calendar.earliest(latest + 1, length, true).finish > until);
        }
    }
}

//! A run of days, first to last.

use jiff::ToSpan as _;
use jiff::civil::Date;

/// Longest period of one question.
pub const MAX_DAYS: i32 = 366;

/// First and last day, both included; the last is never before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    first: Date,
    last: Date,
}

/// Why two days are no period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends before it begins.
    #[error("{last} is before {first}, the first day")]
    Backwards {
        /// The first day.
        first: Date,
        /// The last day.
        last: Date,
    },
    /// It is too long for one question.
    #[error("{first} to {last} is {days} days; at most {MAX_DAYS} are answered at once")]
    TooLong {
        /// The first day.
        first: Date,
        /// The last day.
        last: Date,
        /// How many days.
        days: i32,
    },
}

impl Period {
    /// A period of at most [`MAX_DAYS`].
    pub fn new(first: Date, last: Date) -> Result<Self, Error> {
        if last < first {
            return Err(Error::Backwards { first, last });
        }
        let period = Self { first, last };
        let days = period.days();
        if days > MAX_DAYS {
            return Err(Error::TooLong { first, last, days });
        }
        Ok(period)
    }

    /// A period of any length, for what a source covers; days in the wrong order are put right.
    #[must_use]
    pub fn spanning(one: Date, other: Date) -> Self {
        Self {
            first: one.min(other),
            last: one.max(other),
        }
    }

    /// A single day.
    #[must_use]
    pub fn day(date: Date) -> Self {
        Self::spanning(date, date)
    }

    /// `count` days from `first` on, fewer at the end of the calendar.
    #[must_use]
    pub fn starting(first: Date, count: i32) -> Self {
        let last = first.saturating_add((count.clamp(1, MAX_DAYS) - 1).days());
        Self::spanning(first, last)
    }

    /// The first day.
    #[must_use]
    pub fn first(&self) -> Date {
        self.first
    }

    /// The last day.
    #[must_use]
    pub fn last(&self) -> Date {
        self.last
    }

    /// Whether the day lies within.
    #[must_use]
    pub fn contains(&self, date: Date) -> bool {
        (self.first..=self.last).contains(&date)
    }

    /// How many days it has.
    #[must_use]
    pub fn days(&self) -> i32 {
        days_between(self.first, self.last) + 1
    }

    /// Every day in order.
    pub fn iter(&self) -> impl Iterator<Item = Date> + use<> {
        let last = self.last;
        let tomorrow = |date: &Date| date.tomorrow().ok();
        std::iter::successors(Some(self.first), tomorrow).take_while(move |date| *date <= last)
    }
}

/// Whole days from one date to another; negative where the other is earlier.
#[must_use]
pub fn days_between(from: Date, to: Date) -> i32 {
    let hours = to.duration_since(from).as_hours();
    i32::try_from(hours / 24).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    #[test]
    fn both_ends_belong_to_it() {
        let period = Period::new(date(2014, 3, 1), date(2014, 3, 5)).unwrap();
        assert_eq!(period.days(), 5);
        assert_eq!(period.iter().count(), 5);
        assert!(period.contains(date(2014, 3, 5)) && !period.contains(date(2014, 3, 6)));
    }

    #[test]
    fn backwards_and_too_long_are_refused() {
        let new = |last| Period::new(date(2014, 3, 2), last);
        assert!(matches!(new(date(2014, 3, 1)), Err(Error::Backwards { .. })));
        new(date(2015, 3, 2)).unwrap();
        assert!(matches!(
            new(date(2015, 3, 3)),
            Err(Error::TooLong { days: 367, .. })
        ));
    }

    #[test]
    fn the_end_of_the_calendar_is_no_trap() {
        assert_eq!(Period::starting(Date::MAX, 7).days(), 1);
        assert_eq!(Period::day(Date::MAX).iter().count(), 1);
        assert!(Period::new(Date::MIN, Date::MAX).is_err());
    }

    proptest! {
        #[test]
        fn days_are_counted_as_they_are_listed(
            year in 1900i16..2100, month in 1i8..=12, day in 1i8..=28, count in 1i32..=366,
        ) {
            let period = Period::starting(date(year, month, day), count);
            prop_assert_eq!(period.days(), count);
            prop_assert_eq!(period.iter().count(), usize::try_from(count).unwrap());
            prop_assert_eq!(Period::new(period.first(), period.last()), Ok(period));
        }
    }
}

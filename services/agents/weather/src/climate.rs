//! What a day is probably like when nobody has measured it: the same days of the years that are known.
//!
//! "The same days" are the calendar day and three days on either side in each year: four years alone would be four
//! numbers, and one storm would make a climate. A trend is not modelled; the answer says what it rests on.

use jiff::ToSpan as _;
use jiff::civil::Date;

use crate::day::{Basis, Condition, Day, Spread, tenths};
use crate::period::Period;
use crate::source::Observation;

/// Days on either side of the calendar day.
pub const REACH: i32 = 3;

/// Day of `city` on `date` from the observed days of all years, which are in order; `None` without any.
#[must_use]
pub fn expected(city: &str, date: Date, observed: &[Observation], rainy_mm: f64) -> Option<Day> {
    let like: Vec<&Observation> = windows(date, observed)
        .into_iter()
        .flat_map(|window| within(observed, window))
        .collect();
    if like.is_empty() {
        return None;
    }
    let rainy = like.iter().filter(|day| day.precipitation_mm >= rainy_mm).count();
    let mean = |value: fn(&Observation) -> f64| mean(like.iter().map(|day| value(day)));
    let lowest = like
        .iter()
        .map(|day| day.temp_min_c)
        .fold(f64::INFINITY, f64::min);
    let highest = like
        .iter()
        .map(|day| day.temp_max_c)
        .fold(f64::NEG_INFINITY, f64::max);
    let wettest = like.iter().map(|day| day.precipitation_mm).fold(0.0, f64::max);
    let rain_probability = share(rainy, like.len());
    Some(Day {
        date,
        city: city.to_owned(),
        precipitation_mm: tenths(mean(|day| day.precipitation_mm)),
        temp_max_c: tenths(mean(|day| day.temp_max_c)),
        temp_min_c: tenths(mean(|day| day.temp_min_c)),
        wind_m_s: tenths(mean(|day| day.wind_m_s)),
        condition: most_frequent(&like),
        rainy: rain_probability >= 0.5,
        basis: Basis::Climatology,
        spread: Some(Spread {
            rain_probability: (rain_probability * 100.0).round() / 100.0,
            coldest_c: lowest,
            warmest_c: highest,
            wettest_mm: wettest,
            samples: like.len(),
        }),
    })
}

/// Mean of some values; 0 of none.
#[must_use]
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values
        .into_iter()
        .fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

/// One number as a share of another, from 0 to 1.
#[must_use]
pub fn share(part: usize, whole: usize) -> f64 {
    let number = |count| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if whole == 0 {
        0.0
    } else {
        number(part) / number(whole)
    }
}

/// The calendar day with its neighbours, in each year that is known.
fn windows(date: Date, observed: &[Observation]) -> Vec<Period> {
    let (Some(first), Some(last)) = (observed.first(), observed.last()) else {
        return Vec::new();
    };
    // A year more on either side: the window of 1 January reaches into the year before.
    (first.date.year().saturating_sub(1)..=last.date.year().saturating_add(1))
        .filter_map(|year| {
            let day = if date.month() == 2 {
                date.day().min(28)
            } else {
                date.day()
            };
            let middle = Date::new(year, date.month(), day).ok()?;
            Some(Period::spanning(
                middle.saturating_sub(REACH.days()),
                middle.saturating_add(REACH.days()),
            ))
        })
        .collect()
}

fn within(observed: &[Observation], period: Period) -> &[Observation] {
    let begin = observed.partition_point(|day| day.date < period.first());
    let end = observed.partition_point(|day| day.date <= period.last());
    observed.get(begin..end).unwrap_or_default()
}

fn most_frequent(days: &[&Observation]) -> Condition {
    let count = |condition| days.iter().filter(|day| day.condition == condition).count();
    Condition::ALL
        .into_iter()
        .max_by_key(|condition| count(*condition))
        .unwrap_or(Condition::Sun)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Archive;
    use crate::source::Source as _;
    use jiff::civil::date;
    use proptest::prelude::*;

    fn observation(date: Date, precipitation_mm: f64, temp_max_c: f64) -> Observation {
        Observation {
            date,
            precipitation_mm,
            temp_max_c,
            temp_min_c: temp_max_c - 5.0,
            wind_m_s: 3.0,
            condition: if precipitation_mm > 0.0 {
                Condition::Rain
            } else {
                Condition::Sun
            },
        }
    }

    #[test]
    fn means_extremes_and_probability_are_those_of_the_same_days() {
        let observed = [
            observation(date(2012, 6, 28), 9.0, 40.0), // too early to count
            observation(date(2012, 7, 1), 0.0, 20.0),
            observation(date(2012, 7, 7), 4.0, 26.0),
            observation(date(2013, 7, 4), 0.0, 23.0),
            observation(date(2013, 7, 8), 9.0, 40.0), // too late
        ];
        let day = expected("X", date(2030, 7, 4), &observed, 0.1).unwrap();
        let spread = day.spread.unwrap();
        assert_eq!((day.temp_max_c, day.precipitation_mm), (23.0, 1.3));
        assert_eq!((spread.rain_probability, spread.samples), (0.33, 3));
        assert_eq!(
            (spread.coldest_c, spread.warmest_c, spread.wettest_mm),
            (15.0, 26.0, 4.0)
        );
        assert!(!day.rainy);
        assert_eq!(day.condition, Condition::Sun);
    }

    #[test]
    fn the_turn_of_the_year_and_leap_days_have_neighbours_too() {
        let observed: Vec<_> = Period::spanning(date(2013, 1, 1), date(2014, 12, 31))
            .iter()
            .map(|date| observation(date, 0.0, 10.0))
            .collect();
        let samples = |date| {
            expected("X", date, &observed, 0.1)
                .unwrap()
                .spread
                .unwrap()
                .samples
        };
        // 4 days of each January and 3 of each December, but for the December before the first year.
        assert_eq!(samples(date(2030, 1, 1)), 4 + 7 + 3);
        assert_eq!(samples(date(2028, 2, 29)), 14);
        assert_eq!(expected("X", date(2030, 1, 1), &[], 0.1), None);
    }

    proptest! {
        #[test]
        fn whatever_the_day_the_mean_lies_within_the_extremes(
            year in -9000i16..9000, month in 1i8..=12, day in 1i8..=28, city in prop::sample::select(vec!["Seattle", "New York"]),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let all = runtime.block_on(async {
                let period = Archive.about().await.unwrap().period;
                Archive.observations(city, period).await.unwrap()
            });
            let day = expected(city, date(year, month, day), &all, 0.1).unwrap();
            let spread = day.spread.unwrap();
            prop_assert!(spread.coldest_c <= day.temp_min_c && day.temp_min_c <= day.temp_max_c);
            prop_assert!(day.temp_max_c <= spread.warmest_c && day.precipitation_mm <= spread.wettest_mm);
            prop_assert!((0.0..=1.0).contains(&spread.rain_probability));
            prop_assert!(spread.samples >= 24 && spread.samples <= 28);
        }
    }
}

//! The embedded source: NOAA's daily summaries of two cities, and hourly normals of one of them.
//!
//! The data ships inside the binary (`data/`, with its provenance), so that the agent answers without a network and
//! always the same. It is parsed at the first question, once, into a few hundred kilobytes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::civil::{Date, DateTime};
use serde::Deserialize;

use crate::day::Condition;
use crate::period::Period;
use crate::source::{About, Error, HourlyNormal, Observation, Source};

const DAILY: &str = include_str!("../data/weather-seattle-newyork-2012-2015.csv");
const HOURLY: &str = include_str!("../data/seattle-weather-hourly-normals.csv");
const HOURLY_CITY: &str = "Seattle";
const NAME: &str = "NOAA daily summaries 2012-2015 (embedded archive)";
const HOURLY_NAME: &str = "NOAA hourly normals 1981-2010 (embedded archive)";
const PROVENANCE: &str =
    "NOAA, United States government, public domain; packaged by vega-datasets 3.2.1 (BSD-3-Clause)";

static DAYS: LazyLock<Result<Days, Error>> = LazyLock::new(|| parse_days(DAILY));
static HOURS: LazyLock<Result<Hours, Error>> = LazyLock::new(|| parse_hours(HOURLY));

/// Days of each city, in order.
type Days = BTreeMap<String, Vec<Observation>>;
/// Normals by month, day and hour.
type Hours = BTreeMap<(i8, i8, i8), HourlyNormal>;

/// The embedded archive.
#[derive(Debug, Clone, Copy, Default)]
pub struct Archive;

impl Source for Archive {
    async fn about(&self) -> Result<About, Error> {
        let days = days()?;
        let dates = || days.values().flatten().map(|day| day.date);
        let (Some(first), Some(last)) = (dates().min(), dates().max()) else {
            return Err(Error::Empty(NAME));
        };
        Ok(About {
            name: NAME,
            provenance: PROVENANCE,
            cities: days.keys().cloned().collect(),
            period: Period::spanning(first, last),
        })
    }

    async fn observations(&self, city: &str, period: Period) -> Result<Vec<Observation>, Error> {
        let of_city = days()?.get(city).map(Vec::as_slice).unwrap_or_default();
        let begin = of_city.partition_point(|day| day.date < period.first());
        let end = of_city.partition_point(|day| day.date <= period.last());
        Ok(of_city.get(begin..end).unwrap_or_default().to_vec())
    }

    async fn hourly_normal(&self, city: &str, date: Date, hour: i8) -> Result<Option<HourlyNormal>, Error> {
        if city != HOURLY_CITY {
            return Ok(None);
        }
        let hours = HOURS.as_ref().map_err(Clone::clone)?;
        // The normals are of a common year, so 29 February is like the day before; and their first row is 01:00 of
        // 1 January, so the hour before it, missing, is like the first.
        let day = if date.month() == 2 {
            date.day().min(28)
        } else {
            date.day()
        };
        Ok(hours
            .range((date.month(), day, hour)..)
            .next()
            .map(|(_, normal)| *normal))
    }
}

fn days() -> Result<&'static Days, Error> {
    DAYS.as_ref().map_err(Clone::clone)
}

#[derive(Deserialize)]
struct DailyRow {
    location: String,
    date: Date,
    precipitation: f64,
    temp_max: f64,
    temp_min: f64,
    wind: f64,
    weather: Condition,
}

#[derive(Deserialize)]
struct HourlyRow {
    date: DateTime,
    pressure: f64,
    temperature: f64,
    wind: f64,
}

fn parse_days(text: &str) -> Result<Days, Error> {
    let mut days = Days::new();
    for row in csv::Reader::from_reader(text.as_bytes()).deserialize::<DailyRow>() {
        let row = row.map_err(|error| damaged(NAME, &error))?;
        days.entry(row.location).or_default().push(Observation {
            date: row.date,
            precipitation_mm: row.precipitation,
            temp_max_c: row.temp_max,
            temp_min_c: row.temp_min,
            wind_m_s: row.wind,
            condition: row.weather,
        });
    }
    for of_city in days.values_mut() {
        of_city.sort_by_key(|day| day.date);
        of_city.shrink_to_fit();
    }
    Ok(days)
}

fn parse_hours(text: &str) -> Result<Hours, Error> {
    csv::Reader::from_reader(text.as_bytes())
        .deserialize::<HourlyRow>()
        .map(|row| {
            let row = row.map_err(|error| damaged(HOURLY_NAME, &error))?;
            let normal = HourlyNormal {
                hour: row.date.hour(),
                pressure_hpa: row.pressure,
                temperature_c: row.temperature,
                wind_m_s: row.wind,
            };
            Ok(((row.date.month(), row.date.day(), row.date.hour()), normal))
        })
        .collect()
}

fn damaged(source_name: &'static str, error: &csv::Error) -> Error {
    Error::Damaged {
        source_name,
        line: error.position().map_or(0, csv::Position::line),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[tokio::test]
    async fn it_knows_two_cities_for_four_years_without_a_gap() {
        let about = Archive.about().await.unwrap();
        assert_eq!(about.cities, ["New York", "Seattle"]);
        assert_eq!(
            about.period,
            Period::spanning(date(2012, 1, 1), date(2015, 12, 31))
        );
        for city in &about.cities {
            let days = Archive.observations(city, about.period).await.unwrap();
            let dates: Vec<_> = days.iter().map(|day| day.date).collect();
            assert_eq!(dates, about.period.iter().collect::<Vec<_>>(), "{city}");
            assert!(days.iter().all(|day| day.temp_min_c <= day.temp_max_c));
        }
    }

    #[tokio::test]
    async fn values_are_the_files() {
        let period = Period::spanning(date(2014, 3, 1), date(2014, 3, 5));
        let days = Archive.observations("Seattle", period).await.unwrap();
        let rain: Vec<_> = days.iter().map(|day| day.precipitation_mm).collect();
        assert_eq!(rain, [0.5, 19.1, 10.7, 16.5, 46.7]);
        assert_eq!(days[4].condition, Condition::Rain);
        let nowhere = Archive.observations("Berlin", period).await.unwrap();
        assert!(nowhere.is_empty());
    }

    #[tokio::test]
    async fn hours_are_seattles_and_every_hour_of_every_day_has_one() {
        let normal = |city, date, hour| async move { Archive.hourly_normal(city, date, hour).await.unwrap() };
        let first = normal("Seattle", date(2014, 1, 1), 1).await.unwrap();
        assert_eq!(
            (first.pressure_hpa, first.temperature_c, first.wind_m_s),
            (1016.6, 4.0, 3.8)
        );
        assert_eq!(normal("New York", date(2014, 1, 1), 1).await, None);
        for day in Period::spanning(date(2012, 1, 1), date(2012, 12, 31)).iter() {
            for hour in 0..24 {
                assert!(normal("Seattle", day, hour).await.is_some(), "{day} {hour}");
            }
        }
    }

    #[test]
    fn damaged_data_is_named_by_its_line() {
        let damaged =
            "location,date,precipitation,temp_max,temp_min,wind,weather\nSeattle,2014-02-30,0,0,0,0,sun\n";
        assert!(matches!(parse_days(damaged), Err(Error::Damaged { line: 2, .. })));
    }
}

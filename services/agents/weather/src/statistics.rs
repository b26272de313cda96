//! Days in figures: by city and month, and cities against each other.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::climate::mean;
use crate::day::{Condition, Day, tenths};

/// Figures of some days of one city.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// How many days.
    pub days: usize,
    /// How many of them were rainy.
    pub rainy_days: usize,
    /// All precipitation in millimetres.
    pub precipitation_mm: f64,
    /// Mean of the highest temperatures in °C.
    pub mean_temp_max_c: f64,
    /// Mean of the lowest temperatures in °C.
    pub mean_temp_min_c: f64,
    /// Highest temperature in °C.
    pub warmest_c: f64,
    /// Lowest temperature in °C.
    pub coldest_c: f64,
    /// Mean wind in metres per second.
    pub mean_wind_m_s: f64,
    /// Strongest wind in metres per second.
    pub strongest_wind_m_s: f64,
    /// How many days of each kind.
    pub conditions: BTreeMap<Condition, usize>,
}

/// Figures of a city in a month.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Month {
    /// The city.
    pub city: String,
    /// The month, `YYYY-MM`.
    pub month: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Figures of a city over the whole period.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CityFigures {
    /// The city.
    pub city: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Figures of some days; `None` of none.
#[must_use]
pub fn figures<'a>(days: impl IntoIterator<Item = &'a Day>) -> Option<Figures> {
    let days: Vec<&Day> = days.into_iter().collect();
    if days.is_empty() {
        return None;
    }
    let values = |value: fn(&Day) -> f64| days.iter().map(move |day| value(day));
    let mut conditions = BTreeMap::new();
    for day in &days {
        *conditions.entry(day.condition).or_insert(0) += 1;
    }
    Some(Figures {
        days: days.len(),
        rainy_days: days.iter().filter(|day| day.rainy).count(),
        precipitation_mm: tenths(values(|day| day.precipitation_mm).sum()),
        mean_temp_max_c: tenths(mean(values(|day| day.temp_max_c))),
        mean_temp_min_c: tenths(mean(values(|day| day.temp_min_c))),
        warmest_c: values(|day| day.temp_max_c).fold(f64::NEG_INFINITY, f64::max),
        coldest_c: values(|day| day.temp_min_c).fold(f64::INFINITY, f64::min),
        mean_wind_m_s: tenths(mean(values(|day| day.wind_m_s))),
        strongest_wind_m_s: values(|day| day.wind_m_s).fold(0.0, f64::max),
        conditions,
    })
}

/// Figures of each city and month, in order.
#[must_use]
pub fn by_month(days: &[Day]) -> Vec<Month> {
    let mut groups: BTreeMap<(String, String), Vec<&Day>> = BTreeMap::new();
    for day in days {
        let month = day.date.strftime("%Y-%m").to_string();
        groups.entry((day.city.clone(), month)).or_default().push(day);
    }
    groups
        .into_iter()
        .filter_map(|((city, month), days)| {
            Some(Month {
                city,
                month,
                figures: figures(days)?,
            })
        })
        .collect()
}

/// Figures of each city, in the order of `cities`.
#[must_use]
pub fn by_city(days: &[Day], cities: &[String]) -> Vec<CityFigures> {
    cities
        .iter()
        .filter_map(|city| {
            Some(CityFigures {
                city: city.clone(),
                figures: figures(days.iter().filter(|day| day.city == *city))?,
            })
        })
        .collect()
}

//! What a day's weather is.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// The kind of weather that a day is remembered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Clear or cloudy, dry.
    Sun,
    /// Fog.
    Fog,
    /// Drizzle.
    Drizzle,
    /// Rain.
    Rain,
    /// Snow.
    Snow,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 5] = [Self::Sun, Self::Fog, Self::Drizzle, Self::Rain, Self::Snow];
}

/// On what a day's values rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Measured on that day.
    Observed,
    /// Not known for that day: what the same days of the archive's years were like.
    Climatology,
}

/// One city's weather on one day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Day {
    /// The day.
    pub date: Date,
    /// The city.
    pub city: String,
    /// Precipitation in millimetres; of climatology, the mean.
    pub precipitation_mm: f64,
    /// Highest temperature in °C; of climatology, the mean of the highest.
    pub temp_max_c: f64,
    /// Lowest temperature in °C; of climatology, the mean of the lowest.
    pub temp_min_c: f64,
    /// Wind in metres per second; of climatology, the mean.
    pub wind_m_s: f64,
    /// The kind of weather; of climatology, the most frequent.
    pub condition: Condition,
    /// Whether the day has, or probably has, at least the precipitation that counts as rain. Snow counts.
    pub rainy: bool,
    /// On what the values rest.
    pub basis: Basis,
    /// Spread and probability, of climatology only.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

/// How much the years differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// Share of the days that were rainy, from 0 to 1.
    pub rain_probability: f64,
    /// Lowest temperature of all of them.
    pub coldest_c: f64,
    /// Highest temperature of all of them.
    pub warmest_c: f64,
    /// Most precipitation of one of them.
    pub wettest_mm: f64,
    /// How many observed days stand behind the values.
    pub samples: usize,
}

/// Rounds to one decimal, the precision of the observations.
#[must_use]
pub fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

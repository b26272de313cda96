//! Where weather comes from. The archive is one source; a live service joins by implementing [`Source`], and every
//! answer says which source gave it, for which period, and how old its data is.

use std::future::Future;

use jiff::civil::Date;
use serde::Serialize;

use crate::day::Condition;
use crate::period::Period;

/// One observed day, as a source has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// The day.
    pub date: Date,
    /// Precipitation in millimetres.
    pub precipitation_mm: f64,
    /// Highest temperature in °C.
    pub temp_max_c: f64,
    /// Lowest temperature in °C.
    pub temp_min_c: f64,
    /// Wind in metres per second.
    pub wind_m_s: f64,
    /// The kind of weather.
    pub condition: Condition,
}

/// What one hour of the year is usually like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct HourlyNormal {
    /// Hour of the day that the values are for, from 0 to 23.
    pub hour: i8,
    /// Air pressure in hectopascals.
    pub pressure_hpa: f64,
    /// Temperature in °C.
    pub temperature_c: f64,
    /// Wind in metres per second.
    pub wind_m_s: f64,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The source's name.
    pub name: &'static str,
    /// Who made the data and under which terms.
    pub provenance: &'static str,
    /// The cities it knows.
    pub cities: Vec<String>,
    /// The days it knows.
    pub period: Period,
}

/// Why a source has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its data cannot be read.
    #[error("{source_name}: line {line}: {message}")]
    Damaged {
        /// Which data.
        source_name: &'static str,
        /// Where.
        line: u64,
        /// What is wrong.
        message: String,
    },
    /// It has no data at all.
    #[error("{0} is empty")]
    Empty(&'static str),
}

/// A place to ask for weather. Cities are given as [`About::cities`] spells them.
pub trait Source: Send + Sync + 'static {
    /// Who answers.
    fn about(&self) -> impl Future<Output = Result<About, Error>> + Send;

    /// The observed days of a city within a period, in order; days that the source does not know are left out.
    fn observations(
        &self,
        city: &str,
        period: Period,
    ) -> impl Future<Output = Result<Vec<Observation>, Error>> + Send;

    /// What that hour of that day is usually like; `None` where the source has no hourly data for the city.
    fn hourly_normal(
        &self,
        city: &str,
        date: Date,
        hour: i8,
    ) -> impl Future<Output = Result<Option<HourlyNormal>, Error>> + Send;
}

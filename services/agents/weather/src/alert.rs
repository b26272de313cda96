//! Days on which something goes beyond a threshold.

use muster_agent_sdk::Failure;
use serde::{Deserialize, Serialize};

use crate::day::{Day, tenths};

/// Kilometres per hour of one metre per second.
const KM_PER_H: f64 = 3.6;

/// From where on a value is worth an alert. Each value itself already is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Highest temperature of a day, in °C.
    pub temperature_c: f64,
    /// Precipitation of a day, in millimetres. The default, 0.1, is the least that a gauge reads: any wet day. It is
    /// also what makes a day rainy.
    pub precipitation_mm: f64,
    /// Wind in kilometres per hour. Of the archive's days (m/s, daily means) only storms reach the default, 50.
    pub wind_km_per_h: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            temperature_c: 30.0,
            precipitation_mm: 0.1,
            wind_km_per_h: 50.0,
        }
    }
}

impl Thresholds {
    /// Refuses what no weather could be measured by.
    pub(crate) fn check(&self, path: &str) -> Result<(), Failure> {
        let ranges = [
            ("temperature_c", self.temperature_c, -90.0, 60.0),
            ("precipitation_mm", self.precipitation_mm, 0.1, 2_000.0),
            ("wind_km_per_h", self.wind_km_per_h, 1.0, 500.0),
        ];
        match ranges
            .into_iter()
            .find(|(_, value, least, most)| !(*least..=*most).contains(value))
        {
            Some((field, value, least, most)) => Err(Failure::invalid_field(
                format!("{path}.{field}"),
                format!("is {value}; {least} to {most} are allowed"),
            )),
            None => Ok(()),
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Heat.
    Temperature,
    /// Rain or snow.
    Precipitation,
    /// Wind.
    Wind,
}

/// How far beyond the threshold a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// At or above it.
    Advisory,
    /// So far above it that plans should change.
    Severe,
}

/// One value of one day beyond its threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// The day.
    pub date: jiff::civil::Date,
    /// The city.
    pub city: String,
    /// What is measured.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// The value.
    pub value: f64,
    /// The threshold.
    pub threshold: f64,
    /// The unit of both.
    pub unit: &'static str,
}

/// The alerts of one day.
#[must_use]
pub fn of_day(day: &Day, thresholds: &Thresholds) -> Vec<Alert> {
    /// More than these is severe: heat that is dangerous, rain that floods, wind that breaks branches.
    const SEVERE_HEAT_C: f64 = 35.0;
    const SEVERE_RAIN_MM: f64 = 25.0;
    const SEVERE_WIND_KM_PER_H: f64 = 75.0;

    let measured = [
        (
            Kind::Temperature,
            day.temp_max_c,
            thresholds.temperature_c,
            SEVERE_HEAT_C,
            "°C",
        ),
        (
            Kind::Precipitation,
            day.precipitation_mm,
            thresholds.precipitation_mm,
            SEVERE_RAIN_MM,
            "mm/day",
        ),
        (
            Kind::Wind,
            tenths(day.wind_m_s * KM_PER_H),
            thresholds.wind_km_per_h,
            SEVERE_WIND_KM_PER_H,
            "km/h",
        ),
    ];
    measured
        .into_iter()
        .filter(|(_, value, threshold, _, _)| value >= threshold)
        // The mean of many dry days and a wet one is above a small threshold; it is an alert where rain is probable.
        .filter(|(kind, ..)| *kind != Kind::Precipitation || day.rainy || day.spread.is_none())
        .map(|(kind, value, threshold, severe, unit)| Alert {
            date: day.date,
            city: day.city.clone(),
            kind,
            severity: if value >= severe {
                Severity::Severe
            } else {
                Severity::Advisory
            },
            value,
            threshold,
            unit,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::{Basis, Condition};
    use jiff::civil::date;

    fn day(precipitation_mm: f64, temp_max_c: f64, wind_m_s: f64) -> Day {
        Day {
            date: date(2014, 7, 1),
            city: "Seattle".to_owned(),
            precipitation_mm,
            temp_max_c,
            temp_min_c: 10.0,
            wind_m_s,
            condition: Condition::Sun,
            rainy: precipitation_mm >= 0.1,
            basis: Basis::Observed,
            spread: None,
        }
    }

    fn kinds(day: &Day) -> Vec<(Kind, Severity)> {
        of_day(day, &Thresholds::default())
            .iter()
            .map(|alert| (alert.kind, alert.severity))
            .collect()
    }

    #[test]
    fn a_value_at_its_threshold_is_an_alert_and_one_below_is_none() {
        assert_eq!(kinds(&day(0.0, 29.9, 13.8)), []);
        assert_eq!(
            kinds(&day(0.1, 30.0, 13.9)),
            [
                (Kind::Temperature, Severity::Advisory),
                (Kind::Precipitation, Severity::Advisory),
                (Kind::Wind, Severity::Advisory)
            ]
        );
        assert_eq!(
            kinds(&day(46.7, 20.0, 3.0)),
            [(Kind::Precipitation, Severity::Severe)]
        );
    }
}

//! The shape of an answer: days, rainy dates, what the skill found, and who says so.

pub(crate) mod summary;

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::climate::REACH;
use crate::day::{Basis, Day};
use crate::period::Period;
use crate::source::About;

/// An answer on its way to JSON.
pub(crate) struct Answer<'a> {
    pub(crate) about: &'a About,
    pub(crate) cities: &'a [String],
    pub(crate) period: Period,
    /// How old the newest observation of the source is.
    pub(crate) age_days: i32,
    pub(crate) days: &'a [Day],
    /// What the skill adds, by name.
    pub(crate) findings: Vec<(&'static str, Value)>,
    pub(crate) summary: String,
}

impl Answer<'_> {
    /// Adds a finding. What cannot be JSON is `null`; no type that is passed here can fail.
    pub(crate) fn find(&mut self, name: &'static str, finding: &impl Serialize) {
        self.findings.push((name, json!(finding)));
    }

    /// How many of the days were measured.
    pub(crate) fn observed(&self) -> usize {
        self.days
            .iter()
            .filter(|day| day.basis == Basis::Observed)
            .count()
    }

    /// Dates on which it rains in at least one city.
    pub(crate) fn rainy_dates(&self) -> BTreeSet<Date> {
        self.days
            .iter()
            .filter(|day| day.rainy)
            .map(|day| day.date)
            .collect()
    }

    /// The answer as programs read it.
    pub(crate) fn into_json(self, skill: &str) -> Result<Value, serde_json::Error> {
        let mut by_city: BTreeMap<&str, Vec<Date>> = BTreeMap::new();
        for city in self.cities {
            by_city.insert(city, Vec::new());
        }
        for day in self.days.iter().filter(|day| day.rainy) {
            by_city.entry(&day.city).or_default().push(day.date);
        }
        let mut fields = Map::new();
        fields.insert("skill".to_owned(), json!(skill));
        fields.insert("cities".to_owned(), json!(self.cities));
        fields.insert("from".to_owned(), json!(self.period.first()));
        fields.insert("to".to_owned(), json!(self.period.last()));
        fields.insert("days".to_owned(), serde_json::to_value(self.days)?);
        fields.insert("rainy_dates".to_owned(), json!(self.rainy_dates()));
        fields.insert("rainy_dates_by_city".to_owned(), json!(by_city));
        fields.insert("source".to_owned(), self.source());
        fields.insert("summary".to_owned(), json!(self.summary));
        fields.extend(
            self.findings
                .into_iter()
                .map(|(name, finding)| (name.to_owned(), finding)),
        );
        Ok(Value::Object(fields))
    }

    fn source(&self) -> Value {
        let observed = self.observed();
        let (basis, note) = if observed == self.days.len() {
            ("observed", "all days were measured".to_owned())
        } else {
            let years = format!(
                "{} to {}",
                self.about.period.first().year(),
                self.about.period.last().year()
            );
            let expected = self.days.len() - observed;
            let note = format!(
                "{expected} of {} days are outside the archive: mean, extremes and rain probability of the same calendar days (±{REACH}) in {years}, not a forecast of the actual weather",
                self.days.len()
            );
            (if observed == 0 { "climatology" } else { "mixed" }, note)
        };
        json!({
            "name": self.about.name,
            "provenance": self.about.provenance,
            "from": self.about.period.first(),
            "to": self.about.period.last(),
            "age_days": self.age_days,
            "basis": basis,
            "note": note,
        })
    }
}

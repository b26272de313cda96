//! What a caller wants to know: cities, days, perhaps an hour, read from a data part or from plain text.
//!
//! Data is precise: unknown fields, unknown cities and impossible dates are refused by name. Text is what a person
//! types (`Seattle 2014-03-01 to 2014-03-05`); it is searched for cities, dates and a time, and what it does not
//! contain has a default that the answer states.

use jiff::civil::{Date, Time};
use muster_agent_sdk::Failure;
use serde::Deserialize;

use crate::alert::Thresholds;
use crate::city;
use crate::period::{self, Period};

/// Most cities of one question.
pub const MAX_CITIES: usize = 5;
/// Days that are looked at where none are given.
const DEFAULT_DAYS: i32 = 7;

/// The data part.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// One city.
    pub city: Option<String>,
    /// Several cities.
    pub cities: Option<Vec<String>>,
    /// One day, `YYYY-MM-DD`.
    pub date: Option<String>,
    /// The first of several days.
    pub from: Option<String>,
    /// The last of several days.
    pub to: Option<String>,
    /// An hour of the day, `HH:MM`.
    pub time: Option<String>,
    /// Thresholds of alerts; the configured ones where absent.
    pub thresholds: Option<Thresholds>,
}

/// Which days are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Not said.
    Unsaid,
    /// These.
    Days(Period),
}

/// A question that can be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// At least one city that the source knows, as the source spells it. Empty where none was named.
    pub cities: Vec<String>,
    /// Which days.
    pub when: When,
    /// Which hour.
    pub time: Option<Time>,
    /// Thresholds for alerts, where the caller has their own.
    pub thresholds: Option<Thresholds>,
}

impl Question {
    /// Reads a data part.
    pub fn from_data(input: Input, known: &[String]) -> Result<Self, Failure> {
        let cities = match (input.city, input.cities) {
            (Some(_), Some(_)) => {
                return Err(Failure::invalid_field(
                    "city",
                    "is given beside `cities`; give one of them",
                ));
            }
            (Some(one), None) => vec![city::find("city", &one, known)?],
            (None, Some(several)) => several
                .iter()
                .enumerate()
                .map(|(index, name)| city::find(&format!("cities[{index}]"), name, known))
                .collect::<Result<_, _>>()?,
            (None, None) => Vec::new(),
        };
        let when = match (input.date, input.from, input.to) {
            (None, None, None) => When::Unsaid,
            (Some(date), None, None) => When::Days(Period::day(read_date("date", &date)?)),
            (None, Some(from), Some(to)) => {
                When::Days(range(read_date("from", &from)?, read_date("to", &to)?)?)
            }
            (None, Some(_), None) => return Err(Failure::invalid_field("to", "is missing beside `from`")),
            (None, None, Some(_)) => return Err(Failure::invalid_field("from", "is missing beside `to`")),
            (Some(_), _, _) => {
                return Err(Failure::invalid_field(
                    "date",
                    "is given beside `from` and `to`; give the day or the range",
                ));
            }
        };
        if let Some(thresholds) = &input.thresholds {
            thresholds.check("thresholds")?;
        }
        Ok(Self {
            cities: bounded(cities)?,
            when,
            time: input.time.as_deref().map(read_time).transpose()?,
            thresholds: input.thresholds,
        })
    }

    /// Reads plain text; `today` is what "today" and "tomorrow" mean.
    pub fn from_text(text: &str, known: &[String], today: Date) -> Result<Self, Failure> {
        let mut dates = Vec::new();
        let mut time = None;
        for word in text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '?' | '!' | '(' | ')'))
        {
            let word = word.trim_matches('.');
            if is_date(word) {
                dates.push(read_date("text", word)?);
            } else if is_time(word) {
                time = Some(read_time(word)?);
            } else if word.eq_ignore_ascii_case("today") {
                dates.push(today);
            } else if word.eq_ignore_ascii_case("tomorrow") {
                dates.extend(today.tomorrow());
            }
        }
        let when = match dates.as_slice() {
            [] => When::Unsaid,
            [day] => When::Days(Period::day(*day)),
            [from, to] => When::Days(range(*from, *to)?),
            more => {
                return Err(Failure::invalid_field(
                    "text",
                    format!(
                        "names {} dates; give one day, or the first and the last",
                        more.len()
                    ),
                ));
            }
        };
        Ok(Self {
            cities: bounded(city::find_in_text(text, known)?)?,
            when,
            time,
            thresholds: None,
        })
    }

    /// The days asked for, or some from `default` on.
    #[must_use]
    pub fn period(&self, default: Date) -> Period {
        match self.when {
            When::Days(period) => period,
            When::Unsaid => Period::starting(default, DEFAULT_DAYS),
        }
    }

    /// At least one city, or what is missing.
    pub fn require_city(&self, known: &[String]) -> Result<(), Failure> {
        if self.cities.is_empty() {
            return Err(Failure::invalid_field(
                "city",
                format!("is missing; known are {}", known.join(", ")),
            ));
        }
        Ok(())
    }
}

fn bounded(mut cities: Vec<String>) -> Result<Vec<String>, Failure> {
    if cities.len() > MAX_CITIES {
        return Err(Failure::invalid_field(
            "cities",
            format!(
                "{} are given; at most {MAX_CITIES} are compared at once",
                cities.len()
            ),
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    cities.retain(|city| seen.insert(city.clone()));
    Ok(cities)
}

fn range(from: Date, to: Date) -> Result<Period, Failure> {
    Period::new(from, to).map_err(|error| {
        let field = match error {
            period::Error::Backwards { .. } | period::Error::TooLong { .. } => "to",
        };
        Failure::invalid_field(field, error.to_string())
    })
}

fn read_date(field: &str, text: &str) -> Result<Date, Failure> {
    let parsed = is_date(text).then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| {
        Failure::invalid_field(
            field,
            format!(
                "'{}' is no date; write YYYY-MM-DD, such as 2014-03-01",
                excerpt(text)
            ),
        )
    })
}

fn read_time(text: &str) -> Result<Time, Failure> {
    let parsed = is_time(text)
        .then(|| format!("{text:0>5}").parse().ok())
        .flatten();
    parsed.ok_or_else(|| {
        Failure::invalid_field(
            "time",
            format!(
                "'{}' is no time of day; write HH:MM, such as 14:00",
                excerpt(text)
            ),
        )
    })
}

/// Whether the text has the shape of a date, be it a real one or not.
fn is_date(text: &str) -> bool {
    shape(text, "####-##-##")
}

/// Whether the text has the shape of a time of day.
fn is_time(text: &str) -> bool {
    shape(text, "##:##") || shape(text, "#:##")
}

fn shape(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(have, want)| match want {
            b'#' => have.is_ascii_digit(),
            _ => have == want,
        })
}

/// The beginning of what a caller wrote, short enough for a message.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::{date, time};
    use proptest::prelude::*;

    fn known() -> Vec<String> {
        vec!["New York".to_owned(), "Seattle".to_owned()]
    }

    fn text(text: &str) -> Result<Question, Failure> {
        Question::from_text(text, &known(), date(2026, 1, 31))
    }

    fn data(json: serde_json::Value) -> Result<Question, Failure> {
        Question::from_data(muster_agent_sdk::parse(&json)?, &known())
    }

    fn days(first: Date, last: Date) -> When {
        When::Days(Period::new(first, last).unwrap())
    }

    #[test]
    fn text_is_read_as_people_type_it() {
        let question = text("Seattle 2014-03-01 to 2014-03-05").unwrap();
        assert_eq!(question.cities, ["Seattle"]);
        assert_eq!(question.when, days(date(2014, 3, 1), date(2014, 3, 5)));
        let question = text("compare seattle and NYC, tomorrow at 9:30?").unwrap();
        assert_eq!(question.cities, ["Seattle", "New York"]);
        assert_eq!(question.when, days(date(2026, 2, 1), date(2026, 2, 1)));
        assert_eq!(question.time, Some(time(9, 30, 0, 0)));
        let question = text("how is the weather in New York").unwrap();
        assert_eq!(question.when, When::Unsaid);
    }

    #[test]
    fn data_is_read_strictly() {
        let question = data(serde_json::json!({
            "cities": ["Seattle", "new york", "Seattle"], "from": "2014-03-01", "to": "2014-03-05"
        }))
        .unwrap();
        assert_eq!(question.cities, ["Seattle", "New York"]);
        assert_eq!(question.when, days(date(2014, 3, 1), date(2014, 3, 5)));
    }

    #[test]
    fn each_mistake_is_named_by_its_field() {
        let mistakes = [
            (serde_json::json!({ "citi": "Seattle" }), "citi"),
            (serde_json::json!({ "city": "Seatle" }), "city"),
            (
                serde_json::json!({ "cities": ["Seattle", "Berlin"] }),
                "cities[1]",
            ),
            (serde_json::json!({ "city": "Seattle", "cities": [] }), "city"),
            (serde_json::json!({ "cities": vec!["Seattle"; 6] }), "cities"),
            (serde_json::json!({ "date": "2014-02-30" }), "date"),
            (serde_json::json!({ "date": 20140301 }), "date"),
            (serde_json::json!({ "from": "2014-03-01" }), "to"),
            (serde_json::json!({ "to": "2014-03-01" }), "from"),
            (
                serde_json::json!({ "from": "2014-03-05", "to": "2014-03-01" }),
                "to",
            ),
            (
                serde_json::json!({ "from": "2014-01-01", "to": "2016-01-01" }),
                "to",
            ),
            (
                serde_json::json!({ "date": "2014-03-05", "to": "2014-03-01" }),
                "date",
            ),
            (serde_json::json!({ "time": "25:00" }), "time"),
            (
                serde_json::json!({ "thresholds": { "temperature_c": "hot" } }),
                "thresholds.temperature_c",
            ),
            (
                serde_json::json!({ "thresholds": { "wind_km_per_h": -1 } }),
                "thresholds.wind_km_per_h",
            ),
        ];
        for (json, field) in mistakes {
            let failure = data(json.clone()).unwrap_err();
            assert_eq!(failure.field(), Some(field), "{json}: {failure}");
        }
        assert_eq!(text("Seattle 2014-02-30").unwrap_err().field(), Some("text"));
        assert_eq!(
            text("Seattle 2014-01-01 2014-01-02 2014-01-03")
                .unwrap_err()
                .field(),
            Some("text")
        );
    }

    #[test]
    fn an_unknown_city_comes_with_the_known_and_the_nearest() {
        let message = text("forecast for Seatle 2014-03-01").unwrap_err().to_string();
        assert!(message.contains("did you mean 'Seattle'"), "{message}");
        let message = data(serde_json::json!({ "city": "Berlin" }))
            .unwrap_err()
            .to_string();
        assert!(message.contains("New York, Seattle"), "{message}");
    }

    proptest! {
        #[test]
        fn any_text_is_answered_or_refused(input in ".{0,80}") {
            if let Ok(question) = text(&input) {
                prop_assert!(question.cities.len() <= MAX_CITIES);
            }
        }

        #[test]
        fn any_two_dates_are_read_or_refused(
            from in "[0-9]{4}-[0-9]{2}-[0-9]{2}", to in "[0-9]{4}-[0-9]{2}-[0-9]{2}",
        ) {
            if let Ok(question) = text(&format!("Seattle {from} {to}")) {
                let When::Days(period) = question.when else { panic!("two dates are days") };
                prop_assert_eq!(period.first().to_string(), from);
                prop_assert!(period.days() <= crate::period::MAX_DAYS);
            }
        }
    }
}

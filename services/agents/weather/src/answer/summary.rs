//! Answers in a sentence or two, for people.

use std::fmt::Write as _;

use jiff::civil::Date;
use serde_json::Value;

use super::Answer;
use crate::advice::{Advice, Verdict};
use crate::alert::{Alert, Severity};
use crate::day::{Basis, Day};
use crate::period::Period;
use crate::statistics::{CityFigures, figures};

/// Most dates that a sentence lists.
const MOST_DATES: usize = 10;

/// Each day on a line of its own; the hours, where asked, after it.
pub(crate) fn of_days(answer: &Answer<'_>, hours: Option<&Value>) -> String {
    let mut lines: Vec<String> = answer.days.iter().map(of_day).collect();
    for hour in hours.and_then(Value::as_array).into_iter().flatten() {
        let number = |name: &str| hour.pointer(&format!("/normal/{name}")).and_then(Value::as_f64);
        if let (Some(at), Some(temperature), Some(wind)) =
            (number("hour"), number("temperature_c"), number("wind_m_s"))
        {
            lines.push(format!(
                "At {at:02}:00 usually {temperature:.1} °C, wind {wind:.1} m/s."
            ));
        }
    }
    lines.push(source(answer));
    lines.join(" ")
}

/// The rainy days and the range of temperatures of each city.
pub(crate) fn of_forecast(answer: &Answer<'_>) -> String {
    let mut text = String::new();
    for city in answer.cities {
        let days = || answer.days.iter().filter(|day| day.city == *city);
        let Some(figures) = figures(days()) else { continue };
        let rainy: Vec<Date> = days().filter(|day| day.rainy).map(|day| day.date).collect();
        let rain = match rainy.as_slice() {
            [] => "no rain".to_owned(),
            dates => format!(
                "rain on {} of {} days ({}), {:.1} mm",
                dates.len(),
                figures.days,
                list(dates),
                figures.precipitation_mm
            ),
        };
        // A String takes all that is written to it.
        let _ = write!(
            text,
            "{city}, {} to {}: {rain}; {:.1} to {:.1} °C. ",
            answer.period.first(),
            answer.period.last(),
            figures.coldest_c,
            figures.warmest_c
        );
    }
    text + &source(answer)
}

/// How many alerts, and the severe ones.
pub(crate) fn of_alerts(answer: &Answer<'_>, alerts: &[Alert]) -> String {
    let severe: Vec<Date> = alerts
        .iter()
        .filter(|alert| alert.severity == Severity::Severe)
        .map(|alert| alert.date)
        .collect();
    let mut text = format!(
        "{} alerts for {}, {} to {}",
        alerts.len(),
        answer.cities.join(", "),
        answer.period.first(),
        answer.period.last()
    );
    if !severe.is_empty() {
        let _ = write!(text, "; severe on {}", list(&severe));
    }
    format!("{text}. {}", source(answer))
}

/// Which days to travel on, and which not.
pub(crate) fn of_advice(answer: &Answer<'_>, advice: &[Advice], window: Option<Period>) -> String {
    let dates = |verdict: Verdict| -> Vec<Date> {
        advice
            .iter()
            .filter(|it| it.verdict == verdict)
            .map(|it| it.date)
            .collect()
    };
    let mut text = format!(
        "{}: {} good days, {} with caution, {} to avoid",
        answer.cities.join(", "),
        dates(Verdict::Go).len(),
        dates(Verdict::Caution).len(),
        dates(Verdict::NoGo).len()
    );
    let avoid = dates(Verdict::NoGo);
    if !avoid.is_empty() {
        let _ = write!(text, " ({})", list(&avoid));
    }
    match window {
        Some(window) => {
            let _ = write!(text, "; best from {} to {}", window.first(), window.last());
        }
        None => text.push_str("; no day is without concern"),
    }
    format!("{text}. {}", source(answer))
}

/// Each city's figures.
pub(crate) fn of_cities(answer: &Answer<'_>, cities: &[CityFigures]) -> String {
    let lines: Vec<String> = cities
        .iter()
        .map(|one| {
            let figures = &one.figures;
            format!(
                "{}: {:.1} / {:.1} °C on average, {:.1} mm on {} of {} days",
                one.city,
                figures.mean_temp_max_c,
                figures.mean_temp_min_c,
                figures.precipitation_mm,
                figures.rainy_days,
                figures.days
            )
        })
        .collect();
    format!(
        "{} to {}. {}. {}",
        answer.period.first(),
        answer.period.last(),
        lines.join("; "),
        source(answer)
    )
}

fn of_day(day: &Day) -> String {
    let basis = match (&day.basis, &day.spread) {
        (Basis::Climatology, Some(spread)) => {
            format!(
                ", usually; rain probability {:.0} %",
                spread.rain_probability * 100.0
            )
        }
        (Basis::Climatology | Basis::Observed, _) => String::new(),
    };
    format!(
        "{}, {}: {}, {:.1} to {:.1} °C, {:.1} mm, wind {:.1} m/s{basis}.",
        day.city,
        day.date,
        format!("{:?}", day.condition).to_lowercase(),
        day.temp_min_c,
        day.temp_max_c,
        day.precipitation_mm,
        day.wind_m_s
    )
}

fn source(answer: &Answer<'_>) -> String {
    let what = match answer.observed() {
        0 => "Climate of the same days",
        all if all == answer.days.len() => "Observations",
        _ => "Observations, and the climate of the same days where there are none",
    };
    format!(
        "{what} from {}; its newest day is {} days old.",
        answer.about.name, answer.age_days
    )
}

fn list(dates: &[Date]) -> String {
    let shown: Vec<String> = dates.iter().take(MOST_DATES).map(Date::to_string).collect();
    match dates.len().saturating_sub(MOST_DATES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

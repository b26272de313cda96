//! Whether to travel on a day, and why.

use jiff::civil::Date;
use serde::Serialize;

use crate::alert::{self, Kind, Severity, Thresholds};
use crate::day::{Condition, Day};
use crate::period::Period;

/// What a traveller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Go.
    Go,
    /// Go, prepared for what the reasons say.
    Caution,
    /// Choose another day.
    NoGo,
}

/// Advice for one day in one city.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The day.
    pub date: Date,
    /// The city.
    pub city: String,
    /// What to do.
    pub verdict: Verdict,
    /// Why; empty for a good day.
    pub reasons: Vec<String>,
}

/// Advice for one day: what is severe, and snow, rules it out; what is worth an alert asks for caution.
#[must_use]
pub fn of_day(day: &Day, thresholds: &Thresholds) -> Advice {
    let mut verdict = Verdict::Go;
    let mut reasons = Vec::new();
    for alert in alert::of_day(day, thresholds) {
        verdict = verdict.max(match alert.severity {
            Severity::Severe => Verdict::NoGo,
            Severity::Advisory => Verdict::Caution,
        });
        let what = match alert.kind {
            Kind::Temperature => "heat",
            Kind::Precipitation => "precipitation",
            Kind::Wind => "wind",
        };
        reasons.push(format!("{what} {:.1} {}", alert.value, alert.unit));
    }
    match day.condition {
        Condition::Snow => {
            verdict = Verdict::NoGo;
            reasons.push("snow".to_owned());
        }
        Condition::Fog => {
            verdict = verdict.max(Verdict::Caution);
            reasons.push("fog".to_owned());
        }
        Condition::Sun | Condition::Drizzle | Condition::Rain => {}
    }
    Advice {
        date: day.date,
        city: day.city.clone(),
        verdict,
        reasons,
    }
}

/// The first of the longest runs of days on which every city says go; `None` without any such day.
#[must_use]
pub fn best_window(advice: &[Advice]) -> Option<Period> {
    let mut good: std::collections::BTreeMap<Date, bool> = std::collections::BTreeMap::new();
    for one in advice {
        *good.entry(one.date).or_insert(true) &= one.verdict == Verdict::Go;
    }
    let mut best: Option<Period> = None;
    let mut run: Option<Period> = None;
    for (date, is_good) in good {
        let first = run.map_or(date, |run| run.first());
        run = is_good.then(|| Period::spanning(first, date));
        best = match (best, run) {
            (Some(longest), Some(run)) if run.days() <= longest.days() => Some(longest),
            (longest, run) => run.or(longest),
        };
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::Basis;
    use jiff::civil::date;

    fn advice(day_of_month: i8, precipitation_mm: f64, condition: Condition) -> Advice {
        let day = Day {
            date: date(2014, 3, day_of_month),
            city: "Seattle".to_owned(),
            precipitation_mm,
            temp_max_c: 15.0,
            temp_min_c: 8.0,
            wind_m_s: 3.0,
            condition,
            rainy: precipitation_mm >= 0.1,
            basis: Basis::Observed,
            spread: None,
        };
        of_day(&day, &Thresholds::default())
    }

    #[test]
    fn verdicts_follow_from_the_worst_reason() {
        assert_eq!(advice(1, 0.0, Condition::Sun).verdict, Verdict::Go);
        assert_eq!(advice(1, 5.0, Condition::Rain).verdict, Verdict::Caution);
        assert_eq!(advice(1, 46.7, Condition::Rain).verdict, Verdict::NoGo);
        assert_eq!(advice(1, 0.0, Condition::Snow).verdict, Verdict::NoGo);
        assert_eq!(advice(1, 0.0, Condition::Fog).reasons, ["fog"]);
    }

    #[test]
    fn the_best_window_is_the_longest_run_of_good_days_in_every_city() {
        let days = [
            advice(1, 0.0, Condition::Sun),
            advice(2, 5.0, Condition::Rain),
            advice(3, 0.0, Condition::Sun),
            advice(4, 0.0, Condition::Sun),
            advice(5, 0.0, Condition::Sun),
            advice(5, 5.0, Condition::Rain),
        ];
        assert_eq!(
            best_window(&days),
            Some(Period::spanning(date(2014, 3, 3), date(2014, 3, 4)))
        );
        assert_eq!(best_window(&[advice(1, 5.0, Condition::Rain)]), None);
    }
}

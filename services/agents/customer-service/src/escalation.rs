//! When a person takes over, how urgent it is, and who.
//!
//! A case escalates at a complexity above [`MAX_COMPLEXITY`] (of 10), at [`MAX_ATTEMPTS`] failed attempts, or once
//! more time has passed than complexity × [`MINUTES_PER_POINT`] minutes. A complexity that the caller does not give
//! is estimated from the text: 3, one more above 40 words and another above 120, two for each kind of grave word (see
//! [`GRAVE`]), 10 at most.

use std::collections::BTreeMap;

use serde::Serialize;

/// The highest complexity that is handled without a person.
pub const MAX_COMPLEXITY: u8 = 7;
/// Failed attempts after which a person takes over.
pub const MAX_ATTEMPTS: u32 = 3;
/// Minutes that a case may take per point of complexity.
pub const MINUTES_PER_POINT: f64 = 15.0;

/// Words of grave matters, by kind: interruption, loss, attack, money and law.
pub const GRAVE: [&[&str]; 4] = [
    &[
        "outage",
        "down",
        "unavailable",
        "production",
        "urgent",
        "immediately",
    ],
    &["lost", "loss", "corrupt", "corrupted", "deleted", "damaged"],
    &[
        "breach",
        "breached",
        "attack",
        "attacked",
        "compromised",
        "hacked",
        "leak",
        "leaked",
    ],
    &["refund", "lawyer", "legal", "lawsuit", "compensation", "cancel"],
];

/// What is known about a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Case<'a> {
    /// All that the customer wrote.
    pub text: &'a str,
    /// 1 to 10, if the caller judged it.
    pub complexity: Option<u8>,
    /// Attempts that failed.
    pub attempts: u32,
    /// Minutes since the case was opened, if known.
    pub elapsed_minutes: Option<f64>,
    /// Whether the caller asks for a person.
    pub requested: bool,
}

/// Why a person takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The caller asked.
    Requested,
    /// Too complex.
    Complexity,
    /// Too many failed attempts.
    Attempts,
    /// Too much time.
    Time,
}

/// How soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// In turn.
    Normal,
    /// Before others.
    High,
    /// At once.
    Urgent,
}

/// What the person gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Why; never empty.
    pub reasons: Vec<Reason>,
    /// The same in a sentence.
    pub reason: String,
    /// 1 to 10.
    pub complexity: u8,
    /// Whether the complexity is our estimate.
    pub complexity_estimated: bool,
    /// How soon.
    pub priority: Priority,
    /// Who.
    pub suggested_team: String,
    /// Attempts that failed.
    pub attempts: u32,
    /// Minutes so far, if known.
    pub elapsed_minutes: Option<f64>,
}

/// Who takes over which matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Teams {
    /// By the document (without `.md`) that the matter is about.
    pub by_document: BTreeMap<String, String>,
    /// All other matters.
    pub otherwise: String,
}

/// The record of a case that a person takes over; `None` for one that goes on without.
#[must_use]
pub fn judge(case: &Case<'_>, about: Option<&str>, teams: &Teams) -> Option<Record> {
    let complexity = case
        .complexity
        .unwrap_or_else(|| estimate(case.text))
        .clamp(1, 10);
    let allowed = f64::from(complexity) * MINUTES_PER_POINT;
    let late = case.elapsed_minutes.filter(|elapsed| *elapsed > allowed);
    let mut reasons = Vec::new();
    let mut sentences = Vec::new();
    if case.requested {
        reasons.push(Reason::Requested);
        sentences.push("a person was asked for".to_owned());
    }
    if complexity > MAX_COMPLEXITY {
        reasons.push(Reason::Complexity);
        sentences.push(format!("complexity {complexity} is above {MAX_COMPLEXITY}"));
    }
    if case.attempts >= MAX_ATTEMPTS {
        reasons.push(Reason::Attempts);
        sentences.push(format!("{} attempts have failed", case.attempts));
    }
    if let Some(elapsed) = late {
        reasons.push(Reason::Time);
        sentences.push(format!(
            "{elapsed:.0} minutes have passed, and complexity {complexity} allows {allowed:.0}"
        ));
    }
    if reasons.is_empty() {
        return None;
    }
    let priority = if grave_kinds(case.text) > 0 && complexity > MAX_COMPLEXITY || complexity >= 9 {
        Priority::Urgent
    } else if complexity > MAX_COMPLEXITY || late.is_some() || grave_kinds(case.text) > 0 {
        Priority::High
    } else {
        Priority::Normal
    };
    let team = about.and_then(|file| teams.by_document.get(file.trim_end_matches(".md")));
    Some(Record {
        reasons,
        reason: sentences.join("; "),
        complexity,
        complexity_estimated: case.complexity.is_none(),
        priority,
        suggested_team: team.unwrap_or(&teams.otherwise).clone(),
        attempts: case.attempts,
        elapsed_minutes: case.elapsed_minutes,
    })
}

/// See the module.
#[must_use]
pub fn estimate(text: &str) -> u8 {
    let words = text.split_whitespace().count();
    let points = 3 + usize::from(words > 40) + usize::from(words > 120) + 2 * grave_kinds(text);
    u8::try_from(points.min(10)).unwrap_or(10)
}

fn grave_kinds(text: &str) -> usize {
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
    GRAVE
        .iter()
        .filter(|kind| kind.iter().any(|grave| words.contains(grave)))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn teams() -> Teams {
        let by_document = BTreeMap::from([("security".to_owned(), "security".to_owned())]);
        Teams {
            by_document,
            otherwise: "second line".to_owned(),
        }
    }

    fn case(text: &str) -> Case<'_> {
        Case {
            text,
            complexity: None,
            attempts: 0,
            elapsed_minutes: None,
            requested: false,
        }
    }

    #[test]
    fn each_rule_escalates_at_its_edge_and_not_before() {
        let judge = |case: Case<'_>| judge(&case, None, &teams()).map(|record| record.reasons);
        assert_eq!(
            judge(Case {
                complexity: Some(7),
                ..case("x")
            }),
            None
        );
        assert_eq!(
            judge(Case {
                complexity: Some(8),
                ..case("x")
            }),
            Some(vec![Reason::Complexity])
        );
        assert_eq!(
            judge(Case {
                attempts: 2,
                ..case("x")
            }),
            None
        );
        assert_eq!(
            judge(Case {
                attempts: 3,
                ..case("x")
            }),
            Some(vec![Reason::Attempts])
        );
        let after = |minutes| Case {
            complexity: Some(2),
            elapsed_minutes: Some(minutes),
            ..case("x")
        };
        assert_eq!(judge(after(30.0)), None);
        assert_eq!(judge(after(30.5)), Some(vec![Reason::Time]));
        assert_eq!(
            judge(Case {
                requested: true,
                ..case("x")
            }),
            Some(vec![Reason::Requested])
        );
    }

    #[test]
    fn records_say_why_how_soon_and_who() {
        let text = "Our production is down and data was lost after the breach";
        let record = judge(&case(text), Some("security.md"), &teams()).unwrap();
        assert_eq!((record.complexity, record.complexity_estimated), (9, true));
        assert_eq!(
            (record.priority, record.suggested_team.as_str()),
            (Priority::Urgent, "security")
        );
        assert!(record.reason.contains("complexity 9 is above 7"));
        let record = judge(
            &Case {
                requested: true,
                ..case("hello")
            },
            Some("routing.md"),
            &teams(),
        )
        .unwrap();
        assert_eq!(
            (record.priority, record.suggested_team.as_str()),
            (Priority::Normal, "second line")
        );
    }

    proptest! {
        #[test]
        fn a_case_escalates_exactly_when_a_rule_says_so(
            complexity in 1..=10u8, attempts in 0..6u32, elapsed in 0.0..300.0f64, requested: bool,
        ) {
            let case = Case { text: "x", complexity: Some(complexity), attempts, elapsed_minutes: Some(elapsed), requested };
            let expected = requested || complexity > 7 || attempts >= 3 || elapsed > f64::from(complexity) * 15.0;
            let record = judge(&case, None, &teams());
            prop_assert_eq!(record.is_some(), expected);
            prop_assert!(record.is_none_or(|record| !record.reasons.is_empty()));
        }

        #[test]
        fn estimates_stay_on_the_scale(text in "(down|lost|breach|refund|word| ){0,300}") {
            prop_assert!((1..=10).contains(&estimate(&text)));
        }
    }
}

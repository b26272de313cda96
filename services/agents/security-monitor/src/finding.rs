//! What was found, how bad it is, and what speaks for it.

use std::collections::{BTreeSet, VecDeque};

use jiff::Timestamp;
use rsigma_parser::Level;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Lines quoted from the beginning and from the end of a finding's events.
const QUOTED_AT_EACH_END: usize = 5;
/// Users that a finding names.
const MAX_USERS: usize = 10;

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Informational,
    /// Look at it some time.
    Low,
    /// Look at it today.
    Medium,
    /// Look at it now.
    High,
    /// Act now.
    Critical,
}

impl Severity {
    /// All of them, worst first.
    pub const WORST_FIRST: [Self; 5] = [
        Self::Critical,
        Self::High,
        Self::Medium,
        Self::Low,
        Self::Informational,
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The share of certain harm that one finding stands for, of 1.
    fn weight(self) -> f64 {
        match self {
            Self::Informational => 0.01,
            Self::Low => 0.05,
            Self::Medium => 0.15,
            Self::High => 0.35,
            Self::Critical => 0.7,
        }
    }
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Informational => Self::Informational,
            Level::Low => Self::Low,
            Level::Medium => Self::Medium,
            Level::High => Self::High,
            Level::Critical => Self::Critical,
        }
    }
}

/// Something that a rule, or the rate of events, speaks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule's name.
    pub rule: String,
    /// The rule's title.
    #[serde(default)]
    pub title: String,
    /// How bad.
    pub severity: Severity,
    /// The address, host or user that it comes from.
    pub source: String,
    /// How many events speak for it.
    #[serde(default)]
    pub count: u64,
    /// The first of them.
    #[serde(default)]
    pub first_seen: Option<String>,
    /// The last of them.
    #[serde(default)]
    pub last_seen: Option<String>,
    /// The users that they name.
    #[serde(default)]
    pub users: Vec<String>,
    /// The first and the last lines.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// MITRE ATT&CK techniques, such as `T1110.001`.
    #[serde(default)]
    pub mitre: Vec<String>,
    /// MITRE ATT&CK tactics, such as `credential-access`.
    #[serde(default)]
    pub tactics: Vec<String>,
    /// What to do about it.
    #[serde(default)]
    pub recommended_response: String,
}

/// Events that speak for one finding: counted all, quoted a few.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    count: u64,
    first: Vec<usize>,
    last: VecDeque<usize>,
    times: Option<(Timestamp, Timestamp)>,
    users: BTreeSet<String>,
}

impl Evidence {
    /// Adds the event of a line.
    pub fn add(&mut self, line: usize, time: Option<Timestamp>, user: Option<&str>) {
        self.count += 1;
        let known = self.first.contains(&line) || self.last.contains(&line);
        if !known {
            if self.first.len() < QUOTED_AT_EACH_END {
                self.first.push(line);
            } else {
                self.last.push_back(line);
                if self.last.len() > QUOTED_AT_EACH_END {
                    self.last.pop_front();
                }
            }
        }
        if let Some(time) = time {
            self.times = Some(
                self.times
                    .map_or((time, time), |(from, to)| (from.min(time), to.max(time))),
            );
        }
        if let Some(user) = user.filter(|_| self.users.len() < MAX_USERS) {
            self.users
                .insert(user.chars().filter(|c| !c.is_control()).take(64).collect());
        }
    }

    /// How many events.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first and the last time.
    #[must_use]
    pub fn times(&self) -> Option<(Timestamp, Timestamp)> {
        self.times
    }

    /// The users that the events name.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        self.users.iter().cloned().collect()
    }

    /// The numbers of the lines to quote, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<usize> {
        self.first.iter().chain(&self.last).copied().collect()
    }
}

/// Worst first; among equals the one with more events.
pub fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        let key = |finding: &Finding| {
            (
                std::cmp::Reverse(finding.severity),
                std::cmp::Reverse(finding.count),
            )
        };
        key(a)
            .cmp(&key(b))
            .then_with(|| (&a.rule, &a.source).cmp(&(&b.rule, &b.source)))
    });
}

/// How many findings there are of each severity.
#[must_use]
pub fn by_severity(findings: &[Finding]) -> Value {
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    Value::Object(
        Severity::WORST_FIRST
            .iter()
            .map(|&severity| (severity.name().to_owned(), Value::from(count(severity))))
            .collect(),
    )
}

/// The overall risk: the worst severity, and a score of 0 to 100 that rises with every finding (each leaves its share
/// of what the others leave).
#[must_use]
pub fn risk(findings: &[Finding]) -> Value {
    let worst = findings.iter().map(|finding| finding.severity).max();
    let safe = findings
        .iter()
        .fold(1.0, |safe, finding| safe * (1.0 - finding.severity.weight()));
    json!({"level": worst.map_or("none", Severity::name), "score": ((1.0 - safe) * 100.0_f64).round()})
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn finding(rule: &str, severity: Severity, source: &str) -> Finding {
        Finding {
            rule: rule.to_owned(),
            title: rule.to_owned(),
            severity,
            source: source.to_owned(),
            count: 1,
            first_seen: None,
            last_seen: None,
            users: Vec::new(),
            evidence: Vec::new(),
            mitre: Vec::new(),
            tactics: Vec::new(),
            recommended_response: String::new(),
        }
    }

    #[test]
    fn evidence_counts_all_and_keeps_both_ends() {
        let mut evidence = Evidence::default();
        for line in 1..=20 {
            evidence.add(
                line,
                Timestamp::from_second(i64::try_from(line).unwrap()).ok(),
                Some("root"),
            );
        }
        assert_eq!(evidence.lines(), [1, 2, 3, 4, 5, 16, 17, 18, 19, 20]);
        assert_eq!(
            (evidence.count(), evidence.users()),
            (20, vec!["root".to_owned()])
        );
        let (from, to) = evidence.times().unwrap();
        assert_eq!((from.as_second(), to.as_second()), (1, 20));
    }

    #[test]
    fn the_worst_comes_first() {
        let mut findings = [
            finding("b", Severity::Low, "x"),
            finding("a", Severity::Critical, "x"),
            Finding {
                count: 9,
                ..finding("c", Severity::Low, "x")
            },
        ];
        sort(&mut findings);
        assert_eq!(
            findings
                .iter()
                .map(|finding| finding.rule.as_str())
                .collect::<Vec<_>>(),
            ["a", "c", "b"]
        );
        assert_eq!(by_severity(&findings)["low"], 2);
        assert_eq!(risk(&findings), json!({"level": "critical", "score": 73.0}));
        assert_eq!(risk(&[]), json!({"level": "none", "score": 0.0}));
    }

    proptest! {
        #[test]
        fn risk_never_falls_with_another_finding(severities in proptest::collection::vec(0..5usize, 0..40)) {
            let findings: Vec<Finding> =
                severities.iter().map(|&index| finding("r", Severity::WORST_FIRST[index], "s")).collect();
            let mut before = 0.0;
            for end in 0..=findings.len() {
                let score = risk(&findings[..end])["score"].as_f64().unwrap();
                prop_assert!((0.0..=100.0).contains(&score) && score >= before);
                before = score;
            }
        }
    }
}

//! A log against the rules: findings with evidence.
//!
//! Events are evaluated in order of time by an evaluation of their own, so that nothing of one log reaches another.
//! Correlations see only events with a time. A finding is one rule and one source; its count and its evidence are all
//! events in the log that match the rule, or feed the correlation, for that source. The number of sources is bounded,
//! and so is the number of findings; both limits are reported where they cut.

use std::collections::{BTreeMap, HashMap};

use rsigma_eval::event::JsonEvent;
use rsigma_eval::{EvaluationResult, ResultBody};
use serde_json::{Value, json};

use crate::anomaly;
use crate::event::Event;
use crate::finding::{self, Evidence, Finding};
use crate::log::Log;
use crate::rules::{Correlation, Rule, Ruleset};

/// Findings of one answer; the mildest are cut.
pub const MAX_FINDINGS: usize = 500;
/// Pairs of rule and source that are followed.
const MAX_FOLLOWED: usize = 50_000;

/// What a log has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Worst first.
    pub findings: Vec<Finding>,
    /// Findings that were cut, and events that were not followed because there were too many sources.
    pub cut_findings: usize,
    /// Events whose source was one too many.
    pub unfollowed: u64,
}

impl Detection {
    /// As the answer shows it.
    #[must_use]
    pub fn json(&self, log: &Log<'_>) -> Value {
        json!({"findings": self.findings, "by_severity": finding::by_severity(&self.findings),
            "risk": finding::risk(&self.findings), "cut_findings": self.cut_findings,
            "unfollowed_events": self.unfollowed, "log": log.describe()})
    }
}

/// Evaluates a log.
///
/// # Errors
/// Not for rules that have been loaded.
pub fn detect(ruleset: &Ruleset, log: &Log<'_>) -> Result<Detection, String> {
    let mut engine = ruleset.engine()?;
    let mut followed = Followed {
        ruleset,
        matches: BTreeMap::new(),
        groups: HashMap::new(),
        unfollowed: 0,
    };
    let mut rates = anomaly::Rates::default();
    for (line, event) in log.events() {
        let sigma = JsonEvent::borrow(&event.fields);
        for _ in 0..event.times {
            let results = match event.time {
                Some(time) => engine.process_event_at(&sigma, time.as_second()),
                None => engine.evaluate(&sigma),
            };
            for result in &results {
                followed.follow(result, line, &event);
            }
        }
        if let Some(time) = event.time {
            rates.add(&event.source(), time, line, event.times);
        }
    }
    let mut findings = followed.findings(log);
    findings.extend(rates.anomalies().iter().map(|anomaly| anomaly.finding(log)));
    finding::sort(&mut findings);
    let cut_findings = findings.len().saturating_sub(MAX_FINDINGS);
    findings.truncate(MAX_FINDINGS);
    Ok(Detection {
        findings,
        cut_findings,
        unfollowed: followed.unfollowed,
    })
}

/// Evidence so far.
struct Followed<'a> {
    ruleset: &'a Ruleset,
    /// Of single rules, by rule and source.
    matches: BTreeMap<(String, String), Evidence>,
    /// Of correlations, by correlation and group.
    groups: HashMap<(String, Vec<String>), Group>,
    unfollowed: u64,
}

#[derive(Default)]
struct Group {
    evidence: Evidence,
    source: String,
    fired: bool,
}

impl Followed<'_> {
    fn follow(&mut self, result: &EvaluationResult, line: usize, event: &Event) {
        let Some(id) = result.header.rule_id.as_deref() else {
            return;
        };
        match &result.body {
            ResultBody::Detection(_) => self.matched(id, line, event),
            ResultBody::Correlation(body) => {
                let key = body.group_key.iter().map(|(_, value)| value.clone()).collect();
                if let Some(group) = self.groups.get_mut(&(id.to_owned(), key)) {
                    group.fired = true;
                }
            }
        }
    }

    fn matched(&mut self, id: &str, line: usize, event: &Event) {
        let ruleset = self.ruleset;
        let room = self.matches.len() + self.groups.len() < MAX_FOLLOWED;
        if ruleset.rule(id).is_some_and(|rule| !rule.feeds_only) {
            let key = (id.to_owned(), event.source());
            if room || self.matches.contains_key(&key) {
                self.matches
                    .entry(key)
                    .or_default()
                    .add(line, event.time, event.text("user"));
            } else {
                self.unfollowed += 1;
            }
        }
        for correlation in ruleset
            .correlations()
            .iter()
            .filter(|correlation| correlation.fed_by.contains(id))
        {
            let key = (correlation.id.clone(), group_key(correlation, id, event));
            if !room && !self.groups.contains_key(&key) {
                self.unfollowed += 1;
                continue;
            }
            let group = self.groups.entry(key).or_default();
            if group.source.is_empty() {
                group.source = event.source();
            }
            group.evidence.add(line, event.time, event.text("user"));
        }
    }

    fn findings(&self, log: &Log<'_>) -> Vec<Finding> {
        let matches = self
            .matches
            .iter()
            .map(|((id, source), evidence)| (id, source, evidence));
        let groups = self.groups.iter().filter(|(_, group)| group.fired);
        let groups = groups.map(|((id, _), group)| (id, &group.source, &group.evidence));
        matches
            .chain(groups)
            .filter_map(|(id, source, evidence)| Some(finding(self.ruleset.rule(id)?, source, evidence, log)))
            .collect()
    }
}

/// The values by which a correlation groups an event, as the engine writes them.
fn group_key(correlation: &Correlation, rule: &str, event: &Event) -> Vec<String> {
    let value = |name: &str| match event.fields.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        _ => String::new(),
    };
    correlation
        .group_by
        .iter()
        .map(|field| value(field.aliases.get(rule).unwrap_or(&field.name)))
        .collect()
}

fn finding(rule: &Rule, source: &str, evidence: &Evidence, log: &Log<'_>) -> Finding {
    let times = evidence.times();
    Finding {
        rule: rule.name.clone(),
        title: rule.title.clone(),
        severity: rule.severity,
        source: source.to_owned(),
        count: evidence.count(),
        first_seen: times.map(|(first, _)| muster_api::time::rfc3339(first)),
        last_seen: times.map(|(_, last)| muster_api::time::rfc3339(last)),
        users: evidence.users(),
        evidence: evidence.lines().into_iter().map(|line| log.quote(line)).collect(),
        mitre: rule.mitre.clone(),
        tactics: rule.tactics.clone(),
        recommended_response: rule.response.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Calendar, Format};
    use crate::finding::Severity;
    use proptest::prelude::*;

    fn detected(text: &str) -> Detection {
        let calendar = Calendar {
            now: "2025-03-20T00:00:00Z".parse().unwrap(),
            year: None,
        };
        let log = Log::new(text, Format::Auto, calendar).unwrap();
        detect(&Ruleset::load(None).unwrap(), &log).unwrap()
    }

    fn found(detection: &Detection) -> Vec<(&str, &str, u64)> {
        let findings = detection.findings.iter();
        findings
            .map(|finding| (finding.rule.as_str(), finding.source.as_str(), finding.count))
            .collect()
    }

    fn failures(count: usize, seconds_apart: usize) -> String {
        (0..count)
            .map(|index| index * seconds_apart)
            .map(|at| {
                format!(
                    "Mar 14 10:{:02}:{:02} h sshd[9]: Failed password for root from 192.0.2.7 port 4 ssh2\n",
                    at / 60,
                    at % 60
                )
            })
            .collect()
    }

    #[test]
    fn what_an_audit_log_says_of_attackers_is_found() {
        let line = |second: u32, event: &str, more: &str| {
            format!(
                "{{\"time\":\"2025-03-14T10:00:{second:02}.000Z\",\"service\":\"router\",\"event\":\"{event}\",\
                 \"source_ip\":\"192.0.2.7\",{more}\"outcome\":\"refused\"}}\n"
            )
        };
        let mut text = String::new();
        for second in 0..5 {
            text += &line(second, "login_refused", "\"user\":\"unknown\",");
        }
        for second in 10..20 {
            text += &line(second, "access_refused", "\"user\":\"eve\",");
        }
        for (second, event) in [
            (20, "login_limited"),
            (21, "rate_limited"),
            (22, "impersonation_refused"),
        ] {
            text += &line(second, event, "\"user\":\"eve\",");
        }
        for (second, reason) in [
            (30, "unknown_authority"),
            (31, "peer_not_admitted"),
            (32, "too_many_streams_or_resets"),
            (33, "slow_body"),
            (34, "no_tls"),
        ] {
            let reason = format!("\"reason\":\"{reason}\",");
            text += &line(second, "connection_refused", &reason);
        }
        let detection = detected(&text);
        let mut found: Vec<(&str, u64)> = detection
            .findings
            .iter()
            .map(|finding| (finding.rule.as_str(), finding.count))
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("muster_flooding", 1),
                ("muster_impersonation", 1),
                ("muster_login_limited", 1),
                ("muster_logins_refused", 5),
                ("muster_probing", 10),
                ("muster_stranger", 2),
                ("muster_wearing_down", 2),
            ]
        );
    }

    #[test]
    fn the_sample_shows_what_happened_that_morning() {
        let detection = detected(include_str!("../samples/auth.log"));
        let found = found(&detection);
        assert_eq!(found[0], ("ssh_login_after_brute_force", "192.0.2.143", 21));
        for expected in [
            ("ssh_brute_force", "192.0.2.143", 20),
            ("ssh_brute_force", "203.0.113.77", 6),
            ("ssh_user_enumeration", "203.0.113.77", 6),
            ("sudo_refused", "gateway", 2),
        ] {
            assert!(found.contains(&expected), "{expected:?} {found:?}");
        }
        assert!(
            found
                .iter()
                .all(|(_, source, _)| !source.starts_with("198.51.100.")),
            "{found:?}"
        );
        let worst = &detection.findings[0];
        assert_eq!(
            (worst.severity, worst.users.as_slice()),
            (Severity::Critical, &["backup".to_owned(), "root".to_owned()][..])
        );
        assert_eq!(worst.first_seen.as_deref(), Some("2025-03-14T08:31:10.000Z"));
        assert!(
            worst
                .evidence
                .last()
                .unwrap()
                .contains("Accepted password for backup")
        );
        assert!(worst.mitre.contains(&"T1110.001".to_owned()) && !worst.recommended_response.is_empty());
    }

    #[test]
    fn web_requests_are_judged_by_their_decoded_uri() {
        let detection = detected(include_str!("../samples/access.jsonl"));
        let found = found(&detection);
        assert_eq!(
            found,
            [
                ("web_path_traversal", "203.0.113.9", 2),
                ("web_sql_injection", "203.0.113.9", 1)
            ]
        );
    }

    #[test]
    fn a_brute_force_begins_at_the_fifth_failure_within_five_minutes() {
        assert!(found(&detected(&failures(4, 1))).is_empty());
        assert_eq!(
            found(&detected(&failures(5, 1))),
            [("ssh_brute_force", "192.0.2.7", 5)]
        );
        assert!(found(&detected(&failures(20, 100))).is_empty());
        let repeated = "Mar 14 10:00:00 h sshd[9]: message repeated 5 times: [ Failed password for root from 192.0.2.7 port 4 ssh2]\n";
        assert_eq!(found(&detected(repeated)), [("ssh_brute_force", "192.0.2.7", 5)]);
    }

    #[test]
    fn the_order_of_lines_does_not_matter_but_that_of_time_does() {
        let login = |time: &str| {
            format!("Mar 14 {time} h sshd[9]: Accepted password for root from 192.0.2.7 port 4 ssh2\n")
        };
        let rules = |text: &str| {
            found(&detected(text))
                .iter()
                .map(|found| found.0.to_owned())
                .collect::<Vec<_>>()
        };
        let after = format!("{}{}", login("10:05:00"), failures(6, 1));
        assert!(rules(&after).contains(&"ssh_login_after_brute_force".to_owned()));
        let before = format!("{}{}", failures(6, 1), login("09:59:00"));
        assert!(!rules(&before).contains(&"ssh_login_after_brute_force".to_owned()));
    }

    #[test]
    fn accounts_and_shells_are_watched() {
        let text = "Mar 14 10:00:00 h useradd[1]: new user: name=eve, UID=1002\nMar 14 10:00:01 h usermod[1]: add 'eve' to \
            group 'sudo'\nMar 14 10:00:02 h sudo: eve : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/bash\n\
            Mar 14 10:00:03 h sudo: bob : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/apt update\n";
        assert_eq!(
            found(&detected(text)),
            [("account_change", "h", 2), ("sudo_root_shell", "h", 1)]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn one_source_never_speaks_for_another(counts in proptest::collection::vec(0..9usize, 1..6)) {
            let mut text = "Mar 14 09:00:00 h cron[1]: start\n".to_owned();
            for (source, &count) in counts.iter().enumerate() {
                for second in 0..count {
                    text.push_str(&format!(
                        "Mar 14 10:00:{second:02} h sshd[9]: Failed password for u from 192.0.2.{source} port 4 ssh2\n"
                    ));
                }
            }
            let detection = detected(&text);
            let expected: Vec<(String, u64)> = counts
                .iter()
                .enumerate()
                .filter(|(_, count)| **count >= 5)
                .map(|(source, &count)| (format!("192.0.2.{source}"), count as u64))
                .collect();
            let mut actual: Vec<(String, u64)> = detection
                .findings
                .iter()
                .filter(|finding| finding.rule == "ssh_brute_force")
                .map(|finding| (finding.source.clone(), finding.count))
                .collect();
            actual.sort();
            prop_assert_eq!(actual, expected);
        }
    }
}

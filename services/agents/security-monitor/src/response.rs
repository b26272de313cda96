//! From findings to a plan: what to do, in which order, how soon.
//!
//! Each finding calls for actions in three phases: contain (stop it), eradicate (remove what was done), recover (go back
//! to normal, and make it harder next time). Which ones depends on the ATT&CK tactics of its rule; a finding of no known
//! tactic calls for an investigation. The same action for several findings is one step. Within a phase the most urgent
//! step comes first. The plan advises; nothing is executed.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::finding::{self, Finding, Severity};

/// Most steps of a plan.
const MAX_STEPS: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Contain,
    Eradicate,
    Recover,
}

#[derive(Debug, Clone, PartialEq)]
struct Step {
    phase: Phase,
    severity: Severity,
    action: String,
    rules: Vec<String>,
    sources: Vec<String>,
}

/// The plan for some findings, and a text for people.
#[must_use]
pub fn plan(findings: &[Finding]) -> (Value, String) {
    let worst = findings.iter().map(|finding| finding.severity).max();
    let triage = triage(worst);
    let steps = steps(findings);
    let described: Vec<Value> = (1..)
        .zip(&steps)
        .map(|(order, step)| {
            json!({"order": order, "phase": step.phase, "priority": priority(step.severity), "action": step.action,
                "rules": step.rules, "sources": step.sources})
        })
        .collect();
    let data = json!({
        "triage": triage.0,
        "triage_meaning": triage.1,
        "risk": finding::risk(findings),
        "by_severity": finding::by_severity(findings),
        "affected": {"sources": names(findings.iter().map(|finding| &finding.source)),
            "users": names(findings.iter().flat_map(|finding| &finding.users))},
        "plan": described,
    });
    let lines: Vec<String> = (1..)
        .zip(&steps)
        .map(|(order, step)| {
            format!(
                "{order}. [{}, {}] {}",
                phase_name(step.phase),
                priority(step.severity),
                step.action
            )
        })
        .collect();
    let text = if lines.is_empty() {
        format!(
            "{}: {}. No findings, so there is nothing to do.",
            triage.0, triage.1
        )
    } else {
        format!(
            "{}: {}. {} findings.\n{}",
            triage.0,
            triage.1,
            findings.len(),
            lines.join("\n")
        )
    };
    (data, text)
}

fn triage(worst: Option<Severity>) -> (&'static str, &'static str) {
    match worst {
        Some(Severity::Critical) => ("P1", "act at once: a compromise is likely"),
        Some(Severity::High) => ("P2", "act within the hour"),
        Some(Severity::Medium) => ("P3", "act today"),
        Some(Severity::Low) => ("P4", "act when there is time"),
        Some(Severity::Informational) | None => ("P5", "no action needed"),
    }
}

fn priority(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "urgent",
        Severity::High => "high",
        Severity::Medium => "normal",
        Severity::Low | Severity::Informational => "low",
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Contain => "contain",
        Phase::Eradicate => "eradicate",
        Phase::Recover => "recover",
    }
}

fn steps(findings: &[Finding]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for finding in findings
        .iter()
        .filter(|finding| finding.severity > Severity::Informational)
    {
        for (phase, action) in actions(finding) {
            match steps
                .iter_mut()
                .find(|step| step.phase == phase && step.action == action)
            {
                Some(step) => {
                    step.severity = step.severity.max(finding.severity);
                    add(&mut step.rules, &finding.rule);
                    add(&mut step.sources, &finding.source);
                }
                None => steps.push(Step {
                    phase,
                    severity: finding.severity,
                    action,
                    rules: vec![finding.rule.clone()],
                    sources: vec![finding.source.clone()],
                }),
            }
        }
    }
    steps.sort_by_key(|step| (step.phase, std::cmp::Reverse(step.severity)));
    steps.truncate(MAX_STEPS);
    steps
}

fn add(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

fn actions(finding: &Finding) -> Vec<(Phase, String)> {
    use Phase::{Contain, Eradicate, Recover};
    let has = |tactic: &str| finding.tactics.iter().any(|known| known == tactic);
    let source = &finding.source;
    let users = if finding.users.is_empty() {
        "the accounts involved".to_owned()
    } else {
        finding.users.join(", ")
    };
    let is_address = source.parse::<IpAddr>().is_ok();
    let is_web =
        finding.rule.starts_with("web_") || finding.mitre.iter().any(|technique| technique == "T1190");
    let mut actions = Vec::new();
    if is_address && !finding.tactics.is_empty() {
        actions.push((Contain, format!("Block {source} at the firewall.")));
    }
    if has("initial-access") && !is_web {
        actions.push((
            Contain,
            format!("End the sessions from {source}, and lock {users} until each login is explained."),
        ));
        actions.push((
            Contain,
            "Keep the logs and a snapshot of the host before anything is changed.".to_owned(),
        ));
        actions.push((
            Eradicate,
            format!("Look at what {users} did since the login: processes, cron jobs, SSH keys, files."),
        ));
        actions.push((
            Recover,
            format!("Give {users} new passwords and keys before unlocking."),
        ));
    }
    if is_web {
        actions.push((
            Eradicate,
            format!("Check which requests of {source} were answered with content, and fix the handler."),
        ));
        actions.push((
            Recover,
            "Add the request as a test, and filter such requests before the application.".to_owned(),
        ));
    }
    if has("credential-access") {
        actions.push((
            Recover,
            "Allow SSH by key only, and limit the rate of failed logins.".to_owned(),
        ));
    }
    if has("privilege-escalation") && !has("initial-access") {
        actions.push((
            Contain,
            format!(
                "Suspend the sudo rights of {users} on {source} until the owner has confirmed the action."
            ),
        ));
        actions.push((
            Eradicate,
            format!("Compare sudoers, groups and set-uid files on {source} with the last known state."),
        ));
    }
    if has("persistence") {
        actions.push((
            Contain,
            format!("Lock {users} unless the administrators planned the change."),
        ));
        actions.push((
            Eradicate,
            "Undo account, group and password changes that nobody planned.".to_owned(),
        ));
    }
    if has("discovery") || has("reconnaissance") {
        actions.push((
            Recover,
            format!("Watch for further attempts from the network of {source}."),
        ));
    }
    if actions.is_empty() {
        let advice = if finding.recommended_response.is_empty() {
            "Find out what it is.".to_owned()
        } else {
            finding.recommended_response.clone()
        };
        actions.push((
            Contain,
            format!("Investigate {source} ({}): {advice}", finding.rule),
        ));
    }
    actions
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    const SHOWN: usize = 50;
    let mut names: Vec<&String> = names.collect();
    names.sort();
    names.dedup();
    names.truncate(SHOWN);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::tests::finding;
    use proptest::prelude::*;

    fn breach() -> Finding {
        Finding {
            users: vec!["backup".to_owned()],
            tactics: vec!["initial-access".to_owned(), "credential-access".to_owned()],
            ..finding("ssh_login_after_brute_force", Severity::Critical, "192.0.2.1")
        }
    }

    #[test]
    fn a_break_in_is_contained_first_and_recovered_from_last() {
        let (plan, text) = plan(&[breach()]);
        assert_eq!(plan["triage"], "P1");
        let phases: Vec<&str> = plan["plan"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["phase"].as_str().unwrap())
            .collect();
        assert_eq!(
            phases,
            ["contain", "contain", "contain", "eradicate", "recover", "recover"]
        );
        assert_eq!(plan["plan"][0]["action"], "Block 192.0.2.1 at the firewall.");
        assert_eq!(plan["plan"][0]["order"], 1);
        assert_eq!(
            plan["affected"],
            json!({"sources": ["192.0.2.1"], "users": ["backup"]})
        );
        assert!(text.contains("1. [contain, urgent] Block 192.0.2.1"), "{text}");
    }

    #[test]
    fn the_same_action_is_one_step_with_the_higher_priority() {
        let other = Finding {
            tactics: vec!["discovery".to_owned()],
            ..finding("ssh_user_enumeration", Severity::Medium, "192.0.2.1")
        };
        let (plan, _) = plan(&[other, breach()]);
        let blocks: Vec<&Value> = plan["plan"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|step| step["action"].as_str().unwrap().starts_with("Block"))
            .collect();
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0]["priority"], "urgent");
        assert_eq!(
            blocks[0]["rules"],
            json!(["ssh_user_enumeration", "ssh_login_after_brute_force"])
        );
    }

    #[test]
    fn nothing_found_is_nothing_to_do_and_the_unknown_is_investigated() {
        let (empty, text) = plan(&[]);
        assert_eq!((&empty["triage"], &empty["plan"]), (&json!("P5"), &json!([])));
        assert!(text.contains("nothing to do"));
        let (unknown, _) = plan(&[finding("own_rule", Severity::Low, "printer")]);
        assert_eq!(unknown["triage"], "P4");
        assert!(
            unknown["plan"][0]["action"]
                .as_str()
                .unwrap()
                .starts_with("Investigate printer (own_rule)")
        );
    }

    proptest! {
        #[test]
        fn plans_are_ordered_and_bounded(severities in proptest::collection::vec((0..5usize, 0..6u8), 0..80)) {
            let findings: Vec<Finding> = severities
                .iter()
                .map(|&(severity, source)| Finding {
                    tactics: vec!["persistence".to_owned()],
                    ..finding("r", Severity::WORST_FIRST[severity], &format!("192.0.2.{source}"))
                })
                .collect();
            let (plan, _) = plan(&findings);
            let steps = plan["plan"].as_array().unwrap();
            prop_assert!(steps.len() <= MAX_STEPS);
            let phase = |step: &Value| ["contain", "eradicate", "recover"].iter().position(|phase| step["phase"] == *phase);
            prop_assert!(steps.is_sorted_by_key(phase));
        }
    }
}

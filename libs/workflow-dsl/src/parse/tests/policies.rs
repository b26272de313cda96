//! What is said of `metadata.muster`.

use super::*;

/// The one complaint about a task with this policy: its pointer below the policy, and the message.
fn complaint(task: &str, policy: &str) -> (String, String) {
    let text = with_tasks(&format!("  - a: {{{task}, metadata: {{muster: {policy}}}}}\n"));
    let complaints = complaints(&text);
    let [(place, message)] = complaints.as_slice() else {
        panic!("{complaints:#?}\nin\n{text}");
    };
    let place = place.rsplit("/muster").next().unwrap_or_default();
    (place.to_owned(), message.clone())
}

const SET: &str = "set: {x: 1}";
const CALL: &str = "call: a2a, with: {server: 'agent://a', method: GetTask, parameters: {id: x}}";
const FORK: &str = "fork: {branches: [{b: {set: {x: 1}}}]}";

#[test]
fn approvals_name_what_is_asked_of_whom_and_for_how_long() {
    for (policy, place, words) in [
        (
            "{approval: {assignees: ada}}",
            "/approval",
            "'title' of 'approval' is missing",
        ),
        (
            "{approval: {title: Pay}}",
            "/approval",
            "'assignees' of 'approval' is missing",
        ),
        (
            "{approval: {title: ' ', assignees: ada}}",
            "/approval/title",
            "in one line",
        ),
        (
            "{approval: {title: Pay, assignees: []}}",
            "/approval/assignees",
            "1 to 32 names",
        ),
        (
            "{approval: {title: Pay, assignees: [1]}}",
            "/approval/assignees",
            "1 to 32 names",
        ),
        (
            "{approval: {title: Pay, assignees: {a: 1}}}",
            "/approval/assignees",
            "1 to 32 names",
        ),
        (
            "{approval: {title: Pay, assignees: ada, deadline: PT0S}}",
            "/approval/deadline",
            "above zero",
        ),
        (
            "{approval: {title: Pay, assignees: ada, escalate: {after: PT1H}}}",
            "/approval/escalate",
            "'to' of 'escalate' is missing",
        ),
        ("{aproval: {}}", "/aproval", "did you mean 'approval'?"),
    ] {
        let (at, message) = complaint(SET, policy);
        assert_eq!(at, place, "{policy}: {message}");
        assert!(message.contains(words), "{policy}: {message}");
    }
}

#[test]
fn policies_belong_to_the_tasks_that_can_keep_them() {
    for (task, policy, place, words) in [
        (
            SET,
            "{minSuccessRatio: 0.5}",
            "/minSuccessRatio",
            "of the kind 'fork', not 'set'",
        ),
        (
            FORK,
            "{minSuccessRatio: 0}",
            "/minSuccessRatio",
            "above 0 and at most 1",
        ),
        (
            FORK,
            "{minSuccessRatio: 1.5}",
            "/minSuccessRatio",
            "above 0 and at most 1",
        ),
        (
            "fork: {compete: true, branches: [{b: {set: {x: 1}}}]}",
            "{minSuccessRatio: 0.5}",
            "/minSuccessRatio",
            "the first to end decides",
        ),
        (SET, "{maxIterations: 0}", "/maxIterations", "from 1 to"),
        (
            SET,
            "{idempotent: true}",
            "/idempotent",
            "only a call that reaches out",
        ),
        (CALL, "{cache: {ttl: PT1H}}", "/cache", "'idempotent: true'"),
        (
            CALL,
            "{idempotent: false, cache: {ttl: PT1H}}",
            "/cache",
            "'idempotent: true'",
        ),
        (
            CALL,
            "{idempotent: true, cache: {ttl: P40D}}",
            "/cache/ttl",
            "at most 30 days",
        ),
        (
            CALL,
            "{idempotent: true, cache: {}}",
            "/cache",
            "'ttl' of 'cache' is missing",
        ),
        (CALL, "{budget: {tokens: 1}}", "/budget", "no such field"),
    ] {
        let (at, message) = complaint(task, policy);
        assert_eq!(at, place, "{policy}: {message}");
        assert!(message.contains(words), "{policy}: {message}");
    }
}

#[test]
fn a_budget_limits_something() {
    for (budget, words) in [
        ("{}", "needs 'tokens', 'cost' or both"),
        ("{tokens: 0}", "from 1 to"),
        ("{cost: -1}", "above zero"),
        ("{cost: 0}", "above zero"),
        ("{cost: much}", "above zero"),
        (
            "{tokens: 1, assignees: '${ $context.who }'}",
            "'$context' is not available",
        ),
    ] {
        let text = format!(
            "document: {{dsl: '1.0.1', namespace: default, name: sample, version: '1.0.0', metadata: {{muster: {{budget: {budget}}}}}}}\ndo:\n  - a: {{set: {{x: 1}}}}\n"
        );
        let complaints = complaints(&text);
        let [(place, message)] = complaints.as_slice() else {
            panic!("{complaints:#?}\nin\n{text}");
        };
        assert!(place.contains("/document/metadata/muster/budget"), "{place}");
        assert!(message.contains(words), "{budget}: {message}");
    }
}

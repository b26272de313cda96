//! `muster readiness`: it passes on a stack that is well, names what is not, says what it could not find out, and leaves nothing
//! behind. What the figures are is no matter here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use muster_api::workflow::ListRunsRequest;
use muster_tests::{Dev, Finished, Stack, muster_within};
use quick_xml::events::Event;
use serde_json::Value;

/// An examination starts processes of its own, some of them twice.
const PATIENCE: Duration = Duration::from_secs(600);

/// Short steps: what is asserted is what is said, not how much it is.
const SHORT: [&str; 6] = ["-o", "json", "--step", "1", "--most-clients", "20"];

/// The checks of a report, each with its outcome and what was seen.
fn checks(report: &Value) -> Vec<(&str, &str, &str)> {
    let checks = report["checks"].as_array().expect("checks");
    checks
        .iter()
        .map(|check| {
            let text = |name: &str| check[name].as_str().expect("a text");
            (text("name"), text("outcome"), text("evidence"))
        })
        .collect()
}

/// What was seen in a check, which must have come out like this.
fn evidence<'r>(report: &'r Value, name: &str, outcome: &str) -> &'r str {
    let found = checks(report).into_iter().find(|(check, _, _)| *check == name);
    let (_, came_out, evidence) = found.unwrap_or_else(|| panic!("no check '{name}': {report:#}"));
    assert_eq!(came_out, outcome, "{name}: {evidence}");
    evidence
}

/// How many suites and cases a file of JUnit has, and how many of these failed or were skipped.
fn junit(text: &str) -> [usize; 4] {
    let mut reader = quick_xml::Reader::from_str(text);
    let mut counts = [0; 4];
    loop {
        let event = reader.read_event().expect("it is XML");
        let (Event::Start(element) | Event::Empty(element)) = event else {
            if matches!(event, Event::Eof) {
                return counts;
            }
            continue;
        };
        let name = element.name();
        let names: [&[u8]; 4] = [b"testsuite", b"testcase", b"failure", b"skipped"];
        if let Some(place) = names.iter().position(|known| *known == name.as_ref()) {
            counts[place] += 1;
        }
    }
}

#[tokio::test]
async fn a_stack_of_its_own_passes_and_the_results_are_there_in_every_form() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("readiness.xml");
    // The others take their time, and are in the long suite.
    let areas = "initialisation,health,load,security,monitoring";
    let file_name = file.to_str().unwrap();
    let arguments = ["readiness", "--seed", "7", "--only", areas, "--junit", file_name];
    let finished = muster_within(PATIENCE, &[], &[&arguments[..], &SHORT].concat()).await;
    let report = finished.json();
    let failed: Vec<_> = checks(&report)
        .into_iter()
        .filter(|(_, outcome, _)| *outcome == "failed")
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(report["seed"], 7);
    // What no stack of its own has.
    let skipped: Vec<_> = checks(&report)
        .into_iter()
        .filter(|(_, outcome, _)| *outcome == "skipped")
        .map(|(name, _, _)| name)
        .collect();
    assert_eq!(
        skipped,
        [
            "Prometheus scrapes every target",
            "Prometheus answers every query",
            "an alert is delivered"
        ]
    );
    evidence(
        &report,
        "draining: no new work, and a call under way ends well",
        "passed",
    );
    let seen = evidence(&report, "an expired token is refused", "passed");
    assert!(seen.contains("written down in the audit log"), "{seen}");
    let load = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["name"] == "more and more, up to the knee")
        .unwrap();
    assert!(load["figures"]["kneeClients"].as_u64().unwrap() >= 10, "{load}");
    assert!(
        load["figures"]["steps"][0]["p99Seconds"].as_f64().unwrap() > 0.0,
        "{load}"
    );

    let text = std::fs::read_to_string(&file).unwrap();
    let all = checks(&report).len();
    assert_eq!(junit(&text), [5, all, 0, skipped.len()], "{text}");
}

async fn look(stack: &Stack, arguments: &[&str]) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    let places = directory.path().join("endpoints.json");
    std::fs::write(&places, stack.places().to_string()).unwrap();
    let running = [
        "readiness",
        "--target",
        "running",
        "--endpoints",
        places.to_str().unwrap(),
    ];
    muster_within(PATIENCE, &[], &[&running[..], arguments, &SHORT].concat()).await
}

#[tokio::test]
async fn a_part_that_was_killed_is_named() {
    let mut stack = Stack::start().await;
    stack.kill_engine().await;
    let finished = look(&stack, &["--only", "initialisation,health"]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
    let told = finished.stderr.as_str();
    assert!(told.contains("the engine serves"), "{told}");
    let report = finished.json();
    let seen = evidence(&report, "the engine serves", "failed");
    assert!(seen.contains("engine"), "{seen}");
    let seen = evidence(&report, "ready: /health, /ready and /startup say so", "failed");
    assert!(
        seen.contains("workflow-engine") && !seen.contains("router"),
        "{seen}"
    );
    evidence(&report, "the registry serves", "passed");
    evidence(&report, "every agent answers through the router", "passed");
    let missing = look(&stack, &["--only", "initialisation", "--expect", "nobody-here"]).await;
    assert_eq!(missing.code, 1);
    let report = missing.json();
    let seen = evidence(&report, "the agents are registered", "failed");
    assert!(seen.contains("nobody-here"), "{seen}");
}

#[tokio::test]
async fn something_that_runs_is_left_as_it_was_and_what_cannot_be_asked_is_skipped() {
    let mut stack = Stack::start().await;
    let finished = look(&stack, &[]).await;
    let report = finished.json();
    assert!(stack.is_whole(), "a part has ended");
    let runs = stack.engine().await.list_runs(ListRunsRequest::default()).await;
    assert!(runs.unwrap().into_inner().runs.is_empty(), "a run stays behind");
    assert_eq!(report["leftBehind"], serde_json::json!([]));
    for name in [
        "it comes up in any order",
        "draining: no new work, and a call under way ends well",
        "more and more, up to the knee",
        "an expired token is refused",
        "an alert is delivered",
    ] {
        let why = evidence(&report, name, "skipped");
        assert!(why.starts_with("it needs "), "{name}: {why}");
    }
    evidence(&report, "ten workflows at a time complete", "passed");
    evidence(&report, "ready: /health, /ready and /startup say so", "passed");
    evidence(&report, "every part shows its metrics", "passed");
    // On a loopback everybody is let in, which is not fit for production.
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    let seen = evidence(
        &report,
        "nobody gets in without a token or a certificate",
        "failed",
    );
    assert!(seen.contains("was let in"), "{seen}");
}

#[tokio::test]
async fn a_part_is_harmed_only_with_leave_and_by_the_operators_program() {
    let mut stack = Stack::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (program, log) = (directory.path().join("operate"), directory.path().join("log"));
    // Whoever starts a part again is its operator; here it was only stopped.
    let text = format!(
        "#!/bin/sh\necho $1 $2 >> {}\ncase $1 in kill|freeze|cut) kill -STOP {id};; *) kill -CONT {id};; esac\n",
        log.display(),
        id = stack.registry_id()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let with = [
        "--operate-with",
        program.to_str().unwrap(),
        "--part",
        "registry=registry",
    ];
    let refused = look(&stack, &[&["--only", "failover"], &with[..]].concat()).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(!log.exists(), "something was done without leave");
    let finished = look(
        &stack,
        &[&["--only", "failover", "--destructive"], &with[..]].concat(),
    )
    .await;
    let report = finished.json();
    assert_eq!(finished.code, 0, "{report:#}");
    for name in [
        "a registry is killed: calls go on",
        "a registry is frozen: calls go on",
        "a registry is cut off: calls go on",
    ] {
        let seen = evidence(&report, name, "passed");
        assert!(seen.contains("RTO"), "{seen}");
    }
    evidence(
        &report,
        "an engine is killed: another goes on with its runs",
        "skipped",
    );
    let deeds = std::fs::read_to_string(&log).unwrap();
    assert_eq!(
        deeds,
        "kill registry\nstart registry\nfreeze registry\nthaw registry\ncut registry\njoin registry\n"
    );
    assert!(stack.is_whole(), "a part has ended");
}

#[tokio::test]
async fn what_muster_dev_runs_over_mutual_tls_is_looked_at_with_its_own_file_of_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let _dev = Dev::start_with(&data, &["--tls"]).await;
    let (places, certificates) = (data.join("endpoints.json"), data.join("certificates"));
    let arguments = [
        "readiness",
        "--target",
        "running",
        "--only",
        "initialisation,security",
        "--endpoints",
        places.to_str().unwrap(),
        "--certificates",
        certificates.to_str().unwrap(),
    ];
    let finished = muster_within(PATIENCE, &[], &[&arguments[..], &SHORT].concat()).await;
    let report = finished.json();
    assert_eq!(finished.code, 0, "{report:#}");
    evidence(
        &report,
        "nobody gets in without a token or a certificate",
        "passed",
    );
    evidence(
        &report,
        "a certificate of a foreign authority is refused",
        "passed",
    );
    evidence(&report, "an unsigned token is refused", "passed");
}

#[tokio::test]
async fn the_checks_are_listed_with_what_they_need_and_areas_are_chosen() {
    let listed = muster_within(
        PATIENCE,
        &[],
        &["readiness", "--list", "--only", "load", "-o", "json"],
    )
    .await;
    let listed = listed.success().json();
    let checks = listed["checks"].as_array().expect("checks");
    assert!(checks.iter().all(|check| check["area"] == "load"), "{listed}");
    assert!(
        checks.iter().any(|check| check["needs"][0]
            .as_str()
            .is_some_and(|need| need.contains("--destructive"))),
        "{listed}"
    );
    let unknown = muster_within(PATIENCE, &[], &["readiness", "--only", "everything"]).await;
    assert_eq!(unknown.code, 2, "{unknown:?}");
}

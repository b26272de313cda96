//! A service as a process of its own: arguments, signals, exit codes, logs.

use std::net::TcpListener;
use std::path::PathBuf;

use muster_testkit::{Process, Program, http, wait_for};
use serde_json::Value;

use crate::native::{HOUR, Workloads};
use crate::stage::PATIENCE;

/// `examples/example_service.rs`; cargo builds it beside the tests of this package.
fn example() -> Program {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop(); // target/debug/deps
    path.pop();
    path.push("examples");
    path.push(format!("example_service{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "{} does not exist; build it first: cargo build -p muster-runtime --examples",
        path.display()
    );
    Program::at(path)
}

async fn ended(program: &Program) -> (Option<i32>, Process) {
    let mut process = program.start();
    let code = process.exit().await.code();
    (code, process)
}

/// The one line of a refused start.
async fn refusal(program: Program) -> String {
    let (code, process) = ended(&program).await;
    let text = process.stderr();
    assert_eq!(code, Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("example: "), "{text}");
    text
}

#[tokio::test]
async fn sigterm_drains_and_ends_with_success() {
    let mut process = example().start_ready().await;
    let status = process.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", process.stderr());
    assert!(process.stderr().contains("\"stopped\""), "{}", process.stderr());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let program = example();
    let mut process = program.start_ready().await;
    let address = program.data_address();
    let health = (std::net::Ipv4Addr::LOCALHOST, program.ports().health).into();
    let held = http::get(address, "/held");
    let twice = async {
        wait_for("the request to be there", PATIENCE, async || {
            process.stderr().contains("a request is held")
        })
        .await;
        process.signal("INT").await;
        wait_for("the drain", PATIENCE, async || {
            http::get(health, "/ready")
                .await
                .is_ok_and(|answer| answer.status == 503)
        })
        .await;
        process.signal("TERM").await;
        process.exit().await
    };
    let (cut, status) = tokio::join!(held, twice);
    assert!(cut.is_err());
    assert_eq!(status.code(), Some(130));
}

#[tokio::test]
async fn a_hangup_takes_up_what_can_be_and_says_what_cannot() {
    let workloads = Workloads::new();
    let trust = workloads.config("example");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let write = |level: &str, greeting: &str| {
        let native = &trust.native;
        let text = format!(
            "[telemetry]\nlog_level = '{level}'\n[example]\ngreeting = '{greeting}'\ntoken = 'canary-{greeting}'\n\
             [trust]\nmode = 'native'\ntrust_domain = 'd'\nnamespace = 'n'\n\
             [trust.native]\ncertificate = '{}'\nkey = '{}'\nauthorities = '{}'\nreload_seconds = 3600\n",
            native.certificate.display(),
            native.key.display(),
            native.authorities.display(),
        );
        std::fs::write(&file, text).unwrap();
    };
    write("INFO", "hello");
    let program = example().arg("--config").arg(file.to_str().unwrap());
    let mut process = program.start_ready().await;
    let said = async |process: &Process, what: &str| {
        wait_for(what, PATIENCE, async || {
            let text = process.stderr();
            let line = text.lines().find(|line| line.contains(what));
            line.map(|line| serde_json::from_str::<Value>(line).unwrap())
                .ok_or(text)
        })
        .await
    };

    workloads.issue("planning", "example", HOUR);
    write("DEBUG", "bye");
    process.signal("HUP").await;
    let line = said(&process, "the configuration was read again").await;
    assert_eq!(line["taken_up"], "telemetry.log_level");
    assert_eq!(line["needs_restart"], "example.greeting, example.token");
    let line = said(&process, "new certificates are in use").await;
    assert_eq!(line["id"], "spiffe://d/ns/n/sa/planning");
    assert!(!process.stderr().contains("canary"), "{}", process.stderr());

    // What cannot be used changes nothing.
    write("LOUD", "bye");
    process.signal("HUP").await;
    let line = said(&process, "the configuration cannot be used").await;
    assert!(
        line["error"].as_str().unwrap().contains("telemetry.log_level"),
        "{line}"
    );
    assert_eq!(process.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_key_that_is_gone_is_refused_with_what_takes_its_place() {
    let text = refusal(example().arg("--set=trust.services={\"billing\":[\"agent-writer\"]}")).await;
    assert!(text.contains("trust.services: is gone"), "{text}");
    assert!(text.contains("trust.identities.writers"), "{text}");
}

#[tokio::test]
async fn all_mistakes_are_one_line_and_exit_code_2() {
    let program = example()
        .arg("--set")
        .arg("greeting")
        .arg("--set")
        .arg("example.greeting=")
        .arg("--set=server.drain_timeout_seconds=soon")
        .env("MUSTER__TELEMETRY__ENVIRONMENT", "Not A Name")
        .env("MUSTER__EXAMPLE__TOKE", "canary");
    let text = refusal(program).await;
    for expected in [
        "--set: 'greeting': expected section.key=value",
        "example.greeting: must not be empty",
        "server.drain_timeout_seconds: 'soon' is not a number",
        "telemetry.environment:",
        "example.toke: unknown key; did you mean 'token'?",
    ] {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
    assert!(!text.contains("canary"));
}

#[tokio::test]
async fn a_taken_port_and_an_unusable_directory_are_exit_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = refusal(example().arg(format!("--set=server.data_port={port}"))).await;
    assert!(
        text.contains("server.data_port") && text.contains(&port.to_string()),
        "{text}"
    );

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let text = refusal(example().arg(format!("--set=example.data_directory={}", file.display()))).await;
    assert!(text.contains(file.to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn a_failure_while_it_runs_is_exit_code_1_and_told_last() {
    let (code, process) = ended(&example().arg("--set=example.fail_with=the disk is full")).await;
    assert_eq!(code, Some(1));
    let text = process.stderr();
    let last = text.lines().last().unwrap();
    assert_eq!(last, "example: example work ended: the disk is full");
}

#[tokio::test]
async fn print_config_shows_the_result_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("example.json");
    std::fs::write(&file, r#"{"example": {"greeting": "hi", "token": "canary"}}"#).unwrap();
    let program = example()
        .arg("--config")
        .arg(file.to_str().unwrap())
        .arg("--set=server.max_header_bytes=2048")
        .arg("--print-config");
    let (code, process) = ended(&program).await;
    assert_eq!(code, Some(0), "{}", process.stderr());
    let printed: Value = serde_json::from_str(&process.stdout()).unwrap();
    assert_eq!(printed["example"]["greeting"], "hi");
    assert_eq!(printed["example"]["token"], "(redacted)");
    assert_eq!(printed["server"]["max_header_bytes"], 2048);
}

#[tokio::test]
async fn panics_are_structured_logs_and_the_environment_is_a_label() {
    let program = example()
        .env("MUSTER__TELEMETRY__ENVIRONMENT", "staging")
        .env("RUST_BACKTRACE", "0");
    let mut process = program.start_ready().await;
    assert_eq!(
        http::get(program.data_address(), "/panic").await.unwrap().status,
        500
    );
    let metrics = (std::net::Ipv4Addr::LOCALHOST, program.ports().metrics).into();
    let text = http::get(metrics, "/metrics").await.unwrap().text();
    assert!(text.contains(r#"environment="staging""#), "{text}");
    assert!(process.terminate().await.success());
    let log = process.stderr();
    let panic = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .find(|event| event["message"] == "panic")
        .unwrap_or_else(|| panic!("no panic in {log}"));
    assert_eq!(panic["level"], "ERROR");
    assert_eq!(panic["reason"], "panicked: on purpose");
    assert!(
        panic["location"].as_str().unwrap().contains("example_service.rs"),
        "{panic}"
    );
}

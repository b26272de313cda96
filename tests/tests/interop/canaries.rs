//! Secrets are planted everywhere that takes one, and then looked for in everything that comes out: logs, traces, metrics, status,
//! histories, errors, configurations, the audit log, and backups.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::any;
use muster_testkit::{http, wait_for};
use muster_tests::{Dev, PATIENCE, muster};
use tokio::task::JoinSet;

use crate::traces::Rotel;

/// The secret that tokens are signed with, one of a workflow, and what the collector is shown.
const SIGNING: &str = "canary-signing-0123456789-abcdefghijklmnopqrstuvwxyz";
const OF_WORKFLOW: &str = "canary-workflow-0123456789";
const OF_COLLECTOR: &str = "canary-collector-0123456789";

/// Calls a service that repeats what it is sent, and fails once with it; and an agent.
fn document(service: &str) -> String {
    format!(
        r#"
document: {{ dsl: 1.0.3, namespace: test, name: canaries, version: 1.0.0 }}
use: {{ secrets: [api] }}
do:
  - echoed:
      call: http
      with:
        method: post
        endpoint: '{service}/echo'
        headers: {{ x-key: '${{ $secrets.api }}' }}
        body: {{ key: '${{ $secrets.api }}' }}
  - refused:
      try:
        - call:
            call: http
            with: {{ method: get, endpoint: '{service}/refuse', query: {{ key: '${{ $secrets.api }}' }} }}
      catch: {{ as: error }}
  - asked:
      call: a2a
      with:
        server: skill://weather_forecasting
        method: SendMessage
        parameters: {{ message: {{ parts: [ {{ text: "Seattle 2014-03-01 to 2014-03-02" }} ] }} }}
  - wrong: {{ raise: {{ error: {{ type: 'about:blank', status: 500, title: over }} }} }}
"#
    )
}

/// A service of somebody else's, as long as it is held: repeats headers and body, be it well or not.
async fn service() -> (String, JoinSet<()>) {
    let echo = |head: HeaderMap, uri: Uri, body: String| async move { format!("{head:?} {uri} {body}") };
    let refuse = |uri: Uri| async move { (StatusCode::FORBIDDEN, format!("not {uri}")) };
    let routes = axum::Router::new()
        .route("/echo", any(echo))
        .route("/refuse", any(refuse));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut running = JoinSet::new();
    running.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (format!("http://{address}"), running)
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    all
}

#[tokio::test]
async fn no_secret_is_in_anything_that_comes_out() {
    let rotel = Rotel::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::create_dir_all(directory.path().join("secrets/test")).unwrap();
    std::fs::write(path("secrets/test/api"), OF_WORKFLOW).unwrap();
    std::fs::write(path("signing"), SIGNING).unwrap();
    let (service, _running) = service().await;
    std::fs::write(path("run.yaml"), document(&service)).unwrap();
    let token = |subject: &str, role: &str| {
        let (subject, role, secret) = (subject.to_owned(), role.to_owned(), path("signing"));
        async move {
            let arguments = [
                "token",
                "issue",
                "--subject",
                &subject,
                "--role",
                &role,
                "--secret-file",
                &secret,
            ];
            muster(&[], &arguments).await.success().stdout.trim().to_owned()
        }
    };
    let (root, reader) = (token("root", "admin").await, token("rob", "agent-reader").await);
    let set = [
        "trust.tokens.required=true".to_owned(),
        format!("trust.tokens.jwt_secret_key_file={}", path("signing")),
        format!("trust.audit.directory={}", path("audit")),
        "trust.audit.reads=true".to_owned(),
        format!("engine.secrets.directory={}", path("secrets")),
        format!("telemetry.otlp.endpoint={}", rotel.endpoint),
        format!("telemetry.otlp.headers.x-api-key={OF_COLLECTOR}"),
        "telemetry.otlp.batch_interval_milliseconds=20".to_owned(),
        "telemetry.otlp.sample_ratio=1".to_owned(),
        "telemetry.log_level=debug".to_owned(),
        "telemetry.log_format=json".to_owned(),
    ];
    let arguments: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
    let dev = Dev::start_with(&directory.path().join("data"), &arguments).await;

    let run = path("run.yaml");
    let by = async |token: &str, arguments: &[&str]| {
        let all = [&["--token", token], arguments].concat();
        dev.muster(&all).await
    };
    let started = by(
        &root,
        &["workflow", "run", &run, "--id", "r", "--wait", "-o", "json"],
    )
    .await;
    assert_eq!(started.code, 1, "it faults in the end: {started:?}");
    let mut told = vec![(
        "what is said of a run".to_owned(),
        started.stdout + &started.stderr,
    )];
    // Refusals of each kind.
    for token in [reader.as_str(), &format!("{root}x"), "nonsense"] {
        let refused = by(token, &["workflow", "run", &run]).await;
        assert_eq!(refused.code, 4, "{refused:?}");
        told.push(("a refusal".to_owned(), refused.stdout + &refused.stderr));
    }
    let backup = path("engine.backup");
    for arguments in [
        &["workflow", "history", "r", "-o", "json"][..],
        &["workflow", "show", "r", "-o", "json"],
        &["workflow", "why", "r", "-o", "json"],
        &["workflow", "verify", "r"],
        &["status", "-o", "json"],
        &["status"],
        &["optimize", "report", "-o", "json"],
        &["backup", &backup],
    ] {
        let said = by(&root, arguments).await.success();
        told.push((arguments.join(" "), said.stdout + &said.stderr));
    }
    let printed = {
        let signing = format!("trust.tokens.jwt_secret_key={SIGNING}");
        let header = format!("telemetry.otlp.headers.x-api-key={OF_COLLECTOR}");
        let arguments = [
            "dev",
            "--ephemeral",
            "--print-config",
            "--set",
            &signing,
            "--set",
            &header,
        ];
        muster(&[], &arguments).await.success().stdout
    };
    assert!(printed.contains("(redacted)"), "{printed}");
    told.push(("the printed configuration".to_owned(), printed));
    for service in ["registry", "router", "workflow-engine", "weather"] {
        let metrics = http::get(dev.metrics_address(service), "/metrics")
            .await
            .unwrap()
            .text();
        told.push((format!("the metrics of {service}"), metrics));
    }
    wait_for("the traces", PATIENCE, async || {
        let said = rotel.said();
        let has = |text: &str| said.contains(text);
        if has("step echoed") && has("invoke_agent weather") && has("run canaries") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    told.push(("the traces".to_owned(), rotel.said()));
    told.push(("the log".to_owned(), dev.process.stdout() + &dev.process.stderr()));
    dev.process.kill().await;

    let mut all: Vec<(String, Vec<u8>)> = told
        .into_iter()
        .map(|(what, text)| (what, text.into_bytes()))
        .collect();
    all.push((backup.clone(), std::fs::read(&backup).unwrap()));
    for kept in ["data", "audit"] {
        all.extend(files(&directory.path().join(kept)));
    }
    assert!(all.iter().any(|(what, _)| what.contains("audit/router/audit-")));
    for (what, bytes) in &all {
        assert!(
            !bytes.is_empty() || Path::new(what).exists(),
            "{what} says nothing"
        );
        for (whose, secret) in [
            ("the signing secret", SIGNING),
            ("the workflow's secret", OF_WORKFLOW),
            ("the collector's key", OF_COLLECTOR),
            ("the admin's token", root.as_str()),
            ("the reader's token", reader.as_str()),
        ] {
            let secret = secret.as_bytes();
            let is_in = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!is_in, "{whose} is in {what}");
        }
    }
}

//! `muster dev`: survives `kill -9`, and refuses what it cannot start with in one line.

use std::net::TcpListener;

use muster_testkit::wait_for;
use muster_tests::{Dev, PATIENCE, muster};

/// A real call, a pause in which the process is killed, a real call.
const WITH_A_PAUSE: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: with-a-pause, version: 1.0.0 }
do:
  - before: &call
      call: a2a
      with:
        server: skill://weather_forecasting
        method: SendMessage
        parameters: { message: { parts: [ { text: "Seattle 2014-03-01 to 2014-03-02" } ] } }
      output: { as: "${ .artifacts[0].parts[0].data.rainy_dates }" }
      export: { as: "${ { before: . } }" }
  - pause: { wait: { seconds: 3 } }
  - after: *call
  - both: { set: { before: "${ $context.before }", after: "${ . }" } }
"#;

#[tokio::test]
async fn a_run_completes_by_itself_after_kill_9_and_a_new_start() {
    let directory = tempfile::tempdir().unwrap();
    let document = directory.path().join("with-a-pause.yaml");
    std::fs::write(&document, WITH_A_PAUSE).unwrap();
    let data = directory.path().join("data");

    let dev = Dev::start(&data).await;
    let arguments = [
        "workflow",
        "run",
        document.to_str().unwrap(),
        "--id",
        "pausing",
        "-o",
        "json",
    ];
    assert_eq!(dev.muster(&arguments).await.success().json()["id"], "pausing");
    wait_for("the pause", PATIENCE, async || {
        dev.muster(&["workflow", "show", "pausing", "-o", "json"])
            .await
            .json()["status"]
            == "waiting"
    })
    .await;
    let engine = [("MUSTER_ENGINE_URL".to_owned(), dev.url("workflow-engine"))];
    dev.process.kill().await;
    let why = muster(&engine, &["workflow", "why", "pausing", "-o", "json"]).await;
    assert_eq!(why.code, 5, "{why:?}");
    let blocker = &why.json()["blockers"][0];
    assert_eq!(blocker["kind"], "owner-lost", "{why:?}");
    assert_eq!(blocker["details"]["takeover"], "when it is started again");

    let dev = Dev::start(&data).await;
    let run = dev.completed("pausing").await;
    assert_eq!(run["output"]["before"], run["output"]["after"]);
    assert!(run["output"]["before"].is_array(), "{run}");
    let history = dev
        .muster(&["workflow", "history", "pausing", "-o", "json"])
        .await
        .json_lines();
    let count = |kind: &str, task: &str| {
        history
            .iter()
            .filter(|e| e["type"] == kind && e["task"] == task)
            .count()
    };
    assert_eq!(
        (
            count("task.completed", "/do/0/before"),
            count("task.started", "/do/0/before")
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn what_cannot_start_says_why_in_one_line_with_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let file = file.to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:7401").ok(); // or another process has it, which serves as well

    let cases: [(&[&str], &[&str]); 5] = [
        (
            &["dev", "--ephemeral"],
            &["registry", "127.0.0.1:7401", "--ports any"],
        ),
        (
            &[
                "dev",
                "--ephemeral",
                "--ports",
                "any",
                "--set",
                "engine.max_concurent_workflows=1",
            ],
            &["max_concurrent_workflows"],
        ),
        (
            &[
                "dev",
                "--ephemeral",
                "--ports",
                "any",
                "--set",
                "engine.max_concurrent_workflows=many",
            ],
            &["engine.max_concurrent_workflows", "many"],
        ),
        (&["dev", "--ports", "any", "--data-dir", file], &[file]),
        (
            &["dev", "--ephemeral", "--redis", "localhost:6379"],
            &["--redis", "redis+cluster://"],
        ),
    ];
    for (arguments, expected) in cases {
        let ended = muster(&[], arguments).await;
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        for part in expected {
            assert!(
                ended.stderr.contains(part),
                "{arguments:?}: '{part}' is missing in {}",
                ended.stderr
            );
        }
        let lines = ended
            .stderr
            .lines()
            .filter(|line| !line.trim_start().starts_with('→'))
            .count();
        assert_eq!(lines, 1, "{arguments:?}: {}", ended.stderr);
    }
    drop(taken);
}

#[tokio::test]
async fn the_demo_runs_its_tour() {
    let ended = muster(&[], &["demo"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    for agent in [
        "weather",
        "planning",
        "customer-service",
        "data-analysis",
        "security-monitor",
    ] {
        assert!(
            ended.stdout.contains(agent),
            "{agent} is missing in {}",
            ended.stdout
        );
    }
    assert_eq!(
        ended.stdout.matches(" completed in ").count(),
        3,
        "{}",
        ended.stdout
    );
}

#[tokio::test]
async fn bad_documents_are_refused_with_their_place_by_validate_apply_and_run() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(&directory.path().join("data")).await;
    let head = "document: { dsl: 1.0.0, namespace: test, name: bad, version: 1.0.0 }\ndo:\n";
    let cases = [
        ("a YAML error", "  - a: { set: [", 4, "not valid YAML"),
        ("an unknown task", "  - a: { cal: a2a }", 3, "did you mean 'call'"),
        (
            "an unknown field",
            "  - a: { set: { x: 1 }, iff: true }",
            3,
            "no such field 'iff'",
        ),
        (
            "a bad jq expression",
            "  - a: { set: { x: \"${ .a | }\" } }",
            3,
            ".a |",
        ),
        (
            "a then to nowhere",
            "  - a: { set: { x: 1 }, then: nowhere }",
            3,
            "nowhere",
        ),
    ];
    for (what, body, line, expected) in cases {
        let path = directory.path().join("bad.yaml");
        std::fs::write(&path, format!("{head}{body}\n")).unwrap();
        let path = path.to_str().unwrap();
        for command in ["validate", "apply", "run"] {
            let ended = dev.muster(&["workflow", command, path]).await;
            assert_eq!(ended.code, 2, "{what}: {command}: {ended:?}");
            let said = format!("{}{}", ended.stdout, ended.stderr);
            let placed = said.contains(&format!("line {line},")) || said.contains(&format!(":{line}:"));
            assert!(placed, "{what}: {command}: line {line} is missing in {said}");
            assert!(
                said.contains(expected),
                "{what}: {command}: '{expected}' is missing in {said}"
            );
        }
    }
}

#[tokio::test]
async fn lists_say_that_there_are_more_and_commands_name_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(&directory.path().join("data")).await;
    let document = directory.path().join("ask.yaml");
    let text = "document: { dsl: 1.0.0, namespace: test, name: ask, version: 1.0.0 }\ndo:\n  - a: { set: { n: 1 }, metadata: { muster: { approval: \
                { title: Go?, assignees: [ ada ] } } } }\n";
    std::fs::write(&document, text).unwrap();
    for id in ["one", "two", "three"] {
        let document = document.to_str().unwrap();
        for arguments in [
            ["workflow", "run", document, "--id", id],
            ["event", "publish", "--type=test.a", "--id", id],
        ] {
            assert_eq!(dev.muster(&arguments).await.code, 0);
        }
    }
    for (command, list) in [
        (["workflow", "runs"], "runs"),
        (["approval", "list"], "approvals"),
        (["event", "list"], "events"),
    ] {
        for (limit, entries, more) in [("2", 2, true), ("3", 3, false)] {
            let arguments = [&command[..], &["--limit", limit]].concat();
            let told = wait_for("all to be listed", PATIENCE, async || {
                let listed = dev
                    .muster(&[&arguments[..], &["-o", "json"]].concat())
                    .await
                    .json();
                if listed[list].as_array().map(Vec::len) == Some(entries) && listed["more"] == more {
                    Ok(())
                } else {
                    Err(listed.to_string())
                }
            });
            told.await;
            let people = dev.muster(&arguments).await.success().stdout;
            assert_eq!(people.contains("there are more"), more, "{people}");
        }
    }
    let versioned = dev.muster(&["schedule", "get", "test/ask@1.0.0"]).await;
    assert_eq!(versioned.code, 2, "{versioned:?}");
    assert!(versioned.stderr.contains("leave '@1.0.0' away"), "{versioned:?}");
    let long = "a".repeat(9_000);
    let unknown = dev.muster(&["workflow", "get", &long]).await;
    assert_eq!(unknown.code, 3, "{unknown:?}");
}

/// Tokens are wanted: who shows none is told what to do, callers see their own, each decision is in a log that shows when it was
/// changed, the security monitor reads it, and no secret is anywhere.
#[tokio::test]
async fn callers_are_told_apart_by_their_tokens_and_the_log_says_what_they_tried() {
    const CANARY: &str = "canary-0123456789-abcdefghijklmnopqrstuvwxyz";
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("secret"), CANARY).unwrap();
    std::fs::write(path("run.yaml"), WITH_A_PAUSE).unwrap();
    let set = [
        "trust.tokens.required=true".to_owned(),
        format!("trust.tokens.jwt_secret_key_file={}", path("secret")),
        format!("trust.audit.directory={}", path("audit")),
    ];
    let arguments: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
    let dev = Dev::start_with(&directory.path().join("data"), &arguments).await;

    let refused = dev.muster(&["agents", "list"]).await;
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("--token"), "{refused:?}");
    let secret = path("secret");
    let issue = async |subject: &str, role: &str| {
        let arguments = [
            "token",
            "issue",
            "--subject",
            subject,
            "--role",
            role,
            "--secret-file",
            &secret,
        ];
        let token = muster(&[], &arguments).await.success().stdout.trim().to_owned();
        let file = path(&format!("{subject}.token"));
        std::fs::write(&file, &token).unwrap();
        (token, file)
    };
    let (ada, adas) = issue("ada", "agent-writer").await;
    let (_, eves) = issue("eve", "agent-writer").await;
    let (_, robs) = issue("rob", "agent-reader").await;
    let inspected = muster(
        &[],
        &["token", "inspect", &format!("@{adas}"), "--secret-file", &secret],
    )
    .await;
    assert!(inspected.success().stdout.contains("good"));
    let forged = muster(
        &[],
        &["token", "inspect", &format!("{ada}x"), "--secret-file", &secret],
    )
    .await;
    assert_eq!(forged.code, 4, "{forged:?}");

    assert!(
        dev.muster(&["--token", &ada, "agents", "list"])
            .await
            .success()
            .stdout
            .contains("weather")
    );
    let run = path("run.yaml");
    let start = ["workflow", "run", &run, "--id", "adas", "--wait", "-o", "json"];
    let by = |file: &str, arguments: &[&str]| {
        let arguments: Vec<String> = ["--token-file", file]
            .iter()
            .chain(arguments)
            .map(ToString::to_string)
            .collect();
        arguments
    };
    let muster_by = async |file: &str, arguments: &[&str]| {
        let arguments = by(file, arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        dev.muster(&arguments).await
    };
    assert_eq!(muster_by(&robs, &start).await.code, 4);
    assert_eq!(
        muster_by(&adas, &start).await.success().json()["status"],
        "completed"
    );
    assert_eq!(muster_by(&eves, &["workflow", "show", "adas"]).await.code, 3);
    let runs = muster_by(&eves, &["workflow", "runs", "-o", "json"])
        .await
        .success()
        .stdout;
    assert!(!runs.contains("adas"), "{runs}");
    for _ in 0..5 {
        assert_eq!(
            dev.muster(&["--token", "nonsense", "task", "get", "x"])
                .await
                .code,
            4
        );
    }

    // What is in the log is found by the security monitor's own rules.
    let (_, roots) = issue("root", "admin").await;
    let export = format!(
        "muster audit export {} --refused | muster --token-file {roots} send --skill threat_detection --file -",
        path("audit")
    );
    let found = wait_for("the refusals to be in the log", PATIENCE, async || {
        let found = dev.shell(directory.path(), &export).await;
        if found.code == 0 && found.stdout.contains("Many refused logins to Muster") {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    let printed = {
        let mut arguments = vec!["dev", "--ephemeral", "--print-config", "--set"];
        let setting = format!("trust.tokens.jwt_secret_key={CANARY}");
        arguments.push(&setting);
        muster(&[], &arguments).await.success()
    };
    assert!(printed.stdout.contains("(redacted)"), "{printed:?}");
    let published = muster(
        &[],
        &[
            "dev",
            "--ephemeral",
            "--set",
            "trust.tokens.jwt_secret_key=production-secret-key",
        ],
    )
    .await;
    assert_eq!(published.code, 2, "{published:?}");
    assert!(
        published.stderr.contains("trust.tokens.jwt_secret_key"),
        "{published:?}"
    );
    assert!(
        !published.stderr.contains("production-secret-key"),
        "{published:?}"
    );

    let (said, log) = (dev.process.stderr() + &dev.process.stdout(), path("audit"));
    dev.process.kill().await;
    let verified = muster(&[], &["audit", "verify", &log, "-o", "json"]).await;
    // What was killed may have left a torn line, which the next start would cut off.
    if verified.code == 0 {
        assert_eq!(verified.json()["ok"], true);
    } else {
        assert!(verified.stderr.contains("torn"), "{verified:?}");
    }
    let file = format!("{log}/router/audit-0000000001.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    for (what, text) in [
        ("log", &said),
        ("audit", &text),
        ("finding", &found.stdout),
        ("config", &printed.stdout),
    ] {
        assert!(
            !text.contains(CANARY) && !text.contains(&ada),
            "a secret is in the {what}"
        );
    }
    std::fs::write(
        &file,
        text.replacen("agent-reader", "agent-writer", 1)
            .replacen("login_refused", "login_allowed", 1),
    )
    .unwrap();
    let broken = muster(&[], &["audit", "verify", &log]).await;
    assert_eq!(broken.code, 1, "{broken:?}");
    assert!(broken.stderr.contains("audit-0000000001.jsonl:"), "{broken:?}");
}

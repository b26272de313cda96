//! Processes of the operating system: what the operator allows, what comes of them, and how they end.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use muster_api::workflow::RunStatus;
use muster_testkit::wait_for;
use serde_json::{Value, json};

use crate::harness::{Engine, PATIENCE, document, reason};
use crate::service::{Reply, Service};

async fn allowing() -> Engine {
    Engine::start_with(|settings| {
        settings.run.shell = true;
        settings.run.script = true;
        settings.run.max_output_bytes = 10_000;
    })
    .await
}

pub fn shell(command: &str, more: &str) -> String {
    document(&format!(
        "  - one:\n      run:\n        shell:\n          command: |\n            {command}\n{more}"
    ))
}

async fn output(engine: &Engine, command: &str, more: &str) -> Value {
    engine.output(&shell(command, more), "").await
}

/// Waits until a process has written its id into a file; the id.
async fn started(file: &Path) -> String {
    wait_for("the process to begin", PATIENCE, async || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        match text.trim() {
            "" => Err("it has not"),
            id => Ok(id.to_owned()),
        }
    })
    .await
}

/// Waits until a process is gone. A zombie that nobody has waited for yet is gone, too.
pub async fn gone(id: &str) {
    wait_for("the process to end", PATIENCE, async || {
        let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        match status.rsplit(')').next().map(str::trim_start) {
            None | Some("") => Ok(()),
            Some(state) if state.starts_with('Z') => Ok(()),
            Some(state) => Err(state.to_owned()),
        }
    })
    .await;
}

/// A directory in which processes tell of themselves, and a command of one that waits with a child of its own.
fn lasting() -> (tempfile::TempDir, PathBuf, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let command = format!("sleep 1000 & echo $! > {}; wait", file.display());
    (directory, file, command)
}

#[tokio::test]
async fn nothing_runs_that_the_operator_does_not_allow() {
    let engine = Engine::start().await;
    for (run, key) in [
        ("shell: {command: 'true'}", "shell"),
        ("script: {language: js, code: '1'}", "script"),
        ("container: {image: alpine}", "container"),
    ] {
        let error = engine
            .fault(&document(&format!("  - one: {{run: {{{run}}}}}\n")))
            .await;
        assert_eq!(error.status, 403);
        assert!(error.r#type.ends_with("/authorization"), "{error:?}");
        assert!(error.detail.contains(&format!("'engine.run.{key}'")), "{error:?}");
    }
}

#[tokio::test]
async fn a_command_gets_its_input_and_nothing_of_the_engine() {
    let engine = allowing().await;
    let more =
        "          stdin: '${ {a: 1} }'\n          arguments: [Foo, 5]\n          environment: {NAME: Ada}\n";
    let command = "read -r text; echo \"$text $1 $2 $NAME\"";
    assert_eq!(output(&engine, command, more).await, "{\"a\":1} Foo 5 Ada\n");
    let environment = output(&engine, "env | cut -d= -f1 | sort | tr '\\n' ' '", "").await;
    let names: Vec<&str> = environment.as_str().unwrap().split_whitespace().collect();
    let expected = [
        "HOME",
        "LANG",
        "MUSTER_MESSAGE_ID",
        "MUSTER_STEP_KEY",
        "PATH",
        "PWD",
        "TMPDIR",
    ];
    assert!(
        names
            .iter()
            .all(|name| expected.contains(name) || ["_", "OLDPWD", "SHLVL"].contains(name)),
        "{names:?}"
    );
    let directory = output(&engine, "touch here; pwd", "").await;
    assert!(
        !Path::new(directory.as_str().unwrap().trim()).exists(),
        "its directory goes with it"
    );
}

#[tokio::test]
async fn what_is_returned_is_what_was_asked_for() {
    let engine = allowing().await;
    let command = "echo out; echo err >&2; exit 3";
    for (returns, expected) in [
        ("code", json!(3)),
        ("all", json!({"code": 3, "stdout": "out\n", "stderr": "err\n"})),
    ] {
        assert_eq!(
            output(&engine, command, &format!("        return: {returns}\n")).await,
            expected
        );
    }
    for returns in ["stdout", "stderr", "none"] {
        let error = engine
            .fault(&shell(command, &format!("        return: {returns}\n")))
            .await;
        assert!(error.detail.contains("exited with code 3: err"), "{error:?}");
        assert_eq!((error.status, error.instance.as_str()), (500, "/do/0/one"));
    }
    let quiet = "echo out; echo err >&2";
    assert_eq!(output(&engine, quiet, "        return: stderr\n").await, "err\n");
    assert_eq!(
        output(&engine, quiet, "        return: none\n").await,
        Value::Null
    );
    let killed = output(&engine, "kill -9 $$", "        return: code\n").await;
    assert_eq!(killed, 137);
}

#[tokio::test]
async fn too_much_output_ends_the_process() {
    let engine = allowing().await;
    let error = engine.fault(&shell("yes", "")).await;
    assert_eq!(error.status, 413);
    assert!(error.detail.contains("engine.run.max_output_bytes"), "{error:?}");
}

#[tokio::test]
async fn a_time_limit_or_a_cancellation_kills_the_whole_group() {
    let engine = allowing().await;
    let (_directory, file, command) = lasting();
    let error = engine
        .fault(&shell(&command, "      timeout: {after: {milliseconds: 500}}\n"))
        .await;
    assert_eq!(error.status, 408);
    gone(&started(&file).await).await;

    let (_directory, file, command) = lasting();
    engine.start_run(&shell(&command, ""), "r", "").await.unwrap();
    let id = started(&file).await;
    let blocker = engine.until_blocked("r", "process").await;
    assert!(
        blocker
            .message
            .contains("waits for the shell command `sleep 1000"),
        "{blocker:?}"
    );
    engine.cancel("r").await.unwrap();
    gone(&id).await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_ends_with_it() {
    let engine = allowing().await;
    let (_directory, file, _) = lasting();
    let command = format!("sleep 1000 & echo $! > {}; echo done", file.display());
    assert_eq!(output(&engine, &command, "").await, "done\n");
    gone(&started(&file).await).await;
}

#[tokio::test]
async fn a_process_in_flight_runs_again_after_a_restart_under_the_same_id() {
    let mut engine = allowing().await;
    let directory = tempfile::tempdir().unwrap();
    let (ids, go, file) = (
        directory.path().join("ids"),
        directory.path().join("go"),
        directory.path().join("pid"),
    );
    let command = format!(
        "echo $MUSTER_MESSAGE_ID >> {}; echo $$ > {}; until [ -e {} ]; do sleep 0.05; done; echo done",
        ids.display(),
        file.display(),
        go.display()
    );
    engine.start_run(&shell(&command, ""), "r", "").await.unwrap();
    let first = started(&file).await;
    engine.stop().await;
    gone(&first).await;
    std::fs::remove_file(&file).unwrap();
    engine.launch().await;
    started(&file).await;
    std::fs::write(&go, "").unwrap();
    let run = engine.until("r", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#""done\n""#);
    let ids = std::fs::read_to_string(&ids).unwrap();
    let ids: Vec<&str> = ids.lines().collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
}

#[tokio::test]
async fn one_that_is_not_awaited_does_not_hold_the_run() {
    let engine = allowing().await;
    let (_directory, file, command) = lasting();
    let run = engine
        .start_run(&shell(&command, "        await: false\n"), "r", r#"{"a": 1}"#)
        .await
        .unwrap();
    let run = engine.until(&run.run_id, RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"{"a":1}"#);
    let id = started(&file).await;
    let mut engine = engine;
    engine.stop().await;
    gone(&id).await;
}

#[tokio::test]
async fn scripts_see_their_arguments() {
    let engine = allowing().await;
    let script = |language: &str, arguments: &str, code: &str| {
        document(&format!(
            "  - one:\n      run:\n        script:\n          language: {language}\n          arguments: {arguments}\n          stdin: '${{ . }}'\n          code: |\n            {code}\n"
        ))
    };
    let text = script(
        "python",
        "[a, b]",
        "import sys; print(sys.argv[1:], sys.stdin.read(), end='')",
    );
    assert_eq!(engine.output(&text, r#"{"n": 1}"#).await, "['a', 'b'] {\"n\":1}");
    let text = script(
        "python",
        "{greeting: \"It's \\\"me\\\"\", n: 5}",
        "print(greeting, n + 1, end='')",
    );
    assert_eq!(engine.output(&text, "").await, "It's \"me\" 6");
    // Where there is no Node.js, the run says so.
    let text = script(
        "js",
        "{greeting: Hello, who: {name: Ada}}",
        "console.log(`${greeting} ${who.name}`)",
    );
    let run = engine.start_run(&text, "js", "").await.unwrap();
    let run = muster_testkit::wait_for("the script to end", PATIENCE, async || {
        let run = engine.run(&run.run_id).await;
        match run.status() {
            RunStatus::Completed | RunStatus::Faulted => Ok(run),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    match run.error {
        None => assert_eq!(run.output_json, r#""Hello Ada\n""#),
        Some(error) => assert!(error.detail.contains("'node' cannot be executed"), "{error:?}"),
    }
    let error = engine.fault(&script("python", "{\"a b\": 1}", "print(1)")).await;
    assert!(
        error.detail.contains("'a b' cannot be the name of a variable"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_script_at_an_address_is_pinned_when_the_run_begins() {
    let mut engine = Engine::start_with(|settings| {
        settings.outbound.allow = vec!["127.0.0.0/8".into()];
        settings.run.script = true;
    })
    .await;
    let service = Service::start(|seen| match seen.path.as_str() {
        "/hello.py" => Reply::text(200, "print('Hello', who, end='')  # ${ .who }"),
        _ => Reply::text(404, "no such script"),
    })
    .await;
    let script = |path: &str| {
        document(&format!(
            "  - rest: {{wait: PT1S}}\n  - one: {{run: {{script: {{language: python, arguments: {{who: '${{ .who }}'}}, source: {{endpoint: '{}'}}}}}}}}\n",
            service.url(path)
        ))
    };
    let refused = engine.start_run(&script("/gone.py"), "", "").await.unwrap_err();
    assert_eq!(reason(&refused), "DEPENDENCY_UNAVAILABLE", "{refused:?}");
    let message = refused.message();
    assert!(
        message.contains("'script http") && message.contains("404"),
        "{message}"
    );
    engine
        .start_run(&script("/hello.py"), "r", r#"{"who": "Ada"}"#)
        .await
        .unwrap();
    engine.stop().await;
    drop(service);
    engine.launch().await;
    let run = engine.until("r", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#""Hello Ada""#);
}

#[tokio::test]
async fn processes_beyond_the_bound_wait_and_say_so() {
    let engine = Engine::start_with(|settings| {
        settings.run.shell = true;
        settings.run.max_processes = 1;
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let command = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
    engine.start_run(&shell(&command, ""), "first", "").await.unwrap();
    engine.until_blocked("first", "process").await;
    engine
        .start_run(&shell(&command, ""), "second", "")
        .await
        .unwrap();
    wait_for("one to wait for its turn", PATIENCE, async || {
        let mut told = Vec::new();
        for run in ["first", "second"] {
            told.extend(engine.why(run).await.into_iter().map(|blocker| blocker.message));
        }
        let waits = told
            .iter()
            .any(|message| message.contains("'engine.run.max_processes'"));
        if waits { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    std::fs::write(&go, "").unwrap();
    engine.until("first", RunStatus::Completed).await;
    engine.until("second", RunStatus::Completed).await;
}

/// A stand-in for the client of containers: tells what it was asked, and runs the command of `run` here.
pub fn container_client(directory: &Path) -> String {
    let path = directory.join("client");
    let asked = directory.join("asked");
    let text = format!(
        "#!/bin/sh\necho \"$@\" >> {asked}\nfor word; do case \"$word\" in --env-file=*) cat \"${{word#*=}}\" >> {asked};; esac; done\ncase \"$1\" in\n  ps) cat {listed} 2>/dev/null || true;;\n  rm) ;;\n  run) case \"$*\" in *broken*) echo 'no such image' >&2; exit 125;; \
         *slow*) exec sleep 1000;; *) cat; exit 0;; esac;;\nesac\n",
        asked = asked.display(),
        listed = directory.join("listed").display(),
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn containers_are_run_by_their_client_and_removed_where_processes_are_killed() {
    let directory = tempfile::tempdir().unwrap();
    let client = container_client(directory.path());
    let engine = Engine::start_with(|settings| {
        settings.run.container = true;
        settings.run.container_program = client;
        settings.run.container_arguments = vec!["--network=none".into()];
        settings.run.container_volumes = vec!["/srv/data".into()];
    })
    .await;
    let asked = || std::fs::read_to_string(directory.path().join("asked")).unwrap_or_default();
    let container = |more: &str| document(&format!("  - one: {{run: {{container: {{{more}}}}}}}\n"));
    let text = container(
        "image: alpine, command: 'echo $1', arguments: [a], environment: {A: b}, ports: {'8080': 80}, \
         volumes: {/srv/data/x: /x}, stdin: text, pullPolicy: always",
    );
    assert_eq!(engine.output(&text, "").await, "text");
    let line = asked()
        .lines()
        .find(|line| line.starts_with("run "))
        .unwrap()
        .to_owned();
    for part in [
        "--network=none",
        "--label=muster.message=",
        "--name=muster-",
        "--pull=always",
        "--rm",
        "--publish=127.0.0.1:8080:80",
        "--volume=/srv/data/x:/x",
        "--interactive --entrypoint=sh alpine -c echo $1 sh a",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }

    assert!(!line.contains("A=b"), "everyone sees the command line: {line}");
    assert!(asked().lines().any(|line| line == "A=b"), "{}", asked());
    assert!(asked().contains("\nMUSTER_MESSAGE_ID="), "{}", asked());
    let error = engine
        .fault(&container(
            "image: alpine, environment: {KEY: '${ \"one\\ntwo\" }'}",
        ))
        .await;
    assert!(
        error.status == 400 && error.detail.contains("'KEY' of a container has several lines"),
        "{error:?}"
    );

    let error = engine.fault(&container("image: broken")).await;
    assert!(
        error.status == 503 && error.detail.contains("no such image"),
        "{error:?}"
    );
    for volume in ["/etc", "/srv/data/../../etc", "relative"] {
        let error = engine
            .fault(&container(&format!("image: alpine, volumes: {{{volume}: /x}}")))
            .await;
        assert!(
            error.status == 403 && error.detail.contains("container_volumes"),
            "{error:?}"
        );
    }

    engine
        .start_run(&container("image: slow"), "slow", "")
        .await
        .unwrap();
    wait_for("the container to begin", PATIENCE, async || {
        if asked().contains("alpine") && asked().lines().any(|line| line.ends_with(" slow")) {
            Ok(())
        } else {
            Err(asked())
        }
    })
    .await;
    std::fs::write(directory.path().join("listed"), "c0ffee\n").unwrap();
    engine.cancel("slow").await.unwrap();
    wait_for("the container to be removed", PATIENCE, async || {
        if asked().lines().any(|line| line == "rm --force c0ffee") {
            Ok(())
        } else {
            Err(asked())
        }
    })
    .await;
}

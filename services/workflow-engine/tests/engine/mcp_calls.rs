//! `call: mcp`, with servers over HTTP and as programs: results, errors, time limits, cancelling and restarts.

use muster_api::workflow::RunStatus;
use muster_testkit::wait_for;
use serde_json::json;

use crate::harness::{Engine, PATIENCE, document};
use crate::mcp_server::Server;

async fn engine() -> Engine {
    Engine::start_with(|settings| {
        settings.outbound.allow = vec!["127.0.0.0/8".to_owned()];
        settings.max_payload_bytes = 10_000;
        settings.mcp_stdio_commands = vec!["sh".to_owned()];
    })
    .await
}

/// A document with one call of the server; `more` are further fields of the task.
fn call(server: &Server, method: &str, parameters: &str, more: &str) -> String {
    document(&format!(
        "  - ask:\n      call: mcp\n      with:\n        method: {method}\n        parameters: {parameters}\n        \
         transport: {{http: {{endpoint: '{}'}}}}\n{more}",
        server.url()
    ))
}

fn tool(server: &Server, name: &str, more: &str) -> String {
    call(
        server,
        "tools/call",
        &format!("{{name: {name}, arguments: '${{ . }}'}}"),
        more,
    )
}

async fn until_heard(server: &Server, method: &str) {
    wait_for(&format!("the server to hear {method}"), PATIENCE, async || {
        let methods = server.methods();
        if methods.iter().any(|heard| heard == method) {
            Ok(())
        } else {
            Err(format!("{methods:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_tool_is_called_in_a_session_of_its_own() {
    let (engine, server) = (engine().await, Server::start().await);
    let output = engine
        .output(&tool(&server, "echo", ""), r#"{"n":5,"text":"ü"}"#)
        .await;
    assert_eq!(output["content"][0]["text"], r#"{"n":5,"text":"ü"}"#);
    assert_eq!(
        server.methods(),
        [
            "initialize",
            "notifications/initialized",
            "tools/call",
            "answer",
            "DELETE"
        ],
        "a ping of the server is answered, and the session is ended"
    );
    let hello = server.last("initialize").unwrap();
    assert_eq!(hello["params"]["protocolVersion"], "2025-06-18");
    assert_eq!(hello["params"]["clientInfo"]["name"], "muster");
    let asked = server.last("tools/call").unwrap();
    assert_eq!(
        asked["params"]["_meta"]["muster/step-key"].as_str().map(str::len),
        Some(36)
    );

    let list = call(&server, "tools/list", "{}", "");
    assert_eq!(engine.output(&list, "").await["tools"][0]["name"], "echo");
    let client = "        client: {name: me, version: '7'}\n        protocolVersion: '2025-03-26'\n";
    engine
        .output(&call(&server, "tools/list", "{}", client), "")
        .await;
    let hello = server.last("initialize").unwrap();
    assert_eq!(
        hello["params"]["clientInfo"],
        json!({"name": "me", "version": "7"})
    );
    assert_eq!(hello["params"]["protocolVersion"], "2025-03-26");
}

#[tokio::test]
async fn what_a_tool_says_of_itself_is_the_result() {
    let (engine, server) = (engine().await, Server::start().await);
    let output = engine.output(&tool(&server, "wrong", ""), "{}").await;
    assert_eq!(
        output["isError"],
        json!(true),
        "the result is the call's output, as the language says"
    );
}

#[tokio::test]
async fn failures_have_the_standard_types() {
    let (engine, server) = (engine().await, Server::start().await);
    for (text, kind, status, said) in [
        (
            tool(&server, "nothing", ""),
            "runtime",
            400,
            "unknown tool 'nothing'",
        ),
        (
            call(&server, "prompts/list", "{}", ""),
            "runtime",
            404,
            "no method 'prompts/list'",
        ),
        (tool(&server, "whoami", ""), "authentication", 401, "who are you?"),
        (
            tool(&server, "cut", ""),
            "communication",
            502,
            "without an answer",
        ),
        (
            tool(&server, "large", ""),
            "runtime",
            413,
            "engine.max_payload_bytes",
        ),
        (
            tool(&server, "echo", "").replace("/mcp", "/elsewhere"),
            "communication",
            404,
            "404",
        ),
        (
            tool(&server, "echo", "        protocolVersion: '2025-11-25'\n"),
            "communication",
            505,
            "2099-01-01",
        ),
    ] {
        let run = engine.start_run(&text, "", "{}").await.unwrap();
        let error = engine.until(&run.run_id, RunStatus::Faulted).await.error.unwrap();
        assert!(error.r#type.ends_with(&format!("/{kind}")), "{error:?}");
        assert_eq!(error.status, status, "{error:?}");
        assert!(error.detail.contains(said), "{error:?}");
    }
}

#[tokio::test]
async fn a_call_ends_at_its_own_timeout_and_the_server_is_told() {
    let (engine, server) = (engine().await, Server::start().await);
    let text = tool(&server, "slow", "        timeout: {milliseconds: 200}\n");
    let run = engine.start_run(&text, "", "{}").await.unwrap();
    let error = engine.until(&run.run_id, RunStatus::Faulted).await.error.unwrap();
    assert_eq!(
        (error.r#type.ends_with("/timeout"), error.status),
        (true, 408),
        "{error:?}"
    );
    until_heard(&server, "notifications/cancelled").await;
    until_heard(&server, "DELETE").await;
}

#[tokio::test]
async fn cancelling_the_run_reaches_the_server_and_its_progress_is_told_meanwhile() {
    let (engine, server) = (engine().await, Server::start().await);
    engine
        .start_run(&tool(&server, "slow", ""), "stopped", "{}")
        .await
        .unwrap();
    wait_for("the progress", PATIENCE, async || {
        let activity = engine.run("stopped").await.activity;
        let told = activity
            .iter()
            .any(|line| line.contains("progress 1 of 3: first of three"));
        if told {
            Ok(())
        } else {
            Err(format!("{activity:?}"))
        }
    })
    .await;
    engine.cancel("stopped").await.unwrap();
    engine.until("stopped", RunStatus::Cancelled).await;
    until_heard(&server, "notifications/cancelled").await;
    let cancelled = server.last("notifications/cancelled").unwrap();
    assert_eq!(
        cancelled["params"]["requestId"],
        server.last("tools/call").unwrap()["id"]
    );
    until_heard(&server, "DELETE").await;
}

#[tokio::test]
async fn a_call_is_made_again_after_a_restart() {
    let (mut engine, server) = (engine().await, Server::start().await);
    engine
        .start_run(&tool(&server, "slow", ""), "survivor", "{}")
        .await
        .unwrap();
    until_heard(&server, "tools/call").await;
    let key = server.last("tools/call").unwrap()["params"]["_meta"].clone();
    engine.restart().await;
    wait_for("the call to be made again", PATIENCE, async || {
        let calls = server
            .methods()
            .iter()
            .filter(|method| *method == "tools/call")
            .count();
        if calls == 2 {
            Ok(())
        } else {
            Err(format!("{calls} were"))
        }
    })
    .await;
    assert_eq!(server.last("tools/call").unwrap()["params"]["_meta"], key);
    engine.cancel("survivor").await.unwrap();
    until_heard(&server, "notifications/cancelled").await;
}

#[tokio::test]
async fn a_secret_goes_to_the_server_and_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let namespace = directory.path().join("test");
    std::fs::create_dir(&namespace).unwrap();
    std::fs::write(namespace.join("token"), "t0ken-of-the-test").unwrap();
    let engine = Engine::start_with(|settings| {
        settings.outbound.allow = vec!["127.0.0.0/8".to_owned()];
        settings.secrets.directory = Some(directory.path().to_owned());
    })
    .await;
    let server = Server::start().await;
    let header = "headers: {Authorization: '${ \"Bearer \" + $secrets.token }'}, endpoint:";
    let text = tool(&server, "whoami", "").replace("endpoint:", header);
    let text = text.replace("\ndo:", "\nuse: {secrets: [token]}\ndo:");
    let output = engine.output(&text, "{}").await;
    let said = output["content"][0]["text"].as_str().unwrap();
    assert!(said.starts_with("you said ") && !said.contains("t0ken"), "{said}");
}

/// A program that speaks MCP, as a line of shell: it answers what it is asked in the order of the protocol.
const PROGRAM: &str = r#"read hello; echo "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{},\"serverInfo\":{\"name\":\"sh\",\"version\":\"1\"}}}"; read initialized; read asked; echo "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"tools\":[{\"name\":\"$TOOL\"}]}}""#;

fn program(command: &str, script: &str, more: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    document(&format!(
        "  - ask:\n      call: mcp\n      with:\n        method: tools/list\n        transport:\n          stdio:\n            \
         command: {command}\n            arguments: ['-c', {script}]\n            environment: {{TOOL: hammer}}\n{more}"
    ))
}

#[tokio::test]
async fn a_program_is_started_where_the_operator_allows_it() {
    let engine = engine().await;
    let output = engine.output(&program("sh", PROGRAM, ""), "").await;
    assert_eq!(output, json!({"tools": [{"name": "hammer"}]}));

    let error = engine.fault(&program("bash", PROGRAM, "")).await;
    assert_eq!(
        (error.r#type.ends_with("/authorization"), error.status),
        (true, 403),
        "{error:?}"
    );
    assert!(error.detail.contains("engine.mcp_stdio_commands"), "{error:?}");

    let error = engine.fault(&program("sh", "echo broken >&2; exit 3", "")).await;
    assert_eq!(error.status, 502, "{error:?}");
    assert!(
        error.detail.contains("ended") && error.detail.contains("it said: broken"),
        "{error:?}"
    );
    let error = engine.fault(&program("sh", "read asked; echo hello", "")).await;
    assert!(error.detail.contains("no JSON"), "{error:?}");
}

#[tokio::test]
async fn a_program_and_what_it_started_end_with_the_call() {
    let engine = engine().await;
    let directory = tempfile::tempdir().unwrap();
    let written = directory.path().join("process");
    // A child that would live on, and says who it is.
    let script = format!(
        "sleep 1000 & echo $! > '{}'; read nothing; sleep 1000",
        written.display()
    );
    engine
        .start_run(&program("sh", &script, ""), "stopped", "")
        .await
        .unwrap();
    let process: u32 = wait_for("the program to start its own", PATIENCE, async || {
        let text = std::fs::read_to_string(&written).map_err(|error| error.to_string())?;
        text.trim().parse::<u32>().map_err(|error| error.to_string())
    })
    .await;
    let alive = || {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"));
        status.is_ok_and(|status| !status.contains("State:\tZ"))
    };
    assert!(alive());
    engine.cancel("stopped").await.unwrap();
    engine.until("stopped", RunStatus::Cancelled).await;
    wait_for("all of it to end", PATIENCE, async || {
        if alive() {
            Err("it lives".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
}

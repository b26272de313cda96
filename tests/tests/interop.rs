//! Strangers' clients: the official Python A2A client over both bindings, `buf curl` and grpcurl by reflection.

use std::process::Output;

use muster_testkit::wait_for;
use muster_tests::{Dev, PATIENCE, repository_file, tool};
use serde_json::Value;
use tokio::process::Command;

async fn run(mut command: Command) -> Output {
    command.kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output())
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn python_client(binding: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dev = Dev::start(directory.path()).await;
    let mut command = Command::new(tool("python"));
    command
        .arg(repository_file("tests/interop/a2a_client.py"))
        .arg(dev.url("router"))
        .arg(binding);
    let output = run(command).await;
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let said: Value = serde_json::from_slice(&output.stdout).expect("the client prints JSON");
    assert_eq!(said["binding"], binding);
}

#[tokio::test]
async fn the_official_python_client_works_over_grpc() {
    python_client("GRPC").await;
}

#[tokio::test]
async fn the_official_python_client_works_over_json_rpc() {
    python_client("JSONRPC").await;
}

#[tokio::test]
async fn reflection_and_health_serve_buf_curl_and_grpcurl() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path()).await;
    let expected = [
        ("registry", "muster.registry.v1.RegistryService"),
        ("router", "lf.a2a.v1.A2AService"),
        ("workflow-engine", "muster.workflow.v1.WorkflowService"),
        ("weather", "lf.a2a.v1.A2AService"),
        ("planning", "lf.a2a.v1.A2AService"),
        ("customer-service", "lf.a2a.v1.A2AService"),
        ("data-analysis", "lf.a2a.v1.A2AService"),
        ("security-monitor", "lf.a2a.v1.A2AService"),
    ];
    for (service, contract) in expected {
        let url = dev.url(service);
        let address = url.trim_start_matches("http://");

        // grpcurl asks for reflection v1alpha.
        let mut command = Command::new(tool("grpcurl"));
        command.args(["-plaintext", address, "list"]);
        let output = run(command).await;
        let listed = text(&output.stdout);
        assert!(
            output.status.success() && listed.contains(contract),
            "{service}: {listed}{}",
            text(&output.stderr)
        );

        let others = ["muster.registry.v1.", "lf.a2a.v1.", "muster.workflow.v1."];
        for other in others.iter().filter(|other| !contract.starts_with(**other)) {
            assert!(
                !listed.contains(other),
                "{service} lists what it does not serve: {listed}"
            );
        }

        // buf curl asks for v1.
        let mut command = Command::new(tool("buf"));
        let method = format!("{url}/grpc.health.v1.Health/Check");
        command.args(["curl", "--http2-prior-knowledge", "--protocol", "grpc", "--data"]);
        command.arg(format!(r#"{{"service": "{contract}"}}"#)).arg(method);
        let output = run(command).await;
        let said = text(&output.stdout);
        assert!(
            output.status.success(),
            "{service}: {said}{}",
            text(&output.stderr)
        );
        assert!(said.contains("\"SERVING\""), "{service}: {said}");
    }
}

/// A run of this document, on one `muster dev`: its status and output.
async fn outcome(dev: &Dev, directory: &std::path::Path, document: &str) -> Value {
    let path = directory.join("document.yaml");
    std::fs::write(&path, document).expect("the document is written");
    let path = path.display().to_string();
    let finished = dev
        .muster(&["workflow", "run", &path, "--wait", "-o", "json"])
        .await;
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

/// A document with one call of an MCP server.
fn mcp(transport: &str, method: &str, parameters: &str) -> String {
    format!(
        "document: {{dsl: '1.0.3', namespace: test, name: test, version: '1.0.0'}}\ndo:\n  - ask:\n      call: mcp\n      \
         with: {{method: {method}, parameters: {parameters}, transport: {transport}}}\n"
    )
}

#[tokio::test]
async fn a_server_of_the_official_python_package_is_called_over_both_transports() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let python = tool("python").display().to_string();
    let script = repository_file("tests/interop/mcp_server.py")
        .display()
        .to_string();
    let allowed = format!("engine.mcp_stdio_commands=[\"{python}\"]");
    let dev = Dev::start_with(directory.path(), &["--set", &allowed]).await;

    let ports = muster_testkit::Ports::reserve();
    let port = ports.data;
    let log = directory.path().join("log");
    let mut server = Command::new(&python);
    server
        .args([&script, &port.to_string()])
        .env("MCP_TEST_LOG", &log)
        .kill_on_drop(true);
    let _server = server.spawn().expect("the server starts");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("the server to answer", PATIENCE, async || {
        muster_testkit::http::get(address, "/mcp").await
    })
    .await;

    let over_http = format!("{{http: {{endpoint: 'http://{address}/mcp'}}}}");
    let over_stdio = format!("{{stdio: {{command: '{python}', arguments: ['{script}', stdio]}}}}");
    for transport in [&over_http, &over_stdio] {
        let call = async |method: &str, parameters: &str| {
            let run = outcome(&dev, directory.path(), &mcp(transport, method, parameters)).await;
            assert_eq!(run["status"], "completed", "{transport} {method}: {run}");
            run["output"].clone()
        };
        let sum = call("tools/call", "{name: add, arguments: {a: 2, b: 3}}").await;
        assert_eq!(sum["structuredContent"]["result"], 5, "{sum}");
        let failed = call("tools/call", "{name: fail, arguments: {}}").await;
        assert_eq!(failed["isError"], true, "{failed}");
        let tools = call("tools/list", "{}").await;
        assert_eq!(tools["tools"].as_array().map(Vec::len), Some(3), "{tools}");
        let prompt = call("prompts/get", "{name: review, arguments: {code: x}}").await;
        assert_eq!(prompt["messages"][0]["content"]["text"], "Please review: x");
        let note = call("resources/read", "{uri: 'note://ada'}").await;
        assert_eq!(note["contents"][0]["text"], "about ada");
        let templates = call("resources/templates/list", "{}").await;
        assert_eq!(templates["resourceTemplates"][0]["uriTemplate"], "note://{name}");
        call("prompts/list", "{}").await;
        call("resources/list", "{}").await;
    }

    let slow = mcp(&over_http, "tools/call", "{name: slow, arguments: {}}")
        + "      timeout: {after: {seconds: 1}}\n";
    let run = outcome(&dev, directory.path(), &slow).await;
    assert_eq!(run["status"], "faulted", "{run}");
    wait_for("the server to cancel its work", PATIENCE, async || {
        std::fs::read_to_string(&log).map_err(|error| error.to_string())
    })
    .await;
}

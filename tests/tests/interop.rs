//! Strangers' clients: the official Python A2A client over both bindings, `buf curl` and grpcurl by reflection.

use std::process::Output;

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

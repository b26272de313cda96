//! Agents that are killed, hang, or can no longer be reached.

use std::net::SocketAddr;
use std::time::Duration;

use muster_api::error::Reason;
use muster_testkit::{http, wait_for};
use muster_tests::PATIENCE;
use serde_json::json;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::system::{System, end_of, error_in, message, outcome, said, take};
use crate::worker::LOOK;

/// The registry's default lease.
const LEASE: Duration = Duration::from_secs(90);

/// The target that any agent serves whose work may be repeated.
fn look() -> String {
    format!("skill:{LOOK}")
}

#[tokio::test]
async fn a_call_with_a_killed_agent_fails_by_name_and_another_instance_takes_the_next() {
    let system = System::start(&[], &[]).await;
    let mut workers = vec![system.worker("worker").await, system.worker("worker").await];
    let gate = system.gate("gate");
    let mut calls = JoinSet::new();
    let (mut client, request) = (system.client(), message("worker", &gate.hold()));
    calls.spawn(async move { client.send_message(request).await });
    let at = gate.reached(1).await[0];
    let instance = system.row(0, at).await.unwrap().instance_id;
    take(&mut workers, at).process.kill().await;

    let error = error_in(&outcome(&mut calls, PATIENCE).await.unwrap_err());
    assert_eq!(error.reason, Reason::AgentUnreachable);
    assert_eq!(error.metadata["agent"], "worker");
    assert_eq!(error.metadata["instance"], instance);
    assert_eq!(error.metadata["safe_to_retry"], "false");
    assert!(error.message.contains("'worker'"), "{}", error.message);
    assert!(error.message.contains("may do it twice"), "{}", error.message);

    // The dead one is still in the view, until its lease ends; nobody notices.
    for round in 0..10 {
        system.echo("worker", &format!("round {round}")).await;
    }
}

#[tokio::test]
async fn a_call_that_may_be_repeated_moves_from_a_killed_agent_by_itself() {
    let system = System::start(&[], &[]).await;
    let mut workers = vec![system.worker("worker").await, system.worker("worker").await];
    let gate = system.gate("gate");
    let mut calls = JoinSet::new();
    let (mut client, request) = (system.client(), message(&look(), &gate.hold()));
    calls.spawn(async move { client.send_message(request).await });
    let at = gate.reached(1).await[0];
    take(&mut workers, at).process.kill().await;
    let both = gate.reached(2).await;
    assert_eq!(both[1], workers[0].port(), "it is with the other now");
    gate.open();
    let answer = outcome(&mut calls, PATIENCE).await.unwrap();
    assert_eq!(said(answer.into_inner()), "released");
}

#[tokio::test]
async fn a_stream_of_a_killed_agent_ends_with_an_error() {
    let system = System::start(&[], &[]).await;
    let worker = system.worker("worker").await;
    let gate = system.gate("gate");
    let request = message("worker", &gate.hold());
    let mut events = system
        .client()
        .send_streaming_message(request)
        .await
        .unwrap()
        .into_inner();
    events.message().await.unwrap().unwrap();
    gate.reached(1).await;
    worker.process.kill().await;
    let error = error_in(&end_of(&mut events, PATIENCE).await);
    assert_eq!(error.reason, Reason::AgentUnreachable);
    assert_eq!(error.metadata["agent"], "worker");
}

/// Short enough to wait for, long enough for a machine under load.
const SHORT_LEASES: [(&str, &str); 2] = [
    ("REGISTRY__HEALTH_CHECK_INTERVAL", "3"),
    ("REGISTRY__LEASE_DURATION", "15"),
];

/// Sends a message with a deadline, by a client that has no timer of its own.
async fn send_within(
    deadline: &'static str,
    router: SocketAddr,
    text: String,
) -> Result<http::Response, String> {
    let id = uuid::Uuid::new_v4();
    let parts = json!([{ "text": text }]);
    let body = json!({"message": {"messageId": id, "role": "ROLE_USER", "parts": parts}});
    let headers = [
        ("content-type", "application/json"),
        ("a2a-version", "1.0"),
        ("grpc-timeout", deadline),
    ];
    let path = "/worker/message:send";
    http::send(
        router,
        http::Method::POST,
        path,
        &headers,
        body.to_string().into(),
    )
    .await
}

#[tokio::test]
async fn a_hung_agent_costs_a_deadline_or_its_lease_and_is_used_again_when_it_is_well() {
    let system = System::start(&SHORT_LEASES, &[]).await;
    let hung = system.worker("worker").await;
    let gate = system.gate("gate");
    let mut patient = JoinSet::new();
    let (mut client, request) = (system.client(), message(&look(), &gate.hold()));
    patient.spawn(async move { client.send_message(request).await });
    let mut hasty = JoinSet::new();
    hasty.spawn(send_within(
        "4S",
        system.routers[0].program.data_address(),
        gate.hold(),
    ));
    gate.reached(2).await;
    hung.process.signal("STOP").await;

    let other = system.worker("worker").await;
    let answer = outcome(&mut hasty, PATIENCE).await.unwrap();
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("DEADLINE_EXCEEDED"), "{}", answer.text());

    // What has no deadline ends with the lease; this may be repeated, and so it moves.
    gate.open();
    let answer = outcome(&mut patient, PATIENCE).await.unwrap();
    assert_eq!(said(answer.into_inner()), "released");
    assert_eq!(gate.ports().last(), Some(&other.port()));
    system.knows(0, 1).await;
    for round in 0..5 {
        system.echo("worker", &format!("round {round}")).await;
    }

    hung.process.signal("CONT").await;
    system.knows(0, 2).await;
    other.process.kill().await;
    system.echo("worker", "well again").await;
}

#[tokio::test]
async fn a_hung_agent_that_keeps_its_lease_is_left_alone_until_it_is_well() {
    let breaker = [
        ("ROUTER__STREAM_IDLE_SECONDS", "2"),
        ("ROUTER__BREAKER_FAILURES", "1"),
        ("ROUTER__BREAKER_OPEN_SECONDS", "20"),
    ];
    let system = System::start(&[], &breaker).await;
    let mut workers = vec![system.worker("worker").await, system.worker("worker").await];
    let gate = system.gate("gate");
    let request = message("worker", &gate.hold());
    let events = system.client().send_streaming_message(request).await;
    let mut events = events.unwrap().into_inner();
    let at = gate.reached(1).await[0];
    let hung = take(&mut workers, at);
    hung.process.signal("STOP").await;
    let error = error_in(&end_of(&mut events, PATIENCE).await);
    assert_eq!(error.reason, Reason::DeadlineExceeded);
    assert_eq!(system.row(0, at).await.unwrap().breaker, "open");
    for round in 0..5 {
        system.echo("worker", &format!("round {round}")).await;
    }

    hung.process.signal("CONT").await;
    workers.remove(0).process.kill().await;
    wait_for("the agent to be used again", PATIENCE, async || {
        system.send("worker", "echo again").await
    })
    .await;
    assert_eq!(system.row(0, at).await.unwrap().breaker, "closed");
}

/// Tells this executable that it is alone in its network.
const ALONE: &str = "FAULTS_ALONE";

/// This runs in a network namespace of its own, where it may drop what it likes.
#[tokio::test]
async fn calls_over_a_connection_that_has_gone_silent_end_within_the_lease() {
    if std::env::var_os(ALONE).is_some() {
        return go_silent().await;
    }
    let test = "agents::calls_over_a_connection_that_has_gone_silent_end_within_the_lease";
    let script = r#"
        alone='ip link set lo up && exec "$@"'
        if [ "$(id -u)" = 0 ]; then exec unshare --net sh -c "$alone" alone "$@"
        else exec unshare --user --map-root-user --net sh -c "$alone" alone "$@"; fi
    "#;
    let output = Command::new("sh")
        .args(["-c", script, "alone"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ALONE, "yes")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn go_silent() {
    let system = System::start(&[], &[]).await;
    let (idle, busy) = (system.worker("idle").await, system.worker("busy").await);
    system.echo("busy", "the connection is there").await;
    let gate = system.gate("gate");
    let mut calls = JoinSet::new();
    let (mut client, request) = (system.client(), message("idle", &gate.hold()));
    calls.spawn(async move { client.send_message(request).await });
    gate.reached(1).await;

    // From now on nothing passes between them and the router, and nobody says so. Their heartbeats go on.
    for port in [idle.port(), busy.port()] {
        for side in ["--dport", "--sport"] {
            let port = port.to_string();
            firewall(&["-A", "INPUT", "-p", "tcp", side, port.as_str(), "-j", "DROP"]).await;
        }
    }
    let (mut client, request) = (system.client(), message("busy", "echo x"));
    calls.spawn(async move { client.send_message(request).await });
    for _ in 0..2 {
        let error = error_in(&outcome(&mut calls, LEASE).await.unwrap_err());
        assert!(
            matches!(
                error.reason,
                Reason::AgentUnreachable | Reason::NoInstanceAvailable
            ),
            "{error:?}"
        );
    }
    assert_eq!(
        system.status(0).await.unwrap().instances.len(),
        2,
        "both have their leases"
    );

    firewall(&["-F", "INPUT"]).await;
    system.echo("idle", "it is back").await;
    system.echo("busy", "it is back").await;
}

async fn firewall(arguments: &[&str]) {
    let output = Command::new("iptables").args(arguments).output().await;
    let output = output.expect("iptables is installed; `tests/run` does it");
    assert!(output.status.success(), "iptables {arguments:?}: {output:?}");
}

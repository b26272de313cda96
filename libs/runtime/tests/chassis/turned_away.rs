//! Whoever is turned away before there is a request leaves a line in the audit log, and a flood of them leaves few.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::trust::audit::chain;
use muster_runtime::{server, trust};
use muster_testkit::frames::{ECHO, END_HEADERS, HEADERS, frame, goodbyes, rapid_resets};
use muster_testkit::http::{self, Method};
use muster_testkit::wait_for;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::native::{HOUR, Workloads, client_hello_of_tls_1_2};
use crate::stage::{PATIENCE, Running, start};

/// A service with an audit log.
fn listening(config: &server::Config, trust: &trust::Config, directory: &Path) -> Running {
    let mut trust = trust.clone();
    trust.audit.directory = Some(directory.to_owned());
    let running = start(config, |chassis| chassis.secure(&trust).unwrap());
    running.latch.ready();
    running
}

/// How often each reason was counted, by the lines that there are of refused connections, after a verification of the chain.
fn counted(directory: &Path) -> Result<BTreeMap<String, u64>, String> {
    let log = directory.join("example");
    chain::verify(&log).map_err(|error| error.to_string())?;
    let mut counted = BTreeMap::new();
    for line in chain::lines(&log).unwrap() {
        if line["event"] == "connection_refused" {
            assert_eq!(line["outcome"], "refused");
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            *counted.entry(text("reason")).or_default() += text("count").parse::<u64>().unwrap();
        }
    }
    Ok(counted)
}

/// Waits until the log of a service that has stopped has these, and says that it has nothing else.
async fn is_written(directory: &Path, wanted: &[(&str, u64)]) {
    let wanted: BTreeMap<String, u64> = wanted
        .iter()
        .map(|(reason, count)| ((*reason).to_owned(), *count))
        .collect();
    wait_for("the log to be written", PATIENCE, async || {
        let counted = counted(directory)?;
        if counted == wanted {
            Ok(())
        } else {
            Err(format!("{counted:?}"))
        }
    })
    .await;
}

/// The file of a log that is too short for two.
fn only_file(directory: &Path) -> PathBuf {
    let mut files = chain::files(&directory.join("example")).unwrap();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

async fn until(directory: &Path, reason: &str) {
    wait_for(reason, PATIENCE, async || {
        let text = std::fs::read_to_string(only_file(directory)).map_err(|error| error.to_string())?;
        if text.contains(reason) { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_is_refused_is_written_down() {
    let directory = tempfile::tempdir().unwrap();
    // What is issued now has ended by the clock of the service.
    let workloads = Workloads::at(SystemClock::default().now() - HOUR * 2);
    let mut config = workloads.config("weather");
    workloads.issue("weather", "weather", HOUR * 48);
    config.native.handshake_timeout_seconds = 2;
    let running = listening(&server::Config::default(), &config, directory.path());
    let address = running.data;

    workloads.asks("router", address).await.unwrap_err();
    let current = Workloads::new();
    // It takes the service for who it is, and shows what the service knows nobody of.
    current.trust_authority_of(&workloads);
    current.asks("router", address).await.unwrap_err();
    http::get(address, "/.well-known/agent-card.json")
        .await
        .unwrap_err();
    let mut old = TcpStream::connect(address).await.unwrap();
    old.write_all(&client_hello_of_tls_1_2()).await.unwrap();
    old.read_exact(&mut [0; 7]).await.unwrap();
    let openssl = tokio::process::Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &address.to_string(),
            "-alpn",
            "h2",
            "-ign_eof",
        ])
        .stdin(Stdio::null())
        .output();
    let openssl = openssl.await.unwrap();
    let said = String::from_utf8_lossy(&openssl.stderr);
    assert!(said.contains("certificate required"), "{said}");
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap_or(0), 0, "it is let go");
    // Who hangs up was not turned away.
    drop(TcpStream::connect(address).await.unwrap());
    running.stop().await;
    let wanted = [
        ("certificate_not_valid_now", 1),
        ("no_certificate", 1),
        ("no_tls", 1),
        ("other_tls", 1),
        ("slow_handshake", 1),
        ("unknown_authority", 1),
    ];
    is_written(directory.path(), &wanted).await;
}

#[tokio::test]
async fn whose_certificate_is_good_and_may_not_call_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let workloads = Workloads::new();
    let running = listening(
        &server::Config::default(),
        &workloads.config("weather"),
        directory.path(),
    );
    workloads.asks("planning", running.data).await.unwrap_err();
    workloads.asks("router", running.data).await.unwrap();
    running.stop().await;
    is_written(directory.path(), &[("peer_not_admitted", 1)]).await;
    let log = only_file(directory.path());
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.contains("spiffe://d/ns/n/sa/planning"), "{text}");
}

#[tokio::test]
async fn a_flood_of_refused_handshakes_leaves_two_lines() {
    let directory = tempfile::tempdir().unwrap();
    let workloads = Workloads::new();
    let mut config = workloads.config("weather");
    config.native.max_handshakes = 2;
    config.native.handshake_timeout_seconds = 3_600;
    let running = listening(&server::Config::default(), &config, directory.path());
    let mut silent = Vec::new();
    for _ in 0..52 {
        silent.push(TcpStream::connect(running.data).await.unwrap());
    }
    // The oldest are broken off, all but two.
    for stream in &mut silent[..50] {
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
    running.stop().await;
    is_written(directory.path(), &[("too_many_handshakes", 50)]).await;
    let log = only_file(directory.path());
    assert_eq!(std::fs::read_to_string(log).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn what_a_connection_is_broken_off_for_is_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let config = server::Config {
        max_message_bytes: 1 << 10,
        max_header_bytes: 8 << 10,
        head_timeout_seconds: 1,
        body_timeout_seconds: 1,
        ..server::Config::default()
    };
    let running = listening(&config, &trust::Config::default(), directory.path());
    goodbyes(running.data, &rapid_resets(ECHO, 60)).await;
    let large = http::send(
        running.data,
        Method::POST,
        "/echo",
        &[],
        vec![b'x'; 4 << 10].into(),
    );
    assert_eq!(large.await.unwrap().status, 413);
    let long = "x".repeat(64 << 10);
    let refused = http::send(
        running.data,
        Method::GET,
        "/held",
        &[("x-long", &long)],
        "".into(),
    )
    .await;
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status == 431));
    let mut silent = TcpStream::connect(running.data).await.unwrap();
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap_or(0), 0, "it is let go");
    let mut slow = TcpStream::connect(running.data).await.unwrap();
    let head = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nx";
    slow.write_all(head).await.unwrap();
    let mut status = [0; 10];
    slow.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 4", "it is refused");
    drop(slow);
    running.stop().await;
    let wanted = [
        ("head_too_large", 1),
        ("message_too_large", 1),
        ("slow_beginning", 1),
        ("slow_body", 1),
        ("too_many_streams_or_resets", 1),
    ];
    is_written(directory.path(), &wanted).await;
}

#[tokio::test]
async fn more_streams_than_may_be_are_written_down_when_there_is_no_end_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let config = server::Config {
        max_concurrent_streams: 2,
        ..server::Config::default()
    };
    let running = listening(&config, &trust::Config::default(), directory.path());
    let streams: Vec<u8> = (0..300)
        .flat_map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, ECHO))
        .collect();
    goodbyes(running.data, &streams).await;
    running.stop().await;
    is_written(directory.path(), &[("too_many_streams_or_resets", 1)]).await;
}

#[tokio::test]
async fn that_all_places_are_taken_is_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let config = server::Config {
        max_connections: 1,
        ..server::Config::default()
    };
    let running = listening(&config, &trust::Config::default(), directory.path());
    let only = TcpStream::connect(running.data).await.unwrap();
    until(directory.path(), "too_many_connections").await;
    drop(only);
    let answer = http::get(running.data, "/.well-known/agent-card.json")
        .await
        .unwrap();
    assert_eq!(answer.text(), "nobody");
    running.stop().await;
}

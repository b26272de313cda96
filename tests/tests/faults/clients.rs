//! Clients that send slowly, send too much, or send nonsense: they are refused, and the others do not notice.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::Method;
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use muster_api::error::Reason;
use muster_testkit::frames::{PREFACE, frame};
use muster_testkit::http;
use muster_tests::PATIENCE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::system::{Running, System, channel, error_in, message, outcome};

const SEND: &str = "/lf.a2a.v1.A2AService/SendMessage";
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Between two bytes of a slow client.
const PAUSE: Duration = Duration::from_millis(250);

/// Sends the beginning, then one of the other bytes after the other and over again, until the server ends the connection;
/// what it said.
async fn drip(address: SocketAddr, beginning: Vec<u8>, others: Vec<u8>) -> String {
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let sending = async {
        let mut ticks = tokio::time::interval(PAUSE);
        let mut ok = writer.write_all(&beginning).await.is_ok();
        for byte in others.iter().cycle() {
            ticks.tick().await;
            ok = ok && writer.write_all(&[*byte]).await.is_ok();
        }
        // With nothing to send, it stays silent.
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut said = Vec::new();
        // However it ends.
        let _ended = reader.read_to_end(&mut said).await;
        String::from_utf8_lossy(&said).into_owned()
    };
    tokio::select! {
        () = sending => unreachable!("it never ends"),
        said = reading => said,
    }
}

/// A byte now and then.
fn drops(beginning: Vec<u8>) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let ticks = tokio::time::interval(PAUSE);
    let bytes = stream::unfold(ticks, |mut ticks| async {
        ticks.tick().await;
        Some((Bytes::from_static(b"x"), ticks))
    });
    stream::iter([beginning.into()])
        .chain(bytes)
        .map(|bytes| Ok(Frame::data(bytes)))
}

/// A gRPC message of a kilobyte, byte by byte over HTTP/2; the code of the status.
async fn drip_grpc(address: SocketAddr) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = hyper::Request::post(format!("http://{address}{SEND}"))
        .header("content-type", "application/grpc")
        .body(StreamBody::new(Box::pin(drops(vec![0, 0, 0, 4, 0]))))
        .unwrap();
    let answer = sender.clone().send_request(request).await.unwrap();
    let code = answer.headers().get("grpc-status");
    code.map(|code| code.to_str().unwrap().to_owned())
        .unwrap_or_default()
}

#[tokio::test]
async fn clients_that_send_byte_by_byte_are_ended_and_others_go_on() {
    let short = [
        ("SERVER__HEAD_TIMEOUT_SECONDS", "3"),
        ("SERVER__BODY_TIMEOUT_SECONDS", "3"),
    ];
    let system = System::start(&[], &short).await;
    let worker = system.worker_with("worker", &short).await;
    let mut bodies = JoinSet::new();
    let mut heads = JoinSet::new();
    let mut grpc = JoinSet::new();
    for program in [&system.routers[0].program, &worker.program] {
        let address = program.data_address();
        for _ in 0..20 {
            heads.spawn(drip(address, Vec::new(), Vec::new()));
            heads.spawn(drip(address, PREFACE[..1].to_vec(), PREFACE[1..].to_vec()));
            heads.spawn(drip(
                address,
                b"POST / HTTP/1.1\r\nx-slow: ".to_vec(),
                b"a".to_vec(),
            ));
            for path in ["/", "/message:send"] {
                let head = format!(
                    "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
                     a2a-version: 1.0\r\ncontent-length: 1000\r\n\r\n"
                );
                bodies.spawn(drip(address, head.into_bytes(), b" ".to_vec()));
            }
            grpc.spawn(drip_grpc(address));
        }
    }
    for round in 0..20 {
        system.echo("worker", &format!("round {round}")).await;
    }
    while !heads.is_empty() {
        outcome(&mut heads, PATIENCE).await;
    }
    while !bodies.is_empty() {
        let said = outcome(&mut bodies, PATIENCE).await;
        assert!(said.starts_with("HTTP/1.1 408"), "{said}");
        assert!(said.contains("did not come in within 3 s"), "{said}");
    }
    while !grpc.is_empty() {
        let code = outcome(&mut grpc, PATIENCE).await;
        assert_eq!(code, "4", "DEADLINE_EXCEEDED");
    }
    system.echo("worker", "afterwards").await;
}

/// Bytes of a message that is far too large.
const HUGE: usize = 100_000_000;

/// How much more memory a process may hold for having refused such messages.
const MOST_GROWTH: u64 = 50_000_000;

/// Sends such a message over HTTP/1; what the server says, which it does before it has read it all.
async fn send_huge(address: SocketAddr, path: &str, before: &str, after: &str) -> String {
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let length = before.len() + HUGE + after.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\na2a-version: 1.0\r\n\
         content-length: {length}\r\n\r\n{before}"
    );
    let writing = async {
        writer.write_all(head.as_bytes()).await?;
        let piece = vec![b'x'; 100_000];
        for _ in 0..HUGE / piece.len() {
            writer.write_all(&piece).await?;
        }
        writer.write_all(after.as_bytes()).await
    };
    let reading = async {
        let mut said = Vec::new();
        let _ended = reader.read_to_end(&mut said).await;
        String::from_utf8_lossy(&said).into_owned()
    };
    // A server that refuses closes the connection, so that writing fails.
    let both = async { tokio::join!(writing, reading).1 };
    tokio::time::timeout(PATIENCE, both).await.expect("an answer")
}

async fn refuses_huge(running: &Running, target: &str) {
    let address = running.program.data_address();
    let before = running.most_memory();
    let part = r#"{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":""#;
    let slash = if target.is_empty() { "" } else { "/" };
    let said = send_huge(
        address,
        &format!("/{target}"),
        &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{part}"#),
        r#""}]}}}"#,
    )
    .await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    assert!(said.contains("MESSAGE_TOO_LARGE"), "{said}");
    let said = send_huge(
        address,
        &format!("{slash}{target}/message:send"),
        part,
        r#""}]}}"#,
    )
    .await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    assert!(said.contains("MESSAGE_TOO_LARGE"), "{said}");
    let sent = muster_a2a::grpc::client(channel(&running.program))
        .send_message(message(target, &"x".repeat(HUGE)))
        .await;
    let status = sent.unwrap_err();
    assert_eq!(error_in(&status).reason, Reason::MessageTooLarge, "{status:?}");
    let growth = running.most_memory().saturating_sub(before);
    assert!(growth < MOST_GROWTH, "{growth} bytes more");
}

#[tokio::test]
async fn a_message_of_a_hundred_megabytes_is_refused_and_costs_no_memory() {
    let system = System::start(&[], &[]).await;
    let worker = system.worker("worker").await;
    refuses_huge(&system.routers[0], "worker").await;
    refuses_huge(&worker, "").await;
    system.echo("worker", "afterwards").await;
}

/// Sends bytes and waits until the server has ended the connection; what it said.
async fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    let reading = stream.read_to_end(&mut said);
    let _ended = tokio::time::timeout(PATIENCE, reading)
        .await
        .unwrap_or_else(|_| panic!("the connection stays open after {bytes:?}"));
    said
}

async fn bears_nonsense(address: SocketAddr) {
    let begun = [PREFACE, &EMPTY_SETTINGS].concat();
    let after_the_preface = |more: &[u8]| [&begun, more].concat();
    for bytes in [
        [PREFACE, &[0xff; 64]].concat(),
        // Data, a window and a continuation that belong to no stream; headers that are none; a frame that is too long.
        after_the_preface(&frame(0, 0, 0, b"data")),
        after_the_preface(&frame(8, 0, 0, &[0, 0, 0, 0])),
        after_the_preface(&frame(9, 4, 1, b"headers")),
        after_the_preface(&frame(1, 5, 1, &[0xff; 32])),
        after_the_preface(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        b"\x00\x01\x02\x03\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello".to_vec(),
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n".to_vec(),
    ] {
        say(address, &bytes).await;
    }

    let deep = "[".repeat(200_000);
    for body in [
        "{",
        "\u{0}",
        "[]",
        "{}",
        "null",
        deep.as_str(),
        r#"{"jsonrpc":"2.0","id":{},"method":7}"#,
    ] {
        for path in ["/worker", "/worker/message:send"] {
            let headers = [("content-type", "application/json"), ("a2a-version", "1.0")];
            let body = Bytes::from(body.to_owned());
            let answer = http::send(address, Method::POST, path, &headers, body)
                .await
                .unwrap();
            assert!(answer.status.as_u16() < 500, "{path}: {}", answer.text());
            assert!(answer.json()["error"].is_object(), "{path}: {}", answer.text());
        }
    }

    for body in [
        &[][..],
        &[0],
        &[0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0, 200, 1],
        &[1, 0, 0, 0, 1, 0],
        &[7, 0, 0, 0, 1, 0],
        &[0, 0xff, 0xff, 0xff, 0xff],
    ] {
        let headers = [("content-type", "application/grpc"), ("a2a-version", "1.0")];
        let bytes = Bytes::copy_from_slice(body);
        let answer = http::send_http2(address, Method::POST, SEND, &headers, bytes)
            .await
            .unwrap();
        let code = answer
            .headers
            .get("grpc-status")
            .and_then(|code| code.to_str().ok());
        assert!(
            code.is_some_and(|code| code != "0"),
            "{body:?}: {:?}",
            answer.headers
        );
    }
}

#[tokio::test]
async fn nonsense_is_refused_and_the_process_goes_on() {
    let system = System::start(&[], &[]).await;
    let mut worker = system.worker("worker").await;
    bears_nonsense(system.routers[0].program.data_address()).await;
    bears_nonsense(worker.program.data_address()).await;
    system.echo("worker", "afterwards").await;
    assert!(!worker.process.has_ended());
}

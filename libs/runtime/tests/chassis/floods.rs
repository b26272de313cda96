//! Clients of HTTP/2 that make work for nothing, or do nothing, byte by byte.

use muster_runtime::server;
use muster_testkit::http::{self, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stage::{PATIENCE, Running, start};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// Flags.
const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `POST /echo` of `x`.
pub const HEAD: &[u8] = b"\x83\x86\x04\x05/echo\x01\x01x";

/// Error codes.
const NO_ERROR: u32 = 0;
pub const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Sends these frames and answers what has to be answered, until the server closes the connection. The codes with which it says
/// goodbye.
pub async fn goodbyes(running: &Running, frames: &[u8]) -> Vec<u32> {
    let mut stream = TcpStream::connect(running.data).await.unwrap();
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[]), frames].concat();
    stream.write_all(&begin).await.unwrap();
    let mut codes = Vec::new();
    let mut conversation = async || -> std::io::Result<()> {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await?;
            match (head[3], head[4]) {
                (PING | SETTINGS, flags) if flags & ACK == 0 => {
                    let echoed: &[u8] = if head[3] == PING { &payload } else { &[] };
                    // What it said before it closed is still to be read.
                    let _closed = stream.write_all(&frame(head[3], ACK, 0, echoed)).await;
                }
                (GOAWAY, _) => codes.push(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
                _ => {}
            }
        }
    };
    let ended = timeout(PATIENCE, conversation()).await;
    assert!(ended.expect("the server ends it").is_err());
    codes
}

#[tokio::test]
async fn who_resets_what_it_has_just_asked_for_again_and_again_is_let_go_and_others_are_served() {
    let running = start(&server::Config::default(), |_| {});
    let flood: Vec<u8> = (0..60)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            let asked = frame(HEADERS, END_HEADERS, stream, HEAD);
            [asked, frame(RESET, 0, stream, &CANCEL.to_be_bytes())].concat()
        })
        .collect();
    let codes = goodbyes(&running, &flood).await;
    assert_eq!(codes.last(), Some(&ENHANCE_YOUR_CALM), "{codes:?}");
    let echoed = http::send(running.data, Method::POST, "/echo", &[], "x".into()).await;
    assert_eq!(echoed.unwrap().text(), "x");
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_told_to_end() {
    let config = server::Config {
        idle_timeout_seconds: 1,
        ..server::Config::default()
    };
    let running = start(&config, |_| {});
    let codes = goodbyes(&running, &[]).await;
    assert_eq!(codes.last(), Some(&NO_ERROR), "{codes:?}");
    running.stop().await;
}

//! HTTP/2 frame by frame, for clients that no library would be: they make work for nothing, or do nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How a client begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `POST /echo` of `x`, as the payload of [`HEADERS`].
pub const ECHO: &[u8] = b"\x83\x86\x04\x05/echo\x01\x01x";

/// The kind of frame that opens a stream.
pub const HEADERS: u8 = 1;
const RESET: u8 = 3;
/// The kind of frame that says what a side wants.
pub const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
/// The flag of a frame of headers after which no more come.
pub const END_HEADERS: u8 = 4;

/// The code of a connection that ends well.
pub const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;
/// The code of a connection whose client makes work for nothing.
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// How long a server may take to end a connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// A frame.
///
/// # Panics
/// When its payload is longer than a frame can be.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 1 << 24, "{} bytes are no frame", payload.len());
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let mut frame = length.iter().skip(1).copied().collect::<Vec<u8>>();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// So many streams, each of which is opened with these headers and reset at once.
#[must_use]
pub fn rapid_resets(headers: &[u8], times: u32) -> Vec<u8> {
    let streams = (0..times).map(|number| 2 * number + 1);
    let frames = streams.flat_map(|stream| {
        let asked = frame(HEADERS, END_HEADERS, stream, headers);
        [asked, frame(RESET, 0, stream, &CANCEL.to_be_bytes())].concat()
    });
    frames.collect()
}

/// Sends these frames and answers what has to be answered, until the server closes the connection. The codes with which it says
/// goodbye.
///
/// # Panics
/// When nothing listens, or the server does not end it.
pub async fn goodbyes(address: SocketAddr, frames: &[u8]) -> Vec<u32> {
    let connected = TcpStream::connect(address).await;
    let mut stream = connected.unwrap_or_else(|error| panic!("{address}: {error}"));
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[]), frames].concat();
    let mut codes = Vec::new();
    let mut conversation = async || -> std::io::Result<()> {
        // What it says before it closes is still to be read.
        let _sent = stream.write_all(&begin).await;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]);
            let mut payload = vec![0; usize::try_from(length).unwrap_or_default()];
            stream.read_exact(&mut payload).await?;
            match kind {
                PING | SETTINGS if flags & ACK == 0 => {
                    let echoed: &[u8] = if kind == PING { &payload } else { &[] };
                    let _closed = stream.write_all(&frame(kind, ACK, 0, echoed)).await;
                }
                GOAWAY => {
                    let code = payload.get(4..8).and_then(|code| code.try_into().ok());
                    codes.push(code.map_or(NO_ERROR, u32::from_be_bytes));
                }
                _ => {}
            }
        }
    };
    let ended = timeout(PATIENCE, conversation()).await;
    assert!(ended.is_ok(), "{address} does not end the connection");
    codes
}

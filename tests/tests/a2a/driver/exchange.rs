//! One HTTP/1.1 request over a connection of its own, and server-sent events by hand.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Events, PATIENCE, Refusal, media_type};

/// Bytes that the system keeps of what is not read yet. Few, so that a stream that is not read stands still.
const BUFFER: u32 = 16 * 1024;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    /// Its body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            let text = String::from_utf8_lossy(&self.body);
            panic!("{} with a body that is no JSON ({error}): {text:?}", self.status)
        })
    }

    /// Its media type.
    pub fn media_type(&self) -> String {
        media_type(&self.headers)
    }
}

/// An answer whose body has not been read. Dropping it closes the connection.
pub struct Pending {
    response: hyper::Response<Incoming>,
    connection: JoinSet<()>,
}

impl Pending {
    /// Whether its body is a stream of events.
    pub fn is_stream(&self) -> bool {
        media_type(self.response.headers()) == "text/event-stream"
    }

    /// Its body to the end.
    pub async fn read(self) -> Response {
        let (parts, body) = self.response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .unwrap_or_else(|_| panic!("an answer that does not end within {PATIENCE:?}"))
            .unwrap_or_else(|error| panic!("an answer that breaks off: {error}"));
        drop(self.connection);
        Response {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        }
    }

    /// Its events, each read from the JSON of its data.
    pub fn events(self, read: fn(Value) -> Result<Value, Refusal>) -> Events {
        let media_type = media_type(self.response.headers());
        let (sender, receiver) = mpsc::channel(1);
        let mut reader = self.connection;
        let mut body = self.response.into_body();
        reader.spawn(async move {
            let mut parser = Parser::default();
            while let Some(frame) = body.frame().await {
                let frame = match frame {
                    Ok(frame) => frame,
                    Err(error) => {
                        // Nobody may be there to hear it.
                        let _ = sender.send(Err(Refusal::broken(&error))).await;
                        return;
                    }
                };
                let Ok(bytes) = frame.into_data() else { continue };
                for data in parser.feed(&bytes) {
                    let event = serde_json::from_str(&data)
                        .unwrap_or_else(|error| panic!("an event that is no JSON ({error}): {data}"));
                    if sender.send(read(event)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Events {
            receiver,
            media_type,
            _reader: reader,
        }
    }
}

/// Sends a request and waits for the head of the answer.
pub async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(String, String)],
    body: Bytes,
) -> Pending {
    let what = format!("{method} http://{address}{path}");
    let mut request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(body))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let exchanged = tokio::time::timeout(PATIENCE, async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(BUFFER)?;
        let stream = socket.connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut driving = JoinSet::new();
        driving.spawn(async move {
            // How a connection ends shows in what is read from it.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((response, driving))
    });
    let (response, connection) = exchanged
        .await
        .unwrap_or_else(|_| panic!("{what}: no answer within {PATIENCE:?}"))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    Pending { response, connection }
}

/// Server-sent events, as far as A2A uses them: `data` lines, an empty line after each event, comments.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    data: Option<String>,
}

impl Parser {
    /// The data of the events that are complete with these bytes.
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).expect("UTF-8");
            let line = line.trim_end_matches('\r');
            if line.is_empty() {
                complete.extend(self.data.take());
            } else if let Some(data) = line.strip_prefix("data:") {
                let data = data.strip_prefix(' ').unwrap_or(data);
                match &mut self.data {
                    Some(before) => {
                        before.push('\n');
                        before.push_str(data);
                    }
                    None => self.data = Some(data.to_owned()),
                }
            }
        }
        complete
    }
}

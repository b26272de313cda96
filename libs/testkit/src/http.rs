//! One request over a fresh connection, HTTP/1.1 unless told, for JSON and for looking at raw answers.
//!
//! No client library of Muster takes part, so that a test sees what a stranger's client would see.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
pub use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers, names in lower case.
    pub headers: hyper::HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// The body as text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When the body is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!(
                "{} with a body that is no JSON ({error}): {}",
                self.status,
                self.text()
            )
        })
    }
}

/// Sends `GET path`. The error says what failed, for use with [`wait_for`](crate::wait_for).
pub async fn get(address: SocketAddr, path: &str) -> Result<Response, String> {
    send(address, Method::GET, path, &[], Bytes::new()).await
}

/// Sends `POST path` with a JSON body.
pub async fn post(address: SocketAddr, path: &str, body: &Value) -> Result<Response, String> {
    let headers = [("content-type", "application/json")];
    send(address, Method::POST, path, &headers, body.to_string().into()).await
}

/// Sends any request; `host` is set from the address.
pub async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Response, String> {
    let mut request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(body))
        .map_err(|error| format!("request to {path}: {error}"))?;
    tokio::time::timeout(PATIENCE, exchange(address, request))
        .await
        .map_err(|_| format!("http://{address}{path} does not answer within {PATIENCE:?}"))?
        .map_err(|error| format!("http://{address}{path}: {error}"))
}

/// Sends any request over HTTP/2 without TLS, as `curl --http2-prior-knowledge` does.
pub async fn send_http2(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Response, String> {
    let mut request = hyper::Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(body))
        .map_err(|error| format!("request to {path}: {error}"))?;
    let exchanged = tokio::time::timeout(PATIENCE, async {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        read(sender.clone().send_request(request).await?).await
    });
    exchanged
        .await
        .map_err(|_| format!("http://{address}{path} does not answer within {PATIENCE:?}"))?
        .map_err(|error: Box<dyn std::error::Error + Send + Sync>| format!("http://{address}{path}: {error}"))
}

async fn exchange(
    address: SocketAddr,
    request: hyper::Request<Full<Bytes>>,
) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection must be driven while the answer is awaited; dropping the set ends it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    read(sender.send_request(request).await?).await
}

async fn read(
    response: hyper::Response<hyper::body::Incoming>,
) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
    Ok(Response {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

//! Opens the connections of channels: TCP, and TLS over it where that is spoken.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::security::{HTTP_2, Security};
use crate::gather::Gathered;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Opens connections to one endpoint.
#[derive(Debug, Clone)]
pub struct Connector {
    tcp: HttpConnector,
    security: Security,
    /// How long a handshake may take.
    timeout: Duration,
}

impl Connector {
    pub(super) const fn new(tcp: HttpConnector, security: Security, timeout: Duration) -> Self {
        Self {
            tcp,
            security,
            timeout,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let settings = self.security.config(uri.scheme_str());
        let host = uri.host().unwrap_or_default().to_owned();
        let (timeout, connecting) = (self.timeout, self.tcp.call(uri));
        Box::pin(async move {
            let stream = connecting.await?;
            let Some(settings) = settings else {
                return Ok(Stream::Plain(TokioIo::new(Gathered::new(stream.into_inner()))));
            };
            match tokio::time::timeout(timeout, shake_hands(&host, settings, stream.into_inner())).await {
                Ok(stream) => Ok(Stream::Tls(Box::new(TokioIo::new(Gathered::new(stream?))))),
                Err(_) => Err(format!("'{host}' does not finish the TLS handshake in time").into()),
            }
        })
    }
}

async fn shake_hands(
    host: &str,
    settings: Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, BoxError> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    let stream = TlsConnector::from(settings)
        .connect(name, stream)
        .await
        .map_err(|error| format!("no TLS with '{host}': {error}"))?;
    if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) {
        Ok(stream)
    } else {
        Err(format!("'{host}' speaks TLS, but no HTTP/2 over it (by ALPN)").into())
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(TokioIo<Gathered<TcpStream>>),
    /// With it.
    Tls(Box<TokioIo<Gathered<TlsStream<TcpStream>>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, pieces),
        }
    }
}

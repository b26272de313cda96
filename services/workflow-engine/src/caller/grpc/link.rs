//! One connection over HTTP/2 to what a document names, for one call.
//!
//! The connection itself comes from [`Outbound`], which has checked the address that it ends at; here it only learns to
//! speak TLS, where that is wanted, and gRPC. It is made before the call, so that what stands in its way is told as what
//! it is, and it is dropped with the call: the other side learns at once that nobody waits any more.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::caller::{Failure, Kind};
use crate::outbound::Outbound;

/// A connection, whatever is spoken below.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Io = Box<dyn Stream>;

/// Where gRPC is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::caller) struct Place {
    /// Name or address.
    pub(in crate::caller) host: String,
    /// Port.
    pub(in crate::caller) port: u16,
    /// Whether TLS is spoken.
    pub(in crate::caller) tls: bool,
}

impl Place {
    /// For people.
    pub(in crate::caller) fn shown(&self) -> String {
        let scheme = if self.tls { "grpcs" } else { "grpc" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

/// Connects.
pub(in crate::caller) async fn connect(outbound: &Outbound, place: &Place) -> Result<Channel, Failure> {
    let Place { host, port, tls } = place;
    let unreached = |what: &dyn std::fmt::Display| {
        let detail = format!("'{}' cannot be reached: {what}", place.shown());
        Failure::new(Kind::Communication, 503, detail)
    };
    let stream = outbound.connect(host, *port).await?;
    let _ = stream.set_nodelay(true);
    let io: Io = if *tls {
        let mut config = (**outbound.tls()).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| unreached(&error))?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| unreached(&error))?;
        Box::new(stream)
    } else {
        Box::new(stream)
    };
    let scheme = if *tls { "https" } else { "http" };
    let uri: Uri = format!("{scheme}://{host}:{port}")
        .parse()
        .map_err(|error| unreached(&error))?;
    let once = Mutex::new(Some(io));
    let connector = tower::service_fn(move |_: Uri| {
        let io = once.lock().take();
        async move {
            io.map(TokioIo::new)
                .ok_or_else(|| std::io::Error::other("the connection was lost"))
        }
    });
    Endpoint::from(uri)
        .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| unreached(&error))?
        .connect_with_connector(connector)
        .await
        .map_err(|error| unreached(&crate::outbound::described(&error)))
}

//! Connections to the world: the one way in which the engine reaches what a document names.
//!
//! A document comes from whoever may write one, and the engine stands where its writers do not: beside the metadata
//! service of a cloud, inside a cluster, on a laptop's loopback. Therefore every adapter that follows an address from a
//! document connects through [`Outbound`], and nothing else does:
//!
//! - HTTP: [`Outbound::send`], a pooled client without redirects, cookies or proxies;
//! - other protocols (gRPC, brokers, sinks): [`Outbound::connect`] for the TCP connection and [`Outbound::tls`] for
//!   what is spoken over it.
//!
//! Both ask [`Policy`] about the *address that is connected to*, after the name was resolved and in the same
//! step: a name that resolves to something else a moment later ("DNS rebinding") gains nothing, because what was checked
//! is what is used. Environment proxies are ignored for the same reason: a proxy resolves names by itself.
//!
//! The router and the store are the operator's, not a document's; they are not reached this way.

mod policy;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use url::{Host, Url};

use crate::caller::{Failure, Kind};
pub use policy::{Policy, Refused};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept for the next call.
const IDLE: Duration = Duration::from_secs(60);

/// Section `engine.outbound`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What may be connected to. Each entry is a host (`api.example.com`), all hosts below a domain
    /// (`*.example.com`), `*` for every host with a public address, or addresses (`10.1.0.0/16`, `::1`). Private
    /// addresses are reached by hosts and domains that are named, and by addresses; loopback only by addresses that
    /// hold it, or as `localhost`. Link-local and metadata addresses never.
    pub allow: Vec<String>,
    /// A file of certificate authorities in PEM, trusted besides those of Mozilla.
    pub certificate_authorities: Option<std::path::PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow: vec!["*".to_owned()],
            certificate_authorities: None,
        }
    }
}

/// Why there can be no connections at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An entry of the list is not one.
    #[error("engine.outbound.allow: {0}")]
    Rule(String),
    /// The file of certificate authorities.
    #[error("engine.outbound.certificate_authorities: {path}: {what}")]
    Authorities {
        /// Its path.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The client could not be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
}

/// Connects to what a document names, as far as the operator allows. Clones share the connections.
#[derive(Clone)]
pub struct Outbound {
    policy: Arc<Policy>,
    client: reqwest::Client,
    tls: Arc<ClientConfig>,
}

impl Outbound {
    /// Connections under this configuration.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(config: &Config) -> Result<Self, Error> {
        let policy = Arc::new(Policy::new(&config.allow).map_err(Error::Rule)?);
        let tls = tls(config.certificate_authorities.as_deref())?;
        let mut for_http = tls.clone();
        for_http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(for_http)
            .dns_resolver(Arc::new(Resolver(Arc::clone(&policy))))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Client(described(&error)))?;
        Ok(Self {
            policy,
            client,
            tls: Arc::new(tls),
        })
    }

    /// A request to be sent with [`Self::send`].
    pub fn request(&self, method: reqwest::Method, url: Url) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends a request. The answer's body is still to be read, and to be bounded by whoever reads it.
    ///
    /// # Errors
    /// The address is not allowed (authorization, 403), or nothing answers (communication, 503 or 502).
    pub async fn send(&self, request: reqwest::Request) -> Result<reqwest::Response, Failure> {
        let url = request.url().clone();
        self.check(&url)?;
        self.client
            .execute(request)
            .await
            .map_err(|error| failed(&url, &error))
    }

    /// Refuses what can be refused before a name is resolved: addresses, and names that no entry admits.
    ///
    /// # Errors
    /// Authorization, 403.
    pub fn check(&self, url: &Url) -> Result<(), Failure> {
        let verdict = match url.host() {
            Some(Host::Ipv4(address)) => self.policy.admits(&address.to_string(), IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => self.policy.admits(&address.to_string(), IpAddr::V6(address)),
            Some(Host::Domain(_)) => Ok(()),
            None => {
                let detail = format!("'{}' names no host", without_credentials(url));
                return Err(Failure::new(Kind::Validation, 400, detail));
            }
        };
        verdict.map_err(|refused| refusal(&refused))
    }

    /// A TCP connection to `host`, which is a name or an address, for protocols other than HTTP.
    ///
    /// # Errors
    /// The address is not allowed (authorization, 403), or nothing listens there (communication, 503).
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        let unreached = |error: &dyn std::fmt::Display| {
            Failure::new(
                Kind::Communication,
                503,
                format!("'{host}:{port}' cannot be reached: {error}"),
            )
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = resolve(&self.policy, bare, port)
            .await
            .map_err(|error| match error {
                Unresolved::Refused(refused) => refusal(&refused),
                Unresolved::Unknown(error) => unreached(&error),
            })?;
        let connecting = TcpStream::connect(found.as_slice());
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(unreached(&error)),
            Err(_) => Err(unreached(&"no answer in time")),
        }
    }

    /// How TLS is spoken: whom servers are certified by. Protocols to negotiate are the caller's to add.
    #[must_use]
    pub fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }
}

/// TLS with servers that Mozilla's authorities certify, or those in this file.
pub(crate) fn tls(certificate_authorities: Option<&Path>) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = certificate_authorities {
        let wrong = |what: String| Error::Authorities {
            path: path.display().to_string(),
            what,
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Client(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Resolves the names of HTTP requests to what may be connected to.
struct Resolver(Arc<Policy>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.0);
        Box::pin(async move {
            match resolve(&policy, name.as_str(), 0).await {
                Ok(found) => Ok(Box::new(found.into_iter()) as Addrs),
                Err(Unresolved::Refused(refused)) => Err(refused.into()),
                Err(Unresolved::Unknown(error)) => Err(error.into()),
            }
        })
    }
}

enum Unresolved {
    Refused(Refused),
    Unknown(std::io::Error),
}

/// The addresses of `host` that may be connected to, at least one.
async fn resolve(policy: &Policy, host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(Unresolved::Unknown)?;
    let mut refused = None;
    let mut admitted = Vec::new();
    for address in found {
        match policy.admits(host, address.ip()) {
            Ok(()) => admitted.push(address),
            Err(why) => refused = Some(why),
        }
    }
    match (admitted.is_empty(), refused) {
        (false, _) => Ok(admitted),
        (true, Some(refused)) => Err(Unresolved::Refused(refused)),
        (true, None) => Err(Unresolved::Unknown(std::io::Error::other(
            "the name has no address",
        ))),
    }
}

fn refusal(refused: &Refused) -> Failure {
    Failure::new(Kind::Authorization, 403, refused.to_string())
}

fn failed(url: &Url, error: &reqwest::Error) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return refusal(refused);
        }
        source = current.source();
    }
    let status = if error.is_connect() { 503 } else { 502 };
    let kind = if error.is_timeout() {
        return Failure::new(
            Kind::Timeout,
            408,
            format!("'{}' did not answer in time", without_credentials(url)),
        );
    } else {
        Kind::Communication
    };
    let what = described(error);
    Failure::new(
        kind,
        status,
        format!("'{}' cannot be reached: {what}", without_credentials(url)),
    )
}

/// The innermost cause, which is what people need; the outer ones repeat the address.
pub(crate) fn described(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// An address for people: without what may be secret in it.
pub(crate) fn without_credentials(url: &Url) -> String {
    let mut shown = url.clone();
    // Fails for addresses that cannot have any.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}

#[cfg(test)]
mod tests;

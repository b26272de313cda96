//! Connections to the world: the one way to reach an address that a caller named, and not the operator.
//!
//! A workflow's document comes from whoever may write one, an address for push notifications from whoever may send a message,
//! and we stand where those do not: beside the metadata service of a cloud, inside a cluster, on a laptop's loopback.
//! Therefore everything that follows such an address connects through [`Outbound`], and nothing else does:
//!
//! - HTTP: [`Outbound::send`], a pooled client without redirects, cookies or proxies;
//! - other protocols (gRPC, brokers, sinks): [`Outbound::connect`] for the TCP connection and [`Outbound::tls`] for
//!   what is spoken over it.
//!
//! Both ask [`Policy`] about the *address that is connected to*, after the name was resolved and in the same
//! step: a name that resolves to something else a moment later ("DNS rebinding") gains nothing, because what was checked
//! is what is used. Environment proxies are ignored for the same reason: a proxy resolves names by itself.
//!
//! The other services and the store are the operator's to name; they are not reached this way.

mod certificate;
mod policy;

use std::fmt;
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

pub use certificate::{Certificate, Present};
pub use policy::{Policy, Refused};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept for the next call.
const IDLE: Duration = Duration::from_secs(60);

/// Section `outbound` of a service.
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
    /// An entry of the list is not one: the setting, and what is wrong.
    #[error("{0}: {1}")]
    Rule(&'static str, String),
    /// The file of certificate authorities.
    #[error("outbound.certificate_authorities: {path}: {what}")]
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

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The address names no host.
    #[error("'{0}' names no host")]
    NoHost(String),
    /// The operator does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nothing answers there.
    #[error("'{place}' cannot be reached: {what}")]
    Unreachable {
        /// Where.
        place: String,
        /// The innermost cause.
        what: String,
    },
    /// The connection came about and broke.
    #[error("'{place}' cannot be reached: {what}")]
    Broken {
        /// Where.
        place: String,
        /// The innermost cause.
        what: String,
    },
    /// No answer in time.
    #[error("'{0}' did not answer in time")]
    TimedOut(String),
}

/// Connects to what a caller names, as far as the operator allows. Clones share the connections.
#[derive(Clone)]
pub struct Outbound {
    policy: Arc<Policy>,
    client: reqwest::Client,
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outbound")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Outbound {
    /// Connections under this configuration, whose list is set as `setting`, which refusals name.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(config: &Config, setting: &'static str) -> Result<Self, Error> {
        let policy = Policy::new(&config.allow, setting).map_err(|what| Error::Rule(setting, what))?;
        let policy = Arc::new(policy);
        let tls = tls(config.certificate_authorities.as_deref())?;
        Self::with(policy, tls)
    }

    /// The same with connections of its own, on which a server that asks for a certificate is shown what there is then.
    ///
    /// # Errors
    /// The client could not be made.
    pub fn presenting(&self, present: Arc<dyn Present>) -> Result<Self, Error> {
        Self::with(
            Arc::clone(&self.policy),
            certificate::presenting(&self.tls, present),
        )
    }

    fn with(policy: Arc<Policy>, tls: ClientConfig) -> Result<Self, Error> {
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
    /// The address is not allowed, or nothing answers.
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
    /// The address is not allowed, or names no host.
    pub fn check(&self, url: &Url) -> Result<(), Failure> {
        let verdict = match url.host() {
            Some(Host::Ipv4(address)) => self.policy.admits(&address.to_string(), IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => self.policy.admits(&address.to_string(), IpAddr::V6(address)),
            Some(Host::Domain(_)) => Ok(()),
            None => return Err(Failure::NoHost(without_credentials(url))),
        };
        verdict.map_err(Failure::from)
    }

    /// A TCP connection to `host`, which is a name or an address, for protocols other than HTTP.
    ///
    /// # Errors
    /// The address is not allowed, or nothing listens there.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        let unreached = |error: &dyn std::fmt::Display| Failure::Unreachable {
            place: format!("{host}:{port}"),
            what: error.to_string(),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = resolve(&self.policy, bare, port)
            .await
            .map_err(|error| match error {
                Unresolved::Refused(refused) => refused.into(),
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
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn tls(certificate_authorities: Option<&Path>) -> Result<ClientConfig, Error> {
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
    admitted(policy, host, found)
}

/// Of what a name leads to, what may be connected to: these addresses, and not the name, are what a connection is made to.
fn admitted(
    policy: &Policy,
    host: &str,
    found: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, Unresolved> {
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

fn failed(url: &Url, error: &reqwest::Error) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return refused.clone().into();
        }
        source = current.source();
    }
    let place = without_credentials(url);
    let what = described(error);
    if error.is_connect() {
        Failure::Unreachable { place, what }
    } else if error.is_timeout() {
        Failure::TimedOut(place)
    } else {
        Failure::Broken { place, what }
    }
}

/// The innermost cause, which is what people need; the outer ones repeat the address.
#[must_use]
pub fn described(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// An address for people: without what may be secret in it.
#[must_use]
pub fn without_credentials(url: &Url) -> String {
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

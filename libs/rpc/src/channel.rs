//! Connections: one lazy HTTP/2 channel per endpoint, with bounds on what a silent peer may cost.
//!
//! A channel connects at its first call and again after a loss, so that services may start in any order. Two
//! kinds of peer need two settings: our own services answer HTTP/2 pings at any rate, while gRPC servers of other
//! languages close a connection that is pinged more often than every five minutes (`too_many_pings`). Agents
//! may be written in any language, so connections to them rely on TCP and ping rarely.
//!
//! TCP itself finds out about a peer that is silent because the network drops everything: probes where nothing is under way
//! in either direction ([`Config::tcp_keepalive`]), and a bound on how long what was sent may stay unacknowledged
//! ([`Config::tcp_silence`]), because probes pause while something is unacknowledged and the kernel alone would repeat it for a
//! quarter of an hour. Rejected: shorter pings to agents, which servers of other languages answer with `too_many_pings`.

mod connector;
pub mod security;

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use tonic::transport::Channel;

use crate::direct;
use crate::endpoint::Endpoint;
use crate::gather;

pub use connector::{Connector, Stream};
pub use security::{Handshake, Security};

/// How connections are opened and watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long to wait for a TCP connection.
    pub connect_timeout: Duration,
    /// Idle time after which TCP probes the peer, and the pause between probes.
    pub tcp_keepalive: Duration,
    /// How long a peer may leave what was sent to it, probes too, without any acknowledgement before the connection is given up.
    /// Where the operating system has no such bound (it is Linux's `TCP_USER_TIMEOUT`), three probes are the bound on an idle
    /// connection, and there is none on a busy one.
    pub tcp_silence: Duration,
    /// How often to ping over HTTP/2.
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered before the connection is given up.
    pub ping_timeout: Duration,
    /// Whether to ping while no call is open.
    pub ping_while_idle: bool,
}

impl Config {
    /// For our own services: a dead peer is noticed in seconds, even on an idle watch.
    #[must_use]
    pub const fn own_service() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            tcp_keepalive: Duration::from_secs(10),
            tcp_silence: Duration::from_secs(30),
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(5),
            ping_while_idle: true,
        }
    }

    /// For agents, which may run on any gRPC library.
    #[must_use]
    pub const fn agent() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            tcp_keepalive: Duration::from_secs(10),
            tcp_silence: Duration::from_secs(30),
            ping_interval: Duration::from_secs(310),
            ping_timeout: Duration::from_secs(10),
            ping_while_idle: false,
        }
    }
}

/// Probes that may go unanswered before TCP gives the connection up.
const TCP_PROBES: u32 = 3;

/// A channel to one of our own services. It connects at the first call; must be called within a tokio runtime.
#[must_use]
pub fn connect_lazy(endpoint: &Endpoint) -> Channel {
    connect_lazy_with(endpoint, &Config::own_service())
}

/// The same with one of our own services whose connections are secured like this.
#[must_use]
pub fn connect_lazy_secured(endpoint: &Endpoint, security: &Security) -> Channel {
    channel(endpoint, &Config::own_service(), security)
}

/// A channel with these settings; see [`connect_lazy`].
#[must_use]
pub fn connect_lazy_with(endpoint: &Endpoint, config: &Config) -> Channel {
    channel(endpoint, config, &Security::by_scheme())
}

fn channel(endpoint: &Endpoint, config: &Config, security: &Security) -> Channel {
    tonic::transport::Endpoint::from_shared(endpoint.to_string())
        .expect("a parsed endpoint is a URI")
        .http2_keep_alive_interval(config.ping_interval)
        .keep_alive_timeout(config.ping_timeout)
        .keep_alive_while_idle(config.ping_while_idle)
        .executor(gather::Executor)
        .connect_with_connector_lazy(connector(config, security))
}

/// A way to one endpoint whose calls go straight to its connection. A [`Channel`] hands each call to a task of its own first, which
/// costs a change of tasks for every call; that counts where little else is done.
pub type Direct = direct::Direct<Connector>;

/// A direct way with these settings.
#[must_use]
pub fn direct(config: &Config, security: &Security) -> Direct {
    let watch = direct::Watch {
        interval: config.ping_interval,
        timeout: config.ping_timeout,
        while_idle: config.ping_while_idle,
    };
    Direct::new(connector(config, security), watch)
}

/// TCP by tonic's own connector, with the one setting that tonic does not pass on.
fn connector(config: &Config, security: &Security) -> Connector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(config.connect_timeout));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(config.tcp_keepalive));
    connector.set_keepalive_interval(Some(config.tcp_keepalive));
    connector.set_keepalive_retries(Some(TCP_PROBES));
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    connector.set_tcp_user_timeout(Some(config.tcp_silence));
    Connector::new(connector, security.clone(), config.connect_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint;

    #[tokio::test]
    async fn opening_waits_for_nothing_and_needs_no_peer() {
        let nobody = endpoint::parse("http://127.0.0.1:1").expect("well formed");
        let _channel = connect_lazy(&nobody);
        let _channel = connect_lazy_with(&nobody, &Config::agent());
        let _channel = connect_lazy_secured(&nobody, &Security::by_scheme());
        assert!(!Security::by_scheme().applies_to(&nobody));
        let secured = endpoint::parse("https://127.0.0.1:1").expect("well formed");
        assert!(Security::by_scheme().applies_to(&secured));
    }
}

//! The three ports of a service, bound before any heavy work.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use crate::{Error, server};

/// A service's bound ports.
#[derive(Debug)]
pub struct Listeners {
    data: Bound,
    health: Bound,
    metrics: Bound,
}

#[derive(Debug)]
struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listeners {
    /// Binds the ports of the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] names the key and the address.
    pub fn bind(config: &server::Config) -> Result<Self, Error> {
        Ok(Self {
            data: Bound::new("data_port", config.host, config.data_port)?,
            health: Bound::new("health_port", config.host, config.health_port)?,
            metrics: Bound::new("metrics_port", config.host, config.metrics_port)?,
        })
    }

    /// Binds free ports on loopback.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] when the system has none.
    pub fn ephemeral() -> Result<Self, Error> {
        let mut config = server::Config::on_ports(0, 0, 0);
        config.host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self::bind(&config)
    }

    /// Where gRPC and HTTP answer.
    #[must_use]
    pub fn data_address(&self) -> SocketAddr {
        self.data.address
    }

    /// Where `/health`, `/ready` and `/startup` answer.
    #[must_use]
    pub fn health_address(&self) -> SocketAddr {
        self.health.address
    }

    /// Where `/metrics` answers.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics.address
    }

    /// The same ports once more. Who connects while nobody accepts waits for whoever accepts next.
    pub(crate) fn again(&self) -> Result<Self, Error> {
        let again = |bound: &Bound| {
            let listener = bound.listener.try_clone();
            let listener = listener.map_err(|error| Error::Serve(format!("{}: {error}", bound.address)))?;
            Ok(Bound { listener, ..*bound })
        };
        Ok(Self {
            data: again(&self.data)?,
            health: again(&self.health)?,
            metrics: again(&self.metrics)?,
        })
    }

    pub(crate) fn into_tokio(self) -> Result<[tokio::net::TcpListener; 3], Error> {
        let convert = |bound: Bound| {
            tokio::net::TcpListener::from_std(bound.listener)
                .map_err(|error| Error::Serve(format!("{}: {error}", bound.address)))
        };
        Ok([convert(self.data)?, convert(self.health)?, convert(self.metrics)?])
    }
}

impl Bound {
    fn new(key: &'static str, host: IpAddr, port: u16) -> Result<Self, Error> {
        let address = SocketAddr::new(host, port);
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind().map_err(|source| Error::Bind { key, address, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_key() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Listeners::bind(&server::Config::on_ports(0, port, 0)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("server.health_port") && text.contains(&port.to_string()),
            "{text}"
        );
        assert!(!text.contains('\n'));
        assert_eq!(error.exit_code(), 2);
    }
}

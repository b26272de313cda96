//! Whether somebody listens at an endpoint: a TCP connection, opened and closed.
//!
//! An agent that registers an address nobody can reach (a wrong host, a container's own loopback) would be chosen
//! for work and fail every time. Asking once, at registration, names the mistake to the one who made it. It is no
//! health check: agents bind their port before they register, and later failures are the router's breaker's part.

use std::time::Duration;

use muster_rpc::endpoint::Endpoint;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::instance;

/// How long a connection may take to open.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How many connections are being opened at a time.
const CONCURRENT: usize = 64;

/// Opens a bounded number of connections at a time.
#[derive(Debug)]
pub struct Probe {
    slots: Semaphore,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            slots: Semaphore::new(CONCURRENT),
        }
    }
}

impl Probe {
    /// Refuses an endpoint at which nobody listens.
    pub async fn check(&self, endpoint: &Endpoint) -> Result<(), instance::Error> {
        let unreachable = |why: &str| {
            instance::Error::new(
                "instance.endpoint",
                format!(
                    "nobody answers at {endpoint} ({why}); listen before registering and give an address that the \
                     registry reaches, or set `registry.probe_endpoints = false`"
                ),
            )
        };
        // Waiting for a slot counts as waiting for the connection, so a flood of bad endpoints bounds itself.
        let attempt = async {
            let _slot = self.slots.acquire().await;
            TcpStream::connect((endpoint.host().trim_matches(['[', ']']), endpoint.port())).await
        };
        match tokio::time::timeout(TIMEOUT, attempt).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(unreachable(&error.to_string())),
            Err(_) => Err(unreachable(&format!(
                "no connection within {} s",
                TIMEOUT.as_secs()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_is_told_from_none() {
        for host in ["127.0.0.1", "[::1]"] {
            let Ok(listener) = tokio::net::TcpListener::bind(format!("{host}:0")).await else {
                continue; // A machine without IPv6.
            };
            let address = listener.local_addr().unwrap();
            let endpoint: Endpoint = format!("http://{address}").parse().unwrap();
            assert_eq!(Probe::default().check(&endpoint).await, Ok(()));
            drop(listener);
            let refused = Probe::default().check(&endpoint).await.unwrap_err();
            assert_eq!(refused.field, "instance.endpoint");
            assert!(refused.message.contains("probe_endpoints"), "{refused}");
        }
    }
}

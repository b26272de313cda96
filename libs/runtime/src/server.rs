//! The section `server`: where a service listens and how much it takes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Mistakes;

/// More threads than any machine has processors for.
const MOST_WORKERS: usize = 1_024;

/// Ports and bounds of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on.
    pub host: IpAddr,
    /// gRPC and HTTP.
    pub data_port: u16,
    /// `/health`, `/ready`, `/startup`.
    pub health_port: u16,
    /// `/metrics`.
    pub metrics_port: u16,
    /// Largest message in bytes. A plain HTTP body may have twice as many, because JSON with Base64 and escapes is
    /// longer than the message that it says; the chassis sees to that. What a gRPC service takes is its own matter:
    /// each sets this with `max_decoding_message_size`, because tonic bounds messages where it decodes them.
    pub max_message_bytes: usize,
    /// How long everything may take to finish after a shutdown was asked for: drain hooks, requests in flight and
    /// essential tasks together.
    pub drain_timeout_seconds: u64,
    /// Open connections on the data port; more wait to be accepted.
    pub max_connections: usize,
    /// Threads that serve the data port's connections, each its own share of them; 0: those of the whole process serve all. See
    /// [`crate::workers`].
    pub workers: usize,
    /// Streams that one HTTP/2 connection may have open.
    pub max_concurrent_streams: u32,
    /// Bytes of headers that one request may have.
    pub max_header_bytes: u32,
    /// How long a new connection may take to say which HTTP it speaks, and a request of HTTP/1 for its head.
    pub head_timeout_seconds: u64,
    /// How long the body of a request may take to come in, gRPC and plain HTTP alike: who sends a byte now and then holds
    /// memory and a place.
    pub body_timeout_seconds: u64,
    /// How long a connection may have no request under way; then it is closed, after twice the time at most. One of HTTP/1 waits
    /// for its next request no longer than for a head.
    pub idle_timeout_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            data_port: 50051,
            health_port: 8080,
            metrics_port: 9090,
            max_message_bytes: 4 << 20,
            drain_timeout_seconds: 20,
            max_connections: 10_000,
            workers: 0,
            max_concurrent_streams: 1_000,
            max_header_bytes: 16 << 10,
            head_timeout_seconds: 30,
            body_timeout_seconds: 60,
            idle_timeout_seconds: 900,
        }
    }
}

impl Config {
    /// The defaults on these ports.
    #[must_use]
    pub fn on_ports(data: u16, health: u16, metrics: u16) -> Self {
        Self {
            data_port: data,
            health_port: health,
            metrics_port: metrics,
            ..Self::default()
        }
    }

    /// How many bytes the body of a plain HTTP request may have.
    #[must_use]
    pub fn max_body_bytes(&self) -> usize {
        self.max_message_bytes.saturating_mul(2)
    }

    /// How long everything may take to finish.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }

    /// How long a request may take to begin.
    #[must_use]
    pub fn head_timeout(&self) -> Duration {
        Duration::from_secs(self.head_timeout_seconds)
    }

    /// How long a request's body may take to come in.
    #[must_use]
    pub fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout_seconds)
    }

    /// How long a connection may have nothing to do.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds)
    }

    /// Adds what is wrong.
    pub fn validate(&self, mistakes: &mut Mistakes) {
        let ports = [
            ("data_port", self.data_port),
            ("health_port", self.health_port),
            ("metrics_port", self.metrics_port),
        ];
        for (index, (key, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..index]
                .iter()
                .find(|(_, taken)| taken == port && *port != 0)
            {
                mistakes.add(
                    format!("server.{key}"),
                    format!("{port} is also server.{other}; every port is its own"),
                );
            }
        }
        if !(1 << 10..=1 << 30).contains(&self.max_message_bytes) {
            mistakes.add(
                "server.max_message_bytes",
                "must be from 1024 (1 KiB) to 1073741824 (1 GiB)",
            );
        }
        if !(1 << 10..=1 << 20).contains(&self.max_header_bytes) {
            mistakes.add(
                "server.max_header_bytes",
                "must be from 1024 (1 KiB) to 1048576 (1 MiB)",
            );
        }
        if self.drain_timeout_seconds > 3_600 {
            mistakes.add("server.drain_timeout_seconds", "must be at most 3600");
        }
        for (key, seconds) in [
            ("head_timeout_seconds", self.head_timeout_seconds),
            ("body_timeout_seconds", self.body_timeout_seconds),
        ] {
            if !(1..=3_600).contains(&seconds) {
                mistakes.add(format!("server.{key}"), "must be from 1 to 3600 seconds");
            }
        }
        if !(1..=86_400).contains(&self.idle_timeout_seconds) {
            mistakes.add("server.idle_timeout_seconds", "must be from 1 to 86400 seconds");
        }
        if self.max_connections == 0 {
            mistakes.add("server.max_connections", "must be at least 1");
        }
        if self.workers > MOST_WORKERS {
            mistakes.add("server.workers", format!("must be at most {MOST_WORKERS}"));
        }
        if self.max_concurrent_streams == 0 {
            mistakes.add("server.max_concurrent_streams", "must be at least 1");
        }
    }
}

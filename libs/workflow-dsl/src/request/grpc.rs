//! What a call of a gRPC service asks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Authentication, Resource};

/// A method of a gRPC service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grpc {
    /// The service's contract; without it the server is asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Resource>,
    /// Full name of the service.
    pub service: String,
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether TLS is spoken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// How to authenticate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// Name of the method.
    pub method: String,
    /// Its arguments, as ProtoJSON.
    pub arguments: Arc<Value>,
}

impl Grpc {
    /// Who is called, for people.
    #[must_use]
    pub fn target(&self) -> String {
        let scheme = if self.tls { "grpcs" } else { "grpc" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Port of TLS, where a document names none.
    const PORT: u16 = 443;

    /// Reads `host` and `port` as documents write them: the host may have `grpc://` or `grpcs://` before it; where it
    /// has not, TLS is spoken on port 443, which is also the port where none is named.
    ///
    /// # Errors
    /// What a host is.
    pub fn place(host: &str, port: Option<u16>) -> Result<(String, u16, bool), String> {
        let (bare, tls) = match host.split_once("://") {
            Some(("grpc", bare)) => (bare, Some(false)),
            Some(("grpcs", bare)) => (bare, Some(true)),
            Some(_) => return Err(format!("'{host}' has a scheme other than grpc:// and grpcs://")),
            None => (host, None),
        };
        let port = port.unwrap_or(Self::PORT);
        let in_brackets = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let fits = match in_brackets {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
                (1..=253).contains(&bare.len()) && bare.bytes().all(allowed)
            }
        };
        if !fits {
            return Err(format!(
                "'{host}' is not a host; it is a name or an address without port and path, such as 'api.example.com'"
            ));
        }
        Ok((bare.to_owned(), port, tls.unwrap_or(port == Self::PORT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_a_port_and_whether_tls_is_spoken() {
        let place = |host: &str, port| Grpc::place(host, port).unwrap();
        assert_eq!(place("api.test", None), ("api.test".into(), 443, true));
        assert_eq!(place("api.test", Some(5011)), ("api.test".into(), 5011, false));
        assert_eq!(
            place("grpcs://api.test", Some(5011)),
            ("api.test".into(), 5011, true)
        );
        assert_eq!(
            place("grpc://10.0.0.1", Some(443)),
            ("10.0.0.1".into(), 443, false)
        );
        assert_eq!(place("[::1]", Some(1)), ("[::1]".into(), 1, false));
        for host in ["", "a/b", "a:1", "http://a", "a b", "[x]", "user@a"] {
            assert!(Grpc::place(host, None).is_err(), "{host}");
        }
    }
}

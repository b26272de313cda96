//! Addresses of services: `http://HOST:PORT`, or `https://HOST:PORT` where TLS is spoken, parsed once and then known to be good.
//!
//! The form is narrow on purpose. A path would be ignored by gRPC, a missing port would silently mean 80, and
//! credentials in an address end up in logs; each of these is refused with the reason.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::Authority;

/// Why an address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was given.
    #[error("is empty; expected http://HOST:PORT, such as http://127.0.0.1:7401")]
    Empty,
    /// It is no URI at all.
    #[error("'{text}' is not a URI ({detail}); expected http://HOST:PORT, such as http://127.0.0.1:7401")]
    Malformed {
        /// What was given.
        text: String,
        /// What the parser said.
        detail: String,
    },
    /// It begins with something other than `http://` and `https://`.
    #[error("'{text}' does not begin with http:// or https://; expected http://HOST:PORT")]
    Scheme {
        /// What was given.
        text: String,
    },
    /// It names no port.
    #[error("'{text}' names no port from 1 to 65535; expected http://HOST:PORT")]
    Port {
        /// What was given.
        text: String,
    },
    /// It carries a user name or password.
    #[error("the address of host '{host}' carries credentials; remove everything before the '@'")]
    Credentials {
        /// The host alone, so that the message does not repeat the secret.
        host: String,
    },
    /// It has a path or a query.
    #[error("'{text}' has a path or query, which gRPC does not use; expected http://HOST:PORT")]
    Path {
        /// What was given.
        text: String,
    },
}

/// The address of a service, known to be `http://HOST:PORT` or `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    authority: Authority,
    port: u16,
    is_tls: bool,
}

impl Endpoint {
    /// Host name or address, in brackets where it is IPv6.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS is spoken there.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// What calls to it are addressed to.
    ///
    /// # Panics
    /// Never: its parts are those of a URI.
    #[must_use]
    pub fn uri(&self) -> Uri {
        Uri::builder()
            .scheme(self.scheme())
            .authority(self.authority.clone())
            .path_and_query("/")
            .build()
            .expect("a scheme, an authority and a path are a URI")
    }

    /// `HOST:PORT`, the form in which agent cards name gRPC interfaces.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme(), self.authority)
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text)
    }
}

/// Reads `http://HOST:PORT` or `https://HOST:PORT`; one slash at the end is tolerated.
///
/// # Errors
/// Says what is wrong with the text and what is expected.
pub fn parse(text: &str) -> Result<Endpoint, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::Empty);
    }
    let owned = || text.to_owned();
    let uri: Uri = text
        .parse()
        .map_err(|error: http::uri::InvalidUri| Error::Malformed {
            text: redacted(text),
            detail: error.to_string(),
        })?;
    let (is_tls, authority) = match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) => (false, authority.clone()),
        (Some("https"), Some(authority)) => (true, authority.clone()),
        _ => return Err(Error::Scheme { text: redacted(text) }),
    };
    if authority.as_str().contains('@') {
        return Err(Error::Credentials {
            host: authority.host().to_owned(),
        });
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(Error::Path { text: owned() });
    }
    match authority.port_u16() {
        Some(port) if port != 0 && !authority.host().is_empty() => Ok(Endpoint {
            authority,
            port,
            is_tls,
        }),
        _ => Err(Error::Port { text: owned() }),
    }
}

/// The text without what stands before an `@`, because that may be a password.
fn redacted(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_addresses_are_read() {
        for (text, host, port) in [
            ("http://127.0.0.1:7401", "127.0.0.1", 7401),
            ("http://registry.agents.svc:50051/", "registry.agents.svc", 50051),
            ("http://[::1]:7402", "[::1]", 7402),
            ("  http://localhost:1 ", "localhost", 1),
        ] {
            let endpoint = parse(text).expect(text);
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
            assert_eq!(parse(&endpoint.to_string()), Ok(endpoint));
        }
    }

    #[test]
    fn each_defect_has_its_own_message() {
        assert_eq!(parse(" "), Err(Error::Empty));
        for scheme in ["localhost:7401", "ftp://localhost:7401", "grpc://a:1", "/path"] {
            assert!(matches!(parse(scheme), Err(Error::Scheme { .. })), "{scheme}");
        }
        for port in [
            "http://localhost",
            "https://localhost",
            "http://localhost:0",
            "http://:7401",
        ] {
            let refused = parse(port);
            assert!(
                matches!(refused, Err(Error::Port { .. } | Error::Malformed { .. })),
                "{port}: {refused:?}"
            );
        }
        for path in ["http://localhost:1/api", "http://localhost:1/?a=b"] {
            assert!(matches!(parse(path), Err(Error::Path { .. })), "{path}");
        }
        assert!(matches!(parse("http://a b:1"), Err(Error::Malformed { .. })));
    }

    #[test]
    fn a_password_is_never_repeated() {
        for text in [
            "http://user:secret@host:1",
            "https://user:secret@host:1",
            "http://user:sec ret@host:1",
        ] {
            let message = parse(text).expect_err(text).to_string();
            assert!(!message.contains("sec"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer_and_what_is_accepted_survives_printing(text in ".{0,60}") {
            if let Ok(endpoint) = parse(&text) {
                prop_assert_eq!(parse(&endpoint.to_string()), Ok(endpoint));
            }
        }

        #[test]
        fn every_host_and_port_is_accepted(host in "[a-z][a-z0-9]{0,20}(\\.[a-z][a-z0-9]{0,10}){0,2}", port in 1u16..) {
            for scheme in ["http", "https"] {
                let endpoint = parse(&format!("{scheme}://{host}:{port}")).expect("well formed");
                prop_assert_eq!(endpoint.authority(), format!("{host}:{port}"));
                prop_assert_eq!(endpoint.scheme(), scheme);
            }
        }
    }
}

//! Where Redis is: one URL for each of its three forms.
//!
//! | form | URL |
//! |---|---|
//! | standalone | `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]` |
//! | Sentinel | `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/PRIMARY[/DATABASE]` |
//! | Cluster | `redis+cluster://[USER:PASSWORD@]HOST[:PORT],…` |
//!
//! `rediss` in place of `redis` means TLS. User and password are percent-encoded and are those of Redis itself, Sentinels are
//! asked without; ports default to 6379, those of Sentinels to 26379. The first is the registered scheme, the second the spelling of the libraries that
//! know Sentinel URLs; the third follows it, since there is none.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use rand::RngExt as _;
use redis::{
    ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo, RedisResult,
    TlsCertificates,
};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is, and in which form.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) mode: Mode,
    pub(super) nodes: Vec<(String, u16)>,
    pub(super) tls: bool,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
    /// In PEM; Mozilla's where there are none.
    pub(super) authorities: Option<Vec<u8>>,
}

/// The forms of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Standalone,
    Sentinel { primary: String },
    Cluster,
}

/// A text that is no address of Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}; write redis://HOST:PORT, redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY or redis+cluster://HOST:PORT,HOST:PORT, with rediss for TLS and USER:PASSWORD@ before the hosts"
)]
pub struct InvalidAddress {
    what: String,
}

fn invalid(what: impl Into<String>) -> InvalidAddress {
    InvalidAddress { what: what.into() }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("is no URL"))?;
        let (tls, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", kind) => (false, kind),
            ("rediss", kind) => (true, kind),
            _ => return Err(invalid(format!("scheme '{scheme}' is not one of Redis"))),
        };
        if rest.contains(['?', '#']) {
            return Err(invalid("has a query or a fragment, which is not understood"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let (username, password) = user.map_or(Ok((None, None)), credentials)?;
        let mut path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (mode, port) = match kind {
            "" => (Mode::Standalone, PORT),
            "sentinel" => {
                if path.is_empty() {
                    return Err(invalid("does not name the primary that the Sentinels watch"));
                }
                let primary = decoded(path.remove(0), "the name of the primary")?;
                (Mode::Sentinel { primary }, SENTINEL_PORT)
            }
            "cluster" => (Mode::Cluster, PORT),
            _ => return Err(invalid(format!("scheme '{scheme}' is not one of Redis"))),
        };
        let nodes = hosts
            .split(',')
            .zip(1..)
            .map(|(host, number)| node(host, port, number))
            .collect::<Result<Vec<_>, _>>()?;
        if mode == Mode::Standalone && nodes.len() > 1 {
            return Err(invalid("names several hosts for a standalone Redis"));
        }
        let database = match path.as_slice() {
            [] => 0,
            [database] if mode != Mode::Cluster => database
                .parse()
                .ok()
                .filter(|number| (0..=i64::from(u16::MAX)).contains(number))
                .ok_or_else(|| invalid("names a database that is no number"))?,
            [_] => return Err(invalid("names a database, and a Cluster has one only")),
            _ => return Err(invalid("has a path of too many parts")),
        };
        Ok(Self {
            mode,
            nodes,
            tls,
            username,
            password,
            database,
            authorities: None,
        })
    }
}

fn credentials(text: &str) -> Result<(Option<String>, Option<String>), InvalidAddress> {
    let (username, password) = match text.split_once(':') {
        Some((username, password)) => (username, Some(password)),
        None => (text, None),
    };
    let username = decoded(username, "the user")?;
    let password = password
        .map(|password| decoded(password, "the password"))
        .transpose()?;
    if password.is_none() {
        return Err(invalid("has a user without a password"));
    }
    Ok((Some(username).filter(|name| !name.is_empty()), password))
}

fn decoded(text: &str, what: &str) -> Result<String, InvalidAddress> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into)
        .map_err(|_| invalid(format!("{what} is not UTF-8 when decoded")))
}

/// Host and port, as the rules of URLs have them. What is wrong is not quoted: it may be a part of a password.
fn node(text: &str, port: u16, number: usize) -> Result<(String, u16), InvalidAddress> {
    let bad = || invalid(format!("names something else than HOST:PORT as host {number}"));
    let url = url::Url::parse(&format!("redis://{text}")).map_err(|_| bad())?;
    let host = match url.host().ok_or_else(bad)? {
        url::Host::Domain(name) if !name.is_empty() => name.to_owned(),
        url::Host::Domain(_) => return Err(bad()),
        url::Host::Ipv4(address) => address.to_string(),
        url::Host::Ipv6(address) => address.to_string(),
    };
    Ok((host, url.port().unwrap_or(port)))
}

impl Address {
    /// The same, whose certificates are of these authorities, in PEM, instead of Mozilla's.
    #[must_use]
    pub fn with_authorities(self, authorities: Vec<u8>) -> Self {
        Self {
            authorities: Some(authorities),
            ..self
        }
    }

    /// Whether it is reached by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// What certificates are checked against, where that is not Mozilla's list.
    pub(super) fn certificates(&self) -> Option<TlsCertificates> {
        let root_cert = self.authorities.clone().filter(|_| self.tls);
        root_cert.map(|authorities| TlsCertificates {
            client_tls: None,
            root_cert: Some(authorities),
        })
    }

    fn at(&self, (host, port): &(String, u16)) -> ConnectionAddr {
        if self.tls {
            ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host.clone(), *port)
        }
    }

    fn info(&self, node: &(String, u16)) -> RedisResult<ConnectionInfo> {
        let mut settings = RedisConnectionInfo::default().set_db(self.database);
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        let info = self.at(node).into_connection_info()?;
        Ok(info.set_redis_settings(settings))
    }

    /// That of a standalone Redis.
    pub(super) fn only_node(&self) -> RedisResult<ConnectionInfo> {
        let none = (ErrorKind::InvalidClientConfig, "no host is named");
        let node = self.nodes.first().ok_or(none)?;
        self.info(node)
    }

    pub(super) fn all_nodes(&self) -> RedisResult<Vec<ConnectionInfo>> {
        self.nodes.iter().map(|node| self.info(node)).collect()
    }

    /// The Sentinels in the order in which they are asked. It begins with another one each time: one that does not answer
    /// costs all the time that there is, and must not do so each time.
    pub(super) fn sentinels(&self) -> Vec<ConnectionAddr> {
        let mut sentinels: Vec<ConnectionAddr> = self.nodes.iter().map(|node| self.at(node)).collect();
        let first = rand::rng().random_range(0..sentinels.len().max(1));
        let length = sentinels.len();
        sentinels.rotate_left(first.min(length));
        sentinels
    }
}

/// Without the password: it is written to logs.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (host, port)) in self.nodes.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
            write!(formatter, "{comma}{open}{host}{close}:{port}")?;
        }
        match &self.mode {
            Mode::Standalone => Ok(()),
            Mode::Sentinel { primary } => write!(formatter, " (Sentinels of '{primary}')"),
            Mode::Cluster => write!(formatter, " (Cluster)"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Address {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_three_forms_are_told_apart() {
        let one = parsed("redis://10.0.0.1/3");
        assert_eq!(
            (one.mode, one.nodes, one.database),
            (Mode::Standalone, vec![("10.0.0.1".into(), 6379)], 3)
        );
        let watched = parsed("rediss+sentinel://a,b:7/main/2");
        assert_eq!(watched.nodes, [("a".into(), 26379), ("b".into(), 7)]);
        assert_eq!(
            watched.mode,
            Mode::Sentinel {
                primary: "main".into()
            }
        );
        assert!(watched.tls && watched.database == 2);
        let cluster = parsed("redis+cluster://u:p%40ss@[::1]:7000,b:7001");
        assert_eq!(cluster.mode, Mode::Cluster);
        assert_eq!(cluster.nodes, [("::1".into(), 7000), ("b".into(), 7001)]);
        assert_eq!(
            (cluster.username.as_deref(), cluster.password.as_deref()),
            (Some("u"), Some("p@ss"))
        );
        assert_eq!(cluster.to_string(), "[::1]:7000,b:7001 (Cluster)");
        assert_eq!(parsed("redis://:secret@h").password.as_deref(), Some("secret"));
    }

    #[test]
    fn everything_else_is_refused_with_the_forms() {
        for text in [
            "",
            "localhost:6379",
            "http://h",
            "redis+tls://h",
            "redis://",
            "redis://h:x",
            "redis://h:99999",
            "redis://a,b",
            "redis://h/x",
            "redis://h/0/1",
            "redis://user@h",
            "redis://h?db=1",
            "redis+sentinel://a",
            "redis+cluster://a/1",
            "redis+cluster://a,,b",
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.to_string().contains("redis+cluster://"), "{text}: {error}");
        }
        let quoted = "redis://u:sec/ret@h"
            .parse::<Address>()
            .expect_err("the '/' is not encoded");
        assert!(!quoted.to_string().contains("sec"), "{quoted}");
        let hidden = format!("{:?}", parsed("redis://u:secret@h"));
        assert!(!hidden.contains("secret"), "{hidden}");
    }
}

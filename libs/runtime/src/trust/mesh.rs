//! Identity in a service mesh: a sidecar ends mutual TLS and says in `x-forwarded-client-cert` whose certificate it has seen.
//!
//! The header is a claim of whoever sends it. It is believed from the addresses of the local proxy alone, and of its elements only
//! the last, which that proxy has appended; the others came with the request. From anywhere else it says nothing. It is taken out
//! of every request, whoever sends it and in whatever mode, so that nothing further in can read it, and nothing can be passed on.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::peer::Peer;
use super::spiffe::SpiffeId;
use crate::config::Mistakes;

/// What proxies say of a client's certificate.
pub const HEADER: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// The section `trust.mesh`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses, or networks of them (`10.0.0.0/8`), from which the local proxy connects.
    pub trusted_proxies: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Loopback, and the address from which Istio's sidecar connects.
            trusted_proxies: ["127.0.0.1", "127.0.0.6", "::1", "::6"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

impl Config {
    /// The networks of the list; adds what is none.
    pub(super) fn networks(&self, mistakes: &mut Mistakes) -> Vec<IpNet> {
        const KEY: &str = "trust.mesh.trusted_proxies";
        let network = |text: &String| {
            let found = text
                .parse::<IpNet>()
                .ok()
                .or_else(|| text.parse::<IpAddr>().map(IpNet::from).ok());
            if found.is_none() {
                let what = format!("'{text}' is neither an address nor a network such as 127.0.0.6/32");
                mistakes.add(KEY, what);
            }
            found
        };
        self.trusted_proxies.iter().filter_map(network).collect()
    }
}

/// Why what a proxy says names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not in the header's form.
    #[error("it is no list of KEY=VALUE pairs: {0}")]
    Form(&'static str),
    /// The last element has no URI.
    #[error("its last element has no URI: the client's certificate names no workload")]
    NoUri,
    /// The last element has several.
    #[error("its last element has several URIs")]
    ManyUris,
    /// The URI is no SPIFFE id of a workload.
    #[error("its URI is no SPIFFE id of a workload")]
    NoSpiffeId,
}

/// What one proxy says: pairs of a key and a value. Keys are compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element<'h> {
    pairs: Vec<(&'h str, Cow<'h, str>)>,
}

impl<'h> Element<'h> {
    /// The values of a key (`By`, `Hash`, `Cert`, `Chain`, `Subject`, `URI`, `DNS`), without their quotes.
    pub fn all<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s str> + use<'s, 'h> {
        self.pairs
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(key))
            .map(|(_, value)| &**value)
    }

    /// The workload that the certificate names: its one URI.
    ///
    /// # Errors
    /// There is none, or more than one, or it is no SPIFFE id.
    pub fn workload(&self) -> Result<SpiffeId, Error> {
        let mut uris = self.all("URI").filter(|uri| !uri.is_empty());
        let uri = uris.next().ok_or(Error::NoUri)?;
        if uris.next().is_some() {
            return Err(Error::ManyUris);
        }
        match SpiffeId::parse(uri) {
            Ok(id) if !id.path().is_empty() => Ok(id),
            _ => Err(Error::NoSpiffeId),
        }
    }
}

/// Reads a header: elements separated by commas, of pairs separated by semicolons. A value that holds one of these or an equals sign
/// stands in double quotes, in which a backslash makes the next letter an ordinary one.
///
/// # Errors
/// It has another form.
pub fn parse(text: &str) -> Result<Vec<Element<'_>>, Error> {
    let mut elements = Vec::new();
    let mut element = Element::default();
    let mut rest = text;
    loop {
        let (key, after) = rest
            .split_once('=')
            .ok_or(Error::Form("a pair has no equals sign"))?;
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::Form("a key is not made of letters"));
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find([',', ';']).unwrap_or(after.len());
                let (value, after) = after.split_at(end);
                let value = value.trim_end();
                if value.contains(['"', '=']) {
                    return Err(Error::Form("a value that has to be in quotes is not"));
                }
                (Cow::Borrowed(value), after)
            }
        };
        element.pairs.push((key, value));
        let after = after.trim_start();
        match after.chars().next() {
            None => {
                elements.push(element);
                return Ok(elements);
            }
            Some(';') => {}
            Some(',') => elements.push(std::mem::take(&mut element)),
            Some(_) => return Err(Error::Form("something follows the end of a quoted value")),
        }
        rest = &after[1..];
    }
}

/// What stands before the closing quote, and what follows it.
fn unquote(text: &str) -> Result<(Cow<'_, str>, &str), Error> {
    let mut value = Cow::Borrowed("");
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => {
                if let Cow::Borrowed(_) = value {
                    value = Cow::Borrowed(&text[..at]);
                }
                return Ok((value, &text[at + 1..]));
            }
            '\\' => {
                let (_, escaped) = letters.next().ok_or(Error::Form("a quote is not closed"))?;
                if let Cow::Borrowed(_) = value {
                    value = Cow::Owned(text[..at].to_owned());
                }
                value.to_mut().push(escaped);
            }
            letter => {
                if let Cow::Owned(value) = &mut value {
                    value.push(letter);
                }
            }
        }
    }
    Err(Error::Form("a quote is not closed"))
}

/// Takes the header out of a request: its lines as one, `None` where there was none. A line that is no text is read as one that is
/// malformed.
pub(crate) fn take(headers: &mut HeaderMap) -> Option<String> {
    let lines: Vec<String> = headers
        .get_all(HEADER)
        .iter()
        .map(|line| HeaderValue::to_str(line).unwrap_or("\u{fffd}").to_owned())
        .collect();
    headers.remove(HEADER);
    (!lines.is_empty()).then(|| lines.join(","))
}

/// Who sends a request through a local proxy at one of these addresses.
///
/// # Errors
/// The proxy says something that names nobody.
pub(crate) fn identify(proxies: &[IpNet], peer: &Peer, header: Option<&str>) -> Result<Peer, Error> {
    let address = peer.address();
    // An IPv4 client of an IPv6 socket.
    let from = address.ip().to_canonical();
    match header {
        Some(header) if proxies.iter().any(|network| network.contains(&from)) => {
            let elements = parse(header)?;
            let last = elements.last().ok_or(Error::NoUri)?;
            Ok(Peer::Workload {
                id: last.workload()?,
                address,
            })
        }
        _ => Ok(Peer::Anonymous { address }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUTER: &str = "spiffe://d/ns/a/sa/router";

    fn last(text: &str) -> Result<String, Error> {
        let elements = parse(text)?;
        elements
            .last()
            .expect("at least one")
            .workload()
            .map(|id| id.to_string())
    }

    #[test]
    fn what_proxies_send_is_read_in_all_its_forms() {
        let envoy = "By=spiffe://d/ns/a/sa/weather;Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688;\
                     Subject=\"/C=US/O=\\\"Muster\\\", Inc/CN=router\";URI=spiffe://d/ns/a/sa/router;DNS=router.a.svc;DNS=router";
        let elements = parse(envoy).unwrap();
        let [element] = elements.as_slice() else {
            panic!("{elements:?}")
        };
        assert_eq!(
            element.all("subject").collect::<Vec<_>>(),
            ["/C=US/O=\"Muster\", Inc/CN=router"]
        );
        assert_eq!(element.all("DNS").collect::<Vec<_>>(), ["router.a.svc", "router"]);
        assert_eq!(element.workload().unwrap().as_str(), ROUTER);

        let appended = format!("By=x;URI=spiffe://d/ns/a/sa/admin , By=y;Subject=\"\";uri={ROUTER}");
        assert_eq!(last(&appended).unwrap(), ROUTER);
        // A comma in quotes begins no element.
        let hidden = format!("URI={ROUTER};Subject=\"x,URI=spiffe://d/evil\"");
        assert_eq!(last(&hidden).unwrap(), ROUTER);
        assert_eq!(last("By=x;Hash=1"), Err(Error::NoUri));
        assert_eq!(last("By=x;URI="), Err(Error::NoUri));
        assert_eq!(last("URI=spiffe://d/a;URI=spiffe://d/b"), Err(Error::ManyUris));
        assert_eq!(last("URI=spiffe://d"), Err(Error::NoSpiffeId));
        assert_eq!(last("URI=https://d/a"), Err(Error::NoSpiffeId));
        for wrong in [
            "",
            ",",
            "URI",
            "=x",
            "a b=x",
            "URI=\"x",
            "URI=\"x\"y",
            "URI=a=b",
            "By=x;",
            "By=x,",
            "By=\"\\",
        ] {
            assert!(matches!(parse(wrong), Err(Error::Form(_))), "{wrong}");
        }
    }

    #[test]
    fn only_the_local_proxy_is_believed_and_the_header_goes_in_any_case() {
        let mut mistakes = Mistakes::default();
        let config = Config {
            trusted_proxies: vec![
                "127.0.0.6".to_owned(),
                "10.1.0.0/16".to_owned(),
                "proxy".to_owned(),
            ],
        };
        let proxies = config.networks(&mut mistakes);
        assert_eq!(mistakes.iter().count(), 1);
        let header = format!("URI={ROUTER}");
        let who = |address: &str| {
            let peer = Peer::Anonymous {
                address: address.parse().unwrap(),
            };
            identify(&proxies, &peer, Some(&header)).unwrap()
        };
        for near in ["127.0.0.6:1", "[::ffff:127.0.0.6]:1", "10.1.2.3:1"] {
            assert_eq!(who(near).id().unwrap().as_str(), ROUTER, "{near}");
        }
        for far in ["127.0.0.1:1", "10.2.0.1:1", "[::1]:1"] {
            assert_eq!(who(far).id(), None, "{far}");
        }
        let near = Peer::Anonymous {
            address: "127.0.0.6:1".parse().unwrap(),
        };
        assert_eq!(identify(&proxies, &near, None).unwrap().id(), None);
        assert!(identify(&proxies, &near, Some("x")).is_err());

        let mut headers = HeaderMap::new();
        headers.append(HEADER, HeaderValue::from_static("URI=spiffe://d/forged"));
        headers.append(HEADER, HeaderValue::from_str(&header).unwrap());
        let taken = take(&mut headers).unwrap();
        assert_eq!(
            last(&taken).unwrap(),
            ROUTER,
            "the later line is the later element"
        );
        assert!(headers.is_empty() && take(&mut headers).is_none());
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "[A-Za-z=;,\"\\\\ :/.é-]{0,60}") {
            if let Ok(elements) = parse(&text) {
                prop_assert!(!elements.is_empty());
                let _ = elements.last().map(Element::workload);
            }
        }

        /// However a client fills the other values, what the proxy appends is the last element.
        #[test]
        fn what_is_quoted_changes_nothing_else(value in ".{0,40}", claimed in ".{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let text = format!("By=x;Subject=\"{quoted}\";URI={ROUTER}");
            let elements = parse(&text).expect("well formed");
            prop_assert_eq!(elements.len(), 1);
            prop_assert_eq!(elements[0].all("Subject").collect::<Vec<_>>(), [value.as_str()]);
            // What came before is not well formed, or it is; the appended element is never another's.
            let appended = format!("{claimed},{text}");
            if let Ok(id) = last(&appended) {
                prop_assert_eq!(id, ROUTER);
            }
        }
    }
}

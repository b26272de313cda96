//! Which interface of an agent a call goes to: what its card says, or what the address alone says.
//!
//! A card is looked for where the document points, or below an address at the well-known place. An agent without a card
//! is taken to speak JSON-RPC at its address. Of the interfaces in a card the first is taken that we speak: their order
//! is the agent's preference.

use serde::Deserialize;
use url::Url;

use crate::caller::grpc::Place;
use crate::caller::{Failure, Kind};

/// Where a card is, below the address of an agent.
const WELL_KNOWN: &str = ".well-known/agent-card.json";

/// How A2A is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding {
    /// JSON-RPC, streams as events.
    JsonRpc,
    /// Plain HTTP and JSON, streams as events.
    HttpJson,
    /// gRPC.
    Grpc,
}

impl Binding {
    const NAMES: [(&'static str, Self); 3] = [
        ("JSONRPC", Self::JsonRpc),
        ("HTTP+JSON", Self::HttpJson),
        ("GRPC", Self::Grpc),
    ];
}

/// One way to speak with an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    /// How A2A is carried there.
    pub(super) way: Way,
    /// What the agent calls whoever it is for; empty for nobody in particular.
    pub(super) tenant: String,
}

/// How A2A is carried, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// JSON-RPC.
    JsonRpc(Url),
    /// HTTP and JSON.
    HttpJson(Url),
    /// gRPC.
    Grpc(Place),
}

impl Interface {
    /// The host that is spoken with.
    pub(super) fn host(&self) -> &str {
        match &self.way {
            Way::JsonRpc(url) | Way::HttpJson(url) => url.host_str().unwrap_or_default(),
            Way::Grpc(place) => &place.host,
        }
    }

    /// JSON-RPC at an address, for an agent without a card.
    pub(super) fn bare(url: Url) -> Self {
        Self {
            way: Way::JsonRpc(url),
            tenant: String::new(),
        }
    }

    /// What an address of gRPC says by itself; none for other addresses.
    pub(super) fn of_grpc(uri: &str) -> Option<Result<Self, Failure>> {
        let (scheme, _) = uri.split_once("://")?;
        matches!(scheme, "grpc" | "grpcs").then(|| {
            Ok(Self {
                way: Way::Grpc(place(uri, false)?),
                tenant: String::new(),
            })
        })
    }
}

/// Where the card of the agent at this address is.
pub(super) fn well_known(address: &Url) -> Url {
    let mut url = address.clone();
    url.set_query(None);
    url.set_fragment(None);
    let path = format!("{}/{WELL_KNOWN}", address.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// The part of a card that matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Card {
    supported_interfaces: Vec<Offer>,
    /// Cards of A2A 0.3 have an address of their own.
    url: Option<String>,
    protocol_version: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Offer {
    url: String,
    protocol_binding: String,
    protocol_version: String,
    tenant: Option<String>,
}

/// The interface to use, of the card that was found at `from`.
///
/// # Errors
/// The card is none, or offers nothing that we speak.
pub(super) fn choose(card: &[u8], from: &Url) -> Result<Interface, Failure> {
    let shown = crate::outbound::without_credentials(from);
    let unusable = |what: String| {
        Failure::new(
            Kind::Communication,
            502,
            format!("the agent card at '{shown}' {what}"),
        )
    };
    let card: Card = serde_json::from_slice(card).map_err(|error| unusable(format!("is none: {error}")))?;
    let mut offered = Vec::new();
    for offer in &card.supported_interfaces {
        let Offer {
            url,
            protocol_binding,
            protocol_version,
            tenant,
        } = offer;
        offered.push(format!("{protocol_binding} {protocol_version}"));
        let ours =
            protocol_version.is_empty() || protocol_version == "1" || protocol_version.starts_with("1.");
        let binding = Binding::NAMES.iter().find(|(name, _)| name == protocol_binding);
        let Some((_, binding)) = binding.filter(|_| ours) else {
            continue;
        };
        let address = || {
            from.join(url)
                .map_err(|error| unusable(format!("has the address '{url}': {error}")))
        };
        let way = match binding {
            Binding::JsonRpc => Way::JsonRpc(address()?),
            Binding::HttpJson => Way::HttpJson(address()?),
            Binding::Grpc => Way::Grpc(place(url, from.scheme() == "https")?),
        };
        return Ok(Interface {
            way,
            tenant: tenant.clone().unwrap_or_default(),
        });
    }
    if offered.is_empty()
        && let (Some(_), Some(version)) = (&card.url, &card.protocol_version)
    {
        return Err(unusable(format!(
            "is of A2A {version}; this engine speaks A2A 1.0"
        )));
    }
    let offered = if offered.is_empty() {
        "none".to_owned()
    } else {
        offered.join(", ")
    };
    Err(unusable(format!(
        "offers {offered}; this engine speaks JSONRPC, HTTP+JSON and GRPC of A2A 1.0"
    )))
}

/// Where gRPC is spoken. Cards often say `host:port` alone; then it is spoken as the card came, with TLS or without.
fn place(uri: &str, tls: bool) -> Result<Place, Failure> {
    let wrong = || {
        let detail = format!("'{uri}' is not an address of gRPC, such as 'api.example.com:443'");
        Failure::new(Kind::Communication, 502, detail)
    };
    let (scheme, tls) = match uri.split_once("://") {
        None => ("", tls),
        Some((scheme @ ("http" | "grpc"), _)) => (scheme, false),
        Some((scheme @ ("https" | "grpcs"), _)) => (scheme, true),
        Some(_) => return Err(wrong()),
    };
    let rest = uri.trim_start_matches(scheme).trim_start_matches("://");
    // The scheme only lets the parser know the form; it has no port of its own.
    let url = Url::parse(&format!("grpc://{rest}")).map_err(|_| wrong())?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    let port = url.port().unwrap_or(if tls { 443 } else { 80 });
    Ok(Place {
        host: host.to_owned(),
        port,
        tls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn chosen(interfaces: &str, from: &str) -> Result<Interface, Failure> {
        choose(
            format!("{{\"name\": \"x\", \"supportedInterfaces\": {interfaces}}}").as_bytes(),
            &url(from),
        )
    }

    #[test]
    fn the_first_interface_that_we_speak_is_taken() {
        let offers = r#"[
            {"url": "https://a.test/old", "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
            {"url": "x", "protocolBinding": "SMOKE", "protocolVersion": "1.0"},
            {"url": "https://a.test/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0", "tenant": "t"},
            {"url": "https://a.test/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        ]"#;
        let interface = chosen(offers, "https://a.test/card.json").unwrap();
        assert_eq!(interface.way, Way::HttpJson(url("https://a.test/rest")));
        assert_eq!((interface.tenant.as_str(), interface.host()), ("t", "a.test"));

        let relative = r#"[{"url": "/rpc", "protocolBinding": "JSONRPC"}]"#;
        let interface = chosen(relative, "https://a.test/x/card.json").unwrap();
        assert_eq!(interface, Interface::bare(url("https://a.test/rpc")));
    }

    #[test]
    fn an_address_of_grpc_is_read_in_all_its_forms() {
        let place = |uri: &str, tls| {
            let place = super::place(uri, tls).unwrap();
            (place.host, place.port, place.tls)
        };
        assert_eq!(place("a.test:5000", false), ("a.test".into(), 5000, false));
        assert_eq!(place("a.test:5000", true), ("a.test".into(), 5000, true));
        assert_eq!(place("https://a.test", false), ("a.test".into(), 443, true));
        assert_eq!(
            place("http://127.0.0.1:80", true),
            ("127.0.0.1".into(), 80, false)
        );
        assert_eq!(place("grpcs://[::1]:7", false), ("[::1]".into(), 7, true));
        assert!(super::place("ftp://a.test", false).is_err());
        assert!(super::place("", false).is_err());
        assert!(Interface::of_grpc("https://a.test").is_none());
        assert!(Interface::of_grpc("grpc://a.test:1").unwrap().is_ok());
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let detail = |card: &str| {
            choose(card.as_bytes(), &url("https://u:p@a.test/c?k=v"))
                .unwrap_err()
                .detail
        };
        assert!(
            detail("{").contains("'https://a.test/c' is none"),
            "{}",
            detail("{")
        );
        assert!(detail("{}").contains("offers none"));
        let old = r#"{"url": "https://a.test", "protocolVersion": "0.3.0"}"#;
        assert!(detail(old).contains("A2A 0.3.0"), "{}", detail(old));
    }

    #[test]
    fn the_well_known_place_is_below_the_address() {
        for (address, expected) in [
            ("https://a.test", "https://a.test/.well-known/agent-card.json"),
            ("https://a.test/", "https://a.test/.well-known/agent-card.json"),
            (
                "https://a.test/x/y/?q#f",
                "https://a.test/x/y/.well-known/agent-card.json",
            ),
        ] {
            assert_eq!(well_known(&url(address)).as_str(), expected);
        }
    }
}

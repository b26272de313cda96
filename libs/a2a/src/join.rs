//! How an agent joins that knows nothing of Muster: where its card is, reading it, and the instance that it describes.
//!
//! The registry does this for the agents that it keeps, and `muster agents register --keep` for those that the registry
//! cannot reach. Both see the same instance: its id is made of what it is, so that the same agent at the same place is the same
//! instance, whoever registers it.
//!
//! A card is asked for with the tag of the one that is held, so that an agent whose card is unchanged sends nothing.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use muster_api::a2a::{AgentCard, AgentInterface};
use muster_api::registry::Instance;
use muster_rpc::endpoint;
use muster_rpc::outbound::{self, Outbound};
use url::Url;
use uuid::Uuid;

use crate::card;

/// Where a card is below the address of an agent.
const WELL_KNOWN: &str = ".well-known/agent-card.json";
/// Largest card, in bytes.
const MOST_OF_CARD: usize = 1024 * 1024;
/// How long an agent may take to serve its card.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest id of an agent.
const LONGEST_LABEL: usize = 63;
/// Bindings, as cards name them, the fastest first.
pub const SPOKEN: [&str; 3] = ["GRPC", "JSONRPC", "HTTP+JSON"];

/// The address of a card, of this text or, where it is that of the agent alone, at the well-known place below.
///
/// # Errors
/// Says what is wrong with the text.
pub fn address(text: &str) -> Result<Url, String> {
    let mut url: Url = text
        .parse()
        .map_err(|error| format!("'{text}' is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("'{text}': http and https are spoken"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds credentials, which everybody would read".to_owned());
    }
    if matches!(url.path(), "" | "/") {
        url.set_path(WELL_KNOWN);
    }
    url.set_fragment(None);
    Ok(url)
}

/// What an agent answers who is asked for its card.
#[derive(Debug, Clone, PartialEq)]
pub enum Fetched {
    /// The one that is held is still good.
    Unchanged,
    /// This one.
    Card(Box<Card>),
}

/// A card as it was served.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// What it says.
    pub card: AgentCard,
    /// As it came, with fields that we do not know.
    pub body: Vec<u8>,
    /// Its tag, to ask again with.
    pub tag: Option<HeaderValue>,
}

/// Asks for a card, where one with a tag is held for a newer one.
///
/// # Errors
/// Says why there is none.
pub async fn fetch(outbound: &Outbound, url: &Url, held: Option<&HeaderValue>) -> Result<Fetched, String> {
    let mut request = outbound
        .request(reqwest::Method::GET, url.clone())
        .header(header::ACCEPT, "application/json")
        .timeout(TIMEOUT);
    if let Some(tag) = held {
        request = request.header(header::IF_NONE_MATCH, tag);
    }
    let request = request.build().map_err(|error| outbound::described(&error))?;
    let mut response = outbound
        .send(request)
        .await
        .map_err(|failure| failure.to_string())?;
    if response.status() == StatusCode::NOT_MODIFIED && held.is_some() {
        return Ok(Fetched::Unchanged);
    }
    if response.status() != StatusCode::OK {
        return Err(format!("the agent answered {}", response.status()));
    }
    let tag = response.headers().get(header::ETAG).cloned();
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| outbound::described(&error))?
    {
        if body.len() + chunk.len() > MOST_OF_CARD {
            return Err(format!("the card is larger than {MOST_OF_CARD} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    let card = card::parse(&body)?;
    Ok(Fetched::Card(Box::new(Card { card, body, tag })))
}

/// What an instance is beside its card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Id under which it is found; the card's name as a DNS label where it is empty.
    pub agent_id: String,
    /// Whose agent it is.
    pub namespace: String,
    /// How it is to be called, as cards name it; the fastest way that the card lists where it is empty.
    pub binding: String,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// Its share of new work.
    pub weight: Option<u32>,
}

/// The instance that a card describes which was found at `from`.
///
/// # Errors
/// The card has no way in that is spoken, or none that is asked for; the text names the card and lists what it has.
pub fn instance(wish: &Wish, from: &Url, card: AgentCard) -> Result<Instance, String> {
    let (binding, endpoint) = way_in(&card, from, &wish.binding)?;
    let agent_id = if wish.agent_id.is_empty() {
        label(&card.name)
    } else {
        wish.agent_id.clone()
    };
    // The same agent at the same place is the same instance, whoever registers it.
    let place = format!("{agent_id} {endpoint}");
    Ok(Instance {
        instance_id: Uuid::new_v5(&Uuid::NAMESPACE_URL, place.as_bytes()).to_string(),
        agent_id,
        namespace: wish.namespace.clone(),
        binding: binding.to_owned(),
        endpoint,
        region: wish.region.clone(),
        zone: wish.zone.clone(),
        version: card.version.clone(),
        weight: wish.weight,
        card: Some(card),
        ..Instance::default()
    })
}

/// The way in that is used, and where it leads: what was asked for, or the fastest that the card lists.
fn way_in(card: &AgentCard, from: &Url, binding: &str) -> Result<(&'static str, String), String> {
    let known = |wanted: &'static str| {
        let offered = card.supported_interfaces.iter();
        offered
            .filter(|interface| is_spoken(interface) && interface.protocol_binding == wanted)
            .find_map(|interface| endpoint_of(interface, from))
            .map(|endpoint| (wanted, endpoint))
    };
    let mut wanted = SPOKEN
        .into_iter()
        .filter(|name| binding.is_empty() || *name == binding);
    wanted.find_map(known).ok_or_else(|| {
        let listed: Vec<String> = card
            .supported_interfaces
            .iter()
            .map(|interface| {
                let AgentInterface {
                    url,
                    protocol_binding,
                    protocol_version,
                    ..
                } = interface;
                format!("{protocol_binding} {protocol_version} at '{url}'")
            })
            .collect();
        let wanted = if binding.is_empty() {
            SPOKEN.join(", ")
        } else {
            binding.to_owned()
        };
        let listed = if listed.is_empty() {
            "none".to_owned()
        } else {
            listed.join(", ")
        };
        format!(
            "the card of '{}' has no interface of A2A 1.0 over {wanted} that can be called (gRPC at HOST:PORT, or at https://HOST:PORT with TLS); \
             it lists {listed}",
            card.name
        )
    })
}

fn is_spoken(interface: &AgentInterface) -> bool {
    let version = interface.protocol_version.as_str();
    matches!(version, "" | "1" | "1.0") || version.starts_with("1.0.")
}

/// Where an interface is called; `None` where it cannot be.
fn endpoint_of(interface: &AgentInterface, from: &Url) -> Option<String> {
    let url = &interface.url;
    if interface.protocol_binding == "GRPC" {
        // A card has the bare address.
        let url = if url.contains("://") {
            url.clone()
        } else {
            format!("http://{url}")
        };
        return endpoint::parse(&url).is_ok().then_some(url);
    }
    from.join(url).ok().map(|url| url.to_string())
}

/// A name as a DNS label; empty where nothing of it can be one.
#[must_use]
pub fn label(name: &str) -> String {
    let mut label = String::new();
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() {
            label.push(letter.to_ascii_lowercase());
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(LONGEST_LABEL);
    label.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(interfaces: &[(&str, &str, &str)]) -> AgentCard {
        AgentCard {
            name: "The  Ägent 2".to_owned(),
            supported_interfaces: interfaces
                .iter()
                .map(|(url, binding, version)| AgentInterface {
                    url: (*url).to_owned(),
                    protocol_binding: (*binding).to_owned(),
                    protocol_version: (*version).to_owned(),
                    ..AgentInterface::default()
                })
                .collect(),
            ..AgentCard::default()
        }
    }

    fn from() -> Url {
        "http://a/card.json".parse().unwrap()
    }

    #[test]
    fn the_fastest_way_of_the_right_version_is_taken_or_the_one_that_is_asked_for() {
        let card = card(&[
            ("/rest", "HTTP+JSON", "1.0"),
            ("http://a/rpc", "JSONRPC", "1.0"),
            ("a:1", "GRPC", "0.3"),
            ("ftp://a:1", "GRPC", "1.0"),
        ]);
        let way = |binding| way_in(&card, &from(), binding).map(|(binding, url)| format!("{binding} {url}"));
        assert_eq!(way("").unwrap(), "JSONRPC http://a/rpc");
        assert_eq!(way("HTTP+JSON").unwrap(), "HTTP+JSON http://a/rest");
        let refused = way("GRPC").unwrap_err();
        assert!(refused.contains("GRPC 0.3 at 'a:1'"), "{refused}");
        let secured = super::tests::card(&[("https://a:1", "GRPC", "1.0")]);
        assert_eq!(
            way_in(&secured, &from(), "").unwrap(),
            ("GRPC", "https://a:1".to_owned())
        );
    }

    #[test]
    fn the_same_agent_at_the_same_place_is_the_same_instance() {
        let card = card(&[("a:1", "GRPC", "1.0")]);
        let joined = |weight| {
            let wish = Wish {
                weight,
                ..Wish::default()
            };
            instance(&wish, &from(), card.clone()).unwrap()
        };
        let (one, other) = (joined(None), joined(Some(1)));
        assert_eq!(
            (one.agent_id.as_str(), one.endpoint.as_str()),
            ("the-gent-2", "http://a:1")
        );
        assert_eq!(one.instance_id, other.instance_id);
        let wish = Wish {
            agent_id: "other".to_owned(),
            ..Wish::default()
        };
        let named = instance(&wish, &from(), card).unwrap();
        assert_ne!(named.instance_id, one.instance_id);
    }

    #[test]
    fn a_name_becomes_a_label_and_an_address_the_cards() {
        assert_eq!(label("The  Ägent 2!"), "the-gent-2");
        assert_eq!(label("…"), "");
        assert_eq!(
            address("http://127.0.0.1:9").unwrap().as_str(),
            "http://127.0.0.1:9/.well-known/agent-card.json"
        );
        assert_eq!(address("http://a/card.json").unwrap().path(), "/card.json");
        for wrong in ["ftp://a", "a", "http://user:secret@a"] {
            let told = address(wrong).unwrap_err();
            assert!(!told.contains("secret"), "{told}");
        }
    }
}

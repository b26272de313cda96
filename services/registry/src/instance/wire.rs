//! Instances from and to the contract's messages. Every refusal names the field and what is allowed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_api::a2a::AgentCard;
use muster_api::{extension, names, registry, time};
use muster_rpc::endpoint::{self, Endpoint};
use muster_runtime::trust::SpiffeId;
use prost::Message as _;
use url::Url;
use uuid::Uuid;

use super::card::{is_cost, stated_cost};
use super::{
    Binding, Card, DEFAULT_WEIGHT, Error, Instance, Key, Load, MAX_WEIGHT, Origin, Profile, Report, Status,
};

/// Most skills of one agent.
const MAX_SKILLS: usize = 256;
/// Longest skill id.
const MAX_SKILL_ID: usize = 128;
/// Longest region, zone, node or version.
const MAX_LABEL: usize = 128;
/// Largest card, in encoded bytes; it travels in every answer that names the instance.
const MAX_CARD: usize = 64 * 1024;
/// Longest mean response time that is believed.
const MAX_LATENCY_SECONDS: f64 = 86_400.0;

/// Reads what an instance says when it registers; `fresh_id` is its id when it brings none.
pub fn registration(mut message: registry::Instance, fresh_id: Uuid) -> Result<(Profile, Report), Error> {
    let report = first_report(&message)?;
    let card = message.card.take().ok_or_else(|| {
        Error::new(
            "instance.card",
            "is missing; send the agent's card with at least one skill",
        )
    })?;
    let profile = profile(message, fresh_id, || checked_card(card))?;
    Ok((profile, report))
}

/// Reads what the registry of another region says of an instance that has this card. What names no region is of its own.
pub fn foreign(
    message: registry::Instance,
    card: &Arc<Card>,
    origin: &Arc<Origin>,
) -> Result<Instance, Error> {
    let time = |time: &Option<prost_types::Timestamp>| {
        let known = time.as_ref().and_then(time::from_proto);
        known.unwrap_or(Timestamp::UNIX_EPOCH)
    };
    let report = first_report(&message)?;
    let (registered_at, last_heartbeat_at) = (time(&message.registered_at), time(&message.last_heartbeat_at));
    let epoch = message.epoch;
    if message.instance_id.is_empty() {
        return Err(Error::new("instance.instance_id", "is missing"));
    }
    let mut profile = profile(message, Uuid::nil(), || Ok(Arc::clone(card)))?;
    if profile.region.is_empty() {
        profile.region.clone_from(&origin.region);
    }
    profile.origin = Some(Arc::clone(origin));
    Ok(Instance {
        profile: Arc::new(profile),
        report,
        registered_at,
        last_heartbeat_at,
        epoch,
    })
}

fn first_report(message: &registry::Instance) -> Result<Report, Error> {
    Ok(Report {
        status: status("instance.status", message.status)?,
        load: load("instance.load", message.load)?,
        mean_latency: latency("instance.mean_latency_seconds", message.mean_latency_seconds)?,
        succeeded: message.succeeded_total,
        failed: message.failed_total,
    })
}

fn profile(
    message: registry::Instance,
    fresh_id: Uuid,
    card: impl FnOnce() -> Result<Arc<Card>, Error>,
) -> Result<Profile, Error> {
    let binding = binding("instance.binding", &message.binding)?;
    let (endpoint, url) = match binding {
        Binding::Grpc => (reachable_endpoint("instance.endpoint", &message.endpoint)?, None),
        Binding::JsonRpc | Binding::HttpJson => {
            let (endpoint, url) = url_of("instance.endpoint", &message.endpoint)?;
            (endpoint, Some(url))
        }
    };
    Ok(Profile {
        key: Key {
            namespace: namespace("instance.namespace", &message.namespace)?,
            agent_id: agent_id("instance.agent_id", &message.agent_id)?,
            instance_id: match message.instance_id.as_str() {
                "" => fresh_id,
                text => instance_id("instance.instance_id", text)?,
            },
        },
        card: card()?,
        endpoint,
        url,
        identity: identity("instance.spiffe_id", &message.spiffe_id)?,
        region: label("instance.region", message.region)?,
        zone: label("instance.zone", message.zone)?,
        node: Some(label("instance.node", message.node)?).filter(|node| !node.is_empty()),
        version: label("instance.version", message.version)?,
        binding,
        weight: weight("instance.weight", message.weight)?,
        origin: None,
    })
}

/// Reads what a heartbeat says.
pub fn report(message: &registry::HeartbeatRequest) -> Result<Report, Error> {
    Ok(Report {
        status: status("status", message.status)?,
        load: load("load", message.load)?,
        mean_latency: latency("mean_latency_seconds", message.mean_latency_seconds)?,
        succeeded: message.succeeded_total,
        failed: message.failed_total,
    })
}

/// Reads who an instance has proven to be; nobody where it is empty.
fn identity(field: &str, text: &str) -> Result<Option<SpiffeId>, Error> {
    match text {
        "" => Ok(None),
        text => SpiffeId::parse(text)
            .map(Some)
            .map_err(|error| Error::new(field, error.to_string())),
    }
}

/// Reads a namespace; an empty one is the default.
pub fn namespace(field: &str, text: &str) -> Result<Arc<str>, Error> {
    match text {
        "" => Ok(names::DEFAULT_NAMESPACE.into()),
        text => agent_id(field, text),
    }
}

/// Reads an agent id.
pub fn agent_id(field: &str, text: &str) -> Result<Arc<str>, Error> {
    if names::is_dns_label(text) {
        return Ok(text.into());
    }
    let shown: String = text.chars().take(80).collect();
    Err(Error::new(
        field,
        format!(
            "'{shown}' is no DNS label; use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
        ),
    ))
}

/// Reads the id of an instance or a lease.
pub fn instance_id(field: &str, text: &str) -> Result<Uuid, Error> {
    let parsed = Uuid::try_parse(text).ok().filter(|id| !id.is_nil());
    parsed.ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Error::new(
            field,
            format!("'{shown}' is no UUID; use the one that the registry answered"),
        )
    })
}

/// Reads a skill id.
pub fn skill_id(field: &str, text: &str) -> Result<String, Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !text.is_empty() && text.len() <= MAX_SKILL_ID && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(80).collect();
    Err(Error::new(
        field,
        format!("'{shown}' is no skill id; use 1 to {MAX_SKILL_ID} letters, digits, '_', '-' and '.'"),
    ))
}

/// Reads what an instance says of its status; none given means active.
pub fn status(field: &str, value: i32) -> Result<Status, Error> {
    match any_status(field, value)? {
        Status::Offline => Err(Error::new(
            field,
            "offline (5) is what the registry says of instances that it hears no more of; report active (1), busy (2), draining (3) or maintenance (4)",
        )),
        status => Ok(status),
    }
}

/// Reads a status that is asked for; none given means active.
pub fn any_status(field: &str, value: i32) -> Result<Status, Error> {
    match registry::InstanceStatus::try_from(value) {
        Ok(registry::InstanceStatus::Unspecified | registry::InstanceStatus::Active) => Ok(Status::Active),
        Ok(registry::InstanceStatus::Busy) => Ok(Status::Busy),
        Ok(registry::InstanceStatus::Draining) => Ok(Status::Draining),
        Ok(registry::InstanceStatus::Maintenance) => Ok(Status::Maintenance),
        Ok(registry::InstanceStatus::Offline) => Ok(Status::Offline),
        Err(_) => Err(Error::new(
            field,
            format!(
                "{value} is no status; use active (1), busy (2), draining (3), maintenance (4) or offline (5)"
            ),
        )),
    }
}

/// Reads a load.
pub fn load(field: &str, value: f64) -> Result<Load, Error> {
    Load::new(value).ok_or_else(|| {
        Error::new(
            field,
            format!("{value} is no load; use a number from 0 (idle) to 1 (full)"),
        )
    })
}

fn latency(field: &str, seconds: f64) -> Result<Option<Duration>, Error> {
    if !(0.0..=MAX_LATENCY_SECONDS).contains(&seconds) {
        let allowed =
            format!("{seconds} is no response time; use seconds from 0 (none yet) to {MAX_LATENCY_SECONDS}");
        return Err(Error::new(field, allowed));
    }
    Ok(Some(Duration::from_secs_f64(seconds)).filter(|latency| !latency.is_zero()))
}

fn binding(field: &str, text: &str) -> Result<Binding, Error> {
    if text.is_empty() {
        return Ok(Binding::Grpc);
    }
    let known = Binding::ALL.into_iter().find(|binding| binding.name() == text);
    known.ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Error::new(
            field,
            format!("'{shown}' is no binding; use GRPC, JSONRPC or HTTP+JSON"),
        )
    })
}

fn weight(field: &str, weight: Option<u32>) -> Result<u32, Error> {
    let weight = weight.unwrap_or(DEFAULT_WEIGHT);
    if weight > MAX_WEIGHT {
        return Err(Error::new(
            field,
            format!(
                "{weight} is no weight; use 0 (no new work) to {MAX_WEIGHT}, or none for {DEFAULT_WEIGHT}"
            ),
        ));
    }
    Ok(weight)
}

/// Reads a region, zone, node or version.
pub fn label(field: &str, text: String) -> Result<String, Error> {
    if text.len() > MAX_LABEL || text.chars().any(char::is_control) {
        let message = format!(
            "has {} bytes; use at most {MAX_LABEL} without control characters",
            text.len()
        );
        return Err(Error::new(field, message));
    }
    Ok(text)
}

/// Reads a card.
pub fn checked_card(card: AgentCard) -> Result<Arc<Card>, Error> {
    let size = card.encoded_len();
    if size > MAX_CARD {
        return Err(Error::new(
            "instance.card",
            format!("has {size} bytes; at most {MAX_CARD} are kept, so shorten descriptions and examples"),
        ));
    }
    if card.skills.is_empty() || card.skills.len() > MAX_SKILLS {
        return Err(Error::new(
            "instance.card.skills",
            format!(
                "has {} skills; an agent is found by its skills and has 1 to {MAX_SKILLS}",
                card.skills.len()
            ),
        ));
    }
    let mut ids = BTreeSet::new();
    for (index, skill) in card.skills.iter().enumerate() {
        let field = format!("instance.card.skills[{index}].id");
        let id = skill_id(&field, &skill.id)?;
        if let Some(twice) = ids.replace(id) {
            return Err(Error::new(
                field,
                format!("'{twice}' is given twice; give each skill an id of its own"),
            ));
        }
    }
    if let Some(stated) = stated_cost(&card)
        && !stated.is_ok_and(is_cost)
    {
        return Err(Error::new(
            "instance.card.capabilities.extensions",
            format!(
                "parameter '{}' of {} is no cost; state a number from 0 on, or none",
                extension::COST,
                extension::ROUTING
            ),
        ));
    }
    Ok(Arc::new(Card::new(card)))
}

/// An address that others can connect to: `0.0.0.0` and `[::]` are good only for listening.
fn reachable_endpoint(field: &str, text: &str) -> Result<Endpoint, Error> {
    let parsed = endpoint::parse(text).map_err(|error| Error::new(field, error.to_string()))?;
    let host = parsed.host().trim_matches(['[', ']']);
    if host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_unspecified())
    {
        return Err(Error::new(
            field,
            format!(
                "{parsed} is an address to listen on; give one that others reach (`agent.advertise_host`)"
            ),
        ));
    }
    Ok(parsed)
}

/// The URL of a JSON binding, and the address that it leads to.
fn url_of(field: &str, text: &str) -> Result<(Endpoint, Url), Error> {
    let url: Url = text
        .parse()
        .map_err(|error| Error::new(field, format!("is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::new(
            field,
            format!("has the scheme '{}'; http and https are spoken", url.scheme()),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::new(field, "holds credentials, which everybody would read"));
    }
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(Error::new(field, "names no host"));
    };
    let endpoint = reachable_endpoint(field, &format!("http://{host}:{port}"))?;
    Ok((endpoint, url))
}

impl From<Status> for registry::InstanceStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Active => Self::Active,
            Status::Busy => Self::Busy,
            Status::Draining => Self::Draining,
            Status::Maintenance => Self::Maintenance,
            Status::Offline => Self::Offline,
        }
    }
}

/// What the contract's message says of an instance, but for its card.
pub fn without_card(instance: &Instance) -> registry::Instance {
    let profile = &instance.profile;
    registry::Instance {
        agent_id: profile.key.agent_id.to_string(),
        instance_id: profile.key.instance_id.to_string(),
        namespace: profile.key.namespace.to_string(),
        card: None,
        endpoint: profile
            .url
            .as_ref()
            .map_or_else(|| profile.endpoint.to_string(), Url::to_string),
        region: profile.region.clone(),
        zone: profile.zone.clone(),
        node: profile.node.clone().unwrap_or_default(),
        version: profile.version.clone(),
        status: registry::InstanceStatus::from(instance.report.status).into(),
        load: instance.report.load.get(),
        registered_at: Some(time::to_proto(instance.registered_at)),
        last_heartbeat_at: Some(time::to_proto(instance.last_heartbeat_at)),
        epoch: instance.epoch,
        mean_latency_seconds: seconds(instance.report.mean_latency),
        binding: profile.binding.name().to_owned(),
        weight: Some(profile.weight),
        succeeded_total: instance.report.succeeded,
        failed_total: instance.report.failed,
        spiffe_id: profile
            .identity
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        origin: profile.origin.as_deref().map(Into::into),
    }
}

impl From<&Origin> for registry::Origin {
    fn from(origin: &Origin) -> Self {
        Self {
            region: origin.region.clone(),
            registry_url: origin.registry_url.clone(),
            stale_since: origin.stale_since().map(time::to_proto),
        }
    }
}

/// A mean response time as the contract has it: 0 for none.
pub fn seconds(latency: Option<Duration>) -> f64 {
    latency.map_or(0.0, |latency| latency.as_secs_f64())
}

impl From<&Instance> for registry::Instance {
    fn from(instance: &Instance) -> Self {
        Self {
            card: Some(instance.profile.card.message().clone()),
            ..without_card(instance)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_api::a2a::AgentSkill;
    use proptest::prelude::*;

    fn skill(id: &str) -> AgentSkill {
        AgentSkill {
            id: id.to_owned(),
            ..Default::default()
        }
    }

    fn message() -> registry::Instance {
        registry::Instance {
            agent_id: "weather".to_owned(),
            card: Some(AgentCard {
                skills: vec![skill("forecast"), skill("alerts")],
                ..Default::default()
            }),
            endpoint: "http://127.0.0.1:7411".to_owned(),
            ..Default::default()
        }
    }

    fn refused_field(change: impl FnOnce(&mut registry::Instance)) -> String {
        let mut message = message();
        change(&mut message);
        registration(message, Uuid::from_u128(1)).unwrap_err().field
    }

    #[test]
    fn defaults_are_filled_in() {
        let (profile, report) = registration(message(), Uuid::from_u128(7)).unwrap();
        assert_eq!(&*profile.key.namespace, "default");
        assert_eq!(profile.key.instance_id, Uuid::from_u128(7));
        assert_eq!(profile.node, None);
        assert_eq!(profile.card.skills().len(), 2);
        assert_eq!(report, Report::FRESH);
        assert_eq!((profile.binding, profile.weight), (Binding::Grpc, 100));
    }

    #[test]
    fn every_bad_field_is_named() {
        type Change = fn(&mut registry::Instance);
        let cases: [(&str, Change); 26] = [
            ("instance.agent_id", |m| m.agent_id = String::new()),
            ("instance.agent_id", |m| m.agent_id = "Weather".to_owned()),
            ("instance.agent_id", |m| m.agent_id = "a".repeat(64)),
            ("instance.namespace", |m| m.namespace = "a_b".to_owned()),
            ("instance.instance_id", |m| m.instance_id = "17".to_owned()),
            ("instance.instance_id", |m| {
                m.instance_id = Uuid::nil().to_string()
            }),
            ("instance.card", |m| m.card = None),
            ("instance.card", |m| {
                m.card.as_mut().unwrap().description = "x".repeat(MAX_CARD)
            }),
            ("instance.card.skills", |m| {
                m.card.as_mut().unwrap().skills.clear()
            }),
            ("instance.card.skills", |m| {
                m.card.as_mut().unwrap().skills = vec![skill("a"); MAX_SKILLS + 1]
            }),
            ("instance.card.skills[1].id", |m| {
                m.card.as_mut().unwrap().skills[1] = skill("")
            }),
            ("instance.card.skills[1].id", |m| {
                m.card.as_mut().unwrap().skills[1] = skill("forecast")
            }),
            ("instance.card.skills[0].id", |m| {
                m.card.as_mut().unwrap().skills[0] = skill("a b")
            }),
            ("instance.endpoint", |m| m.endpoint = String::new()),
            ("instance.endpoint", |m| m.endpoint = "127.0.0.1:7411".to_owned()),
            ("instance.endpoint", |m| {
                m.endpoint = "http://0.0.0.0:7411".to_owned()
            }),
            ("instance.endpoint", |m| {
                m.endpoint = "http://[::]:7411".to_owned()
            }),
            ("instance.node", |m| m.node = "n".repeat(MAX_LABEL + 1)),
            ("instance.region", |m| m.region = "a\nb".to_owned()),
            ("instance.status", |m| m.status = 9),
            ("instance.status", |m| m.status = 5),
            ("instance.binding", |m| m.binding = "SOAP".to_owned()),
            ("instance.weight", |m| m.weight = Some(1_001)),
            ("instance.card.capabilities.extensions", |m| {
                m.card = Some(Card::costing(-1.0));
            }),
            ("instance.load", |m| m.load = 1.01),
            ("instance.mean_latency_seconds", |m| {
                m.mean_latency_seconds = f64::NAN
            }),
        ];
        for (field, change) in cases {
            assert_eq!(refused_field(change), field);
        }
    }

    proptest! {
        #[test]
        fn a_load_is_accepted_exactly_from_0_to_1(value in prop::num::f64::ANY) {
            prop_assert_eq!(load("load", value).is_ok(), (0.0..=1.0).contains(&value));
        }

        #[test]
        fn no_text_panics(agent in ".{0,70}", id in ".{0,40}", endpoint in ".{0,40}", latency in prop::num::f64::ANY) {
            let _ = registration(registry::Instance {
                agent_id: agent, instance_id: id, endpoint, mean_latency_seconds: latency, ..message()
            }, Uuid::from_u128(1));
        }

        #[test]
        fn what_was_accepted_is_told_again(load in 0.0..=1.0, status in 1..=4, latency in 0.0..100.0) {
            let given = registry::Instance { load, status, mean_latency_seconds: latency, node: "n".to_owned(), ..message() };
            let (profile, report) = registration(given.clone(), Uuid::from_u128(1)).unwrap();
            let told = registry::Instance::from(&Instance {
                profile: Arc::new(profile), report, registered_at: jiff::Timestamp::UNIX_EPOCH,
                last_heartbeat_at: jiff::Timestamp::UNIX_EPOCH, epoch: 1,
            });
            prop_assert_eq!((told.load, told.status, &told.node), (load, status, &given.node));
            prop_assert!((told.mean_latency_seconds - latency).abs() < 1e-6);
        }
    }
}

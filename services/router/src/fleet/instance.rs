//! One instance as the router uses it, parsed once from what the registry says.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use muster_a2a::client::Place;
use muster_api::a2a::AgentCard;
use muster_api::extension::{
    MAX_CONCURRENCY, MESSAGES_PER_MINUTE, MESSAGES_PER_MINUTE_PER_CALLER, ROUTING, SHARED_TASKS,
    STICKY_CONTEXTS, TELLS_CALLERS_APART, TRACE_IN_METADATA,
};
use muster_api::names::DEFAULT_NAMESPACE;
use muster_api::registry::{self, InstanceStatus};
use muster_rpc::endpoint::{self, Endpoint};
use muster_runtime::trust::{SpiffeId, spiffe};
use prost_types::Struct;
use prost_types::value::Kind;
use url::Url;

use crate::quota::Quota;

/// Protocol bindings, as cards name them.
const GRPC: &str = "GRPC";
const JSON_RPC: &str = "JSONRPC";
const HTTP_JSON: &str = "HTTP+JSON";

/// Parameter of the routing extension in which a card names its idempotent skills.
const IDEMPOTENT_SKILLS: &str = "idempotentSkills";

/// Longest name of a store of tasks, in bytes; page tokens carry it.
const LONGEST_STORE: usize = 64;

/// The weight of an instance that registered without one.
const DEFAULT_WEIGHT: u32 = 100;

/// Which instance of which agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The agent's id.
    pub agent: String,
    /// The instance's id.
    pub instance: String,
}

/// Whether an instance takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Takes work.
    Active,
    /// Takes work, but others are preferred.
    Busy,
    /// Takes nothing new, but answers for the tasks that it has.
    Leaving,
}

/// One instance of an agent.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Agent and instance id; shared, because each answer says whose it is.
    pub id: Arc<Key>,
    /// Whose agent it is.
    pub namespace: String,
    /// Where it answers A2A.
    pub endpoint: Endpoint,
    /// How it answers there, where that is not gRPC.
    pub place: Option<Place>,
    /// Who it has proven to be.
    pub identity: Option<SpiffeId>,
    /// The tenant under which the agent itself wants to be called; mostly empty.
    pub tenant: String,
    /// Its region; may be empty.
    pub region: String,
    /// Whether it takes work.
    pub availability: Availability,
    /// Load from 0 to 1, as it reported last.
    pub load: f64,
    /// When it reported that.
    pub reported_at: Duration,
    /// Its share of new work relative to the other instances.
    pub weight: u32,
    /// The build that runs; may be empty.
    pub version: Arc<str>,
    /// Changes with every registration, and with it what was measured of the instance before.
    pub epoch: u64,
    /// Its card.
    pub card: Arc<AgentCard>,
    /// Its skills.
    pub skills: Arc<BTreeSet<String>>,
    /// Those of its skills that do no harm when done twice.
    pub idempotent_skills: Arc<BTreeSet<String>>,
    /// Messages that it takes at once, where its card says so.
    pub max_concurrency: Option<u32>,
    /// Messages a minute that its agent takes, as its card says.
    pub quota: Quota,
    /// Whether its agent wants the messages of a context to reach the same instance.
    pub has_sticky_contexts: bool,
    /// Whether its agent wants the trace in the metadata of each message.
    pub has_trace_in_metadata: bool,
    /// Whether it answers in streams.
    pub streams: bool,
    /// The store of its tasks, where it says that it shares one with other instances of its agent.
    pub shared_tasks: Option<Arc<str>>,
    /// Whether its lists have the tasks of whoever asks alone.
    pub tells_callers_apart: bool,
}

/// A card as instances share it: read once, however many bring it.
#[derive(Debug, Clone)]
pub struct Card {
    message: Arc<AgentCard>,
    skills: Arc<BTreeSet<String>>,
    idempotent_skills: Arc<BTreeSet<String>>,
    max_concurrency: Option<u32>,
    quota: Quota,
    has_sticky_contexts: bool,
    has_trace_in_metadata: bool,
    streams: bool,
    shared_tasks: Option<Arc<str>>,
    tells_callers_apart: bool,
}

/// What an instance says of itself from time to time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// The registration that it is about.
    pub epoch: u64,
    /// Whether it takes work.
    pub availability: Availability,
    /// Load from 0 to 1.
    pub load: f64,
}

/// Why an instance cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It has no card.
    #[error("it has no card")]
    NoCard,
    /// Its endpoint is malformed.
    #[error("its endpoint {0}")]
    Endpoint(#[from] endpoint::Error),
    /// Who it has proven to be has no name.
    #[error("its SPIFFE id {0}")]
    Identity(#[from] spiffe::Error),
    /// Its endpoint is no URL.
    #[error("its endpoint is no URL: {0}")]
    Url(url::ParseError),
    /// Its binding is none that is spoken here.
    #[error("its binding '{0}' is none of GRPC, JSONRPC and HTTP+JSON")]
    Binding(String),
}

impl Instance {
    /// Agent and instance id.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::clone(&self.id)
    }

    /// Whether it takes new work.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.availability != Availability::Leaving
    }

    /// Whether a call for `skill` may be repeated. Without a skill, only where all skills are idempotent.
    #[must_use]
    pub fn is_idempotent(&self, skill: Option<&str>) -> bool {
        match skill {
            Some(skill) => self.idempotent_skills.contains(skill),
            None => !self.skills.is_empty() && self.skills.is_subset(&self.idempotent_skills),
        }
    }

    /// Takes over the card of another instance where it is equal, so that the view holds it once.
    pub fn share(&mut self, other: &Self) {
        if !Arc::ptr_eq(&self.card, &other.card) && self.card == other.card {
            self.card = Arc::clone(&other.card);
            self.skills = Arc::clone(&other.skills);
            self.idempotent_skills = Arc::clone(&other.idempotent_skills);
        }
    }

    /// Reads what the registry says of an instance that has this card.
    ///
    /// # Errors
    /// When its endpoint is malformed.
    pub fn with_card(instance: registry::Instance, card: &Card) -> Result<Self, Error> {
        let availability = availability(instance.status());
        let (endpoint, place) = whereabouts(&instance)?;
        let identity = match instance.spiffe_id.as_str() {
            "" => None,
            id => Some(SpiffeId::parse(id)?),
        };
        Ok(Self {
            id: Arc::new(Key {
                agent: instance.agent_id,
                instance: instance.instance_id,
            }),
            namespace: match instance.namespace {
                empty if empty.is_empty() => DEFAULT_NAMESPACE.to_owned(),
                namespace => namespace,
            },
            tenant: own_tenant(&card.message, &endpoint, place.as_ref()),
            endpoint,
            place,
            identity,
            region: instance.region,
            availability,
            load: instance.load,
            reported_at: Duration::ZERO,
            weight: instance.weight.unwrap_or(DEFAULT_WEIGHT),
            version: instance.version.into(),
            epoch: instance.epoch,
            max_concurrency: card.max_concurrency,
            quota: card.quota,
            has_sticky_contexts: card.has_sticky_contexts,
            has_trace_in_metadata: card.has_trace_in_metadata,
            streams: card.streams,
            shared_tasks: card.shared_tasks.clone(),
            tells_callers_apart: card.tells_callers_apart,
            skills: Arc::clone(&card.skills),
            idempotent_skills: Arc::clone(&card.idempotent_skills),
            card: Arc::clone(&card.message),
        })
    }
}

impl From<AgentCard> for Card {
    fn from(card: AgentCard) -> Self {
        let parameters = Parameters::of(&card);
        Self {
            max_concurrency: parameters.count(MAX_CONCURRENCY),
            quota: Quota {
                messages_per_minute: parameters.count(MESSAGES_PER_MINUTE),
                messages_per_minute_per_caller: parameters.count(MESSAGES_PER_MINUTE_PER_CALLER),
            },
            has_sticky_contexts: parameters.is_true(STICKY_CONTEXTS),
            has_trace_in_metadata: parameters.is_true(TRACE_IN_METADATA),
            streams: streams(&card),
            shared_tasks: parameters.shared_tasks(),
            tells_callers_apart: parameters.is_true(TELLS_CALLERS_APART),
            idempotent_skills: Arc::new(parameters.idempotent_skills()),
            skills: Arc::new(card.skills.iter().map(|skill| skill.id.clone()).collect()),
            message: Arc::new(card),
        }
    }
}

impl From<&registry::watch_agents_response::Report> for Report {
    fn from(report: &registry::watch_agents_response::Report) -> Self {
        Self {
            epoch: report.epoch,
            availability: availability(report.status()),
            load: report.load,
        }
    }
}

impl TryFrom<registry::Instance> for Instance {
    type Error = Error;

    fn try_from(mut instance: registry::Instance) -> Result<Self, Error> {
        let card = instance.card.take().ok_or(Error::NoCard)?;
        Self::with_card(instance, &card.into())
    }
}

const fn availability(status: InstanceStatus) -> Availability {
    match status {
        InstanceStatus::Unspecified | InstanceStatus::Active => Availability::Active,
        InstanceStatus::Busy => Availability::Busy,
        InstanceStatus::Draining | InstanceStatus::Maintenance | InstanceStatus::Offline => {
            Availability::Leaving
        }
    }
}

/// Where an instance answers, and how, where that is not gRPC.
fn whereabouts(instance: &registry::Instance) -> Result<(Endpoint, Option<Place>), Error> {
    let place: fn(Url) -> Place = match instance.binding.as_str() {
        "" | GRPC => return Ok((endpoint::parse(&instance.endpoint)?, None)),
        JSON_RPC => Place::JsonRpc,
        HTTP_JSON => Place::HttpJson,
        other => return Err(Error::Binding(other.to_owned())),
    };
    let url: Url = instance.endpoint.parse().map_err(Error::Url)?;
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    Ok((
        endpoint::parse(&format!("{}://{host}:{port}", url.scheme()))?,
        Some(place(url)),
    ))
}

/// The tenant of the interface at the endpoint, else of the first of its binding.
fn own_tenant(card: &AgentCard, endpoint: &Endpoint, place: Option<&Place>) -> String {
    let (binding, url) = match place {
        None => (GRPC, endpoint.authority().to_owned()),
        Some(Place::JsonRpc(url)) => (JSON_RPC, url.to_string()),
        Some(Place::HttpJson(url)) => (HTTP_JSON, url.to_string()),
    };
    let bare = |url: &str| {
        let address = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        address.unwrap_or(url).trim_end_matches('/').to_owned()
    };
    let mut interfaces = card
        .supported_interfaces
        .iter()
        .filter(|interface| interface.protocol_binding == binding)
        .peekable();
    let first = interfaces.peek().map(|interface| interface.tenant.clone());
    interfaces
        .find(|interface| bare(&interface.url) == bare(&url))
        .map(|interface| interface.tenant.clone())
        .or(first)
        .unwrap_or_default()
}

/// Whether a card says that its agent streams; one that says nothing says that it does not.
fn streams(card: &AgentCard) -> bool {
    let capabilities = card.capabilities.as_ref();
    capabilities.and_then(|capabilities| capabilities.streaming) == Some(true)
}

/// What a card says in the parameters of the routing extension.
struct Parameters<'c>(Option<&'c Struct>);

impl<'c> Parameters<'c> {
    fn of(card: &'c AgentCard) -> Self {
        let mut extensions = card
            .capabilities
            .iter()
            .flat_map(|capabilities| &capabilities.extensions);
        let routing = extensions.find(|extension| extension.uri == ROUTING);
        Self(routing.and_then(|extension| extension.params.as_ref()))
    }

    fn get(&self, name: &str) -> Option<&'c Kind> {
        self.0?.fields.get(name)?.kind.as_ref()
    }

    fn idempotent_skills(&self) -> BTreeSet<String> {
        let Some(Kind::ListValue(list)) = self.get(IDEMPOTENT_SKILLS) else {
            return BTreeSet::new();
        };
        list.values
            .iter()
            .filter_map(|value| match &value.kind {
                Some(Kind::StringValue(skill)) => Some(skill.clone()),
                _ => None,
            })
            .collect()
    }

    /// What is no number of messages says nothing.
    fn count(&self, name: &str) -> Option<u32> {
        match self.get(name) {
            Some(Kind::NumberValue(most)) if *most >= 1.0 => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "at least one; what is above the range ends at its end"
                )]
                let most = *most as u32;
                Some(most)
            }
            _ => None,
        }
    }

    fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Kind::BoolValue(true)))
    }

    /// What is no name of a store says nothing.
    fn shared_tasks(&self) -> Option<Arc<str>> {
        match self.get(SHARED_TASKS) {
            Some(Kind::StringValue(store)) if (1..=LONGEST_STORE).contains(&store.len()) => {
                Some(store.as_str().into())
            }
            _ => None,
        }
    }
}

/// Instances by the stores of their tasks: those of an agent that say that they share one are together, every other is alone. What
/// an agent's instances say is believed of that agent alone.
#[must_use]
pub fn by_store(instances: &[Arc<Instance>]) -> Vec<Vec<Arc<Instance>>> {
    let mut stores: Vec<Vec<Arc<Instance>>> = Vec::new();
    let mut shared: HashMap<(&str, &str), usize> = HashMap::new();
    for instance in instances {
        let store = instance.shared_tasks.as_deref();
        let place = store.map(|store| {
            *shared
                .entry((instance.id.agent.as_str(), store))
                .or_insert(stores.len())
        });
        match place.and_then(|place| stores.get_mut(place)) {
            Some(together) => together.push(Arc::clone(instance)),
            None => stores.push(vec![Arc::clone(instance)]),
        }
    }
    stores
}

#[cfg(test)]
impl Instance {
    /// An instance for tests, with these skills.
    pub(crate) fn example(agent: &str, instance: &str, skills: &[&str]) -> Self {
        let skills: Vec<_> = skills
            .iter()
            .map(|skill| muster_api::a2a::AgentSkill {
                id: (*skill).to_owned(),
                ..Default::default()
            })
            .collect();
        Self::try_from(registry::Instance {
            agent_id: agent.to_owned(),
            instance_id: instance.to_owned(),
            endpoint: "http://127.0.0.1:1".to_owned(),
            card: Some(AgentCard {
                name: agent.to_owned(),
                skills,
                capabilities: Some(muster_api::a2a::AgentCapabilities {
                    streaming: Some(true),
                    ..Default::default()
                }),
                ..AgentCard::default()
            }),
            ..registry::Instance::default()
        })
        .expect("well formed")
    }
}

#[cfg(test)]
mod tests {
    use a2a_pb::pbconv::json_value_to_proto_value;
    use muster_api::a2a::{AgentCapabilities, AgentExtension, AgentInterface, AgentSkill};
    use serde_json::json;

    use super::*;

    fn card() -> AgentCard {
        let interface = |url: &str, binding: &str, tenant: &str| AgentInterface {
            url: url.to_owned(),
            protocol_binding: binding.to_owned(),
            tenant: tenant.to_owned(),
            protocol_version: "1.0".to_owned(),
        };
        let Some(Kind::StructValue(params)) =
            json_value_to_proto_value(&json!({"idempotentSkills": ["forecast"]})).kind
        else {
            panic!("an object");
        };
        AgentCard {
            supported_interfaces: vec![
                interface("http://127.0.0.1:1/jsonrpc", "JSONRPC", "wrong"),
                interface("10.0.0.1:1", GRPC, "elsewhere"),
                interface("127.0.0.1:1", GRPC, "own"),
            ],
            skills: ["forecast", "order"]
                .map(|id| AgentSkill {
                    id: id.to_owned(),
                    ..AgentSkill::default()
                })
                .to_vec(),
            capabilities: Some(AgentCapabilities {
                extensions: vec![AgentExtension {
                    uri: ROUTING.to_owned(),
                    params: Some(params),
                    ..AgentExtension::default()
                }],
                ..AgentCapabilities::default()
            }),
            ..AgentCard::default()
        }
    }

    fn registered(card: Option<AgentCard>, endpoint: &str) -> Result<Instance, Error> {
        Instance::try_from(registry::Instance {
            agent_id: "weather".to_owned(),
            instance_id: "w1".to_owned(),
            endpoint: endpoint.to_owned(),
            card,
            ..registry::Instance::default()
        })
    }

    #[test]
    fn tenant_and_idempotent_skills_come_from_the_card() {
        let instance = registered(Some(card()), "http://127.0.0.1:1").unwrap();
        assert_eq!(instance.tenant, "own");
        assert_eq!(instance.namespace, "default");
        assert!(instance.is_idempotent(Some("forecast")));
        assert!(!instance.is_idempotent(Some("order")));
        assert!(!instance.is_idempotent(None), "one of its skills is not");
        let elsewhere = registered(Some(card()), "http://127.0.0.1:9").unwrap();
        assert_eq!(elsewhere.tenant, "elsewhere");
    }

    #[test]
    fn instances_of_an_agent_that_name_the_same_store_are_together() {
        let of = |agent: &str, instance: &str, store: Option<&str>| {
            let mut example = Instance::example(agent, instance, &[]);
            example.shared_tasks = store.map(Into::into);
            Arc::new(example)
        };
        let fleet = [
            of("weather", "1", Some("s")),
            of("weather", "2", None),
            of("planning", "3", Some("s")),
            of("weather", "4", Some("s")),
            of("weather", "5", None),
        ];
        let stores: Vec<Vec<String>> = by_store(&fleet)
            .iter()
            .map(|store| {
                store
                    .iter()
                    .map(|instance| instance.id.instance.clone())
                    .collect()
            })
            .collect();
        assert_eq!(stores, [vec!["1", "4"], vec!["2"], vec!["3"], vec!["5"]]);
        for (value, said) in [(json!("s"), Some("s")), (json!(true), None), (json!(""), None)] {
            let Some(Kind::StructValue(params)) =
                json_value_to_proto_value(&json!({SHARED_TASKS: value})).kind
            else {
                panic!("an object");
            };
            assert_eq!(Parameters(Some(&params)).shared_tasks().as_deref(), said);
        }
    }

    #[test]
    fn who_says_nothing_of_streams_has_none() {
        for (said, streams) in [(None, false), (Some(false), false), (Some(true), true)] {
            let mut card = card();
            card.capabilities.as_mut().unwrap().streaming = said;
            let instance = registered(Some(card), "http://127.0.0.1:1").unwrap();
            assert_eq!(instance.streams, streams, "{said:?}");
        }
        let silent = registered(Some(AgentCard::default()), "http://127.0.0.1:1").unwrap();
        assert!(!silent.streams);
    }

    #[test]
    fn what_cannot_be_called_is_refused() {
        assert!(matches!(
            registered(None, "http://127.0.0.1:1"),
            Err(Error::NoCard)
        ));
        assert!(matches!(
            registered(Some(card()), "127.0.0.1"),
            Err(Error::Endpoint(_))
        ));
    }
}

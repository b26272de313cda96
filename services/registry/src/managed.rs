//! Agents that the registry keeps by their cards, because they know nothing of it.
//!
//! ```text
//! managed.rs          use cases: keep, list, forget
//! managed/entry.rs    one of them, and what a look at it changes: pure
//! managed/keeping.rs  looks at each as often as instances send heartbeats
//! managed/sharing.rs  which of several registries keeps them
//! managed/moving.rs   from one registry's disk to a store that several share
//! managed/store.rs    which are kept, written down: the port;  store/embedded.rs, store/memory.rs, store/redis.rs
//! ```
//!
//! Here the registry does what an agent of the SDK does for itself: it reads the card, registers the instance that the card
//! describes, and renews the lease as long as the agent serves its card. From then on nobody can tell the two apart: the
//! lease is an ordinary one in the ordinary store, so an agent that falls silent is offline when its lease runs out, whatever
//! becomes of this module. What is written down is only what was asked for; after a restart the registry looks for itself, and
//! whoever is not there is not registered.
//!
//! An agent is kept under its namespace, its id and the address of its card. Two of them that lead to the same instance are
//! refused: each would take the lease from the other, for ever.
//!
//! Where cards and ways in may be is bounded by `registry.outbound.allow`, because addresses come from whoever may
//! register. The way in is connected to once by the same rule, where endpoints are probed.
//!
//! Registries over one Redis keep their agents together ([`sharing`]): each knows them all, takes orders for them all, and one at a
//! time does the looking.
//!
//! Rejected: saying goodbye for agents that do not answer, or when the registry stops. An agent that has vanished has not
//! said goodbye, and a registry that is started anew must not take agents out of routers' views.

pub mod entry;
mod keeping;
pub mod moving;
mod sharing;
pub mod store;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use muster_a2a::join::{self, Fetched};
use muster_api::{names, registry as proto, time};
use muster_rpc::outbound::Outbound;
use muster_runtime::clock::SharedClock;
use parking_lot::Mutex;
use url::Url;
use uuid::Uuid;

use crate::instance::{self, wire};
use crate::metrics::Observer;
use crate::page;
use crate::reach::Reach;
use crate::registry::{self, Registry};
use entry::{Entry, Held, Kept, Key};
use sharing::Sharing;
use store::{Entries, Shared};

/// Longest address of a card, in bytes.
const LONGEST_ADDRESS: usize = 2_048;

/// Why an agent is not kept, or not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is wrong, the registry has no place, or its store does not answer.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// There is no card to be had.
    #[error("no card at {card}: {what}")]
    Unavailable {
        /// Where it was looked for.
        card: String,
        /// Why.
        what: String,
    },
    /// As many are kept as may be.
    #[error(
        "the registry keeps {limit} agents by their cards, as many as `registry.max_managed_agents` allows"
    )]
    Full {
        /// The limit.
        limit: usize,
    },
    /// None is kept by that card.
    #[error("no agent{} is kept by the card at {card} in namespace '{namespace}'", if agent_id.is_empty() { String::new() } else { format!(" '{agent_id}'") })]
    NotKept {
        /// The card.
        card: String,
        /// The agent, where one was named.
        agent_id: String,
        /// The namespace.
        namespace: String,
    },
    /// What is kept cannot be written down.
    #[error("what is kept cannot be written down: {0}")]
    Store(#[from] store::Error),
}

impl From<instance::Error> for Error {
    fn from(error: instance::Error) -> Self {
        Self::Registry(error.into())
    }
}

impl From<page::Error> for Error {
    fn from(error: page::Error) -> Self {
        Self::Registry(error.into())
    }
}

/// What the use cases are made of.
pub struct Parts {
    /// Where instances are registered.
    pub registry: Arc<Registry>,
    /// Which agents are kept, written down.
    pub store: Arc<dyn Entries>,
    /// The same, where other registries share it.
    pub shared: Option<Arc<dyn Shared>>,
    /// The way to the agents.
    pub outbound: Outbound,
    /// Time.
    pub clock: SharedClock,
    /// Counts.
    pub observer: Arc<Observer>,
    /// Most agents that are kept.
    pub most: usize,
}

/// See the module.
pub struct Managed {
    parts: Parts,
    interval: Duration,
    entries: Mutex<BTreeMap<Key, Entry>>,
    /// Held by who changes which are kept, so that the store and the entries change in the same order.
    changing: tokio::sync::Mutex<()>,
    /// This registry's part among others.
    sharing: Option<Sharing>,
    /// Something is due earlier than was thought.
    wake: tokio::sync::Notify,
}

/// Agents, and the token of the next page, empty on the last.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// By agent id and card.
    pub agents: Vec<proto::ManagedAgent>,
    /// For the next page.
    pub next_page_token: String,
}

impl Managed {
    /// Takes up those that are written down.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn new(parts: Parts) -> Result<Self, store::Error> {
        // Of a store that others share everything is heard later, and again and again.
        let kept = match &parts.shared {
            None => parts.store.all().await?,
            Some(_) => Vec::new(),
        };
        let now = parts.clock.monotonic();
        let entries = kept
            .into_iter()
            .map(|kept| (kept.key(), Entry::new(kept, now)))
            .collect();
        Ok(Self {
            interval: parts.registry.heartbeat_interval(),
            sharing: parts.shared.clone().map(Sharing::new),
            parts,
            entries: Mutex::new(entries),
            changing: tokio::sync::Mutex::new(()),
            wake: tokio::sync::Notify::new(),
        })
    }

    /// Keeps an agent from now on, which has to be there.
    ///
    /// # Errors
    /// See [`Error`]; then nothing is kept that was not before.
    pub async fn keep(&self, request: &proto::RegisterByCardRequest) -> Result<proto::ManagedAgent, Error> {
        let url = card_url(&request.card_url)?;
        let namespace = wire::namespace("namespace", &request.namespace)?;
        let mut kept = Kept {
            card: url.to_string(),
            agent_id: request.agent_id.clone(),
            namespace: namespace.to_string(),
            binding: binding(&request.binding)?,
            region: request.region.clone(),
            zone: request.zone.clone(),
            weight: request.weight,
            since: self.parts.clock.now(),
        };
        let unavailable = |what| Error::Unavailable {
            card: kept.card.clone(),
            what,
        };
        let found = match join::fetch(&self.parts.outbound, &url, None).await {
            Ok(Fetched::Card(found)) => found,
            // Nothing was held.
            Ok(Fetched::Unchanged) => {
                return Err(unavailable("the agent answered 304 to who has none".to_owned()));
            }
            Err(what) => return Err(unavailable(what)),
        };
        let name = found.card.name.clone();
        let described = join::instance(&kept.wish(), &url, found.card)
            .map_err(|what| instance::Error::new("card.supported_interfaces", what))?;
        if kept.agent_id.is_empty() && described.agent_id.is_empty() {
            let what = format!("is missing, and the card's name '{name}' makes none; give a DNS label");
            return Err(instance::Error::new("agent_id", what).into());
        }
        wire::agent_id("agent_id", &described.agent_id)?;
        kept.agent_id.clone_from(&described.agent_id);
        self.reach(&described)
            .await
            .map_err(|what| instance::Error::new("card.supported_interfaces", what))?;
        self.admit(kept, described, found.tag).await
    }

    /// Registers an agent that is there and writes down that it is kept.
    async fn admit(
        &self,
        kept: Kept,
        described: proto::Instance,
        tag: Option<http::HeaderValue>,
    ) -> Result<proto::ManagedAgent, Error> {
        let _changing = self.changing.lock().await;
        if let Some(sharing) = &self.sharing {
            self.catch_up(sharing).await?;
        }
        let key = kept.key();
        self.check_place(&key, &described)?;
        let is_draining = self
            .entries
            .lock()
            .get(&key)
            .is_some_and(|before| before.held.is_draining);
        let grant = self.register(&described, is_draining).await?;
        let clock = &self.parts.clock;
        let held = Held {
            instance: Some(Arc::new(described)),
            tag,
            lease: Some(grant),
            is_draining,
        };
        let now = clock.monotonic();
        let mut entry = Entry::new(kept, now);
        entry.seen(held, clock.now(), now, self.interval);
        let written = match &self.sharing {
            None => self.parts.store.put(&entry.kept).await,
            Some(sharing) => sharing.store().put_found(&entry.kept, &entry.telling()).await,
        };
        if let Err(error) = written {
            self.end(Some(grant)).await;
            return Err(error.into());
        }
        let (agent, before) = {
            let mut entries = self.entries.lock();
            let before = entries.remove(&key).map(|before| {
                entry.follow(&before);
                before.held
            });
            let agent = entry.message();
            entries.insert(key, entry);
            (agent, before)
        };
        self.wake.notify_one();
        // What led elsewhere is led to no more; the same instance has its lease replaced already.
        let elsewhere = before.filter(|before| before.instance_id() != agent.instance_id);
        self.end(elsewhere.and_then(|before| before.lease)).await;
        Ok(agent)
    }

    /// Whether there is a place for this agent.
    fn check_place(&self, key: &Key, described: &proto::Instance) -> Result<(), Error> {
        let entries = self.entries.lock();
        if !entries.contains_key(key) && entries.len() >= self.parts.most {
            return Err(Error::Full {
                limit: self.parts.most,
            });
        }
        let twin = entries
            .iter()
            .filter(|(other, _)| other.namespace == key.namespace && *other != key)
            .find(|(_, entry)| entry.held.instance_id() == described.instance_id);
        match twin {
            None => Ok(()),
            Some((other, _)) => Err(instance::Error::new(
                "card_url",
                format!(
                    "agent '{}' at {} is kept by the card at {} already; forget that first",
                    other.agent_id, described.endpoint, other.card
                ),
            )
            .into()),
        }
    }

    /// Lists those of a namespace.
    ///
    /// # Errors
    /// The namespace or the token is none, or what another registry has found cannot be read.
    pub async fn list(
        &self,
        request: &proto::ListManagedAgentsRequest,
        reach: &Reach,
    ) -> Result<Page, Error> {
        let namespace = wire::namespace("namespace", &request.namespace)?;
        let after = page::after_managed(&namespace, &request.page_token)?;
        let size = page::size(request.page_size);
        let (agent_id, card) = after.clone().unwrap_or_default();
        let from = Key {
            namespace: namespace.to_string(),
            agent_id,
            card,
        };
        let begin = if after.is_some() {
            Bound::Excluded(&from)
        } else {
            Bound::Included(&from)
        };
        let (mut page, next_page_token) = {
            let entries = self.entries.lock();
            let mut found = entries
                .range((begin, Bound::Unbounded))
                .take_while(|(key, _)| *key.namespace == *namespace)
                .filter(|(key, _)| reach.sees(&key.namespace, &key.agent_id));
            let page: Vec<Entry> = found
                .by_ref()
                .take(size)
                .map(|(_, entry)| entry.clone())
                .collect();
            let next_page_token = match page.last() {
                Some(last) if found.next().is_some() => {
                    let Kept {
                        namespace,
                        agent_id,
                        card,
                        ..
                    } = &last.kept;
                    page::managed_token(namespace, agent_id, card)
                }
                _ => String::new(),
            };
            (page, next_page_token)
        };
        let keys: Vec<Key> = page.iter().map(|entry| entry.kept.key()).collect();
        let mut elsewhere = self.found_elsewhere(&keys).await?;
        for (entry, key) in page.iter_mut().zip(&keys) {
            if let Some(found) = elsewhere.remove(key) {
                entry.learn(found);
            }
        }
        Ok(Page {
            agents: page.iter().map(Entry::message).collect(),
            next_page_token,
        })
    }

    /// Keeps an agent no longer, or all that are kept by a card, and ends their leases.
    ///
    /// # Errors
    /// None is kept by that card, or it cannot be written down.
    pub async fn forget(
        &self,
        request: &proto::ForgetManagedAgentRequest,
    ) -> Result<Vec<proto::ManagedAgent>, Error> {
        let card = card_url(&request.card_url)?.to_string();
        let namespace = wire::namespace("namespace", &request.namespace)?;
        let _changing = self.changing.lock().await;
        if let Some(sharing) = &self.sharing {
            self.catch_up(sharing).await?;
        }
        let wanted = |key: &Key| {
            *key.namespace == *namespace
                && key.card == card
                && (request.agent_id.is_empty() || key.agent_id == request.agent_id)
        };
        let keys: Vec<Key> = self
            .entries
            .lock()
            .keys()
            .filter(|key| wanted(key))
            .cloned()
            .collect();
        if keys.is_empty() {
            return Err(Error::NotKept {
                card,
                agent_id: request.agent_id.clone(),
                namespace: namespace.to_string(),
            });
        }
        let mut elsewhere = self.found_elsewhere(&keys).await?;
        let mut forgotten = Vec::new();
        for key in keys {
            self.parts.store.remove(&key).await?;
            let entry = self.entries.lock().remove(&key);
            let Some(mut entry) = entry else { continue };
            if let Some(found) = elsewhere.remove(&key) {
                entry.learn(found);
            }
            self.end(entry.held.lease).await;
            forgotten.push(entry.message());
        }
        Ok(forgotten)
    }

    /// Whether an instance may be reached, and somebody listens there where that is asked of all instances.
    async fn reach(&self, described: &proto::Instance) -> Result<(), String> {
        let endpoint = &described.endpoint;
        let url: Url = endpoint
            .parse()
            .map_err(|error| format!("'{endpoint}' is no address: {error}"))?;
        self.parts
            .outbound
            .check(&url)
            .map_err(|failure| failure.to_string())?;
        if !self.parts.registry.probes_endpoints() {
            return Ok(());
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(format!("'{endpoint}' names no host"));
        };
        let connected = self.parts.outbound.connect(host, port).await;
        connected.map(drop).map_err(|failure| failure.to_string())
    }

    /// Registers an instance; says its lease.
    async fn register(&self, described: &proto::Instance, is_draining: bool) -> Result<Uuid, Error> {
        let mut instance = described.clone();
        if is_draining {
            instance.status = proto::InstanceStatus::Draining.into();
        }
        let granted = self.parts.registry.register_reached(instance).await;
        granted.map(|grant| grant.lease).map_err(|error| match error {
            // The caller's request has no `instance`: what is wrong is in the card, or beside it.
            registry::Error::Invalid(error) => {
                let field = error.field.strip_prefix("instance.").unwrap_or(&error.field);
                instance::Error::new(field, error.message).into()
            }
            other => Error::Registry(other),
        })
    }

    /// Ends a lease; where that fails it runs out.
    async fn end(&self, lease: Option<Uuid>) {
        let Some(lease) = lease else { return };
        let request = proto::DeregisterRequest {
            lease_id: lease.to_string(),
        };
        if let Err(error) = self.parts.registry.deregister(&request).await {
            tracing::warn!(%error, "a lease could not be ended; it runs out by itself");
        }
    }
}

impl Entry {
    /// As the contract has it.
    fn message(&self) -> proto::ManagedAgent {
        let Kept {
            card,
            agent_id,
            namespace,
            binding,
            region,
            zone,
            weight,
            since,
        } = self.kept.clone();
        let instance = self.held.instance.as_deref();
        let state = if self.problem.is_none() && self.held.lease.is_some() {
            proto::ManagedAgentState::Present
        } else {
            proto::ManagedAgentState::Absent
        };
        let problem = match (&self.problem, state) {
            (Some(problem), _) => problem.clone(),
            (None, proto::ManagedAgentState::Absent) => "it has not been asked for its card yet".to_owned(),
            (None, _) => String::new(),
        };
        proto::ManagedAgent {
            card_url: card,
            agent_id,
            namespace,
            asked_binding: binding,
            region,
            zone,
            weight,
            state: state.into(),
            problem,
            instance_id: instance.map(|it| it.instance_id.clone()).unwrap_or_default(),
            binding: instance.map(|it| it.binding.clone()).unwrap_or_default(),
            endpoint: instance.map(|it| it.endpoint.clone()).unwrap_or_default(),
            kept_since: Some(time::to_proto(since)),
            last_seen_at: self.seen_at.map(time::to_proto),
        }
    }
}

/// The address of a card.
fn card_url(text: &str) -> Result<Url, instance::Error> {
    if text.len() > LONGEST_ADDRESS {
        let what = format!("has {} bytes; use at most {LONGEST_ADDRESS}", text.len());
        return Err(instance::Error::new("card_url", what));
    }
    join::address(text).map_err(|what| instance::Error::new("card_url", what))
}

/// A binding that is asked for; empty for none.
fn binding(text: &str) -> Result<String, instance::Error> {
    if text.is_empty() || join::SPOKEN.contains(&text) {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(80).collect();
    let hint = names::suggestion(text, join::SPOKEN);
    let spoken = join::SPOKEN.join(", ");
    let what = format!("'{shown}' is no binding{hint}; use {spoken}, or none for the fastest");
    Err(instance::Error::new("binding", what))
}

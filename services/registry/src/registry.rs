//! The registry's use cases: read the request, ask the store, count.
//!
//! This is the application between the wire (`grpc.rs`) and the store; it decides nothing about leases itself.

use std::sync::Arc;
use std::time::Duration;

use muster_a2a::card::trust::Trust;
use muster_api::registry as proto;
use muster_runtime::clock::SharedClock;
use uuid::Uuid;

use crate::config::Settings;
use crate::discovery::{self, Found, Query, Rank};
use crate::federation;
use crate::federation::hub::{Hub, Standing};
use crate::federation::store::Federated;
use crate::instance::{self, Key, wire};
use crate::lease::{Agent, Grant, Renewal, Statistics, Wanted};
use crate::metrics::{Capability, Observer};
use crate::page;
use crate::probe::Probe;
use crate::reach::Reach;
use crate::store::{self, Since, Store, Watch};

/// Skills in the statistics when nothing is said.
const DEFAULT_SKILLS: u32 = 50;
/// Most skills in the statistics.
const MAX_SKILLS: u32 = 1_000;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is missing or malformed, or its endpoint answers nobody.
    #[error(transparent)]
    Invalid(#[from] instance::Error),
    /// The page token is none of ours.
    #[error(transparent)]
    PageToken(#[from] page::Error),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The agent is registered in another region, and only shown here.
    #[error(
        "agent '{agent_id}' is registered in region '{region}', and only its registry at {registry_url} changes it"
    )]
    Elsewhere {
        /// The agent.
        agent_id: Arc<str>,
        /// Its region.
        region: String,
        /// Where its registry is.
        registry_url: String,
    },
}

/// What the registry keeps, and what it shows.
pub struct Stores {
    /// The own instances.
    own: Arc<dyn Store>,
    /// The own ones, and those of other regions where those are followed.
    shown: Arc<dyn Store>,
    hub: Option<Arc<Hub>>,
}

impl Stores {
    /// The own store, with what is known of other regions.
    #[must_use]
    pub fn new(own: Arc<dyn Store>, hub: Option<Arc<Hub>>) -> Self {
        let shown = match &hub {
            Some(hub) => Arc::new(Federated::new(Arc::clone(&own), Arc::clone(hub))),
            None => Arc::clone(&own),
        };
        Self { own, shown, hub }
    }
}

/// See the module.
pub struct Registry {
    store: Arc<dyn Store>,
    own: Arc<dyn Store>,
    hub: Option<Arc<Hub>>,
    /// The region of instances that name none; empty for none.
    region: String,
    clock: SharedClock,
    probe: Option<Probe>,
    trust: Option<Trust>,
    observer: Arc<Observer>,
    heartbeat_interval: Duration,
    time_to_live: Duration,
}

/// Agents, and the token of the next page, empty on the last.
#[derive(Debug, Clone, PartialEq)]
pub struct Agents {
    /// By id.
    pub agents: Vec<Agent>,
    /// For the next page.
    pub next_page_token: String,
}

impl Registry {
    /// The use cases over what is kept.
    ///
    /// # Errors
    /// The keys that cards are to be signed with cannot be read.
    pub fn new(
        stores: Stores,
        clock: SharedClock,
        observer: Arc<Observer>,
        settings: &Settings,
    ) -> Result<Self, String> {
        let trust = Trust::load(&settings.card_trust, "registry.card_trust", clock.monotonic())?;
        Ok(Self {
            store: stores.shown,
            own: stores.own,
            hub: stores.hub,
            region: settings.federation.region.clone(),
            clock,
            probe: settings.probe_endpoints.then(Probe::default),
            trust,
            observer,
            heartbeat_interval: settings.heartbeat_interval(),
            time_to_live: settings.terms().time_to_live,
        })
    }

    /// How often instances are to send heartbeats.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        self.heartbeat_interval
    }

    /// Whether somebody has to listen at the endpoint of who registers.
    #[must_use]
    pub fn probes_endpoints(&self) -> bool {
        self.probe.is_some()
    }

    /// How long a lease lasts.
    #[must_use]
    pub fn time_to_live(&self) -> Duration {
        self.time_to_live
    }

    /// Registers an instance.
    pub async fn register(&self, request: proto::RegisterRequest) -> Result<Grant, Error> {
        let grant = self.grant(request).await;
        self.observer.registration(grant.is_ok());
        grant
    }

    /// Registers an instance of which is known that it is there, and where it may be reached.
    pub async fn register_reached(&self, instance: proto::Instance) -> Result<Grant, Error> {
        let grant = self.grant_to(instance, None).await;
        self.observer.registration(grant.is_ok());
        grant
    }

    async fn grant(&self, request: proto::RegisterRequest) -> Result<Grant, Error> {
        let message = request.instance.ok_or_else(|| {
            instance::Error::new(
                "instance",
                "is missing; send the instance that is to be registered",
            )
        })?;
        self.grant_to(message, self.probe.as_ref()).await
    }

    async fn grant_to(&self, message: proto::Instance, probe: Option<&Probe>) -> Result<Grant, Error> {
        let (mut profile, report) = wire::registration(message, self.fresh_id())?;
        if profile.region.is_empty() {
            profile.region.clone_from(&self.region);
        }
        self.check_signatures(&profile)?;
        if let Some(probe) = probe {
            probe.check(&profile.endpoint).await?;
        }
        Ok(self
            .store
            .register(self.fresh_id(), Arc::new(profile), report)
            .await?)
    }

    /// Refuses a card that nobody has signed whose signature counts.
    fn check_signatures(&self, profile: &instance::Profile) -> Result<(), instance::Error> {
        let Some(trust) = &self.trust else { return Ok(()) };
        match trust.check(profile.card.message(), self.clock.monotonic()) {
            Ok(None) => Ok(()),
            Ok(Some(problem)) => {
                let agent = &profile.key.agent_id;
                tracing::warn!(%agent, %problem, "registered although its card is not signed by a trusted key");
                Ok(())
            }
            Err(problem) => {
                let field = format!("instance.card.{}", problem.field());
                Err(instance::Error::new(field, problem.what))
            }
        }
    }

    /// Renews a lease.
    pub async fn heartbeat(&self, request: &proto::HeartbeatRequest) -> Result<(Uuid, Renewal), Error> {
        let renewal = self.renew(request).await;
        self.observer.heartbeat(renewal.is_ok());
        renewal
    }

    async fn renew(&self, request: &proto::HeartbeatRequest) -> Result<(Uuid, Renewal), Error> {
        let lease = wire::instance_id("lease_id", &request.lease_id)?;
        let report = wire::report(request)?;
        Ok((lease, self.store.renew(lease, report).await?))
    }

    /// Whose instance has the lease that a request names; `None` where it names none that is known.
    pub async fn holder(&self, lease: &str) -> Result<Option<Key>, Error> {
        let lease = wire::instance_id("lease_id", lease)?;
        Ok(self.store.holder(lease).await?)
    }

    /// Ends a lease.
    pub async fn deregister(&self, request: &proto::DeregisterRequest) -> Result<(), Error> {
        let lease = wire::instance_id("lease_id", &request.lease_id)?;
        Ok(self.store.end(lease).await?)
    }

    /// Takes instances out of the choice.
    pub async fn drain(&self, request: &proto::DrainRequest) -> Result<u32, Error> {
        let namespace = wire::namespace("namespace", &request.namespace)?;
        let agent_id = wire::agent_id("agent_id", &request.agent_id)?;
        let instance_id = match request.instance_id.as_str() {
            "" => None,
            text => Some(wire::instance_id("instance_id", text)?),
        };
        let drained = self.store.drain(&namespace, &agent_id, instance_id).await;
        if let (Err(error), Some(hub)) = (&drained, &self.hub)
            && federation::is_unknown(error)
        {
            if let Some(home) = federation::store::home(hub, &namespace, &agent_id, instance_id) {
                return Err(Error::Elsewhere {
                    agent_id,
                    region: home.region.clone(),
                    registry_url: home.registry_url.clone(),
                });
            }
            // Names that are spelt like it may be of other regions.
            self.store.agent(&namespace, &agent_id, &Reach::All).await?;
        }
        Ok(drained?)
    }

    /// How it is with the registries of other regions, and how many instances of each are shown.
    pub fn peers(&self, request: &proto::GetStatisticsRequest, reach: &Reach) -> Vec<Standing> {
        let namespace = Some(request.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        self.hub
            .as_ref()
            .map_or_else(Vec::new, |hub| hub.standings(namespace, reach))
    }

    /// Finds instances for whoever asks; says the token of the next page, empty on the last.
    pub async fn discover(
        &self,
        mut request: proto::DiscoverRequest,
        reach: Reach,
    ) -> Result<(Found, String), Error> {
        let page_token = std::mem::take(&mut request.page_token);
        let mut query = Query::try_from(request)?;
        query.reach = reach;
        query.after = page::after_instance(&query.namespace, query.sort, &page_token)?;
        let found = self.store.discover(&query).await?;
        let mut skills = query.skills.iter();
        let capability = match (skills.next(), skills.next()) {
            (None, _) => Capability::Any,
            (Some(_), Some(_)) => Capability::Several,
            // Counted for the operator, whoever asks.
            (Some(skill), None)
                if self
                    .store
                    .knows_skill(&query.namespace, skill, &Reach::All)
                    .await? =>
            {
                Capability::Known(skill)
            }
            (Some(_), None) => Capability::Unknown,
        };
        self.observer.discovery(capability, !found.instances.is_empty());
        let next_page_token = match found.instances.last() {
            Some(last) if found.more => {
                page::instance_token(&query.namespace, query.sort, &Rank::of(query.sort, last))
            }
            _ => String::new(),
        };
        Ok((found, next_page_token))
    }

    /// Reads one agent.
    pub async fn agent(&self, request: &proto::GetAgentRequest, reach: &Reach) -> Result<Agent, Error> {
        let namespace = wire::namespace("namespace", &request.namespace)?;
        let agent_id = wire::agent_id("agent_id", &request.agent_id)?;
        Ok(self.store.agent(&namespace, &agent_id, reach).await?)
    }

    /// Lists agents.
    pub async fn agents(&self, request: &proto::ListAgentsRequest, reach: Reach) -> Result<Agents, Error> {
        let namespace = wire::namespace("namespace", &request.namespace)?;
        let after = page::after(&namespace, &request.page_token)?;
        let statuses = discovery::statuses(&request.statuses)?;
        let region = wire::label("region", request.region.clone())?;
        let wanted = Wanted {
            statuses: Some(statuses).filter(|statuses| !statuses.is_empty()),
            region: Some(region).filter(|region| !region.is_empty()),
            reach,
        };
        let page = self
            .store
            .agents(
                &namespace,
                after.as_deref(),
                page::size(request.page_size),
                &wanted,
            )
            .await?;
        let next_page_token = match page.agents.last() {
            Some(last) if page.more => page::token(&namespace, &last.agent_id),
            _ => String::new(),
        };
        Ok(Agents {
            agents: page.agents,
            next_page_token,
        })
    }

    /// Counts what there is.
    pub async fn statistics(
        &self,
        request: &proto::GetStatisticsRequest,
        reach: &Reach,
    ) -> Result<Statistics, Error> {
        let namespace = match request.namespace.as_str() {
            "" => None,
            text => Some(wire::namespace("namespace", text)?),
        };
        let most_skills = match request.max_skills {
            0 => DEFAULT_SKILLS,
            asked => asked.min(MAX_SKILLS),
        };
        let statistics = self
            .store
            .statistics(namespace.as_deref(), most_skills as usize, reach);
        Ok(statistics.await?)
    }

    /// Watches all instances. A place that is none of ours is no mistake of the watcher's, who may have got it from another
    /// life of the registry: it gets a snapshot.
    pub async fn watch(&self, request: &proto::WatchAgentsRequest, reach: Reach) -> Result<Watch, Error> {
        let incarnation = Uuid::try_parse(&request.incarnation).ok();
        let since = incarnation.filter(|_| request.incremental && request.since_revision > 0);
        let since = since.map(|incarnation| Since {
            incarnation,
            revision: request.since_revision,
        });
        let watched = if request.own_only { &self.own } else { &self.store };
        Ok(watched.watch(since).await?.within(reach))
    }

    /// A new UUIDv7 on the injected clock.
    fn fresh_id(&self) -> Uuid {
        let now = self.clock.now();
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds))
    }
}

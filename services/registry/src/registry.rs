//! The registry's use cases: read the request, ask the store, count.
//!
//! This is the application between the wire (`grpc.rs`) and the store; it decides nothing about leases itself.

use std::sync::Arc;
use std::time::Duration;

use muster_api::registry as proto;
use muster_runtime::clock::SharedClock;
use uuid::Uuid;

use crate::config::Settings;
use crate::discovery::{Found, Query};
use crate::instance::{self, wire};
use crate::lease::{Agent, Grant, Renewal};
use crate::metrics::{Capability, Observer};
use crate::page;
use crate::probe::Probe;
use crate::store::{self, Store, Watch};

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
}

/// See the module.
pub struct Registry {
    store: Arc<dyn Store>,
    clock: SharedClock,
    probe: Option<Probe>,
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
    /// The use cases over a store.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: SharedClock,
        observer: Arc<Observer>,
        settings: &Settings,
    ) -> Self {
        Self {
            store,
            clock,
            probe: settings.probe_endpoints.then(Probe::default),
            observer,
            heartbeat_interval: settings.heartbeat_interval(),
            time_to_live: settings.terms().time_to_live,
        }
    }

    /// How often instances are to send heartbeats.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        self.heartbeat_interval
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

    async fn grant(&self, request: proto::RegisterRequest) -> Result<Grant, Error> {
        let message = request.instance.ok_or_else(|| {
            instance::Error::new(
                "instance",
                "is missing; send the instance that is to be registered",
            )
        })?;
        let (profile, report) = wire::registration(message, self.fresh_id())?;
        if let Some(probe) = &self.probe {
            probe.check(&profile.endpoint).await?;
        }
        Ok(self
            .store
            .register(self.fresh_id(), Arc::new(profile), report)
            .await?)
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
        Ok(self.store.drain(&namespace, &agent_id, instance_id).await?)
    }

    /// Finds instances.
    pub async fn discover(&self, request: proto::DiscoverRequest) -> Result<Found, Error> {
        let query = Query::try_from(request)?;
        let found = self.store.discover(&query).await?;
        let mut skills = query.skills.iter();
        let capability = match (skills.next(), skills.next()) {
            (None, _) => Capability::Any,
            (Some(_), Some(_)) => Capability::Several,
            (Some(skill), None) if self.store.knows_skill(&query.namespace, skill).await? => {
                Capability::Known(skill)
            }
            (Some(_), None) => Capability::Unknown,
        };
        self.observer.discovery(capability, !found.instances.is_empty());
        Ok(found)
    }

    /// Reads one agent.
    pub async fn agent(&self, request: &proto::GetAgentRequest) -> Result<Agent, Error> {
        let namespace = wire::namespace("namespace", &request.namespace)?;
        let agent_id = wire::agent_id("agent_id", &request.agent_id)?;
        Ok(self.store.agent(&namespace, &agent_id).await?)
    }

    /// Lists agents.
    pub async fn agents(&self, request: &proto::ListAgentsRequest) -> Result<Agents, Error> {
        let namespace = wire::namespace("namespace", &request.namespace)?;
        let after = page::after(&namespace, &request.page_token)?;
        let page = self
            .store
            .agents(&namespace, after.as_deref(), page::size(request.page_size))
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

    /// Watches all instances.
    pub async fn watch(&self) -> Result<Watch, Error> {
        Ok(self.store.watch().await?)
    }

    /// A new UUIDv7 on the injected clock.
    fn fresh_id(&self) -> Uuid {
        let now = self.clock.now();
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds))
    }
}

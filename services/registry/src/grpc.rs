//! The registry over gRPC: decode, call, encode, and the only map from errors to statuses.

pub mod discover;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use jiff::SignedDuration;
use muster_api::error::{Error as ApiError, Reason};
use muster_api::registry::registry_service_server::RegistryService;
use muster_api::{registry as proto, time};
use muster_runtime::Shutdown;
use muster_runtime::trust::{Access, Peer, Role, Trust, Workload};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::federation::hub::Standing;
use crate::guests::{Guests, Seat};
use crate::instance;
use crate::lease::{self, Agent, Statistics};
use crate::managed::{self, Managed};
use crate::metrics::{Observer, Watching};
use crate::reach::Reach;
use crate::registry::{Error, Registry};
use crate::store::{self, Watch};
use crate::tally::Counts;
use crate::watching::{self, Form};

/// When a refused watcher may try again.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// When a registry or a node that is full may have room: the leases of instances that are gone end within a minute or two.
const ROOM_RETRY: Duration = Duration::from_secs(30);

/// See the module.
pub struct Service {
    registry: Arc<Registry>,
    managed: Arc<Managed>,
    observer: Arc<Observer>,
    trust: Trust,
    guests: Guests,
    shutdown: Shutdown,
}

impl Service {
    /// Serves the use cases; watching streams end when the shutdown is requested.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        managed: Arc<Managed>,
        observer: Arc<Observer>,
        trust: Trust,
        guests: Guests,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            registry,
            managed,
            observer,
            trust,
            guests,
            shutdown,
        }
    }

    /// A place to watch for whoever is none of our services, if there is one.
    fn seat(&self, access: &Access) -> Result<Option<Seat>, Status> {
        if access.caller().roles.has(Role::Service) || access.sees_all() {
            return Ok(None);
        }
        self.guests
            .seat(access.caller().key())
            .map(Some)
            .map_err(|limit| {
                access.limited(&format!("{limit} streams that watch"));
                status(Error::Store(store::Error::TooManyWatchers { limit }))
            })
    }

    /// Who an agent that registers itself has proven to be; empty for those that others register.
    fn identity<T>(&self, request: &Request<T>) -> String {
        request
            .extensions()
            .get::<Peer>()
            .and_then(Peer::id)
            .filter(|id| self.trust.workload_of(id) == Some(Workload::Agent))
            .map_or_else(String::new, ToString::to_string)
    }

    /// Refuses a change to a lease by whoever has no grant for its agent; false where a lease is not known, so that nobody can say
    /// whose it is. Then it is as good as ended for who is not granted everything.
    async fn may_change_lease(&self, access: &Access, lease: &str) -> Result<bool, Status> {
        if Reach::of(access).is_all() {
            return Ok(true);
        }
        let holder = self.registry.holder(lease).await.map_err(status)?;
        if let Some(key) = &holder {
            may_change(access, &key.namespace, &key.agent_id)?;
        }
        Ok(holder.is_some())
    }

    fn lease(&self, lease: Uuid, epoch: u64) -> proto::Lease {
        let duration = |duration: Duration| {
            time::duration_to_proto(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX))
        };
        proto::Lease {
            lease_id: lease.to_string(),
            epoch,
            time_to_live: Some(duration(self.registry.time_to_live())),
            heartbeat_interval: Some(duration(self.registry.heartbeat_interval())),
        }
    }
}

/// Which agents there are for whoever makes a request.
fn reach<T>(request: &Request<T>) -> Reach {
    Reach::of(&Access::in_extensions(request.extensions()))
}

/// Refuses whoever has no grant for an agent, with a line in the audit log.
fn may_change(access: &Access, namespace: &str, agent_id: &str) -> Result<(), ApiError> {
    access.namespace(namespace)?;
    access.target(agent_id)
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RegistryService for Service {
    type WatchAgentsStream = BoxStream<'static, Result<proto::WatchAgentsResponse, Status>>;

    async fn register(&self, request: Request<proto::RegisterRequest>) -> Answer<proto::RegisterResponse> {
        let identity = self.identity(&request);
        let access = Access::in_extensions(request.extensions());
        let mut message = request.into_inner();
        if let Some(instance) = &mut message.instance {
            may_change(&access, &instance.namespace, &instance.agent_id)?;
            access.acts_as(&instance.agent_id)?;
            // Whatever it says itself.
            instance.spiffe_id = identity;
        }
        let grant = self.registry.register(message).await.map_err(status)?;
        Ok(Response::new(proto::RegisterResponse {
            lease: Some(self.lease(grant.lease, grant.instance.epoch)),
            instance: Some((&grant.instance).into()),
        }))
    }

    async fn heartbeat(&self, request: Request<proto::HeartbeatRequest>) -> Answer<proto::HeartbeatResponse> {
        let access = Access::in_extensions(request.extensions());
        let lease = request.get_ref().lease_id.as_str();
        if !self.may_change_lease(&access, lease).await? {
            let lease =
                instance::wire::instance_id("lease_id", lease).map_err(|error| status(error.into()))?;
            return Err(status(Error::Store(lease::Error::LeaseNotFound { lease }.into())));
        }
        let (lease, renewal) = self.registry.heartbeat(request.get_ref()).await.map_err(status)?;
        Ok(Response::new(proto::HeartbeatResponse {
            lease: Some(self.lease(lease, renewal.epoch)),
            drain_requested: renewal.drain_requested,
        }))
    }

    async fn deregister(
        &self,
        request: Request<proto::DeregisterRequest>,
    ) -> Answer<proto::DeregisterResponse> {
        let access = Access::in_extensions(request.extensions());
        if self
            .may_change_lease(&access, &request.get_ref().lease_id)
            .await?
        {
            self.registry
                .deregister(request.get_ref())
                .await
                .map_err(status)?;
        }
        Ok(Response::new(proto::DeregisterResponse {}))
    }

    async fn drain(&self, request: Request<proto::DrainRequest>) -> Answer<proto::DrainResponse> {
        let access = Access::in_extensions(request.extensions());
        let asked = request.get_ref();
        may_change(&access, &asked.namespace, &asked.agent_id)?;
        let instances = self.registry.drain(asked).await.map_err(status)?;
        Ok(Response::new(proto::DrainResponse { instances }))
    }

    async fn discover(&self, request: Request<proto::DiscoverRequest>) -> Answer<proto::DiscoverResponse> {
        let reach = reach(&request);
        let (found, next_page_token) = self
            .registry
            .discover(request.into_inner(), reach)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::DiscoverResponse {
            instances: found.instances.iter().map(Into::into).collect(),
            nearest_skills: found.nearest_skills,
            next_page_token,
        }))
    }

    async fn get_agent(&self, request: Request<proto::GetAgentRequest>) -> Answer<proto::GetAgentResponse> {
        let agent = self
            .registry
            .agent(request.get_ref(), &reach(&request))
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GetAgentResponse {
            agent: Some((&agent).into()),
        }))
    }

    async fn list_agents(
        &self,
        request: Request<proto::ListAgentsRequest>,
    ) -> Answer<proto::ListAgentsResponse> {
        let page = self
            .registry
            .agents(request.get_ref(), reach(&request))
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListAgentsResponse {
            agents: page.agents.iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn get_statistics(
        &self,
        request: Request<proto::GetStatisticsRequest>,
    ) -> Answer<proto::GetStatisticsResponse> {
        let reach = reach(&request);
        let statistics = self
            .registry
            .statistics(request.get_ref(), &reach)
            .await
            .map_err(status)?;
        let peers = self.registry.peers(request.get_ref(), &reach);
        let mut answer: proto::GetStatisticsResponse = statistics.into();
        let mut foreign = Counts::default();
        for peer in &peers {
            foreign.merge(&peer.counts);
        }
        answer.foreign = Some(counts(&foreign, 0));
        answer.peers = peers.into_iter().map(Into::into).collect();
        Ok(Response::new(answer))
    }

    async fn watch_agents(
        &self,
        request: Request<proto::WatchAgentsRequest>,
    ) -> Answer<Self::WatchAgentsStream> {
        let reach = reach(&request);
        let seat = self.seat(&Access::in_extensions(request.extensions()))?;
        let request = request.get_ref();
        let watch = self.registry.watch(request, reach).await.map_err(status)?;
        let form = if request.incremental {
            Form::Incremental
        } else {
            Form::Whole
        };
        let watching = (self.observer.watching(), seat);
        Ok(Response::new(
            responses(watch, form, self.shutdown.clone(), watching).boxed(),
        ))
    }

    async fn register_by_card(
        &self,
        request: Request<proto::RegisterByCardRequest>,
    ) -> Answer<proto::RegisterByCardResponse> {
        let agent = self
            .managed
            .keep(request.get_ref())
            .await
            .map_err(managed_status)?;
        Ok(Response::new(proto::RegisterByCardResponse {
            agent: Some(agent),
        }))
    }

    async fn list_managed_agents(
        &self,
        request: Request<proto::ListManagedAgentsRequest>,
    ) -> Answer<proto::ListManagedAgentsResponse> {
        let page = self
            .managed
            .list(request.get_ref(), &reach(&request))
            .await
            .map_err(managed_status)?;
        Ok(Response::new(proto::ListManagedAgentsResponse {
            agents: page.agents,
            next_page_token: page.next_page_token,
        }))
    }

    async fn forget_managed_agent(
        &self,
        request: Request<proto::ForgetManagedAgentRequest>,
    ) -> Answer<proto::ForgetManagedAgentResponse> {
        let agents = self
            .managed
            .forget(request.get_ref())
            .await
            .map_err(managed_status)?;
        Ok(Response::new(proto::ForgetManagedAgentResponse { agents }))
    }
}

/// What the watcher is told, and at the end the reason for it.
fn responses(
    watch: Watch,
    form: Form,
    shutdown: Shutdown,
    watching: (Watching, Option<Seat>),
) -> impl stream::Stream<Item = Result<proto::WatchAgentsResponse, Status>> {
    let told = watching::responses(watch, form);
    let open = Some((told, shutdown, watching));
    stream::unfold(open, |open| async move {
        let (mut told, shutdown, watching) = open?;
        let next = tokio::select! {
            biased;
            () = shutdown.requested() => None,
            next = told.next() => next,
        };
        match next {
            Some(Ok(response)) => Some((Ok(response), Some((told, shutdown, watching)))),
            Some(Err(error)) => Some((Err(status(error.into())), None)),
            None => {
                let ending = ApiError::new(Reason::ShuttingDown, "the registry is shutting down");
                Some((Err(ending.with_retry_after(WATCH_AGAIN).into()), None))
            }
        }
    })
}

impl From<Statistics> for proto::GetStatisticsResponse {
    fn from(statistics: Statistics) -> Self {
        use proto::get_statistics_response::{NamespaceStatistics, SkillStatistics};

        let namespaces = statistics.namespaces.iter();
        let skills = statistics.skills.into_iter();
        Self {
            total: Some(counts(&statistics.total, statistics.offline)),
            namespaces: namespaces
                .map(|(namespace, found, offline)| NamespaceStatistics {
                    namespace: namespace.to_string(),
                    statistics: Some(counts(found, *offline)),
                })
                .collect(),
            namespaces_total: statistics.namespaces_total as u64,
            skills: skills
                .map(|(namespace, skill, instances)| SkillStatistics {
                    namespace: namespace.to_string(),
                    skill,
                    instances,
                })
                .collect(),
            skills_total: statistics.skills_total as u64,
            expired_total: statistics.expired,
            revision: statistics.revision,
            foreign: None,
            peers: Vec::new(),
        }
    }
}

impl From<Standing> for proto::get_statistics_response::PeerStatistics {
    fn from(standing: Standing) -> Self {
        Self {
            region: standing.region,
            registry_url: standing.registry_url,
            connected: standing.stale_since.is_none(),
            stale_since: standing.stale_since.map(time::to_proto),
            statistics: Some(counts(&standing.counts, 0)),
            left_out: standing.left_out as u64,
            resyncs_total: standing.resyncs,
            problem: standing.problem,
        }
    }
}

fn counts(counts: &Counts, offline: u64) -> proto::Statistics {
    proto::Statistics {
        agents: counts.agents,
        instances: counts.live(),
        active: counts.of(instance::Status::Active),
        busy: counts.of(instance::Status::Busy),
        draining: counts.of(instance::Status::Draining),
        maintenance: counts.of(instance::Status::Maintenance),
        offline,
        mean_load: counts.mean_load(),
    }
}

impl From<&Agent> for proto::Agent {
    fn from(agent: &Agent) -> Self {
        let newest = agent.instances.iter().max_by_key(|instance| instance.epoch);
        Self {
            agent_id: agent.agent_id.to_string(),
            namespace: agent.namespace.to_string(),
            card: newest.map(|instance| instance.profile.card.message().clone()),
            instances: agent.instances.iter().map(Into::into).collect(),
        }
    }
}

/// The map. It has no catch-all: a new error does not compile until it has a reason.
fn status(error: Error) -> Status {
    let message = error.to_string();
    let mapped = match error {
        Error::Invalid(invalid) => ApiError::invalid_field(invalid.field, invalid.message),
        Error::PageToken(_) => ApiError::new(Reason::InvalidPageToken, message).with_field("page_token"),
        Error::Elsewhere {
            region, registry_url, ..
        } => ApiError::new(Reason::AgentElsewhere, message)
            .with_metadata("region", region)
            .with_metadata("registry_url", registry_url),
        Error::Store(store::Error::Lease(refusal)) => match refusal {
            lease::Error::LeaseNotFound { .. } => ApiError::new(Reason::LeaseNotFound, message),
            lease::Error::NodeFull { node, limit } => ApiError::new(Reason::NodeFull, message)
                .with_retry_after(ROOM_RETRY)
                .with_metadata("node", node)
                .with_metadata("limit", limit.to_string()),
            // The catalogue has one reason for a registry that takes no more instances; the message says which
            // limit it was.
            lease::Error::TableFull { limit } => ApiError::new(Reason::RegistryFull, message)
                .with_retry_after(ROOM_RETRY)
                .with_metadata("limit", limit.to_string()),
            lease::Error::AgentNotFound { nearest, .. } => {
                ApiError::new(Reason::AgentNotFound, message).with_metadata("nearest", nearest.join(","))
            }
            lease::Error::InstanceNotFound { .. } => ApiError::new(Reason::AgentNotFound, message),
        },
        Error::Store(
            store::Error::TooManyWatchers { .. }
            | store::Error::WatchOverrun { .. }
            | store::Error::WatchInterrupted,
        ) => ApiError::new(Reason::WatchOverrun, message).with_retry_after(WATCH_AGAIN),
        Error::Store(store::Error::Unavailable(_)) => {
            ApiError::new(Reason::StoreUnavailable, message).with_retry_after(WATCH_AGAIN)
        }
    };
    mapped.into()
}

/// The map for agents that are kept by their cards.
fn managed_status(error: managed::Error) -> Status {
    let message = error.to_string();
    let mapped = match error {
        managed::Error::Registry(error) => return status(error),
        managed::Error::Unavailable { card, .. } => {
            ApiError::new(Reason::CardUnavailable, message).with_metadata("card", card)
        }
        managed::Error::Full { limit } => ApiError::new(Reason::RegistryFull, message)
            .with_retry_after(ROOM_RETRY)
            .with_metadata("limit", limit.to_string()),
        managed::Error::NotKept { .. } => ApiError::new(Reason::AgentNotFound, message),
        managed::Error::Store(_) => {
            ApiError::new(Reason::StoreUnavailable, message).with_retry_after(WATCH_AGAIN)
        }
    };
    mapped.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Key;
    use crate::page;

    #[test]
    fn every_error_has_its_reason_and_survives_the_wire() {
        let lease = |error| Error::Store(store::Error::Lease(error));
        let key = Key {
            namespace: "n".into(),
            agent_id: "a".into(),
            instance_id: Uuid::from_u128(1),
        };
        let cases = [
            (
                Error::Invalid(instance::Error::new("load", "too much")),
                Reason::InvalidField,
            ),
            (Error::PageToken(page::Error), Reason::InvalidPageToken),
            (
                lease(lease::Error::LeaseNotFound { lease: Uuid::nil() }),
                Reason::LeaseNotFound,
            ),
            (
                lease(lease::Error::NodeFull {
                    node: "n".into(),
                    limit: 1,
                }),
                Reason::NodeFull,
            ),
            (lease(lease::Error::TableFull { limit: 1 }), Reason::RegistryFull),
            (
                lease(lease::Error::AgentNotFound {
                    namespace: "n".into(),
                    agent_id: "a".into(),
                    nearest: vec!["b".into()],
                }),
                Reason::AgentNotFound,
            ),
            (
                lease(lease::Error::InstanceNotFound { key }),
                Reason::AgentNotFound,
            ),
            (
                Error::Store(store::Error::TooManyWatchers { limit: 1 }),
                Reason::WatchOverrun,
            ),
            (
                Error::Store(store::Error::WatchOverrun { queue: 1 }),
                Reason::WatchOverrun,
            ),
            (Error::Store(store::Error::WatchInterrupted), Reason::WatchOverrun),
            (
                Error::Elsewhere {
                    agent_id: "a".into(),
                    region: "eu".to_owned(),
                    registry_url: "http://eu:7401".to_owned(),
                },
                Reason::AgentElsewhere,
            ),
            (
                Error::Store(store::Error::Unavailable("gone".into())),
                Reason::StoreUnavailable,
            ),
        ];
        for (error, reason) in cases {
            let told = ApiError::from_status(&status(error.clone())).expect("one of ours");
            assert_eq!(told.reason, reason, "{error}");
            assert_eq!(told.message, error.to_string());
            says_when(&told);
        }
    }

    /// Whoever is refused for now hears when to come again.
    fn says_when(told: &ApiError) {
        let is_for_now = matches!(
            told.reason.code(),
            tonic::Code::Unavailable | tonic::Code::ResourceExhausted
        );
        assert_eq!(told.retry_after.is_some(), is_for_now, "{told}");
    }

    #[test]
    fn so_has_every_error_of_agents_that_are_kept() {
        let card = || "http://a/".to_owned();
        let cases = [
            (
                managed::Error::Registry(Error::PageToken(page::Error)),
                Reason::InvalidPageToken,
            ),
            (
                managed::Error::Unavailable {
                    card: card(),
                    what: "no answer".into(),
                },
                Reason::CardUnavailable,
            ),
            (managed::Error::Full { limit: 1 }, Reason::RegistryFull),
            (
                managed::Error::NotKept {
                    card: card(),
                    agent_id: "a".into(),
                    namespace: "n".into(),
                },
                Reason::AgentNotFound,
            ),
            (
                managed::Error::Store(managed::store::Error("full".into())),
                Reason::StoreUnavailable,
            ),
        ];
        for (error, reason) in cases {
            let told = ApiError::from_status(&managed_status(error.clone())).expect("one of ours");
            says_when(&told);
            assert_eq!((told.reason, told.message), (reason, error.to_string()));
        }
    }
}

//! Registries of several regions that learn each other's agents.
//!
//! ```text
//! mirror.rs     the agents of one other region, as its registry tells them: pure
//! union.rs      the own ones and those of all others as one, with one history: pure
//! hub.rs        the union behind a lock, and who watches it
//! follower.rs   the stream from another registry
//! store.rs      the own store with the others beside it, for whoever reads
//! ```
//!
//! A registry follows each peer's *own* instances, and is asked by peers for its own alone (`own_only`). So nothing goes round,
//! whoever follows whom, and an entry is never further from its home than one stream. What is learned is only shown: leases,
//! heartbeats and drains are the home registry's. An agent that cannot reach its home may register here; then it is this
//! registry's own instance, whatever the other says of it.
//!
//! Instances come with their home ([`Origin`](crate::instance::Origin)) and count towards no limit of the own ones; they have a limit of their own for each
//! peer. A registry that is not heard takes nobody's routing down: its instances are marked as stale and stay for
//! `registry.federation.grace_seconds`.
//!
//! Registries over one Redis each follow the peers and keep what they learn in memory, beside their mirrors of the own store.
//! It costs a stream per registry and peer, and nothing has to be agreed on: no leader among the replicas, no second truth in
//! Redis that outlives a peer's word, no writes at the rate of other regions' heartbeats. A peer follows the name before the
//! replicas; they count its revisions alike, so that the stream goes on at another of them.
//!
//! Rejected: gossip (what is learned second-hand is older than what its home says, and two ways to learn the same need an
//! order between them); one store over all regions (an outage of it, or of the network between, would be everybody's).

pub mod follower;
pub mod hub;
pub mod mirror;
pub mod store;
pub mod union;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_rpc::endpoint::Endpoint;
use muster_runtime::clock::SharedClock;
use muster_runtime::health::Kind;
use muster_runtime::trust::{Identity, Workload};
use muster_runtime::{Chassis, Error};
use tokio::time::MissedTickBehavior;

use crate::config::Settings;
use crate::instance::Origin;
use crate::metrics::Observer;
use crate::reach::Reach;
use crate::store::{self as stores, Since, Store, Watch};
use hub::Hub;

/// How often it is looked what has been kept for long enough.
const SWEEP: Duration = Duration::from_secs(1);
/// The pause after the own store could not be watched.
const PAUSE: Duration = Duration::from_secs(1);
/// Changes of the own store that are taken over at once.
const TOGETHER: usize = 256;
/// How long it may take to say how it is with the peers; it is known already.
const ASKED: Duration = Duration::from_secs(1);

/// What is known at the start, before anybody is followed.
pub struct Opened {
    hub: Arc<Hub>,
    own: Arc<dyn Store>,
    /// The own instances from here on.
    watch: Watch,
    peers: Vec<(Arc<Origin>, Endpoint)>,
}

/// Opens what the settings name; `None` where they name no peer.
///
/// # Errors
/// An address is none, or the own store cannot be watched.
pub async fn open(
    settings: &Settings,
    own: &Arc<dyn Store>,
    clock: &SharedClock,
) -> Result<Option<Opened>, Error> {
    let addresses = settings.federation.addresses().map_err(Error::Other)?;
    if addresses.is_empty() {
        return Ok(None);
    }
    let peers: Vec<(Arc<Origin>, Endpoint)> = addresses
        .into_iter()
        .map(|(region, endpoint)| (Arc::new(Origin::new(region, endpoint.to_string())), endpoint))
        .collect();
    let hub = Arc::new(Hub::new(
        peers.iter().map(|(origin, _)| Arc::clone(origin)).collect(),
        settings.federation.bounds(),
        settings.watch_limits(),
        Arc::clone(clock),
    ));
    // Before anybody is answered, so that nobody takes a beginning for an end.
    let watch = own.watch(None).await;
    let mut watch = watch.map_err(|error| Error::Other(error.to_string()))?;
    hub.own_replaced(watch.snapshot.take().unwrap_or_default());
    Ok(Some(Opened {
        hub,
        own: Arc::clone(own),
        watch,
        peers,
    }))
}

impl Opened {
    /// What is known from now on, with the tasks and the check that it needs. To the others this registry is `identity`.
    #[must_use]
    pub fn attended(self, observer: &Arc<Observer>, chassis: &Chassis, identity: &Identity) -> Arc<Hub> {
        let Self {
            hub,
            own,
            watch,
            peers,
        } = self;
        let tasks = &chassis.tasks;
        let followed = Arc::clone(&hub);
        tasks.essential_until_shutdown("own instances", async move {
            follow_own(&followed, &*own, watch).await;
            Ok::<(), Infallible>(())
        });
        for (index, (origin, endpoint)) in peers.into_iter().enumerate() {
            let hub = Arc::clone(&hub);
            let registry = identity.channel(&endpoint, &chassis.trust.to(Workload::Registry));
            tasks.essential_until_shutdown(format!("region {}", origin.region), async move {
                follower::follow(hub, index, origin, registry).await;
                Ok::<(), Infallible>(())
            });
        }
        let (swept, observer) = (Arc::clone(&hub), Arc::clone(observer));
        let clock = Arc::clone(&chassis.clock);
        tasks.essential_until_shutdown("regions", async move {
            sweep(&swept, &observer, &clock).await;
            Ok::<(), Infallible>(())
        });
        let checked = Arc::clone(&hub);
        chassis
            .health
            .check(Kind::Informational, "other regions", ASKED, move || {
                let outcome = all_are_followed(&checked);
                async move { outcome }
            });
        hub
    }
}

/// Looks every second, for ever, what has been kept for long enough.
async fn sweep(hub: &Hub, observer: &Observer, clock: &SharedClock) {
    let mut interval = tokio::time::interval(SWEEP);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        hub.sweep();
        observer.federation(&hub.standings(None, &Reach::All), clock.now());
    }
}

fn all_are_followed(hub: &Hub) -> Result<(), String> {
    let lost: Vec<String> = hub
        .standings(None, &Reach::All)
        .into_iter()
        .filter(|standing| standing.stale_since.is_some())
        .map(|standing| format!("{}: {}", standing.region, standing.problem))
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(format!("registries that are not followed: {}", lost.join("; ")))
}

/// Takes the own store's changes over for ever.
async fn follow_own(hub: &Hub, own: &dyn Store, first: Watch) {
    let mut watch = first;
    loop {
        if let Some(instances) = watch.snapshot.take() {
            hub.own_replaced(instances);
        }
        let mut since = Since {
            incarnation: watch.incarnation,
            revision: watch.revision,
        };
        let mut changes = watch.events.ready_chunks(TOGETHER);
        let why = loop {
            let Some(changes) = changes.next().await else {
                break None;
            };
            let (events, mut errors): (Vec<_>, Vec<_>) = changes.into_iter().partition(Result::is_ok);
            let events: Vec<_> = events.into_iter().flatten().collect();
            if let Some(last) = events.last() {
                since.revision = last.revision;
            }
            hub.own_changed(events);
            if let Some(Err(error)) = errors.pop() {
                break Some(error);
            }
        };
        tracing::debug!(?why, "the own store is watched anew");
        watch = loop {
            match own.watch(Some(since)).await {
                Ok(watch) => break watch,
                Err(error) => {
                    tracing::warn!(%error, "the own instances are not followed; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
    }
}

/// What an error of the own store says of an agent or an instance that it does not have.
pub(crate) fn is_unknown(error: &stores::Error) -> bool {
    use crate::lease::Error as Refusal;

    matches!(
        error,
        stores::Error::Lease(Refusal::AgentNotFound { .. } | Refusal::InstanceNotFound { .. })
    )
}

//! The registry: which agents are alive, what they can do and how loaded they are.
//!
//! ```text
//! grpc.rs            decode, call, encode; the map from errors to statuses
//! registry.rs        use cases: parse, probe the endpoint, ask the store, count
//! store.rs           the port;  store/memory.rs: the lease table behind a lock;  store/redis.rs: shared by replicas
//! opening.rs         which of the two
//! lease.rs  offline.rs  tally.rs  catalogue.rs  columns.rs  discovery.rs  instance.rs  page.rs  changes.rs
//!                    the rules, pure
//! watching.rs        what a watcher is sent, in which pieces
//! upkeep.rs          ends leases on time for those who watch
//! managed.rs         agents that know nothing of the registry and are kept by their cards
//! federation.rs      agents of other regions, which their registries tell
//! ```
//!
//! An instance is believed for as long as its lease lasts, and a lease lasts as long as heartbeats come. That is the
//! whole truth the registry keeps, so a store may lose it: agents are then told that their
//! lease is unknown and register again, within one heartbeat interval. A durable list of agents was rejected;
//! after an outage it would name the dead. Several registries are one by a store in Redis. Agents that know nothing of the
//! registry cannot register again: which of them to look for is written down (`registry.data_directory`, or that Redis), and the
//! registry looks for itself whether they are there.

pub mod catalogue;
pub mod changes;
pub mod columns;
pub mod config;
pub mod discovery;
pub mod federation;
pub mod grpc;
pub mod guests;
pub mod instance;
pub mod lease;
pub mod managed;
pub mod metrics;
pub mod offline;
mod opening;
pub mod page;
pub mod probe;
pub mod reach;
pub mod registry;
pub mod store;
pub mod tally;
pub mod upkeep;
pub mod watching;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_rpc::outbound::Outbound;
use muster_runtime::health::Kind;
use muster_runtime::trust::{Identity, Role};
use muster_runtime::{Chassis, Error, Listeners, Shutdown, Surface};

pub use config::{Config, Settings};
use guests::Guests;
use managed::Managed;
use managed::store::Entries;
use managed::store::embedded::Embedded;
use managed::store::memory::Memory;
use metrics::Observer;
use registry::{Registry, Stores};

/// How long the store may take to answer a readiness check.
const STORE_PATIENCE: Duration = Duration::from_secs(3);

/// Serves until the shutdown is requested and everything in flight has ended.
pub async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
    let settings = &config.registry;
    let mut chassis = Chassis::new(
        "registry",
        &config.server,
        &config.trust,
        metrics::DEFINITIONS,
        shutdown,
    )?;
    let clock = Arc::clone(&chassis.clock);
    let Some(opened) = opening::open(settings, &mut chassis, &listeners).await? else {
        return Ok(());
    };
    let (entries, shared) = match opened.shared_entries(settings) {
        Some(shared) => (Arc::clone(&shared) as Arc<dyn Entries>, Some(shared)),
        None => (entries(settings.data_directory.clone()).await?, None),
    };
    let store = opened.attended(&chassis);
    let observer = Arc::new(Observer::new(chassis.metrics.clone()));
    let identity = Identity::new(&config.trust.tokens, "registry", Role::Service).map_err(Error::Other)?;
    let opened = federation::open(settings, &store, &clock).await?;
    let hub = opened.map(|opened| opened.attended(&observer, &chassis, &identity));
    let registry = Registry::new(
        Stores::new(Arc::clone(&store), hub),
        Arc::clone(&clock),
        Arc::clone(&observer),
        settings,
    );
    let registry = Arc::new(registry.map_err(Error::Other)?);
    let managed = Managed::new(managed::Parts {
        registry: Arc::clone(&registry),
        store: Arc::clone(&entries),
        shared,
        outbound: Outbound::new(&settings.outbound, config::OUTBOUND)
            .map_err(|error| Error::Other(error.to_string()))?,
        clock,
        observer: Arc::clone(&observer),
        most: settings.max_managed_agents,
    });
    let managed = Arc::new(managed.await.map_err(|error| Error::Other(error.to_string()))?);
    let keeping = Arc::clone(&managed).run(chassis.shutdown.clone());
    chassis.tasks.essential("managed agents", keeping);
    chassis
        .health
        .check(Kind::Informational, "managed agents", STORE_PATIENCE, move || {
            let failure = entries.failure();
            async move { failure.map_or(Ok(()), Err) }
        });

    let checked = Arc::clone(&store);
    chassis
        .health
        .check(Kind::Readiness, "store", STORE_PATIENCE, move || {
            let store = Arc::clone(&checked);
            async move { store.census().await.map(drop).map_err(|error| error.to_string()) }
        });
    let upkeep = upkeep::run(store, Arc::clone(&observer), chassis.shutdown.clone());
    chassis.tasks.essential("lease upkeep", upkeep);

    let service = grpc::Service::new(
        registry,
        managed,
        observer,
        chassis.trust.clone(),
        Guests::of(config.registry.max_watchers),
        chassis.shutdown.clone(),
    );
    let service = grpc::discover::Server::new(service, config.server.max_message_bytes);
    chassis
        .serve(
            listeners,
            Surface::new(muster_api::FILE_DESCRIPTOR_SET).grpc(service),
        )
        .await
}

/// Where it is written down which agents are kept by their cards.
async fn entries(directory: PathBuf) -> Result<Arc<dyn Entries>, Error> {
    if directory.as_os_str().is_empty() {
        return Ok(Arc::new(Memory::default()));
    }
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&directory)).await;
    let opened = opened.map_err(|error| Error::Other(format!("the store could not be opened: {error}")))?;
    let opened = opened?;
    if opened.is_moved() {
        tracing::warn!(
            "this registry keeps the agents from `registry.data_directory` again that it kept when they were taken over into Redis; agents that were kept or forgotten there since are not known here"
        );
        let noted = opened.set_moved(false).await;
        noted.map_err(|error| Error::Other(error.to_string()))?;
    }
    Ok(Arc::new(opened))
}

//! Opens the store that the settings name: in Redis where there is an endpoint, else in memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use muster_api::registry::registry_service_server::SERVICE_NAME;
use muster_runtime::health::Kind;
use muster_runtime::{Chassis, Error, Listeners};
use muster_store::redis::opening::OpenError;
use muster_store::redis::{Connection, opening, settings};

use crate::config::Settings;
use crate::managed::moving;
use crate::managed::store::Shared;
use crate::managed::store::redis::Redis as Entries;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::store::redis::{Options, Redis, Work};

/// The section of the settings.
const SECTION: &str = "registry";

/// How long it may take to say how Redis is; it is known already.
const ASKED: Duration = Duration::from_secs(1);

/// A store that was opened.
pub(crate) enum Opened {
    /// In memory.
    Memory(Box<MemoryStore>),
    /// In Redis, with what has to run for it.
    Redis(Redis, Work),
}

/// Opens the store; `None` where the shutdown was asked for while Redis was away.
pub(crate) async fn open(
    settings: &Settings,
    chassis: &mut Chassis,
    listeners: &Listeners,
) -> Result<Option<Opened>, Error> {
    let clock = Arc::clone(&chassis.clock);
    let Some(endpoint) = &settings.redis_cluster_endpoint else {
        let store = MemoryStore::new(clock, settings.terms(), settings.watch_limits());
        return Ok(Some(Opened::Memory(Box::new(store))));
    };
    let connection = settings.redis.connect(SECTION, endpoint).await?;
    let waiting = connection.clone();
    let latch = chassis.health.latch_because("opening", move || waiting.waits());
    let attempt = || {
        let options = Options {
            prefix: settings.redis.key_prefix.clone(),
            terms: settings.terms(),
            feed: settings.watch_queue,
        };
        let opening = Redis::open(
            connection.clone(),
            options,
            settings.watch_limits(),
            Arc::clone(&clock),
        );
        async {
            let opened = opening.await?;
            move_entries(settings, &entries(settings, opened.0.connection())).await?;
            Ok(opened)
        }
    };
    let opening = opening::persist(&latch, attempt);
    let Some(opened) = chassis.hold(listeners, &[SERVICE_NAME], opening).await? else {
        return Ok(None);
    };
    let (redis, work) = opened.map_err(|error| {
        let key = settings::endpoint_key(SECTION);
        Error::Other(format!("{key}: {error}"))
    })?;
    tracing::info!(address = redis.address(), "leases are kept in Redis");
    Ok(Some(Opened::Redis(redis, work)))
}

/// Which agents are kept by their cards, in the Redis of a connection.
fn entries(settings: &Settings, connection: &Connection) -> Entries {
    let prefix = &settings.redis.key_prefix;
    Entries::new(connection.clone(), prefix, settings.keeper_lease())
}

/// Takes over which agents this registry has kept from its disk before it was given a Redis.
async fn move_entries(settings: &Settings, entries: &Entries) -> Result<(), OpenError> {
    let directory = &settings.data_directory;
    if directory.as_os_str().is_empty() {
        return Ok(());
    }
    let moving::Moved { taken, known } = moving::take_over(directory, entries).await?;
    if taken + known > 0 {
        tracing::info!(
            taken,
            known,
            directory = %directory.display(),
            "agents that were kept by their cards from `registry.data_directory` are kept in Redis now; known were there already"
        );
    }
    Ok(())
}

impl Opened {
    /// Where it is written down which agents are kept by their cards, where registries share that.
    pub(crate) fn shared_entries(&self, settings: &Settings) -> Option<Arc<dyn Shared>> {
        let Self::Redis(redis, _) = self else {
            return None;
        };
        Some(Arc::new(entries(settings, redis.connection())))
    }

    /// The store, with the tasks and checks that it needs.
    pub(crate) fn attended(self, chassis: &Chassis) -> Arc<dyn Store> {
        let (redis, work) = match self {
            Self::Memory(store) => return Arc::new(*store),
            Self::Redis(redis, work) => (redis, work),
        };
        chassis
            .tasks
            .essential_until_shutdown("following Redis", async move {
                work.run().await;
                Ok::<(), Infallible>(())
            });
        // Reads go on without Redis: a registry that were taken out of service for it would take discovery along.
        let checked = redis.clone();
        chassis
            .health
            .check(Kind::Informational, "redis", ASKED, move || {
                let redis = checked.clone();
                async move {
                    redis.health().map_err(|error| {
                        format!("reads are answered from memory, writes are refused: {error}")
                    })
                }
            });
        Arc::new(redis)
    }
}

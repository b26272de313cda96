//! Opens the store that the settings name: in Redis where there is an endpoint, else in memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use muster_runtime::clock::SharedClock;
use muster_runtime::health::Kind;
use muster_runtime::{Chassis, Error};
use muster_store::redis::{Address, Connection};

use crate::config::Settings;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::store::redis::{Options, Redis, Work};

const KEY: &str = "registry.redis_cluster_endpoint";

/// How long it may take to say how Redis is; it is known already.
const ASKED: Duration = Duration::from_secs(1);

/// A store that was opened.
pub(crate) enum Opened {
    /// In memory.
    Memory(Box<MemoryStore>),
    /// In Redis, with what has to run for it.
    Redis(Redis, Work),
}

/// Opens the store.
pub(crate) async fn open(settings: &Settings, clock: SharedClock) -> Result<Opened, Error> {
    match &settings.redis_cluster_endpoint {
        None => Ok(Opened::Memory(Box::new(MemoryStore::new(
            clock,
            settings.terms(),
            settings.watch_limits(),
        )))),
        Some(endpoint) => open_redis(settings, endpoint, clock).await,
    }
}

async fn open_redis(settings: &Settings, endpoint: &str, clock: SharedClock) -> Result<Opened, Error> {
    let mut address: Address = endpoint
        .parse()
        .map_err(|error| Error::Other(format!("{KEY}: {error}")))?;
    if let Some(path) = &settings.redis.certificate_authorities {
        let authorities = tokio::fs::read(path).await.map_err(|error| {
            let path = path.display();
            Error::Other(format!("registry.redis.certificate_authorities: {path}: {error}"))
        });
        address = address.with_authorities(authorities?);
    }
    let options = Options {
        prefix: settings.redis.key_prefix.clone(),
        terms: settings.terms(),
        feed: settings.watch_queue,
    };
    let connection = Connection::new(address, settings.redis.patience());
    let opened = Redis::open(connection, options, settings.watch_limits(), clock).await;
    let (redis, work) = opened.map_err(|error| Error::Other(format!("{KEY}: {error}")))?;
    tracing::info!(address = redis.address(), "leases are kept in Redis");
    Ok(Opened::Redis(redis, work))
}

impl Opened {
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

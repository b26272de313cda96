//! Opening what the router keeps: in Redis, in the data directory, or in memory, as the settings say.

use std::sync::Arc;

use muster_api::a2a::a2a_service_server::SERVICE_NAME as A2A;
use muster_api::router::inbox_service_server::SERVICE_NAME as INBOX;
use muster_api::router::router_service_server::SERVICE_NAME as ROUTER;
use muster_runtime::{Chassis, Error, Listeners};
use muster_store::redis::{Connection, opening, settings as sections};

use crate::config;
use crate::rate::Grants;
use crate::store::Owners;
use crate::store::answers::Answers;
use crate::store::embedded::{Embedded, EmbeddedAnswers};
use crate::store::memory::{Memory, MemoryAnswers};
use crate::store::redis::Redis;

/// The section of the settings.
const SECTION: &str = "router";

/// What is kept, and where. Clones share it.
#[derive(Clone)]
pub(crate) enum Opened {
    /// Nowhere: it ends with the process.
    Memory(Arc<Memory>, Arc<MemoryAnswers>),
    /// In the data directory.
    Embedded(Arc<Embedded>, Arc<EmbeddedAnswers>),
    /// In Redis, with all routers of the same prefix and namespace.
    Redis(Arc<Redis>),
}

impl Opened {
    /// Owners of tasks.
    pub(crate) fn owners(&self) -> Arc<dyn Owners> {
        match self {
            Self::Memory(store, _) => Arc::clone(store) as Arc<dyn Owners>,
            Self::Embedded(store, _) => Arc::clone(store) as Arc<dyn Owners>,
            Self::Redis(store) => Arc::clone(store) as Arc<dyn Owners>,
        }
    }

    /// Answers that outlive the process.
    pub(crate) fn answers(&self) -> Arc<dyn Answers> {
        match self {
            Self::Memory(_, store) => Arc::clone(store) as Arc<dyn Answers>,
            Self::Embedded(_, store) => Arc::clone(store) as Arc<dyn Answers>,
            Self::Redis(store) => Arc::clone(store) as Arc<dyn Answers>,
        }
    }

    /// What decides for all routers together, where there are others.
    pub(crate) fn grants(&self) -> Option<Arc<dyn Grants>> {
        match self {
            Self::Memory(..) | Self::Embedded(..) => None,
            Self::Redis(store) => Some(Arc::new(store.hasty()) as Arc<dyn Grants>),
        }
    }

    /// Why it takes no more writes, if it does not.
    pub(crate) fn health(&self) -> Result<(), String> {
        match self {
            Self::Memory(..) => Ok(()),
            Self::Embedded(store, _) => store.failure().map_or(Ok(()), Err),
            Self::Redis(store) => store.connection().health(),
        }
    }
}

/// A connection to the Redis that the settings name; none where they name none. Nothing is sent yet.
///
/// # Errors
/// The URL is none, or the file of authorities cannot be read; by the settings' keys.
pub async fn connect(settings: &config::Router) -> Result<Option<Connection>, Error> {
    let Some(endpoint) = &settings.redis_cluster_endpoint else {
        return Ok(None);
    };
    settings.redis.connect(SECTION, endpoint).await.map(Some)
}

/// Opens what the router keeps; `None` where the shutdown was asked for while Redis was away.
///
/// # Errors
/// The data directory cannot be used, or it or Redis holds something else.
pub(crate) async fn open(
    settings: &config::Router,
    chassis: &mut Chassis,
    listeners: &Listeners,
) -> Result<Option<Opened>, Error> {
    if let Some(connection) = connect(settings).await? {
        let waiting = connection.clone();
        let latch = chassis.health.latch_because("opening", move || waiting.waits());
        let attempt = || Redis::open(connection.clone(), settings.redis_prefix());
        let opening = opening::persist(&latch, attempt);
        let Some(redis) = chassis.hold(listeners, &[A2A, ROUTER, INBOX], opening).await? else {
            return Ok(None);
        };
        let redis = redis.map_err(|error| {
            let key = sections::endpoint_key(SECTION);
            Error::Other(format!("{key}: {error}"))
        })?;
        tracing::info!(
            address = redis.connection().address(),
            "what routers share is in Redis"
        );
        return Ok(Some(Opened::Redis(Arc::new(redis))));
    }
    let (directory, room) = (settings.data_directory.clone(), settings.durable_room());
    if directory.as_os_str().is_empty() {
        let store = Opened::Memory(Arc::default(), Arc::new(MemoryAnswers::new(room)));
        return Ok(Some(store));
    }
    off_thread(move || {
        let owners = Embedded::open(&directory)?;
        let answers = EmbeddedAnswers::open(&owners, room).map_err(|error| Error::DataDirectory {
            path: directory,
            what: error.to_string(),
        })?;
        Ok(Some(Opened::Embedded(Arc::new(owners), Arc::new(answers))))
    })
    .await
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Other(format!("open the store: {error}")))?
}

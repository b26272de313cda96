//! Opens the store that the settings name: in Redis where there is an endpoint, else in the data directory.

use std::path::Path;
use std::sync::Arc;

use muster_api::workflow::approval_service_server::SERVICE_NAME as APPROVALS;
use muster_api::workflow::backup_service_server::SERVICE_NAME as BACKUPS;
use muster_api::workflow::event_service_server::SERVICE_NAME as EVENTS;
use muster_api::workflow::schedule_service_server::SERVICE_NAME as SCHEDULES;
use muster_api::workflow::workflow_service_server::SERVICE_NAME as WORKFLOWS;
use muster_runtime::data_directory::{self, DataDirectory};
use muster_runtime::trust::{Identity, Workload};
use muster_runtime::{Chassis, Error, Listeners};
use muster_store::redis::members::Member;
use muster_store::redis::{opening, settings as sections};
use muster_store::{Database, Keys};

use crate::config;
use crate::config::redis::SECTION;
use crate::off_thread::off_thread;
use crate::peers::Network;
use crate::replicas::{Replicas, coordination, name};
use crate::store::Store;
use crate::store::embedded::Embedded;
use crate::store::payloads::{self, Apart, Bucket};
use crate::store::redis::Redis;

/// What the engine serves, of which callers are told that it is not there while Redis is away.
const SERVICES: &[&str] = &[WORKFLOWS, EVENTS, SCHEDULES, BACKUPS, APPROVALS];

/// An open store.
pub(crate) struct Opened {
    /// Format of what is written.
    format: u32,
    pub(crate) store: Arc<dyn Store>,
    /// What backups are made of; a store in Redis is backed up by Redis's own means.
    pub(crate) database: Option<Database>,
    pub(crate) in_redis: Option<InRedis>,
    /// Where large values are kept outside of the store.
    pub(crate) bucket: Option<Arc<Bucket>>,
}

/// What a store in Redis needs as long as it is used.
pub(crate) struct InRedis {
    pub(crate) redis: Redis,
    pub(crate) replicas: Arc<Replicas>,
    /// Its lock says that no other living process has this engine's name.
    pub(crate) _directory: DataDirectory,
}

/// Opens the store; `None` where the shutdown was asked for while Redis was away. To other engines this one is `identity`.
pub(crate) async fn open(
    settings: &config::Engine,
    identity: &Identity,
    chassis: &mut Chassis,
    listeners: &Listeners,
) -> Result<Option<Opened>, Error> {
    let bucket = payloads::open_bucket(&settings.payloads)
        .await
        .map_err(|error| Error::Other(error.to_string()))?;
    let opened = match &settings.redis_cluster_endpoint {
        None => open_embedded(settings).await?,
        Some(endpoint) => {
            let opened = open_redis(settings, identity, endpoint, chassis, listeners).await?;
            let Some(opened) = opened else {
                return Ok(None);
            };
            opened
        }
    };
    // What is cut is written since format 2.
    let threshold = match opened.format {
        ..2 => usize::MAX,
        _ => settings.payload_threshold_bytes,
    };
    let apart = Apart::new(opened.store, bucket.clone(), threshold);
    Ok(Some(Opened {
        store: Arc::new(apart),
        bucket,
        ..opened
    }))
}

/// Off the async threads: it may have much to recover.
async fn open_embedded(settings: &config::Engine) -> Result<Opened, Error> {
    let path = settings.data_directory.clone();
    let (key_file, format) = (settings.encryption_key_file.clone(), settings.format);
    let store = off_thread(move || {
        let keys = key_file.as_deref().map(keys).transpose()?;
        let directory = data_directory::open(&path)?;
        Embedded::open_with(directory, format, keys).map_err(|error| Error::DataDirectory {
            path,
            what: error.to_string(),
        })
    })
    .await?;
    Ok(Opened {
        format,
        database: Some(store.database().clone()),
        store: Arc::new(store),
        in_redis: None,
        bucket: None,
    })
}

fn keys(path: &Path) -> Result<Keys, Error> {
    let wrong = |what: String| {
        let path = path.display();
        Error::Other(format!("engine.encryption_key_file: {path}: {what}"))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    Keys::parse(&text).map_err(|error| wrong(error.to_string()))
}

async fn open_redis(
    settings: &config::Engine,
    identity: &Identity,
    endpoint: &str,
    chassis: &mut Chassis,
    listeners: &Listeners,
) -> Result<Option<Opened>, Error> {
    let connection = settings.redis.shared().connect(SECTION, endpoint).await?;
    let address = settings.redis.address(listeners.data_address())?;
    let path = settings.data_directory.clone();
    let directory = off_thread(move || data_directory::open(&path)).await?;
    let waiting = connection.clone();
    let latch = chassis.health.latch_because("opening", move || waiting.waits());
    let attempt = || {
        let options = settings.redis.options(settings.events.room(), settings.format);
        Redis::open(connection.clone(), options)
    };
    let opening = opening::persist(&latch, attempt);
    let Some(redis) = chassis.hold(listeners, SERVICES, opening).await? else {
        return Ok(None);
    };
    let redis = redis.map_err(|error| {
        let key = sections::endpoint_key(SECTION);
        Error::Other(format!("{key}: {error}"))
    })?;
    let me = Member {
        name: name::kept_in(directory.path())?,
        address,
    };
    let replicas = Replicas::new(
        Arc::new(coordination::InRedis::new(redis.clone())),
        Arc::new(Network::new(identity.clone(), chassis.trust.to(Workload::Engine))),
        me,
        settings.redis.lease(),
    );
    tracing::info!(
        address = redis.connection().address(),
        partitions = redis.partitions(),
        "the store is in Redis"
    );
    Ok(Some(Opened {
        format: redis.format(),
        store: Arc::new(redis.clone()),
        database: None,
        in_redis: Some(InRedis {
            redis,
            replicas: Arc::new(replicas),
            _directory: directory,
        }),
        bucket: None,
    }))
}

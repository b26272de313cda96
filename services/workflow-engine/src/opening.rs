//! Opens the store that the settings name: in Redis where there is an endpoint, else in the data directory.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use muster_rpc::channel::Security;
use muster_runtime::Error;
use muster_runtime::data_directory::{self, DataDirectory};
use muster_store::redis::members::Member;
use muster_store::redis::{Address, Connection};
use muster_store::{Database, Keys};

use crate::config;
use crate::off_thread::off_thread;
use crate::peers::Network;
use crate::replicas::{Replicas, coordination, name};
use crate::store::Store;
use crate::store::embedded::Embedded;
use crate::store::payloads::{self, Apart, Bucket};
use crate::store::redis::Redis;

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

/// Opens the store; `address` is where this engine can be reached, and other engines are reached by connections that are secured
/// like this.
pub(crate) async fn open(
    settings: &config::Engine,
    address: SocketAddr,
    security: Security,
) -> Result<Opened, Error> {
    let bucket = payloads::open_bucket(&settings.payloads)
        .await
        .map_err(|error| Error::Other(error.to_string()))?;
    let opened = match &settings.redis_cluster_endpoint {
        None => open_embedded(settings).await?,
        Some(endpoint) => open_redis(settings, endpoint, address, security).await?,
    };
    // What is cut is written since format 2.
    let threshold = match opened.format {
        ..2 => usize::MAX,
        _ => settings.payload_threshold_bytes,
    };
    let apart = Apart::new(opened.store, bucket.clone(), threshold);
    Ok(Opened {
        store: Arc::new(apart),
        bucket,
        ..opened
    })
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
    endpoint: &str,
    address: SocketAddr,
    security: Security,
) -> Result<Opened, Error> {
    const KEY: &str = "engine.redis_cluster_endpoint";
    let mut place: Address = endpoint
        .parse()
        .map_err(|error| Error::Other(format!("{KEY}: {error}")))?;
    if let Some(path) = settings.redis.certificate_authorities.clone() {
        let authorities = off_thread(move || {
            std::fs::read(&path).map_err(|error| {
                let path = path.display();
                Error::Other(format!("engine.redis.certificate_authorities: {path}: {error}"))
            })
        });
        place = place.with_authorities(authorities.await?);
    }
    let path = settings.data_directory.clone();
    let directory = off_thread(move || data_directory::open(&path)).await?;
    let connection = Connection::new(place, settings.redis.patience());
    let redis = Redis::open(
        connection,
        settings.redis.options(settings.events.room(), settings.format),
    )
    .await
    .map_err(|error| Error::Other(format!("{KEY}: {error}")))?;
    let me = Member {
        name: name::kept_in(directory.path())?,
        address: settings.redis.address(address)?,
    };
    let replicas = Replicas::new(
        Arc::new(coordination::InRedis::new(redis.clone())),
        Arc::new(Network::new(security)),
        me,
        settings.redis.lease(),
    );
    tracing::info!(
        address = redis.connection().address(),
        partitions = redis.partitions(),
        "the store is in Redis"
    );
    Ok(Opened {
        format: redis.format(),
        store: Arc::new(redis.clone()),
        database: None,
        in_redis: Some(InRedis {
            redis,
            replicas: Arc::new(replicas),
            _directory: directory,
        }),
        bucket: None,
    })
}

//! Opens the tasks where the configuration wants them: in Redis, in a directory, or in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_api::a2a::a2a_service_server::SERVICE_NAME;
use muster_runtime::{Chassis, Error, Listeners};
use muster_store::Keys;
use muster_store::redis::opening;

use crate::AgentConfig;
use crate::config::redis::{ENDPOINT, SECTION};
use crate::push::Pushes;
use crate::tasks::redis::{Place, Redis};
use crate::tasks::sealed::SETTING;
use crate::tasks::table::Bounds;
use crate::tasks::{Disk, Left, Sharing, Tasks, Writer};

/// The tasks, and what has to run for them.
pub(crate) struct Opened {
    pub(crate) tasks: Tasks,
    pub(crate) writer: Option<Writer>,
    /// What processes have left at work that have ended.
    pub(crate) left: Left,
    pub(crate) sharing: Option<Sharing>,
    /// Where they are on this machine's disk.
    pub(crate) directory: Option<PathBuf>,
}

/// Opens the tasks of the agent of this id; `None` where the shutdown was asked for while Redis was away.
pub(crate) async fn open(
    agent: &'static str,
    config: &AgentConfig,
    pushes: Pushes,
    chassis: &mut Chassis,
    listeners: &Listeners,
) -> Result<Option<Opened>, Error> {
    let clock = Arc::clone(&chassis.clock);
    let keys = match config.encryption_key_file.clone() {
        None => None,
        Some(path) => Some(off_thread(move || keys(&path)).await?),
    };
    let bounds = Bounds {
        tasks: config.max_stored_tasks,
        bytes: config.max_stored_bytes,
        retention: Duration::from_secs(config.task_retention_seconds),
    };
    if let Some(endpoint) = &config.redis_cluster_endpoint {
        let connection = config.redis.shared().connect(SECTION, endpoint).await?;
        let waiting = connection.clone();
        let latch = chassis.health.latch_because("opening", move || waiting.waits());
        let attempt = || {
            let place = Place {
                prefix: &config.redis.key_prefix,
                namespace: &config.namespace,
                agent,
            };
            let lease = config.redis.lease();
            let (connection, keys) = (connection.clone(), keys.clone());
            Redis::open(connection, place, keys, bounds, lease, Arc::clone(&clock))
        };
        let opening = opening::persist(&latch, attempt);
        let Some(redis) = chassis.hold(listeners, &[SERVICE_NAME], opening).await? else {
            return Ok(None);
        };
        let redis = redis.map_err(|what| Error::Other(format!("{ENDPOINT}: {what}")))?;
        let (tasks, writer, left, sharing) = Tasks::share(bounds, redis, pushes, clock);
        return Ok(Some(Opened {
            tasks,
            writer: Some(writer),
            left,
            sharing: Some(sharing),
            directory: None,
        }));
    }
    let parent = &config.data_directory;
    let directory = (!parent.as_os_str().is_empty()).then(|| parent.join(agent));
    let disk = match directory.clone() {
        None => None,
        Some(directory) => Some(off_thread(move || Disk::open(agent, &directory, keys)).await?),
    };
    let (tasks, writer, left) =
        Tasks::open(bounds, disk, pushes, clock).map_err(|what| Error::DataDirectory {
            path: directory.clone().unwrap_or_default(),
            what,
        })?;
    Ok(Some(Opened {
        tasks,
        writer,
        left,
        sharing: None,
        directory,
    }))
}

/// The keys by which tasks are encrypted.
fn keys(path: &Path) -> Result<Keys, Error> {
    let wrong = |what: String| Error::Other(format!("{SETTING}: {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    Keys::parse(&text).map_err(|error| wrong(error.to_string()))
}

/// What blocks while it reads a disk.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Other(format!("open the store: {error}")))?
}

//! Opens the tasks where the configuration wants them: in Redis, in a directory, or in memory.

use std::path::PathBuf;
use std::time::Duration;

use muster_runtime::Error;
use muster_runtime::clock::SharedClock;
use muster_store::redis::{Address, Connection};

use crate::AgentConfig;
use crate::config::redis::{AUTHORITIES, ENDPOINT};
use crate::push::Pushes;
use crate::tasks::redis::{Place, Redis};
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

/// Opens the tasks of the agent of this id.
pub(crate) async fn open(
    agent: &'static str,
    config: &AgentConfig,
    pushes: Pushes,
    clock: SharedClock,
) -> Result<Opened, Error> {
    let bounds = Bounds {
        tasks: config.max_stored_tasks,
        bytes: config.max_stored_bytes,
        retention: Duration::from_secs(config.task_retention_seconds),
    };
    if let Some(endpoint) = &config.redis_cluster_endpoint {
        let place = Place {
            prefix: &config.redis.key_prefix,
            namespace: &config.namespace,
            agent,
        };
        let connection = Connection::new(address(config, endpoint).await?, config.redis.patience());
        let redis = Redis::open(connection, place, bounds, config.redis.lease(), clock.clone())
            .await
            .map_err(|what| Error::Other(format!("{ENDPOINT}: {what}")))?;
        let (tasks, writer, left, sharing) = Tasks::share(bounds, redis, pushes, clock);
        return Ok(Opened {
            tasks,
            writer: Some(writer),
            left,
            sharing: Some(sharing),
            directory: None,
        });
    }
    let parent = &config.data_directory;
    let directory = (!parent.as_os_str().is_empty()).then(|| parent.join(agent));
    let disk = match directory.clone() {
        None => None,
        Some(directory) => Some(off_thread(move || Disk::open(agent, &directory)).await?),
    };
    let (tasks, writer, left) =
        Tasks::open(bounds, disk, pushes, clock).map_err(|what| Error::DataDirectory {
            path: directory.clone().unwrap_or_default(),
            what,
        })?;
    Ok(Opened {
        tasks,
        writer,
        left,
        sharing: None,
        directory,
    })
}

async fn address(config: &AgentConfig, endpoint: &str) -> Result<Address, Error> {
    let address: Address = endpoint
        .parse()
        .map_err(|error| Error::Other(format!("{ENDPOINT}: {error}")))?;
    let Some(path) = config.redis.certificate_authorities.clone() else {
        return Ok(address);
    };
    let authorities = off_thread(move || {
        std::fs::read(&path)
            .map_err(|error| Error::Other(format!("{AUTHORITIES}: {}: {error}", path.display())))
    });
    Ok(address.with_authorities(authorities.await?))
}

/// What blocks while it reads a disk.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Other(format!("open the store: {error}")))?
}

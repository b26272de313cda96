//! One engine for each store in Redis: it holds the leases of all partitions, or does not work.
//!
//! Every write carries the epoch of its partition's lease, so a second engine, or one that was frozen and wakes, can damage
//! nothing; the leases are what tells them apart before they try. Several engines over one store, each with some of the
//! partitions, are not there yet: whoever finds the store in use waits for as long as a lease lasts, and gives up.
//!
//! The owner's name is kept in the data directory, whose lock says that no other living process has it. So an engine that was
//! killed and starts again on the same directory takes its own leases at once; on another directory it waits until they have
//! run out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use muster_runtime::Error;
use muster_runtime::data_directory::DataDirectory;
use muster_store::redis::Error as RedisError;
use muster_store::redis::lease::{Lease, Leases};

use crate::store::redis::Redis;

/// File in the data directory.
const OWNER: &str = "owner";

/// Renewals in the time that a lease lasts: two may fail.
const RENEWALS: u32 = 3;

/// Beyond the end of a lease, for the clocks that measure it.
const MARGIN: Duration = Duration::from_millis(500);

/// Why the engine stops: the store is another's now.
#[derive(Debug, thiserror::Error)]
#[error(
    "the lease of partition {partition} is lost: another engine works on this store in Redis; nothing that this one still writes is taken. Run one engine for each store, or give each its own engine.redis.key_prefix"
)]
pub(crate) struct Lost {
    partition: u16,
}

/// The leases of all partitions of a store.
pub(crate) struct Ownership {
    store: Redis,
    leases: Leases,
    owner: String,
    address: String,
    time_to_live: Duration,
    /// By partition.
    epochs: Vec<u64>,
    _directory: DataDirectory,
}

impl Ownership {
    /// Takes the leases; waits for those of a dead engine to run out.
    ///
    /// # Errors
    /// Another engine works on the store; Redis or the directory cannot be used.
    pub(crate) async fn take(
        store: Redis,
        directory: DataDirectory,
        address: String,
        time_to_live: Duration,
    ) -> Result<Self, Error> {
        let owner = owner(directory.path())?;
        let leases = Leases::new(store.connection().clone(), store.prefix());
        let mut ownership = Self {
            store,
            leases,
            owner,
            address,
            time_to_live,
            epochs: Vec::new(),
            _directory: directory,
        };
        // The first decides between engines that start at the same time, so that they do not share the rest.
        let first = ownership.wait_for(0).await?;
        ownership.epochs.push(first);
        let rest = 1..ownership.store.partitions();
        match try_join_all(rest.map(|partition| ownership.wait_for(partition))).await {
            Ok(epochs) => ownership.epochs.extend(epochs),
            Err(error) => {
                ownership.release().await;
                return Err(error);
            }
        }
        for (partition, epoch) in (0..).zip(&ownership.epochs) {
            ownership.store.fence(partition, *epoch);
        }
        Ok(ownership)
    }

    /// Takes the lease of one partition, or waits for its end once.
    async fn wait_for(&self, partition: u16) -> Result<u64, Error> {
        let acquire = || {
            self.leases
                .acquire(partition, &self.owner, &self.address, self.time_to_live)
        };
        let held = match acquire().await.map_err(unusable)? {
            Ok(epoch) => return Ok(epoch),
            Err(held) => held,
        };
        tracing::info!(
            partition,
            owner = held.owner,
            address = held.address,
            remaining_seconds = held.remaining.as_secs_f64(),
            "the store in Redis is in use; waiting for the end of its lease"
        );
        tokio::time::sleep(held.remaining + MARGIN).await;
        acquire()
            .await
            .map_err(unusable)?
            .map_err(|held| self.in_use(&held))
    }

    fn in_use(&self, held: &Lease) -> Error {
        Error::Other(format!(
            "engine.redis_cluster_endpoint: the store in Redis at {} is in use by engine {} at {}, whose lease of partition {} lasts another {:.1} s and is renewed; stop that engine, or choose another engine.redis.key_prefix",
            self.store.connection().address(),
            held.owner,
            held.address,
            held.partition,
            held.remaining.as_secs_f64(),
        ))
    }

    /// Renews the leases until one is lost. A Redis that cannot be reached is waited for: a lease that has run out is still
    /// ours as long as nobody takes it, and the fence refuses what we write once somebody has.
    pub(crate) async fn keep(&self) -> Lost {
        loop {
            tokio::time::sleep(self.time_to_live / RENEWALS).await;
            // Whether Redis takes writes is found out here, also where no run writes.
            self.store.probe().await;
            let renewals = (0..).zip(&self.epochs).map(|(partition, epoch)| async move {
                let renewed = self
                    .leases
                    .renew(partition, &self.owner, *epoch, self.time_to_live)
                    .await;
                (partition, renewed)
            });
            let mut failure = None;
            for (partition, renewed) in join_all(renewals).await {
                match renewed {
                    Ok(true) => {}
                    Ok(false) => return Lost { partition },
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                tracing::warn!(%error, "leases cannot be renewed");
            }
        }
    }

    /// Gives the leases back, so that the next engine need not wait.
    pub(crate) async fn release(&self) {
        let releases = (0..)
            .zip(&self.epochs)
            .map(|(partition, epoch)| self.leases.release(partition, &self.owner, *epoch));
        let all = tokio::time::timeout(self.time_to_live, try_join_all(releases)).await;
        if !matches!(all, Ok(Ok(_))) {
            tracing::warn!("leases could not be given back; they end by themselves");
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn unusable(error: RedisError) -> Error {
    Error::Other(format!("engine.redis_cluster_endpoint: {error}"))
}

/// The owner's name that the directory keeps, or a new one.
fn owner(directory: &Path) -> Result<String, Error> {
    let path = directory.join(OWNER);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let known = text.trim().parse::<uuid::Uuid>();
            known
                .map(|owner| owner.to_string())
                .map_err(|_| Error::DataDirectory {
                    path: path.clone(),
                    what: "holds no UUID; remove the file".to_owned(),
                })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let owner = uuid::Uuid::new_v4().to_string();
            keep(&path, &owner).map_err(|error| Error::DataDirectory {
                path: path.clone(),
                what: format!("cannot be written: {error}; choose another or correct its permissions"),
            })?;
            Ok(owner)
        }
        Err(error) => Err(Error::DataDirectory {
            path,
            what: format!("cannot be read: {error}; correct its permissions"),
        }),
    }
}

/// Written whole before it gets its name, so that a crash leaves no half of it.
fn keep(path: &PathBuf, owner: &str) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    std::fs::write(&draft, format!("{owner}\n"))?;
    std::fs::rename(draft, path)
}

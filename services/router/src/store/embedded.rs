//! Owners on this machine's disk: durable when `put` returns, in group commits.
//!
//! Two keyspaces: `owners` maps a task id to its owner (JSON, so that fields can be added), `ages` orders the tasks
//! by when they were kept (eight bytes of milliseconds, big-endian, then the task id), for the sweep. An age whose
//! owner is younger belongs to an earlier owner of the task and goes alone.

mod answers;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use muster_runtime::data_directory;
use muster_store::{Batch, CommitError, Database, Format, Keyspace, Limits};

use super::{Error, Owner, Owners, SWEPT_AT_ONCE};

pub use answers::EmbeddedAnswers;

const FORMAT: Format = Format {
    name: "router",
    version: 1,
    oldest: 1,
};

/// Bytes of the time at the start of a key in `ages`.
const TIME_BYTES: usize = 8;

/// Owners in an embedded database.
pub struct Embedded {
    database: Database,
    owners: Keyspace,
    ages: Keyspace,
    /// How many ages there are, for the bound; counted at the start and kept up from then on.
    count: AtomicUsize,
}

impl Embedded {
    /// Opens the store in a directory, or makes it. Blocks while it recovers.
    ///
    /// # Errors
    /// The directory cannot be used, or holds something else.
    pub fn open(path: &Path) -> Result<Self, muster_runtime::Error> {
        let directory = data_directory::open(path)?;
        let failed = |error: muster_store::Error| muster_runtime::Error::DataDirectory {
            path: path.to_owned(),
            what: error.to_string(),
        };
        let database = Database::open(directory, FORMAT, Limits::default()).map_err(failed)?;
        let owners = database.keyspace("owners").map_err(failed)?;
        let ages = database.keyspace("ages").map_err(failed)?;
        let mut count = 0;
        for age in ages.range::<Vec<u8>>(..) {
            age.map_err(failed)?;
            count += 1;
        }
        Ok(Self {
            database,
            owners,
            ages,
            count: AtomicUsize::new(count),
        })
    }

    /// Why the store takes no more writes; `None` while it works.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.database.failure().map(|failure| failure.to_string())
    }

    /// The owner of a task, and as what it is kept.
    async fn stored(&self, task: &str) -> Result<Option<(Vec<u8>, Owner)>, Error> {
        let (owners, task) = (self.owners.clone(), task.to_owned());
        blocking(move || read(&owners, task.as_bytes())).await
    }

    fn forget(&self, removed: usize) {
        let subtract = |count: usize| Some(count.saturating_sub(removed));
        // The closure always answers, so the update always succeeds.
        let _count = self
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
    }
}

#[async_trait]
impl Owners for Embedded {
    async fn get(&self, task: &str) -> Result<Option<Owner>, Error> {
        Ok(self.stored(task).await?.map(|(_, owner)| owner))
    }

    async fn put(&self, task: &str, owner: &Owner, keep: SignedDuration) -> Result<Option<Owner>, Error> {
        let value = serde_json::to_vec(owner).map_err(|error| Error(format!("encode an owner: {error}")))?;
        loop {
            let before = self.stored(task).await?;
            let is_new = before.is_none();
            let mut batch = Batch::new();
            match before {
                None => batch.expect_absent(&self.owners, task.as_bytes()),
                Some((_, before)) if before.withstands(owner, keep) => return Ok(Some(before)),
                Some((bytes, before)) => {
                    batch.expect_value(&self.owners, task.as_bytes(), bytes);
                    batch.remove(&self.ages, age_key(before.since, task.as_bytes()));
                }
            }
            batch.put(&self.owners, task.as_bytes(), value.clone());
            batch.put(&self.ages, age_key(owner.since, task.as_bytes()), Vec::new());
            match self.database.commit(batch).await {
                Ok(()) if is_new => {
                    self.count.fetch_add(1, Ordering::Relaxed);
                    return Ok(None);
                }
                Ok(()) => return Ok(None),
                // Somebody else was quicker; their owner is looked at now.
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(Error(error.to_string())),
            }
        }
    }

    async fn sweep(&self, before: Timestamp, most: usize) -> Result<usize, Error> {
        let surplus = self.count.load(Ordering::Relaxed).saturating_sub(most);
        let (owners, ages) = (self.owners.clone(), self.ages.clone());
        let (batch, swept, removed) = blocking(move || overdue(&owners, &ages, before, surplus)).await?;
        if removed > 0 {
            self.database
                .commit(batch)
                .await
                .map_err(|error| Error(error.to_string()))?;
            self.forget(removed);
        }
        Ok(swept)
    }
}

/// What is to be removed, how many tasks that forgets, and how many ages.
fn overdue(
    owners: &Keyspace,
    ages: &Keyspace,
    before: Timestamp,
    surplus: usize,
) -> Result<(Batch, usize, usize), Error> {
    let (mut batch, mut swept, mut removed) = (Batch::new(), 0, 0);
    let limit = age_key(before, &[]);
    for entry in ages.range::<Vec<u8>>(..).take(SWEPT_AT_ONCE) {
        let (age, _) = entry.map_err(|error| Error(error.to_string()))?;
        if age >= limit && removed >= surplus {
            break;
        }
        let task = age.get(TIME_BYTES..).unwrap_or_default();
        if read(owners, task)?.is_some_and(|(_, owner)| age_key(owner.since, task) == age) {
            batch.remove(owners, task);
            swept += 1;
        }
        batch.remove(ages, age.clone());
        removed += 1;
    }
    Ok((batch, swept, removed))
}

fn read(owners: &Keyspace, task: &[u8]) -> Result<Option<(Vec<u8>, Owner)>, Error> {
    let Some(value) = owners.get(task).map_err(|error| Error(error.to_string()))? else {
        return Ok(None);
    };
    match serde_json::from_slice(&value) {
        Ok(owner) => Ok(Some((value, owner))),
        Err(error) => Err(Error(format!(
            "the owner of task {} is damaged: {error}",
            String::from_utf8_lossy(task)
        ))),
    }
}

/// Sorts by time; times before 1970 count as 1970.
fn age_key(since: Timestamp, task: &[u8]) -> Vec<u8> {
    let milliseconds = u64::try_from(since.as_millisecond()).unwrap_or(0);
    let mut key = milliseconds.to_be_bytes().to_vec();
    key.extend_from_slice(task);
    key
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error(format!("a read of the store was broken off: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_conforms() {
        let directory = tempfile::tempdir().unwrap();
        super::super::conformance::run(&Embedded::open(directory.path()).unwrap()).await;
        let directory = tempfile::tempdir().unwrap();
        super::super::conformance::run_sweeps(&Embedded::open(directory.path()).unwrap()).await;
    }

    #[tokio::test]
    async fn owners_and_their_number_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let owner = Owner {
            agent: "weather".to_owned(),
            instance: "w1".to_owned(),
            since: Timestamp::from_second(1).unwrap(),
            caller: None,
        };
        let store = Embedded::open(directory.path()).unwrap();
        for task in ["t1", "t2"] {
            store.put(task, &owner, SignedDuration::MAX).await.unwrap();
        }
        drop(store);
        let store = Embedded::open(directory.path()).unwrap();
        assert_eq!(store.get("t1").await.unwrap(), Some(owner));
        assert_eq!(store.sweep(Timestamp::UNIX_EPOCH, 1).await.unwrap(), 1);
        assert_eq!(store.sweep(Timestamp::UNIX_EPOCH, 1).await.unwrap(), 0);
    }
}

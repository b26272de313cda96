//! What is kept, on this machine's disk.
//!
//! One keyspace, `managed`: the key is namespace, agent id and address of the card, between them a byte that none of them
//! can have; the value is JSON, so that fields can be added. Another one, `moved`, has one entry where a shared store has taken
//! all of them over ([`moving`](super::super::moving)).

use std::path::Path;

use async_trait::async_trait;
use muster_runtime::data_directory;
use muster_store::{Batch, Database, Format, Keyspace, Limits};

use super::{Entries, Error, Kept, Key, bytes};

const FORMAT: Format = Format {
    name: "registry",
    version: 1,
    oldest: 1,
};

/// The only key of `moved`.
const TO_SHARED: &[u8] = b"to a shared store";

/// See the module.
pub struct Embedded {
    database: Database,
    managed: Keyspace,
    moved: Keyspace,
    is_moved: bool,
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
        let managed = database.keyspace("managed").map_err(failed)?;
        let moved = database.keyspace("moved").map_err(failed)?;
        let is_moved = moved.get(TO_SHARED).map_err(failed)?.is_some();
        Ok(Self {
            database,
            managed,
            moved,
            is_moved,
        })
    }

    /// Whether a shared store had taken over what is in here when it was opened.
    #[must_use]
    pub const fn is_moved(&self) -> bool {
        self.is_moved
    }

    /// Writes down whether a shared store has taken over what is in here.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn set_moved(&self, is_moved: bool) -> Result<(), Error> {
        let mut batch = Batch::new();
        if is_moved {
            batch.put(&self.moved, TO_SHARED, Vec::new());
        } else {
            batch.remove(&self.moved, TO_SHARED);
        }
        self.commit(batch).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), Error> {
        let committed = self.database.commit(batch).await;
        committed.map_err(|error| Error(error.to_string()))
    }
}

#[async_trait]
impl Entries for Embedded {
    async fn all(&self) -> Result<Vec<Kept>, Error> {
        let managed = self.managed.clone();
        let read = move || {
            managed
                .range::<Vec<u8>>(..)
                .map(|entry| {
                    let (key, value) = entry.map_err(|error| Error(error.to_string()))?;
                    serde_json::from_slice(&value).map_err(|error| {
                        let key = String::from_utf8_lossy(&key).replace('\0', " ");
                        Error(format!("the entry of '{key}' is damaged: {error}"))
                    })
                })
                .collect()
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| Error(format!("a read of the store was broken off: {error}")))?
    }

    async fn put(&self, kept: &Kept) -> Result<(), Error> {
        let value = serde_json::to_vec(kept).map_err(|error| Error(format!("encode an entry: {error}")))?;
        let mut batch = Batch::new();
        batch.put(&self.managed, bytes(&kept.key()), value);
        self.commit(batch).await
    }

    async fn remove(&self, key: &Key) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.remove(&self.managed, bytes(key));
        self.commit(batch).await
    }

    fn failure(&self) -> Option<String> {
        self.database.failure().map(|failure| failure.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::entry::kept;
    use super::*;

    #[tokio::test]
    async fn it_conforms() {
        let directory = tempfile::tempdir().unwrap();
        super::super::conformance::run(&Embedded::open(directory.path()).unwrap()).await;
    }

    #[tokio::test]
    async fn what_is_kept_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(directory.path()).unwrap();
        store.put(&kept("a", "http://a/")).await.unwrap();
        drop(store);
        let store = Embedded::open(directory.path()).unwrap();
        assert_eq!(store.all().await.unwrap(), [kept("a", "http://a/")]);
    }
}

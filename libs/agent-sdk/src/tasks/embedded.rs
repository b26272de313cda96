//! The tasks on this machine's disk: one record per task, in group commits. One process has the directory, so that nothing is
//! checked, and the order of writes is that of the commits.

use std::path::Path;

use async_trait::async_trait;
use muster_api::error::Error;
use muster_runtime::data_directory;
use muster_store::{Batch, Database, Format, Keys, Keyspace, Limits};
use prost::Message as _;

use super::record::Record;
use super::store::{Draft, Outcome, Store, Stored, unavailable};

/// Where tasks are kept.
#[derive(Clone)]
pub(crate) struct Disk {
    database: Database,
    tasks: Keyspace,
}

impl Disk {
    /// Opens the store of an agent of that name in a directory, or makes it, encrypted where there are keys. Blocks while it
    /// recovers.
    pub(crate) fn open(
        name: &'static str,
        path: &Path,
        keys: Option<Keys>,
    ) -> Result<Self, muster_runtime::Error> {
        let directory = data_directory::open(path)?;
        let failed = |error: muster_store::Error| muster_runtime::Error::DataDirectory {
            path: path.to_owned(),
            what: error.to_string(),
        };
        let format = Format {
            name,
            version: 1,
            oldest: 1,
        };
        let database = Database::open_with(directory, format, Limits::default(), keys).map_err(failed)?;
        let tasks = database.keyspace("tasks").map_err(failed)?;
        Ok(Self { database, tasks })
    }

    /// Every task.
    pub(crate) fn entries(
        &self,
    ) -> impl Iterator<Item = Result<(String, Vec<u8>), muster_store::Error>> + use<> {
        self.tasks.range::<Vec<u8>>(..).map(|entry| {
            let (id, record) = entry?;
            Ok((String::from_utf8_lossy(&id).into_owned(), record))
        })
    }
}

#[async_trait]
impl Store for Disk {
    async fn write(&self, drafts: Vec<Draft>) -> Vec<Result<Outcome, Error>> {
        let count = drafts.len();
        let mut batch = Batch::new();
        for draft in drafts {
            match draft.keep {
                None => batch.remove(&self.tasks, draft.id.as_bytes()),
                Some(keep) => {
                    if let Some(record) = keep.record {
                        batch.put(&self.tasks, draft.id.as_bytes(), record);
                    }
                }
            }
        }
        let outcome = if batch.is_empty() {
            Ok(Outcome::Done)
        } else {
            let committed = self.database.commit(batch).await;
            committed
                .map(|()| Outcome::Done)
                .map_err(|error| unavailable(&error.to_string()))
        };
        vec![outcome; count]
    }

    async fn read(&self, id: &str) -> Result<Option<Stored>, Error> {
        let damaged =
            |what: String| unavailable(&format!("what is stored of task '{id}' cannot be read: {what}"));
        let bytes = self.tasks.get(id).map_err(|error| damaged(error.to_string()))?;
        let record = bytes.map(|bytes| Record::decode(bytes.as_slice()));
        let record = record.transpose().map_err(|error| damaged(error.to_string()))?;
        Ok(record.map(|record| Stored {
            record,
            version: 1,
            number: 0,
            worker: String::new(),
        }))
    }

    fn failure(&self) -> Option<String> {
        self.database.failure().map(|failure| failure.to_string())
    }

    fn recovers(&self) -> bool {
        false
    }
}

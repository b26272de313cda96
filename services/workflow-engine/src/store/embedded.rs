//! The store in one locked directory.
//!
//! The keyspaces: the catalogue, the small and often read (summaries, heads of journals, and each [index](Runs) by itself), the
//! large (journals, what runs are pinned to, outputs), the very large ([payloads](crate::store::payloads): by themselves, so that
//! neither merging nor reading journals carries them along, and in the database, so that they are in its batches and its
//! backups), and one for each thing that is found without its run. The head of a journal is a key of its own, because the
//! condition of an append must not depend on how a summary happens to be serialized. Reads run on the blocking pool: they may
//! wait for the disk.
//!
//! Where keys of several kinds share a keyspace, each of its files reaches from the first kind to the last, and merging a new
//! file rewrites all that is there, although keys of runs grow with time and new ones sort after the old. So it was up to format
//! 2, and a step wrote three times as much where a hundred thousand runs were waiting.

mod again;
mod answers;
mod approvals;
mod erase;
mod events;
mod keys;
mod payloads;
mod raise;
mod reading;
mod schedules;
mod spending;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_runtime::data_directory::DataDirectory;
use muster_store::{Batch, CommitError, Database, Format, Keys, Keyspace, Limits};
use muster_workflow_dsl::cloud_event::CloudEvent;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Mutex;

use self::events::Tail;
use self::keys::{Catalogue, Journal, Runs};
use crate::off_thread::off_thread;
use crate::run::{Entry, Position, Record, RunId, Summary};
use crate::store::payloads::Room;
use crate::store::{
    Error, Filter, Page, Saved, SnapshotKind, Step, Store, Stored, Unfinished, Workflow, WorkflowKey,
};

/// What the directory holds, and in which version.
pub const FORMAT: Format = Format {
    name: "workflow-engine",
    version: 3,
    oldest: 1,
};

/// From this format on the indexes of runs have keyspaces of their own.
const INDEXES_APART: u32 = 3;

/// The head of a journal that is being forgotten.
const FORGOTTEN: &[u8] = b"forgotten";

/// The head of a journal of this length of which something was erased: nothing is appended to it.
fn erased(length: u64) -> Vec<u8> {
    let mut head = length.to_be_bytes().to_vec();
    head.extend(b"erased");
    head
}

/// A run is forgotten in portions of so many entries.
const FORGET_AT_ONCE: usize = 1_000;

/// The store in one locked directory. Clones share it.
#[derive(Clone)]
pub struct Embedded {
    database: Database,
    catalogue: Keyspace,
    summaries: Keyspace,
    heads: Keyspace,
    created: Keyspace,
    unfinished: Keyspace,
    ended: Keyspace,
    journals: Keyspace,
    payloads: Keyspace,
    answers: Keyspace,
    approvals: Keyspace,
    schedules: Keyspace,
    spending: Keyspace,
    events: Keyspace,
    tail: Arc<Mutex<Tail>>,
    /// One after the last event that is known to be in the log.
    seen: Arc<AtomicU64>,
}

impl Embedded {
    /// Opens the store in `directory`, or makes it. Reads what is to be recovered, so it may block for a while.
    ///
    /// # Errors
    /// The directory holds something else, a newer format or damaged files, or cannot be used.
    pub fn open(directory: DataDirectory) -> Result<Self, muster_store::Error> {
        Self::open_with(directory, FORMAT.version, None)
    }

    /// The same in this format, which may be an older one, unless the directory is in a newer one already; with keys by which what
    /// is in it is encrypted.
    ///
    /// # Errors
    /// As [`Self::open`]; or a key that is needed is missing or another one.
    pub fn open_with(
        directory: DataDirectory,
        format: u32,
        keys: Option<Keys>,
    ) -> Result<Self, muster_store::Error> {
        let found = FORMAT.found(directory.path())?.unwrap_or(FORMAT.oldest);
        let format = Format {
            version: format.clamp(found, FORMAT.version),
            ..FORMAT
        };
        let database = Database::open_with(directory, format, Limits::default(), keys)?;
        // Up to format 2 it held the indexes, too.
        let summaries = database.keyspace("runs")?;
        let index = |kind, name| {
            if format.version < INDEXES_APART {
                return Ok(summaries.clone());
            }
            let index = database.keyspace(name)?;
            raise::move_apart(&database, &summaries, kind, &index)?;
            Ok::<_, muster_store::Error>(index)
        };
        let events = database.keyspace("events")?;
        let tail = Tail::read(&events)?;
        Ok(Self {
            catalogue: database.keyspace("catalogue")?,
            heads: index(Runs::Head, "heads")?,
            created: index(Runs::Created, "created")?,
            unfinished: index(Runs::Unfinished, "unfinished")?,
            ended: index(Runs::Ended, "ended")?,
            summaries,
            journals: database.keyspace("journals")?,
            payloads: database.keyspace("payloads")?,
            answers: database.keyspace("answers")?,
            approvals: database.keyspace("approvals")?,
            schedules: database.keyspace("schedules")?,
            spending: database.keyspace("spending")?,
            seen: Arc::new(AtomicU64::new(tail.next())),
            tail: Arc::new(Mutex::new(tail)),
            events,
            database,
        })
    }

    /// The database, for backups.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.clone();
        off_thread(move || read(&store)).await
    }

    async fn commit(&self, batch: Batch, what: &str) -> Result<(), Error> {
        self.database.commit(batch).await.map_err(|error| match error {
            CommitError::Conflict { .. } => Error::Conflict(what.to_owned()),
            CommitError::TooLarge { bytes, limit } => Error::TooLarge { bytes, limit },
            CommitError::Stopped { .. } => Error::Unavailable(error.to_string()),
        })
    }

    /// Writes a step, with what is in the batch already.
    async fn append_to(&self, mut batch: Batch, step: Step) -> Result<(), Error> {
        let Step {
            summary,
            first_index,
            entries,
            output,
            approvals,
            spent,
            events,
            snapshot,
            payloads,
        } = step;
        let id = &summary.id;
        self.put_missing(&mut batch, &Room::of(&summary), payloads)
            .await?;
        batch.expect_value(&self.heads, Runs::Head.of(id), first_index.to_be_bytes());
        let mut next_index = first_index;
        for bytes in entries {
            batch.put(&self.journals, Journal::entry(id, next_index), bytes);
            next_index += 1;
        }
        batch.put(&self.heads, Runs::Head.of(id), next_index.to_be_bytes());
        batch.put(&self.summaries, Runs::Summary.of(id), encode(&summary)?);
        if let Some(output) = output {
            batch.put(&self.journals, Journal::Output.of(id), encode(&output)?);
        }
        if let Some(Saved { bytes, is_base }) = snapshot {
            if is_base {
                batch.put(&self.journals, Journal::Base.of(id), bytes.clone());
            }
            batch.put(&self.journals, Journal::Latest.of(id), bytes);
        }
        self.put_approvals(&mut batch, &approvals)?;
        if let Some(spent) = &spent {
            self.put_spent(&mut batch, &summary.namespace, id, spent)?;
        }
        if let Some(ended_at) = summary.ended_at {
            batch.remove(&self.unfinished, Runs::Unfinished.at(&summary.position()));
            batch.put(&self.ended, Runs::ended(ended_at, id.as_str()), []);
        }
        let what = format!("entry {first_index} of run '{id}'");
        self.commit_step(batch, events, summary.created_at, &what).await
    }

    /// Commits what is written of a run, and what is told of it. `time` is that of events that do not say when they happened.
    async fn commit_step(
        &self,
        batch: Batch,
        events: Vec<CloudEvent>,
        time: Timestamp,
        what: &str,
    ) -> Result<(), Error> {
        if events.is_empty() {
            return self.commit(batch, what).await;
        }
        let now = events.iter().find_map(|event| event.text("time").parse().ok());
        self.commit_with_events(batch, events, now.unwrap_or(time), false, what)
            .await?;
        Ok(())
    }
}

fn damaged(error: muster_store::Error) -> Error {
    Error::Damaged(error.to_string())
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Damaged(format!("a value cannot be written: {error}")))
}

#[async_trait]
impl Store for Embedded {
    async fn add_workflow(&self, workflow: &Workflow, document: &str) -> Result<(), Error> {
        let what = || {
            format!(
                "{}/{} {}",
                workflow.key.namespace, workflow.key.name, workflow.key.version
            )
        };
        let (Some(key), Some(text)) = (
            Catalogue::Workflow.of(&workflow.key),
            Catalogue::Document.of(&workflow.key),
        ) else {
            return Err(Error::Damaged(format!("{} has no semantic version", what())));
        };
        let mut batch = Batch::new();
        batch.expect_absent(&self.catalogue, key.clone());
        batch.put(&self.catalogue, key, encode(workflow)?);
        batch.put(&self.catalogue, text, document);
        self.commit(batch, &what()).await
    }

    async fn document(&self, key: &WorkflowKey) -> Result<Option<String>, Error> {
        let Some(key) = Catalogue::Document.of(key) else {
            return Ok(None);
        };
        self.read(move |store| {
            let bytes = store.catalogue.get(key).map_err(damaged)?;
            bytes
                .map(|bytes| String::from_utf8(bytes).map_err(|error| Error::Damaged(error.to_string())))
                .transpose()
        })
        .await
    }

    async fn workflow(&self, key: &WorkflowKey) -> Result<Option<Workflow>, Error> {
        let Some(key) = Catalogue::Workflow.of(key) else {
            return Ok(None);
        };
        self.read(move |store| store.get(&store.catalogue, key, || "a workflow of the catalogue".to_owned()))
            .await
    }

    async fn newest_workflow(&self, namespace: &str, name: &str) -> Result<Option<Workflow>, Error> {
        let prefix = Catalogue::Workflow.named(namespace, name);
        self.read(move |store| {
            let newest = store
                .catalogue
                .prefix(prefix)
                .next_back()
                .transpose()
                .map_err(damaged)?;
            newest
                .map(|(_, bytes)| store.decode("a workflow of the catalogue", &bytes))
                .transpose()
        })
        .await
    }

    async fn workflows(
        &self,
        after: Option<&WorkflowKey>,
        limit: usize,
    ) -> Result<Page<Workflow, WorkflowKey>, Error> {
        let after = after.cloned();
        self.read(move |store| store.workflows_now(after.as_ref(), limit))
            .await
    }

    async fn create_run(&self, record: &Record, summary: &Summary) -> Result<(), Error> {
        let id = &record.id;
        let position = summary.position();
        let mut batch = Batch::new();
        batch.expect_absent(&self.heads, Runs::Head.of(id));
        batch.put(&self.heads, Runs::Head.of(id), 0_u64.to_be_bytes());
        batch.put(&self.summaries, Runs::Summary.of(id), encode(summary)?);
        batch.put(&self.created, Runs::Created.at(&position), []);
        batch.put(&self.unfinished, Runs::Unfinished.at(&position), []);
        batch.put(&self.journals, Journal::Record.of(id), encode(record)?);
        self.commit(batch, &format!("run '{id}'")).await
    }

    async fn append(&self, step: Step) -> Result<(), Error> {
        self.append_to(Batch::new(), step).await
    }

    async fn record(&self, id: &RunId) -> Result<Option<Record>, Error> {
        let id = id.clone();
        self.read(move |store| store.record_now(&id)).await
    }

    async fn summary(&self, id: &RunId) -> Result<Option<Summary>, Error> {
        let id = id.clone();
        self.read(move |store| store.summary_now(&id)).await
    }

    async fn output(&self, id: &RunId) -> Result<Option<Value>, Error> {
        let id = id.clone();
        self.read(move |store| store.output_now(&id)).await
    }

    /// All of it on one way to the pool and back.
    async fn stored(&self, id: &RunId) -> Result<Option<Stored>, Error> {
        let id = id.clone();
        self.read(move |store| store.stored_now(&id)).await
    }

    async fn history(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        let id = id.clone();
        self.read(move |store| store.history_now(&id, from, limit)).await
    }

    async fn snapshot(&self, id: &RunId, which: SnapshotKind) -> Result<Option<Vec<u8>>, Error> {
        let key = Journal::snapshot(which).of(id);
        self.read(move |store| store.journals.get(key).map_err(damaged))
            .await
    }

    async fn forget_entries(&self, id: &RunId, before: u64, limit: usize) -> Result<usize, Error> {
        let run = id.clone();
        let keys = self
            .read(move |store| store.entries_before(&run, before, limit))
            .await?;
        let mut batch = Batch::new();
        let count = keys.len();
        for key in keys {
            batch.remove(&self.journals, key);
        }
        self.commit(batch, &format!("run '{id}'")).await?;
        Ok(count)
    }

    async fn runs(
        &self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Summary, Position>, Error> {
        let (filter, before) = (filter.clone(), before.cloned());
        self.read(move |store| store.runs_now(&filter, before.as_ref(), limit))
            .await
    }

    async fn unfinished(
        &self,
        _partition: Option<u16>,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Unfinished, Position>, Error> {
        let after = after.cloned();
        self.read(move |store| store.unfinished_now(after.as_ref(), limit))
            .await
    }

    async fn ended_before(&self, time: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        self.read(move |store| store.ended_now(time, limit)).await
    }

    async fn forget_run(&self, id: &RunId) -> Result<(), Error> {
        let what = format!("run '{id}'");
        let Some(summary) = self.summary(id).await? else {
            return Ok(());
        };
        let Some(ended_at) = summary.ended_at else {
            return Err(Error::Conflict(what));
        };
        // Nobody takes the journal further from here on. A crash before may have left it at that.
        let head = self.read({
            let id = id.clone();
            move |store| store.heads.get(Runs::Head.of(&id)).map_err(damaged)
        });
        let head = head.await?.unwrap_or_default();
        if head != FORGOTTEN {
            let length = summary.history_length;
            let expected = if head == erased(length) {
                head
            } else {
                length.to_be_bytes().to_vec()
            };
            let mut batch = Batch::new();
            batch.expect_value(&self.heads, Runs::Head.of(id), expected);
            batch.put(&self.heads, Runs::Head.of(id), FORGOTTEN);
            self.commit(batch, &what).await?;
        }
        // The index by time of end goes last: until then a crash only means that the rest is forgotten later.
        loop {
            let id = id.clone();
            let held = self
                .read(move |store| store.held_now(&id, FORGET_AT_ONCE))
                .await?;
            if held.is_empty() {
                break;
            }
            let mut batch = Batch::new();
            for key in held {
                batch.remove(&self.journals, key);
            }
            self.commit(batch, &what).await?;
        }
        self.forget_all_payloads(id).await?;
        loop {
            let id = id.clone();
            let (batch, any) = self
                .read(move |store| {
                    let mut batch = Batch::new();
                    let any = store.forget_approvals(&mut batch, &id, FORGET_AT_ONCE)?;
                    Ok((batch, any))
                })
                .await?;
            if !any {
                break;
            }
            self.commit(batch, &what).await?;
        }
        let mut batch = Batch::new();
        batch.remove(&self.created, Runs::Created.at(&summary.position()));
        batch.remove(&self.summaries, Runs::Summary.of(id));
        batch.remove(&self.heads, Runs::Head.of(id));
        batch.remove(&self.ended, Runs::ended(ended_at, id.as_str()));
        self.commit(batch, &what).await
    }

    fn health(&self) -> Result<(), String> {
        self.database
            .failure()
            .map_or(Ok(()), |failure| Err(failure.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::payloads::Apart;
    use crate::store::{conformance, payloads};

    #[tokio::test]
    async fn keeps_what_every_store_must() {
        let directory = tempfile::tempdir().unwrap();
        conformance::check(async || {
            let directory = muster_runtime::data_directory::open(directory.path()).unwrap();
            Embedded::open(directory).unwrap()
        })
        .await;
    }

    #[tokio::test]
    async fn keeps_the_same_where_it_is_encrypted() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::parse(&format!("a {}=", "A".repeat(43))).unwrap();
        let open = || {
            let directory = muster_runtime::data_directory::open(directory.path()).unwrap();
            Embedded::open_with(directory, FORMAT.version, Some(keys.clone())).unwrap()
        };
        conformance::check(async || open()).await;
        let store = Arc::new(open());
        payloads::conformance::check_keeper(&*store, &*store).await;
        payloads::conformance::check_apart(store, None).await;
    }

    #[tokio::test]
    async fn keeps_payloads_as_every_store_must() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let directory = muster_runtime::data_directory::open(directory.path()).unwrap();
            Arc::new(Embedded::open(directory).unwrap())
        };
        let store = open();
        payloads::conformance::check_keeper(&*store, &*store).await;
        payloads::conformance::check_apart(store, None).await;
        conformance::check(async || Apart::new(open(), None, 1)).await;
    }

    #[tokio::test]
    async fn a_gap_in_a_journal_is_damage_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let directory = muster_runtime::data_directory::open(directory.path()).unwrap();
        let store = Embedded::open(directory).unwrap();
        let (record, mut summary) = conformance::run("torn", 0);
        store.create_run(&record, &summary).await.unwrap();
        summary.history_length = 3;
        let entries = vec![b"0".to_vec(), b"1".to_vec(), b"2".to_vec()];
        store
            .append(Step {
                entries,
                ..Step::to(summary)
            })
            .await
            .unwrap();
        let mut batch = Batch::new();
        batch.remove(&store.journals, Journal::entry(&record.id, 1));
        store.database.commit(batch).await.unwrap();
        let error = store.history(&record.id, 0, 10).await.unwrap_err();
        assert!(
            matches!(&error, Error::Damaged(what) if what.contains("'torn' has no entry 1")),
            "{error}"
        );
    }
}

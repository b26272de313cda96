//! The store in one locked directory.
//!
//! Three keyspaces: the catalogue, the small and often read (summaries, heads of journals, indexes), and the large
//! (journals, what runs are pinned to, outputs). The head of a journal is a key of its own, because the condition
//! of an append must not depend on how a summary happens to be serialized. Reads run on the blocking pool: they
//! may wait for the disk.

mod keys;

use std::ops::Bound;
use std::path::Path;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_runtime::data_directory::DataDirectory;
use muster_store::{Batch, CommitError, Database, Format, Keyspace, Limits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::keys::{Catalogue, Journal, Runs};
use crate::run::{Entry, Position, Record, RunId, Summary};
use crate::store::{Error, Filter, HISTORY_BYTES, Page, Step, Store, Unfinished, Workflow, WorkflowKey};

const FORMAT: Format = Format {
    name: "workflow-engine",
    version: 1,
};

/// A page of runs looks at no more than so many, so that a filter that admits few cannot hold the store up.
const MOST_EXAMINED: usize = 5_000;

/// A run is forgotten in portions of so many entries.
const FORGET_AT_ONCE: usize = 1_000;

/// The store in one locked directory. Clones share it.
#[derive(Clone)]
pub struct Embedded {
    database: Database,
    catalogue: Keyspace,
    runs: Keyspace,
    journals: Keyspace,
}

impl Embedded {
    /// Opens the store in `directory`, or makes it. Reads what is to be recovered, so it may block for a while.
    ///
    /// # Errors
    /// The directory holds something else, a newer format or damaged files, or cannot be used.
    pub fn open(directory: DataDirectory) -> Result<Self, muster_store::Error> {
        let database = Database::open(directory, FORMAT, Limits::default())?;
        Ok(Self {
            catalogue: database.keyspace("catalogue")?,
            runs: database.keyspace("runs")?,
            journals: database.keyspace("journals")?,
            database,
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || read(&store))
            .await
            .map_err(|error| Error::Unavailable(format!("a read did not finish: {error}")))?
    }

    async fn commit(&self, batch: Batch, what: &str) -> Result<(), Error> {
        self.database.commit(batch).await.map_err(|error| match error {
            CommitError::Conflict { .. } => Error::Conflict(what.to_owned()),
            CommitError::TooLarge { bytes, limit } => Error::TooLarge { bytes, limit },
            CommitError::Stopped { .. } => Error::Unavailable(error.to_string()),
        })
    }

    fn path(&self) -> &Path {
        self.database.path()
    }

    fn decode<T: DeserializeOwned>(&self, what: &str, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|error| {
            Error::Damaged(format!(
                "{}: {what} cannot be read: {error}",
                self.path().display()
            ))
        })
    }

    fn get<T: DeserializeOwned>(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        what: impl FnOnce() -> String,
    ) -> Result<Option<T>, Error> {
        let bytes = keyspace.get(key).map_err(damaged)?;
        bytes.map(|bytes| self.decode(&what(), &bytes)).transpose()
    }

    fn summary_now(&self, id: &RunId) -> Result<Option<Summary>, Error> {
        self.get(&self.runs, Runs::Summary.of(id), || format!("run '{id}'"))
    }

    fn position(&self, key: &[u8]) -> Result<Position, Error> {
        Runs::position(key).ok_or_else(|| {
            Error::Damaged(format!(
                "{}: no run is named by key {}",
                self.path().display(),
                key.escape_ascii()
            ))
        })
    }

    fn workflows_now(
        &self,
        after: Option<&WorkflowKey>,
        limit: usize,
    ) -> Result<Page<Workflow, WorkflowKey>, Error> {
        let start = match after.and_then(|key| Catalogue::Workflow.of(key)) {
            Some(key) => Bound::Excluded(key),
            None => Bound::Included(Catalogue::Workflow.all().to_vec()),
        };
        let end = Bound::Excluded(vec![Catalogue::Workflow as u8 + 1]);
        let mut page = Page {
            entries: Vec::new(),
            next: None,
        };
        for entry in self.catalogue.range((start, end)) {
            let (_, bytes) = entry.map_err(damaged)?;
            if page.entries.len() >= limit {
                page.next = page.entries.last().map(|last: &Workflow| last.key.clone());
                break;
            }
            page.entries
                .push(self.decode("a workflow of the catalogue", &bytes)?);
        }
        Ok(page)
    }

    fn runs_now(
        &self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Summary, Position>, Error> {
        let start = Bound::Included(Runs::Created.first().to_vec());
        let end = Bound::Excluded(before.map_or_else(
            || Runs::Created.last().to_vec(),
            |position| Runs::Created.at(position),
        ));
        let mut page = Page {
            entries: Vec::new(),
            next: None,
        };
        let mut last = None;
        for (examined, entry) in self.runs.range((start, end)).rev().enumerate() {
            let (key, _) = entry.map_err(damaged)?;
            if page.entries.len() >= limit || examined >= MOST_EXAMINED {
                page.next = last;
                break;
            }
            let position = self.position(&key)?;
            // Absent where it was forgotten since the range was taken.
            if let Some(run) = self.summary_now(&position.id)?.filter(|run| filter.admits(run)) {
                page.entries.push(run);
            }
            last = Some(position);
        }
        Ok(page)
    }

    fn unfinished_now(
        &self,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Unfinished, Position>, Error> {
        let start = match after {
            Some(position) => Bound::Excluded(Runs::Unfinished.at(position)),
            None => Bound::Included(Runs::Unfinished.first().to_vec()),
        };
        let end = Bound::Excluded(Runs::Unfinished.last().to_vec());
        let mut page = Page {
            entries: Vec::new(),
            next: None,
        };
        let mut last = None;
        for entry in self.runs.range((start, end)) {
            let (key, _) = entry.map_err(damaged)?;
            if page.entries.len() >= limit {
                page.next = last;
                break;
            }
            let position = self.position(&key)?;
            let id = position.id.clone();
            let missing = || Error::Damaged(format!("{}: run '{id}' has no summary", self.path().display()));
            let summary = self
                .summary_now(&id)
                .and_then(|summary| summary.ok_or_else(missing));
            page.entries.push(summary.map_err(|error| (id.clone(), error)));
            last = Some(position);
        }
        Ok(page)
    }

    fn history_now(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        let range = (
            Bound::Included(Journal::entry(id, from)),
            Bound::Excluded(Journal::end(id)),
        );
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes_read = 0;
        for entry in self.journals.range(range).take(limit) {
            let (key, bytes) = entry.map_err(damaged)?;
            // What else a run holds sorts after its entries; entries have no gaps.
            if !key.starts_with(&Journal::Entry.of(id)) {
                break;
            }
            let expected = entries.last().map_or(from, |last| last.index.saturating_add(1));
            let index = Journal::index(&key)
                .filter(|index| *index == expected)
                .ok_or_else(|| {
                    let path = self.path().display();
                    Error::Damaged(format!(
                        "{path}: the journal of run '{id}' has no entry {expected}"
                    ))
                })?;
            bytes_read += bytes.len();
            if !entries.is_empty() && bytes_read > HISTORY_BYTES {
                break;
            }
            entries.push(Entry { index, bytes });
        }
        Ok(entries)
    }

    fn ended_now(&self, time: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        let end = Bound::Excluded(Runs::ended(time, ""));
        let range = (Bound::Included(Runs::Ended.first().to_vec()), end);
        let entries = self.runs.range(range).take(limit);
        entries
            .map(|entry| {
                self.position(&entry.map_err(damaged)?.0)
                    .map(|position| position.id)
            })
            .collect()
    }

    /// Keys of what a run holds among the journals.
    fn held_now(&self, id: &RunId, limit: usize) -> Result<Vec<Vec<u8>>, Error> {
        let range = (
            Bound::Included(Journal::start(id)),
            Bound::Excluded(Journal::end(id)),
        );
        self.journals
            .range(range)
            .take(limit)
            .map(|entry| Ok(entry.map_err(damaged)?.0))
            .collect()
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
        batch.expect_absent(&self.runs, Runs::Head.of(id));
        batch.put(&self.runs, Runs::Head.of(id), 0_u64.to_be_bytes());
        batch.put(&self.runs, Runs::Summary.of(id), encode(summary)?);
        batch.put(&self.runs, Runs::Created.at(&position), []);
        batch.put(&self.runs, Runs::Unfinished.at(&position), []);
        batch.put(&self.journals, Journal::Record.of(id), encode(record)?);
        self.commit(batch, &format!("run '{id}'")).await
    }

    async fn append(&self, step: Step) -> Result<(), Error> {
        let Step {
            summary,
            first_index,
            entries,
            output,
        } = step;
        let id = &summary.id;
        let mut batch = Batch::new();
        batch.expect_value(&self.runs, Runs::Head.of(id), first_index.to_be_bytes());
        let mut next_index = first_index;
        for bytes in entries {
            batch.put(&self.journals, Journal::entry(id, next_index), bytes);
            next_index += 1;
        }
        batch.put(&self.runs, Runs::Head.of(id), next_index.to_be_bytes());
        batch.put(&self.runs, Runs::Summary.of(id), encode(&summary)?);
        if let Some(output) = output {
            batch.put(&self.journals, Journal::Output.of(id), encode(&output)?);
        }
        if let Some(ended_at) = summary.ended_at {
            batch.remove(&self.runs, Runs::Unfinished.at(&summary.position()));
            batch.put(&self.runs, Runs::ended(ended_at, id.as_str()), []);
        }
        self.commit(batch, &format!("entry {first_index} of run '{id}'"))
            .await
    }

    async fn record(&self, id: &RunId) -> Result<Option<Record>, Error> {
        let id = id.clone();
        self.read(move |store| store.get(&store.journals, Journal::Record.of(&id), || format!("run '{id}'")))
            .await
    }

    async fn summary(&self, id: &RunId) -> Result<Option<Summary>, Error> {
        let id = id.clone();
        self.read(move |store| store.summary_now(&id)).await
    }

    async fn output(&self, id: &RunId) -> Result<Option<Value>, Error> {
        let id = id.clone();
        self.read(move |store| {
            store.get(&store.journals, Journal::Output.of(&id), || {
                format!("the output of run '{id}'")
            })
        })
        .await
    }

    async fn history(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        let id = id.clone();
        self.read(move |store| store.history_now(&id, from, limit)).await
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
        let mut batch = Batch::new();
        batch.remove(&self.runs, Runs::Created.at(&summary.position()));
        batch.remove(&self.runs, Runs::Summary.of(id));
        batch.remove(&self.runs, Runs::Head.of(id));
        batch.remove(&self.runs, Runs::ended(ended_at, id.as_str()));
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
    use crate::store::conformance;

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
                summary,
                first_index: 0,
                entries,
                output: None,
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

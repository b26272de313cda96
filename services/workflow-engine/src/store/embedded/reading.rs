//! What is read of the embedded store, for threads that may wait for the disk.

use std::ops::Bound;
use std::path::Path;

use jiff::Timestamp;
use muster_store::Keyspace;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::keys::{Catalogue, Journal, Runs};
use super::{Embedded, damaged};
use crate::run::{Entry, Position, Record, RunId, Summary};
use crate::store::{Error, Filter, HISTORY_BYTES, Page, Stored, Unfinished, Workflow, WorkflowKey};

/// A page of runs looks at no more than so many, so that a filter that admits few cannot hold the store up.
const MOST_EXAMINED: usize = 5_000;

impl Embedded {
    pub(super) fn path(&self) -> &Path {
        self.database.path()
    }

    pub(super) fn decode<T: DeserializeOwned>(&self, what: &str, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|error| {
            Error::Damaged(format!(
                "{}: {what} cannot be read: {error}",
                self.path().display()
            ))
        })
    }

    pub(super) fn get<T: DeserializeOwned>(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        what: impl FnOnce() -> String,
    ) -> Result<Option<T>, Error> {
        let bytes = keyspace.get(key).map_err(damaged)?;
        bytes.map(|bytes| self.decode(&what(), &bytes)).transpose()
    }

    pub(super) fn summary_now(&self, id: &RunId) -> Result<Option<Summary>, Error> {
        self.get(&self.summaries, Runs::Summary.of(id), || format!("run '{id}'"))
    }

    pub(super) fn record_now(&self, id: &RunId) -> Result<Option<Record>, Error> {
        self.get(&self.journals, Journal::Record.of(id), || format!("run '{id}'"))
    }

    pub(super) fn output_now(&self, id: &RunId) -> Result<Option<Value>, Error> {
        let what = || format!("the output of run '{id}'");
        self.get(&self.journals, Journal::Output.of(id), what)
    }

    pub(super) fn stored_now(&self, id: &RunId) -> Result<Option<Stored>, Error> {
        let Some(summary) = self.summary_now(id)? else {
            return Ok(None);
        };
        let output = match summary.has_output() {
            true => self.output_now(id)?,
            false => None,
        };
        Ok(Some(Stored {
            record: self.record_now(id)?,
            summary,
            output,
        }))
    }

    pub(super) fn position(&self, key: &[u8]) -> Result<Position, Error> {
        Runs::position(key).ok_or_else(|| {
            Error::Damaged(format!(
                "{}: no run is named by key {}",
                self.path().display(),
                key.escape_ascii()
            ))
        })
    }

    pub(super) fn workflows_now(
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

    pub(super) fn runs_now(
        &self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Summary, Position>, Error> {
        let first = filter.created.from.map(Runs::created);
        let start = Bound::Included(first.unwrap_or_else(|| Runs::Created.first().to_vec()));
        let ends = before.map(|position| Runs::Created.at(position)).into_iter();
        let end = ends.chain(filter.created.to.map(Runs::created)).min();
        let end = Bound::Excluded(end.unwrap_or_else(|| Runs::Created.last().to_vec()));
        if matches!((&start, &end), (Bound::Included(start), Bound::Excluded(end)) if start >= end) {
            return Ok(Page {
                entries: Vec::new(),
                next: None,
            });
        }
        let mut page = Page {
            entries: Vec::new(),
            next: None,
        };
        let mut last = None;
        for (examined, entry) in self.created.range((start, end)).rev().enumerate() {
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

    pub(super) fn unfinished_now(
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
        for entry in self.unfinished.range((start, end)) {
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

    pub(super) fn history_now(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
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

    pub(super) fn ended_now(&self, time: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        let end = Bound::Excluded(Runs::ended(time, ""));
        let range = (Bound::Included(Runs::Ended.first().to_vec()), end);
        let entries = self.ended.range(range).take(limit);
        entries
            .map(|entry| {
                self.position(&entry.map_err(damaged)?.0)
                    .map(|position| position.id)
            })
            .collect()
    }

    /// Keys of entries of a run before this one.
    pub(super) fn entries_before(
        &self,
        id: &RunId,
        before: u64,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let range = (
            Bound::Included(Journal::entry(id, 0)),
            Bound::Excluded(Journal::entry(id, before)),
        );
        self.keys(range, limit)
    }

    /// Keys of what a run holds among the journals.
    pub(super) fn held_now(&self, id: &RunId, limit: usize) -> Result<Vec<Vec<u8>>, Error> {
        let range = (
            Bound::Included(Journal::start(id)),
            Bound::Excluded(Journal::end(id)),
        );
        self.keys(range, limit)
    }

    fn keys(&self, range: (Bound<Vec<u8>>, Bound<Vec<u8>>), limit: usize) -> Result<Vec<Vec<u8>>, Error> {
        let entries = self.journals.range(range).take(limit);
        entries.map(|entry| Ok(entry.map_err(damaged)?.0)).collect()
    }
}

//! What is read of runs.

use std::ops::Bound;

use futures::future::try_join_all;
use jiff::Timestamp;
use muster_store::redis::{Script, cmd};
use serde::de::DeserializeOwned;

use super::keys::{self, Index, Partition};
use super::merge::Merge;
use super::{Redis, decode};
use crate::approval::{self, Approval, ApprovalId};
use crate::run::{Entry, Position, RunId, Summary};
use crate::store::{Error, Filter, HISTORY_BYTES, Page, SnapshotKind, Stored, Unfinished};

static HISTORY: Script = Script::new(include_str!("history.lua"));

/// A page looks at no more than so many, so that a filter that admits few cannot hold the store up.
const MOST_EXAMINED: usize = 5_000;

/// Redis does not count further in a list.
const LAST_INDEX: u64 = 1 << 53;

/// Summaries and approvals that are read at once.
const AT_ONCE: usize = 100;

/// How parts of a run are called in errors.
pub(super) const RECORD: &str = "what is accepted";
pub(super) const SUMMARY: &str = "the summary";
pub(super) const OUTPUT: &str = "the output";

fn decode_of<T: DeserializeOwned>(
    id: &RunId,
    what: &str,
    bytes: Option<Vec<u8>>,
) -> Result<Option<T>, Error> {
    bytes
        .map(|bytes| decode(&format!("{what} of run '{id}'"), &bytes))
        .transpose()
}

impl Redis {
    fn all(&self) -> Vec<u16> {
        (0..self.partitions()).collect()
    }

    /// A part of what is kept of a run.
    pub(super) async fn field<T: DeserializeOwned>(
        &self,
        id: &RunId,
        field: &str,
        what: &str,
    ) -> Result<Option<T>, Error> {
        let keys = Partition::new(self.prefix(), self.partition_of(id));
        let bytes: Option<Vec<u8>> = self.run(cmd("HGET").arg(keys.run(id)).arg(field)).await?;
        decode_of(id, what, bytes)
    }

    /// All of it with one command.
    pub(super) async fn stored_of(&self, id: &RunId) -> Result<Option<Stored>, Error> {
        let keys = Partition::new(self.prefix(), self.partition_of(id));
        let mut command = cmd("HMGET");
        command.arg(keys.run(id)).arg(&["summary", "record", "output"]);
        let [summary, record, output]: [Option<Vec<u8>>; 3] = self.run(&command).await?;
        let Some(summary) = decode_of::<Summary>(id, SUMMARY, summary)? else {
            return Ok(None);
        };
        let output = output.filter(|_| summary.has_output());
        Ok(Some(Stored {
            summary,
            record: decode_of(id, RECORD, record)?,
            output: decode_of(id, OUTPUT, output)?,
        }))
    }

    pub(super) async fn state_of(&self, id: &RunId, which: SnapshotKind) -> Result<Option<Vec<u8>>, Error> {
        let field = match which {
            SnapshotKind::Latest => "latest",
            SnapshotKind::Base => "base",
        };
        let keys = Partition::new(self.prefix(), self.partition_of(id));
        self.run(cmd("HGET").arg(keys.run(id)).arg(field)).await
    }

    pub(super) async fn history_of(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        if from >= LAST_INDEX || limit == 0 {
            return Ok(Vec::new());
        }
        let keys = Partition::new(self.prefix(), self.partition_of(id));
        let call = HISTORY
            .call()
            .key(keys.run(id))
            .key(keys.journal(id))
            .number(from)
            .number(limit as u64)
            .number(HISTORY_BYTES as u64);
        let mut entries = self.call::<Vec<Vec<u8>>>(&call).await?.into_iter();
        let forgotten = entries.next().unwrap_or_default();
        let forgotten: u64 = decode("how many entries were forgotten", &forgotten)?;
        if from < forgotten {
            return Err(Error::Damaged(format!(
                "the journal of run '{id}' has no entry {from}"
            )));
        }
        let entries = (from..).zip(entries);
        Ok(entries.map(|(index, bytes)| Entry { index, bytes }).collect())
    }

    pub(super) async fn list_runs(
        &self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Summary, Position>, Error> {
        let start = filter
            .created
            .from
            .map_or(Bound::Unbounded, |from| Bound::Included(keys::time(from)));
        let ends = before.map(keys::created).into_iter();
        let end = ends.chain(filter.created.to.map(keys::time)).min();
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let merge = Merge::new(self, Index::Created, (start, end), true, self.all(), limit);
        let read = |position: Position| async move { self.summary_of(&position.id).await };
        page(merge, limit, position, read, |run| filter.admits(run)).await
    }

    async fn summary_of(&self, id: &RunId) -> Result<Option<Summary>, Error> {
        self.field(id, "summary", "the summary").await
    }

    pub(super) async fn list_unfinished(
        &self,
        partition: Option<u16>,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Unfinished, Position>, Error> {
        let partitions = partition.map_or_else(|| self.all(), |partition| vec![partition]);
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(keys::created(after)));
        let range = (start, Bound::Unbounded);
        let mut merge = Merge::new(self, Index::Unfinished, range, false, partitions, limit);
        let mut places = merge.next(limit.saturating_add(1)).await?;
        let is_more = places.len() > limit;
        places.truncate(limit);
        let mut page = Page {
            entries: Vec::new(),
            next: None,
        };
        for portion in places.chunks(AT_ONCE) {
            let reads = portion
                .iter()
                .map(|(partition, place)| self.unfinished_at(*partition, place));
            page.entries
                .extend(try_join_all(reads).await?.into_iter().flatten());
        }
        if let Some((_, place)) = places.last().filter(|_| is_more) {
            page.next = Some(position(place)?);
        }
        Ok(page)
    }

    /// None if the run has ended meanwhile and is forgotten.
    async fn unfinished_at(&self, partition: u16, place: &str) -> Result<Option<Unfinished>, Error> {
        let id = position(place)?.id;
        match self.summary_of(&id).await {
            Ok(Some(summary)) => Ok(Some(Ok(summary))),
            Err(error @ Error::Damaged(_)) => Ok(Some(Err((id, error)))),
            Err(error) => Err(error),
            Ok(None) => {
                let key = Partition::new(self.prefix(), partition).index(Index::Unfinished);
                let still: Option<String> = self.run(cmd("ZSCORE").arg(key).arg(place)).await?;
                Ok(still.map(|_| {
                    let what = format!("{}: run '{id}' has no summary", self.address());
                    Err((id, Error::Damaged(what)))
                }))
            }
        }
    }

    pub(super) async fn list_ended(&self, time: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        let range = (Bound::Unbounded, Bound::Excluded(keys::time(time)));
        let mut merge = Merge::new(self, Index::Ended, range, false, self.own(), limit);
        let places = merge.next(limit).await?;
        places.iter().map(|(_, place)| Ok(position(place)?.id)).collect()
    }

    pub(super) async fn approval_of(&self, id: &ApprovalId) -> Result<Option<Approval>, Error> {
        let keys = Partition::new(self.prefix(), self.partition_of(&id.run));
        let mut command = cmd("HGET");
        command.arg(keys.approvals(&id.run)).arg(id.number);
        let bytes: Option<Vec<u8>> = self.run(&command).await?;
        let Some(bytes) = bytes else { return Ok(None) };
        let text = bytes.iter().position(|byte| *byte == b'\n');
        let text = text.and_then(|end| bytes.get(end + 1..)).unwrap_or_default();
        decode(&format!("approval '{id}'"), text).map(Some)
    }

    pub(super) async fn list_approvals(
        &self,
        filter: &approval::Filter,
        after: Option<&approval::Position>,
        limit: usize,
    ) -> Result<Page<Approval, approval::Position>, Error> {
        let after = after.map_or(Bound::Unbounded, |after| Bound::Excluded(keys::opened(after)));
        let (index, range) = if filter.open_only() {
            (Index::ApprovalsOpen, (after, Bound::Unbounded))
        } else {
            (Index::ApprovalsAll, (Bound::Unbounded, after))
        };
        let only = filter.run.as_ref().map(|run| vec![self.partition_of(run)]);
        let partitions = only.unwrap_or_else(|| self.all());
        let merge = Merge::new(self, index, range, !filter.open_only(), partitions, limit);
        let read = |position: approval::Position| async move { self.approval_of(&position.id).await };
        page(merge, limit, asked, read, |approval| filter.admits(approval)).await
    }
}

/// A page of what is read at the places of an index, as far as it is admitted.
async fn page<P: Clone, T, F>(
    mut merge: Merge<'_>,
    limit: usize,
    position: impl Fn(&str) -> Result<P, Error>,
    read: impl Fn(P) -> F,
    admits: impl Fn(&T) -> bool,
) -> Result<Page<T, P>, Error>
where
    F: Future<Output = Result<Option<T>, Error>>,
{
    let mut page = Page {
        entries: Vec::new(),
        next: None,
    };
    let (mut examined, mut last) = (0, None);
    loop {
        // One more than fits tells whether there is a next page.
        let places = merge.next((limit - page.entries.len() + 1).min(AT_ONCE)).await?;
        if places.is_empty() {
            return Ok(page);
        }
        let positions: Vec<P> = places
            .iter()
            .map(|(_, place)| position(place))
            .collect::<Result<_, _>>()?;
        let found = try_join_all(positions.iter().cloned().map(&read)).await?;
        for (position, found) in positions.into_iter().zip(found) {
            if page.entries.len() >= limit || examined >= MOST_EXAMINED {
                page.next = last;
                return Ok(page);
            }
            examined += 1;
            // Absent where it was forgotten since the place was read.
            page.entries.extend(found.filter(&admits));
            last = Some(position);
        }
    }
}

fn asked(place: &str) -> Result<approval::Position, Error> {
    keys::approval(place).ok_or_else(|| Error::Damaged(format!("no approval is named by place '{place}'")))
}

fn position(place: &str) -> Result<Position, Error> {
    keys::position(place).ok_or_else(|| Error::Damaged(format!("no run is named by place '{place}'")))
}

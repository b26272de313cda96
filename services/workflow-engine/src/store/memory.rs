//! The store in memory: gone with the process, and as strict as any other while it lasts.
//!
//! Every operation is one step under one lock, so each is atomic and none waits. That makes it the ground for simulations,
//! which put delays and faults of their own around it.
//!
//! Rejected: the embedded store in a temporary directory. It waits for a disk and for threads of its own, whose order no
//! seed repeats.

mod events;
mod indexes;
mod payloads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_workflow_dsl::usage::Usage;
use parking_lot::Mutex;
use serde_json::Value;

use self::events::Log;
use crate::approval::{Approval, ApprovalId};
use crate::run::{Entry, Position, Record, RunId, Summary};
use crate::store::erase::{Erase, Rewrite};
use crate::store::payloads::{Digest, Room};
use crate::store::{
    Again, Error, Filter, HISTORY_BYTES, Page, Saved, SnapshotKind, Step, Store, Unfinished, Workflow,
    WorkflowKey,
};
use crate::timetable::{Name, Schedule};
use crate::version;

/// The store in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

/// Everything that is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    catalogue: BTreeMap<Place, (Workflow, String)>,
    pub(crate) runs: BTreeMap<RunId, Kept>,
    created: BTreeSet<Position>,
    unfinished: BTreeSet<Position>,
    ended: BTreeSet<(i64, RunId)>,
    answers: BTreeMap<String, (Timestamp, Value)>,
    /// When answers end, also those that were replaced.
    ends: BTreeSet<(Timestamp, String)>,
    approvals: BTreeMap<(RunId, u64), Approval>,
    schedules: BTreeMap<Name, Schedule>,
    spending: BTreeMap<(i64, String, RunId), Usage>,
    log: Log,
}

/// Namespace, name and version of a document, in their order.
type Place = (String, String, Vec<u8>);

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) record: Record,
    pub(crate) summary: Summary,
    /// How many entries before those that are there have been forgotten.
    pub(crate) first: u64,
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) output: Option<Value>,
    latest: Option<Vec<u8>>,
    base: Option<Vec<u8>>,
    /// By span and digest.
    payloads: BTreeMap<(u64, Digest), String>,
    /// Whether something was erased, so that nothing is appended any more.
    is_erased: bool,
}

impl Kept {
    fn length(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

fn place(key: &WorkflowKey) -> Option<Place> {
    Some((
        key.namespace.clone(),
        key.name.clone(),
        version::sort_key(&key.version)?,
    ))
}

impl Memory {
    /// Looks at everything, or changes it, in one step.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock())
    }
}

impl State {
    /// Whether all runs have ended.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// Takes the last entries of a run back, as a store would that had not kept its word.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn take_back(&mut self, before: Summary, entries: usize) {
        let Some(run) = self.runs.get_mut(&before.id) else {
            return;
        };
        let length = run.entries.len().saturating_sub(entries);
        run.entries.truncate(length);
        run.output = None;
        // Later than the entries that are left.
        run.latest = None;
        let position = before.position();
        if let Some(ended_at) = run.summary.ended_at {
            self.ended.remove(&(ended_at.as_microsecond(), before.id.clone()));
        }
        run.summary = before;
        self.unfinished.insert(position);
    }

    /// Ids of all events in the log.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn event_ids(&self) -> BTreeSet<String> {
        self.log.ids()
    }

    /// Loses the last event with this id.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn lose_event(&mut self, id: &str) {
        self.log.lose(id);
    }

    fn create(&mut self, record: &Record, summary: &Summary, entries: Vec<Vec<u8>>) -> Result<(), Error> {
        if self.runs.contains_key(&record.id) {
            return Err(Error::Conflict(format!("run '{}'", record.id)));
        }
        self.created.insert(summary.position());
        self.unfinished.insert(summary.position());
        let run = Kept {
            record: record.clone(),
            summary: summary.clone(),
            first: 0,
            entries,
            output: None,
            latest: None,
            base: None,
            payloads: BTreeMap::new(),
            is_erased: false,
        };
        self.runs.insert(record.id.clone(), run);
        Ok(())
    }

    /// Whether the journal ends right before the step.
    fn check(&self, step: &Step) -> Result<(), Error> {
        let run = self.runs.get(&step.summary.id);
        let length = run.filter(|run| !run.is_erased).map(Kept::length);
        if length == Some(step.first_index) {
            return Ok(());
        }
        let (index, id) = (step.first_index, &step.summary.id);
        Err(Error::Conflict(format!("entry {index} of run '{id}'")))
    }

    fn append(&mut self, step: Step) -> Result<(), Error> {
        self.check(&step)?;
        let Step {
            summary,
            entries,
            output,
            approvals,
            spent,
            events,
            snapshot,
            payloads,
            first_index: _,
        } = step;
        let room = Room::of(&summary);
        self.note(&summary, approvals, events);
        if let Some(spent) = spent {
            let key = (spent.day, summary.namespace.clone(), summary.id.clone());
            self.spending.insert(key, spent.usage);
        }
        if let Some(ended_at) = summary.ended_at {
            self.unfinished.remove(&summary.position());
            self.ended.insert((ended_at.as_microsecond(), summary.id.clone()));
        }
        if let Some(run) = self.runs.get_mut(&summary.id) {
            run.entries.extend(entries);
            run.output = output.or(run.output.take());
            if let Some(Saved { bytes, is_base }) = snapshot {
                if is_base {
                    run.base = Some(bytes.clone());
                }
                run.latest = Some(bytes);
            }
            run.summary = summary;
            run.put(&room, payloads);
        }
        Ok(())
    }

    fn note(
        &mut self,
        summary: &Summary,
        approvals: Vec<Approval>,
        events: Vec<muster_workflow_dsl::cloud_event::CloudEvent>,
    ) {
        for approval in approvals {
            let ApprovalId { run, number } = approval.id.clone();
            self.approvals.insert((run, number), approval);
        }
        let now = events.iter().find_map(|event| event.text("time").parse().ok());
        for event in events {
            self.log.add(event, now.unwrap_or(summary.created_at));
        }
    }

    fn runs(&self, filter: &Filter, before: Option<&Position>, limit: usize) -> Page<Summary, Position> {
        let mut page = Page {
            entries: Vec::new(),
            next: None,
        };
        let mut last = None;
        let positions = self.created.iter().rev();
        for position in positions.filter(|position| before.is_none_or(|before| *position < before)) {
            let run = self.runs.get(&position.id).map(|run| &run.summary);
            let Some(run) = run.filter(|run| filter.admits(run)) else {
                continue;
            };
            if page.entries.len() >= limit {
                page.next = last;
                break;
            }
            page.entries.push(run.clone());
            last = Some(position.clone());
        }
        page
    }

    fn unfinished(&self, after: Option<&Position>, limit: usize) -> Page<Unfinished, Position> {
        let mut page = Page {
            entries: Vec::new(),
            next: None,
        };
        let mut last: Option<&Position> = None;
        let positions = self.unfinished.iter();
        for position in positions.filter(|position| after.is_none_or(|after| *position > after)) {
            if page.entries.len() >= limit {
                page.next = last.cloned();
                break;
            }
            let run = self.runs.get(&position.id).map(|run| Ok(run.summary.clone()));
            page.entries.extend(run);
            last = Some(position);
        }
        page
    }

    fn forget(&mut self, id: &RunId) -> Result<(), Error> {
        let Some(run) = self.runs.get(id) else {
            return Ok(());
        };
        let Some(ended_at) = run.summary.ended_at else {
            return Err(Error::Conflict(format!("run '{id}'")));
        };
        self.ended.remove(&(ended_at.as_microsecond(), id.clone()));
        self.created.remove(&run.summary.position());
        self.approvals.retain(|(run, _), _| run != id);
        self.runs.remove(id);
        Ok(())
    }
}

#[async_trait]
impl Store for Memory {
    async fn add_workflow(&self, workflow: &Workflow, document: &str) -> Result<(), Error> {
        let key = &workflow.key;
        let what = format!("{}/{} {}", key.namespace, key.name, key.version);
        let Some(place) = place(key) else {
            return Err(Error::Damaged(format!("{what} has no semantic version")));
        };
        self.with(|state| {
            if state.catalogue.contains_key(&place) {
                return Err(Error::Conflict(what));
            }
            state
                .catalogue
                .insert(place, (workflow.clone(), document.to_owned()));
            Ok(())
        })
    }

    async fn document(&self, key: &WorkflowKey) -> Result<Option<String>, Error> {
        Ok(self.with(|state| {
            let found = state.catalogue.get(&place(key)?)?;
            Some(found.1.clone())
        }))
    }

    async fn workflow(&self, key: &WorkflowKey) -> Result<Option<Workflow>, Error> {
        Ok(self.with(|state| {
            let found = state.catalogue.get(&place(key)?)?;
            Some(found.0.clone())
        }))
    }

    async fn newest_workflow(&self, namespace: &str, name: &str) -> Result<Option<Workflow>, Error> {
        let first = (namespace.to_owned(), name.to_owned(), Vec::new());
        Ok(self.with(|state| {
            let same = state.catalogue.range(first..);
            same.take_while(|((at, called, _), _)| at == namespace && called == name)
                .last()
                .map(|(_, (workflow, _))| workflow.clone())
        }))
    }

    async fn workflows(
        &self,
        after: Option<&WorkflowKey>,
        limit: usize,
    ) -> Result<Page<Workflow, WorkflowKey>, Error> {
        let after = after.and_then(place);
        Ok(self.with(|state| {
            let all = state.catalogue.iter();
            let rest = all.filter(|(place, _)| after.as_ref().is_none_or(|after| *place > after));
            let mut entries: Vec<Workflow> = rest
                .take(limit + 1)
                .map(|(_, (workflow, _))| workflow.clone())
                .collect();
            let more = entries.len() > limit;
            entries.truncate(limit);
            let next = entries.last().filter(|_| more).map(|last| last.key.clone());
            Page { entries, next }
        }))
    }

    async fn create_run(&self, record: &Record, summary: &Summary) -> Result<(), Error> {
        self.with(|state| state.create(record, summary, Vec::new()))
    }

    async fn append(&self, step: Step) -> Result<(), Error> {
        self.with(|state| state.append(step))
    }

    async fn record(&self, id: &RunId) -> Result<Option<Record>, Error> {
        Ok(self.with(|state| state.runs.get(id).map(|run| run.record.clone())))
    }

    async fn summary(&self, id: &RunId) -> Result<Option<Summary>, Error> {
        Ok(self.with(|state| state.runs.get(id).map(|run| run.summary.clone())))
    }

    async fn output(&self, id: &RunId) -> Result<Option<Value>, Error> {
        Ok(self.with(|state| state.runs.get(id).and_then(|run| run.output.clone())))
    }

    async fn history(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        self.with(|state| {
            let Some(run) = state.runs.get(id) else {
                return Ok(Vec::new());
            };
            let Some(skipped) = from.checked_sub(run.first) else {
                return Err(Error::Damaged(format!(
                    "the journal of run '{id}' has no entry {from}"
                )));
            };
            let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
            let (mut portion, mut bytes_read) = (Vec::new(), 0);
            for (index, bytes) in (run.first..).zip(&run.entries).skip(skipped).take(limit) {
                bytes_read += bytes.len();
                if !portion.is_empty() && bytes_read > HISTORY_BYTES {
                    break;
                }
                let bytes = bytes.clone();
                portion.push(Entry { index, bytes });
            }
            Ok(portion)
        })
    }

    async fn snapshot(&self, id: &RunId, which: SnapshotKind) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.with(|state| {
            let run = state.runs.get(id)?;
            match which {
                SnapshotKind::Latest => run.latest.clone(),
                SnapshotKind::Base => run.base.clone(),
            }
        }))
    }

    async fn forget_entries(&self, id: &RunId, before: u64, limit: usize) -> Result<usize, Error> {
        Ok(self.with(|state| {
            let Some(run) = state.runs.get_mut(id) else {
                return 0;
            };
            let old = usize::try_from(before.saturating_sub(run.first)).unwrap_or(usize::MAX);
            let count = old.min(limit).min(run.entries.len());
            run.entries.drain(..count);
            run.first += count as u64;
            count
        }))
    }

    async fn runs(
        &self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Summary, Position>, Error> {
        Ok(self.with(|state| state.runs(filter, before, limit)))
    }

    async fn unfinished(
        &self,
        _partition: Option<u16>,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Unfinished, Position>, Error> {
        Ok(self.with(|state| state.unfinished(after, limit)))
    }

    async fn ended_before(&self, time: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        let time = time.as_microsecond();
        Ok(self.with(|state| {
            let ended = state.ended.iter().take_while(|(ended, _)| *ended < time);
            ended.take(limit).map(|(_, id)| id.clone()).collect()
        }))
    }

    async fn forget_run(&self, id: &RunId) -> Result<(), Error> {
        self.with(|state| state.forget(id))
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }
}

#[async_trait]
impl Again for Memory {
    async fn reopen(&self, step: Step, ended_at: Timestamp) -> Result<(), Error> {
        self.with(|state| {
            state.check(&step)?;
            let id = step.summary.id.clone();
            state.ended.remove(&(ended_at.as_microsecond(), id));
            state.unfinished.insert(step.summary.position());
            state.append(step)
        })
    }

    async fn create_with(&self, record: &Record, step: Step) -> Result<(), Error> {
        self.with(|state| {
            state.create(record, &step.summary, step.entries)?;
            if let Some(run) = state.runs.get_mut(&record.id) {
                run.put(&Room::of(&step.summary), step.payloads);
            }
            state.note(&step.summary, step.approvals, step.events);
            Ok(())
        })
    }
}

#[async_trait]
impl Erase for Memory {
    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), Error> {
        let Rewrite {
            summary,
            record,
            first_index,
            entries,
            approvals,
        } = rewrite;
        let id = summary.id.clone();
        self.with(|state| {
            let run = state.runs.get_mut(&id);
            let run = run.filter(|run| run.length() == summary.history_length);
            let run = run.ok_or_else(|| Error::Conflict(format!("run '{id}'")))?;
            let skipped = usize::try_from(first_index.saturating_sub(run.first)).unwrap_or(usize::MAX);
            for (old, new) in run.entries.iter_mut().skip(skipped).zip(entries) {
                *old = new;
            }
            run.record = record.unwrap_or_else(|| run.record.clone());
            run.summary = summary.clone();
            (run.output, run.latest, run.base) = (None, None, None);
            run.is_erased = true;
            state.note(&summary, approvals, Vec::new());
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::payloads::Apart;
    use crate::store::{conformance, payloads};

    #[tokio::test]
    async fn keeps_what_every_store_must() {
        let store = Memory::default();
        conformance::check(async || store.clone()).await;
    }

    #[tokio::test]
    async fn keeps_payloads_as_every_store_must() {
        let store = Memory::default();
        payloads::conformance::check_keeper(&store, &store).await;
        payloads::conformance::check_apart(Arc::new(store), None).await;
        let store = Memory::default();
        conformance::check(async || Apart::new(Arc::new(store.clone()), None, 1)).await;
    }
}

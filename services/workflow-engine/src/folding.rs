//! Folding runs from their journals, where not every entry counts and not every one is there.
//!
//! A run is taken up from its latest snapshot where it has one that fits, and else from the earliest state that can be
//! folded: that of a run which has not begun, or the base of one whose history was cut (see [`crate::snapshot`]).
//!
//! A run that was retried has spans in its journal that do not count any more. Which ones is decided by a look at the
//! whole journal before it is folded; runs that were never retried, nearly all, are spared that look.
//!
//! Whoever folds a journal to its end also follows its chain of digests: one that is not what was written is damaged, and
//! nobody acts upon it.

use std::ops::Range;
use std::sync::Arc;

use muster_workflow_dsl::Definition;
use muster_workflow_dsl::journal::Event;
use muster_workflow_dsl::journal::chain::Chain;
use muster_workflow_dsl::run::Run;
use muster_workflow_dsl::run::rewind::skipped;
use muster_workflow_dsl::secret::Nonce;
use serde::Deserialize;

use crate::live::Broken;
use crate::run::{Cut, Entry, Mark, Record, RunId, Summary};
use crate::snapshot::{Growth, Snapshot};
use crate::store::{self, SnapshotKind, Store};

/// Entries read at once.
const PORTION: usize = 500;

/// A journal that is about to be folded.
pub(crate) struct Journal<'s> {
    store: &'s dyn Store,
    id: RunId,
    length: u64,
    retries: u32,
    cut: Option<Cut>,
    skipped: Vec<Range<u64>>,
    nonce: Nonce,
    /// The chain before the first entry there ever was.
    beginning: Chain,
    hears_from: u64,
    /// What the chain is to be after the last entry, if that is known.
    expected: Option<Chain>,
}

/// A run on its way through its journal.
pub(crate) struct Folded {
    pub(crate) run: Run,
    /// Up to where it is folded.
    pub(crate) mark: Mark,
    /// What was folded since its last snapshot.
    pub(crate) growth: Growth,
}

/// What is read of an entry to find out what counts.
#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "type")]
    kind: String,
    to: Option<u64>,
}

impl<'s> Journal<'s> {
    /// The journal of this run, as far as its summary says that it goes.
    pub(crate) async fn open(
        store: &'s dyn Store,
        record: &Record,
        summary: &Summary,
    ) -> Result<Self, Broken> {
        let mut journal = Self {
            store,
            id: summary.id.clone(),
            length: summary.history_length,
            retries: summary.marks.retries,
            cut: summary.cut,
            skipped: Vec::new(),
            nonce: record.nonce.clone(),
            beginning: record.chain(),
            hears_from: record.hears_from,
            expected: summary.chain,
        };
        if summary.marks.retries > 0 {
            let mut retries = Vec::new();
            journal
                .read(journal.earliest_index(), journal.length, |entry| {
                    let outline: Outline = parsed(&entry)?;
                    if outline.kind == "run.retried" {
                        retries.extend(outline.to.map(|to| (entry.index, to)));
                    }
                    Ok(())
                })
                .await?;
            journal.skipped = skipped(&retries);
        }
        Ok(journal)
    }

    /// From where on the journal can be folded.
    pub(crate) fn earliest_index(&self) -> u64 {
        self.cut.map_or(0, |cut| cut.base.index)
    }

    /// The run in the last state that is kept of it.
    pub(crate) async fn latest(&self, definition: &Arc<Definition>) -> Result<Folded, Broken> {
        let restored = match self.latest_snapshot().await? {
            Some(Ok(snapshot)) => self.restored(definition, &snapshot),
            Some(Err(why)) => Err(why),
            None => return self.earliest(definition).await,
        };
        match restored {
            Ok(folded) => Ok(folded),
            Err(why) => {
                tracing::warn!(run = %self.id, why, "a snapshot cannot be used; the journal is folded");
                self.earliest(definition).await
            }
        }
    }

    /// The last state that is kept of the run, if it is still a state of it; or what is wrong with it.
    pub(crate) async fn latest_snapshot(&self) -> Result<Option<Result<Snapshot, String>>, Broken> {
        // Every run begins so: one look less at the store.
        if self.length == 0 {
            return Ok(None);
        }
        let bytes = match self.store.snapshot(&self.id, SnapshotKind::Latest).await {
            Err(store::Error::Damaged(why)) => return Ok(Some(Err(why))),
            other => other?,
        };
        let snapshot = bytes.map(|bytes| Snapshot::read(&bytes));
        let indexes = self.earliest_index()..=self.length;
        // What was retried since may have gone back to before it.
        let fits =
            |snapshot: &Snapshot| snapshot.retries == self.retries && indexes.contains(&snapshot.mark.index);
        Ok(snapshot.filter(|snapshot| snapshot.as_ref().map_or(true, fits)))
    }

    /// The run in the first state from which on its journal can be folded.
    pub(crate) async fn earliest(&self, definition: &Arc<Definition>) -> Result<Folded, Broken> {
        let Some(cut) = self.cut else {
            let run = Run::new(self.id.as_str(), Arc::clone(definition)).hearing_from(self.hears_from);
            return Ok(Folded {
                run,
                mark: Mark {
                    index: 0,
                    chain: self.beginning,
                },
                growth: Growth::default(),
            });
        };
        let damaged = |what: String| Broken::Damaged(format!("the base of its history: {what}"));
        let bytes = self.store.snapshot(&self.id, SnapshotKind::Base).await?;
        let bytes = bytes.ok_or_else(|| damaged("it is gone".to_owned()))?;
        let snapshot = Snapshot::read(&bytes).map_err(damaged)?;
        if snapshot.mark != cut.base {
            return Err(damaged("it is of another entry".to_owned()));
        }
        self.restored(definition, &snapshot).map_err(damaged)
    }

    fn restored(&self, definition: &Arc<Definition>, snapshot: &Snapshot) -> Result<Folded, String> {
        let run = Run::restored(self.id.as_str(), Arc::clone(definition), &snapshot.state);
        Ok(Folded {
            run: run.map_err(|error| error.to_string())?,
            mark: snapshot.mark,
            growth: Growth::saved(snapshot.state.len()),
        })
    }

    /// Folds what counts of the entries from where the run is to before `end`; `watch` sees each event before the run does.
    pub(crate) async fn fold(
        &self,
        folded: &mut Folded,
        end: u64,
        mut watch: impl FnMut(&Run, &Event) + Send,
    ) -> Result<(), Broken> {
        let spans: Vec<_> = self.skipped.iter().filter(|span| span.end <= end).collect();
        self.read(folded.mark.index, end, |entry| {
            let Folded { run, mark, growth } = &mut *folded;
            mark.chain = self.extended(mark.chain, &entry)?;
            mark.index = entry.index + 1;
            growth.add(entry.bytes.len());
            if spans.iter().any(|span| span.contains(&entry.index)) {
                return Ok(());
            }
            let event: Event = parsed(&entry)?;
            watch(run, &event);
            run.apply(&event)
                .map_err(|mismatch| damaged(&entry, &mismatch.to_string()))
        })
        .await?;
        match self.expected {
            Some(expected) if end == self.length && expected != folded.mark.chain => {
                Err(Broken::Damaged(format!(
                    "its journal, or what it is pinned to, is not what was written: the chain of digests ends with {}, and \
                     {expected} was written",
                    folded.mark.chain
                )))
            }
            _ => Ok(()),
        }
    }

    /// Checks the entries that are there and cannot be folded any more, against the chain alone.
    pub(crate) async fn check_before_base(&self) -> Result<(), Broken> {
        match self.cut {
            Some(Cut { first, base }) => self.check_between(first, base).await,
            None => Ok(()),
        }
    }

    /// Checks all entries that are there, against the chain alone.
    pub(crate) async fn check_chain(&self) -> Result<(), Broken> {
        let beginning = Mark {
            index: 0,
            chain: self.beginning,
        };
        let first = self.cut.map_or(beginning, |cut| cut.first);
        match self.expected {
            Some(chain) => {
                let index = self.length;
                self.check_between(first, Mark { index, chain }).await
            }
            None => Ok(()),
        }
    }

    async fn check_between(&self, first: Mark, last: Mark) -> Result<(), Broken> {
        let mut chain = first.chain;
        self.read(first.index, last.index, |entry| {
            chain = self.extended(chain, &entry)?;
            Ok(())
        })
        .await?;
        if chain == last.chain {
            return Ok(());
        }
        Err(Broken::Damaged(format!(
            "its journal, or what it is pinned to, is not what was written: the chain of digests over its entries {} to {} \
             ends with {chain}, and {} was written",
            first.index,
            last.index.saturating_sub(1),
            last.chain
        )))
    }

    fn extended(&self, chain: Chain, entry: &Entry) -> Result<Chain, Broken> {
        let extended = chain.extended(&entry.bytes, &self.nonce);
        extended.map_err(|error| damaged(entry, &error.to_string()))
    }

    /// The entries before `end`, as they are.
    pub(crate) async fn entries(&self, end: u64) -> Result<Vec<Vec<u8>>, Broken> {
        let mut entries = Vec::new();
        self.read(0, end, |entry| {
            entries.push(entry.bytes);
            Ok(())
        })
        .await?;
        Ok(entries)
    }

    /// How many entries there are.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    async fn read(
        &self,
        from: u64,
        end: u64,
        mut each: impl FnMut(Entry) -> Result<(), Broken> + Send,
    ) -> Result<(), Broken> {
        let mut index = from;
        while index < end {
            let portion = self.store.history(&self.id, index, PORTION).await?;
            if portion.is_empty() {
                let what = format!(
                    "its journal has {index} entries, and {} were written",
                    self.length
                );
                return Err(Broken::Damaged(what));
            }
            // What is written after the summary was read is left for the next look.
            for entry in portion.into_iter().take_while(|entry| entry.index < end) {
                index = entry.index + 1;
                each(entry)?;
            }
        }
        Ok(())
    }
}

fn parsed<'e, T: Deserialize<'e>>(entry: &'e Entry) -> Result<T, Broken> {
    serde_json::from_slice(&entry.bytes).map_err(|error| damaged(entry, &error.to_string()))
}

fn damaged(entry: &Entry, what: &str) -> Broken {
    Broken::Damaged(format!("entry {} of its journal: {what}", entry.index))
}

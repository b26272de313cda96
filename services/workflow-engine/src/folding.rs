//! Folding runs from their journals, where not every entry counts.
//!
//! A run that was retried has spans in its journal that do not count any more. Which ones is decided by a look at the
//! whole journal before it is folded; runs that were never retried, nearly all, are spared that look.
//!
//! Whoever folds a journal to its end also follows its chain of digests: one that is not what was written is damaged, and
//! nobody acts upon it.

use std::ops::Range;

use muster_workflow_dsl::journal::Event;
use muster_workflow_dsl::journal::chain::Chain;
use muster_workflow_dsl::run::Run;
use muster_workflow_dsl::run::rewind::skipped;
use muster_workflow_dsl::secret::Nonce;
use serde::Deserialize;

use crate::live::Broken;
use crate::run::{Entry, Record, RunId, Summary};
use crate::store::Store;

/// Entries read at once.
const PORTION: usize = 500;

/// A journal that is about to be folded.
pub(crate) struct Journal<'s> {
    store: &'s dyn Store,
    id: RunId,
    length: u64,
    skipped: Vec<Range<u64>>,
    nonce: Nonce,
    /// The chain before the first entry.
    beginning: Chain,
    /// What it is to be after the last one, if that is known.
    expected: Option<Chain>,
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
            skipped: Vec::new(),
            nonce: record.nonce.clone(),
            beginning: record.chain(),
            expected: summary.chain,
        };
        if summary.marks.retries > 0 {
            let mut retries = Vec::new();
            journal
                .read(0, journal.length, |entry| {
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

    /// Folds what counts of the entries before `end`; `watch` sees each event before the run does. Returns the chain there.
    pub(crate) async fn fold(
        &self,
        run: &mut Run,
        end: u64,
        mut watch: impl FnMut(&Run, &Event) + Send,
    ) -> Result<Chain, Broken> {
        let spans: Vec<_> = self.skipped.iter().filter(|span| span.end <= end).collect();
        let mut chain = self.beginning;
        self.read(0, end, |entry| {
            let extended = chain.extended(&entry.bytes, &self.nonce);
            chain = extended.map_err(|error| damaged(&entry, &error.to_string()))?;
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
            Some(expected) if end == self.length && expected != chain => Err(Broken::Damaged(format!(
                "its journal, or what it is pinned to, is not what was written: the chain of digests ends with {chain}, and \
                 {expected} was written"
            ))),
            _ => Ok(chain),
        }
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

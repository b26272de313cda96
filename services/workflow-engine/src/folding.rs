//! Folding runs from their journals, where not every entry counts.
//!
//! A run that was retried has spans in its journal that do not count any more. Which ones is decided by a look at the
//! whole journal before it is folded; runs that were never retried, nearly all, are spared that look.

use std::ops::Range;

use muster_workflow_dsl::journal::Event;
use muster_workflow_dsl::run::Run;
use muster_workflow_dsl::run::rewind::skipped;
use serde::Deserialize;

use crate::live::Broken;
use crate::run::{Entry, RunId, Summary};
use crate::store::Store;

/// Entries read at once.
const PORTION: usize = 500;

/// A journal that is about to be folded.
pub(crate) struct Journal<'s> {
    store: &'s dyn Store,
    id: RunId,
    length: u64,
    skipped: Vec<Range<u64>>,
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
    pub(crate) async fn open(store: &'s dyn Store, summary: &Summary) -> Result<Self, Broken> {
        let mut journal = Self {
            store,
            id: summary.id.clone(),
            length: summary.history_length,
            skipped: Vec::new(),
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

    /// Folds what counts of the entries before `end`; `watch` sees each event before the run does.
    pub(crate) async fn fold(
        &self,
        run: &mut Run,
        end: u64,
        mut watch: impl FnMut(&Run, &Event) + Send,
    ) -> Result<(), Broken> {
        let mut from = 0;
        let none = end..end;
        let spans = self.skipped.iter().filter(|span| span.end <= end);
        for span in spans.chain(std::iter::once(&none)) {
            self.read(from, span.start, |entry| {
                let event: Event = parsed(&entry)?;
                watch(run, &event);
                run.apply(&event)
                    .map_err(|mismatch| damaged(&entry, &mismatch.to_string()))
            })
            .await?;
            from = span.end;
        }
        Ok(())
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

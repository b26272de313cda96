//! Whether a run still is what was written of it.
//!
//! The journal is read from its first entry: it has no gaps, each entry fits what was before, the chain of digests over all of
//! them and over what the run is pinned to ends where the last write said that it ends, and where the run stands is what
//! follows from it. Nothing is repaired: a journal that was altered is for people to look at.

use muster_workflow_dsl::journal::chain::Chain;
use muster_workflow_dsl::run::Run;

use crate::engine::Engine;
use crate::error::Error;
use crate::folding::Journal;
use crate::live::{self, Broken};
use crate::run::{RunId, Status, Summary};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many entries were written.
    pub entries: u64,
    /// What stands for all that was written; none where an earlier release has written the last of it.
    pub chain: Option<Chain>,
    /// What is not as it was written; nothing of an intact run.
    pub problems: Vec<String>,
}

impl Engine {
    /// Checks what is stored of a run.
    ///
    /// # Errors
    /// There is no such run, or the store cannot be read.
    pub async fn verify(&self, id: &RunId) -> Result<Verified, Error> {
        let summary = self.summary(id).await?;
        let problems = match self.refold(&summary).await {
            Ok(run) => self.differences(&summary, &run).await?,
            Err(Broken::Damaged(what) | Broken::Interpreter(what)) => vec![what],
            Err(Broken::Store(error @ crate::store::Error::Damaged(_))) => vec![error.to_string()],
            Err(Broken::Store(error)) => return Err(error.into()),
        };
        Ok(Verified {
            entries: summary.history_length,
            chain: summary.chain,
            problems,
        })
    }

    /// The run as its journal tells it.
    async fn refold(&self, summary: &Summary) -> Result<Run, Broken> {
        let id = &summary.id;
        let record = self.store.record(id).await?;
        let record = record.ok_or_else(|| Broken::Damaged("what it is pinned to is gone".to_owned()))?;
        let definition = self
            .definitions
            .pinned(&record.document, &record.resources)
            .await
            .map_err(|problems| Broken::Damaged(format!("its document is refused: {problems}")))?;
        let mut run = Run::new(id.as_str().to_owned(), definition).hearing_from(record.hears_from);
        let journal = Journal::open(&*self.store, &record, summary).await?;
        journal.fold(&mut run, journal.length(), |_, _| {}).await?;
        Ok(run)
    }

    async fn differences(&self, summary: &Summary, run: &Run) -> Result<Vec<String>, Error> {
        let mut problems = Vec::new();
        let status = live::status(run);
        if status != summary.status {
            problems.push(format!(
                "it is listed as {}, and its journal says {}",
                summary.status.name(),
                status.name()
            ));
        }
        // A retried run has the output of its last end only.
        if status == Status::Completed && self.store.output(&summary.id).await?.as_ref() != run.output() {
            problems.push("its output is not the one of its journal".to_owned());
        }
        Ok(problems)
    }
}

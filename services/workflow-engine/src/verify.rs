//! Whether a run still is what was written of it.
//!
//! The journal is read from its first entry: it has no gaps, each entry fits what was before, the chain of digests over all of
//! them and over what the run is pinned to ends where the last write said that it ends, and where the run stands is what
//! follows from it. Of a run in which something was erased, the digests are checked. Of a history that was cut, what is left is read: its first entries are checked against the chain, and those
//! after its base are folded as well. The last state that is kept is the one that the journal gives there. Nothing is repaired:
//! a journal that was altered is for people to look at.

use muster_workflow_dsl::journal::chain::Chain;

use crate::engine::Engine;
use crate::error::Error;
use crate::folding::Journal;
use crate::live::{Broken, Live};
use crate::run::{RunId, Status, Summary};
use crate::store;

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
        let mut summary = self.summary(id).await?;
        let checked = if summary.marks.erased.is_some() {
            self.chain_of_erased(&summary).await
        } else {
            Live::checked(&*self.store, &self.definitions, id).await
        };
        let problems = match checked {
            Ok(Some(live)) => {
                let problems = self.differences(&live).await?;
                summary = live.summary;
                problems
            }
            // Nothing is left to be folded.
            Ok(None) if summary.marks.erased.is_some() => Vec::new(),
            Ok(None) => vec!["what it is pinned to is gone".to_owned()],
            Err(Broken::Damaged(what) | Broken::Interpreter(what)) => vec![what],
            Err(Broken::Store(error @ store::Error::Damaged(_))) => vec![error.to_string()],
            Err(Broken::Store(error)) => return Err(error.into()),
        };
        Ok(Verified {
            entries: summary.history_length,
            chain: summary.chain,
            problems,
        })
    }

    /// Checks the digests of a run in which something was erased.
    async fn chain_of_erased(&self, summary: &Summary) -> Result<Option<Live>, Broken> {
        let record = self.store.record(&summary.id).await?;
        let record = record.ok_or_else(|| Broken::Damaged("what it is pinned to is gone".to_owned()))?;
        Journal::open(&*self.store, &record, summary)
            .await?
            .check_chain()
            .await?;
        Ok(None)
    }

    /// Where what is listed is not what the journal says.
    async fn differences(&self, live: &Live) -> Result<Vec<String>, Error> {
        let summary = &live.summary;
        let mut problems = Vec::new();
        let status = live.status();
        if status != summary.status {
            problems.push(format!(
                "it is listed as {}, and its journal says {}",
                summary.status.name(),
                status.name()
            ));
        }
        // A retried run has the output of its last end only.
        if status == Status::Completed {
            match self.store.output(&summary.id).await {
                Ok(output) if output.as_ref() == live.output() => {}
                Ok(_) => problems.push("its output is not the one of its journal".to_owned()),
                Err(error @ store::Error::Damaged(_)) => problems.push(format!("its output: {error}")),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(problems)
    }
}

//! Whether a run still is what was written of it.
//!
//! The journal is read from its first entry: it has no gaps, each entry fits what was before, the chain of digests over all of
//! them and over what the run is pinned to ends where the last write said that it ends, and where the run stands is what
//! follows from it. Of a history that was cut, what is left is read: its first entries are checked against the chain, and those
//! after its base are folded as well. The last state that is kept is the one that the journal gives there. Nothing is repaired:
//! a journal that was altered is for people to look at.

use muster_workflow_dsl::journal::chain::Chain;

use crate::engine::Engine;
use crate::error::Error;
use crate::live::{Broken, Live};
use crate::run::{RunId, Status};
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
        let problems = match Live::checked(&*self.store, &self.definitions, id).await {
            Ok(Some(live)) => {
                let problems = self.differences(&live).await?;
                summary = live.summary;
                problems
            }
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
        if status == Status::Completed && self.store.output(&summary.id).await?.as_ref() != live.output() {
            problems.push("its output is not the one of its journal".to_owned());
        }
        Ok(problems)
    }
}

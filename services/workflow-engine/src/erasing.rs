//! Erasing what people and agents have said in a run, when the run itself is to stay.
//!
//! Its input, its output, what its calls were given and what they answered, its questions and their answers, and the texts of
//! its errors are taken away; what happened, when and where is left, with digests in the place of what is gone. The chain over
//! the journal covers the digests, so it holds as before ([`muster_workflow_dsl::journal::chain`]). They are salted by the
//! run's nonce, which goes last: then nobody can find out by trying what a short value was.
//!
//! It is marked first that the run is being erased, so that nobody retries or forks it from then on, and then done in portions.
//! Each is repeated without harm: whoever is told that it failed asks again, and it goes on.

use muster_workflow_dsl::journal::chain::withheld;
use serde::Deserialize;

use crate::approval::{Approval, ApprovalId};
use crate::controls::{Wish, active};
use crate::engine::{Engine, View};
use crate::error::Error;
use crate::run::{Entry, Erased, Failure, RunId, Summary};
use crate::store;
use crate::store::erase::Rewrite;

/// Entries erased at once.
const PORTION: usize = 200;

/// What is read of an entry to find what else is to be erased with it.
#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "type")]
    kind: String,
    approval: Option<u64>,
}

impl Engine {
    /// Erases what people and agents have said in a run that has ended, and returns what is left of it once that is durable. One
    /// that was erased is left as it is.
    ///
    /// # Errors
    /// There is no such run, it has not ended, or the run that waits for its output has not.
    pub async fn erase(&self, id: &RunId, wish: Wish) -> Result<View, Error> {
        let summary = self.summary(id).await?;
        self.at_rest(&summary).await?;
        if let Some(parent) = summary.awaiting_parent()
            && let Some(parent) = self.store.summary(&parent.run).await?
            && !parent.status.is_final()
        {
            return Err(active(&parent));
        }
        match self.erase_now(summary.clone(), wish).await {
            // It has been retried, or forgotten, in between.
            Err(Error::Store(store::Error::Conflict(_))) => Err(active(&summary)),
            Err(error) => Err(error),
            Ok(summary) => self.view(summary).await,
        }
    }

    async fn erase_now(&self, mut summary: Summary, wish: Wish) -> Result<Summary, Error> {
        let id = summary.id.clone();
        let record = self.store.record(&id).await?;
        let record = record.ok_or_else(|| store::Error::Conflict(format!("run '{id}'")))?;
        if record.erased_input.is_some() {
            // The end of it may have failed that comes after the last of what is written.
            let last = Rewrite {
                record: Some(record),
                ..nothing(&summary)
            };
            self.store.rewrite(last).await?;
            return Ok(summary);
        }
        summary.marks.erased.get_or_insert(Erased {
            at: self.clock.now(),
            by: wish.by,
        });
        summary.failure = summary.failure.map(without_texts);
        if let Some(compensation) = &mut summary.marks.compensation {
            let failed = std::mem::take(&mut compensation.failed).into_iter();
            compensation.failed = failed
                .map(|(task, failure)| (task, without_texts(failure)))
                .collect();
        }
        let nothing = nothing(&summary);
        self.store.rewrite(nothing.clone()).await?;
        let mut index = summary.first_entry();
        while index < summary.history_length {
            let portion = self.store.history(&id, index, PORTION).await?;
            let Some(last) = portion.last() else {
                let what = format!("run '{id}': its journal has no entry {index}");
                return Err(store::Error::Damaged(what).into());
            };
            let next = last.index + 1;
            let mut rewrite = Rewrite {
                first_index: index,
                ..nothing.clone()
            };
            for entry in portion {
                rewrite.approvals.extend(self.approval_of(&id, &entry).await?);
                let bytes = withheld(&entry.bytes, &record.nonce);
                let bytes = bytes.map_err(|error| {
                    store::Error::Damaged(format!("entry {} of run '{id}' {error}", entry.index))
                })?;
                rewrite.entries.push(bytes);
            }
            self.store.rewrite(rewrite).await?;
            index = next;
        }
        let last = Rewrite {
            record: Some(record.erased()),
            ..nothing
        };
        self.store.rewrite(last).await?;
        tracing::info!(run = %id, "what people and agents have said in the run is erased");
        Ok(summary)
    }

    /// The approval that the entry opened, without what was said.
    async fn approval_of(&self, run: &RunId, entry: &Entry) -> Result<Option<Approval>, Error> {
        let outline: Result<Outline, _> = serde_json::from_slice(&entry.bytes);
        let number = outline
            .ok()
            .filter(|outline| outline.kind == "approval.opened")
            .and_then(|outline| outline.approval);
        let Some(number) = number else {
            return Ok(None);
        };
        let id = ApprovalId {
            run: run.clone(),
            number,
        };
        let mut approval = self.store.approval(&id).await?;
        if let Some(approval) = &mut approval {
            let question = &mut approval.question;
            (question.title, question.details) = (String::new(), None);
            question.assignees.clear();
            question.escalation = None;
            approval.decided_by.clear();
            approval.comment.clear();
        }
        Ok(approval)
    }
}

/// Writes over nothing but the summary.
fn nothing(summary: &Summary) -> Rewrite {
    Rewrite {
        summary: summary.clone(),
        record: None,
        first_index: summary.first_entry(),
        entries: Vec::new(),
        approvals: Vec::new(),
    }
}

/// Type, status and place of an error are no payload.
fn without_texts(failure: Failure) -> Failure {
    Failure {
        title: String::new(),
        detail: String::new(),
        ..failure
    }
}

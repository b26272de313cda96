//! The engine's use cases around approvals: list, read and decide.

use muster_api::names::suggestion;
use muster_workflow_dsl::journal::Verdict;
use muster_workflow_dsl::run::Stimulus;

use crate::approval::{Approval, ApprovalId, Filter, Position, State};
use crate::engine::Engine;
use crate::error::Error;
use crate::page::{self, List};
use crate::store::Page;

/// Approvals that are looked at for ids near to one that is not there.
const MOST_IDS: usize = 100;

impl Engine {
    /// Reads an approval.
    ///
    /// # Errors
    /// There is none; near ids are suggested.
    pub async fn approval(&self, id: &ApprovalId) -> Result<Approval, Error> {
        if let Some(approval) = self.store.approval(id).await? {
            return Ok(approval);
        }
        let open = self
            .store
            .approvals(&Filter::default(), None, MOST_IDS)
            .await?
            .entries;
        let ids: Vec<String> = open.iter().map(|approval| approval.id.to_string()).collect();
        let suggestion = suggestion(&id.to_string(), ids.iter().map(String::as_str));
        Err(Error::ApprovalNotFound {
            id: id.clone(),
            suggestion,
        })
    }

    /// Lists approvals: open ones from the oldest on, else from the newest on.
    ///
    /// # Errors
    /// The token is not one of this list's.
    pub async fn approvals(
        &self,
        filter: &Filter,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<Approval>, String), Error> {
        let after: Option<Position> = List::Approvals.cursor(page_token)?;
        let Page { entries, next } = self
            .store
            .approvals(filter, after.as_ref(), page::size(page_size))
            .await?;
        let next = next.map(|next| List::Approvals.token(&next));
        Ok((entries, next.unwrap_or_default()))
    }

    /// Decides, and returns the approval once that is durable. Saying again what was said before succeeds.
    ///
    /// # Errors
    /// There is no such approval, it was closed otherwise, or its run cannot go on.
    pub async fn decide(&self, id: &ApprovalId, verdict: Verdict) -> Result<Approval, Error> {
        let approval = self.approval(id).await?;
        let wanted = if verdict.approved {
            State::Approved
        } else {
            State::Rejected
        };
        if approval.state != State::Open {
            return settled(approval, wanted);
        }
        let stimulus = Stimulus::Decide {
            approval: id.number,
            verdict,
        };
        match self.act(&id.run, stimulus).await {
            // Another decision, or the end of the run, may have been first.
            Ok(_) | Err(Error::RunEnded { .. }) => settled(self.approval(id).await?, wanted),
            Err(error) => Err(error),
        }
    }
}

fn settled(approval: Approval, wanted: State) -> Result<Approval, Error> {
    match approval.state {
        state if state == wanted => Ok(approval),
        State::Open => Err(Error::Defect(format!(
            "approval '{}' was not decided; try again",
            approval.id
        ))),
        state => Err(Error::ApprovalClosed {
            id: approval.id,
            state,
            by: approval.decided_by,
        }),
    }
}

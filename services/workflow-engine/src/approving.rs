//! The engine's use cases around approvals: list, read and decide.

use muster_api::names::suggestion;
use muster_workflow_dsl::journal::Verdict;
use muster_workflow_dsl::run::Stimulus;
use muster_workflow_dsl::usage::Limits;

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
        let after: Option<Position> = List::Approvals.cursor(filter, page_token)?;
        let Page { entries, next } = self
            .store
            .approvals(filter, after.as_ref(), page::size(page_size))
            .await?;
        let next = next.map(|next| List::Approvals.token(filter, &next));
        Ok((entries, next.unwrap_or_default()))
    }

    /// Decides, and returns the approval once that is durable. Saying again what was said before succeeds.
    ///
    /// # Errors
    /// There is no such approval, it was closed otherwise, or its run cannot go on.
    pub async fn decide(&self, id: &ApprovalId, verdict: Verdict) -> Result<Approval, Error> {
        let approval = self.approval(id).await?;
        let raise = verdict.raise;
        if let Some(raise) = raise {
            check_raise(&approval, raise)?;
        }
        let wanted = if verdict.approved {
            State::Approved
        } else {
            State::Rejected
        };
        if approval.state != State::Open {
            return settled(approval, wanted, raise);
        }
        let stimulus = Stimulus::Decide {
            approval: id.number,
            verdict,
        };
        match self.act(&id.run, stimulus).await {
            // Another decision, or the end of the run, may have been first.
            Ok(_) | Err(Error::RunEnded { .. }) => settled(self.approval(id).await?, wanted, raise),
            Err(error) => Err(error),
        }
    }
}

/// Refuses a raise that would do nothing.
fn check_raise(approval: &Approval, raise: Limits) -> Result<(), Error> {
    let given = if raise.tokens.is_some() {
        "raise_tokens"
    } else {
        "raise_cost"
    };
    let Some(budget) = &approval.budget else {
        return Err(Error::field(
            given,
            "the approval is about no budget; leave it away",
        ));
    };
    for (field, raised, limited) in [
        (
            "raise_tokens",
            raise.tokens.is_some(),
            budget.limits.tokens.is_some(),
        ),
        (
            "raise_cost",
            raise.cost_micros.is_some(),
            budget.limits.cost_micros.is_some(),
        ),
    ] {
        if raised && !limited {
            return Err(Error::field(
                field,
                "the budget has no limit of this kind; leave it away",
            ));
        }
    }
    let after = match budget.namespace {
        // Up to there this run may go on.
        Some(_) => raise.beyond(budget.spent),
        None => budget.limits.raised(raise),
    };
    if after.reached_by(budget.spent) {
        let message = format!(
            "the budget would still be used up: {} of {} are used",
            budget.spent.to_value(),
            budget.limits.to_value()
        );
        return Err(Error::field(given, message));
    }
    Ok(())
}

fn settled(approval: Approval, wanted: State, raise: Option<Limits>) -> Result<Approval, Error> {
    match approval.state {
        state if state == wanted && (raise.is_none() || raise == approval.raise) => Ok(approval),
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

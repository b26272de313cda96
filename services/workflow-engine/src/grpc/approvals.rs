//! Approvals over gRPC.

use std::sync::Arc;

use jiff::Timestamp;
use muster_api::time::to_proto;
use muster_api::workflow as proto;
use muster_api::workflow::approval_service_server::ApprovalService;
use muster_runtime::trust::Access;
use muster_workflow_dsl::journal::Verdict;
use muster_workflow_dsl::run::approval::LONGEST_NAME;
use muster_workflow_dsl::usage::{self, Limits};
use tonic::{Request, Response, Status};

use super::convert::run_id;
use super::said_by;
use crate::approval::{Approval, ApprovalId, Filter, InvalidApprovalId, State};
use crate::engine::Engine;
use crate::error::Error;
use crate::peers::sent_on;

/// Longest comment, in bytes: it is kept in the journal and in the error of a rejection.
const LONGEST_COMMENT: usize = 4096;

/// `muster.workflow.v1.ApprovalService`.
pub struct Approvals {
    engine: Arc<Engine>,
}

impl Approvals {
    /// Serves the approvals of this engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Whoever may reach the namespace of a run may decide what it asks: that is seldom whoever has started it.
    async fn may_decide(&self, access: &Access, id: &ApprovalId) -> Result<(), Status> {
        if access.sees_all() {
            return Ok(());
        }
        let found = self.engine.approval(id).await?;
        Ok(access.namespace(&found.namespace)?)
    }

    async fn decide(
        &self,
        approved: bool,
        id: &ApprovalId,
        by: String,
        comment: String,
        raise: Option<Limits>,
    ) -> Result<proto::Approval, Error> {
        if by.trim().is_empty() || by.len() > LONGEST_NAME {
            let message = format!("must say who decides, in 1 to {LONGEST_NAME} bytes");
            return Err(Error::field("by", message));
        }
        if comment.len() > LONGEST_COMMENT {
            let message = format!(
                "has {} bytes, and at most {LONGEST_COMMENT} are taken",
                comment.len()
            );
            return Err(Error::field("comment", message));
        }
        let verdict = Verdict {
            approved,
            by,
            comment,
            raise,
        };
        Ok(approval(self.engine.decide(id, verdict).await?))
    }
}

#[tonic::async_trait]
impl ApprovalService for Approvals {
    async fn list_approvals(
        &self,
        request: Request<proto::ListApprovalsRequest>,
    ) -> Result<Response<proto::ListApprovalsResponse>, Status> {
        let access = Access::in_extensions(request.extensions());
        let proto::ListApprovalsRequest {
            states,
            assignee,
            run_id,
            namespace,
            page_size,
            page_token,
        } = request.into_inner();
        let filter = filter(&states, assignee, &run_id, namespace)?;
        let (mut approvals, next_page_token) = self.engine.approvals(&filter, page_size, &page_token).await?;
        approvals.retain(|approval| access.reaches_namespace(&approval.namespace));
        Ok(Response::new(proto::ListApprovalsResponse {
            approvals: approvals.into_iter().map(approval).collect(),
            next_page_token,
        }))
    }

    async fn get_approval(
        &self,
        request: Request<proto::GetApprovalRequest>,
    ) -> Result<Response<proto::GetApprovalResponse>, Status> {
        let id = approval_id(&request.get_ref().approval_id)?;
        let found = self.engine.approval(&id).await?;
        Access::in_extensions(request.extensions()).namespace(&found.namespace)?;
        let approval = Some(approval(found));
        Ok(Response::new(proto::GetApprovalResponse { approval }))
    }

    async fn approve(
        &self,
        request: Request<proto::ApproveRequest>,
    ) -> Result<Response<proto::ApproveResponse>, Status> {
        let id = approval_id(&request.get_ref().approval_id)?;
        let access = Access::in_extensions(request.extensions());
        self.may_decide(&access, &id).await?;
        if let Some(peer) = self.engine.peer_of(&id.run, &request).await? {
            return peer.answer(peer.approvals().approve(sent_on(request))).await;
        }
        let proto::ApproveRequest {
            by,
            comment,
            raise_tokens,
            raise_cost,
            ..
        } = request.into_inner();
        let raise = raise(raise_tokens, raise_cost)?;
        let by = said_by(&access, by);
        let approval = Some(self.decide(true, &id, by, comment, raise).await?);
        Ok(Response::new(proto::ApproveResponse { approval }))
    }

    async fn reject(
        &self,
        request: Request<proto::RejectRequest>,
    ) -> Result<Response<proto::RejectResponse>, Status> {
        let id = approval_id(&request.get_ref().approval_id)?;
        let access = Access::in_extensions(request.extensions());
        self.may_decide(&access, &id).await?;
        if let Some(peer) = self.engine.peer_of(&id.run, &request).await? {
            return peer.answer(peer.approvals().reject(sent_on(request))).await;
        }
        let proto::RejectRequest { by, comment, .. } = request.into_inner();
        let by = said_by(&access, by);
        let approval = Some(self.decide(false, &id, by, comment, None).await?);
        Ok(Response::new(proto::RejectResponse { approval }))
    }
}

/// By how much a budget is raised, if the caller says so.
fn raise(tokens: Option<u64>, cost: Option<f64>) -> Result<Option<Limits>, Error> {
    if tokens.is_none() && cost.is_none() {
        return Ok(None);
    }
    let micros =
        |cost| usage::micros(cost).ok_or_else(|| Error::field("raise_cost", "must be an amount of money"));
    Ok(Some(Limits {
        tokens,
        cost_micros: cost.map(micros).transpose()?,
    }))
}

fn approval_id(text: &str) -> Result<ApprovalId, Error> {
    text.parse()
        .map_err(|error: InvalidApprovalId| Error::field("approval_id", error.to_string()))
}

fn filter(states: &[i32], assignee: String, run: &str, namespace: String) -> Result<Filter, Error> {
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok(Filter {
        states: states
            .iter()
            .map(|number| state(*number))
            .collect::<Result<_, _>>()?,
        assignee: given(assignee),
        run: if run.is_empty() { None } else { Some(run_id(run)?) },
        namespace: given(namespace),
    })
}

fn state(number: i32) -> Result<State, Error> {
    match proto::ApprovalState::try_from(number) {
        Ok(proto::ApprovalState::Unspecified | proto::ApprovalState::Open) => Ok(State::Open),
        Ok(proto::ApprovalState::Approved) => Ok(State::Approved),
        Ok(proto::ApprovalState::Rejected) => Ok(State::Rejected),
        Ok(proto::ApprovalState::Expired) => Ok(State::Expired),
        Ok(proto::ApprovalState::Withdrawn) => Ok(State::Withdrawn),
        Err(_) => Err(Error::field(
            "states",
            format!("{number} is not an ApprovalState; use 1 to 5"),
        )),
    }
}

fn approval(approval: Approval) -> proto::Approval {
    let state = match approval.state {
        State::Open => proto::ApprovalState::Open,
        State::Approved => proto::ApprovalState::Approved,
        State::Rejected => proto::ApprovalState::Rejected,
        State::Expired => proto::ApprovalState::Expired,
        State::Withdrawn => proto::ApprovalState::Withdrawn,
    };
    let time = |time: Option<Timestamp>| time.map(to_proto);
    let open = approval.state == State::Open;
    let escalation = approval.question.escalation.as_ref();
    proto::Approval {
        approval_id: approval.id.to_string(),
        assignees: approval.asked(),
        run_id: approval.id.run.into(),
        namespace: approval.namespace,
        name: approval.name,
        version: approval.version,
        task: approval.task,
        details_json: approval
            .question
            .details
            .as_ref()
            .map(|details| details.to_string())
            .unwrap_or_default(),
        state: state.into(),
        opened_at: time(Some(approval.opened_at)),
        deadline: time(approval.question.deadline),
        escalates_at: time(
            escalation
                .filter(|_| open && !approval.escalated)
                .map(|escalation| escalation.due),
        ),
        escalated: approval.escalated,
        title: approval.question.title,
        decided_by: approval.decided_by,
        comment: approval.comment,
        closed_at: time(approval.closed_at),
    }
}

//! `muster approval`: what runs ask people, and what people say.

use clap::{Args, Subcommand, ValueEnum};
use muster_api::workflow::{
    Approval, ApprovalState, ApproveRequest, GetApprovalRequest, ListApprovalsRequest, RejectRequest,
};
use serde_json::{Value, json};

use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;
use crate::output::listing::Listing;
use crate::workflow::{time, time_json};

/// `muster approval …`
#[derive(Debug, Subcommand)]
pub enum ApprovalCommand {
    /// List approvals: the open ones, those that have waited longest first.
    List(ListArguments),
    /// Show an approval: what is asked, of whom, and what became of it.
    Show {
        /// The approval's id.
        id: String,
    },
    /// Say yes: the run goes on.
    Approve {
        #[command(flatten)]
        decision: DecideArguments,
        /// Of an approval about a budget: raise it by so many tokens; default: by itself.
        #[arg(long, value_name = "TOKENS")]
        raise_tokens: Option<u64>,
        /// Of an approval about a budget: raise it by so much money; default: by itself.
        #[arg(long, value_name = "MONEY")]
        raise_cost: Option<f64>,
    },
    /// Say no: the task fails with an error that the document can handle.
    Reject(DecideArguments),
}

/// Arguments of `muster approval list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Those in this state; may be repeated; default: open.
    #[arg(long, value_enum)]
    pub state: Vec<StateFilter>,
    /// Only those that ask this one.
    #[arg(long, value_name = "NAME")]
    pub assignee: Option<String>,
    /// Only those of this run.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Only those of runs of this namespace.
    #[arg(long)]
    pub namespace: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// Arguments of `muster approval approve` and `reject`.
#[derive(Debug, Args)]
pub struct DecideArguments {
    /// The approval's id.
    pub id: String,
    /// Why, for the history.
    #[arg(long, default_value = "")]
    pub comment: String,
    /// Who decides.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    pub by: String,
}

/// States to filter approvals by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateFilter {
    /// Waits for a decision.
    Open,
    /// Somebody said yes.
    Approved,
    /// Somebody said no.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// Nobody needs to know any more.
    Withdrawn,
}

impl From<StateFilter> for ApprovalState {
    fn from(filter: StateFilter) -> Self {
        match filter {
            StateFilter::Open => Self::Open,
            StateFilter::Approved => Self::Approved,
            StateFilter::Rejected => Self::Rejected,
            StateFilter::Expired => Self::Expired,
            StateFilter::Withdrawn => Self::Withdrawn,
        }
    }
}

/// Runs `muster approval …`.
pub async fn run(command: ApprovalCommand, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = endpoints.approvals()?;
    let failure = |status: tonic::Status| endpoints.failure(Service::Engine, &status);
    let approval = match command {
        ApprovalCommand::List(arguments) => return list(arguments, endpoints, output).await,
        ApprovalCommand::Show { id } => {
            let request = GetApprovalRequest { approval_id: id };
            let answer = client.get_approval(request).await.map_err(failure)?;
            answer.into_inner().approval
        }
        ApprovalCommand::Approve {
            decision: DecideArguments { id, comment, by },
            raise_tokens,
            raise_cost,
        } => {
            let request = ApproveRequest {
                approval_id: id,
                by,
                comment,
                raise_tokens,
                raise_cost,
            };
            let answer = client.approve(request).await.map_err(failure)?;
            answer.into_inner().approval
        }
        ApprovalCommand::Reject(DecideArguments { id, comment, by }) => {
            let request = RejectRequest {
                approval_id: id,
                by,
                comment,
            };
            let answer = client.reject(request).await.map_err(failure)?;
            answer.into_inner().approval
        }
    };
    let approval = approval.ok_or_else(|| Failure::failed("the engine answered without an approval"))?;
    print(&approval, output);
    Ok(())
}

async fn list(arguments: ListArguments, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = endpoints.approvals()?;
    let states = arguments.state.iter();
    let mut request = ListApprovalsRequest {
        states: states.map(|&state| ApprovalState::from(state).into()).collect(),
        assignee: arguments.assignee.unwrap_or_default(),
        run_id: arguments.run.unwrap_or_default(),
        namespace: arguments.namespace.unwrap_or_default(),
        ..ListApprovalsRequest::default()
    };
    let Listing {
        entries: approvals,
        more,
    } = Listing::gather(arguments.limit, async |page_size, page_token| {
        request.page_size = page_size;
        request.page_token = page_token;
        let page = client
            .list_approvals(request.clone())
            .await
            .map_err(|status| endpoints.failure(Service::Engine, &status))?
            .into_inner();
        Ok((page.approvals, page.next_page_token))
    })
    .await?;
    if output.is_json() {
        let listed: Vec<Value> = approvals.iter().map(approval_json).collect();
        output.json(&json!({"approvals": listed, "more": more}));
    } else if approvals.is_empty() {
        output.line("no approvals");
    } else {
        let rows = approvals.iter().map(|approval| {
            [
                approval.approval_id.clone(),
                state_name(approval.state()).to_owned(),
                approval.assignees.join(", "),
                time(approval.opened_at.as_ref()),
                approval.title.clone(),
            ]
        });
        output.table(["APPROVAL", "STATE", "WHO", "SINCE", "WHAT"], rows.collect());
        if more {
            output.line("there are more; `--limit` shows them");
        }
    }
    Ok(())
}

fn print(approval: &Approval, output: &Output) {
    if output.is_json() {
        output.json(&approval_json(approval));
        return;
    }
    let state = state_name(approval.state());
    output.line(&format!("approval {}  {state}", approval.approval_id));
    output.line(&format!("  {}", approval.title));
    output.line(&format!(
        "  asked by {}@{}, run {}, {}",
        approval.name, approval.version, approval.run_id, approval.task
    ));
    output.line(&format!(
        "  of {}  since {}  until {}",
        approval.assignees.join(", "),
        time(approval.opened_at.as_ref()),
        time(approval.deadline.as_ref())
    ));
    if !approval.details_json.is_empty() {
        output.line(&format!("  details {}", approval.details_json));
    }
    if !approval.decided_by.is_empty() {
        output.line(&format!(
            "  {state} by {} at {} {}",
            approval.decided_by,
            time(approval.closed_at.as_ref()),
            approval.comment
        ));
    }
}

fn state_name(state: ApprovalState) -> &'static str {
    match state {
        ApprovalState::Unspecified => "unknown",
        ApprovalState::Open => "open",
        ApprovalState::Approved => "approved",
        ApprovalState::Rejected => "rejected",
        ApprovalState::Expired => "expired",
        ApprovalState::Withdrawn => "withdrawn",
    }
}

fn approval_json(approval: &Approval) -> Value {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "id": approval.approval_id,
        "run": approval.run_id,
        "workflow": {"namespace": approval.namespace, "name": approval.name, "version": approval.version},
        "task": approval.task,
        "title": approval.title,
        "details": serde_json::from_str::<Value>(&approval.details_json).unwrap_or(Value::Null),
        "assignees": approval.assignees,
        "state": state_name(approval.state()),
        "openedAt": time_json(approval.opened_at.as_ref()),
        "deadline": time_json(approval.deadline.as_ref()),
        "escalatesAt": time_json(approval.escalates_at.as_ref()),
        "escalated": approval.escalated,
        "decidedBy": given(&approval.decided_by),
        "comment": given(&approval.comment),
        "closedAt": time_json(approval.closed_at.as_ref()),
    })
}

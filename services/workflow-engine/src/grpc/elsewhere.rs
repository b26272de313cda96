//! One thing done to a run wherever it is worked on, for requests about many.

use std::sync::Arc;

use muster_api::workflow as proto;
use tonic::{Request, Response};

use super::control;
use crate::bulk::Action;
use crate::controls::Wish;
use crate::engine::Engine;
use crate::peers::{Peer, on_our_own};
use crate::run::{RunId, Status};

/// Does it, and answers where the run stands then, unless it is gone.
pub(super) async fn apply(
    engine: &Arc<Engine>,
    action: Action,
    id: &RunId,
    wish: Wish,
) -> Result<Option<Status>, tonic::Status> {
    match engine.peer_of(id, &Request::new(())).await? {
        None => Ok(engine.once(action, id, wish).await?),
        Some(peer) => ask(&peer, action, id, wish).await,
    }
}

async fn ask(peer: &Peer, action: Action, id: &RunId, wish: Wish) -> Result<Option<Status>, tonic::Status> {
    let Wish { by, reason } = wish;
    let (run_id, mut workflows) = (id.to_string(), peer.workflows());
    macro_rules! call {
        ($method:ident, $request:expr) => {{
            let call = workflows.$method(on_our_own($request));
            peer.answer(call).await.map(Response::into_inner)?
        }};
    }
    let run = match action {
        Action::Cancel => call!(cancel_run, proto::CancelRunRequest { run_id, by, reason }).run,
        Action::Terminate => call!(terminate_run, proto::TerminateRunRequest { run_id, by, reason }).run,
        Action::Pause => call!(pause_run, proto::PauseRunRequest { run_id, by, reason }).run,
        Action::Resume => call!(resume_run, proto::ResumeRunRequest { run_id, by, reason }).run,
        Action::Retry => {
            let from = String::new();
            call!(
                retry_run,
                proto::RetryRunRequest {
                    run_id,
                    from,
                    by,
                    reason
                }
            )
            .run
        }
        Action::Erase => call!(erase_run, proto::EraseRunRequest { run_id, by }).run,
        Action::Delete => {
            let proto::DeleteRunResponse {} = call!(delete_run, proto::DeleteRunRequest { run_id });
            return Ok(None);
        }
    };
    let status = run.map(|run| run.status).unwrap_or_default();
    Ok(control::statuses(&[status])?.first().copied())
}

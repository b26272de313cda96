//! The engine over gRPC: decode, ask the engine, encode.

mod approvals;
mod backups;
mod control;
mod convert;
mod elsewhere;
mod events;
mod optimization;
mod schedules;
mod status;

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use muster_api::workflow as proto;
use muster_api::workflow::workflow_service_server::WorkflowService;
use muster_runtime::trust::{Access, Kind};
use tonic::{Request, Response, Status};

use crate::catalogue::Reference;
use crate::controls::Wish;
use crate::engine::{Engine, StartRun};
use crate::off_thread::off_thread;
use crate::peers::{self, Peer, on_our_own, sent_on, was_sent_on};
use crate::verify::Verified;
pub use approvals::Approvals;
pub use backups::Backups;
pub use events::EventLog;
pub use optimization::Optimization;
pub use schedules::Schedules;

/// `muster.workflow.v1.WorkflowService`.
pub struct Service {
    engine: Arc<Engine>,
}

impl Service {
    /// Serves this engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl WorkflowService for Service {
    async fn validate_workflow(
        &self,
        request: Request<proto::ValidateWorkflowRequest>,
    ) -> Result<Response<proto::ValidateWorkflowResponse>, Status> {
        let document = request.into_inner().document;
        let problems = self.engine.catalogue().validate(&document).await?;
        Ok(Response::new(proto::ValidateWorkflowResponse {
            problems: convert::problems(&problems),
            left_out: u32::try_from(problems.omitted()).unwrap_or(u32::MAX),
        }))
    }

    async fn apply_workflow(
        &self,
        request: Request<proto::ApplyWorkflowRequest>,
    ) -> Result<Response<proto::ApplyWorkflowResponse>, Status> {
        if let Some(peer) = self.keeper_of(&request).await? {
            return peer
                .answer(peer.workflows().apply_workflow(sent_on(request)))
                .await;
        }
        let access = Access::in_extensions(request.extensions());
        let document = request.into_inner().document;
        let (workflow, warnings) = self.engine.apply_for(&document, Some(access.caller())).await?;
        Ok(Response::new(proto::ApplyWorkflowResponse {
            workflow: Some(convert::workflow(workflow, document)),
            warnings: convert::problems(&warnings),
        }))
    }

    async fn list_workflows(
        &self,
        request: Request<proto::ListWorkflowsRequest>,
    ) -> Result<Response<proto::ListWorkflowsResponse>, Status> {
        let access = Access::in_extensions(request.extensions());
        let proto::ListWorkflowsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let (mut workflows, next_page_token) = self.engine.catalogue().list(page_size, &page_token).await?;
        workflows.retain(|workflow| access.reaches_namespace(&workflow.key.namespace));
        let workflows = workflows
            .into_iter()
            .map(|workflow| convert::workflow(workflow, String::new()))
            .collect();
        Ok(Response::new(proto::ListWorkflowsResponse {
            workflows,
            next_page_token,
        }))
    }

    async fn get_workflow(
        &self,
        request: Request<proto::GetWorkflowRequest>,
    ) -> Result<Response<proto::GetWorkflowResponse>, Status> {
        Access::in_extensions(request.extensions()).namespace(&request.get_ref().namespace)?;
        let proto::GetWorkflowRequest {
            namespace,
            name,
            version,
        } = request.into_inner();
        let (workflow, document) = self
            .engine
            .catalogue()
            .get(&Reference {
                namespace,
                name,
                version,
            })
            .await?;
        let workflow = Some(convert::workflow(workflow, document));
        Ok(Response::new(proto::GetWorkflowResponse { workflow }))
    }

    async fn start_run(
        &self,
        mut request: Request<proto::StartRunRequest>,
    ) -> Result<Response<proto::StartRunResponse>, Status> {
        let peer = self.engine.peer_of_new(&mut request, |asked| &mut asked.run_id);
        if let Some(peer) = peer.await? {
            return peer.answer(peer.workflows().start_run(sent_on(request))).await;
        }
        let access = Access::in_extensions(request.extensions());
        let wish = convert::start(request.into_inner(), self.engine.most_payload_bytes())?;
        let wish = StartRun {
            caller: Some(Arc::clone(access.caller())),
            ..wish
        };
        let run = self.engine.start(wish).await?;
        Ok(Response::new(proto::StartRunResponse {
            run: Some(convert::view(run)),
        }))
    }

    async fn get_run(
        &self,
        request: Request<proto::GetRunRequest>,
    ) -> Result<Response<proto::GetRunResponse>, Status> {
        let id = convert::run_id(&request.get_ref().run_id)?;
        let access = Access::in_extensions(request.extensions());
        self.engine.admit(&access, &id).await?;
        // Where there is nobody to ask, the store knows enough.
        if let Ok(Some(peer)) = self.engine.peer_of(&id, &request).await {
            let asked = on_our_own(request.get_ref().clone());
            if let Some(answer) = peer.soon(peer.workflows().get_run(asked)).await {
                return answer;
            }
        }
        let run = self.engine.get(&id).await?;
        Ok(Response::new(proto::GetRunResponse {
            run: Some(convert::view(run)),
        }))
    }

    async fn list_runs(
        &self,
        request: Request<proto::ListRunsRequest>,
    ) -> Result<Response<proto::ListRunsResponse>, Status> {
        let access = Access::in_extensions(request.extensions());
        let (filter, page_size, page_token) = control::search(request.into_inner())?;
        let filter = control::only_own(filter, &access);
        let (runs, next_page_token) = self.engine.list(&filter, page_size, &page_token).await?;
        let runs = runs.into_iter().map(convert::summary).collect();
        Ok(Response::new(proto::ListRunsResponse {
            runs,
            next_page_token,
        }))
    }

    async fn get_history(
        &self,
        request: Request<proto::GetHistoryRequest>,
    ) -> Result<Response<proto::GetHistoryResponse>, Status> {
        let access = Access::in_extensions(request.extensions());
        let proto::GetHistoryRequest {
            run_id,
            page_size,
            page_token,
        } = request.into_inner();
        let id = convert::run_id(&run_id)?;
        self.engine.admit(&access, &id).await?;
        let (entries, next_page_token) = self.engine.history(&id, page_size, &page_token).await?;
        let events = entries
            .into_iter()
            .map(convert::entry)
            .collect::<Result<_, _>>()?;
        Ok(Response::new(proto::GetHistoryResponse {
            events,
            next_page_token,
        }))
    }

    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<proto::WatchRunResponse, Status>> + Send>>;

    async fn watch_run(
        &self,
        request: Request<proto::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let access = Access::in_extensions(request.extensions());
        let proto::WatchRunRequest { run_id, after_index } = request.into_inner();
        let id = convert::run_id(&run_id)?;
        self.engine.admit(&access, &id).await?;
        let from = after_index.map_or(0, |index| index.saturating_add(1));
        let updates = self.engine.watch(&id, from).await?;
        let updates = updates.map(|update| Ok(convert::update(update?)?));
        Ok(Response::new(Box::pin(updates)))
    }

    async fn cancel_run(
        &self,
        request: Request<proto::CancelRunRequest>,
    ) -> Result<Response<proto::CancelRunResponse>, Status> {
        let id = convert::run_id(&request.get_ref().run_id)?;
        let access = Access::in_extensions(request.extensions());
        self.engine.admit(&access, &id).await?;
        if let Some(peer) = self.engine.peer_of(&id, &request).await? {
            return peer.answer(peer.workflows().cancel_run(sent_on(request))).await;
        }
        let proto::CancelRunRequest { reason, by, .. } = request.into_inner();
        let by = said_by(&access, by);
        let run = self.engine.cancel(&id, Wish::new(by, reason)?).await?;
        Ok(Response::new(proto::CancelRunResponse {
            run: Some(convert::view(run)),
        }))
    }

    async fn terminate_run(
        &self,
        request: Request<proto::TerminateRunRequest>,
    ) -> Result<Response<proto::TerminateRunResponse>, Status> {
        let id = convert::run_id(&request.get_ref().run_id)?;
        let access = Access::in_extensions(request.extensions());
        self.engine.admit(&access, &id).await?;
        if let Some(peer) = self.engine.peer_of(&id, &request).await? {
            return peer
                .answer(peer.workflows().terminate_run(sent_on(request)))
                .await;
        }
        let proto::TerminateRunRequest { reason, by, .. } = request.into_inner();
        let by = said_by(&access, by);
        let run = self.engine.terminate(&id, Wish::new(by, reason)?).await?;
        Ok(Response::new(proto::TerminateRunResponse {
            run: Some(convert::view(run)),
        }))
    }

    async fn pause_run(
        &self,
        request: Request<proto::PauseRunRequest>,
    ) -> Result<Response<proto::PauseRunResponse>, Status> {
        let id = convert::run_id(&request.get_ref().run_id)?;
        let access = Access::in_extensions(request.extensions());
        self.engine.admit(&access, &id).await?;
        if let Some(peer) = self.engine.peer_of(&id, &request).await? {
            return peer.answer(peer.workflows().pause_run(sent_on(request))).await;
        }
        let proto::PauseRunRequest { reason, by, .. } = request.into_inner();
        let by = said_by(&access, by);
        let run = self.engine.pause(&id, Wish::new(by, reason)?).await?;
        Ok(Response::new(proto::PauseRunResponse {
            run: Some(convert::view(run)),
        }))
    }

    async fn resume_run(
        &self,
        request: Request<proto::ResumeRunRequest>,
    ) -> Result<Response<proto::ResumeRunResponse>, Status> {
        let id = convert::run_id(&request.get_ref().run_id)?;
        let access = Access::in_extensions(request.extensions());
        self.engine.admit(&access, &id).await?;
        if let Some(peer) = self.engine.peer_of(&id, &request).await? {
            return peer.answer(peer.workflows().resume_run(sent_on(request))).await;
        }
        let proto::ResumeRunRequest { reason, by, .. } = request.into_inner();
        let by = said_by(&access, by);
        let run = self.engine.resume(&id, Wish::new(by, reason)?).await?;
        Ok(Response::new(proto::ResumeRunResponse {
            run: Some(convert::view(run)),
        }))
    }

    async fn retry_run(
        &self,
        request: Request<proto::RetryRunRequest>,
    ) -> Result<Response<proto::RetryRunResponse>, Status> {
        let id = convert::run_id(&request.get_ref().run_id)?;
        let access = Access::in_extensions(request.extensions());
        self.engine.admit(&access, &id).await?;
        if let Some(peer) = self.engine.peer_of(&id, &request).await? {
            return peer.answer(peer.workflows().retry_run(sent_on(request))).await;
        }
        let proto::RetryRunRequest { from, reason, by, .. } = request.into_inner();
        let by = said_by(&access, by);
        let run = self.engine.retry(&id, from, Wish::new(by, reason)?).await?;
        Ok(Response::new(proto::RetryRunResponse {
            run: Some(convert::view(run)),
        }))
    }

    async fn fork_run(
        &self,
        request: Request<proto::ForkRunRequest>,
    ) -> Result<Response<proto::ForkRunResponse>, Status> {
        let access = Access::in_extensions(request.extensions());
        let source = convert::run_id(&request.get_ref().run_id)?;
        self.engine.admit(&access, &source).await?;
        if !request.get_ref().new_run_id.is_empty() {
            let id = control::new_run_id(&request.get_ref().new_run_id)?;
            if let Some(peer) = self.engine.peer_of(&id, &request).await? {
                return peer.answer(peer.workflows().fork_run(sent_on(request))).await;
            }
        }
        let mut asked = request.into_inner();
        asked.by = said_by(&access, asked.by);
        let wish = control::fork(asked, self.engine.most_payload_bytes())?;
        let run = self.engine.fork(wish).await?;
        Ok(Response::new(proto::ForkRunResponse {
            run: Some(convert::view(run)),
        }))
    }

    async fn delete_run(
        &self,
        request: Request<proto::DeleteRunRequest>,
    ) -> Result<Response<proto::DeleteRunResponse>, Status> {
        let id = convert::run_id(&request.get_ref().run_id)?;
        let access = Access::in_extensions(request.extensions());
        self.engine.admit(&access, &id).await?;
        if let Some(peer) = self.engine.peer_of(&id, &request).await? {
            return peer.answer(peer.workflows().delete_run(sent_on(request))).await;
        }
        self.engine.delete(&id).await?;
        Ok(Response::new(proto::DeleteRunResponse {}))
    }

    async fn erase_run(
        &self,
        request: Request<proto::EraseRunRequest>,
    ) -> Result<Response<proto::EraseRunResponse>, Status> {
        let id = convert::run_id(&request.get_ref().run_id)?;
        let access = Access::in_extensions(request.extensions());
        self.engine.admit(&access, &id).await?;
        if let Some(peer) = self.engine.peer_of(&id, &request).await? {
            return peer.answer(peer.workflows().erase_run(sent_on(request))).await;
        }
        let proto::EraseRunRequest { by, .. } = request.into_inner();
        let by = said_by(&access, by);
        let run = self.engine.erase(&id, Wish::new(by, String::new())?).await?;
        Ok(Response::new(proto::EraseRunResponse {
            run: Some(convert::view(run)),
        }))
    }

    async fn bulk_runs(
        &self,
        request: Request<proto::BulkRunsRequest>,
    ) -> Result<Response<proto::BulkRunsResponse>, Status> {
        let access = Access::in_extensions(request.extensions());
        let mut asked = request.into_inner();
        asked.by = said_by(&access, asked.by);
        let mut bulk = control::bulk(asked)?;
        bulk.filter = control::only_own(bulk.filter, &access);
        let (outcomes, next_page_token) = self.engine.bulk(bulk, elsewhere::apply).await?;
        Ok(Response::new(proto::BulkRunsResponse {
            outcomes: outcomes.into_iter().map(control::outcome).collect(),
            next_page_token,
        }))
    }

    async fn explain_run(
        &self,
        request: Request<proto::ExplainRunRequest>,
    ) -> Result<Response<proto::ExplainRunResponse>, Status> {
        let id = convert::run_id(&request.get_ref().run_id)?;
        let access = Access::in_extensions(request.extensions());
        self.engine.admit(&access, &id).await?;
        if let Ok(Some(peer)) = self.engine.peer_of(&id, &request).await {
            let asked = on_our_own(request.get_ref().clone());
            if let Some(answer) = peer.soon(peer.workflows().explain_run(asked)).await {
                return answer;
            }
        }
        let blockers = self.engine.explain(&id).await?;
        Ok(Response::new(proto::ExplainRunResponse {
            blockers: blockers.into_iter().map(convert::blocker).collect(),
        }))
    }

    async fn verify_run(
        &self,
        request: Request<proto::VerifyRunRequest>,
    ) -> Result<Response<proto::VerifyRunResponse>, Status> {
        let id = convert::run_id(&request.get_ref().run_id)?;
        self.engine
            .admit(&Access::in_extensions(request.extensions()), &id)
            .await?;
        let Verified {
            entries,
            chain,
            problems,
        } = self.engine.verify(&id).await?;
        Ok(Response::new(proto::VerifyRunResponse {
            entries,
            chain: chain.map(String::from).unwrap_or_default(),
            problems,
        }))
    }

    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let mut status = convert::doing(self.engine.doing());
        if let Some(replicas) = self.engine.placement.replicas()
            && replicas.has_others()
            && !was_sent_on(&request)
        {
            for other in peers::doings(replicas).await {
                convert::add(&mut status, other);
            }
        }
        Ok(Response::new(status))
    }
}

/// Who wants something of a run: the caller, where callers are told apart, whatever the request says.
fn said_by(access: &Access, by: String) -> String {
    if access.caller().is_anybody() || was_made_by_engine(access) {
        by
    } else {
        access.caller().subject.as_ref().to_owned()
    }
}

/// Whether another engine sends on what it has decided.
fn was_made_by_engine(access: &Access) -> bool {
    access.caller().kind == Kind::Service && access.sees_all()
}

impl Service {
    /// To whom a document is to be sent on: who works on the schedule and the starts of its name. One that is refused is
    /// refused here.
    async fn keeper_of(
        &self,
        request: &Request<proto::ApplyWorkflowRequest>,
    ) -> Result<Option<Peer>, Status> {
        if self.engine.placement.replicas().is_none() {
            return Ok(None);
        }
        let document = request.get_ref().document.clone();
        self.engine.catalogue().bound(&document)?;
        let Ok(definition) = off_thread(move || muster_workflow_dsl::parse(&document)).await else {
            return Ok(None);
        };
        let header = &definition.workflow.header;
        Ok(self
            .engine
            .peer_of_name(&header.namespace, &header.name, request)
            .await?)
    }
}

//! The schedules over gRPC.

use std::sync::Arc;

use muster_api::time::{from_proto, to_proto};
use muster_api::workflow as proto;
use muster_api::workflow::schedule_service_server::ScheduleService;
use muster_runtime::trust::Access;
use muster_workflow_dsl::{document, duration};
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::convert;
use crate::engine::Engine;
use crate::error::Error;
use crate::peers::{Peer, sent_on};
use crate::timetable::{Backfill, Firing, Name, Schedule, TriggerRun};

/// `muster.workflow.v1.ScheduleService`.
pub struct Schedules {
    engine: Arc<Engine>,
}

impl Schedules {
    /// Serves this engine's schedules.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl ScheduleService for Schedules {
    async fn list_schedules(
        &self,
        request: Request<proto::ListSchedulesRequest>,
    ) -> Result<Response<proto::ListSchedulesResponse>, Status> {
        let access = Access::in_extensions(request.extensions());
        let proto::ListSchedulesRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let (mut schedules, next_page_token) = self.engine.schedules(page_size, &page_token).await?;
        schedules.retain(|schedule| access.reaches_namespace(&schedule.name.namespace));
        Ok(Response::new(proto::ListSchedulesResponse {
            schedules: schedules.into_iter().map(schedule).collect(),
            next_page_token,
        }))
    }

    async fn get_schedule(
        &self,
        request: Request<proto::GetScheduleRequest>,
    ) -> Result<Response<proto::GetScheduleResponse>, Status> {
        Access::in_extensions(request.extensions()).namespace(&request.get_ref().namespace)?;
        let proto::GetScheduleRequest { namespace, name } = request.into_inner();
        let found = self.engine.schedule(&named(namespace, name)?).await?;
        Ok(Response::new(proto::GetScheduleResponse {
            schedule: Some(schedule(found)),
        }))
    }

    async fn pause_schedule(
        &self,
        request: Request<proto::PauseScheduleRequest>,
    ) -> Result<Response<proto::PauseScheduleResponse>, Status> {
        Access::in_extensions(request.extensions()).namespace(&request.get_ref().namespace)?;
        if let Some(peer) = self
            .keeper_of(&request, |asked| (&asked.namespace, &asked.name))
            .await?
        {
            return peer
                .answer(peer.schedules().pause_schedule(sent_on(request)))
                .await;
        }
        let proto::PauseScheduleRequest {
            namespace,
            name,
            reason,
        } = request.into_inner();
        let paused = self
            .engine
            .pause_schedule(&named(namespace, name)?, bounded(reason)?)
            .await?;
        Ok(Response::new(proto::PauseScheduleResponse {
            schedule: Some(schedule(paused)),
        }))
    }

    async fn resume_schedule(
        &self,
        request: Request<proto::ResumeScheduleRequest>,
    ) -> Result<Response<proto::ResumeScheduleResponse>, Status> {
        Access::in_extensions(request.extensions()).namespace(&request.get_ref().namespace)?;
        if let Some(peer) = self
            .keeper_of(&request, |asked| (&asked.namespace, &asked.name))
            .await?
        {
            return peer
                .answer(peer.schedules().resume_schedule(sent_on(request)))
                .await;
        }
        let proto::ResumeScheduleRequest { namespace, name } = request.into_inner();
        let resumed = self.engine.resume_schedule(&named(namespace, name)?).await?;
        Ok(Response::new(proto::ResumeScheduleResponse {
            schedule: Some(schedule(resumed)),
        }))
    }

    async fn trigger_schedule(
        &self,
        mut request: Request<proto::TriggerScheduleRequest>,
    ) -> Result<Response<proto::TriggerScheduleResponse>, Status> {
        Access::in_extensions(request.extensions()).namespace(&request.get_ref().namespace)?;
        let peer = self.engine.peer_of_new(&mut request, |asked| &mut asked.run_id);
        if let Some(peer) = peer.await? {
            return peer
                .answer(peer.schedules().trigger_schedule(sent_on(request)))
                .await;
        }
        let proto::TriggerScheduleRequest {
            namespace,
            name,
            run_id,
            input_json,
        } = request.into_inner();
        let wish = TriggerRun {
            name: named(namespace, name)?,
            id: if run_id.is_empty() {
                None
            } else {
                Some(convert::run_id(&run_id)?)
            },
            input: self.input(&input_json)?,
        };
        let run = self.engine.trigger_schedule(wish).await?;
        Ok(Response::new(proto::TriggerScheduleResponse {
            run: Some(convert::summary(run)),
        }))
    }

    async fn backfill_schedule(
        &self,
        request: Request<proto::BackfillScheduleRequest>,
    ) -> Result<Response<proto::BackfillScheduleResponse>, Status> {
        Access::in_extensions(request.extensions()).namespace(&request.get_ref().namespace)?;
        if let Some(peer) = self
            .keeper_of(&request, |asked| (&asked.namespace, &asked.name))
            .await?
        {
            return peer
                .answer(peer.schedules().backfill_schedule(sent_on(request)))
                .await;
        }
        let proto::BackfillScheduleRequest {
            namespace,
            name,
            from,
            to,
            input_json,
        } = request.into_inner();
        let time = |field: &'static str, time: Option<prost_types::Timestamp>| {
            let time = time.as_ref().and_then(from_proto);
            time.ok_or_else(|| {
                Error::field(
                    field,
                    "is missing or no time; give one such as 2026-03-01T00:00:00Z",
                )
            })
        };
        let wish = Backfill {
            name: named(namespace, name)?,
            from: time("from", from)?,
            to: time("to", to)?,
            input: self.input(&input_json)?,
        };
        let done = self.engine.backfill_schedule(wish).await?;
        Ok(Response::new(proto::BackfillScheduleResponse {
            run_ids: done.runs.into_iter().map(String::from).collect(),
            already_started: done.known as u64,
        }))
    }
}

impl Schedules {
    /// To whom a call is to be sent on: who works on the schedule that it names.
    async fn keeper_of<T>(
        &self,
        request: &Request<T>,
        name: impl FnOnce(&T) -> (&String, &String),
    ) -> Result<Option<Peer>, Error> {
        let (namespace, name) = name(request.get_ref());
        let name = named(namespace.clone(), name.clone())?;
        self.engine
            .peer_of_name(&name.namespace, &name.name, request)
            .await
    }

    fn input(&self, text: &str) -> Result<Option<Value>, Error> {
        if text.is_empty() {
            return Ok(None);
        }
        convert::input(text, self.engine.most_payload_bytes()).map(Some)
    }
}

fn named(namespace: String, name: String) -> Result<Name, Error> {
    if name.is_empty() {
        return Err(Error::field(
            "name",
            "is empty; give `document.name` of a workflow that has a schedule",
        ));
    }
    let namespace = if namespace.is_empty() {
        muster_api::names::DEFAULT_NAMESPACE.to_owned()
    } else {
        namespace
    };
    Ok(Name { namespace, name })
}

fn bounded(reason: String) -> Result<String, Error> {
    const LONGEST: usize = 1024;
    if reason.len() > LONGEST {
        return Err(Error::field(
            "reason",
            format!("has {} bytes, and at most {LONGEST} are taken", reason.len()),
        ));
    }
    Ok(reason)
}

fn schedule(schedule: Schedule) -> proto::Schedule {
    use proto::schedule::Rule;
    let rule = match &schedule.rule {
        document::Schedule::Every(interval) => Rule::Every(duration::iso8601(*interval)),
        document::Schedule::Cron(cron) => Rule::Cron(cron.as_str().to_owned()),
        document::Schedule::After(delay) => Rule::After(duration::iso8601(*delay)),
    };
    proto::Schedule {
        namespace: schedule.name.namespace,
        name: schedule.name.name,
        version: schedule.version,
        digest: schedule.digest,
        rule: Some(rule),
        next_at: schedule.next.filter(|_| schedule.paused.is_none()).map(to_proto),
        awaits_run_id: schedule.awaits.map(String::from).unwrap_or_default(),
        paused_at: schedule.paused.as_ref().map(|pause| to_proto(pause.since)),
        pause_reason: schedule.paused.map(|pause| pause.reason).unwrap_or_default(),
        last: schedule.last.map(firing),
        fired_total: schedule.fired,
        since: Some(to_proto(schedule.anchor)),
    }
}

fn firing(firing: Firing) -> proto::ScheduleFiring {
    proto::ScheduleFiring {
        scheduled_at: Some(to_proto(firing.scheduled_at)),
        fired_at: Some(to_proto(firing.fired_at)),
        run_id: firing.run.map(String::from).unwrap_or_default(),
        failure: firing.failure.unwrap_or_default(),
    }
}

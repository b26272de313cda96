//! What an operator changes in a service while it runs: `muster.admin.v1`, on every data port.
//!
//! Not on the port of health, which carries no commands: who may do this is for the callers' policy to say.

use std::time::Duration;

use jiff::Timestamp;
use muster_api::admin::admin_service_server::AdminService;
use muster_api::admin::{
    GetHealthRequest, GetHealthResponse, GetLogLevelRequest, GetLogLevelResponse, GetRefusalsRequest,
    GetRefusalsResponse, GetTrafficRequest, GetTrafficResponse, HealthCheck, MethodTraffic, RefusalReason,
    Refused, RefusedCaller, SetLogLevelRequest, SetLogLevelResponse,
};
use muster_api::error::{Error, Reason};
use tonic::{Request, Response, Status};

use crate::Tasks;
use crate::clock::SharedClock;
use crate::health::{Health, Question};
use crate::http::{Requests, error_type};
use crate::telemetry::logs;
use crate::trust::refusals::Refusals;

/// See the module.
pub(crate) struct Admin {
    pub(crate) requests: Requests,
    pub(crate) clock: SharedClock,
    pub(crate) tasks: Tasks,
    pub(crate) health: Health,
    pub(crate) refusals: Refusals,
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_log_level(
        &self,
        _: Request<GetLogLevelRequest>,
    ) -> Result<Response<GetLogLevelResponse>, Status> {
        let current = logs::current().map_err(refused)?;
        Ok(Response::new(GetLogLevelResponse {
            filter: current.filter,
            reverts_at: current.reverts_at.map(timestamp),
        }))
    }

    async fn get_traffic(
        &self,
        _: Request<GetTrafficRequest>,
    ) -> Result<Response<GetTrafficResponse>, Status> {
        let now = self.clock.monotonic();
        let methods = self.requests.traffic(now).into_iter().map(|traffic| {
            let refused = traffic.endings.iter().filter_map(|(status, count)| {
                Some(Refused {
                    status_code: u32::from(*status),
                    error_type: error_type(*status)?.to_owned(),
                    calls_total: *count,
                })
            });
            MethodTraffic {
                method: traffic.method.to_owned(),
                recent_seconds: traffic.recent.as_secs_f64(),
                calls_total: traffic.endings.iter().map(|(_, count)| count).sum(),
                refused: refused.collect(),
                last_calls: traffic.last.calls,
                last_failed: traffic.last.failed,
                p50_seconds: traffic.last.median.as_secs_f64(),
                p95_seconds: traffic.last.p95.as_secs_f64(),
                endpoint: traffic.endpoint,
            }
        });
        Ok(Response::new(GetTrafficResponse {
            methods: methods.collect(),
        }))
    }

    async fn get_health(&self, _: Request<GetHealthRequest>) -> Result<Response<GetHealthResponse>, Status> {
        let report = self.health.report(Question::Ready).await;
        let checks = report.checks.into_iter().map(|(name, check)| HealthCheck {
            name,
            status: check.status.to_owned(),
            error: check.error.unwrap_or_default(),
        });
        Ok(Response::new(GetHealthResponse {
            status: report.status.to_owned(),
            ready: report.ok,
            checks: checks.collect(),
        }))
    }

    async fn get_refusals(
        &self,
        _: Request<GetRefusalsRequest>,
    ) -> Result<Response<GetRefusalsResponse>, Status> {
        let reasons = self.refusals.reasons().into_iter();
        let callers = self.refusals.callers().into_iter();
        Ok(Response::new(GetRefusalsResponse {
            reasons: reasons
                .map(|(reason, times)| RefusalReason {
                    reason: reason.to_owned(),
                    times,
                })
                .collect(),
            callers: callers
                .map(|refused| RefusedCaller {
                    reason: refused.reason.to_owned(),
                    who: refused.who,
                    times: refused.times,
                    last_at: Some(timestamp(refused.last)),
                })
                .collect(),
        }))
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<SetLogLevelResponse>, Status> {
        let SetLogLevelRequest { filter, revert_after } = request.into_inner();
        let revert_after = revert_after
            .map(Duration::try_from)
            .transpose()
            .map_err(|_| refused(logs::Error::RevertAfter))?;
        let (previous, current) =
            logs::change(&filter, revert_after, &self.clock, &self.tasks).map_err(refused)?;
        Ok(Response::new(SetLogLevelResponse {
            previous,
            filter: current.filter,
            reverts_at: current.reverts_at.map(timestamp),
        }))
    }
}

fn refused(error: logs::Error) -> Status {
    let message = error.to_string();
    let invalid =
        |field: &str| Error::new(Reason::InvalidField, format!("{field}: {message}")).with_field(field);
    match error {
        logs::Error::Filter(_) => invalid("filter").into(),
        logs::Error::RevertAfter => invalid("revert_after").into(),
        logs::Error::NotOurs => Status::failed_precondition(message),
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

//! What is slow, and what would help.

use std::sync::Arc;

use muster_api::error::{Error, Reason};
use muster_api::workflow as proto;
use muster_api::workflow::optimization_service_server::OptimizationService;
use muster_runtime::telemetry::Optimizer;
use muster_runtime::trust::Access;
use tonic::{Request, Response, Status};

use crate::engine::Engine;
use crate::optimize::monitor::{Change, Report};

/// Answers for this engine.
pub struct Optimization {
    engine: Arc<Engine>,
}

impl Optimization {
    /// Of this engine.
    #[must_use]
    pub const fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl OptimizationService for Optimization {
    async fn get_optimization_report(
        &self,
        request: Request<proto::GetOptimizationReportRequest>,
    ) -> Result<Response<proto::GetOptimizationReportResponse>, Status> {
        // It names steps of whatever has run.
        Access::in_extensions(request.extensions()).every_namespace()?;
        Ok(Response::new(told(self.engine.report())))
    }

    async fn revert_changes(
        &self,
        request: Request<proto::RevertChangesRequest>,
    ) -> Result<Response<proto::RevertChangesResponse>, Status> {
        let proto::RevertChangesRequest { numbers, all } = request.into_inner();
        if numbers.is_empty() != all {
            let message = "name the changes, or take back all of them";
            return Err(Error::invalid_field("numbers", message).into());
        }
        let numbers = (!all).then_some(numbers.as_slice());
        match self.engine.revert_changes(numbers) {
            Ok(reverted) => Ok(Response::new(proto::RevertChangesResponse {
                reverted: reverted.into_iter().map(applied).collect(),
            })),
            Err(number) => {
                let message = format!("no change {number} of the engine is in force");
                Err(Error::new(Reason::ChangeNotFound, message).into())
            }
        }
    }
}

fn told(report: Report) -> proto::GetOptimizationReportResponse {
    let Report {
        findings,
        mode,
        changes,
    } = report;
    let bottlenecks = findings.bottlenecks.into_iter().map(|found| proto::Bottleneck {
        place: found.place,
        sign: found.sign.name().to_owned(),
        evidence: found.evidence,
    });
    let improvements = findings.improvements.into_iter().map(|found| proto::Improvement {
        kind: found.kind.name().to_owned(),
        place: found.place,
        priority: found.kind.priority(),
        expected_gain_percent: found.kind.expected_gain_percent(),
        evidence: found.evidence,
        advice: found.advice,
    });
    proto::GetOptimizationReportResponse {
        score: findings.score,
        calls: findings.calls,
        runs: findings.runs,
        bottlenecks: bottlenecks.collect(),
        improvements: improvements.collect(),
        applies: mode == Optimizer::Apply,
        changes: changes.into_iter().map(applied).collect(),
        mode: mode.name().to_owned(),
    }
}

fn applied(change: Change) -> proto::AppliedChange {
    proto::AppliedChange {
        at: Some(muster_api::time::to_proto(change.at)),
        what: change.what(),
        number: change.number,
        reverted: change.is_reverted,
        evidence: change.evidence,
    }
}

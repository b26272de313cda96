//! What is slow, and what would help.

use std::sync::Arc;

use muster_api::workflow as proto;
use muster_api::workflow::optimization_service_server::OptimizationService;
use tonic::{Request, Response, Status};

use crate::engine::Engine;
use crate::optimize::monitor::Report;

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
        _: Request<proto::GetOptimizationReportRequest>,
    ) -> Result<Response<proto::GetOptimizationReportResponse>, Status> {
        Ok(Response::new(told(self.engine.report())))
    }
}

fn told(report: Report) -> proto::GetOptimizationReportResponse {
    let Report {
        findings,
        applies,
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
    let changes = changes.into_iter().map(|change| proto::AppliedChange {
        at: Some(prost_types::Timestamp {
            seconds: change.at.as_second(),
            nanos: change.at.subsec_nanosecond(),
        }),
        what: change.what,
        evidence: change.evidence,
    });
    proto::GetOptimizationReportResponse {
        score: findings.score,
        calls: findings.calls,
        runs: findings.runs,
        bottlenecks: bottlenecks.collect(),
        improvements: improvements.collect(),
        applies,
        changes: changes.collect(),
    }
}

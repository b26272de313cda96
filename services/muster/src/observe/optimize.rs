//! `muster optimize`: what the engine finds slow, and what would help.

use muster_api::workflow::GetOptimizationReportRequest;
use muster_api::workflow::optimization_service_client::OptimizationServiceClient;
use serde_json::{Value, json};

use crate::cli::OptimizeCommand;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// Runs `muster optimize …`.
pub async fn run(command: OptimizeCommand, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    match command {
        OptimizeCommand::Report => report(endpoints, output).await,
    }
}

async fn report(endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let report = OptimizationServiceClient::new(endpoints.channel(Service::Engine)?)
        .get_optimization_report(GetOptimizationReportRequest {})
        .await
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .into_inner();
    let time = |at: &Option<prost_types::Timestamp>| {
        let at = at
            .as_ref()
            .and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok());
        at.map(muster_api::time::rfc3339).unwrap_or_default()
    };
    if output.is_json() {
        let bottlenecks: Vec<Value> = report
            .bottlenecks
            .iter()
            .map(|found| json!({"place": found.place, "sign": found.sign, "evidence": found.evidence}))
            .collect();
        let improvements: Vec<Value> = report
            .improvements
            .iter()
            .map(|found| {
                json!({
                    "kind": found.kind,
                    "place": found.place,
                    "priority": found.priority,
                    "expectedGainPercent": found.expected_gain_percent,
                    "evidence": found.evidence,
                    "advice": found.advice,
                })
            })
            .collect();
        let changes: Vec<Value> = report
            .changes
            .iter()
            .map(|change| json!({"at": time(&change.at), "what": change.what, "evidence": change.evidence}))
            .collect();
        output.json(&json!({
            "score": report.score,
            "calls": report.calls,
            "runs": report.runs,
            "bottlenecks": bottlenecks,
            "improvements": improvements,
            "applies": report.applies,
            "changes": changes,
        }));
        return Ok(());
    }
    output.line(&format!(
        "score {} of 100, from {} calls and {} runs",
        report.score, report.calls, report.runs
    ));
    if report.bottlenecks.is_empty() {
        output.line("no step is a bottleneck, as far as was measured");
    } else {
        let rows = report.bottlenecks.into_iter();
        let rows = rows
            .map(|found| [found.place, found.sign, found.evidence])
            .collect();
        output.table(["STEP", "IS", "EVIDENCE"], rows);
    }
    if !report.improvements.is_empty() {
        let rows = report.improvements.into_iter().map(|found| {
            let gain = format!("{} %", found.expected_gain_percent);
            [
                found.kind,
                found.place,
                found.priority.to_string(),
                gain,
                found.evidence,
                found.advice,
            ]
        });
        output.table(
            [
                "WOULD HELP",
                "WHERE",
                "PRIORITY",
                "GAIN",
                "EVIDENCE",
                "WHAT TO DO",
            ],
            rows.collect(),
        );
    }
    for change in &report.changes {
        let at = time(&change.at);
        output.line(&format!(
            "{at}: changed {}, because {}",
            change.what, change.evidence
        ));
    }
    if !report.applies {
        output.aside("nothing is changed by itself; 'engine.optimize.apply' lets the engine raise its slots within bounds");
    }
    Ok(())
}

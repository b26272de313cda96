//! `muster optimize`: what is found slow, what would help, and what the router and the engine have changed by themselves.
//!
//! A change is named by who has made it and its number there: `router-3`, `engine-1`.

use muster_api::router::router_service_client::RouterServiceClient;
use muster_api::router::{GetTuningRequest, GetTuningResponse, RevertTuningRequest, TuningChange};
use muster_api::workflow::optimization_service_client::OptimizationServiceClient;
use muster_api::workflow::{
    AppliedChange, GetOptimizationReportRequest, GetOptimizationReportResponse, RevertChangesRequest,
};
use serde_json::{Value, json};

use crate::cli::{OptimizeCommand, RevertArguments};
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// Runs `muster optimize …`.
pub async fn run(command: OptimizeCommand, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    match command {
        OptimizeCommand::Report => report(endpoints, output).await,
        OptimizeCommand::Revert(arguments) => revert(&arguments, endpoints, output).await,
    }
}

/// A change of either of them.
struct Changed {
    id: String,
    at: String,
    kind: String,
    place: String,
    what: String,
    evidence: String,
    is_reverted: bool,
}

impl Changed {
    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "at": self.at,
            "kind": self.kind,
            "place": self.place,
            "what": self.what,
            "evidence": self.evidence,
            "reverted": self.is_reverted,
        })
    }
}

impl From<&AppliedChange> for Changed {
    fn from(change: &AppliedChange) -> Self {
        Self {
            id: format!("engine-{}", change.number),
            at: time(change.at.as_ref()),
            kind: "resources".to_owned(),
            place: "engine".to_owned(),
            what: change.what.clone(),
            evidence: change.evidence.clone(),
            is_reverted: change.reverted,
        }
    }
}

impl From<&TuningChange> for Changed {
    fn from(change: &TuningChange) -> Self {
        let of = if change.kind == "routing" {
            "of its share"
        } else {
            "messages at once"
        };
        Self {
            id: if change.number == 0 {
                String::new()
            } else {
                format!("router-{}", change.number)
            },
            at: time(change.at.as_ref()),
            kind: change.kind.clone(),
            place: change.place.clone(),
            what: format!("{} to {} {of}", change.from, change.to),
            evidence: change.evidence.clone(),
            is_reverted: change.reverted,
        }
    }
}

fn time(at: Option<&prost_types::Timestamp>) -> String {
    let at = at.and_then(muster_api::time::from_proto);
    at.map(muster_api::time::rfc3339).unwrap_or_default()
}

async fn report(endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut engine = OptimizationServiceClient::new(endpoints.channel(Service::Engine)?);
    let mut router = RouterServiceClient::new(endpoints.channel(Service::Router)?);
    let (report, tuning) = tokio::join!(
        engine.get_optimization_report(GetOptimizationReportRequest {}),
        router.get_tuning(GetTuningRequest {}),
    );
    let report = report
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .into_inner();
    let tuning = tuning
        .map_err(|status| endpoints.failure(Service::Router, &status))?
        .into_inner();
    let mut changes: Vec<Changed> = report.changes.iter().map(Changed::from).collect();
    changes.extend(tuning.changes.iter().map(Changed::from));
    changes.sort_by(|one, other| one.at.cmp(&other.at));
    if output.is_json() {
        output.json(&told(&report, &tuning, &changes));
    } else {
        print(report, &tuning, changes, output);
    }
    Ok(())
}

fn told(report: &GetOptimizationReportResponse, tuning: &GetTuningResponse, changes: &[Changed]) -> Value {
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
    let proposals: Vec<Value> = tuning
        .proposals
        .iter()
        .map(|change| Changed::from(change).json())
        .collect();
    json!({
        "score": report.score,
        "calls": report.calls,
        "runs": report.runs,
        "bottlenecks": bottlenecks,
        "improvements": improvements,
        "applies": report.applies,
        "modes": {"engine": report.mode, "router": tuning.mode},
        "changes": changes.iter().map(Changed::json).collect::<Vec<_>>(),
        "proposals": proposals,
    })
}

fn print(
    report: GetOptimizationReportResponse,
    tuning: &GetTuningResponse,
    changes: Vec<Changed>,
    output: &Output,
) {
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
    let proposals = tuning.proposals.iter().map(Changed::from);
    let rows: Vec<[String; 4]> = proposals
        .map(|change| [change.kind, change.place, change.what, change.evidence])
        .collect();
    if !rows.is_empty() {
        output.table(["WOULD CHANGE", "WHERE", "WHAT", "EVIDENCE"], rows);
    }
    if !changes.is_empty() {
        list(changes, output);
    }
    if !report.applies {
        output.aside("nothing is changed by itself; 'telemetry.optimizer = apply' lets the router and the engine do what is safe, within bounds");
    }
}

fn list(changes: Vec<Changed>, output: &Output) {
    let rows = changes.into_iter().map(|change| {
        let state = if change.is_reverted {
            "taken back"
        } else {
            "in force"
        };
        [
            change.id,
            change.at,
            change.kind,
            change.place,
            change.what,
            state.to_owned(),
            change.evidence,
        ]
    });
    output.table(
        ["CHANGE", "AT", "KIND", "WHERE", "WHAT", "STATE", "EVIDENCE"],
        rows.collect(),
    );
}

/// The numbers of the router's changes, and of the engine's.
fn numbers(ids: &[String]) -> Result<(Vec<u64>, Vec<u64>), Failure> {
    let (mut router, mut engine) = (Vec::new(), Vec::new());
    for id in ids {
        let whose = match id.split_once('-') {
            Some(("router", number)) => number.parse().map(|number| router.push(number)),
            Some(("engine", number)) => number.parse().map(|number| engine.push(number)),
            _ => "".parse::<u64>().map(|_| ()),
        };
        whose.map_err(|_| {
            Failure::usage(format!(
                "'{id}' is no change; they are called router-NUMBER or engine-NUMBER"
            ))
            .with_remedy("list them with 'muster optimize report'")
        })?;
    }
    Ok((router, engine))
}

async fn revert(arguments: &RevertArguments, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let (of_router, of_engine) = numbers(&arguments.ids)?;
    let all = arguments.all;
    let mut reverted: Vec<Changed> = Vec::new();
    if all || !of_router.is_empty() {
        let request = RevertTuningRequest {
            numbers: of_router,
            all,
        };
        let answer = RouterServiceClient::new(endpoints.channel(Service::Router)?)
            .revert_tuning(request)
            .await;
        let answer = answer.map_err(|status| endpoints.failure(Service::Router, &status))?;
        reverted.extend(answer.get_ref().reverted.iter().map(Changed::from));
    }
    if all || !of_engine.is_empty() {
        let request = RevertChangesRequest {
            numbers: of_engine,
            all,
        };
        let answer = OptimizationServiceClient::new(endpoints.channel(Service::Engine)?)
            .revert_changes(request)
            .await;
        let answer = answer.map_err(|status| endpoints.failure(Service::Engine, &status))?;
        reverted.extend(answer.get_ref().reverted.iter().map(Changed::from));
    }
    if output.is_json() {
        let reverted: Vec<Value> = reverted.iter().map(Changed::json).collect();
        output.json(&json!({"reverted": reverted}));
    } else if reverted.is_empty() {
        output.line("nothing was changed, so that nothing is taken back");
    } else {
        list(reverted, output);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_called_by_who_has_made_them() {
        let ids = ["router-3", "engine-1", "router-2"].map(str::to_owned);
        assert_eq!(numbers(&ids).unwrap(), (vec![3, 2], vec![1]));
        for wrong in ["router", "router-x", "3", "registry-1", "router--1"] {
            assert!(numbers(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}

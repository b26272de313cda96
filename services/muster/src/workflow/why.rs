//! `muster workflow why`: what a run waits for, exactly.

use muster_api::workflow::{Blocker, ExplainRunRequest};
use serde_json::{Value, json};

use super::runs::time_json;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// `muster workflow why RUN`
pub async fn run(run_id: String, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let request = ExplainRunRequest {
        run_id: run_id.clone(),
    };
    let blockers = endpoints
        .engine()?
        .explain_run(request)
        .await
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .into_inner()
        .blockers;
    if output.is_json() {
        let blockers: Vec<Value> = blockers.iter().map(blocker_json).collect();
        output.json(&json!({"id": run_id, "blockers": blockers}));
        return Ok(());
    }
    output.line(&format!("run {run_id}"));
    if blockers.is_empty() {
        output.line("  is at work and waits for nothing");
    }
    for blocker in &blockers {
        output.line(&format!("  {:<18} {}", blocker.kind, blocker.message));
    }
    Ok(())
}

fn blocker_json(blocker: &Blocker) -> Value {
    json!({
        "kind": blocker.kind,
        "task": (!blocker.task.is_empty()).then_some(&blocker.task),
        "message": blocker.message,
        "since": time_json(blocker.since.as_ref()),
        "until": time_json(blocker.until.as_ref()),
        "details": serde_json::from_str::<Value>(&blocker.details_json).unwrap_or(Value::Null),
    })
}

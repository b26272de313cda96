//! `muster workflow why`: what a run waits for, exactly.

use muster_api::error::Error;
use muster_api::workflow::{Blocker, ExplainRunRequest};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::runs::time_json;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// `muster workflow why RUN`
pub async fn run(run_id: String, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let request = ExplainRunRequest {
        run_id: run_id.clone(),
    };
    let (blockers, lost) = match endpoints.engine()?.explain_run(request).await {
        Ok(answer) => (answer.into_inner().blockers, None),
        Err(status) => {
            let failure = endpoints.failure(Service::Engine, &status);
            if !is_gone(&status) {
                return Err(failure);
            }
            (vec![owner_lost(&endpoints.engine)], Some(failure))
        }
    };
    print(&run_id, &blockers, output);
    lost.map_or(Ok(()), Err)
}

/// Whether there is nobody who could say more.
fn is_gone(status: &Status) -> bool {
    status.code() == Code::Unavailable && Error::from_status(status).is_none()
}

/// One engine works on the runs of a directory. While it is gone, nobody does.
fn owner_lost(engine: &str) -> Blocker {
    Blocker {
        kind: "owner-lost".to_owned(),
        message: format!(
            "the engine at {engine} does not answer; its runs go on from their journals as soon as it is started again on its data \
             directory"
        ),
        details_json: json!({"engine": engine, "takeover": "when it is started again"}).to_string(),
        ..Blocker::default()
    }
}

fn print(run_id: &str, blockers: &[Blocker], output: &Output) {
    if output.is_json() {
        let blockers: Vec<Value> = blockers.iter().map(blocker_json).collect();
        output.json(&json!({"id": run_id, "blockers": blockers}));
        return;
    }
    output.line(&format!("run {run_id}"));
    if blockers.is_empty() {
        output.line("  is at work and waits for nothing");
    }
    for blocker in blockers {
        output.line(&format!("  {:<18} {}", blocker.kind, blocker.message));
    }
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

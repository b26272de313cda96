//! Steering runs: pause, resume, cancel, terminate, retry, fork, delete, erase.

use muster_api::workflow::{
    CancelRunRequest, DeleteRunRequest, EraseRunRequest, ForkRunRequest, PauseRunRequest, ResumeRunRequest,
    RetryRunRequest, Run, TerminateRunRequest,
};
use serde_json::json;
use tonic::{Response, Status};

use super::runs;
use crate::cli::{ForkArguments, Steering, WorkflowCommand};
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;
use crate::send::json_argument;

/// Runs one of these commands; the others are no business of this module.
pub async fn run(command: WorkflowCommand, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = endpoints.engine()?;
    let run = match command {
        WorkflowCommand::Pause(Steering {
            run: run_id,
            reason,
            by,
        }) => {
            let by = who(by);
            let request = PauseRunRequest { run_id, reason, by };
            taken(client.pause_run(request).await, endpoints)?.run
        }
        WorkflowCommand::Resume(Steering {
            run: run_id,
            reason,
            by,
        }) => {
            let by = who(by);
            let request = ResumeRunRequest { run_id, reason, by };
            taken(client.resume_run(request).await, endpoints)?.run
        }
        WorkflowCommand::Cancel(Steering {
            run: run_id,
            reason,
            by,
        }) => {
            let by = who(by);
            let request = CancelRunRequest { run_id, reason, by };
            taken(client.cancel_run(request).await, endpoints)?.run
        }
        WorkflowCommand::Terminate(Steering {
            run: run_id,
            reason,
            by,
        }) => {
            let by = who(by);
            let request = TerminateRunRequest { run_id, reason, by };
            taken(client.terminate_run(request).await, endpoints)?.run
        }
        WorkflowCommand::Retry { steering, from } => {
            let Steering {
                run: run_id,
                reason,
                by,
            } = steering;
            let request = RetryRunRequest {
                run_id,
                from: from.unwrap_or_default(),
                reason,
                by: who(by),
            };
            taken(client.retry_run(request).await, endpoints)?.run
        }
        WorkflowCommand::Fork(arguments) => {
            let request = fork(arguments)?;
            taken(client.fork_run(request).await, endpoints)?.run
        }
        WorkflowCommand::Delete { run: run_id } => {
            let request = DeleteRunRequest {
                run_id: run_id.clone(),
            };
            taken(client.delete_run(request).await, endpoints)?;
            match output.is_json() {
                true => output.json(&json!({"id": run_id, "deleted": true})),
                false => output.line(&format!("run {run_id} is deleted")),
            }
            return Ok(());
        }
        WorkflowCommand::Erase { run: run_id, by } => {
            let by = who(by);
            let request = EraseRunRequest { run_id, by };
            taken(client.erase_run(request).await, endpoints)?.run
        }
        _ => return Err(Failure::usage("this command steers no run")),
    };
    told(run, output)
}

fn fork(arguments: ForkArguments) -> Result<ForkRunRequest, Failure> {
    let input = arguments.input.map(|text| json_argument("--input", &text));
    Ok(ForkRunRequest {
        run_id: arguments.run,
        from: arguments.from.unwrap_or_default(),
        new_run_id: arguments.id.unwrap_or_default(),
        input_json: input
            .transpose()?
            .map(|input| input.to_string())
            .unwrap_or_default(),
        by: who(arguments.by),
    })
}

fn taken<T>(answer: Result<Response<T>, Status>, endpoints: &Endpoints) -> Result<T, Failure> {
    answer
        .map(Response::into_inner)
        .map_err(|status| endpoints.failure(Service::Engine, &status))
}

fn told(run: Option<Run>, output: &Output) -> Result<(), Failure> {
    let run = run.ok_or_else(|| Failure::failed("the engine answered without a run"))?;
    runs::print(&run, output)
}

/// Who asks: as told, else the user of this machine, else 'operator'.
pub(super) fn who(by: Option<String>) -> String {
    let user = || {
        ["USER", "LOGNAME"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
    };
    by.or_else(user).unwrap_or_else(|| "operator".to_owned())
}

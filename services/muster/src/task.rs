//! `muster task`: tasks of agents, found through the router by their id alone.

use muster_api::a2a::{CancelTaskRequest, GetTaskRequest, SubscribeToTaskRequest, Task};

use crate::cli::TaskCommand;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;
use crate::send;

/// Runs `muster task …`.
pub async fn run(command: TaskCommand, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = endpoints.agents()?;
    let failure = |status| endpoints.failure(Service::Router, &status);
    match command {
        TaskCommand::Get { id } => {
            let request = GetTaskRequest {
                id,
                ..GetTaskRequest::default()
            };
            show(
                &client.get_task(request).await.map_err(failure)?.into_inner(),
                output,
            )
        }
        TaskCommand::Cancel { id } => {
            let request = CancelTaskRequest {
                id,
                ..CancelTaskRequest::default()
            };
            let task = client.cancel_task(request).await.map_err(failure)?.into_inner();
            if output.is_json() {
                return show(&task, output);
            }
            output.line(&format!(
                "task {}: {}",
                task.id,
                task.status
                    .map_or_else(String::new, |status| send::state_name(status.state()))
            ));
            Ok(())
        }
        TaskCommand::Watch { id } => {
            let request = SubscribeToTaskRequest {
                id,
                ..SubscribeToTaskRequest::default()
            };
            let stream = client
                .subscribe_to_task(request)
                .await
                .map_err(failure)?
                .into_inner();
            send::follow(stream, None, endpoints, output).await
        }
    }
}

fn show(task: &Task, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        let native = a2a_pb::pbconv::from_proto_task(task);
        output.json(&send::protojson(a2a_pb::protojson_conv::to_value(&native))?);
        return Ok(());
    }
    send::finish(task, None, output)
}

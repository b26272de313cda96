//! Who is let in, and wants what is not for it: work where it may only read, the agents of the fleet, another caller's task or run.

use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::a2a::{GetTaskRequest, send_message_response};
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{Instance, RegisterRequest};
use muster_api::workflow::{GetRunRequest, TerminateRunRequest};
use tonic::Code;

use super::{an_agent, issuer};
use crate::connect::Service;
use crate::readiness::attacker::{Caller, more_written, refused, written};
use crate::readiness::check::{Evidence, Stop, Verdict};
use crate::readiness::target::Shows;
use crate::readiness::trial::Trial;

/// A run that needs nobody.
const IDLE: &str = "document: { dsl: 1.0.3, namespace: readiness, name: idle, version: 1.0.0 }\ndo:\n  - rest: { wait: { minutes: 10 } }\n";

pub(super) async fn reader(trial: &mut Trial) -> Verdict {
    let reader = Caller::with(issuer(trial)?.token("readiness-reader", &["agent-reader"])?);
    let agent = an_agent(trial).await?;
    let before = [Service::Router, Service::Engine].map(|service| written(trial, service));
    let answer = reader.send(trial, &agent, "readiness").await?;
    refused(answer, Code::PermissionDenied, "a reader who has an agent work")?;
    let request = reader.request(trial.made.request(IDLE, "{}"))?;
    let answer = reader.engine(trial)?.start_run(request).await;
    refused(answer, Code::PermissionDenied, "a reader who starts a run")?;
    let [router, engine] = before;
    more_written(trial, Service::Router, router, 1).await?;
    let seen = more_written(trial, Service::Engine, engine, 1).await?;
    Ok(Evidence::new(format!(
        "SendMessage and StartRun are refused; {seen}"
    )))
}

pub(super) async fn registering(trial: &mut Trial) -> Verdict {
    let token = issuer(trial)?.token("readiness-writer", &["agent-writer"])?;
    let before = written(trial, Service::Registry);
    // With the operator's certificate there is a connection; the token says who calls.
    let channel = trial
        .target
        .channel(Service::Registry, Shows::Certificate, Some(&token))?;
    let request = RegisterRequest {
        instance: Some(Instance {
            agent_id: "readiness-intruder".to_owned(),
            endpoint: "http://127.0.0.1:9".to_owned(),
            ..Instance::default()
        }),
    };
    let request = Caller::nobody().request(request)?;
    let answer = RegistryServiceClient::new(channel).register(request).await;
    refused(answer, Code::PermissionDenied, "a caller who registers an agent")?;
    let seen = more_written(trial, Service::Registry, before, 1).await?;
    Ok(Evidence::new(format!("Register is refused; {seen}")))
}

pub(super) async fn others_task(trial: &mut Trial) -> Verdict {
    let issuer = issuer(trial)?;
    let ada = Caller::with(issuer.token("readiness-ada", &["agent-writer"])?);
    let eve = Caller::with(issuer.token("readiness-eve", &["agent-writer"])?);
    let agent = an_agent(trial).await?;
    let answer = ada.send(trial, &agent, "readiness").await?;
    let answer = answer.map_err(|status| {
        Stop::failed(format!(
            "a writer's message to {agent} is refused: {}",
            status.message()
        ))
    })?;
    let Some(send_message_response::Payload::Task(task)) = answer.payload else {
        return Err(Stop::skipped(format!(
            "{agent} answers with a message, and not with a task"
        )));
    };
    let get = async |caller: &Caller| {
        let request = GetTaskRequest {
            tenant: agent.clone(),
            id: task.id.clone(),
            ..GetTaskRequest::default()
        };
        let channel = trial
            .target
            .channel(Service::Router, Shows::Nothing, caller.token.as_deref())?;
        let answer = A2aServiceClient::new(channel)
            .get_task(caller.request(request)?)
            .await;
        Ok::<_, Stop>(answer)
    };
    let own = get(&ada).await?;
    own.map_err(|status| Stop::failed(format!("the caller's own task is refused: {}", status.message())))?;
    let before = written(trial, Service::Router);
    refused(
        get(&eve).await?,
        Code::NotFound,
        "another caller who reads the task",
    )?;
    let seen = more_written(trial, Service::Router, before, 1).await?;
    Ok(Evidence::new(format!(
        "its caller reads the task, for another it does not exist; {seen}"
    )))
}

pub(super) async fn others_run(trial: &mut Trial) -> Verdict {
    let issuer = issuer(trial)?;
    let ada = Caller::with(issuer.token("readiness-ada", &["agent-writer"])?);
    let eve = Caller::with(issuer.token("readiness-eve", &["agent-writer"])?);
    let request = trial.made.request(IDLE, "{}");
    let run_id = request.run_id.clone();
    let started = ada.engine(trial)?.start_run(ada.request(request)?).await;
    started.map_err(|status| Stop::failed(format!("a writer's run is refused: {}", status.message())))?;
    let get = async |caller: &Caller| {
        let request = GetRunRequest {
            run_id: run_id.clone(),
        };
        Ok::<_, Stop>(caller.engine(trial)?.get_run(caller.request(request)?).await)
    };
    let own = get(&ada).await?;
    own.map_err(|status| Stop::failed(format!("the caller's own run is refused: {}", status.message())))?;
    let before = written(trial, Service::Engine);
    refused(
        get(&eve).await?,
        Code::NotFound,
        "another caller who reads the run",
    )?;
    let request = TerminateRunRequest {
        run_id: run_id.clone(),
        ..TerminateRunRequest::default()
    };
    let ended = eve.engine(trial)?.terminate_run(eve.request(request)?).await;
    refused(ended, Code::NotFound, "another caller who ends the run")?;
    let seen = more_written(trial, Service::Engine, before, 1).await?;
    Ok(Evidence::new(format!(
        "its caller reads the run, for another it does not exist; {seen}"
    )))
}

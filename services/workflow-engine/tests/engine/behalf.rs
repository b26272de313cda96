//! A run works on behalf of whoever started it: its calls say so, also after a restart, and nobody else sees it.
//!
//! These engines run on a loopback where callers are not told apart, so that whoever calls is believed on whose behalf it is, as a
//! router or another engine would be.

use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_runtime::trust::caller::ON_BEHALF_OF_METADATA;
use muster_runtime::trust::{Caller, Grants, Kind, Role};
use std::sync::Arc;
use tonic::Request;

use crate::harness::{Engine, document, reason, send, until_calls};

fn caller(name: &str, namespaces: Option<&[&str]>) -> Arc<Caller> {
    let grants = Grants {
        targets: None,
        namespaces: namespaces.map(|names| names.iter().map(|name| Arc::from(*name)).collect()),
    };
    Caller::new(
        Kind::EndUser,
        Some("us"),
        name,
        [Role::AgentWriter].into_iter().collect(),
        grants,
    )
}

fn behalf<T>(of: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = of.to_text().parse().unwrap();
    request.metadata_mut().insert(ON_BEHALF_OF_METADATA, value);
    request
}

fn start(id: &str, tasks: &str) -> proto::StartRunRequest {
    proto::StartRunRequest {
        run_id: id.to_owned(),
        source: Some(proto::start_run_request::Source::Document(document(tasks))),
        ..Default::default()
    }
}

fn get(id: &str) -> proto::GetRunRequest {
    proto::GetRunRequest {
        run_id: id.to_owned(),
    }
}

#[tokio::test]
async fn the_caller_of_a_run_goes_with_every_call_and_over_a_restart_and_nobody_else_sees_it() {
    let mut engine = Engine::start().await;
    let (ada, eve) = (caller("ada", None), caller("eve", None));
    engine.router.hold();
    let tasks = format!("{}{}", send("weather", "one"), send("planning", "two"));
    let started = engine
        .client
        .clone()
        .start_run(behalf(&ada, start("adas", &tasks)))
        .await;
    assert_eq!(started.unwrap().into_inner().run.unwrap().run_id, "adas");
    engine.until_held(1).await;
    engine.restart().await;
    engine.router.release_all();
    engine.until("adas", RunStatus::Completed).await;
    until_calls(&engine, 3).await;
    for call in engine.router.calls() {
        let said = call
            .metadata
            .iter()
            .find(|(name, _)| name == ON_BEHALF_OF_METADATA);
        let (_, text) = said.expect("the call says on whose behalf it is");
        assert_eq!(Caller::from_text(text).unwrap(), ada);
    }

    let mut client = engine.client.clone();
    assert!(client.get_run(behalf(&ada, get("adas"))).await.is_ok());
    // Another caller hears of it what it would if there were none, whatever it wants.
    let refused = [
        reason(&client.get_run(behalf(&eve, get("adas"))).await.unwrap_err()),
        reason(&client.get_run(behalf(&eve, get("nobodys"))).await.unwrap_err()),
        reason(
            &client
                .get_history(behalf(
                    &eve,
                    proto::GetHistoryRequest {
                        run_id: "adas".to_owned(),
                        ..Default::default()
                    },
                ))
                .await
                .unwrap_err(),
        ),
        reason(
            &client
                .delete_run(behalf(
                    &eve,
                    proto::DeleteRunRequest {
                        run_id: "adas".to_owned(),
                    },
                ))
                .await
                .unwrap_err(),
        ),
        reason(
            &client
                .fork_run(behalf(
                    &eve,
                    proto::ForkRunRequest {
                        run_id: "adas".to_owned(),
                        ..Default::default()
                    },
                ))
                .await
                .unwrap_err(),
        ),
    ];
    assert_eq!(refused, ["RUN_NOT_FOUND"; 5]);
    // Her id is taken, and that is all he hears of it.
    let taken = client.start_run(behalf(&eve, start("adas", &tasks))).await;
    assert_eq!(reason(&taken.unwrap_err()), "RUN_EXISTS");
    for (who, runs) in [(&ada, 1), (&eve, 0)] {
        let listed = client
            .list_runs(behalf(who, proto::ListRunsRequest::default()))
            .await;
        assert_eq!(listed.unwrap().into_inner().runs.len(), runs);
    }
    // Without a name it is the machine's own, who sees everything.
    assert_eq!(engine.run("adas").await.run_id, "adas");
}

#[tokio::test]
async fn grants_hold_for_namespaces_and_a_document_that_starts_itself_is_its_appliers() {
    let engine = Engine::start().await;
    let (inside, outside) = (caller("ada", Some(&["test"])), caller("eve", Some(&["other"])));
    let mut client = engine.client.clone();
    let refused = client
        .start_run(behalf(&outside, start("", &send("weather", "x"))))
        .await;
    assert_eq!(reason(&refused.unwrap_err()), "PERMISSION_DENIED");
    let scheduled = "document: {dsl: '1.0.0', namespace: test, name: nightly, version: '1.0.0'}\n\
                     schedule: {cron: '0 0 1 1 *'}\ndo:\n"
        .to_owned()
        + &send("weather", "x");
    let apply = || proto::ApplyWorkflowRequest {
        document: scheduled.clone(),
    };
    let refused = client.apply_workflow(behalf(&outside, apply())).await;
    assert_eq!(reason(&refused.unwrap_err()), "PERMISSION_DENIED");
    client.apply_workflow(behalf(&inside, apply())).await.unwrap();
    let listed = client
        .list_workflows(behalf(&outside, proto::ListWorkflowsRequest::default()))
        .await;
    assert!(listed.unwrap().into_inner().workflows.is_empty());
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", engine.address()))
        .unwrap()
        .connect_lazy();
    let mut reports = proto::optimization_service_client::OptimizationServiceClient::new(channel.clone());
    let report = proto::GetOptimizationReportRequest::default();
    let refused = reports.get_optimization_report(behalf(&outside, report)).await;
    assert_eq!(reason(&refused.unwrap_err()), "PERMISSION_DENIED");
    let everywhere = caller("ada", None);
    reports
        .get_optimization_report(behalf(
            &everywhere,
            proto::GetOptimizationReportRequest::default(),
        ))
        .await
        .unwrap();
    let mut schedules = proto::schedule_service_client::ScheduleServiceClient::new(channel);
    let trigger = proto::TriggerScheduleRequest {
        namespace: "test".to_owned(),
        name: "nightly".to_owned(),
        ..Default::default()
    };
    let refused = schedules
        .trigger_schedule(behalf(&outside, trigger.clone()))
        .await;
    assert_eq!(reason(&refused.unwrap_err()), "PERMISSION_DENIED");
    let run = schedules
        .trigger_schedule(trigger)
        .await
        .unwrap()
        .into_inner()
        .run
        .unwrap();
    engine.until(&run.run_id, RunStatus::Completed).await;
    assert!(client.get_run(behalf(&inside, get(&run.run_id))).await.is_ok());
    let calls = engine.router.calls();
    let said = calls[0]
        .metadata
        .iter()
        .find(|(name, _)| name == ON_BEHALF_OF_METADATA);
    assert_eq!(Caller::from_text(&said.unwrap().1).unwrap(), inside);
}

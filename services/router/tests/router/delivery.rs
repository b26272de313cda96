//! A message reaches the agent it is for, as its sender meant it, and the answer comes back.

use muster_api::a2a::{ListTasksRequest, send_message_response};
use muster_api::extension::TARGET_METADATA;
use muster_testkit::Answer;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::harness::{Stack, carrying, list, message, routed};

#[tokio::test]
async fn by_agent_id_and_by_skill() {
    let stack = Stack::start().await;
    let weather = stack.agent("weather", &["forecasting"]).await;
    let planning = stack.agent("planning", &["scheduling"]).await;

    let answer = stack.send(message("weather", "Seattle")).await.unwrap();
    assert_eq!(
        answer.instance,
        stack.statistics(&weather.endpoint()).await.instance_id
    );
    assert_eq!(answer.text(), "Seattle");
    assert_eq!(weather.calls()[0].skill, None);

    stack.send(message("skill:scheduling", "a plan")).await.unwrap();
    let call = &planning.calls()[0];
    assert_eq!(call.skill.as_deref(), Some("scheduling"));
    assert_eq!(call.tenant, "", "the agent's own tenant is put back");
}

#[tokio::test]
async fn by_metadata_for_clients_that_send_no_tenant_and_by_required_skills() {
    let stack = Stack::start().await;
    let weather = stack.agent("weather", &["forecasting", "alerts"]).await;
    let _other = stack.agent("other", &["forecasting"]).await;
    stack
        .send(carrying(message("", "x"), [(TARGET_METADATA, "skill:alerts")]))
        .await
        .unwrap();
    let wanted = routed(message("", "y"), [("skills", list(&["forecasting", "alerts"]))]);
    stack.send(wanted).await.unwrap();
    assert_eq!(weather.calls().len(), 2);
}

#[tokio::test]
async fn the_agent_gets_its_tenant_the_context_of_the_call_and_nothing_secret() {
    let stack = Stack::start().await;
    let agent = muster_testkit::FakeAgent::start("weather").await;
    let mut instance = agent.instance(&["forecasting"]);
    instance.card.as_mut().unwrap().supported_interfaces[0].tenant = "acme".to_owned();
    stack.register(instance).await;
    let request = carrying(
        message("weather", "x"),
        [
            ("a2a-version", "1.0"),
            ("a2a-extensions", "urn:example:x"),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            ("muster-step-key", "run-1/step-2"),
            ("authorization", "Bearer secret"),
            ("grpc-timeout", "30S"),
        ],
    );
    stack.send(request).await.unwrap();
    let call = &agent.calls()[0];
    assert_eq!(call.tenant, "acme");
    assert_eq!(call.step_key.as_deref(), Some("run-1/step-2"));
    let has = |name: &str| call.metadata.iter().any(|(key, _)| key == name);
    assert!(has("a2a-version") && has("a2a-extensions") && has("traceparent") && has("grpc-timeout"));
    assert!(!has("authorization"), "credentials are for the router");
    let timeout = call
        .metadata
        .iter()
        .find(|(key, _)| key == "grpc-timeout")
        .unwrap()
        .1
        .clone();
    let left = muster_rpc::deadline::parse(&timeout).unwrap();
    assert!(left.as_secs() < 30, "the remaining time travels: {timeout}");
}

#[tokio::test]
async fn messages_and_tasks_both_come_back() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.script([Answer::Message("hello".to_owned())]);
    let answer = stack.send(message("weather", "x")).await.unwrap().answer;
    assert!(matches!(
        answer.payload,
        Some(send_message_response::Payload::Message(_))
    ));
    let tasks = ListTasksRequest {
        tenant: "weather".to_owned(),
        ..ListTasksRequest::default()
    };
    stack.send(message("weather", "y")).await.unwrap();
    let listed = stack.client().list_tasks(tasks).await.unwrap().into_inner();
    assert_eq!(listed.tasks.len(), 1);
}

#[tokio::test]
async fn the_agents_errors_are_passed_on_unchanged() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let metadata = [("unit".to_owned(), "kelvin".to_owned())];
    let details = ErrorDetails::with_error_info("CONTENT_TYPE_NOT_SUPPORTED", "a2a-protocol.org", metadata);
    let own = Status::with_error_details(Code::InvalidArgument, "no kelvin, please", details);
    agent.script([Answer::Status(own.clone())]);
    let passed = stack.send(message("weather", "x")).await.unwrap_err();
    assert_eq!((passed.code(), passed.message()), (own.code(), own.message()));
    assert_eq!(passed.details(), own.details());
}

#[tokio::test]
async fn an_answer_that_is_neither_task_nor_message_is_the_agents_defect() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.script([Answer::Events(vec![])]);
    let status = stack.send(message("weather", "x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(
        status.get_details_error_info().unwrap().reason,
        "INVALID_AGENT_RESPONSE"
    );
}

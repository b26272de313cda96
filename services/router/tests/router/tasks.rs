//! Everything about a task reaches the instance that owns it, without a target too, and after a restart.

use muster_a2a::ProtocolError;
use muster_api::a2a::{CancelTaskRequest, GetTaskRequest, TaskState, send_message_response};
use muster_api::error::Reason;
use muster_router::Config;
use muster_testkit::{Answer, FakeAgent};
use tonic::Code;

use crate::harness::{Line, Service, Stack, error_in, message};

fn get(id: &str, tenant: &str) -> GetTaskRequest {
    GetTaskRequest {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        ..GetTaskRequest::default()
    }
}

#[tokio::test]
async fn reading_cancelling_and_continuing_go_to_the_owner() {
    let stack = Stack::start().await;
    let agents = [
        stack.agent("weather", &["forecasting"]).await,
        stack.agent("weather", &["forecasting"]).await,
    ];
    for agent in &agents {
        agent.fall_back_to(Answer::Task(TaskState::InputRequired, "which city?".to_owned()));
    }
    for round in 0..6 {
        let answer = stack
            .send(message("skill:forecasting", &format!("round {round}")))
            .await
            .unwrap();
        let owner = answer.instance.clone();
        let task = answer.task();
        let found = stack.client().get_task(get(&task.id, "")).await.unwrap();
        assert_eq!(found.metadata().get("muster-instance").unwrap(), owner.as_str());
        assert_eq!(found.into_inner().id, task.id);

        let mut more = message("", "Seattle");
        more.message.as_mut().unwrap().task_id = task.id.clone();
        assert_eq!(stack.send(more).await.unwrap().instance, owner);

        let cancel = CancelTaskRequest {
            id: task.id.clone(),
            ..CancelTaskRequest::default()
        };
        let cancelled = stack.client().cancel_task(cancel).await.unwrap().into_inner();
        assert_eq!(cancelled.status.unwrap().state, TaskState::Canceled as i32);
    }
}

#[tokio::test]
async fn a_task_of_one_agent_is_not_found_at_another() {
    let stack = Stack::start().await;
    let _weather = stack.agent("weather", &["forecasting"]).await;
    let _planning = stack.agent("planning", &["scheduling"]).await;
    let task = stack.send(message("weather", "x")).await.unwrap().task();
    assert!(stack.client().get_task(get(&task.id, "weather")).await.is_ok());
    let status = stack
        .client()
        .get_task(get(&task.id, "planning"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_task_that_the_router_never_saw_is_asked_for_at_the_target() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let status = stack
        .client()
        .get_task(get("elsewhere", "weather"))
        .await
        .unwrap_err();
    assert_eq!(
        status.message(),
        "weather has no task elsewhere",
        "the agent itself answers"
    );
}

#[tokio::test]
async fn when_the_owner_is_gone_another_instance_of_the_agent_is_asked() {
    let stack = Stack::start().await;
    let first = FakeAgent::start("weather").await;
    let (lease, instance) = stack.register(first.instance(&["forecasting"])).await;
    let task = stack.send(message("weather", "x")).await.unwrap().task();
    let second = stack.agent("weather", &["forecasting"]).await;
    stack.deregister(&lease, &instance).await;
    let status = stack.client().get_task(get(&task.id, "")).await.unwrap_err();
    // Fake agents share no tasks; that the second one answers at all is the point.
    assert_eq!(status.message(), format!("weather has no task {}", task.id));
    drop(second);
}

#[tokio::test]
async fn an_owner_that_cannot_be_reached_is_waited_for_and_nobody_speaks_for_it() {
    let stack = Stack::start().await;
    let owner = FakeAgent::start("weather").await;
    let line = Line::to(&owner).await;
    stack.register(line.instance(&owner, &["forecasting"])).await;
    let task = stack.send(message("weather", "x")).await.unwrap().task();
    let _other = stack.agent("weather", &["forecasting"]).await;
    drop(line);
    let status = stack.client().get_task(get(&task.id, "")).await.unwrap_err();
    let error = error_in(&status);
    assert_eq!(error.reason, Reason::NoInstanceAvailable, "{status:?}");
    assert!(error.retry_after.is_some());
    let mut more = message("", "Seattle");
    more.message.as_mut().unwrap().task_id = task.id;
    let status = stack.send(more).await.unwrap_err();
    assert_eq!(
        error_in(&status).reason,
        Reason::NoInstanceAvailable,
        "{status:?}"
    );
}

#[tokio::test]
async fn a_task_that_the_router_never_saw_is_found_at_the_instance_that_has_it() {
    let stack = Stack::start().await;
    let agents = [
        stack.agent("weather", &["forecasting"]).await,
        stack.agent("weather", &["forecasting"]).await,
        stack.agent("weather", &["forecasting"]).await,
    ];
    for agent in &agents {
        // Past the router, as if another had passed it on.
        let channel = tonic::transport::Endpoint::from_shared(agent.endpoint()).unwrap();
        let mut direct = muster_a2a::grpc::client(channel.connect_lazy());
        let answer = direct.send_message(message("", "x")).await.unwrap().into_inner();
        let Some(send_message_response::Payload::Task(task)) = answer.payload else {
            panic!("no task: {answer:?}");
        };
        let found = stack
            .client()
            .get_task(get(&task.id, "skill:forecasting"))
            .await
            .unwrap();
        let owner = found.metadata().get("muster-instance").unwrap().clone();
        let row = stack.statistics(&agent.endpoint()).await;
        assert_eq!(owner.to_str().unwrap(), row.instance_id);
        let again = stack.client().get_task(get(&task.id, "")).await.unwrap();
        assert_eq!(
            again.metadata().get("muster-instance"),
            Some(&owner),
            "it is remembered"
        );
    }
}

#[tokio::test]
async fn not_found_is_said_only_when_every_instance_has_said_so() {
    let stack = Stack::start().await;
    let _one = stack.agent("weather", &["forecasting"]).await;
    let other = FakeAgent::start("weather").await;
    let line = Line::to(&other).await;
    stack.register(line.instance(&other, &["forecasting"])).await;
    let unknown = stack
        .client()
        .get_task(get("elsewhere", "weather"))
        .await
        .unwrap_err();
    assert_eq!(ProtocolError::of(&unknown), Some(ProtocolError::TaskNotFound));
    drop(line);
    let unlocated = stack
        .client()
        .get_task(get("elsewhere", "weather"))
        .await
        .unwrap_err();
    let error = error_in(&unlocated);
    assert_eq!(error.reason, Reason::NoInstanceAvailable);
    assert!(error.retry_after.is_some());
    assert!(
        error.message.contains("1 could not be asked"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn when_the_owner_is_gone_the_instance_that_has_the_task_now_is_found() {
    let stack = Stack::start().await;
    let first = FakeAgent::start("weather").await;
    let (lease, instance) = stack.register(first.instance(&["forecasting"])).await;
    let task = stack.send(message("weather", "x")).await.unwrap().task();
    stack.deregister(&lease, &instance).await;
    let _others = [
        stack.agent("weather", &["forecasting"]).await,
        stack.agent("weather", &["forecasting"]).await,
    ];
    // It comes back with its tasks, under another id.
    stack.register(first.instance(&["forecasting"])).await;
    for _ in 0..5 {
        let found = stack.client().get_task(get(&task.id, "")).await.unwrap();
        assert_eq!(found.into_inner().id, task.id);
    }
}

#[tokio::test]
async fn owners_outlive_the_router() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let mut stack = Stack::with(|router| router.data_directory = path.clone()).await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let task = stack.send(message("weather", "x")).await.unwrap().task();

    let registry = stack.registry.as_ref().unwrap().address;
    let mut config = Config::default();
    config.router.data_directory = path;
    let Stack {
        registry: kept,
        router,
        ..
    } = stack;
    router.stop().await;
    let router = Service::router(config, registry);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", router.address)).unwrap();
    stack = Stack {
        registry: kept,
        channel: endpoint.connect_lazy(),
        router,
    };
    let found = muster_testkit::wait_for("the new router", crate::harness::PATIENCE, async || {
        stack.client().get_task(get(&task.id, "")).await
    })
    .await;
    assert_eq!(found.into_inner().id, task.id);
}

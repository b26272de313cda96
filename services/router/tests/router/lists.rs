//! The tasks of several instances in one list.

use std::collections::BTreeSet;

use muster_api::a2a::{ListTasksRequest, ListTasksResponse};
use muster_api::error::Reason;
use muster_testkit::FakeAgent;
use tonic::Status;

use crate::harness::{Line, Stack, error_in, message, reason_of};

async fn list(stack: &Stack, target: &str, token: &str, size: i32) -> Result<ListTasksResponse, Status> {
    let request = ListTasksRequest {
        tenant: target.to_owned(),
        page_size: Some(size),
        page_token: token.to_owned(),
        ..ListTasksRequest::default()
    };
    let listed = stack.client().list_tasks(request).await;
    listed.map(tonic::Response::into_inner)
}

/// The tasks of all pages, each of which has a number of them.
async fn all(stack: &Stack, target: &str, size: i32) -> Vec<String> {
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let page = list(stack, target, &token, size).await.expect("a page");
        ids.extend(page.tasks.into_iter().map(|task| task.id));
        if page.next_page_token.is_empty() {
            return ids;
        }
        token = page.next_page_token;
    }
}

#[tokio::test]
async fn all_instances_of_an_agent_and_all_agents_of_a_skill_are_in_one_list() {
    let stack = Stack::start().await;
    let _agents = [
        stack.agent("weather", &["forecasting"]).await,
        stack.agent("weather", &["forecasting"]).await,
        stack.agent("climate", &["forecasting"]).await,
    ];
    let mut sent = BTreeSet::new();
    for round in 0..12 {
        let answer = stack.send(message("weather", &format!("round {round}"))).await;
        sent.insert(answer.unwrap().task().id);
    }
    let other = stack.send(message("climate", "x")).await.unwrap().task().id;
    for size in [1, 5, 100] {
        let listed = all(&stack, "weather", size).await;
        assert_eq!(listed.len(), 12, "each of them once");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), sent);
    }
    let first = list(&stack, "skill:forecasting", "", 4).await.unwrap();
    assert_eq!((first.tasks.len(), first.page_size, first.total_size), (4, 4, 13));
    let listed = all(&stack, "skill:forecasting", 4).await;
    assert!(listed.len() == 13 && listed.contains(&other));
    // One instance answers for itself.
    assert_eq!(all(&stack, "climate", 4).await, [other]);
}

#[tokio::test]
async fn a_page_token_is_good_for_its_target_alone() {
    let stack = Stack::start().await;
    let _agents = [
        stack.agent("weather", &["forecasting"]).await,
        stack.agent("weather", &["forecasting"]).await,
        stack.agent("planning", &["scheduling"]).await,
    ];
    for _ in 0..4 {
        stack.send(message("weather", "x")).await.unwrap();
    }
    let token = list(&stack, "weather", "", 1).await.unwrap().next_page_token;
    assert!(list(&stack, "weather", &token, 1).await.is_ok());
    for (target, token) in [("planning", token.as_str()), ("weather", "nonsense")] {
        let refused = list(&stack, target, token, 1).await;
        assert_eq!(reason_of(refused), Reason::InvalidPageToken, "{target}");
    }
    let refused = list(&stack, "weather", "", -1).await;
    assert_eq!(reason_of(refused), Reason::InvalidField);
}

#[tokio::test]
async fn a_list_that_would_lack_something_is_refused_until_whoever_is_silent_has_left() {
    let stack = Stack::start().await;
    let _one = stack.agent("weather", &["forecasting"]).await;
    let other = FakeAgent::start("weather").await;
    let line = Line::to(&other).await;
    let (lease, instance) = stack.register(line.instance(&other, &["forecasting"])).await;
    for _ in 0..10 {
        stack.send(message("weather", "x")).await.unwrap();
    }
    let token = list(&stack, "weather", "", 1).await.unwrap().next_page_token;
    drop(line);
    let refused = list(&stack, "weather", "", 5).await.unwrap_err();
    let error = error_in(&refused);
    assert_eq!(error.reason, Reason::NoInstanceAvailable);
    assert!(error.retry_after.is_some(), "{error:?}");
    assert!(error.message.contains(&instance), "{}", error.message);

    stack.deregister(&lease, &instance).await;
    let listed = all(&stack, "weather", 5).await;
    assert!(listed.len() < 10, "its tasks have left with it");
    let refused = list(&stack, "weather", &token, 1).await;
    assert_eq!(reason_of(refused), Reason::InvalidPageToken);
}

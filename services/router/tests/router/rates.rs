//! How many requests a minute callers may make, and agents take.

use std::time::Duration;

use muster_api::a2a::{AgentCapabilities, AgentExtension, GetTaskRequest};
use muster_api::error::Reason;
use muster_api::extension::{MESSAGES_PER_MINUTE, MESSAGES_PER_MINUTE_PER_CALLER, ROUTING};
use muster_api::registry::Instance;
use muster_api::router::ListEntriesRequest;
use muster_api::router::inbox_service_client::InboxServiceClient;
use muster_router::config::Router;
use muster_router::quota::Quota;
use muster_testkit::{FakeAgent, RedisServer, wait_for};
use prost_types::Struct;
use serde_json::json;

use crate::harness::{PATIENCE, Stack, error_in, message, number, post, reason_of};

/// So slow that nothing is given back while a test runs.
const SLOW: u32 = 1;

/// The agent's instance, whose card has this parameter of the routing extension.
fn with(agent: &FakeAgent, skills: &[&str], parameter: &str, value: u32) -> Instance {
    let mut instance = agent.instance(skills);
    if let Some(card) = &mut instance.card {
        card.capabilities = Some(AgentCapabilities {
            extensions: vec![AgentExtension {
                uri: ROUTING.to_owned(),
                params: Some(Struct {
                    fields: [(parameter.to_owned(), number(f64::from(value)))].into(),
                }),
                ..AgentExtension::default()
            }],
            ..AgentCapabilities::default()
        });
    }
    instance
}

#[tokio::test]
async fn whoever_has_made_as_many_requests_as_it_may_hears_when_it_may_again_on_every_binding() {
    let stack = Stack::with(|router| {
        router.api_rate_limit = Some(SLOW);
        router.api_rate_burst = Some(3);
    })
    .await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    stack.send(message("weather", "x")).await.unwrap();
    let nobodys = GetTaskRequest {
        tenant: "weather".to_owned(),
        id: "nobody's".to_owned(),
        ..GetTaskRequest::default()
    };
    let unknown = stack.client().get_task(nobodys).await;
    assert_eq!(unknown.unwrap_err().code(), tonic::Code::NotFound);
    let mut inbox = InboxServiceClient::new(stack.channel.clone());
    inbox.list_entries(ListEntriesRequest::default()).await.unwrap();

    let error = error_in(&stack.send(message("weather", "x")).await.unwrap_err());
    assert_eq!(error.reason, Reason::RateLimited);
    let again = error.retry_after.unwrap();
    assert!(
        again > Duration::from_secs(30) && again <= Duration::from_secs(60),
        "{again:?}"
    );
    assert_eq!(error.metadata["per_minute"], "1");
    let refused = inbox.list_entries(ListEntriesRequest::default()).await;
    assert_eq!(reason_of(refused), Reason::RateLimited);
    let said = json!({"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]});
    let sent = json!({ "message": said });
    let rest = post(stack.router.address, "/weather/message:send", &sent)
        .await
        .unwrap();
    assert_eq!(rest.status, 429, "{}", rest.text());
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": said}});
    let rpc = post(stack.router.address, "/weather", &call).await.unwrap();
    assert!(rpc.text().contains("RATE_LIMITED"), "{}", rpc.text());
    for answer in [rest, rpc] {
        let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((30..=60).contains(&seconds), "{seconds}");
    }
    assert_eq!(agent.calls().len(), 1);
    assert!(
        stack
            .shows(r#"router_limited_requests_total{limit="caller"} 4"#)
            .await
    );
}

#[tokio::test]
async fn an_agent_that_takes_no_more_is_passed_over_and_the_caller_refused_where_nobody_is_left() {
    let stack = Stack::with(|router| {
        let set = Quota {
            messages_per_minute: Some(SLOW),
            ..Quota::default()
        };
        router.quotas.insert("set".to_owned(), set);
    })
    .await;
    let (declared, set) = (FakeAgent::start("declared").await, FakeAgent::start("set").await);
    let skills = ["forecasting"];
    stack
        .register(with(&declared, &skills, MESSAGES_PER_MINUTE_PER_CALLER, SLOW))
        .await;
    // What is set counts in the place of the card.
    stack
        .register(with(&set, &skills, MESSAGES_PER_MINUTE, 1_000))
        .await;
    for _ in 0..2 {
        stack.send(message("skill:forecasting", "x")).await.unwrap();
    }
    assert_eq!((declared.calls().len(), set.calls().len()), (1, 1));
    let refused = stack.send(message("skill:forecasting", "x")).await.unwrap_err();
    let error = error_in(&refused);
    assert_eq!(error.reason, Reason::QuotaExceeded);
    assert!(
        error
            .retry_after
            .is_some_and(|again| again > Duration::from_secs(30))
    );
    for (agent, of, limit) in [("declared", "caller", "agent_caller"), ("set", "all", "agent")] {
        let error = error_in(&stack.send(message(agent, "x")).await.unwrap_err());
        assert_eq!(error.reason, Reason::QuotaExceeded, "{}", error.message);
        assert_eq!((&*error.metadata["agent"], &*error.metadata["of"]), (agent, of));
        // The refusal before was one of either.
        let counted = async |times| {
            let series = format!(r#"router_limited_requests_total{{limit="{limit}"}} {times}"#);
            stack.shows(&series).await
        };
        assert!(counted(1).await || counted(2).await);
    }
    let third = stack.agent("third", &skills).await;
    stack.send(message("skill:forecasting", "x")).await.unwrap();
    assert_eq!(third.calls().len(), 1);
}

fn shared(redis: &RedisServer, per_minute: u32) -> impl Fn(&mut Router) + use<> {
    let url = redis.url();
    move |router| {
        router.redis_cluster_endpoint = Some(url.clone());
        router.redis.answer_within_seconds = 1;
        router.redis.patience_seconds = 1;
        router.api_rate_limit = Some(per_minute);
        router.api_rate_burst = Some(6);
    }
}

/// How many of so many are taken, through either router.
async fn taken(routers: [&Stack; 2], count: usize) -> usize {
    let mut taken = 0;
    for round in 0..count {
        let outcome = routers[round % 2].send(message("weather", "x")).await;
        match outcome {
            Ok(_) => taken += 1,
            Err(status) => assert_eq!(error_in(&status).reason, Reason::RateLimited),
        }
    }
    taken
}

#[tokio::test]
async fn two_routers_on_one_redis_share_a_callers_limit() {
    let redis = RedisServer::start().await;
    let one = Stack::with(shared(&redis, SLOW)).await;
    let _agent = one.agent("weather", &["forecasting"]).await;
    let other = one.beside(shared(&redis, SLOW)).await;
    assert_eq!(taken([&one, &other], 12).await, 6);
}

#[tokio::test]
async fn while_redis_is_away_each_router_limits_callers_alone_and_says_so() {
    let mut redis = RedisServer::start().await;
    let one = Stack::with(shared(&redis, 6_000)).await;
    let _agent = one.agent("weather", &["forecasting"]).await;
    let other = one.beside(shared(&redis, 6_000)).await;
    let both = async |is_alone: u8| {
        let series = format!(r#"router_limits_alone{{kind="callers"}} {is_alone}"#);
        wait_for("both routers to say how they decide", PATIENCE, async || {
            taken([&one, &other], 2).await;
            one.shows(&series).await && other.shows(&series).await
        })
        .await;
    };
    both(0).await;
    redis.kill().await;
    both(1).await;
    wait_for("a caller to be let through", PATIENCE, async || {
        taken([&one, &other], 2).await == 2
    })
    .await;
    redis.restart().await;
    both(0).await;
}

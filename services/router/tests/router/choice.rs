//! Which instance gets a message, and what happens when that one fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_a2a::ProtocolError;
use muster_api::a2a::{AgentCapabilities, AgentExtension, SendMessageRequest};
use muster_api::error::{Error, Reason};
use muster_api::extension::ROUTING;
use muster_api::registry::{DrainRequest, HeartbeatRequest, Instance};
use muster_testkit::{Answer, FakeAgent, wait_for};
use prost_types::Struct;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::credentials::{Guarded, card};
use crate::harness::{Answered, Line, PATIENCE, Service, Stack, error_in, list, message, routed, text, yes};

const SKILLS: [&str; 1] = ["forecasting"];

#[tokio::test]
async fn all_instances_get_work() {
    let stack = Stack::start().await;
    let agents = [
        stack.agent("weather", &SKILLS).await,
        stack.agent("weather", &SKILLS).await,
    ];
    let mut answered = BTreeSet::new();
    for round in 0..40 {
        answered.insert(
            stack
                .send(message("weather", &round.to_string()))
                .await
                .unwrap()
                .instance,
        );
    }
    assert_eq!(answered.len(), agents.len());
}

#[tokio::test]
async fn the_preferred_region_comes_first() {
    let stack = Stack::start().await;
    let (near, far) = (
        FakeAgent::start("weather").await,
        FakeAgent::start("weather").await,
    );
    for (agent, region) in [(&near, "eu"), (&far, "us")] {
        let mut instance = agent.instance(&SKILLS);
        instance.region = region.to_owned();
        stack.register(instance).await;
    }
    for _ in 0..10 {
        stack
            .send(routed(message("weather", "x"), [("region", text("eu"))]))
            .await
            .unwrap();
    }
    assert_eq!((near.calls().len(), far.calls().len()), (10, 0));
}

#[tokio::test]
async fn a_dead_instance_costs_nobody_an_error() {
    let stack = Stack::start().await;
    let dead = stack.agent("weather", &SKILLS).await;
    let alive = stack.agent("weather", &SKILLS).await;
    drop(dead);
    for round in 0..20 {
        // Not idempotent: a message that never reached its agent may move all the same.
        stack.send(message("weather", &round.to_string())).await.unwrap();
    }
    assert_eq!(alive.calls().len(), 20);
}

#[tokio::test]
async fn when_all_are_dead_the_caller_hears_when_to_try_again() {
    let stack = Stack::start().await;
    let agents = [
        stack.agent("weather", &SKILLS).await,
        stack.agent("weather", &SKILLS).await,
    ];
    drop(agents);
    for _ in 0..8 {
        let error = error_in(&stack.send(message("weather", "x")).await.unwrap_err());
        assert_eq!(error.reason, Reason::NoInstanceAvailable);
        assert!(error.retry_after.is_some());
    }
}

#[tokio::test]
async fn a_deserted_agent_is_known_and_not_misspelt() {
    let stack = Stack::start().await;
    let agent = FakeAgent::start("weather").await;
    let (lease, instance) = stack.register(agent.instance(&SKILLS)).await;
    stack.deregister(&lease, &instance).await;
    for target in ["weather", "skill:forecasting"] {
        let error = error_in(&stack.send(message(target, "x")).await.unwrap_err());
        assert_eq!(error.reason, Reason::NoInstanceAvailable, "{target}");
    }
}

/// Two instances, of which whichever is asked first says that it is unavailable.
async fn one_of_two_fails(stack: &Stack, card: impl Fn(&mut muster_api::a2a::AgentCard)) -> [FakeAgent; 2] {
    let agents = [
        FakeAgent::start("weather").await,
        FakeAgent::start("weather").await,
    ];
    let failed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for agent in &agents {
        let mut instance = agent.instance(&SKILLS);
        card(instance.card.as_mut().expect("fake agents have a card"));
        stack.register(instance).await;
        let failed = std::sync::Arc::clone(&failed);
        agent.fall_back_to(Answer::compute(move |_| {
            if failed.swap(true, std::sync::atomic::Ordering::Relaxed) {
                Answer::Echo
            } else {
                Answer::Status(Status::unavailable("not now"))
            }
        }));
    }
    agents
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    let stack = Stack::start().await;
    let agents = one_of_two_fails(&stack, |_| {}).await;
    let status = stack.send(message("weather", "x")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "not now"));
    assert_eq!(agents.iter().map(|agent| agent.calls().len()).sum::<usize>(), 1);
}

#[tokio::test]
async fn what_the_caller_allows_to_be_repeated_moves_to_another_instance() {
    let stack = Stack::start().await;
    let agents = one_of_two_fails(&stack, |_| {}).await;
    stack
        .send(routed(message("weather", "x"), [("idempotency", yes())]))
        .await
        .unwrap();
    assert!(agents.iter().all(|agent| agent.calls().len() == 1));
    assert!(stack.shows("router_moved_attempts_total 1").await);
}

#[tokio::test]
async fn what_the_card_declares_idempotent_moves_to_another_instance() {
    let stack = Stack::start().await;
    let agents = one_of_two_fails(&stack, |card| {
        card.capabilities = Some(AgentCapabilities {
            extensions: vec![AgentExtension {
                uri: ROUTING.to_owned(),
                params: Some(Struct {
                    fields: [("idempotentSkills".to_owned(), list(&SKILLS))].into(),
                }),
                ..AgentExtension::default()
            }],
            ..AgentCapabilities::default()
        });
    })
    .await;
    stack.send(message("skill:forecasting", "x")).await.unwrap();
    assert!(agents.iter().all(|agent| agent.calls().len() == 1));
}

/// Two agents, of which one is in the middle of a message and will never answer it.
struct InTheMiddle {
    stack: Arc<Stack>,
    sending: JoinSet<Result<Answered, Status>>,
    asked: Reached,
    other: Reached,
}

struct Reached {
    agent: FakeAgent,
    line: Line,
    lease: String,
}

impl InTheMiddle {
    async fn of(request: SendMessageRequest, registry: Service) -> Self {
        let stack = Arc::new(Stack::over(registry, |_| {}).await);
        let mut agents = Vec::new();
        for _ in 0..2 {
            let agent = FakeAgent::start("weather").await;
            let line = Line::to(&agent).await;
            let (lease, _) = stack.register(line.instance(&agent, &SKILLS)).await;
            agent.hold();
            agents.push(Reached { agent, line, lease });
        }
        let mut sending = JoinSet::new();
        let sender = Arc::clone(&stack);
        sending.spawn(async move { sender.send(request).await });
        let asked = wait_for("the message to arrive", PATIENCE, async || {
            agents.iter().position(|reached| reached.agent.held() == 1)
        })
        .await;
        let asked = agents.remove(asked);
        let other = agents.remove(0);
        other.agent.release_all();
        Self {
            stack,
            sending,
            asked,
            other,
        }
    }
}

async fn outcome(sending: &mut JoinSet<Result<Answered, Status>>) -> Result<Answered, Status> {
    sending.join_next().await.expect("one is sent").expect("no panic")
}

fn repeatable() -> SendMessageRequest {
    routed(message("weather", "x"), [("idempotency", yes())])
}

#[tokio::test]
async fn an_agent_that_breaks_off_may_have_done_it() {
    let mut middle = InTheMiddle::of(message("weather", "x"), Service::registry(0)).await;
    drop(middle.asked.line);
    let error = error_in(&outcome(&mut middle.sending).await.unwrap_err());
    assert_eq!(error.reason, Reason::AgentUnreachable);
    assert!(error.message.contains("broke off"), "{}", error.message);
    assert_eq!(error.metadata["agent"], "weather");
    assert_eq!(error.metadata["safe_to_retry"], "false");
    assert!(middle.other.agent.calls().is_empty());
}

#[tokio::test]
async fn what_may_be_repeated_moves_when_the_agent_breaks_off() {
    let mut middle = InTheMiddle::of(repeatable(), Service::registry(0)).await;
    drop(middle.asked.line);
    outcome(&mut middle.sending).await.unwrap();
    assert_eq!(middle.other.agent.calls().len(), 1);
}

/// The machine is gone and its connections say nothing; only its heartbeats stop.
#[tokio::test]
async fn when_a_lease_ends_in_the_middle_the_call_moves_on() {
    let short_leases = |config: &mut muster_registry::Config| {
        config.registry.health_check_interval = 1;
        config.registry.lease_duration = 2;
    };
    let mut middle = InTheMiddle::of(repeatable(), Service::registry_with(short_leases)).await;
    let heartbeat = HeartbeatRequest {
        lease_id: middle.other.lease.clone(),
        ..HeartbeatRequest::default()
    };
    let mut registry = middle.stack.registry_client();
    let mut beats = tokio::time::interval(Duration::from_millis(200));
    let keep_alive = async {
        loop {
            beats.tick().await;
            registry
                .heartbeat(heartbeat.clone())
                .await
                .expect("the other lease lives");
        }
    };
    tokio::select! {
        outcome = outcome(&mut middle.sending) => { outcome.unwrap(); }
        () = keep_alive => unreachable!("it never ends"),
    }
    assert_eq!(middle.other.agent.calls().len(), 1);
    drop(middle.asked);
}

#[tokio::test]
async fn the_retry_budget_bounds_what_moves() {
    let stack = Stack::with(|router| {
        router.retry_share = 0.0;
        router.retry_minimum_per_second = 0.0;
    })
    .await;
    let agents = one_of_two_fails(&stack, |_| {}).await;
    let outcome = stack
        .send(routed(message("weather", "x"), [("idempotency", yes())]))
        .await;
    assert_eq!(outcome.unwrap_err().code(), Code::Unavailable);
    assert_eq!(agents.iter().map(|agent| agent.calls().len()).sum::<usize>(), 1);
}

#[tokio::test]
async fn an_instance_that_keeps_failing_is_left_alone() {
    let stack = Stack::start().await;
    let ill = stack.agent("weather", &SKILLS).await;
    ill.fall_back_to(Answer::Status(Status::unavailable("ill")));
    for _ in 0..5 {
        let status = stack.send(message("weather", "x")).await.unwrap_err();
        assert!(Error::from_status(&status).is_none(), "the agent's own answer");
    }
    assert_eq!(stack.statistics(&ill.endpoint()).await.breaker, "open");
    let opened = r#"router_breaker_openings_total{recipient="weather"} 1"#;
    assert!(stack.shows(opened).await);
    let error = error_in(&stack.send(message("weather", "x")).await.unwrap_err());
    assert_eq!(error.reason, Reason::NoInstanceAvailable);
    assert!(
        error.retry_after.unwrap().as_secs() > 30,
        "when it may be tried again"
    );
    assert_eq!(ill.calls().len(), 5);
}

#[tokio::test]
async fn one_callers_poisonous_messages_do_not_eject_an_instance() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &SKILLS).await;
    agent.script((0..10).map(|_| Answer::Status(Status::internal("panicked"))));
    for _ in 0..10 {
        stack.send(message("weather", "poison")).await.unwrap_err();
    }
    stack.send(message("weather", "good")).await.unwrap();
}

#[tokio::test]
async fn neither_do_those_whose_messages_or_answers_are_too_large() {
    let stack = Stack::with(|router| router.max_answer_bytes = 64 << 10).await;
    let agent = stack.agent("weather", &SKILLS).await;
    let invalid = Some(ProtocolError::InvalidAgentResponse);
    let large = || Answer::Completed(serde_json::json!({}), "x".repeat(100 << 10));
    agent.script((0..10).map(|_| large()));
    for round in 0..10 {
        let refused = stack.send(message("weather", &round.to_string())).await;
        let refused = refused.unwrap_err();
        assert_eq!(ProtocolError::of(&refused), invalid, "{refused:?}");
        assert!(refused.message().contains("65536 bytes"), "{refused}");
    }
    let too_large = Status::from(Error::new(Reason::MessageTooLarge, "send less"));
    let by_tonic = Status::out_of_range("Error, decoded message length too large: found 5 bytes");
    for status in [too_large, by_tonic] {
        agent.script((0..10).map(|_| Answer::Status(status.clone())));
        for round in 0..10 {
            let refused = stack.send(message("weather", &round.to_string())).await;
            // Our servers give what tonic says of it the same reason.
            assert_eq!(error_in(&refused.unwrap_err()).reason, Reason::MessageTooLarge);
        }
    }
    let mut streamed = stack.client();
    agent.script((0..10).map(|_| large()));
    for round in 0..10 {
        let events = streamed.send_streaming_message(message("weather", &round.to_string()));
        let mut events = events.await.unwrap().into_inner();
        let end = loop {
            if let Err(status) = events.message().await.map(|event| event.expect("an end")) {
                break status;
            }
        };
        assert_eq!(ProtocolError::of(&end), invalid, "{end:?}");
    }
    stack.send(message("weather", "good")).await.unwrap();
    let breaker = stack.statistics(&agent.endpoint()).await.breaker;
    assert_eq!(breaker, "closed");
}

#[tokio::test]
async fn nor_do_those_whose_answers_in_json_are_too_large() {
    let stack = Stack::with(|router| {
        router.max_answer_bytes = 64;
        router.outbound.allow = vec!["127.0.0.0/8".to_owned()];
    })
    .await;
    for (id, binding) in [("rpc", "JSONRPC"), ("rest", "HTTP+JSON")] {
        let agent = Guarded::start(|_, _| true).await;
        let instance = Instance {
            agent_id: id.to_owned(),
            ..agent.instance(binding, card().await)
        };
        stack.register(instance).await;
        for round in 0..10 {
            let refused = stack.send(message(id, &round.to_string())).await.unwrap_err();
            let invalid = Some(ProtocolError::InvalidAgentResponse);
            assert_eq!(ProtocolError::of(&refused), invalid, "{refused:?}");
            assert!(refused.message().contains("64 bytes"), "{refused}");
        }
        assert_eq!(agent.seen().len(), 10);
    }
    let rows = stack.status().await.instances;
    assert!(rows.iter().all(|row| row.breaker == "closed"), "{rows:?}");
}

#[tokio::test]
async fn a_draining_instance_gets_nothing_new_and_answers_for_its_tasks() {
    let stack = Stack::start().await;
    let leaving = FakeAgent::start("weather").await;
    let (_, instance) = stack.register(leaving.instance(&SKILLS)).await;
    let task = stack.send(message("weather", "x")).await.unwrap().task();
    let drain = DrainRequest {
        agent_id: "weather".to_owned(),
        instance_id: instance.clone(),
        ..Default::default()
    };
    stack.registry_client().drain(drain).await.unwrap();
    wait_for("new work to be refused", PATIENCE, async || {
        let refused = stack.send(message("weather", "y")).await;
        refused.is_err_and(|status| error_in(&status).reason == Reason::NoInstanceAvailable)
    })
    .await;
    let request = muster_api::a2a::GetTaskRequest {
        id: task.id,
        ..Default::default()
    };
    let found = stack.client().get_task(request).await.unwrap();
    assert_eq!(
        found.metadata().get("muster-instance").unwrap(),
        instance.as_str()
    );
}

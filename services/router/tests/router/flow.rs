//! How many messages each instance has at once, who waits, and who is preferred: places, lines, contexts, weights, load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_api::a2a::{AgentCapabilities, AgentExtension, SendMessageRequest};
use muster_api::error::{Error, Reason};
use muster_api::extension::{MAX_CONCURRENCY, ROUTING, STICKY_CONTEXTS};
use muster_api::registry::Instance;
use muster_testkit::{Answer, FakeAgent, wait_for};
use prost_types::{Struct, Value};
use tokio::task::JoinSet;
use tonic::{Request, Status};

use crate::harness::{Answered, PATIENCE, Stack, list, message, number, reason_of, routed, yes};

const SKILLS: [&str; 1] = ["forecasting"];

/// The agent's instance, whose card has this parameter of the routing extension.
pub fn with(agent: &FakeAgent, parameter: &str, value: Value) -> Instance {
    let mut instance = agent.instance(&SKILLS);
    if let Some(card) = &mut instance.card {
        card.capabilities = Some(AgentCapabilities {
            streaming: Some(true),
            extensions: vec![AgentExtension {
                uri: ROUTING.to_owned(),
                params: Some(Struct {
                    fields: [(parameter.to_owned(), value)].into(),
                }),
                ..AgentExtension::default()
            }],
            ..AgentCapabilities::default()
        });
    }
    instance
}

/// Messages that are on their way.
struct Sending {
    stack: Arc<Stack>,
    calls: JoinSet<Result<Answered, Status>>,
}

impl Sending {
    fn new(stack: &Arc<Stack>) -> Self {
        Self {
            stack: Arc::clone(stack),
            calls: JoinSet::new(),
        }
    }

    fn send(&mut self, request: SendMessageRequest) {
        let stack = Arc::clone(&self.stack);
        self.calls.spawn(async move { stack.send(request).await });
    }

    async fn waiting(&self, count: u64) {
        wait_for("messages to wait", PATIENCE, async || {
            self.stack.status().await.queue_depth == count
        })
        .await;
    }

    async fn next(&mut self) -> Result<Answered, Status> {
        let call = self.calls.join_next().await;
        call.expect("a message is on its way").expect("no panic")
    }
}

/// A stack with one agent that takes so many messages at once and answers none until released.
async fn one_that_takes(places: f64) -> (Arc<Stack>, FakeAgent, (String, String)) {
    let stack = Stack::start().await;
    let agent = FakeAgent::start("weather").await;
    let registered = stack
        .register(with(&agent, MAX_CONCURRENCY, number(places)))
        .await;
    agent.hold();
    (Arc::new(stack), agent, registered)
}

#[tokio::test]
async fn an_agent_gets_no_more_at_once_than_its_card_says() {
    let (stack, agent, _) = one_that_takes(2.0).await;
    let mut sending = Sending::new(&stack);
    for round in 0..5 {
        sending.send(message("weather", &round.to_string()));
    }
    sending.waiting(3).await;
    wait_for("two to be there", PATIENCE, async || agent.held() == 2).await;
    for answered in 1..=5 {
        agent.release(1);
        sending.next().await.unwrap();
        wait_for("the next to come", PATIENCE, async || {
            agent.held() == 2.min(5 - answered)
        })
        .await;
    }
    assert_eq!(stack.status().await.in_flight, 0);
}

#[tokio::test]
async fn an_agent_that_is_full_keeps_nobody_from_another() {
    let (stack, agent, _) = one_that_takes(1.0).await;
    let other = stack.agent("planning", &["itineraries"]).await;
    let mut sending = Sending::new(&stack);
    for round in 0..4 {
        sending.send(message("weather", &round.to_string()));
    }
    sending.waiting(3).await;
    stack.send(message("planning", "x")).await.unwrap();
    stack.send(message("skill:itineraries", "x")).await.unwrap();
    assert_eq!(other.calls().len(), 2);
    agent.release_all();
    for _ in 0..4 {
        sending.next().await.unwrap();
    }
}

#[tokio::test]
async fn an_instance_that_joins_takes_what_waits_for_another() {
    let (stack, agent, _) = one_that_takes(1.0).await;
    let mut sending = Sending::new(&stack);
    sending.send(message("weather", "first"));
    wait_for("the first to be there", PATIENCE, async || agent.held() == 1).await;
    sending.send(message("skill:forecasting", "second"));
    sending.waiting(1).await;
    let newcomer = stack.agent("weather", &SKILLS).await;
    assert_eq!(sending.next().await.unwrap().text(), "second");
    assert_eq!(newcomer.calls().len(), 1);
    agent.release_all();
    sending.next().await.unwrap();
}

#[tokio::test]
async fn who_waits_for_an_agent_that_leaves_hears_of_it() {
    let (stack, agent, (lease, instance)) = one_that_takes(1.0).await;
    let mut sending = Sending::new(&stack);
    sending.send(message("weather", "first"));
    wait_for("the first to be there", PATIENCE, async || agent.held() == 1).await;
    sending.send(message("weather", "second"));
    sending.waiting(1).await;
    stack.deregister(&lease, &instance).await;
    assert_eq!(reason_of(sending.next().await), Reason::NoInstanceAvailable);
    agent.release_all();
    sending.next().await.unwrap();
}

#[tokio::test]
async fn a_caller_who_gives_up_leaves_its_line() {
    let (stack, agent, _) = one_that_takes(1.0).await;
    let mut sending = Sending::new(&stack);
    sending.send(message("weather", "first"));
    wait_for("the first to be there", PATIENCE, async || agent.held() == 1).await;
    let mut leaving = Sending::new(&stack);
    leaving.send(message("weather", "second"));
    leaving.waiting(1).await;
    drop(leaving);
    sending.waiting(0).await;
    agent.release_all();
    sending.next().await.unwrap();
    assert_eq!(agent.calls().len(), 1);
}

#[tokio::test]
async fn the_messages_of_a_context_reach_the_same_instance_where_the_agent_asks_for_it() {
    let stack = Stack::start().await;
    let mut agents = Vec::new();
    for _ in 0..3 {
        let agent = FakeAgent::start("chat").await;
        stack.register(with(&agent, STICKY_CONTEXTS, yes())).await;
        agents.push(agent);
    }
    let mut all = BTreeSet::new();
    for context in 0..30 {
        let mut instances = BTreeSet::new();
        for round in 0..3 {
            let mut request = message("chat", &round.to_string());
            if let Some(message) = &mut request.message {
                message.context_id = format!("context-{context}");
            }
            instances.insert(stack.send(request).await.unwrap().instance);
        }
        assert_eq!(instances.len(), 1, "context-{context}");
        all.extend(instances);
    }
    assert_eq!(all.len(), 3, "contexts are spread");
}

#[tokio::test]
async fn a_version_without_weight_gets_nothing_while_another_is_there() {
    let stack = Stack::start().await;
    let (stable, next) = (
        FakeAgent::start("weather").await,
        FakeAgent::start("weather").await,
    );
    let (lease, instance) = stack.register(stable.instance(&SKILLS)).await;
    stack
        .register(Instance {
            version: "2.0.0".to_owned(),
            weight: Some(0),
            ..next.instance(&SKILLS)
        })
        .await;
    for round in 0..20 {
        stack.send(message("weather", &round.to_string())).await.unwrap();
    }
    assert_eq!((stable.calls().len(), next.calls().len()), (20, 0));
    stack.deregister(&lease, &instance).await;
    stack.send(message("weather", "x")).await.unwrap();
    assert_eq!(next.calls().len(), 1);
}

#[tokio::test]
async fn load_that_comes_with_an_answer_counts_before_the_next_heartbeat() {
    let stack = Stack::start().await;
    let (full, idle) = (
        stack.agent("weather", &SKILLS).await,
        stack.agent("weather", &SKILLS).await,
    );
    full.tell_load(0.95);
    wait_for("the full one to answer", PATIENCE, async || {
        stack.send(message("weather", "x")).await.unwrap();
        !full.calls().is_empty()
    })
    .await;
    assert!((stack.statistics(&full.endpoint()).await.reported_load - 0.95).abs() < 1e-9);
    let before = full.calls().len();
    for round in 0..20 {
        stack.send(message("weather", &round.to_string())).await.unwrap();
    }
    assert_eq!(full.calls().len(), before);
    assert!(idle.calls().len() >= 20);
}

#[tokio::test]
async fn a_message_that_a_full_agent_refuses_goes_to_another() {
    let stack = Stack::start().await;
    let (full, other) = (
        stack.agent("weather", &SKILLS).await,
        stack.agent("weather", &SKILLS).await,
    );
    full.fall_back_to(Answer::Status(Error::new(Reason::AgentBusy, "full").into()));
    // No card says that repeating does no harm, but nothing was done.
    wait_for("the full one to be asked", PATIENCE, async || {
        stack.send(message("weather", "x")).await.unwrap();
        !full.calls().is_empty()
    })
    .await;
    assert!(!other.calls().is_empty());
}

#[tokio::test]
async fn a_call_that_takes_long_is_hedged_where_it_may_be_done_twice() {
    let stack = Stack::with(|router| router.hedge_after_seconds = 0.05).await;
    let (slow, other) = (
        stack.agent("weather", &SKILLS).await,
        stack.agent("weather", &SKILLS).await,
    );
    slow.hold();
    wait_for("the slow one to be asked", PATIENCE, async || {
        let request = routed(message("weather", "x"), [("idempotency", yes())]);
        stack.send(request).await.unwrap();
        !slow.calls().is_empty()
    })
    .await;
    assert!(!other.calls().is_empty());
    wait_for("the loser to be given up", PATIENCE, async || slow.held() == 0).await;
    assert_eq!(stack.status().await.in_flight, 0);
    assert!(stack.shows("router_hedged_calls_total 1").await);
}

#[tokio::test]
async fn who_may_not_do_it_twice_is_no_company_for_who_may() {
    let stack = Stack::with(|router| router.hedge_after_seconds = 0.05).await;
    let slow = FakeAgent::start("weather").await;
    stack
        .register(with(&slow, "idempotentSkills", list(&SKILLS)))
        .await;
    let other = stack.agent("climate", &SKILLS).await;
    slow.hold();
    wait_for("the slow one to be asked", PATIENCE, async || {
        let mut request = Request::new(message("skill:forecasting", "x"));
        let id = request.get_ref().message.as_ref().unwrap().message_id.clone();
        request.set_timeout(Duration::from_millis(500));
        let sent = stack.send(request).await;
        let reached = |agent: &FakeAgent| agent.calls().iter().any(|call| call.message_id == id);
        assert_eq!(
            (sent.is_ok(), reached(&slow)),
            (reached(&other), !reached(&other))
        );
        reached(&slow)
    })
    .await;
    assert!(!stack.shows("router_hedged_calls_total 1").await);
}

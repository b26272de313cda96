//! What the router changes by itself about what it finds slow, and that it can be taken back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use muster_api::error::Reason;
use muster_api::extension::MAX_CONCURRENCY;
use muster_api::router::router_service_client::RouterServiceClient;
use muster_api::router::{GetTuningRequest, GetTuningResponse, RevertTuningRequest, TuningChange};
use muster_runtime::telemetry::Optimizer;
use muster_runtime::trust::audit::chain;
use muster_testkit::{Answer, FakeAgent, http, wait_for};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::flow::with;
use crate::harness::{PATIENCE, Stack, message, number, reason_of};

/// A stack that looks every second.
async fn looking(mode: Optimizer, audit: Option<&std::path::Path>) -> Arc<Stack> {
    let stack = Stack::configured(|config| {
        config.telemetry.optimizer = mode;
        config.router.background.performance.every_seconds = 1;
        config.trust.audit.directory = audit.map(Into::into);
    });
    Arc::new(stack.await)
}

/// Callers who each send one message after the other, until they are dropped.
fn callers(stack: &Arc<Stack>, count: usize) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for _ in 0..count {
        let stack = Arc::clone(stack);
        callers.spawn(async move {
            loop {
                let _answered = stack.send(message("weather", "x")).await;
            }
        });
    }
    callers
}

async fn tuning(stack: &Stack) -> GetTuningResponse {
    let mut client = RouterServiceClient::new(stack.channel.clone());
    client.get_tuning(GetTuningRequest {}).await.unwrap().into_inner()
}

async fn revert(stack: &Stack, numbers: &[u64]) -> Result<Vec<TuningChange>, Status> {
    let request = RevertTuningRequest {
        numbers: numbers.to_vec(),
        all: numbers.is_empty(),
    };
    let mut client = RouterServiceClient::new(stack.channel.clone());
    Ok(client.revert_tuning(request).await?.into_inner().reverted)
}

/// A change for which this holds.
async fn changed(stack: &Stack, what: &str, holds: impl Fn(&TuningChange) -> bool) -> TuningChange {
    wait_for(what, PATIENCE, async || {
        let told = tuning(stack).await;
        let found = told.changes.iter().find(|change| holds(change)).cloned();
        found.ok_or_else(|| format!("{told:?}"))
    })
    .await
}

/// How often it has looked.
async fn looks(stack: &Stack) -> u64 {
    let text = http::get(stack.router.metrics, "/metrics").await.unwrap().text();
    let series = r#"background_runs_total{background="performance",outcome="success"} "#;
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

/// Two instances of an agent, of which one fails whatever it is asked; that one.
async fn one_that_fails(stack: &Stack) -> (FakeAgent, FakeAgent) {
    let (well, failing) = (
        FakeAgent::start("weather").await,
        FakeAgent::start("weather").await,
    );
    failing.fall_back_to(Answer::Status(Status::internal("broken")));
    for agent in [&well, &failing] {
        stack.register(agent.instance(&["forecasting"])).await;
    }
    (well, failing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_fails_more_than_its_sibling_gets_less_until_somebody_takes_that_back() {
    let audit = tempfile::tempdir().unwrap();
    let stack = looking(Optimizer::Apply, Some(audit.path())).await;
    let (_well, failing) = one_that_fails(&stack).await;
    let mut callers = callers(&stack, 64);
    let change = changed(&stack, "a smaller share", |change| change.to < 0.85).await;
    let statistics = stack.statistics(&failing.endpoint()).await;
    assert_eq!(change.kind, "routing");
    assert_eq!(change.place, format!("weather/{}", statistics.instance_id));
    assert!((change.from - change.to - 0.1).abs() < 1e-9, "{change:?}");
    assert!(change.evidence.contains("% of its calls failed"), "{change:?}");
    assert!((0.3..0.85).contains(&statistics.share), "{statistics:?}");
    let text = http::get(stack.router.metrics, "/metrics").await.unwrap().text();
    assert!(
        text.contains(r#"router_tuning_changes_total{kind="routing",how="less"}"#),
        "{text}"
    );
    assert!(
        text.contains(r#"router_tuning_in_force{kind="routing"} 1"#),
        "{text}"
    );

    // All of it is taken back, and is left alone, however it goes on failing.
    assert_eq!(reason_of(revert(&stack, &[4_711]).await), Reason::ChangeNotFound);
    let reverted = revert(&stack, &[]).await.unwrap();
    assert!(
        reverted.iter().any(|other| other.number == change.number),
        "{reverted:?}"
    );
    let before = looks(&stack).await;
    wait_for("two more looks", PATIENCE, async || {
        looks(&stack).await >= before + 2
    })
    .await;
    let statistics = stack.statistics(&failing.endpoint()).await;
    assert!((statistics.share - 1.0).abs() < f64::EPSILON, "{statistics:?}");
    assert!(tuning(&stack).await.changes.iter().all(|change| change.reverted));
    assert_eq!(
        reason_of(revert(&stack, &[change.number]).await),
        Reason::ChangeNotFound
    );

    callers.shutdown().await;
    Arc::into_inner(stack)
        .expect("nobody else has it")
        .router
        .stop()
        .await;
    let log = audit.path().join("router");
    chain::verify(&log).expect("the chain is whole");
    let lines = chain::lines(&log).unwrap();
    let of_change = lines
        .iter()
        .find(|line| line["event"] == "setting_changed" && line["object"] == change.place.as_str());
    let of_change = of_change.unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!(
        (&of_change["user"], &of_change["action"]),
        (&"router".into(), &"tuning routing".into())
    );
    assert!(
        of_change["reason"]
            .as_str()
            .unwrap()
            .contains("% of its calls failed")
    );
    assert!(lines.iter().any(|line| {
        line["action"]
            .as_str()
            .is_some_and(|action| action.ends_with("/RevertTuning"))
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_only_reports_says_what_it_would_change_and_changes_nothing() {
    let stack = looking(Optimizer::Report, None).await;
    let (_well, failing) = one_that_fails(&stack).await;
    let _callers = callers(&stack, 64);
    let proposal = wait_for("a proposal", PATIENCE, async || {
        let told = tuning(&stack).await;
        assert_eq!((told.mode.as_str(), told.changes.len()), ("report", 0));
        told.proposals.into_iter().next()
    })
    .await;
    assert_eq!((proposal.number, proposal.kind.as_str()), (0, "routing"));
    let statistics = stack.statistics(&failing.endpoint()).await;
    assert!((statistics.share - 1.0).abs() < f64::EPSILON, "{statistics:?}");
    let wrong = RevertTuningRequest {
        numbers: vec![1],
        all: true,
    };
    let mut client = RouterServiceClient::new(stack.channel.clone());
    let refused = client.revert_tuning(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_answers_slower_with_all_places_taken_gets_fewer_than_its_card_says() {
    let stack = looking(Optimizer::Apply, None).await;
    let agent = FakeAgent::start("weather").await;
    stack.register(with(&agent, MAX_CONCURRENCY, number(8.0))).await;
    // What an answer takes alone.
    for _ in 0..70 {
        stack.send(message("weather", "x")).await.unwrap();
    }
    // From now on it works on one at a time, whatever its card says: all others wait inside.
    agent.hold();
    let callers = callers(&stack, 12);
    let answered = || agent.calls().len().saturating_sub(agent.held());
    let working = async {
        for next in answered() + 1.. {
            wait_for("some to wait inside", PATIENCE, async || agent.held() >= 5).await;
            agent.release(1);
            wait_for("its answer", PATIENCE, async || answered() >= next).await;
        }
    };
    let change = tokio::select! {
        change = changed(&stack, "fewer places", |change| change.kind == "concurrency") => change,
        () = working => unreachable!("it works for ever"),
    };
    assert_eq!(
        (change.place.as_str(), change.from, change.to),
        ("weather", 8.0, 7.0)
    );
    assert!(change.evidence.contains("with all places taken"), "{change:?}");
    assert!(stack.statistics(&agent.endpoint()).await.places <= 7);
    agent.release_all();
    revert(&stack, &[change.number]).await.unwrap();
    wait_for("its places", PATIENCE, async || {
        stack.statistics(&agent.endpoint()).await.places == 8
    })
    .await;
    drop(callers);
}

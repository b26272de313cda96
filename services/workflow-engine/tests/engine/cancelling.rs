//! Whatever makes a call unwanted, the agent hears of it: a deadline, a lost race, a failed neighbour, a restart.

use std::time::Duration;

use muster_api::workflow::RunStatus;
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_testkit::wait_for;

use crate::harness::{Engine, document};
use crate::puppet::Stage;

async fn engine() -> Engine {
    Engine::start_with(|settings| settings.outbound.allow = vec!["127.0.0.0/8".to_owned()]).await
}

/// A task that makes the agent wait for ever; `more` are further fields of the task.
fn wait(agent: &Stage, name: &str, more: &str) -> String {
    format!(
        "  - {name}: {{call: a2a, with: {{server: 'grpc://{}', method: SendMessage, parameters: {{message: {{parts: [{{text: wait}}]}}}}}}{more}}}\n",
        agent.address
    )
}

fn indented(text: &str, by: usize) -> String {
    let blanks = " ".repeat(by);
    text.lines().map(|line| format!("{blanks}{line}\n")).collect()
}

#[tokio::test]
async fn a_deadline_of_the_task_and_the_run_is_parked_at_once() {
    let (engine, agent) = (engine().await, Stage::open().await);
    let tasks = format!(
        "  - guarded:\n      try:\n{}      catch: {{errors: {{with: {{status: 408}}}}}}\n  - rest: {{wait: {{hours: 1}}}}\n",
        indented(&wait(&agent, "ask", ", timeout: {after: {milliseconds: 300}}"), 6)
    );
    engine.start_run(&document(&tasks), "late", "").await.unwrap();
    agent.until(1, 1).await;
    engine.until("late", RunStatus::Waiting).await;
}

#[tokio::test]
async fn the_engines_own_limit_for_calls() {
    let engine = Engine::start_with(|settings| {
        settings.outbound.allow = vec!["127.0.0.0/8".to_owned()];
        settings.call_timeout_seconds = 1;
    })
    .await;
    let agent = Stage::open().await;
    let error = engine.fault(&document(&wait(&agent, "ask", ""))).await;
    assert_eq!(error.status, 408);
    agent.until(1, 1).await;
}

#[tokio::test]
async fn a_lost_race_and_a_failed_neighbour() {
    let (engine, agent) = (engine().await, Stage::open().await);
    let race = format!(
        "  - race:\n      fork:\n        compete: true\n        branches:\n{}          - quick: {{wait: {{milliseconds: 300}}}}\n",
        indented(&wait(&agent, "slow", ""), 8)
    );
    engine.start_run(&document(&race), "race", "").await.unwrap();
    agent.until(1, 1).await;
    engine.until("race", RunStatus::Completed).await;

    let fork = format!(
        "  - both:\n      fork:\n        branches:\n{}          - broken: {{do: [{{rest: {{wait: {{milliseconds: 300}}}}}}, \
         {{fail: {{raise: {{error: {{type: 'https://test.test/broken', status: 500, title: Broken}}}}}}}}]}}\n",
        indented(&wait(&agent, "slow", ""), 8)
    );
    engine.start_run(&document(&fork), "fork", "").await.unwrap();
    agent.until(2, 2).await;
    engine.until("fork", RunStatus::Faulted).await;
}

#[tokio::test]
async fn a_deadline_that_passed_while_the_engine_was_away() {
    let (mut engine, agent) = (engine().await, Stage::open().await);
    let limit = ", timeout: {after: {seconds: 2}}";
    engine
        .start_run(&document(&wait(&agent, "ask", limit)), "overslept", "")
        .await
        .unwrap();
    agent.until(1, 0).await;
    engine.stop().await;
    let clock = SystemClock::default();
    let start = clock.monotonic();
    wait_for("the deadline to pass", Duration::from_secs(10), async || {
        clock.monotonic().saturating_sub(start) > Duration::from_millis(2500)
    })
    .await;
    engine.launch().await;
    agent.until(1, 1).await;
    engine.until("overslept", RunStatus::Faulted).await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_after_a_restart() {
    let (mut engine, agent) = (engine().await, Stage::open().await);
    engine
        .start_run(&document(&wait(&agent, "ask", "")), "moved", "")
        .await
        .unwrap();
    agent.until(1, 0).await;
    engine.restart().await;
    // The message is sent again, under the same id: the agent is at it still, and is told to stop.
    engine.cancel("moved").await.unwrap();
    engine.until("moved", RunStatus::Cancelled).await;
    agent.until(1, 1).await;
}

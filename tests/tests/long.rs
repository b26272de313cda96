//! The long suite, run by `tests/run --long`: measurements of an idle fleet, an engine that is killed again and again under load, and a
//! registry that is away for a minute. It prints what it measured; only what must hold is asserted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_api::a2a::{Message, Part, Role, SendMessageRequest, part};
use muster_api::registry::{ListAgentsRequest, RegisterRequest};
use muster_api::workflow::{
    GetHistoryRequest, GetRunRequest, GetStatusRequest, RunStatus, StartRunRequest, start_run_request,
};
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_testkit::{FakeAgent, wait_for};
use muster_tests::{Dev, PATIENCE, Stack, muster_within};
use serde_json::Value;
use tokio::task::JoinSet;

const KILLS: usize = 25;
const RUNS: usize = 200;
const STEPS: [&str; 4] = ["first", "second", "third", "fourth"];

/// Four calls, one after the other, each of which says whose step it is.
fn document() -> String {
    let mut text =
        "document: { dsl: 1.0.0, namespace: test, name: four-steps, version: 1.0.0 }\ndo:\n".to_owned();
    for step in STEPS {
        let _infallible = write!(
            text,
            "  - {step}:\n      call: a2a\n      with:\n        server: agent://counter\n        method: SendMessage\n        \
             parameters: {{ message: {{ parts: [ {{ text: \"${{ $workflow.id + \\\" {step}\\\" }}\" }} ] }} }}\n      \
             output: {{ as: \"${{ .status.state }}\" }}\n"
        );
    }
    text
}

#[tokio::test]
async fn an_engine_killed_again_and_again_loses_no_run_and_repeats_no_recorded_step() {
    let clock = SystemClock::default();
    let mut stack = Stack::start().await;
    let agent = FakeAgent::start("counter").await;
    stack
        .registry()
        .await
        .register(RegisterRequest {
            instance: Some(agent.instance(&["count"])),
        })
        .await
        .unwrap();
    stack.knows_instances(6).await;

    agent.hold();
    let mut client = stack.engine().await;
    for number in 0..RUNS {
        let source = Some(start_run_request::Source::Document(document()));
        let request = StartRunRequest {
            run_id: format!("run-{number}"),
            source,
            input_json: String::new(),
            ..Default::default()
        };
        client.start_run(request).await.unwrap();
    }

    // Each round lets a different number of calls be answered and kills the engine with all others in flight: the
    // fake agent's calls are the clock of this test.
    let mut kills = Vec::new();
    for kill in 0..KILLS {
        let answered = 1 + (kill * 7) % 23;
        let wanted = agent.calls().len() + answered;
        agent.release(answered);
        let mut engine = stack.engine().await;
        wait_for("the calls of this round", PATIENCE, async || {
            let (calls, held) = (agent.calls().len(), agent.held());
            if calls >= wanted && held > 0 {
                return Ok(());
            }
            // A call that the dead engine left behind may have taken a ticket with it.
            agent.release(1);
            let status = engine
                .get_status(GetStatusRequest {})
                .await
                .map_err(|error| error.to_string())?;
            Err(format!(
                "kill {kill}: {calls} calls of {wanted}, {held} held; {:?}",
                status.into_inner()
            ))
        })
        .await;
        stack.kill_engine().await;
        let (at, calls) = (clock.now(), agent.calls().len());
        let before = clock.monotonic();
        stack.start_engine().await;
        kills.push((at, calls, clock.monotonic().saturating_sub(before)));
    }
    agent.release_all();

    let mut client = stack.engine().await;
    let mut recorded: BTreeMap<(String, String), jiff::Timestamp> = BTreeMap::new();
    for number in 0..RUNS {
        let run_id = format!("run-{number}");
        wait_for("a run to complete", PATIENCE, async || {
            let run = client
                .get_run(GetRunRequest {
                    run_id: run_id.clone(),
                })
                .await
                .map_err(|e| e.to_string())?;
            let run = run.into_inner().run.ok_or("no run")?;
            if run.status() == RunStatus::Completed {
                Ok(())
            } else {
                Err(format!("{:?}: {:?}", run.status(), run.error))
            }
        })
        .await;
        let request = GetHistoryRequest {
            run_id: run_id.clone(),
            page_size: 100,
            page_token: String::new(),
        };
        for event in client.get_history(request).await.unwrap().into_inner().events {
            let Some(step) = STEPS
                .iter()
                .find(|step| event.r#type == "task.completed" && event.task.ends_with(*step))
            else {
                continue;
            };
            let data: Value = serde_json::from_str(&event.data_json).unwrap();
            let time: jiff::Timestamp = data["time"].as_str().unwrap().parse().unwrap();
            let again = recorded.insert((run_id.clone(), (*step).to_owned()), time);
            assert_eq!(again, None, "{run_id} {step} was recorded twice");
        }
    }
    assert_eq!(recorded.len(), RUNS * STEPS.len());

    let calls = agent.calls();
    let mut ids: BTreeMap<&str, &str> = BTreeMap::new();
    let mut repeated = 0;
    for (index, call) in calls.iter().enumerate() {
        let (run, step) = call.text.split_once(' ').unwrap();
        let done = recorded[&(run.to_owned(), step.to_owned())];
        let killed_before = kills
            .iter()
            .filter(|(_, calls, _)| *calls <= index)
            .map(|(at, _, _)| *at)
            .max();
        if let Some(killed) = killed_before {
            assert!(
                done > killed,
                "{} was recorded at {done}, before the kill at {killed}, and called again",
                call.text
            );
        }
        match ids.insert(&call.text, &call.message_id) {
            Some(first) => {
                assert_eq!(
                    first, call.message_id,
                    "{} was sent again under another id",
                    call.text
                );
                repeated += 1;
            }
            None => continue,
        }
    }
    let mut times: Vec<f64> = kills.iter().map(|(_, _, took)| took.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    report(&format!(
        "{KILLS} kills, {RUNS} runs of {} steps: 0 lost, 0 recorded steps repeated, {repeated} steps in flight sent again \
         under the same id; from start to ready: median {:.2} s, longest {:.2} s",
        STEPS.len(),
        times[times.len() / 2],
        times[times.len() - 1]
    ));
}

/// How long a whole examination may take.
const EXAMINATION: std::time::Duration = std::time::Duration::from_secs(1_800);

#[tokio::test]
async fn a_whole_stack_passes_every_examination_of_its_readiness() {
    let finished = muster_within(EXAMINATION, &[], &["readiness", "-o", "json"]).await;
    let examined = finished.json();
    for check in examined["checks"].as_array().expect("checks") {
        let text = |name: &str| check[name].as_str().expect("a text");
        report(&format!(
            "{}: {}: {}",
            text("area"),
            text("name"),
            text("evidence")
        ));
        assert_ne!(text("outcome"), "failed", "{check:#}");
        // The long suite runs as root and with Redis: nothing of these is left out.
        if ["failover", "scaling"].contains(&text("area")) {
            assert_eq!(text("outcome"), "passed", "{check:#}");
        }
    }
    assert_eq!(finished.code, 0, "{}", finished.stderr);
}

/// Callers at once, and how long the registry is away, in seconds.
const CALLERS: usize = 8;
const OUTAGE: f64 = 60.0;

#[tokio::test]
async fn a_minute_without_the_registry_stops_no_call_and_everybody_comes_back() {
    let mut stack = Stack::start().await;
    let fleet = stack.router_status().await.unwrap().instances.len();
    let (answered, mut calls) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for caller in 0..CALLERS {
        let (mut client, answered) = (stack.agents().await, Arc::clone(&answered));
        calls.spawn(async move {
            for number in 0.. {
                let message = message("weather", &format!("{caller}-{number}"), "Seattle 2014-03-01");
                client.send_message(message).await.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let load = async || {
        let before = answered.load(Ordering::Relaxed);
        wait_for("calls to be answered", PATIENCE, async || {
            answered.load(Ordering::Relaxed) >= before + 100
        })
        .await;
    };
    load().await;
    stack.kill_registry().await;
    let before = answered.load(Ordering::Relaxed);
    wait_for("the minute to pass", PATIENCE * 2, async || {
        let status = stack.router_status().await?;
        assert_eq!(status.instances.len(), fleet, "nobody is forgotten");
        if status.view_age_seconds >= OUTAGE {
            assert!(status.view_stale);
            Ok(())
        } else {
            Err(format!("{} s", status.view_age_seconds))
        }
    })
    .await;
    load().await;
    let during = answered.load(Ordering::Relaxed) - before;
    stack.start_registry().await;
    let mut registry = stack.registry().await;
    wait_for("everybody to register again", PATIENCE * 2, async || {
        let status = stack.router_status().await?;
        assert_eq!(status.instances.len(), fleet, "nobody is forgotten");
        let listed = registry.list_agents(ListAgentsRequest::default()).await;
        let agents = listed.map_err(|error| error.to_string())?.into_inner().agents;
        let instances = agents.iter().map(|agent| agent.instances.len()).sum::<usize>();
        if instances == fleet && !status.view_stale {
            Ok(())
        } else {
            Err(format!("{instances} of {fleet}"))
        }
    })
    .await;
    load().await;
    // None of them has ended, as one does that is refused.
    assert!(calls.try_join_next().is_none());
    report(&format!(
        "registry away for {OUTAGE:.0} s under {CALLERS} callers: {during} calls answered, 0 failed, {fleet} of {fleet} agents \
         registered again by themselves"
    ));
}

fn message(target: &str, id: &str, text: &str) -> SendMessageRequest {
    SendMessageRequest {
        tenant: target.to_owned(),
        message: Some(Message {
            message_id: id.to_owned(),
            role: Role::User.into(),
            parts: vec![Part {
                content: Some(part::Content::Text(text.to_owned())),
                ..Part::default()
            }],
            ..Message::default()
        }),
        ..SendMessageRequest::default()
    }
}

#[tokio::test]
async fn an_idle_fleet_is_measured() {
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let dev = Dev::start(directory.path()).await;
        let ready = dev.ready_in_seconds();
        let resident = dev.resident_bytes();
        report(&format!(
            "muster dev: ready in {ready:.2} s, {:.0} MiB resident",
            resident as f64 / f64::from(1 << 20)
        ));
    }
}

#[expect(clippy::print_stdout, reason = "the long suite's measurements are its output")]
fn report(line: &str) {
    println!("MEASURED {line}");
}

//! SendStreamingMessage and SubscribeToTask.

use futures::future::join_all;
use hyper::Method;
use serde_json::{Value, json};

use super::{
    becomes, ended, ends_with, kind, opening, read, say, say_about, state_of, task_of, told, unique, waiting,
    with, without,
};
use crate::bench::Bench;
use crate::driver::{Binding, Events, Operation};
use crate::errors::{UNSUPPORTED_OPERATION, invalid, refused};
use crate::puppet::Persona;
use crate::webhook::Webhook;

pub async fn a_stream_is_a_task_and_its_updates(bench: &Bench) {
    let driver = bench.driver().await;
    for (text, state) in [
        ("artifact", "TASK_STATE_COMPLETED"),
        ("fail", "TASK_STATE_FAILED"),
        ("reject", "TASK_STATE_REJECTED"),
    ] {
        let mut events = driver.stream(Operation::SendStreamingMessage, say(text)).await;
        let task = opening(&mut events).await;
        assert!(task["id"].is_string() && task["contextId"].is_string(), "{task}");
        let events = events.rest().await;
        ends_with(&events, state);
        for event in &events {
            let kind = kind(event);
            assert!(
                ["statusUpdate", "artifactUpdate"].contains(&kind),
                "only updates follow the Task: {event}"
            );
            assert_eq!(
                (&event[kind]["taskId"], &event[kind]["contextId"]),
                (&task["id"], &task["contextId"]),
                "{event}"
            );
        }
        let artifacts = events.iter().filter(|event| kind(event) == "artifactUpdate");
        assert_eq!(artifacts.count() > 0, text == "artifact", "{events:?}");
    }
}

pub async fn a_stream_may_be_one_message(bench: &Bench) {
    let Some(driver) = bench.stranger_driver().await else {
        return; // The SDK answers with tasks, as it may.
    };
    let events = driver
        .stream(Operation::SendStreamingMessage, say("message"))
        .await
        .rest()
        .await;
    let kinds: Vec<&str> = events.iter().map(kind).collect();
    assert_eq!(kinds, ["message"], "{events:?}");
}

pub async fn events_are_in_order(bench: &Bench) {
    let driver = bench.driver().await;
    let name = unique("count");
    bench.signals.release(&name);
    let events = driver
        .stream(Operation::SendStreamingMessage, say(&format!("count 20 {name}")))
        .await
        .rest()
        .await;
    let expected: Vec<String> = (1..=20).map(|step| format!("step {step}")).collect();
    assert_eq!(steps(&events), expected);
}

pub async fn a_subscription_begins_with_the_task(bench: &Bench) {
    let driver = bench.driver().await;
    let (task, name) = waiting(bench, &driver).await;
    let mut events = driver
        .stream(Operation::SubscribeToTask, json!({ "id": task["id"] }))
        .await;
    let snapshot = opening(&mut events).await;
    assert_eq!(snapshot["id"], task["id"], "{snapshot}");
    bench.signals.release(&name);
    ends_with(&events.rest().await, "TASK_STATE_COMPLETED");
}

pub async fn a_subscription_outlasts_interruptions(bench: &Bench) {
    let driver = bench.driver().await;
    let task = task_of(&driver, say("ask")).await;
    let mut events = driver
        .stream(Operation::SubscribeToTask, json!({ "id": task["id"] }))
        .await;
    let snapshot = opening(&mut events).await;
    assert_eq!(state_of(&snapshot), "TASK_STATE_INPUT_REQUIRED", "{snapshot}");
    task_of(&driver, say_about(&task, "Seattle")).await;
    ends_with(&events.rest().await, "TASK_STATE_COMPLETED");
}

pub async fn a_terminal_task_has_no_subscription(bench: &Bench) {
    let driver = bench.driver().await;
    for task in ended(bench, &driver).await {
        let outcome = driver
            .first_of_stream(Operation::SubscribeToTask, json!({ "id": task["id"] }))
            .await;
        refused(outcome, UNSUPPORTED_OPERATION, state_of(&task));
    }
}

pub async fn streams_of_a_task_are_alike(bench: &Bench) {
    let driver = bench.driver().await;
    let name = unique("count");
    let mut first = driver
        .stream(Operation::SendStreamingMessage, say(&format!("count 20 {name}")))
        .await;
    let task = opening(&mut first).await;
    bench.signals.reached(&name).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut events = driver
            .stream(Operation::SubscribeToTask, json!({ "id": task["id"] }))
            .await;
        opening(&mut events).await;
        others.push(events);
    }
    bench.signals.release(&name);
    // What came before a subscription is in its snapshot: all streams are compared from the first step on.
    others.insert(0, first);
    let mut streams = join_all(others.into_iter().map(Events::rest))
        .await
        .into_iter()
        .map(from_first_step);
    let expected = streams.next().expect("the first");
    assert_eq!(steps(&expected).len(), 20);
    ends_with(&expected, "TASK_STATE_COMPLETED");
    for events in streams {
        assert!(
            events == expected,
            "a stream of {} events differs from another of {}",
            events.len(),
            expected.len()
        );
    }
}

pub async fn a_slow_stream_misses_nothing(bench: &Bench) {
    let driver = bench.driver().await;
    let name = unique("flood");
    let mut first = driver
        .stream(Operation::SendStreamingMessage, say(&format!("flood 500 {name}")))
        .await;
    let task = opening(&mut first).await;
    bench.signals.reached(&name).await;
    let mut slow = driver
        .stream(Operation::SubscribeToTask, json!({ "id": task["id"] }))
        .await;
    opening(&mut slow).await;
    bench.signals.release(&name);
    // Nobody reads the other stream until this one has ended.
    let expected = steps(&first.rest().await);
    assert_eq!(expected.len(), 500, "a stream that is not read holds up no other");
    let mut seen = Vec::new();
    while let Some(event) = slow.try_next().await {
        match event {
            Ok(event) => seen.push(event),
            // A stream may be given up, if it says that this is why; what it has given until then is complete.
            Err(refusal) => {
                let reason = refusal.info().map(|(reason, _)| reason);
                assert_eq!(reason, Some("WATCH_OVERRUN"), "{refusal}");
                let seen = steps(&seen);
                assert!(expected.starts_with(&seen), "{} events", seen.len());
                return;
            }
        }
    }
    let seen = steps(&seen);
    assert!(
        seen == expected,
        "a slow stream misses events without a word: it has {} of {}",
        seen.len(),
        expected.len()
    );
}

pub async fn a_canceled_task_ends_its_streams(bench: &Bench) {
    let driver = bench.driver().await;
    let name = unique("wait");
    let mut first = driver
        .stream(Operation::SendStreamingMessage, say(&format!("wait {name}")))
        .await;
    let task = opening(&mut first).await;
    bench.signals.reached(&name).await;
    let mut second = driver
        .stream(Operation::SubscribeToTask, json!({ "id": task["id"] }))
        .await;
    opening(&mut second).await;
    let webhook = Webhook::start().await;
    let config = json!({ "taskId": task["id"], "url": webhook.url() });
    driver.ok(Operation::CreatePush, config).await;
    let canceled = driver
        .ok(Operation::CancelTask, json!({ "id": task["id"] }))
        .await;
    for events in [first, second] {
        ends_with(&events.rest().await, "TASK_STATE_CANCELED");
    }
    webhook.told("TASK_STATE_CANCELED").await;
    // What the agent says after it is heard nowhere.
    assert_eq!(read(&driver, &task).await["status"], canceled["status"]);
    let told = webhook.deliveries();
    assert_eq!(told.len(), 1, "{told:?}");
}

pub async fn a_closed_stream_leaves_the_others(bench: &Bench) {
    let driver = bench.driver().await;
    let name = unique("count");
    let mut first = driver
        .stream(Operation::SendStreamingMessage, say(&format!("count 20 {name}")))
        .await;
    let task = opening(&mut first).await;
    bench.signals.reached(&name).await;
    let subscription = json!({ "id": task["id"] });
    let mut second = driver
        .stream(Operation::SubscribeToTask, subscription.clone())
        .await;
    opening(&mut second).await;
    let mut third = driver.stream(Operation::SubscribeToTask, subscription).await;
    opening(&mut third).await;
    // The stream that made the task, and a subscription.
    drop(first);
    drop(third);
    bench.signals.release(&name);
    let events = second.rest().await;
    assert_eq!(steps(&events).len(), 20, "{events:?}");
    ends_with(&events, "TASK_STATE_COMPLETED");
    becomes(&driver, &task, "TASK_STATE_COMPLETED").await;

    // And with nobody listening.
    let mut only = driver
        .stream(Operation::SendStreamingMessage, say(&format!("count 5 {name}")))
        .await;
    let task = opening(&mut only).await;
    bench.signals.reached(&name).await;
    drop(only);
    bench.signals.release(&name);
    becomes(&driver, &task, "TASK_STATE_COMPLETED").await;
}

pub async fn a_terminal_task_takes_no_streamed_message(bench: &Bench) {
    let driver = bench.driver().await;
    for task in ended(bench, &driver).await {
        let outcome = driver
            .first_of_stream(Operation::SendStreamingMessage, say_about(&task, "echo more"))
            .await;
        refused(outcome, UNSUPPORTED_OPERATION, state_of(&task));
    }
}

pub async fn streamed_messages_are_checked(bench: &Bench) {
    let driver = bench.driver().await;
    for (what, params) in [
        ("no messageId", without(say("echo"), "/message/messageId")),
        ("no parts", with(say("echo"), "/message/parts", json!([]))),
    ] {
        let outcome = driver
            .first_of_stream(Operation::SendStreamingMessage, params)
            .await;
        invalid(outcome, what);
    }
}

pub async fn without_streaming_it_is_refused(bench: &Bench) {
    let card = bench.card_json(Persona::Plain).await;
    assert_ne!(card["capabilities"]["streaming"], true, "{card}");
    let driver = bench.driver_of(Persona::Plain).await;
    let (task, name) = waiting(bench, &driver).await;
    for (operation, params) in [
        (Operation::SendStreamingMessage, say("echo")),
        (Operation::SubscribeToTask, json!({ "id": task["id"] })),
    ] {
        let outcome = driver.first_of_stream(operation, params).await;
        refused(outcome, UNSUPPORTED_OPERATION, operation.method());
    }
    // The answer comes as one all the same.
    bench.signals.release(&name);
    becomes(&driver, &task, "TASK_STATE_COMPLETED").await;
}

pub async fn subscribe_by_get_and_post(bench: &Bench) {
    if bench.binding != Binding::HttpJson {
        return;
    }
    let driver = bench.driver().await;
    for method in [Method::GET, Method::POST] {
        let (task, name) = waiting(bench, &driver).await;
        let id = task["id"].as_str().expect("an id");
        let subscribed = driver.subscribe_by(method.clone(), id).await;
        let mut events = subscribed.unwrap_or_else(|refusal| panic!("{method}: {refusal}"));
        opening(&mut events).await;
        bench.signals.release(&name);
        ends_with(&events.rest().await, "TASK_STATE_COMPLETED");
    }
}

/// The texts of the steps that a stream tells of.
fn steps(events: &[Value]) -> Vec<String> {
    let texts = events
        .iter()
        .filter_map(|event| event["statusUpdate"]["status"]["message"]["parts"][0]["text"].as_str());
    texts
        .filter(|text| text.starts_with("step "))
        .map(str::to_owned)
        .collect()
}

fn from_first_step(events: Vec<Value>) -> Vec<Value> {
    let is_step = |event: &Value| told(event).is_some() && !steps(std::slice::from_ref(event)).is_empty();
    events.into_iter().skip_while(|event| !is_step(event)).collect()
}

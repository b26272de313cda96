//! Events that do not fit are refused.

use std::sync::Arc;

use serde_json::json;

use super::world::definition;
use super::*;
use crate::document::Method;
use crate::journal::{Event, EventKind, FORMAT, Problem, Standard};
use crate::request::{self, Request};
use crate::run::{Run, Status, Stimulus};

fn started(tasks: &str) -> World {
    let mut world = World::with_agents(tasks, |_| Reply::Silence);
    world.decide(Stimulus::Start { input: json!([1]) });
    world
}

#[track_caller]
fn refused(world: &mut World, kind: EventKind, expected: &str) {
    let event = Event {
        index: world.run.next_index(),
        time: world.now,
        kind,
    };
    let before = (world.run.effects(), world.run.next_index());
    let error = world.run.apply(&event).expect_err(expected).to_string();
    assert!(error.contains(expected), "{error}");
    assert_eq!(
        (world.run.effects(), world.run.next_index()),
        before,
        "nothing has changed"
    );
}

#[test]
fn events_out_of_order_are_refused() {
    let mut world = started("do:\n  - nap: {wait: PT1H}\n");
    let mut repeated = world.journal[0].clone();
    assert!(
        world
            .run
            .apply(&repeated)
            .unwrap_err()
            .to_string()
            .contains("has index 0")
    );
    repeated.index = world.run.next_index();
    assert!(
        world
            .run
            .apply(&repeated)
            .unwrap_err()
            .to_string()
            .contains("cannot follow")
    );
    let mut fresh = Run::new("run-1", definition("do:\n  - nap: {wait: PT1H}\n"));
    let mut late = world.journal[1].clone();
    late.index = 0;
    assert!(
        fresh
            .apply(&late)
            .unwrap_err()
            .to_string()
            .contains("cannot follow while the run is Pending")
    );
    let mut newer = world.journal[0].clone();
    if let EventKind::RunStarted { format, .. } = &mut newer.kind {
        *format = FORMAT + 1;
    }
    assert!(
        fresh
            .apply(&newer)
            .unwrap_err()
            .to_string()
            .contains("has format")
    );
    assert_eq!(fresh.status(), Status::Pending);
}

#[test]
fn events_about_what_is_not_there_are_refused() {
    let mut world = started(
        "
        do:
          - each:
              for: {each: n, in: .}
              do: [{nap: {wait: PT1H}}]
        ",
    );
    let each: Arc<str> = "/do/0/each".into();
    let nap: Arc<str> = "/do/0/each/do/0/nap".into();
    let error = Problem::standard(Standard::Runtime, "x");
    for (kind, expected) in [
        (
            EventKind::TaskFaulted {
                task: nap.clone(),
                activation: 9,
                error: error.clone(),
            },
            "not in progress",
        ),
        (
            EventKind::TaskFaulted {
                task: each.clone(),
                activation: 1,
                error: error.clone(),
            },
            "not in progress",
        ),
        (
            EventKind::TaskSkipped {
                task: nap.clone(),
                parent: Some(0),
            },
            "not what is to be started",
        ),
        (
            EventKind::TaskSkipped {
                task: each.clone(),
                parent: None,
            },
            "not what is to be started",
        ),
        (
            EventKind::IterationStarted {
                task: each.clone(),
                activation: 0,
                iteration: 1,
            },
            "out of turn",
        ),
        (
            EventKind::LoopStarted {
                task: each.clone(),
                activation: 0,
                items: json!([1]).into(),
            },
            "not at that point",
        ),
        (
            EventKind::TaskRetried {
                task: each.clone(),
                activation: 0,
                attempt: 2,
                due: world.now,
                attempt_deadline: None,
                error: error.clone(),
            },
            "no error to handle",
        ),
        (
            EventKind::TaskCaught {
                task: each.clone(),
                activation: 0,
                error,
            },
            "no error to handle",
        ),
        (
            EventKind::TaskCompleted {
                task: each.clone(),
                activation: 0,
                output: None,
                context: None,
                case: None,
            },
            "no output yet",
        ),
        (
            EventKind::TaskCompleted {
                task: nap,
                activation: 1,
                output: None,
                context: None,
                case: Some("x".into()),
            },
            "no switch",
        ),
        (EventKind::RunCompleted { output: None }, "have not ended"),
        (
            EventKind::CallStarted {
                task: each,
                activation: 0,
                request: Request::A2a(request::A2a {
                    endpoint: "agent://a".parse().unwrap(),
                    card: false,
                    authentication: None,
                    events: false,
                    method: Method::GetTask,
                    parameters: json!({}).into(),
                }),
            },
            "not at that point",
        ),
    ] {
        refused(&mut world, kind, expected);
    }
}

#[test]
fn a_journal_of_another_document_is_refused() {
    let world = World::new("do:\n  - a: {set: {x: 1}}\n  - b: {wait: PT1S}\n").run(json!(null));
    let mut other = Run::new(
        "run-1",
        definition("do:\n  - a: {set: {x: 1}}\n  - c: {wait: PT1S}\n"),
    );
    let outcome = world.journal.iter().try_for_each(|event| other.apply(event));
    assert!(outcome.unwrap_err().to_string().contains("/do/1/b"));
}

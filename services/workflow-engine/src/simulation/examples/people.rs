//! The people around an example. They do one thing after the other, each until it is acknowledged, over all lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_runtime::clock::Clock as _;
use muster_workflow_dsl::journal::{Event, EventKind, Verdict};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::clock::Virtual;
use super::super::witness::Invariant;
use super::super::world::World;
use super::Example;
use super::fates::Fate;
use super::mishap::Mishap;
use crate::approval::Filter;
use crate::controls::Wish;
use crate::driver;
use crate::engine::{Engine, Source, StartRun};
use crate::error::Error;
use crate::life;
use crate::run::RunId;
use crate::store::memory::State;

/// How long people wait before they do the next thing, and before they ask again.
const PAUSE: Duration = Duration::from_secs(1);

/// The run that people start.
const ID: &str = "whole";

/// See the module.
pub(crate) struct People {
    script: Vec<Act>,
    /// How many of them are done.
    done: Mutex<usize>,
    /// Why the document was refused.
    refusal: Mutex<Option<String>>,
    /// What they say when they are asked, if anything.
    verdict: Option<bool>,
    /// Name of the document whose run is what it is all about.
    name: String,
}

/// Something that people do.
enum Act {
    Apply(String),
    Start(String, Value),
    Publish(Value),
    /// Waits until the task with this name has completed, or the run has ended.
    AwaitTask(&'static str),
    Cancel,
}

impl People {
    /// Those of an example, as its fate has it.
    pub(crate) fn of(example: &Example, mishap: &Mishap) -> Self {
        let document = &example.document;
        let mut script: Vec<Act> = example
            .catalogue
            .iter()
            .map(|document| Act::Apply(mishap.applied(document)))
            .collect();
        let start = |input: &Value| Act::Start(document.clone(), input.clone());
        match &example.fate {
            Fate::Completes(input, _) | Fate::Faults(input, ..) => script.push(start(input)),
            Fate::Emits(..) | Fate::Refused(_) => script.push(start(&Value::Null)),
            Fate::Hears(input, events, ..) => {
                script.push(start(input));
                let events = events.iter().enumerate();
                script.extend(events.map(|(number, (kind, data))| Act::Publish(event(number, kind, data))));
            }
            Fate::Starts(kind, data, ..) => {
                script.push(Act::Apply(document.clone()));
                script.push(Act::Publish(event(0, kind, data)));
            }
            Fate::Listens(kind, data) => {
                script.push(start(&Value::Null));
                script.push(Act::Publish(event(0, kind, data)));
                script.extend([Act::AwaitTask("post"), Act::Cancel]);
            }
            Fate::Triggers(_) => script.push(Act::Apply(document.clone())),
        }
        let verdict = match mishap {
            Mishap::Rejected => Some(false),
            Mishap::LeftToTime => None,
            _ => Some(true),
        };
        Self {
            script,
            done: Mutex::default(),
            refusal: Mutex::default(),
            verdict,
            name: example.workflow().to_owned(),
        }
    }

    pub(crate) fn refusal(&self) -> Option<String> {
        self.refusal.lock().clone()
    }

    /// Whether everything has ended that was to begin, which a schedule or an event may have to do first.
    fn are_content(&self, state: &State) -> bool {
        let mut names = state.runs.values().map(|run| &run.summary.name);
        let has_begun = self.refusal.lock().is_some() || names.any(|name| *name == self.name);
        has_begun && state.is_at_rest()
    }
}

/// With an id, so that one that was not acknowledged may be published again.
fn event(number: usize, kind: &str, data: &Value) -> Value {
    let source = "https://library.test/sensors";
    let mut event = json!({"id": format!("event-{number}"), "source": source, "type": kind, "data": data});
    if let Some(room) = data.get("room") {
        event["room"] = json!(room.to_string());
    }
    event
}

/// The engine's life, and what people do in it, until there is nothing more to do.
pub(crate) async fn work(world: &World, people: &People, engine: &Arc<Engine>, clock: Virtual) {
    while let Err(error) = driver::recover(engine).await {
        world.witness.note(clock.now(), &format!("recovery: {error}"));
        tokio::time::sleep(PAUSE).await;
    }
    life::begin(engine);
    let all = async {
        let done = *people.done.lock();
        for act in people.script.iter().skip(done) {
            while let Err(error) = act_on(world, people, engine, clock, act).await {
                if !asks_again(&error) {
                    let invariant = Invariant::RequestsAreTaken;
                    world.witness.accuse(clock.now(), invariant, error.to_string());
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
            *people.done.lock() += 1;
            tokio::time::sleep(PAUSE).await;
        }
        let mut news = world.witness.follow();
        while !world.memory.with(|state| people.are_content(state)) {
            news.changed().await;
        }
        // What is told only once a run has ended has its moment.
        tokio::time::sleep(PAUSE).await;
    };
    tokio::select! {
        biased;
        () = decide(world, people, engine) => {}
        () = all => {}
    }
}

/// Whether a refusal is one after which people ask again.
fn asks_again(error: &Error) -> bool {
    matches!(error, Error::Store(_) | Error::ShuttingDown | Error::Defect(_))
}

async fn act_on(
    world: &World,
    people: &People,
    engine: &Arc<Engine>,
    clock: Virtual,
    act: &Act,
) -> Result<(), Error> {
    let id: RunId = ID.parse().unwrap();
    match act {
        Act::Apply(document) => {
            engine.apply(document).await?;
        }
        Act::Start(document, input) => {
            let start = StartRun {
                id: Some(id),
                source: Source::Document(document.clone()),
                input: input.clone(),
                priority: None,
                labels: BTreeMap::new(),
                hears_from: None,
                origin: None,
                caller: None,
            };
            match engine.start(start).await {
                Ok(view) => world.witness.acknowledged(clock.now(), &view.summary),
                Err(Error::InvalidWorkflow(problems)) => {
                    *people.refusal.lock() = Some(problems.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Act::Publish(event) => {
            let complete = engine.events.complete(event.clone());
            let complete = complete.map_err(|what| Error::field("events", what))?;
            engine.events.publish(vec![complete]).await?;
            let id = event["id"].as_str().unwrap().to_owned();
            world.witness.published(clock.now(), id);
        }
        Act::AwaitTask(name) => {
            let mut news = world.witness.follow();
            while !world.memory.with(|state| has_completed(state, &id, name)) {
                news.changed().await;
            }
        }
        Act::Cancel => {
            let wish = Wish {
                by: "ada".to_owned(),
                reason: String::new(),
            };
            match engine.cancel(&id, wish).await {
                Ok(view) => world.witness.acknowledged(clock.now(), &view.summary),
                // Too late, which is nobody's fault.
                Err(Error::RunEnded { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Whether a task with this name has completed, or the run has ended.
fn has_completed(state: &State, run: &RunId, name: &str) -> bool {
    let Some(run) = state.runs.get(run) else {
        return false;
    };
    let mut entries = run
        .entries
        .iter()
        .map(|bytes| serde_json::from_slice::<Event>(bytes).unwrap().kind);
    run.summary.status.is_final()
        || entries.any(|kind| {
            matches!(kind, EventKind::TaskCompleted { task, .. } if task.rsplit('/').next() == Some(name))
        })
}

/// People decide what they are asked, or never do.
async fn decide(world: &World, people: &People, engine: &Arc<Engine>) {
    let mut news = world.witness.follow();
    loop {
        news.catch_up();
        if let Some(approved) = people.verdict {
            let listed = engine.approvals(&Filter::default(), 100, "").await;
            for approval in listed.map(|(approvals, _)| approvals).unwrap_or_default() {
                let verdict = Verdict {
                    approved,
                    by: "ada".to_owned(),
                    comment: String::new(),
                    raise: None,
                };
                // One that is not taken is still open, and found again.
                let _ = engine.decide(&approval.id, verdict).await;
            }
        }
        news.changed().await;
    }
}

//! The people around engines.
//!
//! They go on over all lives: what was not acknowledged in one is asked for again in the next, or of another engine, as the
//! engine's contract allows.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use muster_runtime::clock::Clock as _;
use muster_workflow_dsl::document;
use muster_workflow_dsl::journal::Verdict;
use serde_json::json;

use super::chance::decided;
use super::clock::Virtual;
use super::plan::{Act, Named, NamedAct, Planned};
use super::witness::Invariant;
use super::world::{Progress, World, epoch};
use crate::approval;
use crate::controls::Wish;
use crate::engine::{Engine, Source, StartRun};
use crate::error::Error;
use crate::executor::sleep_until;
use crate::run::RunId;
use crate::timetable::{Name, Schedule, TriggerRun};

/// How long people wait before they ask again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How long they wait for an answer of one of several engines.
const ANSWER: Duration = Duration::from_secs(15);

/// Between two looks for an engine that answers.
const LOOK: Duration = Duration::from_millis(200);

/// Where people ask.
pub(crate) enum Desk {
    /// The one engine that there is.
    Of(Arc<Engine>),
    /// Whichever of several works on what they ask about.
    OfMany,
}

impl Desk {
    /// Who works on it.
    async fn engine(&self, world: &World, is_here: impl Fn(&Engine) -> bool) -> Arc<Engine> {
        match self {
            Self::Of(engine) => Arc::clone(engine),
            Self::OfMany => loop {
                let here = {
                    let living = world.living.lock();
                    let mut here = living
                        .values()
                        .filter(|living| living.seat.gate.runs() && is_here(&living.engine));
                    here.next().map(|living| Arc::clone(&living.engine))
                };
                match here {
                    Some(engine) => return engine,
                    None => tokio::time::sleep(LOOK).await,
                }
            },
        }
    }

    async fn of_run(&self, world: &World, run: &RunId) -> Arc<Engine> {
        self.engine(world, |engine| engine.placement.is_here(run)).await
    }

    async fn of_name(&self, world: &World, name: &Name) -> Arc<Engine> {
        let is_here = |engine: &Engine| engine.placement.is_name_here(&name.namespace, &name.name);
        self.engine(world, is_here).await
    }

    /// What comes of a request. One that is frozen or dead says nothing.
    async fn answer<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self {
            Self::Of(_) => request.await,
            Self::OfMany => tokio::time::timeout(ANSWER, request)
                .await
                .unwrap_or(Err(Error::ShuttingDown)),
        }
    }
}

/// Lives until there is nothing more to do.
pub(crate) async fn live(world: &World, desk: &Desk, clock: Virtual) {
    let applied = world.progress.lock().applied;
    for document in world.plan.catalogue.iter().skip(applied) {
        loop {
            let engine = desk.engine(world, |_| true).await;
            match desk.answer(engine.apply(document)).await {
                Ok(_) => break,
                Err(error) if ask_again(world, &error, clock.now()) => tokio::time::sleep(PATIENCE).await,
                Err(_) => return,
            }
        }
        world.progress.lock().applied += 1;
    }
    let runs = world.plan.runs.iter().enumerate();
    let mut runs: FuturesUnordered<_> = runs
        .map(|(index, run)| follow_script(world, desk, clock, index, run))
        .collect();
    let names = world.plan.names.iter().enumerate();
    let mut names: FuturesUnordered<_> = names
        .map(|(index, named)| follow_name(world, desk, clock, index, named))
        .collect();
    let all = async {
        join(async { while runs.next().await.is_some() {} }, async {
            while names.next().await.is_some() {}
        })
        .await;
        let mut news = world.witness.follow();
        while !world.memory.with(|state| state.is_at_rest()) {
            news.changed().await;
        }
        // What is told only once a run has ended has its moment.
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        biased;
        () = decide(world, desk, clock) => {}
        () = all => {}
    }
}

/// Whether a refusal is one after which people ask again.
fn ask_again(world: &World, error: &Error, now: Timestamp) -> bool {
    let again = matches!(
        error,
        Error::Store(_)
            | Error::ShuttingDown
            | Error::Defect(_)
            | Error::TooManyRuns(_)
            | Error::SetAside { .. }
            | Error::NotOwner { .. }
    );
    match again {
        true => world.witness.note(now, &format!("asks again: {error}")),
        false => world
            .witness
            .accuse(now, Invariant::RequestsAreTaken, error.to_string()),
    }
    again
}

/// Does one thing after the other when its time comes, each until it is acknowledged; `done`: how many were before, and where
/// that is kept.
async fn follow<A>(
    world: &World,
    clock: Virtual,
    acts: &[(Duration, A)],
    done: impl Fn(&mut Progress) -> Option<&mut usize>,
    act_on: impl AsyncFn(&A) -> Result<(), Error>,
) {
    let before = done(&mut world.progress.lock()).copied().unwrap_or_default();
    for (at, act) in acts.iter().skip(before) {
        sleep_until(&clock, epoch() + *at).await;
        while let Err(error) = act_on(act).await {
            if !ask_again(world, &error, clock.now()) {
                return;
            }
            tokio::time::sleep(PATIENCE).await;
        }
        if let Some(done) = done(&mut world.progress.lock()) {
            *done += 1;
        }
    }
}

async fn follow_script(world: &World, desk: &Desk, clock: Virtual, index: usize, run: &Planned) {
    let act_on = async |act: &Act| act_on(world, desk, clock, run, act).await;
    follow(
        world,
        clock,
        &run.acts,
        |progress| progress.acts.get_mut(index),
        act_on,
    )
    .await;
}

fn wish() -> Wish {
    Wish {
        by: "ada".to_owned(),
        reason: String::new(),
    }
}

async fn act_on(world: &World, desk: &Desk, clock: Virtual, run: &Planned, act: &Act) -> Result<(), Error> {
    let engine = desk.of_run(world, &run.id).await;
    let answer = async {
        match act {
            Act::Start => {
                let start = StartRun {
                    id: Some(run.id.clone()),
                    source: Source::Document(run.document.clone()),
                    input: run.input.clone(),
                    priority: None,
                    labels: std::collections::BTreeMap::new(),
                    hears_from: None,
                    origin: None,
                    caller: None,
                };
                engine.start(start).await.map(Some)
            }
            Act::Publish(kind) => {
                publish(world, &engine, clock, kind, format!("{kind} for {}", run.id)).await?;
                Ok(None)
            }
            Act::Pause => engine.pause(&run.id, wish()).await.map(Some),
            Act::Resume => engine.resume(&run.id, wish()).await.map(Some),
            Act::Cancel => engine.cancel(&run.id, wish()).await.map(Some),
            Act::Retry => engine.retry(&run.id, String::new(), wish()).await.map(Some),
        }
    };
    match desk.answer(answer).await {
        Ok(view) => {
            if let Some(view) = view {
                world.witness.acknowledged(clock.now(), &view.summary);
            }
            Ok(())
        }
        // Too late, which is nobody's fault; or too early for another attempt.
        Err(Error::RunEnded { .. } | Error::NotRetryable { .. } | Error::RunActive { .. }) => Ok(()),
        // Asked again it would say the same.
        Err(Error::Defect(what)) if *act == Act::Retry => {
            world
                .witness
                .accuse(clock.now(), Invariant::RequestsAreTaken, what);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn publish(
    world: &World,
    engine: &Arc<Engine>,
    clock: Virtual,
    kind: &str,
    id: String,
) -> Result<(), Error> {
    let event = json!({"id": id, "source": "/people", "type": kind, "data": 1});
    let event = engine
        .events
        .complete(event)
        .map_err(|what| Error::field("events", what))?;
    engine.events.publish(vec![event]).await?;
    world.witness.published(clock.now(), id);
    Ok(())
}

async fn follow_name(world: &World, desk: &Desk, clock: Virtual, index: usize, named: &Named) {
    let act_on = async |act: &NamedAct| act_on_name(world, desk, clock, named, act).await;
    follow(
        world,
        clock,
        &named.acts,
        |progress| progress.named.get_mut(index),
        act_on,
    )
    .await;
}

async fn act_on_name(
    world: &World,
    desk: &Desk,
    clock: Virtual,
    named: &Named,
    act: &NamedAct,
) -> Result<(), Error> {
    let name = &named.name;
    if let NamedAct::Trigger(id) = act {
        let engine = desk.of_run(world, id).await;
        let wish = TriggerRun {
            name: name.clone(),
            id: Some(id.clone()),
            input: None,
        };
        let run = desk.answer(engine.trigger_schedule(wish)).await?;
        world.witness.acknowledged(clock.now(), &run);
        return Ok(());
    }
    let engine = desk.of_name(world, name).await;
    let answer = async {
        match act {
            NamedAct::Apply(document) => {
                engine.apply(document).await?;
                let what = format!("applied {name}");
                world.witness.note(clock.now(), &what);
            }
            NamedAct::Publish { kind, id } => publish(world, &engine, clock, kind, id.clone()).await?,
            NamedAct::Pause => {
                engine.pause_schedule(name, String::new()).await?;
            }
            NamedAct::Resume => {
                engine.resume_schedule(name).await?;
            }
            NamedAct::Trigger(_) => {}
            NamedAct::End(document) => {
                for (_, act) in &named.acts {
                    if let NamedAct::Publish { id, .. } = act
                        && !world.witness.has_started(id)
                    {
                        return Err(Error::ShuttingDown);
                    }
                }
                check_instants(world, &engine, clock, named).await?;
                engine.apply(document).await?;
            }
        }
        Ok(())
    };
    desk.answer(answer).await
}

/// Once a schedule has caught up, each of its instants has its run.
async fn check_instants(world: &World, engine: &Engine, clock: Virtual, named: &Named) -> Result<(), Error> {
    /// More than there are in a plan.
    const MOST: usize = 100;
    let Ok(Schedule {
        rule, anchor, next, ..
    }) = engine.schedule(&named.name).await
    else {
        return Ok(());
    };
    let was_held = named.acts.iter().any(|(_, act)| *act == NamedAct::Pause);
    let Some(next) = next.filter(|_| !was_held && !matches!(rule, document::Schedule::After(_))) else {
        return Ok(());
    };
    if next <= clock.now() {
        return Err(Error::ShuttingDown);
    }
    let instants = std::iter::successors(rule.next(anchor, anchor), |last| rule.next(anchor, *last));
    let past: Vec<Timestamp> = instants
        .take_while(|instant| *instant < next)
        .take(MOST)
        .collect();
    world.witness.covered(clock.now(), &named.name, &past);
    Ok(())
}

/// People decide what they are asked, and leave some of it to time.
async fn decide(world: &World, desk: &Desk, clock: Virtual) {
    let mut news = world.witness.follow();
    loop {
        news.catch_up();
        let engine = desk.engine(world, |_| true).await;
        let filter = approval::Filter::default();
        let listed = desk.answer(engine.approvals(&filter, 100, "")).await;
        let mut again = listed.is_err();
        for approval in listed.map(|(approvals, _)| approvals).unwrap_or_default() {
            let chosen = decided(world.plan.seed, &[&"approval", &approval.id.run, &approval.task]);
            if chosen.is_multiple_of(6) {
                continue;
            }
            let verdict = Verdict {
                approved: chosen % 6 > 1,
                by: "ada".to_owned(),
                comment: String::new(),
                raise: None,
            };
            tokio::time::sleep(Duration::from_millis(chosen / 6 % 5_000)).await;
            let engine = desk.of_run(world, &approval.id.run).await;
            match desk.answer(engine.decide(&approval.id, verdict)).await {
                Ok(approval) => {
                    let what = format!("decided {} {}", approval.id, approval.state.name());
                    world.witness.note(clock.now(), &what);
                }
                Err(Error::ApprovalClosed { .. }) => {}
                Err(_) => again = true,
            }
        }
        if again {
            tokio::time::sleep(PATIENCE).await;
        } else {
            news.changed().await;
        }
    }
}

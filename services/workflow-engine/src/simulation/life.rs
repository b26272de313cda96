//! One life of the engine after the other, and the people around it.
//!
//! People go on over all lives: what was not acknowledged in one is asked for again in the next, as the engine's contract
//! allows.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use muster_runtime::clock::Clock as _;
use muster_runtime::{Metrics, Shutdown, Tasks};
use muster_workflow_dsl::journal::Verdict;
use serde_json::json;

use super::agents::Agents;
use super::chance::{Seeded, decided};
use super::clock::Virtual;
use super::disk::Disk;
use super::plan::{Act, End, Life, Planned};
use super::sabotage::Sabotage;
use super::witness::Invariant;
use super::world::{World, epoch};
use crate::caller::web::Web;
use crate::config;
use crate::controls::Wish;
use crate::definitions::Definitions;
use crate::driver;
use crate::engine::{Engine, Parts, Source, StartRun};
use crate::error::Error;
use crate::events::Events;
use crate::executor::sleep_until;
use crate::life;
use crate::metrics::DEFINITIONS;
use crate::off_thread::Inline;
use crate::outbound::Outbound;
use crate::secrets::Secrets;

/// By then everything has ended, or never will.
const HORIZON: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// How long people wait before they ask again.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an engine that is asked to stop may take.
const DRAIN: Duration = Duration::from_secs(30);

/// Lives until all work is done, or a promise is broken.
pub(crate) fn live_on(world: &Arc<World>, outbound: &Outbound) {
    let last = Life {
        end: End::Done,
        after: Duration::ZERO,
    };
    let definitions = Arc::new(Definitions::new(settings(world).workflow_timeout()));
    for (number, life) in world.plan.lives.iter().chain([&last]).enumerate() {
        live(world, outbound, &definitions, number, *life);
        let now = world.progress.lock().now;
        world.memory.with(|state| world.witness.verify(now, state));
        if world.witness.is_violated() {
            return;
        }
    }
}

fn live(world: &Arc<World>, outbound: &Outbound, definitions: &Arc<Definitions>, number: usize, life: Life) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let (Ok(runtime), Ok(metrics)) = (runtime, Metrics::new(DEFINITIONS)) else {
        return;
    };
    let _inline = Inline::begin();
    let begin = world.progress.lock().now;
    let end = runtime.block_on(async {
        let clock = Virtual::showing(begin);
        world.witness.begin_life(clock.now(), number);
        let disk = Disk::new(
            Arc::clone(world),
            clock,
            Arc::clone(definitions),
            number,
            life.end,
        );
        let disk = Arc::new(disk);
        let engine = engine(world, &disk, clock, outbound, metrics, number);
        tokio::select! {
            biased;
            () = violated(world) => {}
            () = disk.over() => {}
            () = instant(life.end) => stop(&engine, life.end).await,
            () = work(world, &engine, clock) => {}
            () = tokio::time::sleep(HORIZON) => tell_stuck(world, &engine, clock.now()).await,
        }
        disk.lose();
        clock.now()
    });
    drop(runtime);
    world.progress.lock().now = end + life.after;
}

fn settings(world: &World) -> config::Engine {
    let extra = |sabotage| usize::from(world.is_sabotaged(sabotage));
    let share = config::Namespace {
        max_concurrent_workflows: world.plan.share + extra(Sabotage::MiscountsNamespace),
        ..config::Namespace::default()
    };
    config::Engine {
        max_concurrent_workflows: world.plan.slots + extra(Sabotage::MiscountsSlots),
        namespaces: [("b".to_owned(), share)].into(),
        workflow_timeout_seconds: 30 * 24 * 60 * 60,
        call_timeout_seconds: 60,
        // Runs are short, and are to be put away and taken up all the same.
        snapshot_entries: 1 + world.plan.seed % 4,
        history_entries: 4 + world.plan.seed % 16,
        ..config::Engine::default()
    }
}

fn engine(
    world: &Arc<World>,
    disk: &Arc<Disk>,
    clock: Virtual,
    outbound: &Outbound,
    metrics: Metrics,
    life: usize,
) -> Arc<Engine> {
    let settings = settings(world);
    let shutdown = Shutdown::new();
    let tasks = Tasks::unsupervised(shutdown.clone());
    let secrets = Arc::new(Secrets::new(settings.secrets.clone()));
    let skew = if world.is_sabotaged(Sabotage::HurriesTimers) {
        SignedDuration::from_secs(1)
    } else {
        SignedDuration::ZERO
    };
    let shown: Arc<Virtual> = Arc::new(clock.wrong_by(skew));
    let events = Arc::new(Events::new(
        Arc::clone(disk) as _,
        Arc::clone(&shown) as _,
        settings.events.clone(),
        tasks.clone(),
        shutdown.clone(),
    ));
    let agents = Agents::new(Arc::clone(world), clock, life, Arc::clone(&events));
    let web = Web::new(
        outbound.clone(),
        Arc::clone(&secrets),
        Arc::clone(&shown) as _,
        &settings,
    );
    Arc::new(Engine::new(Parts {
        store: Arc::clone(disk) as _,
        placement: crate::placement::Placement::alone(),
        events,
        caller: Arc::new(agents),
        clock: shown,
        random: Arc::new(Seeded::new(world.plan.seed, life)),
        settings,
        secrets,
        web: Arc::new(web),
        metrics,
        tasks,
        shutdown,
    }))
}

/// Resolves when a promise is broken.
async fn violated(world: &World) {
    let mut news = world.witness.follow();
    while !world.witness.is_violated() {
        news.changed().await;
    }
}

/// Resolves at the instant at which a life ends, if it ends at one.
async fn instant(end: End) {
    match end {
        End::Killed(time) | End::Stopped(time) => tokio::time::sleep(time).await,
        _ => std::future::pending().await,
    }
}

/// Ends a life at its instant.
async fn stop(engine: &Engine, end: End) {
    if matches!(end, End::Stopped(_)) {
        engine.shutdown.trigger();
        engine.tasks.idle(DRAIN).await;
    }
}

/// The runs that have not ended by now never will.
async fn tell_stuck(world: &World, engine: &Engine, now: Timestamp) {
    let unfinished = world.memory.with(|state| {
        let runs = state.runs.values().map(|run| &run.summary);
        let open = runs.filter(|run| !run.status.is_final());
        open.map(|run| (run.id.clone(), run.status)).next()
    });
    let detail = match unfinished {
        Some((id, status)) => {
            let place = engine.floor.place(&id);
            let view = engine.get(&id).await.map(|view| view.activity);
            format!(
                "run {id} is {} and does not end: {place:?} {view:?}",
                status.name()
            )
        }
        None => "people wait for what does not come".to_owned(),
    };
    world.witness.accuse(now, Invariant::RunsEnd, detail);
}

/// The engine's life, and what people do in it; until there is nothing more to do.
async fn work(world: &Arc<World>, engine: &Arc<Engine>, clock: Virtual) {
    while let Err(error) = driver::recover(engine).await {
        world.witness.note(clock.now(), &format!("recovery: {error}"));
        tokio::time::sleep(PATIENCE).await;
    }
    life::begin(engine);
    let applied = world.progress.lock().applied;
    for document in world.plan.catalogue.iter().skip(applied) {
        while let Err(error) = engine.apply(document).await {
            if !ask_again(world, &error, clock.now()) {
                return;
            }
            tokio::time::sleep(PATIENCE).await;
        }
        world.progress.lock().applied += 1;
    }
    let scripts = world.plan.runs.iter().enumerate();
    let mut scripts: FuturesUnordered<_> = scripts
        .map(|(index, run)| follow_script(world, engine, clock, index, run))
        .collect();
    let all = async {
        while scripts.next().await.is_some() {}
        let mut news = world.witness.follow();
        while !world.memory.with(|state| state.is_at_rest()) {
            news.changed().await;
        }
        // What is told only once a run has ended has its moment.
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        biased;
        () = decide(world, engine, clock) => {}
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
    );
    if !again {
        world
            .witness
            .accuse(now, Invariant::RequestsAreTaken, error.to_string());
    }
    again
}

async fn follow_script(world: &World, engine: &Arc<Engine>, clock: Virtual, index: usize, run: &Planned) {
    let done = world.progress.lock().acts.get(index).copied().unwrap_or_default();
    for (at, act) in run.acts.iter().skip(done) {
        sleep_until(&clock, epoch() + *at).await;
        while let Err(error) = act_on(world, engine, clock, run, act).await {
            if !ask_again(world, &error, clock.now()) {
                return;
            }
            tokio::time::sleep(PATIENCE).await;
        }
        if let Some(done) = world.progress.lock().acts.get_mut(index) {
            *done += 1;
        }
    }
}

async fn act_on(
    world: &World,
    engine: &Arc<Engine>,
    clock: Virtual,
    run: &Planned,
    act: &Act,
) -> Result<(), Error> {
    let wish = || Wish {
        by: "ada".to_owned(),
        reason: String::new(),
    };
    let view = match act {
        Act::Start => {
            let start = StartRun {
                id: Some(run.id.clone()),
                source: Source::Document(run.document.clone()),
                input: run.input.clone(),
                priority: None,
                labels: std::collections::BTreeMap::new(),
                hears_from: None,
                origin: None,
            };
            engine.start(start).await
        }
        Act::Publish(kind) => {
            let id = format!("{kind} for {}", run.id);
            let event = json!({"id": id, "source": "/people", "type": kind, "data": 1});
            let event = engine
                .events
                .complete(event)
                .map_err(|what| Error::field("events", what))?;
            engine.events.publish(vec![event]).await?;
            world.witness.published(clock.now(), id);
            return Ok(());
        }
        Act::Pause => engine.pause(&run.id, wish()).await,
        Act::Resume => engine.resume(&run.id, wish()).await,
        Act::Cancel => engine.cancel(&run.id, wish()).await,
    };
    match view {
        Ok(view) => {
            world.witness.acknowledged(clock.now(), &view.summary);
            Ok(())
        }
        // Too late, which is nobody's fault.
        Err(Error::RunEnded { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// People decide what they are asked, and leave some of it to time.
async fn decide(world: &World, engine: &Arc<Engine>, clock: Virtual) {
    let mut news = world.witness.follow();
    loop {
        news.catch_up();
        let listed = engine
            .approvals(&crate::approval::Filter::default(), 100, "")
            .await;
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
            match engine.decide(&approval.id, verdict).await {
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

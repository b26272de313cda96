//! One life of an engine after the other, of one that is alone with its store. Each is a runtime of its own, which is dropped
//! with everything in it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_runtime::clock::Clock as _;
use muster_runtime::{Metrics, Shutdown, Tasks};
use tokio::runtime::Runtime;

use super::agents::Agents;
use super::chance::Seeded;
use super::clock::Virtual;
use super::disk::Disk;
use super::people::{self, Desk, PATIENCE};
use super::plan::{End, Life};
use super::sabotage::Sabotage;
use super::shared::Seat;
use super::together;
use super::witness::Invariant;
use super::world::World;
use crate::caller::Caller;
use crate::caller::web::Web;
use crate::config;
use crate::definitions::Definitions;
use crate::driver;
use crate::engine::{Engine, Parts};
use crate::events::Events;
use crate::life;
use crate::metrics::DEFINITIONS;
use crate::off_thread::Inline;
use crate::outbound::Outbound;
use crate::placement::Placement;
use crate::secrets::Secrets;

/// By then everything has ended, or never will.
const HORIZON: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// How long an engine that is asked to stop may take.
const DRAIN: Duration = Duration::from_secs(30);

/// Lives until all work is done, or a promise is broken.
pub(crate) fn live_on(world: &Arc<World>, outbound: &Outbound) {
    if !world.plan.engines.is_empty() {
        together::live(world, outbound);
        return;
    }
    let last = Life {
        end: End::Done,
        after: Duration::ZERO,
    };
    let definitions = definitions(world);
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
    let Some(runtime) = runtime() else { return };
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
            None,
        );
        let disk = Arc::new(disk);
        let agents = Around {
            outbound,
            placement: Placement::alone(),
            seat: None,
        };
        let Some(engine) = engine(world, &disk, clock, number, agents) else {
            return clock.now();
        };
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

/// A thread of its own time.
pub(crate) fn runtime() -> Option<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().ok()
}

pub(crate) fn definitions(world: &World) -> Arc<Definitions> {
    Arc::new(Definitions::new(settings(world).workflow_timeout()))
}

pub(crate) fn settings(world: &World) -> config::Engine {
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

/// How an engine reaches what is outside of it.
pub(crate) struct Around<'a> {
    pub(crate) outbound: &'a Outbound,
    pub(crate) placement: Placement,
    /// Where it shares a store.
    pub(crate) seat: Option<Arc<Seat>>,
}

/// None: this build cannot make one.
pub(crate) fn engine(
    world: &Arc<World>,
    disk: &Arc<Disk>,
    clock: Virtual,
    life: usize,
    around: Around<'_>,
) -> Option<Arc<Engine>> {
    let skew = if world.is_sabotaged(Sabotage::HurriesTimers) {
        SignedDuration::from_secs(1)
    } else {
        SignedDuration::ZERO
    };
    let agents = |_: &Arc<Secrets>, events: &Arc<Events>| {
        let agents = Agents::new(
            Arc::clone(world),
            clock,
            life,
            around.seat.clone(),
            Arc::clone(events),
        );
        Arc::new(agents) as Arc<dyn Caller>
    };
    made_of(Ingredients {
        settings: settings(world),
        disk,
        clock: clock.wrong_by(skew),
        random: Seeded::new(world.plan.seed, life),
        outbound: around.outbound,
        placement: around.placement,
        caller: &agents,
    })
}

/// Makes who carries out an engine's calls, of its secrets and its events.
pub(crate) type MakeCaller<'a> = dyn Fn(&Arc<Secrets>, &Arc<Events>) -> Arc<dyn Caller> + 'a;

/// What an engine is made of in a simulation.
pub(crate) struct Ingredients<'a> {
    pub(crate) settings: config::Engine,
    pub(crate) disk: &'a Arc<Disk>,
    /// What shows it the time.
    pub(crate) clock: Virtual,
    pub(crate) random: Seeded,
    pub(crate) outbound: &'a Outbound,
    pub(crate) placement: Placement,
    /// Whom it calls.
    pub(crate) caller: &'a MakeCaller<'a>,
}

/// None: this build cannot make one.
pub(crate) fn made_of(ingredients: Ingredients<'_>) -> Option<Arc<Engine>> {
    let Ingredients {
        settings,
        disk,
        clock,
        random,
        outbound,
        placement,
        caller,
    } = ingredients;
    let metrics = Metrics::new(DEFINITIONS).ok()?;
    let shutdown = Shutdown::new();
    let tasks = Tasks::unsupervised(shutdown.clone());
    let secrets = Arc::new(Secrets::new(settings.secrets.clone()));
    let clock = Arc::new(clock);
    let events = Arc::new(Events::new(
        Arc::clone(disk) as _,
        Arc::clone(&clock) as _,
        settings.events.clone(),
        tasks.clone(),
        shutdown.clone(),
    ));
    let web = Web::new(
        outbound.clone(),
        Arc::clone(&secrets),
        Arc::clone(&clock) as _,
        &settings,
    );
    Some(Arc::new(Engine::new(Parts {
        store: Arc::clone(disk) as _,
        placement,
        caller: caller(&secrets, &events),
        events,
        clock,
        random: Arc::new(random),
        settings,
        secrets,
        web: Arc::new(web),
        tracer: muster_runtime::trace::Tracer::off(),
        optimizer: muster_runtime::telemetry::Optimizer::default(),
        auditor: muster_runtime::trust::audit::Auditor::default(),
        metrics,
        tasks,
        shutdown,
    })))
}

/// Resolves when a promise is broken.
pub(crate) async fn violated(world: &World) {
    let mut news = world.witness.follow();
    while !world.witness.is_violated() {
        news.changed().await;
    }
}

/// Resolves at the instant at which a life ends, if it ends at one.
pub(crate) async fn instant(end: End) {
    match end {
        End::Killed(time) | End::Stopped(time) => tokio::time::sleep(time).await,
        _ => std::future::pending().await,
    }
}

/// Ends a life at its instant.
pub(crate) async fn stop(engine: &Engine, end: End) {
    if matches!(end, End::Stopped(_)) {
        engine.shutdown.trigger();
        engine.tasks.idle(DRAIN).await;
    }
}

/// The runs that have not ended by now never will.
pub(crate) async fn tell_stuck(world: &World, engine: &Engine, now: Timestamp) {
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
    people::live(world, &Desk::Of(Arc::clone(engine)), clock).await;
}

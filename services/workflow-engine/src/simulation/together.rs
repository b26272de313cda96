//! Several engines on one store, on one clock: each lives as its [`Career`] says, while the others go on.
//!
//! A life that ends is not dropped: its [gate](super::gate) closes, and what is left of it waits there. What it had sent to the
//! store is on its way and arrives after its end, as it may over a network; the fences are what keeps it from doing harm.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use muster_runtime::clock::Clock as _;
use muster_store::redis::members::Member;

use super::clock::Virtual;
use super::disk::Disk;
use super::life::{Around, definitions, engine, instant, runtime, stop, violated};
use super::people::{self, Desk};
use super::plan::{Career, End, Life};
use super::shared::Seat;
use super::witness::Invariant;
use super::world::{Living, World};
use crate::definitions::Definitions;
use crate::life;
use crate::off_thread::Inline;
use crate::outbound::Outbound;
use crate::placement::Placement;
use crate::replicas::Replicas;

/// By then everything has ended, or never will.
const HORIZON: Duration = Duration::from_secs(4 * 60 * 60);

/// How long a lease lasts.
const LEASE: Duration = Duration::from_secs(5);

/// Numbers of lives that one engine may have.
const LIVES: usize = 100;

/// Lives until all work is done, or a promise is broken.
pub(crate) fn live(world: &Arc<World>, outbound: &Outbound) {
    let Some(runtime) = runtime() else { return };
    let _inline = Inline::begin();
    let begin = world.progress.lock().now;
    let definitions = definitions(world);
    let end = runtime.block_on(async {
        let clock = Virtual::showing(begin);
        let careers = world.plan.engines.iter().enumerate();
        let careers = careers.map(|(index, career)| {
            let scene = Scene {
                world,
                outbound,
                definitions: &definitions,
                clock,
                index,
            };
            async move { scene.live(career).await }
        });
        tokio::select! {
            biased;
            () = violated(world) => {}
            _ = join_all(careers) => {}
            () = people::live(world, &Desk::OfMany, clock) => {}
            () = tokio::time::sleep(HORIZON) => tell_stuck(world, clock),
        }
        clock.now()
    });
    world.living.lock().clear();
    drop(runtime);
    world.progress.lock().now = end;
    world.memory.with(|state| world.witness.verify(end, state));
}

/// Where one of the engines lives.
struct Scene<'a> {
    world: &'a Arc<World>,
    outbound: &'a Outbound,
    definitions: &'a Arc<Definitions>,
    clock: Virtual,
    /// Which engine.
    index: usize,
}

impl Scene<'_> {
    async fn live(&self, career: &Career) {
        let last = Life {
            end: End::Done,
            after: Duration::ZERO,
        };
        for (number, life) in career.lives.iter().chain([&last]).enumerate() {
            self.one_life(career, number, *life).await;
            tokio::time::sleep(life.after).await;
        }
    }

    async fn one_life(&self, career: &Career, number: usize, life: Life) {
        let Self {
            world, clock, index, ..
        } = *self;
        let name = match career.moves {
            true => format!("engine-{index}-{number}"),
            false => format!("engine-{index}"),
        };
        let me = Member {
            address: name.clone(),
            name,
        };
        let life_number = index * LIVES + number;
        let freezes = career.freezes_before_calls.clone();
        let seat = Arc::new(Seat::new(
            Arc::clone(world),
            clock,
            life_number,
            me.clone(),
            freezes,
        ));
        let disk = Arc::new(Disk::new(
            Arc::clone(world),
            clock,
            Arc::clone(self.definitions),
            life_number,
            life.end,
            Some(Arc::clone(&seat)),
        ));
        let replicas = Replicas::new(Arc::clone(&seat) as _, Arc::clone(&seat) as _, me.clone(), LEASE);
        let around = Around {
            outbound: self.outbound,
            placement: Placement::shared(Arc::new(replicas)),
            seat: Some(Arc::clone(&seat)),
        };
        let Some(engine) = engine(world, &disk, clock, life_number, around) else {
            return;
        };
        world.witness.join(clock.now(), life_number, number > 0);
        life::begin(&engine);
        let living = Living {
            engine: Arc::clone(&engine),
            seat: Arc::clone(&seat),
        };
        world.living.lock().insert(me.address.clone(), living);
        tokio::select! {
            biased;
            () = disk.over() => {}
            () = instant(life.end) => stop(&engine, life.end).await,
            () = self.freeze(career, &seat) => {}
        }
        seat.gate.kill();
        world.living.lock().remove(&me.address);
        disk.lose();
        world.witness.gone(clock.now(), life_number);
    }

    /// Freezes and thaws the process when its time comes; never ends.
    async fn freeze(&self, career: &Career, seat: &Seat) {
        let since = |clock: &Virtual| Duration::try_from(clock.now().duration_since(super::world::epoch()));
        let freezes = career.freezes.iter().map(|(from, time)| async move {
            let now = since(&self.clock).unwrap_or_default();
            let Some(left) = from.checked_sub(now) else { return };
            tokio::time::sleep(left).await;
            seat.gate.freeze();
            self.stay_frozen(*time, seat).await;
        });
        let before_calls = async {
            let mut frozen = seat.frozen();
            while frozen.changed().await.is_ok() {
                let time = *frozen.borrow_and_update();
                self.stay_frozen(time.unwrap_or_default(), seat).await;
            }
        };
        tokio::join!(join_all(freezes), before_calls);
        std::future::pending::<()>().await;
    }

    async fn stay_frozen(&self, time: Duration, seat: &Seat) {
        let what = format!("life {} freezes for {time:?}", seat.life);
        self.world.witness.disturbed(self.clock.now(), &what);
        tokio::time::sleep(time).await;
        seat.gate.thaw();
    }
}

/// The runs that have not ended by now never will.
fn tell_stuck(world: &World, clock: Virtual) {
    let unfinished = world.memory.with(|state| {
        let runs = state.runs.values().map(|run| &run.summary);
        let open = runs.filter(|run| !run.status.is_final());
        open.map(|run| (run.id.clone(), run.status)).next()
    });
    let living = world.living.lock();
    let detail = match unfinished {
        Some((id, status)) => {
            let places = living.iter().map(|(name, living)| {
                let here = living.engine.placement.is_here(&id);
                format!("{name} {here} {:?}", living.engine.floor.place(&id))
            });
            let places: Vec<String> = places.collect();
            format!(
                "run {id} is {} and does not end: {}",
                status.name(),
                places.join("; ")
            )
        }
        None => "people wait for what does not come".to_owned(),
    };
    world.witness.accuse(clock.now(), Invariant::RunsEnd, detail);
}

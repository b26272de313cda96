//! What an engine does by itself as long as it lives. The same in a service and in a simulation.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::replicas::Replicas;
use crate::{children, driver, retention, stalled, timetable};

/// Begins all of it. To be done once [`driver::recover`] has put the runs of an earlier life back on the floor, where the engine
/// is alone with its store.
pub(crate) fn begin(engine: &Arc<Engine>) {
    let (tasks, events) = (&engine.tasks, &engine.events);
    let driven = Arc::clone(engine);
    tasks.essential("driver", async move {
        driver::drive(driven).await;
        Ok::<(), Infallible>(())
    });
    tasks.spawn("resume stalled runs", stalled::keep_resuming(Arc::clone(engine)));
    let told = Arc::clone(engine);
    let tell = Arc::clone(events).keep_telling(move |run| told.floor.rouse(run));
    tasks.essential("events", async move {
        tell.await;
        Ok::<(), Infallible>(())
    });
    let starting = Arc::clone(engine).keep_starting();
    tasks.essential("starts on events", async move {
        starting.await;
        Ok::<(), Infallible>(())
    });
    tasks.spawn("event retention", Arc::clone(events).keep_forgetting());
    let scheduled = Arc::clone(engine);
    tasks.essential("schedules", async move {
        timetable::drive(scheduled).await;
        Ok::<(), Infallible>(())
    });
    match engine.placement.replicas() {
        None => {
            let reunited = Arc::clone(engine);
            tasks.spawn("reconcile children", async move {
                children::reconcile(&reunited, None).await;
            });
        }
        Some(replicas) => share(engine, replicas),
    }
    let rhythms = &engine.settings.background;
    let cleaned = Arc::clone(engine);
    engine.background.spawn("cleanup", rhythms.cleanup, move || {
        let engine = Arc::clone(&cleaned);
        let retention = Duration::from_secs(engine.settings.retention_seconds);
        async move { retention::clean_up(&*engine.store, &engine.clock, retention, &engine.shutdown).await }
    });
    let watched = Arc::clone(engine);
    engine
        .background
        .spawn("collection", rhythms.collection, move || {
            watched.look_at_load();
            std::future::ready(Ok(()))
        });
    if engine.monitor.looks() {
        let watched = Arc::clone(engine);
        engine
            .background
            .spawn("performance", rhythms.performance, move || {
                let engine = Arc::clone(&watched);
                async move { engine.watch_performance().await }
            });
    }
}

/// What an engine does by itself that shares its store with others.
fn share(engine: &Arc<Engine>, replicas: &Arc<Replicas>) {
    let both = || (Arc::clone(replicas), Arc::clone(engine));
    let (shared, engine_of) = both();
    engine.tasks.essential("partitions", async move {
        shared.keep(engine_of).await;
        Ok::<(), Infallible>(())
    });
    let (shared, engine_of) = both();
    engine
        .tasks
        .spawn("events of others", shared.keep_noticing(engine_of));
    let (shared, engine_of) = both();
    engine
        .tasks
        .spawn("budgets of others", shared.keep_counting(engine_of));
}

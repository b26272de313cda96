//! Makes the engine work: brings back what the store holds, gives slots out, owns the executors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_runtime::trace::{self, FutureExt as _, Subject};
use tokio::task::{Id, JoinError, JoinSet};

use crate::engine::Engine;
use crate::executor::{Executor, sleep_until};
use crate::run::{Position, RunId, Status};
use crate::schedule::Left;
use crate::store;

/// Runs read at once after a start.
const PORTION: usize = 500;

/// How long executors may take to notice that the service stops.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// An executor at work, whose logs say whose run it is.
fn working(executor: Executor, id: &RunId) -> impl Future<Output = ()> + Send + use<> {
    let subject = Subject {
        run: Some(Arc::from(id.as_str())),
        ..Subject::default()
    };
    let working = async move {
        tracing::debug!("a run is worked on");
        executor.run().await;
        tracing::debug!("a run is worked on no more: it has ended, or waits for long");
    };
    working.with_context(trace::about(subject))
}

/// Works until the service stops.
pub(crate) async fn drive(engine: Arc<Engine>) {
    let mut work = Work::default();
    loop {
        while let Some(job) = engine.floor.next(engine.clock.now()) {
            let id = job.id.clone();
            let task = work
                .executors
                .spawn(working(Executor::new(Arc::clone(&engine), job), &id));
            work.ids.insert(task.id(), id);
        }
        engine.meter.counts(engine.floor.counts());
        let due = engine.floor.next_due().unwrap_or(Timestamp::MAX);
        tokio::select! {
            biased;
            () = engine.shutdown.requested() => break,
            Some(ended) = work.executors.join_next_with_id() => work.clear_up(&engine, ended),
            () = engine.floor.rung() => {}
            () = sleep_until(&*engine.clock, due) => {}
        }
    }
    engine.floor.close();
    let end = async { while work.executors.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_MOMENTS, end).await.is_err() {
        tracing::warn!("some runs did not stop in time; they go on after the restart");
    }
}

#[derive(Default)]
struct Work {
    executors: JoinSet<()>,
    ids: HashMap<Id, RunId>,
}

impl Work {
    /// An executor ends by itself in order; one that panicked is a defect, and its run waits for people.
    fn clear_up(&mut self, engine: &Engine, ended: Result<(Id, ()), JoinError>) {
        let (task, error) = match ended {
            Ok((task, ())) => (task, None),
            Err(error) => (error.id(), Some(error)),
        };
        let id = self.ids.remove(&task);
        if let (Some(id), Some(error)) = (id, error) {
            tracing::error!(run = %id, %error, "a defect: the run is set aside; the others go on");
            engine
                .floor
                .leave(&id, Left::SetAside(format!("a defect of the engine: {error}")));
        }
    }
}

/// Brings back everything that the store holds. To be done before new runs are accepted, so that none is put on the floor twice.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn recover(engine: &Engine) -> Result<(), store::Error> {
    engine.budgets.recover(&*engine.store, engine.clock.now()).await?;
    recover_runs(engine, None).await
}

/// Puts the runs of a partition, or all, that have not ended back on the floor, in the order in which they were accepted.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn recover_runs(engine: &Engine, partition: Option<u16>) -> Result<(), store::Error> {
    let mut after: Option<Position> = None;
    let (mut resumed, mut waiting) = (0_usize, 0_usize);
    loop {
        let page = engine
            .store
            .unfinished(partition, after.as_ref(), PORTION)
            .await?;
        for entry in page.entries {
            match entry {
                Ok(summary) if summary.status == Status::Paused && !summary.is_under_way() => {
                    waiting += 1;
                    engine.floor.prepare(|schedule| schedule.hold(summary.newcomer()));
                }
                Ok(summary) if !summary.is_under_way() => {
                    waiting += 1;
                    engine
                        .floor
                        .prepare(|schedule| schedule.restore(summary.newcomer()));
                }
                Ok(summary) => {
                    resumed += 1;
                    engine
                        .floor
                        .prepare(|schedule| schedule.resume(summary.newcomer()));
                }
                Err((id, error)) => {
                    tracing::error!(run = %id, %error, "the run is damaged and set aside; the others go on");
                    engine
                        .floor
                        .prepare(|schedule| schedule.set_aside(id, error.to_string()));
                }
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if resumed + waiting > 0 {
        tracing::info!(resumed, waiting, partition, "runs of an earlier life go on");
    }
    Ok(())
}

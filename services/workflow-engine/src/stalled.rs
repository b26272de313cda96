//! Runs that the store did not let go on: set aside with its reason, and taken up again when it takes writes.
//!
//! Such a run is well: its journal is whole, and its calls in flight are under way. It is left without a word to those whom it
//! called, and goes on from its journal with the same calls under the same ids. A store that never recovers, as one whose file
//! could not be written, leaves it where it is.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::Engine;
use crate::run::RunId;

/// How often the store is asked whether it is well.
const PAUSE: Duration = Duration::from_secs(1);

/// The runs that wait for the store.
#[derive(Debug, Default)]
pub(crate) struct Stalled {
    runs: Mutex<Vec<RunId>>,
    rung: Notify,
}

impl Stalled {
    /// A run was set aside because of the store.
    pub(crate) fn add(&self, run: RunId) {
        self.runs.lock().push(run);
        self.rung.notify_one();
    }
}

/// Takes them up again, until the service stops.
pub(crate) async fn keep_resuming(engine: Arc<Engine>) {
    loop {
        tokio::select! {
            biased;
            () = engine.shutdown.requested() => return,
            () = engine.stalled.rung.notified() => {}
        }
        loop {
            tokio::select! {
                biased;
                () = engine.shutdown.requested() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            if engine.store.takes_steps().is_err() {
                continue;
            }
            let runs = std::mem::take(&mut *engine.stalled.runs.lock());
            if runs.is_empty() {
                break;
            }
            tracing::info!(count = runs.len(), "the store is well again; runs go on");
            for run in runs {
                engine.floor.take_up(&run);
            }
        }
    }
}

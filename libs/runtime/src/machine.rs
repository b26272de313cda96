//! Checks of the machine that every service runs on: memory and disk.
//!
//! The system is asked on a thread that may block, and a disk that does not answer holds that thread. So one check
//! runs at a time: who asks meanwhile waits for the same answer.

use std::path::Path;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use sysinfo::{Disks, System};
use tokio::task::AbortHandle;

type Outcome = Result<(), String>;

/// A check that blocks its thread.
pub(crate) struct Blocking {
    ask: Arc<dyn Fn() -> Outcome + Send + Sync>,
    running: Mutex<Option<Run>>,
}

struct Run {
    thread: AbortHandle,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

impl Blocking {
    pub(crate) fn new(ask: impl Fn() -> Outcome + Send + Sync + 'static) -> Self {
        Self {
            ask: Arc::new(ask),
            running: Mutex::new(None),
        }
    }

    /// The outcome of the run in progress, or of a new one.
    pub(crate) fn outcome(&self) -> Shared<BoxFuture<'static, Outcome>> {
        let mut running = self.running.lock();
        if let Some(run) = running.as_ref().filter(|run| !run.thread.is_finished()) {
            return run.outcome.clone();
        }
        let ask = Arc::clone(&self.ask);
        let thread = tokio::task::spawn_blocking(move || ask());
        let run = running.insert(Run {
            thread: thread.abort_handle(),
            outcome: thread
                .map(|ended| ended.unwrap_or_else(|error| Err(error.to_string())))
                .boxed()
                .shared(),
        });
        run.outcome.clone()
    }
}

/// Whether a tenth of the memory is free.
pub(crate) fn memory_left() -> Outcome {
    let mut system = System::new().map_err(|error| error.to_string())?;
    system.refresh_memory();
    let (used, total) = (system.used_memory(), system.total_memory());
    if total > 0 && used / 9 > total / 10 {
        return Err(format!(
            "{} of {} MiB in use, more than 90 %",
            used >> 20,
            total >> 20
        ));
    }
    Ok(())
}

/// As much as a service writes in days, in bytes. A tenth of a large disk that others fill is more than it ever needs.
const ENOUGH_DISK: u64 = 4 << 30;

/// Whether a tenth of the disk under `path` is free, or [`ENOUGH_DISK`].
pub(crate) fn disk_left(path: &Path) -> Outcome {
    let path = path
        .canonicalize()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let disks = Disks::new_with_refreshed_list().map_err(|error| error.to_string())?;
    let Some(disk) = disks
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
    else {
        return Ok(()); // a container's overlay that the system does not list
    };
    let (free, total) = (disk.available_space(), disk.total_space());
    if total > 0 && is_short(free, total) {
        return Err(format!(
            "{}: {} of {} MiB free, less than 10 % and less than {} MiB",
            path.display(),
            free >> 20,
            total >> 20,
            ENOUGH_DISK >> 20
        ));
    }
    Ok(())
}

fn is_short(free: u64, total: u64) -> bool {
    free < total / 10 && free < ENOUGH_DISK
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_large_disk_that_is_almost_full_has_enough_for_a_service() {
        const GIB: u64 = 1 << 30;
        assert!(!is_short(4 * GIB, 1_000 * GIB));
        assert!(is_short(4 * GIB - 1, 1_000 * GIB));
        assert!(!is_short(GIB, 10 * GIB), "a tenth of a small one");
        assert!(is_short(GIB - 1, 10 * GIB));
    }

    #[tokio::test]
    async fn a_check_that_hangs_holds_one_thread_however_often_it_is_asked() {
        let runs = Arc::new(AtomicUsize::new(0));
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let counted = Arc::clone(&runs);
        let check = Blocking::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            held.lock().recv().map_err(|error| error.to_string())
        });
        let first = check.outcome();
        drop(check.outcome()); // whoever asked gave up
        let third = check.outcome();
        release.send(()).unwrap();
        assert_eq!((first.await, third.await), (Ok(()), Ok(())));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        release.send(()).unwrap();
        assert_eq!(check.outcome().await, Ok(()), "the next one runs again");
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }
}

//! The places that processes may have at once, and the line before them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module. Whoever asked first gets the next place.
pub(super) struct Places {
    free: Arc<Semaphore>,
    next: AtomicU64,
    waiting: Mutex<BTreeSet<u64>>,
}

/// A turn in the line, which is left when this is dropped.
pub(super) struct Turn {
    places: Arc<Places>,
    number: u64,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// A place, if one is free and nobody waits.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    pub(super) fn line_up(self: &Arc<Self>) -> Turn {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().insert(number);
        Turn {
            places: Arc::clone(self),
            number,
        }
    }
}

impl Turn {
    /// Tells how many are before it.
    pub(super) fn ahead(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let (places, number) = (Arc::clone(&self.places), self.number);
        move || places.waiting.lock().range(..number).count()
    }

    /// Waits for the place; none once there are no places any more.
    pub(super) async fn come(self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places.free).acquire_owned().await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.places.waiting.lock().remove(&self.number);
    }
}
